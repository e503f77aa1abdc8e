import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import { Client } from "../../client/client.ts"
import { TestServer } from "../../server/test-server.ts"
import { TestTerminal } from "../test-terminal.ts"
import { list, ps, stop } from "./list.ts"

const MINUTE = 60_000
const DAY = 24 * 60 * MINUTE
const DIGEST = "0123456789abcdef".repeat(4)

const DETAILS = {
  format: "gguf",
  family: "llama",
  families: ["llama"],
  parameter_size: "1.2B",
  quantization_level: "Q4_K_M",
}

/** A moment so many milliseconds from now; some seconds more, so that it does not pass during the test. */
function at(differenceMs: number): string {
  return new Date(Date.now() + differenceMs + 25_000 * Math.sign(differenceMs)).toISOString()
}

function installed(name: string, size: number, ageMs: number): object {
  return { name, model: name, modified_at: at(-ageMs), size, digest: DIGEST, details: DETAILS }
}

function loaded(name: string, fields: object): object {
  return {
    name,
    model: name,
    size: 1_500_000_000,
    size_vram: 0,
    digest: DIGEST,
    details: DETAILS,
    expires_at: at(4 * MINUTE),
    context_length: 4096,
    ...fields,
  }
}

/** A client whose server has these models. */
function clientWith(models: readonly object[]): Client {
  return new Client("http://localhost", () => Promise.resolve(Response.json({ models })))
}

/** What a command prints, without the last line end; trailing blanks as dots. */
async function printed(command: () => Promise<void>): Promise<string[]> {
  using terminal = new TestTerminal()
  await command()
  expect(terminal.stderr).toBe("")
  expect(terminal.stdout).toEndWith("\n")
  const text = terminal.stdout.slice(0, -1)
  return text.replaceAll(/ +$/gm, (blanks) => "·".repeat(blanks.length)).split("\n")
}

describe("cria list", () => {
  const models = [
    installed("tiny:latest", 1_321_098_329, 2 * MINUTE),
    installed("hf.co/User/Repo:Q4_K_M", 274_302_450, 40 * DAY),
    // From the future: what is written now would be older when the test runs.
    installed("Tower:1b", 1000, -DAY),
  ]

  test("prints name, id, size and age, in the order of the server", async () => {
    expect(await printed(() => list(clientWith(models)))).toEqual([
      "NAME                      ID              SIZE      MODIFIED···············",
      "tiny:latest               0123456789ab    1.3 GB    2 minutes ago·············",
      "hf.co/User/Repo:Q4_K_M    0123456789ab    274 MB    5 weeks ago···············",
      "Tower:1b                  0123456789ab    1 KB      Less than a second ago····",
    ])
  })

  test.each<[string, string[]]>([
    ["", ["tiny:latest", "hf.co/User/Repo:Q4_K_M", "Tower:1b"]],
    ["t", ["tiny:latest", "Tower:1b"]],
    ["TI", ["tiny:latest"]],
    ["hf.co/user", ["hf.co/User/Repo:Q4_K_M"]],
    ["ower", []],
  ])("keeps those whose names begin with %p, in any case", async (prefix, names) => {
    const [, ...rows] = await printed(() => list(clientWith(models), prefix))
    expect(rows.map((row) => row.split(" ")[0])).toEqual(names)
  })

  test("prints what the API says, for scripts", async () => {
    const [line = "", ...rest] = await printed(() =>
      list(clientWith(models), "tow", { json: true }),
    )
    expect(rest).toEqual([])
    expect(JSON.parse(line)).toEqual([models[2]])
  })

  test("says of what type caches are when one is not the usual", async () => {
    const running = [loaded("tiny:latest", { kv_cache_type: "q8_0/f16" }), loaded("b:1", {})]
    expect(await printed(() => ps(clientWith(running)))).toEqual([
      "NAME           ID              SIZE      PROCESSOR    CONTEXT    CACHE       UNTIL··············",
      "tiny:latest    0123456789ab    1.5 GB    100% CPU     4096       q8_0/f16    4 minutes from now····",
      "b:1            0123456789ab    1.5 GB    100% CPU     4096       f16         4 minutes from now····",
    ])
  })

  test("without models prints the header", async () => {
    expect(await printed(() => list(clientWith([])))).toEqual(["NAME    ID    SIZE    MODIFIED·"])
  })

  test("a model that answers on another machine has no size", async () => {
    const remote = { ...installed("far:latest", 300, 2 * MINUTE), remote_model: "gpt-oss:120b" }
    const [, row] = await printed(() => list(clientWith([remote])))
    expect(row).toBe("far:latest    0123456789ab    -       2 minutes ago····")
  })

  test("a file from the future is not older than now", async () => {
    const [, row] = await printed(() => list(clientWith([installed("x:latest", 5, -DAY)])))
    expect(row).toContain("Less than a second ago")
  })
})

describe("cria ps", () => {
  test("prints what is loaded", async () => {
    expect(await printed(() => ps(clientWith([loaded("tiny:latest", {})])))).toEqual([
      "NAME           ID              SIZE      PROCESSOR    CONTEXT    UNTIL··············",
      "tiny:latest    0123456789ab    1.5 GB    100% CPU     4096       4 minutes from now····",
    ])
  })

  test("prints what the API says, for scripts", async () => {
    const model = loaded("tiny:latest", {})
    const [line = ""] = await printed(() => ps(clientWith([model]), "", { json: true }))
    expect(JSON.parse(line)).toEqual([model])
  })

  test("without models prints the header", async () => {
    expect(await printed(() => ps(clientWith([])))).toEqual([
      "NAME    ID    SIZE    PROCESSOR    CONTEXT    UNTIL·",
    ])
  })

  test.each<[number, number, string]>([
    [1000, 0, "100% CPU"],
    [1000, 1000, "100% GPU"],
    [1000, 1001, "Unknown"],
    [0, 0, "100% CPU"],
    [0, 5, "Unknown"],
    [1000, 520, "48%/52% CPU/GPU"],
    [1000, 995, "1%/99% CPU/GPU"],
    [1000, 996, "0%/100% CPU/GPU"],
    [3, 2, "33%/67% CPU/GPU"],
  ])("of %d bytes %d on the GPU is %s", async (size, vram, expected) => {
    const [, row] = await printed(() =>
      ps(clientWith([loaded("x:latest", { size, size_vram: vram })])),
    )
    expect(row).toContain(`    ${expected}    `)
  })

  test.each<[number, string]>([
    [-1000, "Stopping..."],
    [4 * MINUTE, "4 minutes from now"],
    [90 * MINUTE, "2 hours from now"],
    [100 * 365 * DAY, "Forever"],
  ])("expiring in %d ms is %s", async (ms, expected) => {
    const [, row] = await printed(() =>
      ps(clientWith([loaded("x:latest", { expires_at: at(ms) })])),
    )
    expect(row).toEndWith(`    ${expected}····`)
  })

  test("keeps those whose names begin with a prefix, in its case", async () => {
    const client = clientWith([loaded("tiny:latest", {}), loaded("Tower:1b", {})])
    const [, ...rows] = await printed(() => ps(client, "T"))
    expect(rows.map((row) => row.split(" ")[0])).toEqual(["Tower:1b"])
  })
})

describe("cria stop", () => {
  test("unloads and prints nothing", async () => {
    await using server = await TestServer.start()
    using terminal = new TestTerminal()
    const client = new Client("http://localhost", (url, init) => server.request(url, init))
    await client.generateOnce({ model: "tiny" })
    await stop(client, "tiny")
    expect(await client.ps()).toEqual([])
    expect(terminal).toMatchObject({ stdout: "", stderr: "" })
  })

  test("of a model that is not installed has its own words", async () => {
    await using server = await TestServer.start()
    const client = new Client("http://localhost", (url, init) => server.request(url, init))
    await rejects(stop(client, "nope"), { message: `couldn't find model "nope" to stop` })
    await rejects(stop(client, "a b"), { message: "invalid model name" })
  })
})
