/**
 * Bindings for Deno. The only file that knows `Deno.dlopen`.
 *
 * @module
 */

import { type NativeFunctions, type NativeType, SYMBOLS } from "./symbols.ts"

const TYPES: Readonly<Record<NativeType, Deno.NativeType>> = {
  i32: "i32",
  i64: "i64",
  u64: "u64",
  f32: "f32",
  buffer: "buffer",
}

/** Opens the shim. @throws {Error} With the dynamic linker's own words. */
export function openFunctions(path: string): NativeFunctions {
  const table = Object.fromEntries(
    Object.entries(SYMBOLS).map(([name, { args, returns }]) => [
      name,
      { parameters: args.map((type) => TYPES[type]), result: TYPES[returns] } as const,
    ]),
  )
  const { symbols } = Deno.dlopen(path, table)
  const functions = Object.entries(symbols).map(([name, call]) => [
    name,
    // 64-bit results are bigints here.
    (...args: unknown[]) => Number((call as (...args: unknown[]) => number | bigint)(...args)),
  ])
  // The table has exactly these functions.
  return Object.fromEntries(functions) as NativeFunctions
}

/** Native memory as an ArrayBuffer. The caller must not use it after native code freed it. */
export function mapMemory(address: number, bytes: number): ArrayBuffer {
  const pointer = Deno.UnsafePointer.create(BigInt(address))
  if (pointer === null) throw new Error("Cannot map native memory at address 0")
  return Deno.UnsafePointerView.getArrayBuffer(pointer, bytes)
}

/** Sets a variable that C code will see; Deno's environment reaches getenv. Never overwrites. */
export function setNativeVariable(name: string, value: string): void {
  if (Deno.env.get(name) === undefined) Deno.env.set(name, value)
}
