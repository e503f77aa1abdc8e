import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"
import { randomBytes } from "node:crypto"
import { writeFileSync } from "node:fs"

import { FakeRegistry } from "../registry/fake-registry.ts"
import { challenge, isMonotonic, Machine, statuses } from "./test-machine.ts"

const MIB = 2 ** 20

describe("push", () => {
  test("what was pushed can be pulled elsewhere, byte for byte", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const weights = machine.folder.blob("application/vnd.ollama.image.model", "weights")
    machine.folder.model(`${registry.host}/me/m`, [weights])
    const progress = await machine.push(`${registry.host}/me/m`)
    expect(statuses(progress)).toEqual([
      "retrieving manifest",
      `pushing ${weights.digest.slice(7, 19)}`,
      expect.stringMatching(/^pushing [0-9a-f]{12}$/),
      "pushing manifest",
      "success",
    ])
    await using other = new Machine()
    await other.pull(`${registry.host}/me/m`)
    expect(other.manifest(`${registry.host}/me/m`)).toEqual(
      machine.manifest(`${registry.host}/me/m`),
    )
    expect(other.blob(weights.digest).toString()).toBe("weights")
  })

  test("what the registry has is not sent again", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const weights = machine.folder.blob("application/vnd.ollama.image.model", "weights")
    machine.folder.model(`${registry.host}/me/m`, [weights])
    await machine.push(`${registry.host}/me/m`)
    registry.log.length = 0
    await machine.push(`${registry.host}/me/m`)
    expect(registry.count(/POST|PATCH/)).toBe(0)
  })

  test("a layer of another model of the registry is mounted", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const weights = machine.folder.blob("application/vnd.ollama.image.model", "weights")
    registry.add("me/base:latest", [Buffer.from("weights")])
    const derived = { ...weights, from: `${registry.host}/me/base:latest` }
    machine.folder.model(`${registry.host}/me/m`, [derived])
    registry.fault = ({ method, path }) =>
      method === "HEAD" && path.includes("/me/m/") ? new Response(null, { status: 404 }) : undefined
    await machine.push(`${registry.host}/me/m`)
    expect(registry.count(/^PATCH/)).toBe(1)
  })

  test("an upload that breaks goes on where the registry is", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const content = randomBytes(6 * MIB).toString("latin1")
    const weights = machine.folder.blob("application/vnd.ollama.image.model", content)
    machine.folder.model(`${registry.host}/me/m`, [weights])
    let broken = 0
    registry.fault = ({ method, path }) => {
      if (method !== "PATCH" || broken > 0) return undefined
      broken++
      // As much as came before the connection broke.
      const id = path.split("/").at(-1) ?? ""
      registry.uploads.set(id, Buffer.from(content).subarray(0, 2 * MIB))
      return new Response("gone", { status: 502 })
    }
    const progress = await machine.push(`${registry.host}/me/m`)
    expect(isMonotonic(progress)).toBe(true)
    expect(Buffer.from(registry.blobs.get(weights.digest) ?? []).equals(Buffer.from(content))).toBe(
      true,
    )
  })

  test("an upload that the registry has forgotten begins anew", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const weights = machine.folder.blob("application/vnd.ollama.image.model", "weights")
    machine.folder.model(`${registry.host}/me/m`, [weights])
    let isForgotten = false
    registry.fault = ({ method }) => {
      if (method === "PATCH" && !isForgotten) {
        isForgotten = true
        registry.uploads.clear()
      }
      return undefined
    }
    await machine.push(`${registry.host}/me/m`)
    expect(registry.blobs.has(weights.digest)).toBe(true)
    expect(registry.count(/^POST/)).toBe(3)
  })

  test("a storage that takes the parts itself gets no authorization", async () => {
    await using registry = new FakeRegistry()
    await using storage = new FakeRegistry()
    await using machine = new Machine()
    const weights = machine.folder.blob("application/vnd.ollama.image.model", "weights")
    machine.folder.model(`${registry.host}/me/m`, [weights])
    storage.fault = () => new Response(null, { status: 200 })
    registry.fault = ({ method, path, headers }) => {
      if (headers.get("Authorization") === null) return challenge(registry)
      if (path === "/token") return Response.json({ token: "secret" })
      if (method !== "PATCH") return undefined
      const id = path.split("/").at(-1) ?? ""
      registry.uploads.set(
        id,
        Buffer.from(path.includes("uploads") ? contentOf(machine, weights.digest, registry) : ""),
      )
      return new Response(null, {
        status: 307,
        headers: { Location: `${storage.origin}/bucket/1`, "Docker-Upload-Location": path },
      })
    }
    await machine.push(`${registry.host}/me/m`)
    expect(storage.log.map(({ line, authorization }) => [line, authorization])).toEqual([
      ["PUT /bucket/1", null],
      ["PUT /bucket/1", null],
    ])
  })

  test("a token that is not to be had right now is asked for again", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const weights = machine.folder.blob("application/vnd.ollama.image.model", "weights")
    machine.folder.model(`${registry.host}/me/m`, [weights])
    registry.fault = ({ path, headers, nth }) => {
      if (path === "/token" && nth < 2) return new Response("busy", { status: 503 })
      if (path === "/token") return Response.json({ token: "secret" })
      return headers.get("Authorization") === "Bearer secret" ? undefined : challenge(registry)
    }
    expect((await machine.push(`${registry.host}/me/m`)).at(-1)?.status).toBe("success")
    expect(registry.blobs.has(weights.digest)).toBe(true)
  })

  test("a model that is not installed, and one whose blob is damaged", async () => {
    await using registry = new FakeRegistry()
    await using machine = new Machine()
    const seen: string[] = []
    await rejects(async () => {
      for await (const { status } of machine.transfers.push("none", { insecure: true }))
        seen.push(status)
    }, /model 'none:latest' not found/)
    expect(seen).toEqual(["retrieving manifest", "couldn't retrieve manifest"])
    const weights = machine.folder.blob("application/vnd.ollama.image.model", "weights")
    machine.folder.model(`${registry.host}/me/m`, [weights])
    writeFileSync(machine.path(weights.digest), "we")
    await rejects(machine.push(`${registry.host}/me/m`), { message: /missing or damaged$/ })
    expect(registry.log).toEqual([])
  })
})

/** The content that the next finished upload has to have: of what is not there yet. */
function contentOf(machine: Machine, weights: string, registry: FakeRegistry): string {
  return registry.blobs.has(weights) ? "{}" : machine.blob(weights).toString()
}
