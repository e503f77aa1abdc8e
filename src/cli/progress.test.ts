import { describe, expect, test } from "bun:test"

import { Bar, barLine, formatLeft, ProgressDisplay, ProgressPrinter } from "./progress.ts"
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

  test("what is done to one file after the other has a line each", () => {
    using terminal = new TestTerminal()
    using display = new ProgressDisplay()
    const digest = "0000000000000000000"
    display.show({ status: "converting model", digest, total: 1000, completed: 1000 }, 0)
    display.show({ status: "quantizing F16 model to Q4_0", digest, total: 500, completed: 250 }, 1)
    expect(terminal.stderr).toBe(
      "converting model: 100% 1 KB/1 KB\nquantizing F16 model to Q4_0: 50% 250 B/500 B\n",
    )
  })

  test("on a terminal a bar takes the place of its announcement, and the cursor comes back", () => {
    using terminal = new TestTerminal()
    using _ = terminal.pretend()
    using display = new ProgressDisplay()
    display.show({ status: "converting model" }, 0)
    display.show({ status: "converting model", digest: "0", total: 1000, completed: 1000 }, 0)
    display[Symbol.dispose]()
    expect(terminal.stderr).toStartWith("\u001b[?25l")
    expect(terminal.stderr.match(/converting model/g)).toHaveLength(1)
    expect(terminal.stderr).toEndWith("\u001b[?25h")
  })
})

describe("ProgressPrinter", () => {
  test("gives scripts lines of JSON on stdout", () => {
    using terminal = new TestTerminal()
    using progress = new ProgressPrinter(true)
    progress.show({ status: "x", digest: "d", total: 2, completed: 1 })
    progress.end({ status: "success" })
    expect(terminal.stdout).toBe(
      '{"status":"x","digest":"d","total":2,"completed":1}\n{"status":"success"}\n',
    )
    expect(terminal.stderr).toBe("")
  })
})
