/**
 * Pull of a large blob from a registry on loopback, beside `curl` to /dev/null and `sha256sum` of the same bytes.
 *
 *   npm run bench:pull [-- --rounds 5] [-- --bytes 2147483648]
 *
 * Needs Debian's docker-registry and curl. The pull is that of a process of its own, so that its memory can be measured.
 * Results go to dist/bench-pull.json.
 *
 * @module
 */

import { createHash, randomFillSync } from "node:crypto"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { open } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"

import { Transfers } from "../src/services/transfer.ts"
import { openStore } from "../src/store/folder-store.ts"
import { DockerRegistry, NO_REGISTRY } from "../tests/e2e/registry-support.ts"
import { type Comparison, compare, formatComparisons, median } from "./measure.ts"

const ROOT = join(import.meta.dirname, "..")
const CHUNK_BYTES = 2 ** 20

/** What a pull took. */
interface Pulled {
  readonly seconds: number
  /** Resident bytes at the most. */
  readonly peakBytes: number
}

/** Transfers between a folder and registries on loopback. */
function transfersOf(root: string): Transfers {
  const own = openStore(root, { readOnly: false })
  return new Transfers({
    stores: { own, folders: [own], all: own },
    network: {
      userAgent: "cria/bench",
      replyMs: 30_000,
      sendMs: 30_000,
      storeMs: 30_000,
      bodyMs: 30_000,
    },
    auth: {
      credential: () => Promise.resolve(undefined),
      identity() {
        throw new Error("the registry asks for no key")
      },
      realms: [],
    },
    cache: join(root, "cache"),
    policy: { isOffline: false, registries: [], keepsUnused: false },
    hub: { token: undefined, mirror: undefined },
    hardware: { cacheType: "f16", devices: () => Promise.resolve([]) },
  })
}

/** In the child: pulls and says how it went. */
async function pullOnce(root: string, name: string): Promise<void> {
  let peakBytes = 0
  const look = () => (peakBytes = Math.max(peakBytes, process.memoryUsage().rss))
  const timer = setInterval(look, 10)
  const started = performance.now()
  await using transfers = transfersOf(root)
  for await (const _ of transfers.pull(name, { insecure: true })) look()
  clearInterval(timer)
  const result: Pulled = { seconds: (performance.now() - started) / 1000, peakBytes }
  console.log(JSON.stringify(result))
}

/** A store with a model of random bytes; the path of its weights. */
async function makeModel(root: string, name: string, bytes: number): Promise<string> {
  mkdirSync(join(root, "blobs"), { recursive: true })
  const temporary = join(root, "blobs/random")
  const hash = createHash("sha256")
  const chunk = new Uint8Array(CHUNK_BYTES)
  {
    await using file = await open(temporary, "w")
    for (let at = 0; at < bytes; at += chunk.length) {
      randomFillSync(chunk)
      const part = chunk.subarray(0, bytes - at)
      hash.update(part)
      await file.write(part)
    }
  }
  const hex = hash.digest("hex")
  const path = join(root, `blobs/sha256-${hex}`)
  await Bun.write(path, Bun.file(temporary))
  rmSync(temporary)
  const config = "{}"
  const configHex = createHash("sha256").update(config).digest("hex")
  writeFileSync(join(root, `blobs/sha256-${configHex}`), config)
  const manifest = {
    schemaVersion: 2,
    mediaType: "application/vnd.docker.distribution.manifest.v2+json",
    config: {
      mediaType: "application/vnd.docker.container.image.v1+json",
      digest: `sha256:${configHex}`,
      size: config.length,
    },
    layers: [
      {
        mediaType: "application/vnd.ollama.image.model",
        digest: `sha256:${hex}`,
        size: bytes,
      },
    ],
  }
  mkdirSync(join(root, "manifests", name), { recursive: true })
  writeFileSync(join(root, "manifests", name, "latest"), JSON.stringify(manifest))
  return path
}

async function seconds(command: readonly string[]): Promise<number> {
  const started = performance.now()
  const child = Bun.spawn([...command], { stdout: "ignore", stderr: "inherit" })
  if ((await child.exited) !== 0) throw new Error(`${command[0]} failed`)
  return (performance.now() - started) / 1000
}

async function pullInChild(folder: string, name: string): Promise<Pulled> {
  const root = mkdtempSync(join(folder, "pulled-"))
  const child = Bun.spawn([process.execPath, import.meta.path, "--child", root, "--name", name], {
    stdout: "pipe",
    stderr: "inherit",
  })
  const text = await child.stdout.text()
  if ((await child.exited) !== 0) throw new Error("the pull failed")
  rmSync(root, { recursive: true })
  // What our own child prints.
  return JSON.parse(text) as Pulled
}

async function measure(bytes: number, rounds: number): Promise<void> {
  if (NO_REGISTRY !== undefined) throw new Error(NO_REGISTRY)
  const folder = mkdtempSync(join(tmpdir(), "cria-bench-pull-"))
  try {
    await using registry = await DockerRegistry.start()
    const name = `${registry.host}/bench/model`
    const source = join(folder, "source")
    const path = await makeModel(source, name, bytes)
    {
      await using transfers = transfersOf(source)
      for await (const _ of transfers.push(name, { insecure: true }));
    }
    const digest = path.slice(path.lastIndexOf("-") + 1)
    const url = `http://${registry.host}/v2/bench/model/blobs/sha256:${digest}`
    const ours: number[] = []
    const theirs: number[] = []
    const peaks: number[] = []
    for (let round = 0; round < rounds; round++) {
      const pulled = await pullInChild(folder, name)
      const curl = await seconds(["curl", "-sf", url, "-o", "/dev/null"])
      const sum = await seconds(["sha256sum", path])
      ours.push(bytes / pulled.seconds / 1e6)
      theirs.push(bytes / (curl + sum) / 1e6)
      peaks.push(pulled.peakBytes / 1e6)
      console.error(
        `round ${round + 1}: pull ${pulled.seconds.toFixed(2)} s, peak ${peaks.at(-1)?.toFixed(0)} MB; ` +
          `curl ${curl.toFixed(2)} s, sha256sum ${sum.toFixed(2)} s`,
      )
    }
    const rate = { name: "pull", unit: "MB/s", better: "more" } as const
    const memory = { name: "peak memory of a pull", unit: "MB", better: "less" } as const
    const results: Comparison[] = [
      compare(rate, { name: "curl and sha256sum", goal: 0.8 }, ours, theirs),
      compare(
        memory,
        { name: "150 MB", goal: 1 },
        peaks,
        peaks.map(() => 150),
      ),
    ]
    writeFileSync(
      join(ROOT, "dist/bench-pull.json"),
      `${JSON.stringify({ bytes, peak: median(peaks), results }, null, 2)}\n`,
    )
    console.log(`${bytes} bytes, ${rounds} rounds\n\n${formatComparisons(results)}`)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    bytes: { type: "string", default: String(2 ** 31) },
    child: { type: "string" },
    name: { type: "string", default: "" },
  },
})
if (values.child === undefined) await measure(Number(values.bytes), Number(values.rounds))
else await pullOnce(values.child, values.name)
