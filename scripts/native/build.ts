/**
 * The three steps of a build: llama.cpp's libraries (from source, or out of a prebuilt package), our shim against
 * them, and all of it collected into one relocatable folder.
 *
 * @module
 */

import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  rmSync,
} from "node:fs"
import { availableParallelism } from "node:os"
import { join } from "node:path"

import { run } from "./process.ts"
import { SOURCE_FOLDER } from "./source.ts"
import { openmpRuntime } from "./toolchain.ts"
import { COMMON_FLAGS, type Variant } from "./variants.ts"

const ROOT = join(import.meta.dirname, "../..")

/** Report of how far a build is, from 0 to 1. */
type Progress = (fraction: number) => void

const LIBRARY = /^lib(ggml(-[\w-]+)?|llama|llama-common)(\.[\w.]+)?\.(so|dylib)$/

/** ccache finds objects again in another checkout only when paths are relative to it. */
const CCACHE = { CCACHE_BASEDIR: ROOT, CCACHE_NOHASHDIR: "true" }

/** Where CMake works; kept, so that a second build is incremental. */
export function buildFolder(variant: string): string {
  return join(ROOT, "dist/build", variant)
}

/** Builds llama.cpp's libraries, and with `peers` its own server and bench tool for comparison. */
export async function buildLlama(
  name: string,
  variant: Variant,
  options: { peers: boolean; progress: Progress },
): Promise<string> {
  const folder = buildFolder(name)
  const tools = ["-DLLAMA_BUILD_TOOLS=ON", "-DLLAMA_BUILD_SERVER=ON"]
  const noTools = ["-DLLAMA_BUILD_TOOLS=OFF", "-DLLAMA_BUILD_SERVER=OFF"]
  await run("cmake", [
    "-S",
    SOURCE_FOLDER,
    "-B",
    folder,
    ...generator(),
    ...COMMON_FLAGS,
    ...variant.flags,
    ...(options.peers ? tools : noTools),
  ])
  const targets = [
    "ggml",
    "llama",
    "llama-common",
    ...(options.peers ? ["llama-bench", "llama-server", "llama-quantize"] : []),
  ]
  await cmakeBuild(folder, targets, options.progress)
  return join(folder, "bin")
}

/**
 * Compiles the shim against the libraries of a folder.
 *
 * @param hasOpenmp Those compute with OpenMP.
 * @returns Path of the shared library.
 */
export async function buildShim(
  libraries: string,
  folder: string,
  options: { hasOpenmp: boolean; progress: Progress },
): Promise<string> {
  await run("cmake", [
    "-S",
    join(ROOT, "ffi/native"),
    "-B",
    folder,
    ...generator(),
    `-DLLAMA_SOURCE=${SOURCE_FOLDER}`,
    `-DLLAMA_LIBS=${libraries}`,
    `-DCRIA_OPENMP=${options.hasOpenmp ? "ON" : "OFF"}`,
  ])
  await cmakeBuild(folder, ["cria"], options.progress)
  const name = readdirSync(folder).find((file) => /^libcria\.(so|dylib)$/.test(file))
  if (name === undefined)
    throw new Error(`The shim was built, but there is no libcria in ${folder}`)
  return join(folder, name)
}

/** Copies llama.cpp's libraries, and the OpenMP runtime when they need it, into an empty folder. */
export async function collectLibraries(
  from: string,
  to: string,
  hasOpenmp: boolean,
): Promise<void> {
  rmSync(to, { recursive: true, force: true })
  mkdirSync(to, { recursive: true })
  for (const file of readdirSync(from)) {
    if (LIBRARY.test(file)) copyFileSync(realpathSync(join(from, file)), join(to, file))
  }
  if (!hasOpenmp) return
  copyFileSync(realpathSync(await openmpRuntime()), join(to, "libgomp.so.1"))
}

/** Unpacks the libraries of a prebuilt package. */
export async function unpackPrebuilt(tarball: string, inner: string, to: string): Promise<string> {
  const staging = `${to}.unpacked`
  rmSync(staging, { recursive: true, force: true })
  mkdirSync(staging, { recursive: true })
  await run("tar", ["-xzf", tarball, "-C", staging])
  await collectLibraries(join(staging, inner), to, false)
  rmSync(staging, { recursive: true, force: true })
  return to
}

/** Copies a finished folder over another. */
export function replaceFolder(from: string, to: string): void {
  rmSync(to, { recursive: true, force: true })
  cpSync(from, to, { recursive: true })
}

function generator(): string[] {
  return Bun.which("ninja") === null ? [] : ["-G", "Ninja"]
}

async function cmakeBuild(
  folder: string,
  targets: readonly string[],
  progress: Progress,
): Promise<void> {
  const jobs = String(availableParallelism())
  const onLine = (line: string) => {
    const [, done, total] = /^\[(\d+)\/(\d+)\]/.exec(line) ?? []
    const [, percent] = /^\[\s*(\d+)%\]/.exec(line) ?? []
    if (done !== undefined && total !== undefined) progress(Number(done) / Number(total))
    else if (percent !== undefined) progress(Number(percent) / 100)
  }
  const build = ["--build", folder, "--parallel", jobs, "--target", ...targets]
  await run("cmake", build, {
    env: existsSync("/usr/bin/ccache") || Bun.which("ccache") ? CCACHE : {},
    onLine,
  })
}
