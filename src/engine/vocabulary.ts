/**
 * The text of every token, and text out of tokens.
 *
 * The whole table crosses from native code once, so turning tokens into text never does. A token is bytes, not
 * characters: one character may be spread over several tokens.
 *
 * @module
 */

const CONTROL = 1
const ENDS_GENERATION = 2

/** Bytes and attributes of every token of a model. */
export class Vocabulary {
  readonly size: number
  readonly #bytes: Uint8Array
  readonly #offsets: Int32Array
  readonly #attributes: Uint8Array

  /**
   * @param bytes All pieces one after the other.
   * @param offsets Where each piece begins, and one more: the end. Length `size + 1`.
   * @param attributes Bit 0: control token; bit 1: ends generation.
   */
  constructor(bytes: Uint8Array, offsets: Int32Array, attributes: Uint8Array) {
    this.size = attributes.length
    this.#bytes = bytes
    this.#offsets = offsets
    this.#attributes = attributes
  }

  /** Bytes of a token; control tokens give their name, such as `<|im_end|>`. Empty for ids outside the vocabulary. */
  piece(token: number): Uint8Array {
    return this.#bytes.subarray(this.#offsets[token] ?? 0, this.#offsets[token + 1] ?? 0)
  }

  /** Part of the prompt format, not of the text: `<|im_start|>` and the like. */
  isControl(token: number): boolean {
    return ((this.#attributes[token] ?? 0) & CONTROL) !== 0
  }

  /** The model says that its answer is over. Models have several such tokens. */
  endsGeneration(token: number): boolean {
    return ((this.#attributes[token] ?? 0) & ENDS_GENERATION) !== 0
  }

  /** Text of a token on its own; a cut character shows as U+FFFD. */
  text(token: number): string {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(this.piece(token))
  }

  /** Texts of all control tokens, to find them in what users wrote. */
  controlTexts(): string[] {
    const texts: string[] = []
    for (let token = 0; token < this.size; token++) {
      if (this.isControl(token)) texts.push(this.text(token))
    }
    return texts.filter((text) => text !== "")
  }
}
