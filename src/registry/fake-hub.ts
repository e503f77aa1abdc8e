/**
 * Hugging Face's own API, for {@link FakeRegistry}: the list of a repository's files, and the files.
 *
 * @module
 */

import { hash } from "node:crypto"

/** Files of fewer bytes are in no large-file storage, and have no digest. */
const LARGE_BYTES = 100

/**
 * Answers a request for a list or a file; undefined for requests of another kind.
 *
 * @param files Contents by `user/repository/path`.
 * @param storage Where the registry of this origin sends those who want a file.
 */
export function hubReply(
  { url, headers }: Request,
  files: ReadonlyMap<string, Uint8Array>,
  storage: string | undefined,
): Response | undefined {
  const { pathname } = new URL(url)
  const [, listed] = /^\/api\/models\/([^/]+\/[^/]+)\/tree\/main$/.exec(pathname) ?? []
  if (listed !== undefined) return listReply(listed, files)
  const [, repository, path] = /^\/([^/]+\/[^/]+)\/resolve\/main\/(.+)$/.exec(pathname) ?? []
  if (repository === undefined || path === undefined) return undefined
  const bytes = files.get(`${repository}/${decodeURIComponent(path)}`)
  if (bytes === undefined) return new Response("Entry not found", { status: 404 })
  if (storage !== undefined) {
    return new Response(null, { status: 302, headers: { Location: `${storage}${pathname}` } })
  }
  return askedFor(bytes, headers)
}

function listReply(repository: string, files: ReadonlyMap<string, Uint8Array>): Response {
  const own = [...files].filter(([path]) => path.startsWith(`${repository}/`))
  if (own.length === 0) return Response.json({ error: "Repository not found" }, { status: 404 })
  const entries = own.map(([path, bytes]) => ({
    type: "file",
    path: path.slice(repository.length + 1),
    size: bytes.length,
    ...(bytes.length < LARGE_BYTES
      ? {}
      : { lfs: { oid: hash("sha256", bytes, "hex"), size: bytes.length } }),
  }))
  return Response.json([{ type: "directory", path: "folder", size: 0 }, ...entries])
}

/** All of a content, or the range that is asked for. */
export function askedFor(bytes: Uint8Array, headers: Headers): Response {
  const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(headers.get("Range") ?? "") ?? []
  if (from === undefined) return new Response(bytes)
  return rangeReply(bytes, Number(from), Number(to) + 1)
}

/** A reply with a part of a content. */
export function rangeReply(bytes: Uint8Array, start: number, end: number): Response {
  return new Response(bytes.subarray(start, end), {
    status: 206,
    headers: {
      "Content-Range": `bytes ${start}-${Math.min(end, bytes.length) - 1}/${bytes.length}`,
    },
  })
}
