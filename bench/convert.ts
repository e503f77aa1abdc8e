/**
 * Conversion of a safetensors folder beside llama.cpp's own converter: speed and peak memory.
 *
 *     bun bench/convert.ts --python /tmp/venv/bin/python [--rounds 3] [--gigabytes 2] [--types auto,f16,q8_0]
 *
 * The peer is a Python program: it needs a virtual environment with torch, transformers, sentencepiece and protobuf, and
 * llama.cpp's source (`bun scripts/build-native.ts cpu --from source --with-source`). Both run as processes of their
 * own, in turns, on a model with the shape of Llama 2 and random weights that lies in the page cache; the speed is that
 * of the weights read.
 *
 * @module
 */

import {
  closeSync,
  copyFileSync,
  mkdtempSync,
  openSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"

import { convertFolder, type ConvertType } from "../src/convert/convert.ts"
import { CriaError } from "../src/util/errors.ts"
import { type Comparison, compare, formatComparisons } from "./measure.ts"

const ROOT = join(import.meta.dirname, "..")
const PEER = join(ROOT, "vendor/llama.cpp/src/convert_hf_to_gguf.py")

/** A vocabulary that llama.cpp's converter takes without looking it up. */
const TOKENIZER = join(ROOT, "tests/fixtures/convert/llama-spm")

const WIDTH = 2048
const HIDDEN = 5632
const HEADS = 16
const TOKENS = 32_000

/** Bytes written at once while the model is made. */
const CHUNK_BYTES: number = 8 * 1024 * 1024

/** What a run took. */
interface Run {
  readonly seconds: number
  readonly peakBytes: number
}

/** Writes a model of about so many bytes. */
function makeFolder(folder: string, bytes: number): void {
  const perLayer = 2 * (4 * WIDTH * WIDTH + 3 * WIDTH * HIDDEN)
  const layers = Math.max(1, Math.round((bytes - 4 * WIDTH * TOKENS) / perLayer))
  const config = {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    vocab_size: TOKENS,
    hidden_size: WIDTH,
    intermediate_size: HIDDEN,
    num_hidden_layers: layers,
    num_attention_heads: HEADS,
    num_key_value_heads: HEADS,
    max_position_embeddings: 4096,
    rms_norm_eps: 1e-5,
  }
  writeFileSync(join(folder, "config.json"), JSON.stringify(config))
  for (const name of ["tokenizer.model", "tokenizer_config.json"]) {
    copyFileSync(join(TOKENIZER, name), join(folder, name))
  }
  writeWeights(join(folder, "model.safetensors"), shapesOf(layers))
}

function shapesOf(layers: number): Map<string, readonly number[]> {
  const shapes = new Map<string, readonly number[]>([
    ["model.embed_tokens.weight", [TOKENS, WIDTH]],
    ["model.norm.weight", [WIDTH]],
    ["lm_head.weight", [TOKENS, WIDTH]],
  ])
  for (let layer = 0; layer < layers; layer += 1) {
    const prefix = `model.layers.${layer}`
    for (const name of ["q", "k", "v", "o"]) {
      shapes.set(`${prefix}.self_attn.${name}_proj.weight`, [WIDTH, WIDTH])
    }
    shapes.set(`${prefix}.mlp.gate_proj.weight`, [HIDDEN, WIDTH])
    shapes.set(`${prefix}.mlp.up_proj.weight`, [HIDDEN, WIDTH])
    shapes.set(`${prefix}.mlp.down_proj.weight`, [WIDTH, HIDDEN])
    shapes.set(`${prefix}.input_layernorm.weight`, [WIDTH])
    shapes.set(`${prefix}.post_attention_layernorm.weight`, [WIDTH])
  }
  return shapes
}

function writeWeights(path: string, shapes: ReadonlyMap<string, readonly number[]>): void {
  let offset = 0
  const header: Record<string, object> = {}
  for (const [name, shape] of shapes) {
    const bytes = 2 * shape.reduce((product, size) => product * size, 1)
    header[name] = { dtype: "BF16", shape, data_offsets: [offset, offset + bytes] }
    offset += bytes
  }
  const text = Buffer.from(JSON.stringify(header))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  const file = openSync(path, "w")
  writeSync(file, Buffer.concat([length, text]))
  // Numbers between -0.5 and 0.5, the same in every chunk: speed does not depend on them.
  const numbers = Float32Array.from({ length: CHUNK_BYTES / 2 }, () => Math.random() - 0.5)
  const chunk = Uint16Array.from(new Uint32Array(numbers.buffer), (word) => word >>> 16)
  for (let done = 0; done < offset; done += CHUNK_BYTES) {
    writeSync(file, new Uint8Array(chunk.buffer), 0, Math.min(CHUNK_BYTES, offset - done))
  }
  closeSync(file)
}

async function measure(command: readonly string[]): Promise<Run> {
  const start = performance.now()
  const child = Bun.spawn([...command], { cwd: ROOT, stdout: "ignore", stderr: "pipe" })
  const [errors, code] = await Promise.all([new Response(child.stderr).text(), child.exited])
  const seconds = (performance.now() - start) / 1000
  if (code !== 0) {
    throw new CriaError("unavailable", `${command[0] ?? ""} failed: ${errors.slice(-2000)}`)
  }
  return { seconds, peakBytes: child.resourceUsage()?.maxRSS ?? Number.NaN }
}

async function compareType(
  type: string,
  options: { folder: string; python: string; rounds: number; bytes: number },
): Promise<Comparison[]> {
  const { folder, python, rounds, bytes } = options
  const target = join(folder, "out.gguf")
  const ours: Run[] = []
  const theirs: Run[] = []
  for (let round = 0; round < rounds; round += 1) {
    const self = [process.execPath, import.meta.path, "--child", folder, target, type]
    // In turns, or they would measure each other.
    // oxlint-disable-next-line no-await-in-loop
    ours.push(await measure(self))
    // oxlint-disable-next-line no-await-in-loop
    theirs.push(await measure([python, PEER, folder, "--outfile", target, "--outtype", type]))
    rmSync(target, { force: true })
  }
  const speed = (runs: readonly Run[]): number[] => runs.map((run) => bytes / run.seconds / 1e6)
  const peak = (runs: readonly Run[]): number[] => runs.map((run) => run.peakBytes / 1e6)
  return [
    compare(
      { name: `${type}: speed`, unit: "MB/s", better: "more" },
      { name: "llama.cpp", goal: 1 },
      speed(ours),
      speed(theirs),
    ),
    compare(
      { name: `${type}: peak memory`, unit: "MB", better: "less" },
      { name: "llama.cpp", goal: 1 },
      peak(ours),
      peak(theirs),
    ),
  ]
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      python: { type: "string", default: "python3" },
      rounds: { type: "string", default: "3" },
      gigabytes: { type: "string", default: "2" },
      types: { type: "string", default: "auto,f16,q8_0" },
    },
  })
  const folder = mkdtempSync(join(tmpdir(), "cria-bench-"))
  try {
    makeFolder(folder, Number(values.gigabytes) * 1e9)
    const bytes = statSync(join(folder, "model.safetensors")).size
    const rows: Comparison[] = []
    for (const type of values.types.split(",")) {
      const options = { folder, python: values.python, rounds: Number(values.rounds), bytes }
      // oxlint-disable-next-line no-await-in-loop
      rows.push(...(await compareType(type, options)))
    }
    console.log(`bfloat16 weights of ${(bytes / 1e9).toFixed(2)} GB\n`)
    console.log(formatComparisons(rows))
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const [mode, folder = "", target = "", type] = process.argv.slice(2)
if (mode === "--child") {
  // The parent passes one of its own types on.
  for await (const _ of convertFolder(folder, target, { type: type as ConvertType }));
} else {
  await main()
}
