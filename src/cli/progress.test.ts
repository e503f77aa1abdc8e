import { describe, expect, test } from "bun:test"

import { Bar, barLine, formatLeft, ProgressDisplay } from "./progress.ts"
import { TestTerminal } from "./test-terminal.ts"

describe("Bar", () => {
  test("the rate is that of the last ten seconds; progress never goes back", () => {
    const bar = new Bar("pulling x")
    for (let second = 0; second <= 20; second++) {
      bar.update(second < 10 ? 0 : (second - 10) * 50e6, 1e9, second * 1000)
    }
    expect(bar.rate).toBe(50e6)
    expect(bar.speed).toBe("50 MB/s  10s")
    bar.update(100, 1e9, 21_000)
    expect(bar.completed).toBe(500e6)
  })

  test("what was there before says nothing about speed", () => {
    const bar = new Bar("x")
    bar.update(900, 1000, 0)
    expect(bar.speed).toBe("")
  })
})

test.each([
  [0, "0s"],
  [59.2, "1m0s"],
  [61, "1m1s"],
  [3600, "1h0m"],
  [99 * 3600, "99h0m"],
  [100 * 3600, "99h+"],
])("formatLeft(%d) is %s", (seconds, text) => {
  expect(formatLeft(seconds)).toBe(text)
})

describe("barLine()", () => {
  test("fits the terminal and shows only the size when it is done", () => {
    const bar = new Bar("pulling 0123456789ab")
    bar.update(250e6, 1e9, 0)
    bar.update(500e6, 1e9, 2000)
    const line = barLine(bar, 100)
    expect(line).toContain("pulling 0123456789ab:  50% ▕")
    expect(line).toContain("500 MB/1 GB  125 MB/s  4s")
    for (const columns of [20, 40, 60, 80, 100, 200]) {
      expect(barLine(bar, columns).length).toBeLessThan(columns)
    }
    bar.update(1e9, 1e9, 3000)
    expect(barLine(bar, 80)).toEndWith("█▏     1 GB")
  })
})

describe("ProgressDisplay", () => {
  test("in a pipe there is a line for each status and each tenth", () => {
    using terminal = new TestTerminal()
    using display = new ProgressDisplay()
    display.show({ status: "pulling manifest" }, 0)
    for (let i = 0; i <= 100; i++) {
      display.show({ status: "pulling a", digest: "d", total: 1000, completed: i * 10 }, i)
    }
    display.show({ status: "success" }, 101)
    const lines = terminal.stderr.trim().split("\n")
    expect(lines).toHaveLength(13)
    expect(lines[0]).toBe("pulling manifest")
    expect(lines[1]).toBe("pulling a: 0% 0 B/1 KB")
    expect(lines[11]).toBe("pulling a: 100% 1 KB/1 KB")
    expect(lines[12]).toBe("success")
    expect(terminal.stdout).toBe("")
  })
})
