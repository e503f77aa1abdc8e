/**
 * Builds the single executable: `dist/cria-<os>-<arch>/cria`, with the native libraries beside it and a copy inside.
 *
 *   bun scripts/build.ts [--variant cpu] [--from source|prebuilt|any] [--archive]
 *
 * The libraries beside the executable are used when they are there; otherwise those inside are unpacked to the cache
 * once.
 *
 * @module
 */

import { createHash } from "node:crypto"
import { cpSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"

import { ensureNative, type Origin } from "./build-native.ts"
import { run } from "./native/process.ts"
import { Stages } from "./native/progress.ts"

const ROOT = join(import.meta.dirname, "..")

const OS_NAMES: Readonly<Record<string, string>> = {
  linux: "linux",
  darwin: "macos",
  win32: "windows",
}

/** Folder of the executable for this platform. */
export function outputFolder(): string {
  return join(
    ROOT,
    "dist",
    `cria-${OS_NAMES[process.platform] ?? process.platform}-${process.arch}`,
  )
}

/** Builds the executable. @returns Its path. */
export async function build(variant: string, from: Origin | "any"): Promise<string> {
  const native = await ensureNative(variant, from)
  const folder = outputFolder()
  const executable = join(folder, process.platform === "win32" ? "cria.exe" : "cria")
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(join(folder, "native"), { recursive: true })
  cpSync(native, join(folder, "native", variant), { recursive: true })
  for (const file of ["README.md", "LICENSE"]) cpSync(join(ROOT, file), join(folder, file))
  await compile(executable, native, variant)
  return executable
}

async function compile(executable: string, native: string, variant: string): Promise<void> {
  // The bundler embeds a folder under its own name: native/<variant>/….
  const stage = join(ROOT, "dist/stage")
  rmSync(stage, { recursive: true, force: true })
  cpSync(native, join(stage, "native", variant), { recursive: true })
  const result = await Bun.build({
    entrypoints: [join(ROOT, "src/main.ts")],
    compile: {
      outfile: executable,
      // Files of the folder that cria happens to be started in must not change it.
      autoloadDotenv: false,
      autoloadBunfig: false,
      assets: [join(stage, "native")],
    },
    minify: { syntax: true, whitespace: true },
    bytecode: true,
    throw: false,
  })
  rmSync(stage, { recursive: true, force: true })
  if (!result.success) throw new Error(result.logs.map(String).join("\n"))
}

/** Packs the folder, with the checksum beside the archive. @returns Path of the archive. */
async function archive(): Promise<string> {
  const folder = outputFolder()
  const path = `${folder}.tar.gz`
  await run("tar", [
    "-czf",
    path,
    "-C",
    join(folder, ".."),
    folder.slice(folder.lastIndexOf("/") + 1),
  ])
  const digest = createHash("sha256").update(readFileSync(path)).digest("hex")
  writeFileSync(`${path}.sha256`, `${digest}  ${path.slice(path.lastIndexOf("/") + 1)}\n`)
  return path
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      variant: { type: "string", default: "cpu" },
      from: { type: "string", default: "source" },
      archive: { type: "boolean", default: false },
    },
  })
  const { variant, from } = values
  if (from !== "source" && from !== "prebuilt" && from !== "any") {
    throw new Error(`--from is "${from}", expected source, prebuilt or any`)
  }
  const stages = new Stages(values.archive ? 3 : 2)
  const executable = await stages.run("compile the executable", () => build(variant, from))
  await stages.run("try it", () => run(executable, ["--version"]))
  report(executable)
  if (values.archive) report(await stages.run("pack it", archive))
}

function report(path: string): void {
  console.log(`${path} (${(statSync(path).size / 1e6).toFixed(1)} MB)`)
}

if (import.meta.main) {
  await main().catch((error: unknown) => {
    console.error(error instanceof Error ? error.message : String(error))
    process.exit(1)
  })
}
