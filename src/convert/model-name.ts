/**
 * Takes the name of a model apart, as "Llama-3.2-1B-Instruct" into basename, version, size and finetune.
 *
 * Pure. The rules are those of llama.cpp's converter, so that a model has the same metadata from either.
 *
 * @module
 */

/** What a name says. */
export interface NameParts {
  readonly name?: string
  readonly organization?: string
  readonly basename?: string
  readonly finetune?: string
  readonly version?: string
  readonly sizeLabel?: string
}

type PartKind = "basename" | "size" | "finetune" | "version" | "type"

interface Part {
  text: string
  readonly kinds: Set<PartKind>
}

const VERSION = /^(v|iter)?\d+([.]\d+)*$/i
const QUANTISATION = /^(i?q\d(_\w)*|b?fp?(16|32))$/i
const SIZE = /^(([A]|\d+[x])?\d+([._]\d+)?[KMBT][\d]?|small|mini|medium|large|x?xl)$/i
const FINETUNE = /^(chat|instruct|vision|lora)$/i

/**
 * Takes an identifier apart.
 *
 * @param id Such as "meta-llama/Llama-3.2-1B-Instruct"; the organisation may be missing.
 * @param parameters Of the model; negative for an adapter, whose size says little; 0 when unknown.
 */
export function nameParts(id: string, parameters: number): NameParts {
  if (id.includes(" ")) return { name: id }
  const slash = id.indexOf("/")
  const organization = slash === -1 ? undefined : id.slice(0, slash)
  const name = id.slice(slash + 1)
  const parts = name
    .split("-")
    .filter((text) => text !== "")
    .map((text): Part => ({ text, kinds: new Set() }))
  for (const [index, part] of parts.entries()) classify(part, index, parameters)
  dropWordSizes(parts)
  markBasename(parts)
  const joined = (kind: PartKind): string | undefined => {
    const texts = parts.filter((part) => part.kinds.has(kind)).map((part) => part.text)
    return texts.length === 0 ? undefined : texts.join("-")
  }
  const sizes = new Set(parts.filter((part) => part.kinds.has("size")).map((part) => part.text))
  const sizeLabel = sizes.size === 0 ? undefined : [...sizes].join("-")
  const finetune = joined("finetune")
  const versions = parts.filter((part) => part.kinds.has("version") && !part.kinds.has("basename"))
  const version = versions.map((part) => part.text).join("-") || undefined
  // With nothing but a basename, it could be anything.
  const isClear = sizeLabel !== undefined || finetune !== undefined || version !== undefined
  return without({
    name,
    organization: organization?.startsWith(".") === true ? undefined : organization,
    basename: isClear ? joined("basename") : undefined,
    finetune,
    version,
    sizeLabel,
  })
}

/** "llama-3b-instruct" becomes "Llama 3b Instruct"; versions and acronyms stay. */
export function titleOf(id: string): string {
  return id
    .trim()
    .replaceAll("-", " ")
    .split(/\s+/)
    .filter((word) => word !== "")
    .map((word) => {
      const isLower = word === word.toLowerCase() && word !== word.toUpperCase()
      return isLower && !/^(v\d+(?:\.\d+)*|\d.*)$/.test(word) ? capitalised(word) : word
    })
    .join(" ")
}

/** The number of parameters as a name would say it, such as "1.2B" or "8x7B". */
export function sizeLabelOf(parameters: number, experts: number): string {
  const [divisor, suffix] =
    parameters > 1e12
      ? [1e12, "T"]
      : parameters > 1e9
        ? [1e9, "B"]
        : parameters > 1e6
          ? [1e6, "M"]
          : [1e3, "K"]
  const scaled = parameters / divisor
  const digits = String(roundHalfEven(scaled)).replace(/^0+/, "").length
  const label = `${scaled.toFixed(Math.max(2 - digits, 0))}${suffix}`
  return experts > 0 ? `${experts}x${label}` : label
}

function roundHalfEven(value: number): number {
  const floor = Math.floor(value)
  const rest = value - floor
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor
}

/** Letters after anything but a letter are capitals, as Python's `title` has it. */
function capitalised(word: string): string {
  return word.toLowerCase().replaceAll(/(?<!\p{L})\p{L}/gu, (letter) => letter.toUpperCase())
}

function without<T extends object>(values: T): { [K in keyof T]?: NonNullable<T[K]> } {
  const kept = Object.entries(values).filter(([, value]) => value !== undefined)
  return Object.fromEntries(kept) as { [K in keyof T]?: NonNullable<T[K]> } // Only undefined was taken out.
}

function classify(part: Part, index: number, parameters: number): void {
  const { kinds } = part
  if (VERSION.test(part.text)) {
    kinds.add("version")
  } else if (QUANTISATION.test(part.text)) {
    kinds.add("type")
    part.text = part.text.toUpperCase()
  } else if (index > 0 && SIZE.test(part.text)) {
    classifySize(part, parameters)
  } else if (index > 0 && FINETUNE.test(part.text)) {
    const isRedundant = parameters < 0 && part.text.toLowerCase() === "lora"
    kinds.add(isRedundant ? "type" : "finetune")
  }
}

/** A size that is far from that of the model is something else, most likely the length of the context. */
function classifySize(part: Part, parameters: number): void {
  let text = part.text.replaceAll("_", ".")
  // Such as "7b1", which is 7.1 billions.
  const odd = /^(.*)([a-z])(\d)$/i.exec(text)
  if (odd !== null) text = `${odd[1]}.${odd[3]}${odd[2]}`
  if (/\d[kmbt]$/.test(text)) text = text.slice(0, -1) + text.slice(-1).toUpperCase()
  const power = " KMBT".indexOf(text.slice(-1))
  const number = /^\d+(\.\d+)?$/.test(text.slice(0, -1)) ? Number(text.slice(0, -1)) : undefined
  let isContext = false
  if (parameters !== 0 && number !== undefined) {
    const size = number * 1000 ** power
    isContext =
      parameters < 0
        ? size < Math.floor(-parameters / 8)
        : Math.abs(size - parameters) > Math.floor((7 * parameters) / 8)
  }
  part.kinds.add(isContext ? "finetune" : "size")
  part.text = isContext ? text.slice(0, -1) + text.slice(-1).toLowerCase() : text
}

/** "mini" is no size beside "3.8B". */
function dropWordSizes(parts: readonly Part[]): void {
  const sizes = parts.filter((part) => part.kinds.has("size"))
  if (!sizes.some((part) => /\d/.test(part.text))) return
  for (const part of sizes) if (/^\p{L}+$/u.test(part.text)) part.kinds.delete("size")
}

function markBasename(parts: readonly Part[]): void {
  let isStart = true
  for (const { text, kinds } of parts) {
    if (isStart && ((kinds.size === 0 && /^\p{L}/u.test(text)) || kinds.has("version"))) {
      kinds.add("basename")
    } else {
      isStart = false
      if (kinds.size === 0) kinds.add("finetune")
    }
  }
  for (const { kinds } of parts.toReversed()) {
    if (!kinds.has("basename") || kinds.size === 1) break
    kinds.delete("basename")
  }
}
