/**
 * The key pair by which Ollama's registry, and Hugging Face, know a user: ed25519, in OpenSSH's file format.
 *
 * Ollama's own key is used when it is there, so that an account that knows it goes on working. Otherwise cria makes one
 * of its own, once.
 *
 * @module
 */

import {
  createHash,
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  sign,
} from "node:crypto"
import { existsSync, mkdirSync, writeFileSync } from "node:fs"
import { dirname } from "node:path"

import { readRegularFile } from "../store/files.ts"
import { CriaError } from "../util/errors.ts"

/** A key that can sign. */
export interface Identity {
  /** File of the private key. Beside it lies the public one, as `.pub`. */
  readonly path: string
  /** Whether it was made just now. */
  readonly isNew: boolean
  /** Base64 of the key in OpenSSH's wire format, as in `.pub` files behind `ssh-ed25519`. */
  readonly publicKey: string
  /** Base64 of the signature. */
  sign(text: string): string
}

const KEY_TYPE = "ssh-ed25519"
const MAGIC = "openssh-key-v1\0"
const KEY_BYTES_MAX = 16 * 1024

/**
 * Reads the first of several private keys, or makes the last one when there is none.
 *
 * @param paths Files beside which a `.pub` lies.
 * @throws {CriaError} `invalid-input` when the file is not an ed25519 key without a passphrase, `unavailable` when it
 *   cannot be read or written.
 */
export function loadIdentity(paths: readonly string[]): Identity {
  const existing = paths.find((path) => existsSync(path))
  if (existing !== undefined) return readIdentity(existing)
  const own = paths.at(-1)
  if (own === undefined) throw new CriaError("unavailable", "Cannot sign: no key")
  return createIdentity(own)
}

function readIdentity(path: string): Identity {
  const text = readRegularFile(path, KEY_BYTES_MAX).bytes.toString("latin1")
  const [, body = ""] =
    /-----BEGIN OPENSSH PRIVATE KEY-----([\s\S]*?)-----END OPENSSH PRIVATE KEY-----/.exec(text) ??
    []
  const pair = parseOpenSsh(Buffer.from(body, "base64"))
  if (pair === undefined) {
    throw new CriaError("invalid-input", `Cannot use the key "${path}"`, {
      hint: "Expected an ed25519 key in OpenSSH's format without a passphrase; move it away to get a new one",
    })
  }
  return identityOf(pair, { path, isNew: false })
}

/** The seed and the public key, 32 bytes each; undefined when the file is of another kind. */
function parseOpenSsh(bytes: Buffer): { seed: Buffer; publicKey: Buffer } | undefined {
  try {
    const outer = new WireReader(bytes, MAGIC.length)
    if (bytes.toString("latin1", 0, MAGIC.length) !== MAGIC) return undefined
    const [cipher, kdf] = [outer.text(), outer.text()]
    outer.bytes()
    if (cipher !== "none" || kdf !== "none" || outer.number() !== 1) return undefined
    outer.bytes()
    const inner = new WireReader(outer.bytes(), 0)
    // A number twice: shows that a passphrase was right.
    if (inner.number() !== inner.number() || inner.text() !== KEY_TYPE) return undefined
    const publicKey = inner.bytes()
    const secret = inner.bytes()
    if (publicKey.length !== 32 || secret.length !== 64) return undefined
    return { seed: secret.subarray(0, 32), publicKey }
  } catch (error) {
    if (error instanceof RangeError) return undefined
    throw error
  }
}

/** Reads lengths and strings as SSH writes them. Ends of the file throw `RangeError`. */
class WireReader {
  readonly #bytes: Buffer
  #offset: number

  constructor(bytes: Buffer, offset: number) {
    this.#bytes = bytes
    this.#offset = offset
  }

  number(): number {
    const value = this.#bytes.readUInt32BE(this.#offset)
    this.#offset += 4
    return value
  }

  bytes(): Buffer {
    const length = this.number()
    const end = this.#offset + length
    if (end > this.#bytes.length) throw new RangeError("string past the end")
    const value = this.#bytes.subarray(this.#offset, end)
    this.#offset = end
    return value
  }

  text(): string {
    return this.bytes().toString("latin1")
  }
}

function identityOf(
  { seed, publicKey }: { readonly seed: Buffer; readonly publicKey: Buffer },
  origin: Pick<Identity, "path" | "isNew">,
): Identity {
  const jwk = {
    kty: "OKP",
    crv: "Ed25519",
    d: seed.toString("base64url"),
    x: publicKey.toString("base64url"),
  }
  const key: KeyObject = createPrivateKey({ key: jwk, format: "jwk" })
  return {
    ...origin,
    publicKey: wirePublicKey(publicKey).toString("base64"),
    sign: (text) => sign(null, Buffer.from(text), key).toString("base64"),
  }
}

function createIdentity(path: string): Identity {
  const { privateKey } = generateKeyPairSync("ed25519")
  const { d = "", x = "" } = privateKey.export({ format: "jwk" })
  const [seed, publicKey] = [Buffer.from(d, "base64url"), Buffer.from(x, "base64url")]
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
    // Another process may just make one too: the first one counts.
    writeFileSync(path, openSshText(seed, publicKey), { mode: 0o600, flag: "wx" })
    writeFileSync(`${path}.pub`, `${KEY_TYPE} ${wirePublicKey(publicKey).toString("base64")}\n`)
  } catch (cause) {
    if (existsSync(path)) return readIdentity(path)
    throw new CriaError("unavailable", `Cannot write the key "${path}"`, { cause })
  }
  return identityOf({ seed, publicKey }, { path, isNew: true })
}

function wirePublicKey(publicKey: Buffer): Buffer {
  return Buffer.concat([wireString(KEY_TYPE), wireString(publicKey)])
}

function wireString(content: string | Buffer): Buffer {
  const bytes = Buffer.from(content as string, "latin1")
  return Buffer.concat([wireNumber(bytes.length), bytes])
}

function wireNumber(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

function openSshText(seed: Buffer, publicKey: Buffer): string {
  const check = randomBytes(4)
  const inner = Buffer.concat([
    check,
    check,
    wireString(KEY_TYPE),
    wireString(publicKey),
    wireString(Buffer.concat([seed, publicKey])),
    wireString("cria"),
  ])
  // Padded to blocks of 8 with 1, 2, 3, …
  const padding = Buffer.from([1, 2, 3, 4, 5, 6, 7].slice(0, (8 - (inner.length % 8)) % 8))
  const body = Buffer.concat([
    Buffer.from(MAGIC, "latin1"),
    wireString("none"),
    wireString("none"),
    wireString(""),
    wireNumber(1),
    wireString(wirePublicKey(publicKey)),
    wireString(Buffer.concat([inner, padding])),
  ])
  const lines = body.toString("base64").replaceAll(/.{70}/g, "$&\n")
  return `-----BEGIN OPENSSH PRIVATE KEY-----\n${lines}\n-----END OPENSSH PRIVATE KEY-----\n`
}

/** Third field of what is signed: the base64 of the hex digest of no body. */
const EMPTY_BODY = Buffer.from(createHash("sha256").digest("hex")).toString("base64")

/** The `Authorization` of a request for a token. */
export function signedAuthorization(identity: Identity, method: string, url: string): string {
  return `${identity.publicKey}:${identity.sign(`${method},${url},${EMPTY_BODY}`)}`
}
