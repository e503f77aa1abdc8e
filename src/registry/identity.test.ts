import { describe, expect, test } from "bun:test"
import { createHash, createPublicKey, verify } from "node:crypto"
import { readFileSync, statSync, writeFileSync } from "node:fs"
import { join } from "node:path"

import { TemporaryFolder } from "../gguf/raw-file.ts"
import { loadIdentity, signedAuthorization } from "./identity.ts"

/** Whether a signature belongs to a key in OpenSSH's wire format. */
function isSignedBy(publicKey: string, text: string, signature: string): boolean {
  const raw = Buffer.from(publicKey, "base64").subarray(-32)
  const key = createPublicKey({
    key: { kty: "OKP", crv: "Ed25519", x: raw.toString("base64url") },
    format: "jwk",
  })
  return verify(null, Buffer.from(text), key, Buffer.from(signature, "base64"))
}

const SSH_KEYGEN = Bun.which("ssh-keygen")
const withSsh = SSH_KEYGEN === null ? "needs ssh-keygen" : "ssh-keygen"

describe("loadIdentity()", () => {
  test("makes the last key when there is none, and finds it again", () => {
    using folder = new TemporaryFolder()
    const path = join(folder.path, "deep/id_ed25519")
    const made = loadIdentity([join(folder.path, "other"), path])
    expect(made).toMatchObject({ path, isNew: true })
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect(readFileSync(`${path}.pub`, "utf8")).toBe(`ssh-ed25519 ${made.publicKey}\n`)
    const found = loadIdentity([path])
    expect(found).toMatchObject({ path, isNew: false, publicKey: made.publicKey })
    expect(found.sign("text")).toBe(made.sign("text"))
    expect(isSignedBy(made.publicKey, "text", made.sign("text"))).toBe(true)
  })

  test.skipIf(SSH_KEYGEN === null)(`${withSsh} reads our keys, and we read its`, () => {
    using folder = new TemporaryFolder()
    const ours = join(folder.path, "ours")
    const { publicKey } = loadIdentity([ours])
    const shown = Bun.spawnSync([SSH_KEYGEN ?? "", "-y", "-f", ours])
    expect(shown.stdout.toString()).toStartWith(`ssh-ed25519 ${publicKey}`)
    const theirs = join(folder.path, "theirs")
    Bun.spawnSync([SSH_KEYGEN ?? "", "-q", "-t", "ed25519", "-N", "", "-f", theirs])
    const identity = loadIdentity([theirs])
    expect(readFileSync(`${theirs}.pub`, "utf8")).toContain(` ${identity.publicKey} `)
    expect(isSignedBy(identity.publicKey, "x", identity.sign("x"))).toBe(true)
  })

  test("whatever is no such key is refused", () => {
    using folder = new TemporaryFolder()
    const path = join(folder.path, "key")
    loadIdentity([path])
    const whole = readFileSync(path, "utf8")
    const body = whole.split("\n").slice(1, -2).join("")
    const damaged = [
      "",
      "rubbish",
      whole.slice(0, 100),
      whole.replaceAll("OPENSSH", "RSA"),
      ...[20, 60, 120, 200].map((length) =>
        whole.replace(/\n[\s\S]*\n-----END/, `\n${body.slice(0, length)}\n-----END`),
      ),
    ]
    for (const text of damaged) {
      writeFileSync(path, text)
      expect(() => loadIdentity([path])).toThrow(`Cannot use the key "${path}"`)
    }
  })
})

describe("signedAuthorization()", () => {
  test("signs method, URL and the digest of no body, as Ollama does", () => {
    using folder = new TemporaryFolder()
    const identity = loadIdentity([join(folder.path, "key")])
    const url = "https://h/token?nonce=n&scope=s&ts=1"
    const [key, signature = ""] = signedAuthorization(identity, "GET", url).split(":")
    expect(key).toBe(identity.publicKey)
    const empty = Buffer.from(createHash("sha256").digest("hex")).toString("base64")
    expect(empty).toBe(
      "ZTNiMGM0NDI5OGZjMWMxNDlhZmJmNGM4OTk2ZmI5MjQyN2FlNDFlNDY0OWI5MzRjYTQ5NTk5MWI3ODUyYjg1NQ==",
    )
    expect(isSignedBy(identity.publicKey, `GET,${url},${empty}`, signature)).toBe(true)
  })
})
