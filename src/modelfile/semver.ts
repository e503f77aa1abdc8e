/**
 * Versions in the REQUIRES command.
 *
 * @module
 */

import { CriaError } from "../util/errors.ts"

/**
 * A version without its leading `v`.
 *
 * @throws {CriaError} `invalid-input` in Ollama's words when it is none.
 */
export function semverOf(text: string): string {
  const version = text.trim().replace(/^v/, "")
  const isVersion = /^\d{1,9}(\.\d{1,9}){0,2}(-[\w.-]+)?(\+[\w.-]+)?$/.test(version)
  if (isVersion && version.length <= 100) return version
  throw new CriaError("invalid-input", "requires must be a valid semver (e.g. 0.14.0)", {
    hint: `Write a version such as 0.14.0 instead of ${JSON.stringify(text.slice(0, 100))}`,
  })
}
