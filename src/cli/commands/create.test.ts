import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"
import { readdirSync, rmSync } from "node:fs"
import { join } from "node:path"

import { Client } from "../../client/client.ts"
import { type Config, readConfig } from "../../config.ts"
import { TemporaryFolder } from "../../gguf/raw-file.ts"
import { text, u32, writeGguf } from "../../gguf/write.ts"
import { TestServer } from "../../server/test-server.ts"
import { TestTerminal } from "../test-terminal.ts"
import { create } from "./create.ts"

/** A server far away, and a folder with a model and its Modelfile. */
class Setting implements AsyncDisposable {
  readonly server = new TestServer()
  readonly folder = new TemporaryFolder()
  readonly client: Client
  /** Of requests to create. */
  readonly bodies: { readonly discard: readonly string[] }[] = []
  /** Called before each request to create. */
  onCreate: () => void = () => {}

  constructor() {
    this.client = new Client("http://far", async (url, init) => {
      if (url.endsWith("/api/create")) {
        this.onCreate()
        this.bodies.push((await new Response(init.body).json()) as { discard: string[] })
      }
      return this.server.request(url.slice("http://far".length), init)
    })
  }

  static async make(): Promise<Setting> {
    const setting = new Setting()
    const metadata = new Map([
      ["general.architecture", text("llama")],
      ["general.file_type", u32(1)],
      ["llama.block_count", u32(1)],
    ])
    await writeGguf(join(setting.folder.path, "m.gguf"), { metadata, tensors: [] })
    setting.folder.write(Buffer.from("FROM ./m.gguf\n"), "Modelfile")
    return setting
  }

  get config(): Config {
    return readConfig({ CRIA_MODELS: join(this.folder.path, "store") })
  }

  get file(): string {
    return join(this.folder.path, "Modelfile")
  }

  /** Files in the server's store. */
  get blobs(): string {
    return join(this.server.app.folder.root, "blobs")
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.folder[Symbol.dispose]()
    await this.server[Symbol.asyncDispose]()
  }
}

describe("create()", () => {
  test("uploads, creates, and has discarded what the server had from it alone", async () => {
    await using setting = await Setting.make()
    using terminal = new TestTerminal()
    const { client, config, file } = setting
    await create(client, config, "m", { file })
    expect(terminal.stderr).toMatch(/^gathering .*\ncopying file sha256:\w+: 0% .*\nsuccess\n$/s)
    expect(setting.bodies[0]?.discard).toHaveLength(1)
    expect(setting.server.app.resolver.resolve("m").facts.architecture).toBe("llama")
    await create(client, config, "again", { file, json: true })
    expect(setting.bodies[1]?.discard).toEqual([])
    expect(terminal.stdout).toEndWith('{"status":"success"}\n')
  })

  test("uploads again what somebody has taken away", async () => {
    await using setting = await Setting.make()
    using terminal = new TestTerminal()
    setting.onCreate = () => {
      for (const name of readdirSync(setting.blobs)) rmSync(join(setting.blobs, name))
      setting.onCreate = () => {}
    }
    await create(setting.client, setting.config, "m", { file: setting.file })
    expect(setting.bodies.map(({ discard }) => discard.length)).toEqual([1, 1])
    expect(terminal.stderr).toEndWith("success\n")
  })

  test("takes no device for an importance matrix", async () => {
    await using setting = await Setting.make()
    using _ = new TestTerminal()
    const { client, config, file } = setting
    await rejects(create(client, config, "m", { file, imatrix: "/dev/zero" }), {
      code: "invalid-input",
      message: 'Cannot use "/dev/zero": expected a regular file',
    })
  })
})
