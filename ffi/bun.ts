/**
 * Bindings for Bun. The only file that knows `bun:ffi`.
 *
 * @module
 */

import { dlopen, FFIType, type FFITypeOrString, toArrayBuffer } from "bun:ffi"

import { type NativeFunctions, type NativeType, SYMBOLS } from "./symbols.ts"

const TYPES: Readonly<Record<NativeType, FFITypeOrString>> = {
  i32: "i32",
  i64: FFIType.i64_fast,
  u64: FFIType.u64_fast,
  f32: "f32",
  buffer: "ptr",
}

/** Opens the shim. @throws {Error} With the dynamic linker's own words. */
export function openFunctions(path: string): NativeFunctions {
  const table = Object.fromEntries(
    Object.entries(SYMBOLS).map(([name, { args, returns }]) => [
      name,
      { args: args.map((type) => TYPES[type]), returns: TYPES[returns] },
    ]),
  )
  // The table has exactly these functions; Bun cannot know their types.
  return dlopen(path, table).symbols as unknown as NativeFunctions
}

/** Native memory as an ArrayBuffer. The caller must not use it after native code freed it. */
export function mapMemory(address: number, bytes: number): ArrayBuffer {
  return toArrayBuffer(address, 0, bytes)
}

/** Sets a variable that C code will see: `process.env` does not reach getenv in Bun. Never overwrites. */
export function setNativeVariable(name: string, value: string): void {
  if (process.platform !== "linux") return
  const libc = dlopen("libc.so.6", {
    setenv: { args: ["ptr", "ptr", "i32"], returns: "i32" },
  })
  libc.symbols.setenv(Buffer.from(`${name}\0`), Buffer.from(`${value}\0`), 0)
  libc.close()
}
