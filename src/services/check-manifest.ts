/**
 * What no model can be made of, although its manifest can be read.
 *
 * @module
 */

import type { Digest } from "../store/digest.ts"
import { type Manifest, MEDIA_TYPES } from "../store/manifest.ts"
import { CriaError } from "../util/errors.ts"

/**
 * Checks a manifest from somewhere else.
 *
 * @param action What cannot be done: begins the message.
 * @throws {CriaError} `unavailable`.
 */
export function checkManifest({ layers, config }: Manifest, action: string): void {
  if (layers.length === 0) {
    throw new CriaError("unavailable", `${action}: its manifest has no layers`)
  }
  if (layers.some(({ mediaType }) => mediaType === MEDIA_TYPES.tensor)) {
    const text = "this model requires MLX support, but the MLX runtime is not available"
    throw new CriaError("unavailable", text)
  }
  const sizes = new Map<Digest, number>()
  for (const { digest, size } of [...layers, config]) {
    if ((sizes.get(digest) ?? size) !== size) {
      throw new CriaError("unavailable", `${action}: its manifest gives two sizes for ${digest}`)
    }
    sizes.set(digest, size)
  }
}
