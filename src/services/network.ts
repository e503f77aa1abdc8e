/**
 * How this machine speaks to registries, by its settings.
 *
 * @module
 */

import { homedir } from "node:os"
import { join } from "node:path"

import type { Config } from "../config.ts"
import type { Network } from "../registry/http.ts"
import { readRegularFile } from "../store/files.ts"
import { VERSION } from "../version.ts"

/** Registries that do not answer within this are given up. */
const REPLY_MS = 30_000

/** So long a slow line that is shared by many parts may take none of one of them. */
const SEND_MS = 60_000

/** Registries with a slow storage copy a large blob when it is finished, and answer when that is done. */
const STORE_MS = 15 * 60_000

/** Manifests, lists and tokens are at most some megabytes. */
const BODY_MS = 60_000

/** All authorities of a system are some 300 kB. */
const CA_BYTES_MAX = 16 * 2 ** 20

/** @throws {CriaError} When the file of certificate authorities cannot be read. */
export function networkOf({ caFile }: Pick<Config, "caFile">): Network {
  const ca =
    caFile === undefined ? undefined : readRegularFile(caFile, CA_BYTES_MAX).bytes.toString("utf8")
  return {
    userAgent: userAgent(),
    ca,
    replyMs: REPLY_MS,
    sendMs: SEND_MS,
    storeMs: STORE_MS,
    bodyMs: BODY_MS,
  }
}

/** Files that may hold the user's key: Ollama's, then our own, which is made when there is none. */
export function keyFiles(): string[] {
  return [join(homedir(), ".ollama/id_ed25519"), join(homedir(), ".cria/id_ed25519")]
}

/** In the form that registries know from Ollama. */
function userAgent(): string {
  return `cria/${VERSION} (${process.arch} ${process.platform}) Bun/${process.versions["bun"] ?? ""}`
}
