/**
 * Every environment variable that cria reads: name, meaning, type, default.
 *
 * `docs/environment.md` is generated from this table. Each `OLLAMA_X` may also be written `CRIA_X`, which wins.
 * Values are trimmed of spaces and quotes; one that cannot be read falls back to the default with a warning.
 *
 * @module
 */

import { homedir } from "node:os"
import { delimiter, isAbsolute, join, resolve } from "node:path"

import { z } from "zod"

import { CACHE_SETTINGS, type CacheSetting, parseCacheSetting } from "./engine/cache-type.ts"
import { CriaError } from "./util/errors.ts"
import type { LogLevel } from "./util/log.ts"
import { parseDurationMs } from "./util/units.ts"

/** One variable. */
export interface Variable {
  readonly name: string
  readonly about: string
  /** As people read it. */
  readonly defaultText: string
}

/** All settings of a process, read once at start. */
export interface Config {
  /** Address to listen on, and to call as a client. */
  readonly host: HostAddress
  /** Folder of manifests and blobs. */
  readonly models: string
  /** Folders of further stores, which are only read. */
  readonly readModels: readonly string[]
  /** Milliseconds that an idle model stays loaded; Infinity for ever. */
  readonly keepAliveMs: number
  /** Milliseconds without progress after which a load is given up; Infinity for never. */
  readonly loadTimeoutMs: number
  /** Models in memory at once. */
  readonly loadedModelsMax: number
  /** Requests that may wait. */
  readonly queueMax: number
  /** Requests at once per model; 0 decides by memory. */
  readonly parallel: number
  /** Tokens of context when neither request nor model says; 0 decides. */
  readonly contextTokens: number
  readonly origins: readonly string[]
  readonly logLevel: LogLevel
  readonly flashAttention: "auto" | "on" | "off"
  readonly cacheType: CacheSetting
  /** Whether a Modelfile's TEMPLATE wins over the one in the model's file; undefined: the better one. */
  readonly goTemplate: boolean | undefined
  /** CPU threads; 0 decides. */
  readonly threads: number
  /** Bytes of memory, of each loaded model, for prefixes that no longer fit into its KV cache. */
  readonly prefixRamBytes: number
  /** Bytes on disk, for each model, for prefixes that outlive it; 0 for none. */
  readonly prefixDiskBytes: number
  /** Folder of native libraries that wins over all others. */
  readonly nativeFolder: string | undefined
  /** Folder for files that can be made again. */
  readonly cache: string
  /** Registries that may be asked, as hosts with their ports; empty for all. */
  readonly registries: readonly string[]
  /** `registry=realm` pairs of hosts: realms that get tokens although they are not the registry itself. */
  readonly registryRealms: readonly string[]
  /** Whether no registry may be asked at all. */
  readonly isOffline: boolean
  /** Whether layers that no model needs any more are kept. */
  readonly keepsUnused: boolean
  /** Whether requests over HTTP may change which models are installed. */
  readonly allowsChanges: boolean
  /** File of certificate authorities in PEM. */
  readonly caFile: string | undefined
}

/** `host:port` with the scheme it was written with. */
export interface HostAddress {
  readonly scheme: "http" | "https"
  readonly hostname: string
  readonly port: number
  /** Path before every route, for a server behind a proxy; "" without. */
  readonly path: string
}

/** The table; order is that of the documentation. */
export const VARIABLES: readonly Variable[] = [
  {
    name: "OLLAMA_HOST",
    about: "Address of the server: [scheme://]host[:port]",
    defaultText: "127.0.0.1:11434",
  },
  { name: "OLLAMA_MODELS", about: "Folder of manifests and blobs", defaultText: "~/.cria/models" },
  {
    name: "CRIA_READ_MODELS",
    about: "Further stores whose models are offered and never changed, separated as in PATH",
    defaultText: "",
  },
  {
    name: "OLLAMA_KEEP_ALIVE",
    about: "How long an idle model stays loaded: 5m, 0, seconds, negative for ever",
    defaultText: "5m",
  },
  {
    name: "OLLAMA_LOAD_TIMEOUT",
    about: "Give a load up after so long without progress; 0 never",
    defaultText: "5m",
  },
  { name: "OLLAMA_MAX_LOADED_MODELS", about: "Models in memory at once", defaultText: "3" },
  {
    name: "OLLAMA_MAX_QUEUE",
    about: "Requests that may wait, for each model and for models to load; more are answered 503",
    defaultText: "512",
  },
  {
    name: "OLLAMA_NUM_PARALLEL",
    about: "Requests at once per model; 0 decides by memory",
    defaultText: "0",
  },
  {
    name: "OLLAMA_CONTEXT_LENGTH",
    about: "Context in tokens when neither request nor model says; 0 decides",
    defaultText: "0",
  },
  {
    name: "OLLAMA_ORIGINS",
    about: "Further browser origins that may call, comma separated",
    defaultText: "",
  },
  { name: "OLLAMA_DEBUG", about: "1 logs every request", defaultText: "0" },
  {
    name: "OLLAMA_FLASH_ATTENTION",
    about: "Flash attention of models that say nothing: 1, 0, or unset to decide",
    defaultText: "",
  },
  {
    name: "OLLAMA_KV_CACHE_TYPE",
    about:
      "Type of the KV cache of models that say none: f16, q8_0, q4_0 and others, or keys/values such as q8_0/f16",
    defaultText: "f16",
  },
  {
    name: "OLLAMA_GO_TEMPLATE",
    about: "1 always uses a Modelfile's TEMPLATE, 0 never where the model's file has its own",
    defaultText: "",
  },
  {
    name: "CRIA_THREADS",
    about: "CPU threads that compute; 0 for one per physical core",
    defaultText: "0",
  },
  {
    name: "CRIA_PREFIX_RAM_MB",
    about: "Memory per model for prompts that were read before and no longer fit into its KV cache",
    defaultText: "512",
  },
  {
    name: "CRIA_PREFIX_DISK_MB",
    about:
      "Disk space for such prompts of each model and way of loading it, kept over restarts; 0 keeps none",
    defaultText: "0",
  },
  {
    name: "CRIA_NATIVE_DIR",
    about: "Folder of native libraries to use instead of those beside the executable",
    defaultText: "",
  },
  {
    name: "CRIA_CACHE",
    about: "Folder for files that can be made again",
    defaultText: "~/.cache/cria",
  },
  {
    name: "CRIA_REGISTRIES",
    about:
      "Registries that models may be pulled from and pushed to, comma separated; all when unset",
    defaultText: "",
  },
  {
    name: "CRIA_REGISTRY_REALMS",
    about: "Further hosts that get a registry's tokens: registry=realm, comma separated",
    defaultText: "",
  },
  { name: "CRIA_OFFLINE", about: "1 asks no registry at all", defaultText: "0" },
  {
    name: "OLLAMA_NOPRUNE",
    about: "1 keeps layers that no model needs any more",
    defaultText: "0",
  },
  {
    name: "CRIA_HTTP_CHANGES",
    about:
      "0 refuses pull, push, create, copy, delete and uploads over HTTP; cria's own commands, with the same setting, still can",
    defaultText: "1",
  },
  {
    name: "SSL_CERT_FILE",
    about: "Certificate authorities for registries, in PEM, instead of the built-in ones",
    defaultText: "",
  },
]

type Environment = Readonly<Record<string, string | undefined>>

/** Reads settings out of variables one by one, collecting complaints. */
class Reader {
  readonly #env: Environment
  readonly #warn: (message: string) => void

  constructor(env: Environment, warn: (message: string) => void) {
    this.#env = env
    this.#warn = warn
  }

  /** The value of a variable, `undefined` when it is unset or empty. */
  text(name: string): string | undefined {
    const twin = name.replace(/^OLLAMA_/, "CRIA_")
    return trimmed(this.#env[twin]) || trimmed(this.#env[name]) || undefined
  }

  /** The value parsed, or the default with a warning when it cannot be. */
  parsed<T>(name: string, schema: z.ZodType<T, string>, fallback: T): T {
    const text = this.text(name)
    if (text === undefined) return fallback
    const result = schema.safeParse(text)
    if (result.success) return result.data
    const [issue] = result.error.issues
    this.#warn(
      `Cannot use ${name}="${text}": ${issue?.message ?? "not understood"}; using the default`,
    )
    return fallback
  }
}

const wholeNumber = z
  .string()
  .regex(/^\d{1,15}$/, "expected a whole number")
  .transform(Number)

/** Go's ParseBool; anything else that is set counts as true. */
const boolean = z
  .string()
  .transform((text) => !["0", "f", "F", "false", "FALSE", "False"].includes(text))

const duration = z.string().transform((text, context) => {
  if (/^-?\d+$/.test(text)) return foreverIfNegative(Number(text) * 1000)
  try {
    return foreverIfNegative(parseDurationMs(text))
  } catch {
    context.addIssue({
      code: "custom",
      message: "expected a duration such as 5m or a number of seconds",
    })
    return z.NEVER
  }
})

const cacheType = z.string().transform((text, context) => {
  const setting = parseCacheSetting(text)
  if (setting !== undefined) return setting
  context.addIssue({ code: "custom", message: `expected ${CACHE_SETTINGS}` })
  return z.NEVER
})

/**
 * Reads the environment.
 *
 * @param warn Gets one line per value that could not be used.
 * @throws {CriaError} `invalid-input` when the host cannot be read: guessing an address would be worse.
 */
export function readConfig(env: Environment, warn: (message: string) => void = () => {}): Config {
  const reader = new Reader(env, warn)
  const loadTimeoutMs = reader.parsed("OLLAMA_LOAD_TIMEOUT", duration, 5 * 60_000)
  const flash = reader.text("OLLAMA_FLASH_ATTENTION")
  const goTemplate = reader.text("OLLAMA_GO_TEMPLATE")
  const nativeFolder = reader.text("CRIA_NATIVE_DIR")
  const caFile = reader.text("SSL_CERT_FILE")
  return {
    host: parseHost(reader.text("OLLAMA_HOST") ?? ""),
    models: folder(reader.text("OLLAMA_MODELS") ?? join(homedir(), ".cria/models")),
    readModels: (reader.text("CRIA_READ_MODELS") ?? "")
      .split(delimiter)
      .flatMap((path) => (path.trim() === "" ? [] : folder(path.trim()))),
    keepAliveMs: reader.parsed("OLLAMA_KEEP_ALIVE", duration, 5 * 60_000),
    loadTimeoutMs: loadTimeoutMs === 0 ? Infinity : loadTimeoutMs,
    loadedModelsMax: reader.parsed("OLLAMA_MAX_LOADED_MODELS", wholeNumber, 0) || 3,
    queueMax: reader.parsed("OLLAMA_MAX_QUEUE", wholeNumber, 512),
    parallel: reader.parsed("OLLAMA_NUM_PARALLEL", wholeNumber, 0),
    contextTokens: reader.parsed("OLLAMA_CONTEXT_LENGTH", wholeNumber, 0),
    origins: listOf(reader.text("OLLAMA_ORIGINS")),
    logLevel: reader.parsed("OLLAMA_DEBUG", boolean, false) ? "debug" : "info",
    flashAttention: flash === undefined ? "auto" : boolean.parse(flash) ? "on" : "off",
    cacheType: reader.parsed("OLLAMA_KV_CACHE_TYPE", cacheType, "f16"),
    goTemplate: goTemplate === undefined ? undefined : boolean.parse(goTemplate),
    threads: reader.parsed("CRIA_THREADS", wholeNumber, 0),
    prefixRamBytes: reader.parsed("CRIA_PREFIX_RAM_MB", wholeNumber, 512) * 2 ** 20,
    prefixDiskBytes: reader.parsed("CRIA_PREFIX_DISK_MB", wholeNumber, 0) * 2 ** 20,
    nativeFolder: nativeFolder === undefined ? undefined : folder(nativeFolder),
    cache: folder(reader.text("CRIA_CACHE") ?? defaultCache(env)),
    registries: listOf(reader.text("CRIA_REGISTRIES")).map((host) => host.toLowerCase()),
    registryRealms: listOf(reader.text("CRIA_REGISTRY_REALMS")),
    isOffline: reader.parsed("CRIA_OFFLINE", boolean, false),
    keepsUnused: reader.parsed("OLLAMA_NOPRUNE", boolean, false),
    allowsChanges: reader.parsed("CRIA_HTTP_CHANGES", boolean, true),
    caFile: caFile === undefined ? undefined : folder(caFile),
  }
}

/**
 * Reads `[scheme://]host[:port][/path]` as Ollama does: port 11434 by default, 80 or 443 when a scheme is given.
 * Without a host it is loopback, where Ollama means every interface: nobody gets on the network by leaving something
 * out.
 *
 * @throws {CriaError} `invalid-input` when there is no host or the port is not a number below 65536.
 */
export function parseHost(text: string): HostAddress {
  if (text === "ollama.com") return parseHost("https://ollama.com")
  const match = /^(?:(https?):\/\/)?(\[[^\]]*\]|[^:/]*|[^/]*:[^/]*:[^/]*)(?::(\d+))?(\/.*)?$/.exec(
    text.trim(),
  )
  if (match === null) throw badHost(text)
  const [, scheme, name = "", digits, path = ""] = match
  const byScheme = scheme === "https" ? 443 : scheme === "http" ? 80 : 11434
  const port = digits === undefined ? byScheme : Number(digits)
  if (port > 65_535) throw badHost(text)
  const hostname = name.replace(/^\[|\]$/g, "") || "127.0.0.1"
  return {
    scheme: scheme === "https" ? "https" : "http",
    hostname,
    port,
    path: path.replace(/\/$/, ""),
  }
}

/** The address as a URL, with brackets around IPv6. A listening address of "everywhere" is called on loopback. */
export function hostUrl({ scheme, hostname, port, path }: HostAddress): string {
  const callable = hostname === "0.0.0.0" ? "127.0.0.1" : hostname === "::" ? "::1" : hostname
  const name = callable.includes(":") ? `[${callable}]` : callable
  return `${scheme}://${name}:${port}${path}`
}

function badHost(text: string): CriaError {
  return new CriaError(
    "invalid-input",
    `Cannot use OLLAMA_HOST="${text}": expected [scheme://]host[:port] with a port up to 65535`,
  )
}

function foreverIfNegative(ms: number): number {
  return ms < 0 ? Infinity : ms
}

/** The items of a list with commas. */
function listOf(text = ""): string[] {
  return text.split(",").flatMap((item) => item.trim() || [])
}

function folder(path: string): string {
  const expanded = path.replace(/^~(?=\/|$)/, homedir())
  return isAbsolute(expanded) ? expanded : resolve(expanded)
}

function defaultCache(env: Environment): string {
  if (process.platform === "darwin") return join(homedir(), "Library/Caches/cria")
  const xdg = env["XDG_CACHE_HOME"] ?? ""
  return join(isAbsolute(xdg) ? xdg : join(homedir(), ".cache"), "cria")
}

/** Without blanks and quotes around it. */
function trimmed(value = ""): string {
  return value
    .trim()
    .replace(/^["']|["']$/g, "")
    .trim()
}
