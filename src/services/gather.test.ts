import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs"
import { homedir, tmpdir } from "node:os"
import { dirname, join, relative } from "node:path"

import { convertFolder } from "../convert/convert.ts"
import type { ModelSource } from "../convert/folder.ts"
import { TestModel } from "../convert/test-model.ts"
import { parseModelfile } from "../modelfile/parse.ts"
import { gatherFiles } from "./gather.ts"

/** A folder that disappears with its owner. */
class Folder implements Disposable {
  readonly path: string = mkdtempSync(join(tmpdir(), "cria-gather-"))

  /** Writes empty files; returns the folder. */
  with(...names: readonly string[]): this {
    for (const name of names) {
      mkdirSync(dirname(join(this.path, name)), { recursive: true })
      writeFileSync(join(this.path, name), "")
    }
    return this
  }

  /** The names of the files that a Modelfile refers to. */
  files(modelfile: string): string[] {
    return [...this.gather(modelfile).files.keys()].toSorted()
  }

  gather(modelfile: string): ReturnType<typeof gatherFiles> {
    return gatherFiles(parseModelfile(modelfile), this.path)
  }

  [Symbol.dispose](): void {
    rmSync(this.path, { recursive: true, force: true })
  }
}

describe("gatherFiles() — FROM", () => {
  test("a file, a path of a file, several files", () => {
    using folder = new Folder().with("m.gguf", "sub/p.gguf")
    expect(folder.files("FROM m.gguf")).toEqual(["m.gguf"])
    expect(folder.files(`FROM ${join(folder.path, "sub/p.gguf")}`)).toEqual(["p.gguf"])
    expect(folder.files("FROM ./m.gguf\nFROM sub/p.gguf")).toEqual(["m.gguf", "sub/p.gguf"])
    expect(folder.gather("FROM m.gguf").from).toBeUndefined()
  })

  test("the name of a model, of which the last counts", () => {
    using folder = new Folder().with("m.gguf")
    expect(folder.gather("FROM a\nFROM hf.co/you/b:q4\nFROM m.gguf").from).toBe("hf.co/you/b:q4")
  })

  test("a folder of safetensors, with what belongs to it", () => {
    using folder = new Folder().with(
      "model-00001-of-00002.safetensors",
      "model-00002-of-00002.safetensors",
      "model.safetensors.index.json",
      "config.json",
      "tokenizer.json",
      "tokenizer.model",
      "chat_template.jinja",
      "additional_chat_templates/tool_use.jinja",
      "README.md",
      "LICENSE",
      "merges.txt",
      "requirements.txt",
      "vocab.txt",
      "pytorch_model.bin",
      "sub/config.json",
      "x.gguf",
    )
    expect(folder.files("FROM .")).toEqual([
      "README.md",
      "additional_chat_templates/tool_use.jinja",
      "chat_template.jinja",
      "config.json",
      "merges.txt",
      "model-00001-of-00002.safetensors",
      "model-00002-of-00002.safetensors",
      "model.safetensors.index.json",
      "sub/config.json",
      "tokenizer.json",
      "tokenizer.model",
      "vocab.txt",
    ])
  })

  test("a folder of GGUF files", () => {
    using folder = new Folder().with("b.gguf", "a.gguf", "config.json")
    expect(folder.files("FROM .")).toEqual(["a.gguf", "b.gguf"])
  })

  test("an adapter in a folder", () => {
    using folder = new Folder().with("lora/adapter_model.safetensors", "lora/adapter_config.json")
    const { adapters } = folder.gather("FROM a\nADAPTER ./lora")
    expect([...adapters.keys()]).toEqual(["adapter_model.safetensors", "adapter_config.json"])
  })

  test("the home folder is ~", () => {
    using folder = new Folder()
    expect(() => folder.gather("FROM ~/surely/not/there.gguf")).toThrow(
      expect.objectContaining({
        code: "not-found",
        message: 'Cannot find "~/surely/not/there.gguf"',
      }),
    )
    expect(homedir()).not.toBe("")
  })

  test.skipIf(!existsSync("/etc/passwd"))("that of a user is ~ and the name", () => {
    using folder = new Folder().with("m.gguf")
    const [user = "", , , , , home = ""] = readFileSync("/etc/passwd", "utf8").split(":")
    const path = `~${user}/${relative(home, join(folder.path, "m.gguf"))}`
    expect([...folder.gather(`FROM ${path}`).files.keys()]).toEqual(["m.gguf"])
    expect(() => folder.gather("FROM ~no-such-user/m.gguf")).toThrow(
      'Cannot find "~no-such-user/m.gguf"',
    )
  })
})

/** A tokenizer of byte pairs as two files, in the place of one. */
function splitTokenizer(model: TestModel): void {
  const path = join(model.path, "tokenizer.json")
  const { model: pairs } = JSON.parse(readFileSync(path, "utf8")) as {
    model: { vocab: object; merges: (string | string[])[] }
  }
  const merges = pairs.merges.map((merge) => (Array.isArray(merge) ? merge.join(" ") : merge))
  model.write("vocab.json", JSON.stringify(pairs.vocab))
  model.change("tokenizer_config.json", { tokenizer_class: "Qwen2Tokenizer" })
  model.write("merges.txt", ["#version: 0.2", ...merges, ""].join("\n"))
  rmSync(path)
}

/** The words of a tokenizer as a text file. */
function listWords(model: TestModel): void {
  const path = join(model.path, "tokenizer.json")
  const { model: words } = JSON.parse(readFileSync(path, "utf8")) as {
    model: { vocab: Record<string, number> }
  }
  model.write("vocab.txt", `${Object.keys(words.vocab).join("\n")}\n`)
  rmSync(path)
}

async function converted(source: ModelSource, target: string): Promise<Buffer> {
  for await (const _ of convertFolder(source, target));
  return readFileSync(target)
}

describe("gatherFiles() — takes all that a conversion reads", () => {
  test.each<[string, (model: TestModel) => void]>([
    ["llama-3", () => {}],
    ["llama-spm", (model) => model.write("additional_chat_templates/rag.jinja", "{{ documents }}")],
    ["qwen2", splitTokenizer],
    ["qwen3-embedding", (model) => model.write("README.md", "---\nlicense: mit\n---\n")],
    ["bert", listWords],
  ])("of %s", async (name, change) => {
    using model = new TestModel(name)
    change(model)
    const { files } = gatherFiles(parseModelfile(`FROM ${model.path}`), "/")
    const list = { name: "model", label: name, paths: Object.fromEntries(files) }
    const whole = await converted(model.path, model.target)
    expect((await converted(list, model.target)).equals(whole)).toBe(true)
  })

  test("a tokenizer without its merges is none", async () => {
    using model = new TestModel("qwen2")
    splitTokenizer(model)
    rmSync(join(model.path, "merges.txt"))
    await rejects(converted(model.path, model.target), {
      code: "not-found",
      message: `Cannot find "merges.txt" in "${model.path}"`,
    })
  })
})

describe("gatherFiles() — refuses", () => {
  test.each(["./nope.gguf", "/nope/at/all", "../nope", "nope.gguf", "model.safetensors"])(
    "%s, which is not there",
    (path) => {
      using folder = new Folder()
      expect(() => folder.gather(`FROM ${path}`)).toThrow(`Cannot find "${path}"`)
    },
  )

  test("a folder without a model, and says what to do about PyTorch's files", () => {
    using folder = new Folder().with("README.md")
    const message = "no Modelfile or safetensors files found"
    expect(() => folder.gather("FROM .")).toThrow(message)
    folder.with("pytorch_model.bin")
    expect(() => folder.gather("FROM .")).toThrow(
      expect.objectContaining({
        message,
        hint: expect.stringContaining("save the model as safetensors"),
      }),
    )
  })

  test.skipIf(process.platform === "win32")("devices and pipes", () => {
    using folder = new Folder()
    const pipe = join(folder.path, "pipe.gguf")
    Bun.spawnSync(["mkfifo", pipe])
    for (const path of ["/dev/zero", "/dev/null", pipe]) {
      expect(() => folder.gather(`FROM ${path}`)).toThrow("it is a device, pipe or socket")
      expect(() => folder.gather(`FROM a\nADAPTER ${path}`)).toThrow("device, pipe or socket")
    }
    symlinkSync("/dev/zero", join(folder.path, "zero.gguf"))
    expect(() => folder.gather("FROM ./zero.gguf")).toThrow("device, pipe or socket")
  })

  test("links that leave the folder", () => {
    using outside = new Folder().with("secret.safetensors")
    using folder = new Folder().with("config.json", "real.safetensors")
    symlinkSync(join(folder.path, "real.safetensors"), join(folder.path, "model.safetensors"))
    expect(folder.files("FROM .")).toEqual(["config.json", "model.safetensors"])
    rmSync(join(folder.path, "model.safetensors"))
    symlinkSync(join(outside.path, "secret.safetensors"), join(folder.path, "model.safetensors"))
    expect(() => folder.gather("FROM .")).toThrow("insecure path: model.safetensors")
  })

  test("a draft that is the model itself", () => {
    using folder = new Folder().with("m.gguf")
    expect(() => folder.gather("FROM m.gguf\nDRAFT ./m.gguf")).toThrow(
      "DRAFT must not reference the same local path as FROM: ./m.gguf",
    )
  })

  test("names that no file system has", () => {
    using folder = new Folder()
    for (const length of [300, 5000]) {
      const name = "x".repeat(length)
      expect(folder.gather(`FROM ${name}`).from).toHaveLength(length)
      expect(() => folder.gather(`FROM a\nADAPTER ${name}`)).toThrow("Cannot find")
    }
    expect(() => folder.gather(`FROM ./${"x".repeat(300)}`)).toThrow('Cannot find "./xxx')
    expect(() => folder.gather(`FROM ${"x".repeat(300)}.gguf`)).toThrow('Cannot find "xxx')
  })

  test("what the system does not let us look at, in our words", () => {
    using folder = new Folder().with("m.gguf")
    expect(() => folder.gather("FROM ./m.gguf/x")).toThrow('Cannot find "./m.gguf/x"')
    symlinkSync("loop.gguf", join(folder.path, "loop.gguf"))
    expect(() => folder.gather("FROM ./loop.gguf")).toThrow('Cannot read "./loop.gguf": ELOOP')
  })
})
