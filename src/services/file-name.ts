/**
 * Names of files as a request gives them, relative to the folder that they were in.
 *
 * @module
 */

import { normalize, sep } from "node:path"

import { CriaError } from "../util/errors.ts"

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
