/**
 * One writer at a time decides what a store holds, in whichever process it runs.
 *
 * The lock is one that the operating system takes back when its owner dies, however it dies: a SQLite transaction on
 * an empty file, because that is the one such lock that works the same on every platform without native code of ours.
 * It is held for the milliseconds in which a manifest appears or goes, never while bytes are fetched or written.
 *
 * @module
 */
import { constants, Database } from "bun:sqlite"
import { existsSync, mkdirSync, rmSync } from "node:fs"
import { basename, dirname, join } from "node:path"
import { setTimeout as delay } from "node:timers/promises"

import { CriaError } from "../util/errors.ts"
import { type Digest, digestFileName } from "./digest.ts"
import { cannotWrite } from "./durable.ts"

/** Beside `manifests` and `blobs`, where Ollama looks at nothing. */
const LOCK_FILE = ".cria.lock"

/** Beside it, a file for each blob that is being fetched. */
const LOCKS_FOLDER = ".cria-locks"

const SQLITE_OK = 0

/** Between two attempts. Owners are done in 1 to 50 ms. */
const RETRY_MS = 5

/** Removing a model of hundreds of gigabytes can take a slow disk so long. */
const WAIT_MS_MAX = 60_000

/**
 * Runs `body` while nobody else, in this process or another, runs one for the same store.
 *
 * @throws {CriaError} `busy` after a minute, `unavailable` when the folder cannot be written.
 */
export async function withStoreLock<T>(
  root: string,
  body: () => T,
  options: { readonly signal?: AbortSignal | undefined } = {},
): Promise<T> {
  using lock = openLock(root)
  const deadline = performance.now() + WAIT_MS_MAX
  while (!tryLock(lock)) {
    if (performance.now() > deadline) {
      const hint = "Another process changes this store; end it or wait"
      throw new CriaError("busy", `Cannot lock the store "${root}"`, { hint })
    }
    // Waiting is the point of the loop.
    // oxlint-disable-next-line no-await-in-loop
    await delay(RETRY_MS, undefined, { signal: options.signal })
  }
  // Closing ends the transaction, whichever way `body` ends.
  return body()
}

/** A lock that is held. Dispose it to let go. */
export type FileLock = Disposable

/**
 * Takes the lock on the partial file of a blob, for as long as its bytes are fetched.
 *
 * @returns Undefined when somebody else has it, in this process or another.
 * @throws {CriaError} `unavailable` when the folder cannot be written.
 */
export function tryFileLock(root: string, digest: Digest): FileLock | undefined {
  const path = join(root, LOCKS_FOLDER, digestFileName(digest))
  const lock = openLock(dirname(path), basename(path))
  try {
    if (tryLock(lock) && !hasMoved(lock)) {
      return {
        [Symbol.dispose]() {
          removeOpen(path)
          lock.close()
        },
      }
    }
  } catch (error) {
    // SQLite may stumble over the same thing.
    if (!hasMoved(lock)) throw error
  }
  lock.close()
  return undefined
}

/** Whether whoever had the lock before has removed the file since it was opened: then this is a lock on nothing. */
function hasMoved(lock: Database): boolean {
  const answer = new Int32Array(2)
  const code = lock.fileControl(constants.SQLITE_FCNTL_HAS_MOVED, answer)
  // Where SQLite cannot tell, nobody can remove a file that is open.
  return code === SQLITE_OK ? answer[0] !== 0 : !existsSync(lock.filename)
}

function removeOpen(path: string): void {
  try {
    rmSync(path, { force: true })
  } catch {
    // Windows removes no open file: the next one who wants the lock takes this one.
  }
}

function openLock(folder: string, name: string = LOCK_FILE): Database {
  try {
    mkdirSync(folder, { recursive: true })
    const lock = new Database(join(folder, name), { create: true, readwrite: true })
    lock.run("PRAGMA busy_timeout = 0")
    return lock
  } catch (error) {
    throw cannotWrite(join(folder, name), error)
  }
}

function tryLock(lock: Database): boolean {
  try {
    lock.run("BEGIN EXCLUSIVE")
    return true
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "SQLITE_BUSY") return false
    throw cannotWrite(lock.filename, error)
  }
}
