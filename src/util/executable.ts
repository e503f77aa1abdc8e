/**
 * Whether we run as the single executable, and how to start ourselves again.
 *
 * @module
 */

/** Where Bun shows files inside an executable. */
const EMBEDDED_ROOTS = ["/$bunfs/root/", "B:/~BUN/root/", "B:\\~BUN\\root\\"]

/** A file inside the executable. */
export interface EmbeddedFile {
  /** With the folder that it was embedded with: `native/cpu/libcria.so`. */
  readonly name: string
  /** Readable by `node:fs`, but by no native code. */
  readonly path: string
}

/** True in the compiled executable, false in a checkout. */
export function isExecutable(): boolean {
  return isEmbedded(mainModule())
}

/** True for a path that only this process can read. */
export function isEmbedded(path: string): boolean {
  return EMBEDDED_ROOTS.some((root) => path.startsWith(root))
}

/** The files that the build put inside. Empty in a checkout. */
export function embeddedFiles(): EmbeddedFile[] {
  if (!isExecutable()) return []
  const root = EMBEDDED_ROOTS.find((candidate) => mainModule().startsWith(candidate)) ?? ""
  return (bun()?.embeddedFiles ?? []).map(({ name }) => ({ name, path: `${root}${name}` }))
}

/** Program and arguments that start this program again. */
export function selfCommand(): string[] {
  return isExecutable() ? [process.execPath] : [process.execPath, mainModule()]
}

function mainModule(): string {
  return bun()?.main ?? ""
}

/** What we use of Bun. The library runs under Deno too, where it is absent. */
function bun(): { main: string; embeddedFiles: readonly { readonly name: string }[] } | undefined {
  const global: unknown = Reflect.get(globalThis, "Bun")
  // Embedded files are Blobs with names, which the types of Bun leave out.
  return global as ReturnType<typeof bun>
}
