/**
 * The parts in which a blob is fetched, and what is noted about them on disk. Pure.
 *
 * The notes are Ollama's: a file of JSON for each part beside the partial blob, so that either program can go on where
 * the other stopped. On reading, a note counts for no more than the bytes that it says are there: then notes of
 * different plans can be mixed, as after a crash, and still be true.
 *
 * @module
 */

import { z } from "zod"

/** A piece of a blob. Its bytes `offset … offset + completed` are on disk. */
export interface Part {
  /** Names the file of its note. */
  readonly index: number
  readonly offset: number
  /** Bytes; shrinks when another connection takes the end over. */
  size: number
  completed: number
}

/** What a note says. */
export type PartNote = Readonly<{ N: number; Offset: number; Size: number; Completed: number }>

/** A part takes one request: fewer bytes and requests weigh, more and the digest lags behind. */
const PART_BYTES_MIN = 16 * 2 ** 20
const PART_BYTES_MAX = 1_000_000_000
const PARTS_WANTED = 256

/** A part is not divided into less. More than what one connection holds in memory. */
export const SPLIT_BYTES_MIN: number = 4 * 2 ** 20

/** A note is written over in place, so it always has this length. Blanks are nothing in JSON. */
const NOTE_BYTES = 128

/** Longest file that can be a note. */
export const NOTE_BYTES_MAX = 1024

const noteSchema: z.ZodType<PartNote> = z.object({
  N: z.int().nonnegative(),
  Offset: z.int().nonnegative(),
  Size: z.int().nonnegative(),
  Completed: z.int().nonnegative(),
})

/** The content of a part's note. */
export function formatNote({ index, offset, size, completed }: Part): string {
  const note: PartNote = { N: index, Offset: offset, Size: size, Completed: completed }
  return `${JSON.stringify(note).padEnd(NOTE_BYTES - 1)}\n`
}

/** Reads a note; undefined when it is none. */
export function parseNote(text: string): PartNote | undefined {
  try {
    return noteSchema.safeParse(JSON.parse(text)).data
  } catch {
    return undefined
  }
}

/**
 * Divides a blob into parts that cover it exactly, in order.
 *
 * @param notes What was fetched before; what cannot be true is left out.
 * @param fileBytes Of the partial file: nothing past its end is there.
 */
export function planParts(
  totalBytes: number,
  notes: readonly PartNote[],
  fileBytes: number,
): Part[] {
  const parts: Part[] = []
  const add = (start: number, end: number, isThere: boolean) => {
    const size = end - start
    if (size > 0)
      parts.push({ index: parts.length, offset: start, size, completed: isThere ? size : 0 })
  }
  const partBytes = clamp(Math.ceil(totalBytes / PARTS_WANTED), PART_BYTES_MIN, PART_BYTES_MAX)
  const addGap = (start: number, end: number) => {
    for (let at = start; at < end; at += partBytes) add(at, Math.min(at + partBytes, end), false)
  }
  let position = 0
  for (const { start, end } of fetchedRanges(notes, Math.min(totalBytes, fileBytes))) {
    addGap(position, start)
    add(start, end, true)
    position = end
  }
  addGap(position, totalBytes)
  return parts
}

/** What the notes say is there: in order, apart from each other. */
function fetchedRanges(
  notes: readonly PartNote[],
  limit: number,
): { start: number; end: number }[] {
  const ranges: { start: number; end: number }[] = []
  const claims = notes
    .filter(({ Completed, Size }) => Completed > 0 && Completed <= Size)
    .map(({ Offset, Completed }) => ({ start: Offset, end: Offset + Completed }))
    .filter(({ end }) => end <= limit)
    .toSorted((a, b) => a.start - b.start)
  for (const { start, end } of claims) {
    const last = ranges.at(-1)
    if (last !== undefined && start <= last.end) last.end = Math.max(last.end, end)
    else ranges.push({ start, end })
  }
  return ranges
}

/** Takes the second half of what a part still lacks; undefined when that is too little to be worth it. */
export function splitPart(part: Part, index: number): Part | undefined {
  const missing = part.size - part.completed
  if (missing < 2 * SPLIT_BYTES_MIN) return undefined
  const kept = part.completed + Math.ceil(missing / 2)
  const rest = { index, offset: part.offset + kept, size: part.size - kept, completed: 0 }
  part.size = kept
  return rest
}

/** Bytes on disk. */
export function completedBytes(parts: readonly Part[]): number {
  return parts.reduce((sum, part) => sum + part.completed, 0)
}

/** Bytes on disk from the beginning without a gap. */
export function frontBytes(parts: readonly Part[]): number {
  let front = 0
  for (const { offset, size, completed } of parts) {
    if (offset !== front) break
    front += completed
    if (completed < size) break
  }
  return front
}

function clamp(value: number, min: number, max: number): number {
  return Math.min(Math.max(value, min), max)
}
