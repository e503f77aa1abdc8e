import { describe, expect, test } from "bun:test"
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs"
import { join } from "node:path"

import { NO_OTHER_USER, testUnless } from "./requirements.ts"
import {
  DRAFT,
  firstLines,
  LogReader,
  LONG_ANSWER,
  type Running,
  type Server,
  until,
  World,
} from "./support.ts"

/** Starts an answer that takes a while, and waits until it flows. */
async function longAnswer(server: Server, model = "demo", signal?: AbortSignal) {
  return firstLines(await server.post("/api/generate", { model, ...LONG_ANSWER }, signal), 3)
}

describe("a runner that is killed in mid-answer", () => {
  test("fails its own request with a reason, nobody else's, and is started again", async () => {
    await using world = new World()
    world.install("draft", DRAFT)
    await using server = await world.serve()
    await server.json("/api/generate", { model: "demo" })
    const { runner } = server
    await server.json("/api/generate", { model: "draft" })
    const [mine, other] = await Promise.all([longAnswer(server), longAnswer(server, "draft")])
    process.kill(runner, "SIGKILL")
    const broken = (await mine.rest()).trim().split("\n").at(-1) ?? ""
    expect(JSON.parse(broken)).toEqual({
      error: expect.stringMatching(
        /^an error was encountered while running the model: .*SIGKILL/,
      ) as string,
    })
    const whole = (await other.rest()).trim().split("\n").at(-1) ?? ""
    expect(JSON.parse(whole)).toMatchObject({ done: true })
    const again = await server.json("/api/generate", {
      model: "demo",
      prompt: "2+3?",
      think: false,
      stream: false,
    })
    expect(again["response"]).toBe("2 + 3 = 5.")
    expect(server.runners).not.toContain(runner)
  })

  test("fails every request that it was answering", async () => {
    await using world = new World()
    await using server = await world.serve()
    const answers = await Promise.all([1, 2, 3].map(() => longAnswer(server)))
    process.kill(server.runner, "SIGKILL")
    for (const answer of answers) {
      const last = (await answer.rest()).trim().split("\n").at(-1) ?? ""
      expect(JSON.parse(last)).toHaveProperty("error")
    }
  })

  test("gives a status of 500 when nothing was sent yet", async () => {
    await using world = new World()
    await using server = await world.serve()
    await server.json("/api/generate", { model: "demo" })
    const pending = server.post("/api/generate", { model: "demo", ...LONG_ANSWER, stream: false })
    await server.busy({ running: 1 })
    process.kill(server.runner, "SIGKILL")
    const response = await pending
    expect(response.status).toBe(500)
    expect(await response.json()).toMatchObject({
      error: expect.stringMatching(
        /^model runner has unexpectedly stopped, .*: SIGKILL$/,
      ) as string,
    })
  })
})

describe("a client that goes away", () => {
  test("frees the model within a step, so that it can be unloaded", async () => {
    await using world = new World()
    await using server = await world.serve()
    const controller = new AbortController()
    await longAnswer(server, "demo", controller.signal)
    await server.json("/api/generate", { model: "demo", keep_alive: 0 })
    expect(server.runners).toHaveLength(1)
    controller.abort()
    await server.idle()
  })
})

/** Starts `cria run` with an answer that takes a while. */
function runLong(world: World): Running {
  return world.start(["run", "demo", "--format", JSON.stringify(LONG_ANSWER.format), "Count"])
}

/** Waits until so many run: the command, its server, the server's runner. */
function processes(world: World, count: number): Promise<void> {
  return until(() => world.processes().length >= count)
}

describe("processes", () => {
  test("end with the server when it is killed", async () => {
    await using world = new World()
    const server = await world.serve()
    await longAnswer(server)
    expect(world.processes().length).toBeGreaterThanOrEqual(2)
    server.child.kill("SIGKILL")
    await world.quiet()
  })

  test("end with cria run when it is killed", async () => {
    await using world = new World()
    const child = runLong(world)
    await processes(world, 3)
    child.kill("SIGKILL")
    await world.quiet()
  })

  test.each<[string, (world: World, child: Running) => Promise<unknown>]>([
    ["at once", () => Promise.resolve()],
    ["while it starts a server", (world) => processes(world, 2)],
    ["while the model is loaded", (world) => processes(world, 3)],
    ["while it answers", (_, child) => child.stdout.getReader().read()],
  ])("end with cria run at Ctrl-C %s, and its status says so", async (_, moment) => {
    await using world = new World()
    const child = runLong(world)
    await moment(world, child)
    child.kill("SIGINT")
    await child.exited
    expect([child.exitCode, child.signalCode]).toBeOneOf([
      [130, null],
      [null, "SIGINT"],
    ])
    await world.quiet()
  })
})

describe("cria serve", () => {
  test("lets requests finish after SIGTERM, takes no new ones, and ends with 0", async () => {
    await using world = new World()
    const server = await world.serve()
    // Short enough for the time that it has to end, on a slow machine too.
    const options = { ...LONG_ANSWER.options, num_predict: 500 }
    const request = { model: "demo", ...LONG_ANSWER, options }
    const answer = await firstLines(await server.post("/api/generate", request), 3)
    server.child.kill("SIGTERM")
    const last = (await answer.rest()).trim().split("\n").at(-1) ?? ""
    expect(JSON.parse(last)).toMatchObject({ done: true })
    expect(await fetch(server.url).catch(() => "refused")).toBe("refused")
    await server.child.exited
    expect(server.child.exitCode).toBe(0)
    await world.quiet()
  })

  test("ends at once at a second signal", async () => {
    await using world = new World()
    const server = await world.serve()
    const answer = await longAnswer(server)
    server.child.kill("SIGINT")
    // From then on it has seen the first one.
    await until(() =>
      fetch(server.url, { keepalive: false }).then(
        () => false,
        () => true,
      ),
    )
    server.child.kill("SIGINT")
    await server.child.exited
    expect(await answer.rest().catch(() => "broken off")).not.toContain('"done":true')
    await world.quiet()
  })

  test("goes on when nobody reads its log any more", async () => {
    await using world = new World()
    const child = Bun.spawn(["sh", "-c", `${world.executable} serve 2>&1 | grep -m 1 listening`], {
      env: world.env({ CRIA_HOST: "127.0.0.1:0" }),
      stdout: "pipe",
    })
    const url = (await new LogReader(child.stdout).find(/url=(\S+)\s/)) ?? ""
    for (let i = 0; i < 3; i++) {
      // Each of these writes a line into the closed log.
      const response = await fetch(`${url}/api/generate`, {
        method: "POST",
        body: '{"model":"demo","prompt":"x","format":"xml"}',
      })
      expect(response.status).toBe(500)
    }
  })

  test("says that the port is in use", async () => {
    await using world = new World()
    await using server = await world.serve()
    const { host } = new URL(server.url)
    const { code, stderr } = await world.run(["serve"], { env: { CRIA_HOST: host } })
    expect(code).toBe(1)
    expect(stderr).toContain(`Error: listen tcp ${host}: bind: address already in use\n`)
  })

  test.each([
    [
      "an address that is none",
      { CRIA_HOST: "127.0.0.1:99999" },
      /^Error: Cannot use OLLAMA_HOST="127.0.0.1:99999"/,
    ],
    [
      "an address of another machine",
      { CRIA_HOST: "192.0.2.1:0" },
      /Error: listen tcp 192\.0\.2\.1:0: /,
    ],
  ])("says what is wrong with %s", async (_, env, message) => {
    await using world = new World()
    const { code, stderr } = await world.run(["serve"], { env })
    expect(code).toBe(1)
    expect(stderr).toMatch(message)
  })

  test("warns of settings that it cannot read, and uses the defaults", async () => {
    await using world = new World()
    const { stderr, code } = await world.run(["run", "demo", ""], {
      env: { OLLAMA_KEEP_ALIVE: "soon", OLLAMA_MAX_QUEUE: "many" },
    })
    expect(code).toBe(0)
    expect(stderr).toContain('Warning: Cannot use OLLAMA_KEEP_ALIVE="soon"')
    expect(stderr).toContain('Warning: Cannot use OLLAMA_MAX_QUEUE="many"')
  })

  test("skips models that it cannot read, and serves the others", async () => {
    await using world = new World()
    world.install("draft", DRAFT)
    const broken = join(world.store, "manifests/registry.ollama.ai/library/broken")
    mkdirSync(broken, { recursive: true })
    writeFileSync(join(broken, "latest"), "{ not a manifest")
    await using server = await world.serve()
    const { models } = (await server.json("/api/tags")) as { models: { name: string }[] }
    expect(models.map(({ name }) => name).toSorted()).toEqual(["demo:latest", "draft:latest"])
  })

  test("says which model's file is broken, and serves the others", async () => {
    await using world = new World()
    world.install("draft", DRAFT)
    for (const blob of readdirSync(join(world.store, "blobs"))) {
      const path = join(world.store, "blobs", blob)
      if (readFileSync(path).subarray(0, 4).toString() === "GGUF")
        writeFileSync(path, readFileSync(path).subarray(0, 500_000))
    }
    await using server = await world.serve()
    const response = await server.post("/api/generate", {
      model: "draft",
      prompt: "x",
      stream: false,
    })
    expect(response.status).toBeGreaterThanOrEqual(400)
    expect(await response.json()).toMatchObject({
      error: expect.stringContaining("draft:latest") as string,
    })
    expect(
      await server.json("/api/generate", {
        model: "demo",
        prompt: "2+3?",
        think: false,
        stream: false,
      }),
    ).toMatchObject({ response: "2 + 3 = 5." })
  })
})

describe("the executable", () => {
  test("runs without its native folder, from what is inside it, and unpacks that once", async () => {
    await using world = new World()
    rmSync(join(world.folder, "app/native"), { recursive: true })
    const run = () => world.run(["run", "demo", "--think=false", "2+3?"])
    expect(await run()).toEqual({ code: 0, stdout: "2 + 3 = 5.\n\n", stderr: "" })
    const [unpacked = ""] = readdirSync(join(world.home, ".cache/cria/native"))
    expect(existsSync(join(world.home, ".cache/cria/native", unpacked, "libcria.so"))).toBe(true)
    expect((await run()).stdout).toBe("2 + 3 = 5.\n\n")
    expect(readdirSync(join(world.home, ".cache/cria/native"))).toEqual([unpacked])
  })

  test("ignores .env and bunfig.toml of the folder that it is started in", async () => {
    await using world = new World()
    const folder = join(world.folder, "project")
    mkdirSync(folder)
    writeFileSync(join(folder, ".env"), "CRIA_HOST=256.0.0.1:1\n")
    writeFileSync(join(folder, "bunfig.toml"), 'preload = ["./missing.ts"]\n')
    const { code, stdout } = await world.run(["run", "demo", "--think=false", "2+3?"], {
      cwd: folder,
    })
    expect({ code, stdout }).toEqual({ code: 0, stdout: "2 + 3 = 5.\n\n" })
  })

  testUnless(NO_OTHER_USER)("runs from a read-only folder as a user without a home", async () => {
    await using world = new World()
    rmSync(join(world.folder, "app/native"), { recursive: true })
    chmodSync(world.folder, 0o755)
    chmodSync(join(world.folder, "app"), 0o555)
    chownSync(world.home, 0, 0)
    chmodSync(world.home, 0o555)
    const child = Bun.spawnSync(
      [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        world.executable,
        "run",
        "demo",
        "--think=false",
        "2+3?",
      ],
      { env: world.env(), cwd: "/" },
    )
    expect({ out: child.stdout.toString(), err: child.stderr.toString() }).toEqual({
      out: "2 + 3 = 5.\n\n",
      err: "",
    })
  })

  test("needs nothing but the C library", () => {
    const { stdout } = Bun.spawnSync([
      "ldd",
      join(import.meta.dirname, "../../dist/native/cpu/libcria.so"),
    ])
    const text = stdout.toString()
    expect(text).not.toContain("not found")
    const outside = text
      .split("\n")
      .flatMap((line) => /^\s*(\S+) => \/(?:usr\/)?lib\S*/.exec(line)?.[1] ?? [])
    expect(
      outside.filter(
        (name) => !/^(libc|libm|libstdc\+\+|libgcc_s|libpthread|libdl|librt)\.so/.test(name),
      ),
    ).toEqual([])
  })
})

describe("the examples", () => {
  const root = join(import.meta.dirname, "../..")
  const expected = "The capital of France is Paris.\n8 tokens\n256 dimensions\n"

  test("embed cria in a Bun program", () => {
    const child = Bun.spawnSync([process.execPath, "examples/embed-bun.ts"], { cwd: root })
    expect({ out: child.stdout.toString(), err: child.stderr.toString() }).toEqual({
      out: expected,
      err: "",
    })
  })

  test("embed cria in a Deno program", () => {
    const child = Bun.spawnSync(
      [
        "node_modules/.bin/deno",
        "run",
        "--allow-ffi",
        "--allow-read",
        "--allow-env",
        "--allow-sys",
        "examples/embed-deno.ts",
      ],
      { cwd: root, env: { ...process.env, NO_COLOR: "1" } },
    )
    expect({ out: child.stdout.toString(), err: child.stderr.toString() }).toEqual({
      out: expected,
      err: "",
    })
  })
})
