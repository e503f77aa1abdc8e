import { describe, expect, test } from "bun:test"
import { execFileSync } from "node:child_process"
import { hash } from "node:crypto"
import {
  chmodSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  utimesSync,
} from "node:fs"
import { join } from "node:path"

import { CriaError } from "../util/errors.ts"
import { cpuMs } from "../util/fuzz.ts"
import { blobFilePath } from "./digest.ts"
import { openStore, type Store } from "./folder-store.ts"
import { MEDIA_TYPES } from "./manifest.ts"
import { manifestPath, parseName, shortName } from "./name.ts"
import { manifestText, TestStore } from "./test-store.ts"

const LIBRARY = join("manifests", "registry.ollama.ai", "library")
/** Most other systems cannot keep two files whose names differ by case only. */
const linux = test.skipIf(process.platform !== "linux")
const unix = test.skipIf(process.platform === "win32")

function open(folder: TestStore): Store {
  return openStore(folder.root, { readOnly: true })
}

/** The names that a store lists, in its order. */
function listed(folder: TestStore): string[] {
  return open(folder)
    .list()
    .models.map((model) => shortName(model.name))
}

describe("openStore()", () => {
  test("takes a missing folder for an empty store, and sees what comes into it", () => {
    using folder = new TestStore()
    const store = openStore(join(folder.root, "later"), { readOnly: false })
    expect(store.list()).toEqual({ models: [], problems: [] })
    expect(store.find(parseName("m"))).toBeUndefined()
    folder.weights("m")
    renameSync(join(folder.root, "manifests"), join(folder.root, "other"))
    mkdirSync(store.root)
    renameSync(join(folder.root, "other"), join(store.root, "manifests"))
    expect(store.list().models).toHaveLength(1)
  })

  test("keeps an absolute root and whether it is read-only", () => {
    expect(openStore("no/such", { readOnly: true })).toMatchObject({
      root: join(process.cwd(), "no", "such"),
      readOnly: true,
    })
  })

  test("refuses a root that is not a folder", () => {
    using folder = new TestStore()
    const root = folder.write("file", "")
    expect(() => openStore(root, { readOnly: true })).toThrow(
      expect.objectContaining({
        code: "unavailable",
        message: `Cannot read "${join(root, "manifests")}" (ENOTDIR): ensure path elements are traversable`,
      }),
    )
  })

  test.skipIf(process.getuid?.() === 0)(
    "refuses a root that may not be entered (needs a user other than root)",
    () => {
      using folder = new TestStore()
      folder.weights("m")
      chmodSync(folder.root, 0)
      try {
        expect(() => open(folder)).toThrow(/\(EACCES\): ensure path elements are traversable$/)
      } finally {
        chmodSync(folder.root, 0o700)
      }
    },
  )
})

describe("list()", () => {
  test("gives what /api/tags needs, newest first and equally old ones by name", () => {
    using folder = new TestStore()
    const path = folder.weights("b:7b", Date.UTC(2026, 1, 1))
    folder.weights("hf.co/user/Repo:Q4_K_M", Date.UTC(2026, 2, 1))
    folder.weights("me/a", Date.UTC(2026, 1, 1))
    folder.weights("c", Date.UTC(2026, 0, 1))
    const { models, problems } = open(folder).list()
    expect(models.map((model) => shortName(model.name))).toEqual([
      "hf.co/user/Repo:Q4_K_M",
      "b:7b",
      "me/a:latest",
      "c:latest",
    ])
    expect(models[1]).toMatchObject({
      id: hash("sha256", readFileSync(path), "hex"),
      sizeBytes: "weights of b:7b".length + "{}".length,
      modifiedAt: new Date(Date.UTC(2026, 1, 1)),
    })
    expect(problems).toEqual([])
  })

  test("reports what it cannot read and lists the rest", () => {
    using folder = new TestStore()
    folder.weights("good")
    const layer = folder.blob(MEDIA_TYPES.model, "x")
    const bad = {
      empty: "",
      null: "null",
      truncated: manifestText({ config: layer, layers: [layer] }).slice(0, -9),
      "null-layer": manifestText({ config: layer, layers: [null] }),
      "no-config": manifestText({ layers: [layer] }),
      negative: manifestText({ config: layer, layers: [{ ...layer, size: -1 }] }),
      traversal: manifestText({
        config: layer,
        layers: [{ ...layer, digest: "sha256:../../etc/passwd" }],
      }),
      "million-layers": `{"schemaVersion":2,"config":{},"layers":[${"{},".repeat(999_999)}{}]}`,
      "too-long": " ".repeat(4 * 1024 * 1024 + 1),
    }
    for (const [name, text] of Object.entries(bad))
      folder.write(join(LIBRARY, name, "latest"), text)

    const startMs = cpuMs()
    const { models, problems } = open(folder).list()
    expect(cpuMs() - startMs).toBeLessThan(10_000)
    expect(models.map((model) => shortName(model.name))).toEqual(["good:latest"])
    expect(new Set(problems.map((problem) => problem.name?.model))).toEqual(
      new Set(Object.keys(bad)),
    )
    for (const { error } of problems) expect(error).toBeInstanceOf(CriaError)
  })

  test("takes only files four levels deep whose path is a valid name", () => {
    using folder = new TestStore()
    const text = readFileSync(folder.weights("good"), "utf8")
    folder.write(join(LIBRARY, "bad name", "latest"), text)
    folder.write(join(LIBRARY, "m", ".DS_Store"), text)
    folder.write(join(LIBRARY, "too", "deep", "latest"), text)
    folder.write(join(LIBRARY, "shallow"), text)
    folder.write(join("manifests", "stray"), text)
    mkdirSync(join(folder.root, LIBRARY, "empty"))
    const { models, problems } = open(folder).list()
    expect(models.map((model) => shortName(model.name))).toEqual(["good:latest"])
    expect(new Set(problems.map((problem) => problem.path))).toEqual(
      new Set([
        join(folder.root, LIBRARY, "bad name", "latest"),
        join(folder.root, LIBRARY, "m", ".DS_Store"),
      ]),
    )
  })

  unix("follows no link and waits for no FIFO", () => {
    using folder = new TestStore()
    const file = folder.weights("good")
    const models = join(folder.root, LIBRARY)
    symlinkSync(file, join(models, "good", "linked"))
    symlinkSync(join(models, "good"), join(models, "linked"))
    symlinkSync(folder.root, join(folder.root, "manifests", "linked"))
    execFileSync("mkfifo", [join(models, "good", "fifo")])
    expect(listed(folder)).toEqual(["good:latest"])
    expect(open(folder).list().problems).toHaveLength(4)
    expect(() => open(folder).find(parseName("good:linked"))).toThrow("a symbolic link")
    expect(() => open(folder).find(parseName("good:fifo"))).toThrow("not a regular file")
  })

  test.skipIf(process.getuid?.() === 0)(
    "reports a folder that may not be entered (needs a user other than root)",
    () => {
      using folder = new TestStore()
      folder.weights("good")
      folder.weights("secret/m")
      const path = join(folder.root, "manifests", "registry.ollama.ai", "secret")
      chmodSync(path, 0)
      try {
        const { models, problems } = open(folder).list()
        expect(models.map((model) => shortName(model.name))).toEqual(["good:latest"])
        expect(problems.map((problem) => problem.path)).toEqual([path])
        expect(() => open(folder).find(parseName("secret/m"))).toThrow(/traversable$/)
      } finally {
        chmodSync(path, 0o700)
      }
    },
  )
})

describe("find()", () => {
  test("finds a name in any casing and gives the installed one", () => {
    using folder = new TestStore()
    folder.weights("hf.co/User/Repo-GGUF:Q4_K_M")
    const found = open(folder).find(parseName("HF.co/user/repo-gguf:q4_k_m"))
    expect(found && shortName(found.name)).toBe("hf.co/User/Repo-GGUF:Q4_K_M")
  })

  linux("prefers an equal name when others differ by case only", () => {
    using folder = new TestStore()
    for (const name of ["me/M:t", "me/m:t", "ME/m:t", "me/m:T"]) folder.weights(name)
    for (const name of listed(folder)) {
      const found = open(folder).find(parseName(name))
      expect(found && shortName(found.name)).toBe(name)
    }
  })

  test.each(["m:other", "other", "you/m", "h/library/m"])("does not find %s", (name) => {
    using folder = new TestStore()
    folder.weights("m")
    expect(open(folder).find(parseName(name))).toBeUndefined()
  })

  test("does not look at other models", () => {
    using folder = new TestStore()
    folder.weights("m")
    folder.write(join(LIBRARY, "broken", "latest"), "{")
    expect(open(folder).find(parseName("m"))).toBeDefined()
    expect(() => open(folder).find(parseName("broken"))).toThrow(/^Cannot read manifest/)
  })

  test("finds a name with the longest host, longer than a file name may be, nowhere", () => {
    using folder = new TestStore()
    folder.weights("m")
    expect(open(folder).find(parseName(`${"h".repeat(350)}/n/m`))).toBeUndefined()
  })

  test("sees a manifest change at once", () => {
    using folder = new TestStore()
    const file = folder.weights("m")
    const store = open(folder)
    const before = store.find(parseName("m"))
    folder.model("m", [folder.blob(MEDIA_TYPES.model, "other weights")])
    utimesSync(file, 9, 9)
    const after = store.find(parseName("m"))
    expect(after?.id).not.toBe(before?.id)
    expect(after?.modifiedAt).toEqual(new Date(9000))
    rmSync(manifestPath(folder.root, parseName("m")))
    expect(store.find(parseName("m"))).toBeUndefined()
  })
})

describe("blobPath()", () => {
  test("gives the file of a blob that is there", () => {
    using folder = new TestStore()
    const { digest } = folder.blob(MEDIA_TYPES.model, "x")
    expect(open(folder).blobPath(digest)).toBe(blobFilePath(folder.root, digest))
    rmSync(blobFilePath(folder.root, digest))
    expect(open(folder).blobPath(digest)).toBeUndefined()
  })

  unix("follows the link of a shared blob, and to nothing but a file", () => {
    using folder = new TestStore()
    using shared = new TestStore()
    const { digest } = shared.blob(MEDIA_TYPES.model, "x")
    const link = blobFilePath(folder.root, digest)
    mkdirSync(join(folder.root, "blobs"))
    symlinkSync(blobFilePath(shared.root, digest), link)
    expect(open(folder).blobPath(digest)).toBe(link)

    for (const target of ["/dev/zero", shared.root, join(shared.root, "nothing")]) {
      rmSync(link)
      symlinkSync(target, link)
      expect(open(folder).blobPath(digest)).toBeUndefined()
    }
  })
})
