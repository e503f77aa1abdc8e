/**
 * Names and passwords of registries, from where `docker login` leaves them.
 *
 * Reads `config.json` (`$DOCKER_CONFIG` or `~/.docker`), asks credential helpers, and takes `HF_TOKEN` for Hugging
 * Face. Keeps nothing and writes nothing.
 *
 * @module
 */

import { existsSync } from "node:fs"
import { join } from "node:path"

import { z } from "zod"

import { readRegularFile } from "../store/files.ts"
import { CriaError, errorMessage } from "../util/errors.ts"
import { isHub, mirrorHost } from "./hub.ts"

/** How to be let in. */
export type Credential =
  | { readonly kind: "password"; readonly user: string; readonly password: string }
  /** Exchanged for short-lived tokens at the registry's realm. */
  | { readonly kind: "refresh-token"; readonly token: string }
  /** Sent as it is. */
  | { readonly kind: "bearer"; readonly token: string }

type Environment = Readonly<Record<string, string | undefined>>

const CONFIG_BYTES_MAX = 4 * 1024 * 1024
const HELPER_MS = 30_000

/** What helpers say for tokens instead of a user name. */
const TOKEN_USER = "<token>"

const configSchema = z.object({
  auths: z
    .record(
      z.string(),
      z.object({
        auth: z.string().nullish(),
        username: z.string().nullish(),
        password: z.string().nullish(),
        identitytoken: z.string().nullish(),
      }),
    )
    .nullish(),
  credsStore: z.string().nullish(),
  credHelpers: z.record(z.string(), z.string()).nullish(),
})

const helperSchema = z.object({ Username: z.string(), Secret: z.string() })

type DockerConfig = z.infer<typeof configSchema>

/**
 * Finds the credential for a registry; undefined when there is none.
 *
 * @param host With its port.
 * @throws {CriaError} `invalid-input` when the file cannot be understood or a helper fails.
 */
export async function findCredential(
  host: string,
  env: Environment,
): Promise<Credential | undefined> {
  const config = readDockerConfig(env)
  const keys = keysOf(host)
  const asked = [...keys.slice(0, 2), ...hubKeys(host)]
  const helper = keys.map((key) => config.credHelpers?.[key]).find((name) => name !== undefined)
  const found =
    helper === undefined || helper === null ? undefined : await askHelper(helper, asked, env)
  return (
    found ??
    fromAuths(config, keys) ??
    (config.credsStore ? await askHelper(config.credsStore, asked, env) : undefined) ??
    fromHuggingFace(host, env)
  )
}

/** The forms in which a host stands in the file. */
function keysOf(host: string): string[] {
  const forms = ["", "https://", "http://"].map((scheme) => `${scheme}${host}`)
  return [
    ...forms,
    ...forms.flatMap((form) => [`${form}/`, `${form}/v1/`, `${form}/v2/`]),
    ...hubKeys(host),
  ]
}

/** Docker Hub stands there, and in helpers, under the address of its first version. */
function hubKeys(host: string): string[] {
  const hub = ["docker.io", "registry-1.docker.io", "index.docker.io"]
  return hub.includes(host) ? ["https://index.docker.io/v1/"] : []
}

function readDockerConfig(env: Environment): DockerConfig {
  const folder = env["DOCKER_CONFIG"] || join(env["HOME"] ?? env["USERPROFILE"] ?? "/", ".docker")
  const path = join(folder, "config.json")
  if (!existsSync(path)) return {}
  try {
    const text = readRegularFile(path, CONFIG_BYTES_MAX).bytes.toString("utf8")
    return configSchema.parse(JSON.parse(text))
  } catch {
    // Its content is secret: no part of it goes into the text.
    throw new CriaError("invalid-input", `Cannot read "${path}": expected Docker's config.json`, {
      hint: "Log in again with docker login, or move the file away",
    })
  }
}

function fromAuths({ auths }: DockerConfig, keys: readonly string[]): Credential | undefined {
  const entry = keys.map((key) => auths?.[key]).find((value) => value !== undefined)
  if (entry === undefined) return undefined
  if (entry.identitytoken) return { kind: "refresh-token", token: entry.identitytoken }
  if (entry.auth) {
    const [, user, password] =
      /^([^:]*):([\s\S]*)$/.exec(Buffer.from(entry.auth, "base64").toString("utf8")) ?? []
    if (user !== undefined && password !== undefined) return { kind: "password", user, password }
  }
  if (!entry.username || !entry.password) return undefined
  return { kind: "password", user: entry.username, password: entry.password }
}

/** Asks `docker-credential-<name>`; undefined when it knows nothing about the host. */
async function askHelper(
  name: string,
  hosts: readonly string[],
  env: Environment,
): Promise<Credential | undefined> {
  if (!/^[\w.-]+$/.test(name)) {
    throw new CriaError("invalid-input", `Cannot run the credential helper ${JSON.stringify(name)}`)
  }
  for (const host of hosts) {
    // One after the other: the second form is asked for only when the first is not known.
    // oxlint-disable-next-line no-await-in-loop
    const answer = await runHelper(`docker-credential-${name}`, host, env)
    if (answer === undefined) continue
    if (answer.Username === TOKEN_USER) return { kind: "refresh-token", token: answer.Secret }
    return { kind: "password", user: answer.Username, password: answer.Secret }
  }
  return undefined
}

async function runHelper(
  program: string,
  host: string,
  env: Environment,
): Promise<z.infer<typeof helperSchema> | undefined> {
  try {
    const child = Bun.spawn([program, "get"], {
      stdin: new Blob([host]),
      stdout: "pipe",
      stderr: "ignore",
      env,
      timeout: HELPER_MS,
    })
    const [text, code] = await Promise.all([child.stdout.text(), child.exited])
    if (code !== 0) return undefined
    return helperSchema.parse(JSON.parse(text))
  } catch (cause) {
    // Its answer is secret: no part of it goes into the text.
    const isAnswer = cause instanceof z.ZodError || cause instanceof SyntaxError
    const reason = isAnswer ? "its answer is no credential" : errorMessage(cause)
    const text = `Cannot use the credential helper "${program}": ${reason}`
    throw new CriaError("invalid-input", text, isAnswer ? {} : { cause })
  }
}

function fromHuggingFace(host: string, env: Environment): Credential | undefined {
  const token = env["HF_TOKEN"]
  return isHub(host, mirrorHost(env["HF_ENDPOINT"])) && token
    ? { kind: "bearer", token }
    : undefined
}
