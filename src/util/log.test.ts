import { describe, expect, test } from "bun:test"

import { createLogger, type LogFields, type LogLevel, SILENT } from "./log.ts"

const LEVELS: readonly LogLevel[] = ["debug", "info", "warn", "error"]

function lineOf(message: string, fields?: LogFields): string {
  const lines: string[] = []
  createLogger((line) => lines.push(line), "debug").info(message, fields)
  expect(lines).toHaveLength(1)
  return (lines[0] ?? "").replace(/^time=\S+ /, "")
}

describe("createLogger() — lines", () => {
  test("begins with the time, to the millisecond", () => {
    const lines: string[] = []
    createLogger((line) => lines.push(line), "info").info("ready")
    expect(lines[0]).toMatch(/^time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=INFO msg=ready$/)
  })

  test.each<[string, LogFields | undefined, string]>([
    ["no fields", undefined, 'level=INFO msg="no fields"'],
    ["ready", { url: "http://127.0.0.1:11434" }, "level=INFO msg=ready url=http://127.0.0.1:11434"],
    ["ready", { loadMs: 12.5, isGpu: false }, "level=INFO msg=ready loadMs=12.5 isGpu=false"],
    ["ready", { device: undefined, count: 0 }, "level=INFO msg=ready count=0"],
    ["ready", { text: "" }, 'level=INFO msg=ready text=""'],
    ["ready", { text: "a b" }, 'level=INFO msg=ready text="a b"'],
    ["ready", { text: 'say "x"' }, String.raw`level=INFO msg=ready text="say \"x\""`],
    ["ready", { text: "a=b" }, 'level=INFO msg=ready text="a=b"'],
  ])("%s %p", (message, fields, expected) => {
    expect(lineOf(message, fields)).toBe(expected)
  })

  test("a value cannot forge a line, a field or a colour of the terminal", () => {
    const line = lineOf("a\nlevel=ERROR", { model: "x\r\nlevel=ERROR msg=fake\u001b[31m" })
    expect(line).toBe(
      String.raw`level=INFO msg="a\nlevel=ERROR" model="x\r\nlevel=ERROR msg=fake\u001b[31m"`,
    )
  })
})

describe("createLogger() — levels", () => {
  test.each(LEVELS.map((level, i) => [level, LEVELS.slice(i)] as const))(
    "%s writes %p",
    (level, expected) => {
      const lines: string[] = []
      const log = createLogger((line) => lines.push(line), level)
      for (const at of LEVELS) log[at]("x")
      const written = lines.map((line) => /level=(\w+)/.exec(line)?.[1]?.toLowerCase())
      expect(written).toEqual([...expected])
    },
  )

  test("a silent logger can be called", () => {
    for (const level of LEVELS) expect(SILENT[level]("x", { a: 1 })).toBeUndefined()
  })
})
