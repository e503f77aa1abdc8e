/**
 * Floating-point numbers as Go's verbs write them.
 *
 * @module
 */

/** Powers of ten from which floats are printed with an exponent. */
const EXPONENT_FROM = 6

/** A float as `%v` writes it: the fewest digits that read back, with an exponent below 1e-4 and from 1e6 on. */
export function formatShortest(value: number): string {
  if (!Number.isFinite(value)) return formatInfinite(value)
  if (value === 0) return Object.is(value, -0) ? "-0" : "0"
  const [mantissa = "", exponent = ""] = value.toExponential().split("e")
  const power = Number(exponent)
  const isPlain = power >= -4 && power < EXPONENT_FROM
  return isPlain ? plainDecimal(mantissa, power) : mantissa + goExponent(power)
}

/** NaN and the infinities. */
function formatInfinite(value: number): string {
  return Number.isNaN(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf"
}

/** Go writes a sign and at least two digits. */
function goExponent(power: number): string {
  return `e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`
}

/** Digits times ten to a power, without an exponent. */
function plainDecimal(mantissa: string, power: number): string {
  const sign = mantissa.startsWith("-") ? "-" : ""
  const digits = mantissa.replace(/^-/, "").replace(".", "")
  if (power < 0) return `${sign}0.${"0".repeat(-power - 1)}${digits}`
  const whole = digits.slice(0, power + 1).padEnd(power + 1, "0")
  const fraction = digits.slice(power + 1)
  return sign + whole + (fraction === "" ? "" : `.${fraction}`)
}

/** A float by a verb of `printf`; undefined when the verb is not for floats. */
export function floatText(
  value: number,
  verb: string,
  precision: number | undefined,
): string | undefined {
  if (!"vgGeEfFbxX".includes(verb)) return undefined
  if (!Number.isFinite(value)) return formatInfinite(value)
  const isUpper = verb === "G" || verb === "E" || verb === "X"
  const text = finiteText(value, verb.toLowerCase(), precision)
  return isUpper ? text.toUpperCase() : text
}

function finiteText(value: number, verb: string, precision: number | undefined): string {
  const digits = Math.min(precision ?? 6, 100)
  const sign = Object.is(value, -0) ? "-" : ""
  if (verb === "b") return binaryText(value)
  if (verb === "x") return hexText(value, precision)
  if (verb === "f") return sign + fixedText(value, digits)
  if (verb !== "e") {
    return precision === undefined ? formatShortest(value) : generalText(value, precision)
  }
  const [mantissa = "", power = ""] = toExponential(value, digits).split("e")
  return sign + mantissa + goExponent(Number(power))
}

/** `toFixed` switches to an exponent at 1e21; then all digits are zeros behind an integer. */
function fixedText(value: number, digits: number): string {
  if (Math.abs(value) < 1e21) {
    return toEven(value.toFixed(digits), value.toFixed(Math.min(100, digits + 30)))
  }
  return BigInt(value).toString() + (digits > 0 ? `.${"0".repeat(digits)}` : "")
}

function toExponential(value: number, digits: number): string {
  const [rounded = "", power = ""] = value.toExponential(digits).split("e")
  const [exact = "", exactPower] = value.toExponential(Math.min(100, digits + 30)).split("e")
  return `${exactPower === power ? toEven(rounded, exact) : rounded}e${power}`
}

/** JavaScript rounds a half up, Go to the even digit. */
function toEven(rounded: string, exact: string): string {
  const cut = rounded.includes(".") ? exact.slice(0, rounded.length) : (exact.split(".")[0] ?? "")
  const isTie = /^\.?50*$/.test(exact.slice(cut.length))
  return isTie && /[13579]$/.test(rounded) ? cut : rounded
}

/** `%.3g`: so many digits, without zeros at the end. */
function generalText(value: number, precision: number): string {
  const digits = Math.min(Math.max(precision, 1), 100)
  const [mantissa = "", exponent = ""] = toExponential(value, digits - 1).split("e")
  const power = Number(exponent)
  const significant = mantissa.includes(".") ? mantissa.replace(/\.?0+$/, "") : mantissa
  const count = significant.replaceAll(/[-.]/g, "").length
  const limit = digits > count && count >= power + 1 ? count : digits
  const isPlain = power >= -4 && power < limit
  return isPlain ? plainDecimal(significant, power) : significant + goExponent(power)
}

/** Bits of the fraction of a double. */
const FRACTION_BITS = 52n

/** Sign, mantissa and power of two of a double, as IEEE 754 stores it. */
function partsOf(value: number): { sign: string; mantissa: bigint; power: number } {
  const view = new DataView(new ArrayBuffer(8))
  view.setFloat64(0, value)
  const bits = view.getBigUint64(0)
  const exponent = Number((bits >> FRACTION_BITS) & 0x7ffn)
  const fraction = bits & ((1n << FRACTION_BITS) - 1n)
  const isNormal = exponent > 0
  return {
    sign: bits >> 63n === 1n ? "-" : "",
    mantissa: isNormal ? fraction | (1n << FRACTION_BITS) : fraction,
    power: (isNormal ? exponent : 1) - 1075,
  }
}

/** `%b`: an integer times a power of two. */
function binaryText(value: number): string {
  const { sign, mantissa, power } = partsOf(value)
  return `${sign}${mantissa}p${power < 0 ? "" : "+"}${power}`
}

/** `%x`: a mantissa of one digit and a fraction, times a power of two. */
function hexText(value: number, precision: number | undefined): string {
  const parts = partsOf(value)
  let { mantissa } = parts
  let power = parts.power + Number(FRACTION_BITS)
  while (mantissa !== 0n && mantissa < 1n << FRACTION_BITS) {
    mantissa <<= 1n
    power -= 1
  }
  const dropped = 4n * BigInt(Math.max(0, 13 - (precision ?? 13)))
  mantissa = shiftToEven(mantissa, dropped) << dropped
  if (mantissa >> (FRACTION_BITS + 1n) > 0n) {
    mantissa >>= 1n
    power += 1
  }
  const whole = mantissa >> FRACTION_BITS
  const all = (mantissa & ((1n << FRACTION_BITS) - 1n)).toString(16).padStart(13, "0")
  const fraction =
    precision === undefined
      ? all.replace(/0+$/, "")
      : all.slice(0, precision).padEnd(precision, "0")
  const point = fraction === "" ? "" : "."
  return `${parts.sign}0x${whole}${point}${fraction}${hexExponent(value === 0 ? 0 : power)}`
}

/** Shifts right and rounds, halves to even. */
function shiftToEven(value: bigint, bits: bigint): bigint {
  if (bits === 0n) return value
  const kept = value >> bits
  const rest = value - (kept << bits)
  const half = 1n << (bits - 1n)
  return rest > half || (rest === half && kept % 2n === 1n) ? kept + 1n : kept
}

function hexExponent(power: number): string {
  return `p${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`
}
