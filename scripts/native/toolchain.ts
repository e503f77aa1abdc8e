/**
 * Finds the programs that a build needs and says which package brings a missing one.
 *
 * @module
 */

import { existsSync } from "node:fs"

import { run } from "./process.ts"

/** Something a build needs. */
export interface Requirement {
  /** What it is, for people. */
  readonly what: string
  /** Programs, any of which will do. */
  readonly programs?: readonly string[]
  /** Files, any of which will do. */
  readonly files?: readonly string[]
  readonly debian: string
  readonly mac: string
}

/** Every variant needs these. */
export const BASE: readonly Requirement[] = [
  { what: "git", programs: ["git"], debian: "git", mac: "xcode-select --install" },
  { what: "CMake 3.14 or newer", programs: ["cmake"], debian: "cmake", mac: "brew install cmake" },
  {
    what: "a C++17 compiler",
    programs: ["c++", "g++", "clang++"],
    debian: "g++",
    mac: "xcode-select --install",
  },
  {
    what: "ninja or make",
    programs: ["ninja", "make"],
    debian: "ninja-build",
    mac: "brew install ninja",
  },
]

/** @throws {Error} That lists everything missing at once. */
export function requireTools(requirements: readonly Requirement[]): void {
  const missing = requirements.filter((requirement) => !isMet(requirement))
  if (missing.length === 0) return
  const lines = missing.map(({ what, debian, mac }) => {
    const install = process.platform === "darwin" ? mac : `apt-get install ${debian}`
    return `  ${what}: ${install}`
  })
  throw new Error(`Cannot build the native libraries, missing:\n${lines.join("\n")}`)
}

/** Name and version of the compiler: part of what decides whether a cached build fits. */
export async function compilerVersion(): Promise<string> {
  const command = Bun.which("c++") ?? Bun.which("g++") ?? "clang++"
  const text = await run(command, ["--version"])
  return text.split("\n")[0] ?? ""
}

/** The system's OpenMP runtime, which ships beside the libraries on Linux. */
export async function openmpRuntime(): Promise<string> {
  const path = (await run("c++", ["-print-file-name=libgomp.so.1"])).trim()
  if (path.includes("/")) return path
  throw new Error("Cannot find libgomp.so.1, the OpenMP runtime: apt-get install libgomp1")
}

function isMet({ programs = [], files = [] }: Requirement): boolean {
  const hasProgram =
    programs.length === 0 || programs.some((program) => Bun.which(program) !== null)
  const hasFile = files.length === 0 || files.some((file) => existsSync(file))
  return hasProgram && hasFile
}
