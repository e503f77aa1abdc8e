/**
 * Shows what a long script is doing: numbered stages, and within one a percentage or the seconds so far.
 *
 * @module
 */

const REDRAW_MS = 200
/** Without a terminal a line at every tenth is enough. */
const PLAIN_STEP = 10

/** Numbered stages on stderr; times go to the end of each line. */
export class Stages {
  readonly #total: number
  #current = 0

  constructor(total: number) {
    this.#total = total
  }

  /** Says that a stage is done already, and why. */
  skip(title: string, reason: string): void {
    this.#current++
    console.error(`[${this.#current}/${this.#total}] ${title}: ${reason}`)
  }

  /** Runs a stage; `progress` takes fractions from 0 to 1. */
  async run<T>(
    title: string,
    work: (progress: (fraction: number) => void) => Promise<T>,
  ): Promise<T> {
    this.#current++
    const line = new Line(`[${this.#current}/${this.#total}] ${title}`)
    try {
      const result = await work((fraction) => line.update(fraction))
      line.end("done")
      return result
    } catch (error) {
      line.end("failed")
      throw error
    }
  }
}

class Line {
  readonly #title: string
  readonly #started = performance.now()
  readonly #timer: ReturnType<typeof setInterval> | undefined
  #fraction: number | undefined
  #printed = 0

  constructor(title: string) {
    this.#title = title
    if (process.stderr.isTTY) this.#timer = setInterval(() => this.#draw(), REDRAW_MS)
    else console.error(`${title} …`)
  }

  update(fraction: number): void {
    this.#fraction = fraction
    const percent = Math.floor((fraction * 100) / PLAIN_STEP) * PLAIN_STEP
    if (this.#timer !== undefined || percent <= this.#printed) return
    this.#printed = percent
    console.error(`${this.#title} ${percent} % (${this.#seconds()} s)`)
  }

  end(word: string): void {
    clearInterval(this.#timer)
    const clear = this.#timer === undefined ? "" : "\r\u001b[K"
    console.error(`${clear}${this.#title}: ${word} in ${this.#seconds()} s`)
  }

  #draw(): void {
    const percent = this.#fraction === undefined ? "" : ` ${Math.round(this.#fraction * 100)} %`
    process.stderr.write(`\r\u001b[K${this.#title} …${percent} (${this.#seconds()} s)`)
  }

  #seconds(): string {
    return ((performance.now() - this.#started) / 1000).toFixed(1)
  }
}
