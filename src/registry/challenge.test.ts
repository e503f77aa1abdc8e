import { describe, expect, test } from "bun:test"

import { array, assert, constantFrom, property, string, tuple } from "fast-check"

import { parseChallenges } from "./challenge.ts"

/** As plain values. */
function parsed(header: string): [string, Record<string, string>][] {
  return parseChallenges(header).map(({ scheme, parameters }) => [
    scheme,
    Object.fromEntries(parameters),
  ])
}

describe("parseChallenges()", () => {
  test.each<[string, [string, Record<string, string>][]]>([
    ['Basic realm="Registry"', [["basic", { realm: "Registry" }]]],
    [
      'Bearer realm="https://h/token",service="s",scope="repository:a/b:pull repository:c/d:pull"',
      [
        [
          "bearer",
          {
            realm: "https://h/token",
            service: "s",
            scope: "repository:a/b:pull repository:c/d:pull",
          },
        ],
      ],
    ],
    ["bearer REALM=x , Service = y", [["bearer", { realm: "x", service: "y" }]]],
    [
      'Basic realm="a, b", Bearer realm="c"',
      [
        ["basic", { realm: "a, b" }],
        ["bearer", { realm: "c" }],
      ],
    ],
    [String.raw`Bearer realm="a\"b\\c"`, [["bearer", { realm: String.raw`a"b\c` }]]],
    ["Negotiate", [["negotiate", {}]]],
    [
      "Negotiate, Basic",
      [
        ["negotiate", {}],
        ["basic", {}],
      ],
    ],
    ["", []],
    ['realm="x"', []],
    ['Bearer realm="never closed', [["bearer", { realm: "" }]]],
  ])("%j", (header, expected) => {
    expect(parsed(header)).toEqual(expected)
  })

  test("anything is read in no time", () => {
    const piece = constantFrom("Bearer ", "realm=", '"', "\\", ",", " ", "a", "=", "Basic")
    assert(
      property(tuple(array(piece, { maxLength: 40 }), string()), ([pieces, text]) => {
        expect(parseChallenges(pieces.join("") + text)).toBeArray()
      }),
    )
    expect(parseChallenges(`Bearer ${'a="\\'.repeat(1_000_000)}`)).toBeArray()
  })
})
