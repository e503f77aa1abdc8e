import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"
import { readdirSync } from "node:fs"
import { join } from "node:path"

import {
  encodeGguf,
  type GgufInput,
  packStrings,
  type TensorSource,
  text,
  u32,
} from "../gguf/write.ts"
import { FakeRegistry } from "../registry/fake-registry.ts"
import { readConfig } from "../store/store.ts"
import { isMonotonic, Machine, statuses } from "./test-machine.ts"

const METADATA = new Map<string, GgufInput>([
  ["general.architecture", text("llama")],
  ["general.file_type", u32(7)],
  ["llama.context_length", u32(32_768)],
  ["llama.embedding_length", u32(64)],
  ["llama.block_count", u32(1)],
  ["llama.attention.head_count", u32(4)],
  ["llama.attention.head_count_kv", u32(4)],
  ["tokenizer.ggml.tokens", packStrings(["a", "b"])],
])

function tensor(name: string, value: number): TensorSource {
  return { name, type: "F32", dims: [64, 500], chunks: [new Uint8Array(128_000).fill(value)] }
}

function splitFields(number: number, count: number): [string, GgufInput][] {
  return [
    ["split.no", { type: "u16", value: number }],
    ["split.count", { type: "u16", value: count }],
    ["split.tensors.count", { type: "i32", value: 3 }],
  ]
}

async function gguf(
  metadata: Iterable<[string, GgufInput]>,
  tensors: readonly TensorSource[],
): Promise<Buffer> {
  const content = { metadata: new Map(metadata), tensors }
  return Buffer.concat(await Array.fromAsync(encodeGguf(content)))
}

const PARTS = [
  await gguf([...METADATA, ...splitFields(0, 2)], [tensor("a", 1), tensor("b", 2)]),
  await gguf(splitFields(1, 2), [tensor("c", 3)]),
]
const WHOLE = await gguf(METADATA, [tensor("a", 1), tensor("b", 2), tensor("c", 3)])

/** Hugging Face, with a repository that has Q8_0 in two files and Q4_0 in one. */
function start(options: ConstructorParameters<typeof Machine>[0] = {}) {
  const hub = new FakeRegistry()
  PARTS.forEach((bytes, i) => hub.files.set(`u/m/Q8_0/m-Q8_0-0000${i + 1}-of-00002.gguf`, bytes))
  hub.files.set("u/m/m-Q4_0.gguf", WHOLE.subarray(0, 100_000))
  hub.add("u/m:Q4_0", [WHOLE.subarray(0, 100_000)])
  const machine = new Machine({ mirror: hub.host, ...options })
  return {
    hub,
    machine,
    name: `${hub.host}/u/m`,
    async [Symbol.asyncDispose]() {
      await machine[Symbol.asyncDispose]()
      await hub[Symbol.asyncDispose]()
    },
  }
}

describe("pull — a model of Hugging Face in several files", () => {
  test("is fetched file by file, merged, and installed as one", async () => {
    await using world = start({ token: "secret" })
    const { hub, machine, name } = world
    const progress = await machine.pull(name)
    const model = machine.store.find(machine.parse(name))
    expect(machine.blob(model?.manifest.layers[0]?.digest)).toEqual(WHOLE)
    expect(model === undefined ? {} : readConfig(machine.store, model.manifest)).toMatchObject({
      model_format: "gguf",
      model_family: "llama",
      file_type: "Q8_0",
    })
    const steps = statuses(progress)
    expect(steps[1]).toMatch(/^chose Q8_0 \(\d+ KB in 2 files\): the largest that fits in memory/)
    expect(steps.slice(4)).toEqual([
      "verifying sha256 digest",
      "merging 2 parts",
      "writing manifest",
      "success",
    ])
    expect(isMonotonic(progress)).toBe(true)
    // The parts have gone, and nothing else lies about.
    expect(machine.files()).toHaveLength(2)
    expect(readdirSync(join(machine.store.root, ".cria-pulls"))).toEqual([])
    const own = hub.log.filter(({ line }) => !line.includes("/v2/"))
    expect(new Set(own.map(({ authorization }) => authorization))).toEqual(
      new Set(["Bearer secret"]),
    )
  })

  test("by --quant and by its tag, too; again it is not fetched again", async () => {
    await using world = start()
    const { hub, machine, name } = world
    const wish = machine.transfers.pull(name, { insecure: true, quant: "q8_0" })
    await Array.fromAsync(wish)
    expect(machine.store.find(machine.parse(`${name}:Q8_0`))).toBeDefined()
    hub.log.length = 0
    const again = await machine.pull(`${name}:Q8_0`)
    expect(hub.count(/resolve/)).toBe(0)
    expect(again.at(-2)?.completed).toBe(WHOLE.length)
    expect(again.at(-1)?.status).toBe("success")
  })

  test("a new version replaces the old one", async () => {
    await using world = start()
    const { hub, machine, name } = world
    await machine.pull(`${name}:Q8_0`)
    const other = await gguf(splitFields(1, 2), [tensor("c", 9)])
    hub.files.set("u/m/Q8_0/m-Q8_0-00002-of-00002.gguf", other)
    const progress = await machine.pull(`${name}:Q8_0`)
    expect(statuses(progress)).toContain("removing unused layers")
    const model = machine.store.find(machine.parse(`${name}:Q8_0`))
    expect(machine.blob(model?.manifest.layers[0]?.digest).at(-1)).toBe(9)
    expect(machine.files()).toHaveLength(2)
  })

  test("what was fetched is kept when it ends early, and not fetched again", async () => {
    await using world = start()
    const { hub, machine, name } = world
    hub.fault = ({ path }) =>
      path.includes("00002-of") ? new Response("no", { status: 500 }) : undefined
    await rejects(machine.pull(`${name}:Q8_0`), { message: "max retries exceeded: 500: no" })
    expect(machine.store.find(machine.parse(`${name}:Q8_0`))).toBeUndefined()
    expect(readdirSync(join(machine.store.root, ".cria-pulls"))).toHaveLength(1)
    hub.fault = () => undefined
    hub.log.length = 0
    await machine.pull(`${name}:Q8_0`)
    expect(hub.count(/00001-of/)).toBe(0)
    expect(hub.count(/00002-of/)).toBe(1)
  })

  test("files that are not what their digests say, or that do not belong together", async () => {
    await using world = start()
    const { hub, machine, name } = world
    const wrong = Buffer.from(PARTS[1] ?? "")
    wrong[wrong.length - 1] = 7
    hub.fault = ({ path }) => (path.includes("00002-of") ? new Response(wrong) : undefined)
    await rejects(machine.pull(`${name}:Q8_0`), { message: /^digest mismatch/ })
    hub.fault = () => undefined
    hub.files.set("u/m/Q8_0/m-Q8_0-00002-of-00002.gguf", await gguf(splitFields(1, 3), []))
    await rejects(machine.pull(`${name}:Q8_0`), {
      code: "invalid-input",
      message: /^split GGUF "Q8_0": .*expected part 2 of 2$/,
    })
    expect(machine.store.find(machine.parse(`${name}:Q8_0`))).toBeUndefined()
  })

  test("files without digests cannot be pulled; the error names what can", async () => {
    await using world = start()
    const { hub, machine, name } = world
    hub.files.set("u/m/Q8_0/m-Q8_0-00002-of-00002.gguf", Buffer.from("small"))
    await rejects(machine.pull(`${name}:Q8_0`), {
      code: "unavailable",
      message: `Cannot pull Q8_0 of "${name}:Q8_0": it is in 2 files that cannot be merged`,
      hint: `cria show --fit ${name} lists the others`,
    })
    const table = await machine.transfers.fits(name, { insecure: true })
    expect(table.map(({ label, files, isChosen }) => [label, files, isChosen])).toEqual([
      ["Q8_0", 2, false],
      ["Q4_0", 1, true],
    ])
  })

  test("a repository that has only such models can be chosen from", async () => {
    await using world = start()
    const { hub, machine, name } = world
    hub.files.delete("u/m/m-Q4_0.gguf")
    const [fit] = await machine.transfers.fits(name, { insecure: true })
    // From the header of the first file.
    expect(fit).toMatchObject({ label: "Q8_0", files: 2, isChosen: true, contextTokens: 32_768 })
  })
})
