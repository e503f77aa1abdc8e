import { describe, expect, test } from "bun:test"
import { homedir } from "node:os"
import { join, resolve } from "node:path"

import { type Config, hostUrl, parseHost, readConfig, VARIABLES } from "./config.ts"

/** The settings and the complaints for some variables. */
function read(env: Readonly<Record<string, string>>): { config: Config; warnings: string[] } {
  const warnings: string[] = []
  return { config: readConfig(env, (warning) => warnings.push(warning)), warnings }
}

const MINUTE = 60_000
const LOOPBACK = { scheme: "http", hostname: "127.0.0.1", port: 11434, path: "" } as const

const DEFAULT_CACHE = join(
  homedir(),
  process.platform === "darwin" ? "Library/Caches/cria" : ".cache/cria",
)

/** Each variable: its setting, a value, what the value becomes, what the default is. */
const CASES: Readonly<Record<string, readonly [keyof Config, string, unknown, unknown]>> = {
  OLLAMA_HOST: ["host", "0.0.0.0:8080", { ...LOOPBACK, hostname: "0.0.0.0", port: 8080 }, LOOPBACK],
  OLLAMA_MODELS: ["models", "/data/models", "/data/models", join(homedir(), ".cria/models")],
  CRIA_READ_MODELS: ["readModels", "/mnt/a:/mnt/b:", ["/mnt/a", "/mnt/b"], []],
  OLLAMA_KEEP_ALIVE: ["keepAliveMs", "1h30m", 90 * MINUTE, 5 * MINUTE],
  OLLAMA_LOAD_TIMEOUT: ["loadTimeoutMs", "90s", 90_000, 5 * MINUTE],
  OLLAMA_MAX_LOADED_MODELS: ["loadedModelsMax", "7", 7, 3],
  OLLAMA_MAX_QUEUE: ["queueMax", "16", 16, 512],
  OLLAMA_NUM_PARALLEL: ["parallel", "2", 2, 0],
  OLLAMA_CONTEXT_LENGTH: ["contextTokens", "16384", 16384, 0],
  OLLAMA_ORIGINS: ["origins", " http://a.example , app://b,", ["http://a.example", "app://b"], []],
  OLLAMA_DEBUG: ["logLevel", "1", "debug", "info"],
  OLLAMA_FLASH_ATTENTION: ["flashAttention", "1", "on", "auto"],
  OLLAMA_KV_CACHE_TYPE: ["cacheType", "Q8_0", "q8_0", "f16"],
  OLLAMA_GO_TEMPLATE: ["goTemplate", "1", true, undefined],
  CRIA_THREADS: ["threads", "6", 6, 0],
  CRIA_PREFIX_RAM_MB: ["prefixRamBytes", "64", 64 * 2 ** 20, 512 * 2 ** 20],
  CRIA_PREFIX_DISK_MB: ["prefixDiskBytes", "2048", 2 ** 31, 0],
  CRIA_NATIVE_DIR: ["nativeFolder", "/opt/native", "/opt/native", undefined],
  CRIA_CACHE: ["cache", "/var/cache/cria", "/var/cache/cria", DEFAULT_CACHE],
  CRIA_REGISTRIES: ["registries", " HF.co , h:5000", ["hf.co", "h:5000"], []],
  CRIA_REGISTRY_REALMS: ["registryRealms", "a=b,c=d", ["a=b", "c=d"], []],
  CRIA_OFFLINE: ["isOffline", "1", true, false],
  OLLAMA_NOPRUNE: ["keepsUnused", "1", true, false],
  CRIA_HTTP_CHANGES: ["allowsChanges", "0", false, true],
  SSL_CERT_FILE: ["caFile", "/etc/ca.pem", "/etc/ca.pem", undefined],
}

describe("readConfig() — variables", () => {
  test("all of the table are read, and nothing else is documented", () => {
    expect(VARIABLES.map(({ name }) => name)).toEqual(Object.keys(CASES))
  })

  test.each(Object.entries(CASES))("%s", (name, [key, text, value, fallback]) => {
    const { config, warnings } = read({ [name]: text })
    expect(config[key]).toEqual(value as never)
    expect(read({}).config[key]).toEqual(fallback as never)
    expect(warnings).toEqual([])
  })

  test.each(Object.entries(CASES).filter(([name]) => name.startsWith("OLLAMA_")))(
    "%s has a twin that wins",
    (name, [key, text, value]) => {
      const twin = name.replace("OLLAMA_", "CRIA_")
      expect(read({ [twin]: text }).config[key]).toEqual(value as never)
      expect(read({ [twin]: text, [name]: "nonsense:::" }).config[key]).toEqual(value as never)
    },
  )

  test.each(Object.entries(CASES))(
    "%s may stand in quotes and blanks",
    (name, [key, text, value]) => {
      for (const written of [` ${text} `, `"${text}"`, `'${text}'`, ` " ${text} " `]) {
        expect(read({ [name]: written }).config[key]).toEqual(value as never)
      }
    },
  )

  test.each(Object.entries(CASES))(
    "%s counts as unset when it is empty",
    (name, [key, , , fallback]) => {
      for (const written of ["", "  ", '""']) {
        const { config, warnings } = read({ [name]: written })
        expect(config[key]).toEqual(fallback as never)
        expect(warnings).toEqual([])
      }
    },
  )

  test("an empty twin does not hide what is set under the other name", () => {
    expect(read({ CRIA_KEEP_ALIVE: "", OLLAMA_KEEP_ALIVE: "1m" }).config.keepAliveMs).toBe(MINUTE)
  })
})

describe("readConfig() — values", () => {
  test.each<[string, number]>([
    ["0", 0],
    ["300", 300_000],
    ["-1", Infinity],
    ["-5m", Infinity],
    ["1.5h", 90 * MINUTE],
    ["0s", 0],
  ])("OLLAMA_KEEP_ALIVE=%s is %d ms", (text, expected) => {
    expect(read({ OLLAMA_KEEP_ALIVE: text }).config.keepAliveMs).toBe(expected)
  })

  test.each(["0", "0s", "-1", "-5m"])("OLLAMA_LOAD_TIMEOUT=%s is never", (text) => {
    expect(read({ OLLAMA_LOAD_TIMEOUT: text }).config.loadTimeoutMs).toBe(Infinity)
  })

  test.each<[string, string]>([
    ["1", "debug"],
    ["true", "debug"],
    ["T", "debug"],
    ["2", "debug"],
    ["yes", "debug"],
    ["0", "info"],
    ["f", "info"],
    ["False", "info"],
  ])("OLLAMA_DEBUG=%s logs from %s on", (text, level) => {
    expect<string>(read({ OLLAMA_DEBUG: text }).config.logLevel).toBe(level)
  })

  test.each<[string, string]>([
    ["0", "off"],
    ["false", "off"],
    ["1", "on"],
    ["true", "on"],
    ["enabled", "on"],
  ])("OLLAMA_FLASH_ATTENTION=%s is %s", (text, expected) => {
    expect<string>(read({ OLLAMA_FLASH_ATTENTION: text }).config.flashAttention).toBe(expected)
  })

  test("OLLAMA_MAX_LOADED_MODELS=0 leaves it to us", () => {
    expect(read({ OLLAMA_MAX_LOADED_MODELS: "0" }).config.loadedModelsMax).toBe(3)
  })

  test.each<[string, string]>([
    ["~", homedir()],
    ["~/models", join(homedir(), "models")],
    ["~other/models", resolve("~other/models")],
    ["models", resolve("models")],
    ["/a/b", "/a/b"],
  ])("folder %s is %s", (text, expected) => {
    const env = { OLLAMA_MODELS: text, CRIA_CACHE: text, CRIA_NATIVE_DIR: text }
    const { models, cache, nativeFolder } = read(env).config
    expect([models, cache, nativeFolder]).toEqual([expected, expected, expected])
  })

  test.skipIf(process.platform === "darwin").each<[string, string]>([
    ["/xdg", "/xdg/cria"],
    ["", DEFAULT_CACHE],
    // The specification of these variables: a relative path is to be ignored.
    ["relative", DEFAULT_CACHE],
  ])("with XDG_CACHE_HOME=%p the cache is %s", (text, expected) => {
    expect(read({ XDG_CACHE_HOME: text }).config.cache).toBe(expected)
  })
})

describe("readConfig() — values that cannot be used give a warning and the default", () => {
  test.each<[string, string, string]>([
    ["OLLAMA_KEEP_ALIVE", "soon", "expected a duration such as 5m or a number of seconds"],
    ["OLLAMA_KEEP_ALIVE", "1.5", "expected a duration such as 5m or a number of seconds"],
    ["OLLAMA_LOAD_TIMEOUT", "5 minutes", "expected a duration such as 5m or a number of seconds"],
    ["OLLAMA_MAX_LOADED_MODELS", "-1", "expected a whole number"],
    ["OLLAMA_MAX_QUEUE", "1e3", "expected a whole number"],
    ["OLLAMA_NUM_PARALLEL", "two", "expected a whole number"],
    ["OLLAMA_CONTEXT_LENGTH", "8k", "expected a whole number"],
    ["OLLAMA_CONTEXT_LENGTH", "99999999999999999999", "expected a whole number"],
    ["OLLAMA_KV_CACHE_TYPE", "q9_9", "f16"],
    ["CRIA_THREADS", "4.5", "expected a whole number"],
  ])("%s=%s", (name, text, reason) => {
    const { config, warnings } = read({ [name]: text })
    const [key, , , fallback] = CASES[name] ?? ["host"]
    expect(config[key]).toEqual(fallback as never)
    expect(warnings).toHaveLength(1)
    expect(warnings[0]).toStartWith(`Cannot use ${name}="${text}": `)
    expect(warnings[0]).toContain(reason)
    expect(warnings[0]).toEndWith("; using the default")
  })

  test("each bad value has its own warning", () => {
    expect(read({ OLLAMA_MAX_QUEUE: "x", CRIA_THREADS: "y" }).warnings).toHaveLength(2)
  })

  test("warns nobody when nobody listens", () => {
    expect(readConfig({ OLLAMA_MAX_QUEUE: "x" }).queueMax).toBe(512)
  })
})

describe("parseHost() — as Ollama reads OLLAMA_HOST", () => {
  // The table of Ollama's own test, but for ":1234" (there every interface, here loopback: nobody should be on the
  // network by leaving something out) and for bad ports (there the default, here an error).
  test.each<[string, string, string, number, string]>([
    ["", "http", "127.0.0.1", 11434, ""],
    ["1.2.3.4", "http", "1.2.3.4", 11434, ""],
    [":1234", "http", "127.0.0.1", 1234, ""],
    [":0", "http", "127.0.0.1", 0, ""],
    ["1.2.3.4:1234", "http", "1.2.3.4", 1234, ""],
    ["example.com", "http", "example.com", 11434, ""],
    ["example.com:1234", "http", "example.com", 1234, ""],
    ["[::1]", "http", "::1", 11434, ""],
    ["[::]", "http", "::", 11434, ""],
    ["::1", "http", "::1", 11434, ""],
    ["fe80::1", "http", "fe80::1", 11434, ""],
    ["[::1]:1337", "http", "::1", 1337, ""],
    [" 1.2.3.4 ", "http", "1.2.3.4", 11434, ""],
    ["http://1.2.3.4", "http", "1.2.3.4", 80, ""],
    ["http://1.2.3.4:4321", "http", "1.2.3.4", 4321, ""],
    ["http://[::1]", "http", "::1", 80, ""],
    ["https://1.2.3.4", "https", "1.2.3.4", 443, ""],
    ["https://1.2.3.4:4321", "https", "1.2.3.4", 4321, ""],
    ["https://example.com/ollama", "https", "example.com", 443, "/ollama"],
    ["https://example.com/a/b/", "https", "example.com", 443, "/a/b"],
    ["example.com:80/", "http", "example.com", 80, ""],
    ["ollama.com", "https", "ollama.com", 443, ""],
    ["0.0.0.0:65535", "http", "0.0.0.0", 65535, ""],
  ])("%p", (text, scheme, hostname, port, path) => {
    expect<object>(parseHost(text)).toEqual({ scheme, hostname, port, path })
  })

  test.each([":66000", ":-1", "host:", "host:port", "ftp://host", "1.2.3.4:99999999999"])(
    "%p is refused",
    (text) => {
      expect(() => readConfig({ OLLAMA_HOST: text })).toThrow(
        expect.objectContaining({
          code: "invalid-input",
          message: `Cannot use OLLAMA_HOST="${text}": expected [scheme://]host[:port] with a port up to 65535`,
        }),
      )
    },
  )
})

describe("hostUrl() — what a client calls", () => {
  test.each<[string, string]>([
    ["", "http://127.0.0.1:11434"],
    ["0.0.0.0", "http://127.0.0.1:11434"],
    ["[::]:80", "http://[::1]:80"],
    ["::1", "http://[::1]:11434"],
    ["https://example.com/ollama/", "https://example.com:443/ollama"],
  ])("%p is %s", (text, url) => {
    expect(hostUrl(parseHost(text))).toBe(url)
    expect(() => new URL(url)).not.toThrow()
  })
})
