/**
 * Numbers as people read them: bytes, durations, times, in the forms that Ollama's clients expect.
 *
 * @module
 */

const NANOS = { hour: 3_600_000_000_000n, minute: 60_000_000_000n, second: 1_000_000_000n } as const

/** Decimal bytes as Ollama prints them: `1.3 GB`, `274 MB`, `1 KB`, `12 B`. */
export function formatBytes(bytes: number): string {
  const units = ["B", "KB", "MB", "GB", "TB"]
  let value = bytes
  let unit = 0
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  const digits =
    value >= 10 || value === Math.trunc(value) ? String(Math.trunc(value)) : value.toFixed(1)
  return `${digits} ${units[unit]}`
}

/** Binary bytes for messages about memory: `6.2 GiB`, `512 MiB`. */
export function formatGib(bytes: number): string {
  const gib = bytes / 2 ** 30
  return gib >= 1 ? `${gib.toFixed(1)} GiB` : `${Math.ceil(bytes / 2 ** 20)} MiB`
}

/** A count for people, as Ollama writes it: `7.6B`, `494.03M`, `22K`, `7B` when whole. */
export function formatCount(count: number): string {
  if (count >= 1e9) return `${rounded(count / 1e9, 1)}B`
  if (count >= 1e6) return `${rounded(count / 1e6, 2)}M`
  if (count >= 1e3) return `${(count / 1e3).toFixed(0)}K`
  return String(count)
}

function rounded(value: number, decimals: number): string {
  return value.toFixed(Number.isInteger(value) ? 0 : decimals)
}

/** A number as Go's `%g` prints it: `0.5`, `131072`, `1e+06`, `1e-05`. */
export function formatShortest(value: number): string {
  const [digits = "", exponent = "0"] = value.toExponential().split("e")
  const power = Number(exponent)
  if (power >= -4 && power < 6) return String(value)
  return `${digits}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`
}

/** A duration as Go prints it: `1m2.5s`, `850.2ms`, `12µs`, `0s`. */
export function formatDuration(nanoseconds: number): string {
  const whole = BigInt(Math.round(Math.abs(nanoseconds)))
  const sign = nanoseconds < 0 ? "-" : ""
  if (whole === 0n) return "0s"
  if (whole < 1_000n) return `${sign}${whole}ns`
  if (whole < 1_000_000n) return `${sign}${decimal(whole, 1_000n)}µs`
  if (whole < NANOS.second) return `${sign}${decimal(whole, 1_000_000n)}ms`
  const hours = whole / NANOS.hour
  const minutes = (whole % NANOS.hour) / NANOS.minute
  const seconds = decimal(whole % NANOS.minute, NANOS.second)
  const head = hours > 0n ? `${hours}h${minutes}m` : minutes > 0n ? `${minutes}m` : ""
  return `${sign}${head}${seconds}s`
}

function decimal(value: bigint, unit: bigint): string {
  const rest = (value % unit)
    .toString()
    .padStart(unit.toString().length - 1, "0")
    .replace(/0+$/, "")
  return rest === "" ? `${value / unit}` : `${value / unit}.${rest}`
}

/** Milliseconds. Two letters look like µ: the micro sign and the Greek letter. */
const DURATION_UNITS: ReadonlyMap<string, number> = new Map([
  ["ns", 1e-6],
  ["us", 1e-3],
  ["\u00B5s", 1e-3],
  ["\u03BCs", 1e-3],
  ["ms", 1],
  ["s", 1_000],
  ["m", 60_000],
  ["h", 3_600_000],
])

/**
 * Parses a Go duration (`300ms`, `1.5h`, `2h45m`, `-1s`, `0`) to milliseconds.
 *
 * @throws {RangeError} With Go's own wording, which clients see: `time: missing unit in duration "10"`.
 */
export function parseDurationMs(text: string): number {
  const body = text.replace(/^[+-]/, "")
  if (body === "0") return 0
  if (body === "") throw new RangeError(`time: invalid duration ${JSON.stringify(text)}`)
  let total = 0
  let rest = body
  while (rest !== "") {
    const match = /^(\d+\.?\d*|\.\d+)([^\d.]*)/.exec(rest)
    if (match === null) throw new RangeError(`time: invalid duration ${JSON.stringify(text)}`)
    const [whole, digits = "", unit = ""] = match
    if (unit === "") throw new RangeError(`time: missing unit in duration ${JSON.stringify(text)}`)
    const factor = DURATION_UNITS.get(unit)
    if (factor === undefined) {
      throw new RangeError(
        `time: unknown unit ${JSON.stringify(unit)} in duration ${JSON.stringify(text)}`,
      )
    }
    total += Number(digits) * factor
    rest = rest.slice(whole.length)
  }
  return text.startsWith("-") ? -total : total
}

/**
 * How long ago or ahead a moment is: `2 minutes ago`, `4 minutes from now`, `Less than a second ago`.
 *
 * @param differenceMs Positive for the future.
 */
export function formatRelative(differenceMs: number): string {
  const suffix = differenceMs > 0 ? "from now" : "ago"
  return `${formatSpan(Math.abs(differenceMs) / 1000)} ${suffix}`
}

function formatSpan(seconds: number): string {
  const minutes = Math.trunc(seconds / 60)
  const hours = Math.round(seconds / 3600)
  if (seconds < 1) return "Less than a second"
  if (seconds < 2) return "1 second"
  if (seconds < 60) return `${Math.trunc(seconds)} seconds`
  if (minutes === 1) return "About a minute"
  if (minutes < 60) return `${minutes} minutes`
  if (hours === 1) return "About an hour"
  if (hours < 48) return `${hours} hours`
  const days = Math.trunc(hours / 24)
  if (days < 14) return `${days} days`
  if (days < 60) return `${Math.trunc(days / 7)} weeks`
  if (days < 730) return `${Math.trunc(days / 30)} months`
  return `${Math.trunc(days / 365)} years`
}

/** RFC 3339 in UTC with trailing zeros of the fraction trimmed: `2026-01-02T03:04:05.6Z`. */
export function formatUtc(epochMs: number): string {
  return trimFraction(new Date(epochMs).toISOString().replace("Z", "")) + "Z"
}

/** RFC 3339 with this machine's offset: `2026-01-02T03:04:05.1+01:00`. */
export function formatLocal(epochMs: number): string {
  const offsetMinutes = -new Date(epochMs).getTimezoneOffset()
  const shifted = new Date(epochMs + offsetMinutes * 60_000).toISOString().replace("Z", "")
  if (offsetMinutes === 0) return `${trimFraction(shifted)}Z`
  const absolute = Math.abs(offsetMinutes)
  const hours = String(Math.trunc(absolute / 60)).padStart(2, "0")
  const minutes = String(absolute % 60).padStart(2, "0")
  return `${trimFraction(shifted)}${offsetMinutes < 0 ? "-" : "+"}${hours}:${minutes}`
}

function trimFraction(time: string): string {
  return time.replace(/\.?0+$/, "")
}
