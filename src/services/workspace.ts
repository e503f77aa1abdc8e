/**
 * A folder inside the store for the time of one operation, where blobs have the names of the files that they were.
 *
 * @module
 */

import { linkSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from "node:fs"
import { dirname, join, normalize, sep } from "node:path"

import { TEMPORARY_FOLDER } from "../store/prune.ts"
import { assert, CriaError } from "../util/errors.ts"

/** Disposing it removes the folder; one that a crash leaves is removed by a prune. */
export class Workspace implements Disposable {
  readonly path: string

  /** @param root Of the store. */
  constructor(root: string) {
    mkdirSync(root, { recursive: true })
    this.path = mkdtempSync(join(root, TEMPORARY_FOLDER))
  }

  /** Gives a blob a name in the folder; returns its path. The name is one that {@link checkFileName} has passed. */
  add(name: string, blobPath: string): string {
    const path = join(this.path, name)
    assert(path.startsWith(this.path + sep), `"${name}" stays in the folder`)
    mkdirSync(dirname(path), { recursive: true })
    try {
      // What reads the folder refuses symbolic links that leave it.
      linkSync(blobPath, path)
    } catch {
      symlinkSync(blobPath, path)
    }
    return path
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true })
  }
}

/**
 * Checks the name of a file that a request names.
 *
 * @throws {CriaError} `invalid-input` when it could mean a file elsewhere.
 */
export function checkFileName(name: string): void {
  const isPlain =
    name !== "" &&
    !/[\\\0:]/.test(name) &&
    name.split("/").every((part) => part !== "" && part !== "." && part !== "..") &&
    normalize(name) === name.split("/").join(sep)
  if (isPlain) return
  const hint = `Write a path such as "model.gguf" or "text/config.json" instead of ${JSON.stringify(name.slice(0, 100))}`
  throw new CriaError("invalid-input", "file path must be relative", { hint })
}
