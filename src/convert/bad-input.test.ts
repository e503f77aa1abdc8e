import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"
import { execFileSync } from "node:child_process"
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"

import { TemporaryFolder } from "../gguf/raw-file.ts"
import { readGguf } from "../gguf/read.ts"
import { CriaError } from "../util/errors.ts"
import { convertAdapter, readAdapterBase } from "./adapter.ts"
import { convertFolder, folderKind } from "./convert.ts"
import { KNOWN_ARCHITECTURES } from "./families.ts"
import { safetensors, TestModel } from "./test-model.ts"

async function convert(model: TestModel): Promise<void> {
  for await (const _ of convertFolder(model.path, model.target));
}

async function adapts(model: TestModel, from: string): Promise<void> {
  using original = new TestModel(from)
  const options = { base: readAdapterBase(original.path) }
  for await (const _ of convertAdapter(model.path, model.target, options));
}

/** Refused with this text, and nothing was written. */
async function refuses(model: TestModel, message: RegExp): Promise<CriaError> {
  let found: unknown
  await rejects(convert(model), (error) => {
    found = error
    return error instanceof CriaError && message.test(error.message)
  })
  expect(readdirSync(model.outside)).toEqual(["model"])
  return found as CriaError
}

describe("convertFolder() refuses", () => {
  test("an architecture that is not known, naming those that are", async () => {
    using model = new TestModel("llama-3")
    model.change("config.json", { architectures: ["BloomForCausalLM"] })
    const error = await refuses(model, /architecture "BloomForCausalLM"/)
    for (const name of KNOWN_ARCHITECTURES) expect(error.hint).toContain(name)
  })

  test("architectures that are methods of objects, or none", async () => {
    using model = new TestModel("llama-3")
    model.change("config.json", { architectures: ["constructor"] })
    await refuses(model, /"constructor"/)
    model.change("config.json", { architectures: [] })
    await refuses(model, /without an architecture/)
  })

  test("a folder without config, weights or tokenizer, saying which", async () => {
    using noConfig = new TestModel("llama-3")
    rmSync(join(noConfig.path, "config.json"))
    await refuses(noConfig, /Cannot find "config.json"/)
    using noWeights = new TestModel("llama-3")
    rmSync(join(noWeights.path, "model.safetensors"))
    await refuses(noWeights, /Cannot find model\*\.safetensors/)
    using noTokenizer = new TestModel("llama-3")
    rmSync(join(noTokenizer.path, "tokenizer.json"))
    await refuses(noTokenizer, /Cannot find a tokenizer/)
    await rejects(
      convertFolder(join(noTokenizer.path, "none"), "/x").next(),
      /Cannot find the folder/,
    )
  })

  test("pickled weights, with the way out", async () => {
    using model = new TestModel("llama-3")
    rmSync(join(model.path, "model.safetensors"))
    model.write("pytorch_model.bin", "x")
    expect((await refuses(model, /safetensors/)).hint).toContain("pickled")
  })

  test("links that lead out of the folder", async () => {
    using outside = new TemporaryFolder()
    using model = new TestModel("llama-3")
    writeFileSync(join(outside.path, "secret.json"), "{}")
    rmSync(join(model.path, "config.json"))
    symlinkSync(join(outside.path, "secret.json"), join(model.path, "config.json"))
    const error = await refuses(model, /leads out of the folder/)
    expect(error.hint).toContain("cp -rL")
    using weights = new TestModel("llama-3")
    rmSync(join(weights.path, "model.safetensors"))
    symlinkSync("/etc/passwd", join(weights.path, "model.safetensors"))
    await refuses(weights, /leads out of the folder/)
  })

  test("a pipe where a file should be, without waiting", async () => {
    using model = new TestModel("llama-3")
    rmSync(join(model.path, "config.json"))
    execFileSync("mkfifo", [join(model.path, "config.json")])
    await refuses(model, /not a regular file/)
  })

  test("an index that lies about files and tensors", async () => {
    using model = new TestModel("llama-spm")
    const index = "model.safetensors.index.json"
    model.change(index, { weight_map: { "lm_head.weight": "../secret.safetensors" } })
    await refuses(model, /Cannot find "\.\.\/secret/)
    model.change(index, { weight_map: { "lm_head.weight": "model-00001-of-00003.safetensors" } })
    await refuses(model, /the index does not say that tensor/)
    model.write(index, '{"weight_map": 3}')
    await refuses(model, /"weight_map"/)
    using missing = new TestModel("llama-spm")
    rmSync(join(missing.path, "model-00002-of-00003.safetensors"))
    await refuses(missing, /Cannot find "model-00002/)
  })

  test("tensors that the architecture does not have, or in two files", async () => {
    using model = new TestModel("llama-3")
    const data = new Uint8Array(4)
    model.write(
      "model-2.safetensors",
      safetensors({ constructor: { type: "F32", shape: [1], data } }),
    )
    await refuses(model, /a tensor "constructor", which/)
    const extra = safetensors({
      "model.layers.0.strange.weight": { type: "F32", shape: [1], data },
    })
    model.write("model-2.safetensors", extra)
    await refuses(
      model,
      /"model\.layers\.0\.strange\.weight", which models of the architecture llama/,
    )
    const twice = safetensors({ "model.norm.weight": { type: "F32", shape: [1], data } })
    model.write("model-2.safetensors", twice)
    await refuses(model, /is in two files/)
  })

  test("values in the configuration that cannot be", async () => {
    const changes: readonly (readonly [Record<string, unknown>, RegExp])[] = [
      [{ num_attention_heads: 0 }, /"num_attention_heads" is 0/],
      [{ num_attention_heads: "four" }, /"num_attention_heads" is "four", expected a whole number/],
      [{ num_attention_heads: "heads" }, /"num_attention_heads" is "heads", expected a whole/],
      [{ num_attention_heads: 3 }, /rows, expected a multiple of 2 × 3 heads/],
      [{ hidden_size: 1e300 }, /"hidden_size"/],
      [{ vocab_size: 5 }, /it has token 29\d, the model only 5 tokens/],
      [{ vocab_size: 2 ** 31 - 1 }, /"vocab_size" is 2147483647, expected .* up to 2097152/],
      [{ num_hidden_layers: 2 ** 31 - 1 }, /"num_hidden_layers" .* up to 512/],
      [{ num_hidden_layers: 513 }, /"num_hidden_layers" is 513/],
      [{ head_dim: 2 ** 30 }, /"head_dim" .* up to 65536/],
      [{ hidden_size: 2 ** 31 - 1 }, /"hidden_size" .* up to 1048576/],
      [{ rope_scaling: [1] }, /"rope_scaling" is \[1\], expected an object/],
      [{ rope_scaling: { type: "yarn", factor: 2 } }, /YaRN/],
      [{ quantization_config: { quant_method: "gptq" } }, /quantised by gptq/],
    ]
    for (const [values, message] of changes) {
      using model = new TestModel("llama-3")
      model.change("config.json", values)
      // oxlint-disable-next-line no-await-in-loop
      await refuses(model, message)
    }
  })

  test("tokenizers that llama.cpp cannot follow, or that are broken", async () => {
    using model = new TestModel("llama-3")
    model.change("tokenizer.json", { pre_tokenizer: { type: "Whitespace" } })
    await refuses(model, /does not cut text like it does: Whitespace/)
    model.change("tokenizer.json", { model: { type: "Unigram", vocab: [["a", 0]] } })
    await refuses(model, /its model is Unigram, expected BPE/)
    model.change("tokenizer.json", { model: { type: "BPE", vocab: { a: 2 ** 40 } } })
    await refuses(model, /token "a" has number 1099511627776/)
    model.change("tokenizer.json", { model: { type: "BPE", vocab: { a: 0 }, merges: [[1, 2]] } })
    await refuses(model, /a merge is \[1,2\]/)
    model.write("tokenizer.json", "[")
    await refuses(model, /not JSON/)
    using pieces = new TestModel("llama-spm")
    pieces.write("tokenizer.model", Uint8Array.from([0x0a, 0xff, 0xff, 0xff, 0xff, 0x7f, 1]))
    await refuses(pieces, /not a SentencePiece model/)
  })

  test("experts of which some are missing", async () => {
    using model = new TestModel("mixtral")
    model.change("config.json", { num_local_experts: 4 })
    await refuses(model, /experts are missing/)
    model.change("config.json", { num_local_experts: 2 })
    await refuses(model, /expected 2 experts/)
    model.change("config.json", { num_local_experts: 2 ** 31 - 1 })
    await refuses(model, /"num_local_experts" .* up to 1024/)
  })

  test("experts of no size, however many", async () => {
    using model = new TestModel("qwen3-moe-fused")
    const empty = { type: "F32", shape: [2 ** 40, 2, 0], data: new Uint8Array() }
    const name = "model.layers.0.mlp.experts.gate_up_proj"
    rmSync(join(model.path, "model.safetensors"))
    model.write("model.safetensors", safetensors({ [name]: empty }))
    await refuses(model, /"\S+gate_up_proj" has 1099511627776 experts, expected \d+$/)
  })

  test("factors of 8-bit weights that are as many as the weights", async () => {
    using model = new TestModel("fp8-blocks")
    const config = { quant_method: "fp8", weight_block_size: [1, 1] }
    model.change("config.json", { quantization_config: config })
    const shape = [4096, 4097]
    rmSync(join(model.path, "model.safetensors"))
    model.write(
      "model.safetensors",
      safetensors({
        "lm_head.weight": { type: "F8_E4M3", shape, data: new Uint8Array(4096 * 4097) },
        "lm_head.weight_scale_inv": { type: "BF16", shape, data: new Uint8Array(2 * 4096 * 4097) },
      }),
    )
    await refuses(model, /"lm_head.weight_scale_inv" has 16781312 factors, limit 16777216/)
  })
})

describe("convertFolder()", () => {
  test("does not leave a file that cannot be loaded", async () => {
    using model = new TestModel("llama-3")
    const twice = { id: 290, content: "<|begin_of_text|>", special: true }
    const first = { ...twice, id: 288 }
    model.change("tokenizer.json", { added_tokens: [first, twice] })
    await refuses(model, /is "<\|begin_of_text\|>" like one before it/)
  })

  test("keeps the file that was there when it fails", async () => {
    using model = new TestModel("llama-3")
    writeFileSync(model.target, "old")
    model.change("config.json", { architectures: ["Nope"] })
    await rejects(convert(model))
    expect(readdirSync(model.outside).toSorted()).toEqual(["model", "out.gguf"])
  })

  test("says when the target cannot be written", async () => {
    using model = new TestModel("llama-3")
    await rejects(
      convertFolder(model.path, join(model.outside, "none", "x.gguf")).next(),
      /Cannot write .*ENOENT/,
    )
  })

  test("says when a file becomes shorter meanwhile, and leaves nothing", async () => {
    using model = new TestModel("llama-3")
    const events = convertFolder(model.path, model.target)
    await events.next()
    model.write("model.safetensors", "short")
    await rejects(async () => {
      for await (const _ of events);
    }, /became shorter while it was read/)
    expect(existsSync(model.target)).toBe(false)
    expect(readdirSync(model.outside)).toEqual(["model"])
  })

  test("follows the links of Hugging Face's cache", async () => {
    using cache = new TemporaryFolder()
    using model = new TestModel("olmo2")
    const snapshot = join(cache.path, "snapshots", "main")
    mkdirSync(snapshot, { recursive: true })
    renameSync(model.path, join(cache.path, "blobs"))
    for (const name of readdirSync(join(cache.path, "blobs"))) {
      symlinkSync(join("../../blobs", name), join(snapshot, name))
    }
    expect(folderKind(snapshot)).toBe("model")
    for await (const _ of convertFolder(snapshot, model.target));
    expect(existsSync(model.target)).toBe(true)
  })
})

describe("convertAdapter()", () => {
  test("takes the GGUF file of a model in place of its folder", async () => {
    using original = new TestModel("llama-spm")
    await convert(original)
    expect(readAdapterBase(original.target)).toMatchObject(readAdapterBase(original.path))
    using model = new TestModel("lora-llama")
    const folder = { base: readAdapterBase(original.path) }
    for await (const _ of convertAdapter(model.path, model.target, folder));
    const before = readFileSync(model.target)
    const file = { base: readAdapterBase(original.target) }
    for await (const _ of convertAdapter(model.path, model.target, file));
    expect(readFileSync(model.target).equals(before)).toBe(true)
  })

  test("refuses one that is for another model", async () => {
    using original = new TestModel("llama-3")
    await convert(original)
    using model = new TestModel("lora-llama")
    const options = { base: readAdapterBase(original.target) }
    await rejects(
      convertAdapter(model.path, model.target, options).next(),
      /it is for another model: "blk\.0\.\w+\.weight" is 64 × \d+ there, \d+ × \d+ in the adapter/,
    )
    expect(existsSync(model.target)).toBe(false)
  })

  test("refuses adapters that are more than pairs of matrices", async () => {
    using model = new TestModel("lora-llama")
    model.change("adapter_config.json", { use_dora: true })
    await rejects(adapts(model, "llama-spm"), /DoRA/)
    model.change("adapter_config.json", { use_dora: false, alpha_pattern: { q_proj: 3 } })
    await rejects(adapts(model, "llama-spm"), /"alpha_pattern"/)
    const whole = { type: "F32", shape: [1], data: new Uint8Array(4) }
    model.write(
      "adapter_model.safetensors",
      safetensors({ "base_model.model.lm_head.weight": whole }),
    )
    await rejects(adapts(model, "llama-spm"), /expected pairs of A and B/)
    const half = { "base_model.model.lm_head.lora_A.weight": { ...whole, shape: [1, 1] } }
    model.write("adapter_model.safetensors", safetensors(half))
    await rejects(adapts(model, "llama-spm"), /only one of A and B/)
    expect(existsSync(model.target)).toBe(false)
  })

  test("makes up for stabilised ranks", async () => {
    using model = new TestModel("lora-llama")
    model.change("adapter_config.json", { use_rslora: true })
    await adapts(model, "llama-spm")
    // α / √r is (α √r) / r: 16 × √4.
    expect(readGguf(model.target).metadata.get("adapter.lora.alpha")).toEqual({
      type: "f32",
      value: 32,
    })
  })
})
