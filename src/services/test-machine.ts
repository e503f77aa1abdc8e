/**
 * A machine of its own for tests of transfers: a store, a cache, and no patience.
 *
 * @module
 */

import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

import type { FakeRegistry } from "../registry/fake-registry.ts"
import type { Device } from "../runner/devices.ts"
import { blobFilePath, parseDigest } from "../store/digest.ts"
import { openStore } from "../store/folder-store.ts"
import { manifestPath, type ModelName, parseName } from "../store/name.ts"
import { TestStore } from "../store/test-store.ts"
import { CriaError } from "../util/errors.ts"
import type { Progress } from "./progress.ts"
import { Transfers } from "./transfer.ts"

/** A store with transfers that are not patient. */
export class Machine implements AsyncDisposable {
  readonly folder = new TestStore()
  readonly store = openStore(this.folder.root, { readOnly: false })
  readonly cache = join(this.folder.root, "cache")
  readonly transfers: Transfers
  signatures = 0

  constructor(
    options: {
      devices?: Device[]
      registries?: string[]
      isOffline?: boolean
      tries?: number
      stallMs?: number
      pauseMs?: number
      stealMs?: number
      replyMs?: number
      sendMs?: number
      storeMs?: number
      bodyMs?: number
      /** Of Hugging Face, and the host that is it. */
      token?: string
      mirror?: string
      /** Whether the user has one. */
      key?: "none"
    } = {},
  ) {
    const { registries = [], isOffline = false, stallMs = 60_000, pauseMs = 1 } = options
    const {
      tries = 4,
      stealMs = 60_000,
      replyMs = 5000,
      sendMs = 5000,
      storeMs = 5000,
      bodyMs = 5000,
    } = options
    this.transfers = new Transfers({
      stores: { own: this.store, folders: [this.store], all: this.store },
      network: { userAgent: "cria/test", replyMs, sendMs, storeMs, bodyMs },
      auth: {
        credential: () => Promise.resolve(undefined),
        identity: () => {
          this.signatures++
          if (options.key === "none")
            throw new CriaError("unavailable", 'Cannot write the key "/k"')
          return { path: "/k", isNew: false, publicKey: "key", sign: () => "signature" }
        },
        realms: [],
      },
      cache: this.cache,
      hub: { token: options.token, mirror: options.mirror },
      hardware: {
        cacheType: "f16",
        devices: () => Promise.resolve(options.devices ?? []),
      },
      policy: { registries, isOffline, keepsUnused: false },
      patience: { tries, pauseMs, pauseMsMax: 200, stallMs, stealMs },
    })
  }

  pull(name: string, signal?: AbortSignal): Promise<Progress[]> {
    return Array.fromAsync(this.transfers.pull(name, { insecure: true, signal }))
  }

  push(name: string): Promise<Progress[]> {
    return Array.fromAsync(this.transfers.push(name, { insecure: true }))
  }

  parse(name: string): ModelName {
    return parseName(name)
  }

  /** The installed manifest. */
  manifest(name: string): Buffer {
    return readFileSync(manifestPath(this.store.root, parseName(name)))
  }

  blob(digest = ""): Buffer {
    return readFileSync(this.path(digest))
  }

  path(digest: string): string {
    return blobFilePath(this.store.root, parseDigest(digest))
  }

  /** Names in the folder of blobs. */
  files(): string[] {
    const folder = join(this.store.root, "blobs")
    return existsSync(folder) ? readdirSync(folder).toSorted() : []
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.transfers[Symbol.asyncDispose]()
    this.folder[Symbol.dispose]()
  }
}

/** All different ones, in order. */
export function statuses(progress: readonly Progress[]): string[] {
  return [...new Set(progress.map(({ status }) => status))]
}

/** Whether no blob's progress ever went back. */
export function isMonotonic(progress: readonly Progress[]): boolean {
  const last = new Map<string, number>()
  return progress.every(({ digest = "", completed = 0 }) => {
    const isForward = completed >= (last.get(digest) ?? 0)
    last.set(digest, completed)
    return isForward
  })
}

/** The reply of a registry that wants a token of its own. */
export function challenge(registry: FakeRegistry): Response {
  return new Response(null, {
    status: 401,
    headers: {
      "WWW-Authenticate": `Bearer realm="${registry.origin}/token",service="s",scope="repository:me/m:pull,push"`,
    },
  })
}
