/**
 * Where the texts of a run grow, and where its work is counted.
 *
 * @module
 */

/** Something that a template cannot do, without the place. */
export class TemplateFailure extends Error {}

/** What a run has taken so far. */
export interface Meter {
  /** Counts work, in steps. @throws {TemplateFailure} when it is too much. */
  work(steps: number): void
  /** Counts characters before they are kept. @throws {TemplateFailure} when there are too many. */
  make(chars: number): void
}

/**
 * Steps for a character of a text that is looked at: encoding and comparing take up to ten nanoseconds, a step some
 * seventy.
 */
const LOOK_STEPS = 1 / 8

/** Steps for a character that is copied. */
const COPY_STEPS = 1 / 32

/** Collects text. */
export class Sink {
  readonly #meter: Meter
  #parts: string[] = []

  constructor(meter: Meter) {
    this.#meter = meter
  }

  add(text: string): this {
    this.#meter.work(1 + text.length * COPY_STEPS)
    this.#meter.make(text.length + 1)
    this.#parts.push(text)
    return this
  }

  /** Counts what is done to texts, or lists, before it is done. */
  look(parts: number, stepsEach: number = LOOK_STEPS): this {
    this.#meter.work(parts * stepsEach)
    return this
  }

  /** A text of the same limits. */
  fresh(): Sink {
    return new Sink(this.#meter)
  }

  get text(): string {
    const text = this.#parts.join("")
    this.#parts = [text]
    return text
  }
}
