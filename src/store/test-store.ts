/**
 * Stores in temporary folders, for tests.
 *
 * @module
 */
import { hash } from "node:crypto"
import { mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"

import { blobFilePath, type Digest, parseDigest } from "./digest.ts"
import { MEDIA_TYPES } from "./manifest.ts"
import { manifestPath, parseName } from "./name.ts"

/** A layer as it stands in a manifest file. */
export interface TestLayer {
  readonly mediaType: string
  readonly digest: Digest
  readonly size: number
  readonly from?: string
}

/** A store folder that disappears with its owner. */
export class TestStore implements Disposable {
  readonly root: string = mkdtempSync(join(tmpdir(), "cria-store-"))

  /** Writes a file below the root, whatever its path means, and returns its path. */
  write(path: string, content: string): string {
    const file = join(this.root, path)
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, content)
    return file
  }

  /** Writes a blob and returns the layer that refers to it. */
  blob(mediaType: string, content: string): TestLayer {
    const digest = parseDigest(`sha256:${hash("sha256", content, "hex")}`)
    const file = blobFilePath(this.root, digest)
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, content)
    return { mediaType, digest, size: Buffer.byteLength(content) }
  }

  /** Installs a model with a config and the given layers; returns the path of its manifest. */
  model(text: string, layers: readonly TestLayer[], config: object = {}): string {
    const file = manifestPath(this.root, parseName(text))
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(
      file,
      manifestText({ config: this.blob(MEDIA_TYPES.config, JSON.stringify(config)), layers }),
    )
    return file
  }

  /** Installs a model of one weights layer, last written at a time in milliseconds since 1970. */
  weights(text: string, modifiedAtMs: number = Date.UTC(2026, 0, 1)): string {
    const file = this.model(text, [this.blob(MEDIA_TYPES.model, `weights of ${text}`)])
    utimesSync(file, modifiedAtMs / 1000, modifiedAtMs / 1000)
    return file
  }

  [Symbol.dispose](): void {
    rmSync(this.root, { recursive: true, force: true })
  }
}

/** The text of a manifest file: the fields that all have, and these. */
export function manifestText(fields: object): string {
  const head = { schemaVersion: 2, mediaType: MEDIA_TYPES.manifest }
  return `${JSON.stringify({ ...head, ...fields })}\n`
}
