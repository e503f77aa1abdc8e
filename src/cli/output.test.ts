import { describe, expect, test } from "bun:test"

import { CriaError } from "../util/errors.ts"
import { formatTable, printError, Spinner, wrapWords } from "./output.ts"
import { TestTerminal } from "./test-terminal.ts"

/** Trailing blanks as dots, so that they can be seen. */
function visible(table: string): string {
  return table.replaceAll(/ +$/gm, (blanks) => "·".repeat(blanks.length))
}

describe("formatTable()", () => {
  test("is Ollama's, trailing blanks included", () => {
    const header = ["NAME", "ID", "SIZE", "MODIFIED"]
    const row = ["tiny:latest", "0123456789ab", "1.3 GB", "2 minutes ago"]
    expect(visible(formatTable(header, [row]))).toBe(
      [
        "NAME           ID              SIZE      MODIFIED······",
        "tiny:latest    0123456789ab    1.3 GB    2 minutes ago····",
      ].join("\n"),
    )
  })

  test("without rows is only its header", () => {
    expect(formatTable(["NAME", "ID", "SIZE", "MODIFIED"], [])).toBe(
      "NAME    ID    SIZE    MODIFIED ",
    )
  })

  test("columns are as wide as their widest cell, header included", () => {
    const table = formatTable(
      ["A", "LONG HEADER", "C"],
      [
        ["a", "b", "c"],
        ["wide cell", "b", ""],
      ],
    )
    expect(visible(table)).toBe(
      [
        "A            LONG HEADER    C·",
        "a            b              c····",
        "wide cell    b···················",
      ].join("\n"),
    )
  })
})

describe("formatTable() — cells of several words", () => {
  test("go on below when they are wider than 30 columns", () => {
    const table = formatTable(["A", "B"], [["x", "one two three four five six seven"]])
    expect(visible(table)).toBe(
      ["A    B·", "x    one two three four five six····", "     seven··························"]
        .join("\n")
        .replace("B·", `B${"·".repeat(27)}`),
    )
  })

  test("stay when they are one word", () => {
    const name = "x".repeat(50)
    expect(visible(formatTable(["NAME"], [[name]]))).toEndWith(`\n${name}····`)
  })
})

describe("wrapWords()", () => {
  test.each<[string, number, string[]]>([
    ["", 5, [""]],
    ["abc de", 6, ["abc de"]],
    // What a line lacks counts squared: "aaa bb", "cc", "ddddd" would lack more.
    ["aaa bb cc ddddd", 6, ["aaa", "bb cc", "ddddd"]],
    // The last line may be short.
    ["aaa bbb c", 7, ["aaa bbb", "c"]],
    ["a bbbbbbbbbb c", 4, ["a", "bbbbbbbbbb", "c"]],
    ["a\nb\tc", 3, ["a b", "c"]],
  ])("%p at %d columns", (text, columns, lines) => {
    expect(wrapWords(text, columns)).toEqual(lines)
  })

  test("takes no longer for a text of very many words", () => {
    const lines = wrapWords("word ".repeat(100_000).trim(), 30)
    expect(lines).toHaveLength(Math.ceil(100_000 / 6))
    expect(lines[0]).toBe("word word word word word word")
  })
})

describe("printError()", () => {
  test.each<[string, unknown, string]>([
    ["a plain one", new Error("no such thing"), "Error: no such thing\n"],
    [
      "one with a hint",
      new CriaError("not-found", "model 'x' not found", { hint: "cria list" }),
      "Error: model 'x' not found\ncria list\n",
    ],
    ["anything", "oops", "Error: oops\n"],
  ])("prints %s on stderr", (_, error, expected) => {
    using terminal = new TestTerminal()
    printError(error)
    expect(terminal).toMatchObject({ stdout: "", stderr: expected })
  })
})

describe("Spinner", () => {
  test("draws nothing when stderr is no terminal", () => {
    using terminal = new TestTerminal()
    const spinner = new Spinner()
    spinner[Symbol.dispose]()
    spinner[Symbol.dispose]()
    expect(terminal).toMatchObject({ stdout: "", stderr: "" })
  })
})
