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
  // Bun types these as Blobs; embedded ones have names.
  const files = Bun.embeddedFiles as ReadonlyArray<Blob & { readonly name: string }>
  return files.map(({ name }) => ({ name, path: `${root}${name}` }))
}

/** Program and arguments that start this program again. */
export function selfCommand(): string[] {
  return isExecutable() ? [process.execPath] : [process.execPath, mainModule()]
}

function mainModule(): string {
  return typeof Bun === "undefined" ? "" : Bun.main
}
