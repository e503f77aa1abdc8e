/**
 * Progress of long requests: bars on a terminal, plain lines in a pipe.
 *
 * Everything goes to stderr. Time comes in as an argument, so that every line can be tested.
 *
 * @module
 */

import type { ProgressReply } from "../api/ollama.ts"
import { formatBytes } from "../util/units.ts"
import { SPINNER } from "./output.ts"

/** Redrawn so often. */
const FRAME_MS = 100

/** A line in a pipe comes when so much more is there, or so much time has passed. */
const PLAIN_STEP = 0.1
const PLAIN_MS = 10_000

/** The rate is that of the last ten seconds, counted by the second. */
const BUCKETS = 10

/** Narrower than this there is no bar. */
const BAR_COLUMNS_MIN = 10
const BAR_COLUMNS_MAX = 60

/** Something with a size that is under way. */
export class Bar {
  readonly label: string
  total = 0
  completed = 0
  /** Second and bytes at its end. */
  readonly #buckets: { second: number; completed: number }[] = []

  constructor(label: string) {
    this.label = label
  }

  /** @param nowMs Of a clock that only goes forward. */
  update(completed: number, total: number, nowMs: number): void {
    this.total = total
    this.completed = Math.max(this.completed, completed)
    const second = Math.floor(nowMs / 1000)
    const last = this.#buckets.at(-1)
    if (last?.second === second) last.completed = this.completed
    else this.#buckets.push({ second, completed: this.completed })
    if (this.#buckets.length > BUCKETS + 1) this.#buckets.shift()
  }

  get isDone(): boolean {
    return this.total > 0 && this.completed >= this.total
  }

  get fraction(): number {
    return this.total === 0 ? 0 : Math.min(1, this.completed / this.total)
  }

  /** Bytes per second; 0 while there is nothing to tell it from. */
  get rate(): number {
    const first = this.#buckets[0]
    const last = this.#buckets.at(-1)
    if (first === undefined || last === undefined || last.second === first.second) return 0
    return (last.completed - first.completed) / (last.second - first.second)
  }

  /** `45 MB/s  1m20s`; blanks while unknown. */
  get speed(): string {
    const { rate } = this
    if (rate <= 0) return ""
    return `${formatBytes(rate)}/s  ${formatLeft((this.total - this.completed) / rate)}`
  }
}

/** Seconds in at most two units; `99h+` for what is further off. */
export function formatLeft(seconds: number): string {
  const whole = Math.ceil(seconds)
  const [hours, minutes] = [Math.trunc(whole / 3600), Math.trunc((whole % 3600) / 60)]
  if (hours > 99) return "99h+"
  if (hours > 0) return `${hours}h${minutes}m`
  return minutes > 0 ? `${minutes}m${whole % 60}s` : `${whole}s`
}

/** A line with a bar, no wider than the terminal. */
export function barLine(bar: Bar, columns: number): string {
  const percent = `${Math.floor(bar.fraction * 100)}%`.padStart(4)
  const sizes = bar.isDone
    ? formatBytes(bar.total).padStart(8)
    : `${formatBytes(bar.completed)}/${formatBytes(bar.total)}`
  const right = bar.isDone ? ` ${sizes}` : ` ${sizes.padStart(16)}  ${bar.speed.padEnd(18)}`
  const left = `${bar.label}: ${percent} `
  const room = Math.min(BAR_COLUMNS_MAX, columns - left.length - right.length - 3)
  if (room < BAR_COLUMNS_MIN) return `${left}${sizes}`.slice(0, Math.max(0, columns - 1))
  const filled = Math.round(room * bar.fraction)
  return `${left}▕${"█".repeat(filled)}${" ".repeat(room - filled)}▏${right}`.trimEnd()
}

/** What one line of the display is. */
type Row = { readonly kind: "bar"; readonly bar: Bar } | { kind: "text"; readonly text: string }

/** Shows progress on stderr until it is disposed. */
export class ProgressDisplay implements Disposable {
  readonly #rows: Row[] = []
  readonly #bars = new Map<string, Bar>()
  readonly #plain = new Map<string, { fraction: number; atMs: number }>()
  #timer: ReturnType<typeof setInterval> | undefined
  #frame = 0
  #drawn = 0

  constructor() {
    if (!process.stderr.isTTY) return
    process.stderr.write("\u001b[?25l")
    this.#timer = setInterval(() => this.#draw(true), FRAME_MS)
  }

  /** Takes in a line of a reply. */
  show({ status, digest, total = 0, completed = 0 }: ProgressReply, nowMs: number): void {
    if (digest === undefined || total === 0) {
      const last = this.#rows.at(-1)
      if (last?.kind === "text" && last.text === status) return
      this.#rows.push({ kind: "text", text: status })
      if (this.#timer === undefined) process.stderr.write(`${status}\n`)
      return
    }
    // What is done to a blob one after the other has a bar each.
    const key = `${digest} ${status}`
    let bar = this.#bars.get(key)
    if (bar === undefined) {
      bar = new Bar(status)
      this.#bars.set(key, bar)
      const last = this.#rows.at(-1)
      if (last?.kind === "text" && last.text === status) this.#rows.pop()
      this.#rows.push({ kind: "bar", bar })
    }
    bar.update(completed, total, nowMs)
    if (this.#timer === undefined) this.#print(key, bar, nowMs)
  }

  /** Leaves the last state on the screen; further calls do nothing. */
  [Symbol.dispose](): void {
    if (this.#timer === undefined) return
    clearInterval(this.#timer)
    this.#timer = undefined
    this.#draw(false)
    process.stderr.write("\u001b[?25h")
  }

  /** A line of its own for every tenth. */
  #print(key: string, bar: Bar, nowMs: number): void {
    const last = this.#plain.get(key)
    const isDue =
      last === undefined ||
      bar.fraction - last.fraction >= PLAIN_STEP ||
      (bar.isDone && last.fraction < 1) ||
      (nowMs - last.atMs >= PLAIN_MS && bar.fraction > last.fraction)
    if (!isDue) return
    this.#plain.set(key, { fraction: bar.fraction, atMs: nowMs })
    const percent = Math.floor(bar.fraction * 100)
    const sizes = `${formatBytes(bar.completed)}/${formatBytes(bar.total)}`
    process.stderr.write(`${`${bar.label}: ${percent}% ${sizes} ${bar.speed}`.trimEnd()}\n`)
  }

  #draw(isRunning: boolean): void {
    const columns = process.stderr.columns || 80
    const spinner = SPINNER[this.#frame++ % SPINNER.length] ?? ""
    const lines = this.#rows.map((row, i) => {
      if (row.kind === "bar") return barLine(row.bar, columns)
      const text = row.text.slice(0, columns - 3)
      return isRunning && i === this.#rows.length - 1 ? `${text} ${spinner}` : text
    })
    // More rows than the screen has cannot be redrawn: the first ones stay as they are.
    const shown = lines.slice(-Math.max(1, (process.stderr.rows || 24) - 1))
    const up = this.#drawn > 0 ? `\u001b[${this.#drawn}A` : ""
    process.stderr.write(`${up}\r${shown.map((line) => `\u001b[K${line}\n`).join("")}`)
    this.#drawn = shown.length
  }
}

/** Progress for people on stderr, or for scripts as lines of JSON on stdout. */
export class ProgressPrinter implements Disposable {
  readonly #display: ProgressDisplay | undefined

  constructor(json: boolean) {
    this.#display = json ? undefined : new ProgressDisplay()
  }

  /** Shows a step. */
  show(step: ProgressReply): void {
    if (this.#display === undefined) console.log(JSON.stringify(step))
    else this.#display.show(step, performance.now())
  }

  /** Ends the display; scripts get a last line. */
  end(last: object): void {
    if (this.#display === undefined) console.log(JSON.stringify(last))
    else this.#display[Symbol.dispose]()
  }

  /** Ends the display as it is. */
  [Symbol.dispose](): void {
    this.#display?.[Symbol.dispose]()
  }
}
