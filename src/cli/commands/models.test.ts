import { expect, test } from "bun:test"
import { rejects } from "node:assert/strict"

import { Client } from "../../client/client.ts"
import { Library } from "../../services/library.ts"
import type { Stores } from "../../services/stores.ts"
import { openStore } from "../../store/folder-store.ts"
import { layerStores } from "../../store/layered-store.ts"
import { TestStore } from "../../store/test-store.ts"
import { TestTerminal } from "../test-terminal.ts"
import { copy, remove } from "./models.ts"

/** A client of a server that does nothing but remove models of these stores. */
function clientOf(stores: Stores): Client {
  const library = new Library(stores, { keepsUnused: false, command: [] })
  return new Client("http://localhost", async (url, init) => {
    if (!url.endsWith("/api/delete")) return new Response("{}", { status: 404 })
    const { model } = (await new Response(init.body).json()) as { model: string }
    const keptIn = await library.remove(model)
    return keptIn === undefined ? new Response() : Response.json({ kept_in: keptIn })
  })
}

test("rm says when a store that is only read has a model of the same name", async () => {
  using own = new TestStore()
  using theirs = new TestStore()
  using terminal = new TestTerminal()
  for (const store of [own, theirs]) store.weights("both")
  own.weights("mine")
  const first = openStore(own.root, { readOnly: false })
  const folders = [first, openStore(theirs.root, { readOnly: true })]
  const client = clientOf({ own: first, folders, all: layerStores(folders) })
  await remove(client, ["mine", "both"])
  expect(terminal.stdout).toBe("deleted 'mine'\ndeleted 'both'\n")
  expect(terminal.stderr).toBe(
    `'both' is still listed: there is another in "${theirs.root}", which is only read\n`,
  )
  await rejects(remove(client, ["both"]), { message: /Cannot remove "both:latest": it is in/ })
})

test("cp shows how far it is when there is something to copy", async () => {
  using terminal = new TestTerminal()
  const step = { status: "copying 0123456789ab", digest: "sha256:01", total: 2_000_000 }
  const steps = [
    { ...step, completed: 1_000_000 },
    { ...step, completed: 2_000_000 },
  ]
  const lines = [...steps, { status: "success" }].map((line) => `${JSON.stringify(line)}\n`)
  const bodies: unknown[] = []
  const client = new Client("http://localhost", async (_, init) => {
    bodies.push(await new Response(init.body).json())
    return new Response(lines.join(""))
  })
  await copy(client, "a", "b")
  expect(bodies).toEqual([{ source: "a", destination: "b", stream: true }])
  expect(terminal.stdout).toBe("copied 'a' to 'b'\n")
  expect(terminal.stderr).toMatch(/^copying 0123456789ab: 50% .*\ncopying .*: 100% .*\n$/)
  // Ollama's servers say nothing.
  await copy(new Client("http://localhost", async () => new Response()), "c", "d")
  expect(terminal.stdout).toEndWith("copied 'c' to 'd'\n")
})
