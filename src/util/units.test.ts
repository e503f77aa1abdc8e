import { afterEach, describe, expect, test } from "bun:test"

import * as fc from "fast-check"

import {
  formatBytes,
  formatCount,
  formatDuration,
  formatGib,
  formatLocal,
  formatRelative,
  formatShortest,
  formatUtc,
  parseDurationMs,
} from "./units.ts"

const SECOND = 1000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

describe("formatBytes() — decimal, as Ollama lists them", () => {
  test.each<[number, string]>([
    [0, "0 B"],
    [1, "1 B"],
    [999, "999 B"],
    [1000, "1 KB"],
    [1024, "1.0 KB"],
    [1099, "1.1 KB"],
    [9_960, "10.0 KB"],
    [10_900, "10 KB"],
    [999_999, "999 KB"],
    [1_000_000, "1 MB"],
    [1_500_000, "1.5 MB"],
    [274_302_450, "274 MB"],
    [1_321_098_329, "1.3 GB"],
    [4_000_000_000, "4 GB"],
    [47_000_000_000, "47 GB"],
    [1_000_000_000_000, "1 TB"],
    [2_500_000_000_000_000, "2500 TB"],
  ])("%d is %s", (bytes, expected) => {
    expect(formatBytes(bytes)).toBe(expected)
  })
})

describe("formatGib() — binary, for memory", () => {
  test.each<[number, string]>([
    [0, "0 MiB"],
    [1, "1 MiB"],
    [512 * 2 ** 20, "512 MiB"],
    [2 ** 30 - 1, "1024 MiB"],
    [2 ** 30, "1.0 GiB"],
    [6.2 * 2 ** 30, "6.2 GiB"],
  ])("%d is %s", (bytes, expected) => {
    expect(formatGib(bytes)).toBe(expected)
  })
})

// Pairs of Go's own test of `time.Duration`.
const GO_DURATIONS: readonly [number, string][] = [
  [0, "0s"],
  [1, "1ns"],
  [1100, "1.1µs"],
  [12_000, "12µs"],
  [2_200_000, "2.2ms"],
  [850_200_000, "850.2ms"],
  [999_999_999, "999.999999ms"],
  [1_000_000_000, "1s"],
  [3_300_000_000, "3.3s"],
  [1_234_567_891, "1.234567891s"],
  [60_000_000_000, "1m0s"],
  [62_500_000_000, "1m2.5s"],
  [245_000_000_000, "4m5s"],
  [245_001_000_000, "4m5.001s"],
  [480_000_000_001, "8m0.000000001s"],
  [3_600_000_000_000, "1h0m0s"],
  [18_367_001_000_000, "5h6m7.001s"],
  [360_000_000_000_000, "100h0m0s"],
]

describe("formatDuration() — as Go prints it", () => {
  test.each(GO_DURATIONS)("%d ns is %s", (nanoseconds, expected) => {
    expect(formatDuration(nanoseconds)).toBe(expected)
    if (nanoseconds > 0) expect(formatDuration(-nanoseconds)).toBe(`-${expected}`)
  })

  test("rounds what is less than a nanosecond", () => {
    expect(formatDuration(0.4)).toBe("0s")
    expect(formatDuration(1_000_000.5)).toBe("1.000001ms")
  })

  test("gives what parseDurationMs() reads back", () => {
    fc.assert(
      fc.property(fc.integer({ min: -(10 ** 15), max: 10 ** 15 }), (nanoseconds) => {
        const read = parseDurationMs(formatDuration(nanoseconds))
        expect(read).toBeCloseTo(nanoseconds / 1e6, 3)
      }),
    )
  })
})

describe("parseDurationMs() — Go's durations", () => {
  test.each<[string, number]>([
    ["0", 0],
    ["+0", 0],
    ["0s", 0],
    ["5s", 5 * SECOND],
    ["+5s", 5 * SECOND],
    ["-5s", -5 * SECOND],
    ["5.s", 5 * SECOND],
    [".5s", SECOND / 2],
    ["-.5s", -SECOND / 2],
    ["1.0040s", 1004],
    ["300ms", 300],
    ["10ns", 1e-5],
    ["11us", 0.011],
    ["12µs", 0.012],
    ["12μs", 0.012],
    ["1.5h", 1.5 * HOUR],
    ["2h45m", 2 * HOUR + 45 * MINUTE],
    ["10.5s4m", 4 * MINUTE + 10.5 * SECOND],
    ["-2m3.4s", -(2 * MINUTE + 3.4 * SECOND)],
    ["1h2m3s4ms5us", HOUR + 2 * MINUTE + 3 * SECOND + 4.005],
    ["87600h", 87_600 * HOUR],
  ])("%s is %d ms", (text, expected) => {
    expect(parseDurationMs(text)).toBeCloseTo(expected, 9)
  })

  test("minus nothing is nothing", () => {
    expect(parseDurationMs("-0") < 0).toBe(false)
  })

  test.each<[string, string]>([
    ["", 'time: invalid duration ""'],
    ["-", 'time: invalid duration "-"'],
    ["s", 'time: invalid duration "s"'],
    [".", 'time: invalid duration "."'],
    [".s", 'time: invalid duration ".s"'],
    ["+.s", 'time: invalid duration "+.s"'],
    ["forever", 'time: invalid duration "forever"'],
    [" 5m", 'time: invalid duration " 5m"'],
    ["--5s", 'time: invalid duration "--5s"'],
    ["10", 'time: missing unit in duration "10"'],
    ["-1", 'time: missing unit in duration "-1"'],
    ["1h30", 'time: missing unit in duration "1h30"'],
    ["1.2.3s", 'time: missing unit in duration "1.2.3s"'],
    ["1d", 'time: unknown unit "d" in duration "1d"'],
    ["5 m", 'time: unknown unit " m" in duration "5 m"'],
    ["1H", 'time: unknown unit "H" in duration "1H"'],
    ["1constructor", 'time: unknown unit "constructor" in duration "1constructor"'],
    ["1toString", 'time: unknown unit "toString" in duration "1toString"'],
  ])("%p is refused in Go's words", (text, message) => {
    expect(() => parseDurationMs(text)).toThrow(new RangeError(message))
  })
})

describe("formatRelative() — how long ago or ahead", () => {
  test.each<[number, string]>([
    [0, "Less than a second"],
    [999, "Less than a second"],
    [SECOND, "1 second"],
    [1999, "1 second"],
    [2 * SECOND, "2 seconds"],
    [59_999, "59 seconds"],
    [MINUTE, "About a minute"],
    [2 * MINUTE - 1, "About a minute"],
    [2 * MINUTE, "2 minutes"],
    [59 * MINUTE + 59 * SECOND, "59 minutes"],
    [HOUR, "About an hour"],
    [1.5 * HOUR - 1, "About an hour"],
    [1.5 * HOUR, "2 hours"],
    [47 * HOUR, "47 hours"],
    [47.5 * HOUR, "2 days"],
    [13 * DAY, "13 days"],
    [14 * DAY, "2 weeks"],
    [59 * DAY, "8 weeks"],
    [60 * DAY, "2 months"],
    [729 * DAY, "24 months"],
    [730 * DAY, "2 years"],
    [3650 * DAY, "10 years"],
  ])("%d ms is %s", (ms, expected) => {
    expect(formatRelative(-ms)).toBe(`${expected} ago`)
    if (ms > 0) expect(formatRelative(ms)).toBe(`${expected} from now`)
  })
})

describe("formatUtc() and formatLocal() — RFC 3339 without trailing zeros", () => {
  const original = process.env["TZ"]

  afterEach(() => {
    if (original === undefined) delete process.env["TZ"]
    else process.env["TZ"] = original
  })

  test.each<[number, string]>([
    [0, "1970-01-01T00:00:00Z"],
    [Date.UTC(2026, 0, 2, 3, 4, 5, 600), "2026-01-02T03:04:05.6Z"],
    [Date.UTC(2026, 0, 2, 3, 4, 5, 670), "2026-01-02T03:04:05.67Z"],
    [Date.UTC(2026, 0, 2, 3, 4, 5, 7), "2026-01-02T03:04:05.007Z"],
    [Date.UTC(2026, 0, 2, 3, 4, 10), "2026-01-02T03:04:10Z"],
    [Date.UTC(2026, 0, 2, 0, 0, 0), "2026-01-02T00:00:00Z"],
  ])("%d is %s", (epochMs, expected) => {
    expect(formatUtc(epochMs)).toBe(expected)
  })

  test.each<[string, number, string]>([
    ["UTC", Date.UTC(2026, 0, 2, 3, 4, 5, 100), "2026-01-02T03:04:05.1Z"],
    ["Europe/Berlin", Date.UTC(2026, 0, 2, 3, 4, 5, 100), "2026-01-02T04:04:05.1+01:00"],
    ["Europe/Berlin", Date.UTC(2026, 6, 2, 22, 0, 0), "2026-07-03T00:00:00+02:00"],
    ["Europe/London", Date.UTC(2026, 0, 2, 3, 4, 5), "2026-01-02T03:04:05Z"],
    ["America/New_York", Date.UTC(2026, 0, 1, 3, 0, 0), "2025-12-31T22:00:00-05:00"],
    ["Asia/Kolkata", Date.UTC(2026, 0, 1, 0, 0, 0), "2026-01-01T05:30:00+05:30"],
    ["America/St_Johns", Date.UTC(2026, 0, 1, 0, 0, 0), "2025-12-31T20:30:00-03:30"],
  ])("in %s, %d is %s", (zone, epochMs, expected) => {
    process.env["TZ"] = zone
    const text = formatLocal(epochMs)
    expect(text).toBe(expected)
    expect(new Date(text).getTime()).toBe(epochMs)
  })
})

describe("formatCount()", () => {
  test.each([
    [0, "0"],
    [999, "999"],
    [1_000, "1K"],
    [22_100, "22K"],
    [4_000_000, "4M"],
    [133_700_000, "133.70M"],
    [494_032_768, "494.03M"],
    [7_000_000_000, "7B"],
    [7_615_616_512, "7.6B"],
    [1_235_814_432, "1.2B"],
  ])("writes %i as %s", (count, label) => {
    expect(formatCount(count)).toBe(label)
  })
})

describe("formatShortest()", () => {
  // As Go prints them.
  test.each<[number, string]>([
    [0, "0"],
    [0.5, "0.5"],
    [-2, "-2"],
    [131_072, "131072"],
    [999_999, "999999"],
    [1_000_000, "1e+06"],
    [1_235_814_432, "1.235814432e+09"],
    [0.0001, "0.0001"],
    [0.00001, "1e-05"],
    [1.5e-10, "1.5e-10"],
    [1e100, "1e+100"],
    [-1e-6, "-1e-06"],
  ])("writes %p as %p", (value, expected) => {
    expect(formatShortest(value)).toBe(expected)
  })
})
