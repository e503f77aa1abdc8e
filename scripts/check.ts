/**
 * House rules that no linter knows: who may import whom, module headers, `#private`, where a digest becomes a path, that
 * the symbol table says what `cria.h` says, and that docs/environment.md is what `config.ts` gives. Runs in a tenth of a second.
 *
 *   bun scripts/check.ts [--write]     (--write brings docs/environment.md up to date)
 *
 * @module
 */

import { readdirSync, readFileSync, writeFileSync } from "node:fs"
import { dirname, join, relative, resolve } from "node:path"

import { VARIABLES } from "../src/config.ts"

const ROOT = resolve(import.meta.dirname, "..")

/**
 * What each folder may import of ours, besides itself and `util`. ARCHITECTURE.md explains the ranks. A file that
 * needs more than its folder stands in the table by itself.
 */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  "src/util": [],
  "src/config": ["src/engine/cache-type"],
  "src/gguf": [],
  "src/assets.d": [],
  "src/version": [],
  "src/api": [],
  "src/template": [],
  "src/modelfile": ["src/engine/cache-type"],
  "src/chat": ["src/template"],
  "src/engine": [],
  "src/convert": ["src/gguf"],
  "src/store": [],
  "src/registry": ["src/store"],
  ffi: ["src/engine"],
  "src/model": ["src/chat", "src/engine", "src/gguf", "ffi"],
  "src/model/request": ["src/chat", "src/engine"],
  "src/model/check-load": ["src/engine/cache-type", "src/gguf", "src/model/request"],
  "src/runner/protocol": ["src/chat", "src/engine", "src/model/request"],
  "src/runner/handle": ["src/chat", "src/runner/protocol", "src/runner/load", "src/runner/grace"],
  "src/runner/load": ["src/runner/protocol"],
  "src/runner/grace": [],
  "src/runner/runner": ["src/chat", "src/runner/protocol", "src/runner/grace"],
  "src/runner/fake-model": ["src/chat", "src/engine", "src/runner/protocol", "src/runner/runner"],
  "src/runner/main": ["src/config", "src/model", "src/runner/protocol", "src/runner/runner", "ffi"],
  "src/runner/worker-protocol": ["src/runner/protocol"],
  "src/runner/worker": ["src/runner/worker-protocol", "src/runner/protocol"],
  "src/runner/quantize-protocol": [],
  "src/runner/quantize": ["src/runner/quantize-protocol", "src/runner/worker"],
  "src/runner/quantize-main": [
    "src/config",
    "src/runner/quantize-protocol",
    "src/runner/worker-protocol",
    "ffi",
  ],
  "src/runner/convert-protocol": ["src/convert"],
  "src/runner/convert": ["src/runner/convert-protocol", "src/runner/worker"],
  "src/runner/convert-main": [
    "src/convert",
    "src/runner/convert-protocol",
    "src/runner/worker-protocol",
  ],
  "src/runner/devices": [],
  "src/runner/devices-main": ["src/config", "src/runner/devices", "ffi"],
  "src/pool": ["src/gguf", "src/config", "src/runner/handle", "src/runner/protocol"],
  "src/services": [
    "src/pool",
    "src/store",
    "src/registry",
    "src/chat",
    "src/convert",
    "src/template",
    "src/gguf",
    "src/modelfile",
    "src/engine/sampling",
    "src/config",
    "src/runner/handle",
    "src/runner/protocol",
    "src/runner/quantize",
    "src/runner/convert",
    "src/runner/devices",
    "src/engine/cache-type",
    "src/model/check-load",
    "src/version",
  ],
  "src/client": ["src/api", "src/config"],
  "src/server": ["src/services", "src/chat", "src/api", "src/config"],
  "src/cli": ["src/client", "src/api", "src/config", "src/version"],
  "src/cli/commands/serve": ["src/server", "src/services", "src/config", "src/version"],
  "src/cli/commands/create": [
    "src/client",
    "src/api",
    "src/config",
    "src/modelfile",
    "src/services/gather",
    "src/services/upload",
  ],
  "src/cli/commands/archive": [
    "src/config",
    "src/services/archive",
    "src/services/stores",
    "src/services/verify",
  ],
  "src/main": [
    "src/cli",
    "src/runner/main",
    "src/runner/quantize-main",
    "src/runner/convert-main",
    "src/version",
    "src/runner/devices-main",
  ],
  "src/index": ["src/engine", "src/gguf", "src/chat", "src/model", "src/client", "ffi"],
}

/** Folders whose code must run anywhere: no runtime of its own. */
const PURE = ["src/engine", "src/chat", "src/api", "src/template"]

interface Source {
  /** Relative to the project, with forward slashes. */
  readonly path: string
  readonly text: string
}

/** All TypeScript files below a folder. */
function sourcesOf(folder: string): Source[] {
  return readdirSync(join(ROOT, folder), { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
    .map((entry) => {
      const path = relative(ROOT, join(entry.parentPath, entry.name)).replaceAll("\\", "/")
      return { path, text: readFileSync(join(ROOT, path), "utf8") }
    })
    .filter(({ path }) => !path.includes("/native/"))
}

/** The entry of the table that a file belongs to: the longest that is its beginning. */
function ownerOf(path: string): string | undefined {
  const bare = path.replace(/\.ts$/, "")
  return Object.keys(MAY_IMPORT)
    .filter((key) => bare === key || bare.startsWith(`${key}/`))
    .toSorted((a, b) => b.length - a.length)[0]
}

function importsOf({ path, text }: Source): string[] {
  const specifiers = [
    ...text.matchAll(
      /(?:^|\n)(?:import|export)\b[^"'\n]*?(?:\{[^}]*\}[^"'\n]*?)?["']([^"']+)["']/g,
    ),
  ]
  const dynamic = [...text.matchAll(/\bimport\(\s*["']([^"']+)["']/g)]
  return [...specifiers, ...dynamic].map(([, specifier = ""]) =>
    specifier.startsWith(".")
      ? relative(ROOT, resolve(ROOT, dirname(path), specifier)).replaceAll("\\", "/")
      : specifier,
  )
}

function layering(source: Source): string[] {
  if (source.path.endsWith(".test.ts")) return []
  const owner = ownerOf(source.path)
  if (owner === undefined)
    return [`${source.path}: no rule says what it may import; add it to scripts/check.ts`]
  const folder = Object.keys(MAY_IMPORT).filter(
    (key) => owner.startsWith(`${key}/`) || key === owner,
  )
  const allowed = [...folder, "src/util", ...(MAY_IMPORT[owner] ?? [])]
  const isPure = PURE.some((pure) => source.path.startsWith(`${pure}/`))
  return importsOf(source).flatMap((target) => {
    if (isPure && /^(node:|bun|#ffi)/.test(target))
      return [`${source.path}: imports "${target}", but this folder is pure`]
    if (!/^(src|ffi)\//.test(target)) return []
    const bare = target.replace(/\.ts$/, "")
    const isAllowed = allowed.some((key) => bare === key || bare.startsWith(`${key}/`))
    return isAllowed ? [] : [`${source.path}: may not import "${target}"`]
  })
}

function headers({ path, text }: Source): string[] {
  const problems: string[] = []
  if (!path.endsWith(".test.ts") && !/^(#!.*\n)?\/\*\*[\s\S]*?@module[\s\S]*?\*\//.test(text)) {
    problems.push(`${path}: begins without a module header (/** … @module */)`)
  }
  if (/^\s*(private|public|protected)\s+(readonly|static|async|[a-z]\w*\s*[(:=])/m.test(text)) {
    problems.push(`${path}: uses private/public; write #name`)
  }
  return problems
}

/** Where a digest or a name may become a path: the functions that do so have checked it. */
const PATH_MAKERS: readonly string[] = ["src/store/", "src/convert/folder.ts"]

/**
 * What others name must not lead out of the store: outside of it no digest, tag or namespace is joined to a path, and
 * nobody spells the store's folders.
 */
function paths({ path, text }: Source): string[] {
  const isExempt = path.includes("test") || PATH_MAKERS.some((maker) => path.startsWith(maker))
  if (isExempt) return []
  return text.split("\n").flatMap((line, index) => {
    const isJoined = /(?<!\.)\b(join|resolve)\(.*(digest|\btag\b|namespace|"(blobs|manifests)")/i
    return isJoined.test(line)
      ? [
          `${path}:${index + 1}: makes a path of a name of others; src/store/digest.ts and name.ts do`,
        ]
      : []
  })
}

/** Signatures of cria.h in the notation of the table's comments. */
function headerFunctions(): Map<string, string> {
  const text = readFileSync(join(ROOT, "ffi/native/cria.h"), "utf8")
  const found = new Map<string, string>()
  for (const [, result = "", name = "", args = ""] of text.matchAll(
    /CRIA_API\s+(\w+)\s+(cria_\w+)\(([\s\S]*?)\);/g,
  )) {
    const parameters = args.replaceAll(/\s+/g, " ").trim()
    found.set(name, `${result}(${parameters === "void" ? "" : parameters})`)
  }
  return found
}

const C_TYPES: Readonly<Record<string, string>> = {
  i32: "int32_t",
  i64: "int64_t",
  u64: "uint64_t",
  f32: "float",
}

/** Compares ffi/symbols.ts with cria.h: names, types and argument names. */
function abi(): string[] {
  const declared = headerFunctions()
  const text = readFileSync(join(ROOT, "ffi/symbols.ts"), "utf8")
  const problems: string[] = []
  const row = /^ {2}(cria_\w+): \{ args: \[(.*?)\], returns: "(\w+)" \},(?: \/\/ (.*))?$/gm
  const listed = new Set<string>()
  for (const [, name = "", args = "", returns = "", comment = ""] of text.matchAll(row)) {
    listed.add(name)
    const types = args === "" ? [] : args.split(", ").map((type) => type.replaceAll('"', ""))
    const isConsistent = comment
      .split(", ")
      .filter((c) => c !== "")
      .every((c, i) => {
        const type = types[i] ?? ""
        return type === "buffer" ? c.includes("*") : c.startsWith(`${C_TYPES[type]} `)
      })
    const expected = declared.get(name)
    const actual = `${C_TYPES[returns]}(${comment})`
    if (expected !== actual || !isConsistent)
      problems.push(`ffi/symbols.ts: ${name} is ${actual}, cria.h has ${expected}`)
  }
  for (const name of declared.keys()) {
    if (!listed.has(name)) problems.push(`ffi/symbols.ts: ${name} of cria.h is missing`)
  }
  const version = /CRIA_ABI_VERSION (\d+)/.exec(
    readFileSync(join(ROOT, "ffi/native/cria.h"), "utf8"),
  )?.[1]
  if (!text.includes(`ABI_VERSION = ${version}`))
    problems.push(`ffi/symbols.ts: ABI_VERSION is not ${version}`)
  return problems
}

/** The page about environment variables. */
function environmentPage(): string {
  const rows = VARIABLES.map(
    ({ name, about, defaultText }) =>
      `| \`${name}\` | ${defaultText === "" ? "" : `\`${defaultText}\``} | ${about} |`,
  )
  return `# Environment variables

Generated from \`src/config.ts\` by \`bun scripts/check.ts --write\`. Each \`OLLAMA_X\` may also be written \`CRIA_X\`, which
wins. A value that cannot be read gives a warning and the default.

| name | default | meaning |
|---|---|---|
${rows.join("\n")}

Registries are reached through \`HTTPS_PROXY\` (\`HTTP_PROXY\` for those without TLS) except for the hosts in
\`NO_PROXY\`, separated by commas. Loopback addresses are never reached through a proxy. \`DOCKER_CONFIG\`, \`HF_TOKEN\`
and \`HF_ENDPOINT\` are used as Docker and Hugging Face document them: the host of \`HF_ENDPOINT\` is a mirror, and a model is
pulled from it as \`<host>/user/repository\`.
`
}

function documentation(): string[] {
  const path = join(ROOT, "docs/environment.md")
  if (process.argv.includes("--write")) writeFileSync(path, environmentPage())
  const isTrue = readFileSync(path, { encoding: "utf8", flag: "a+" }) === environmentPage()
  return isTrue
    ? []
    : ["docs/environment.md: differs from src/config.ts; run bun scripts/check.ts --write"]
}

/**
 * A package for another platform that the registry did not offer when the lock was written is silently left out of it,
 * and then `npm ci` fails on that platform, and with a registry that does offer it, everywhere.
 */
function lockFile(): string[] {
  const { packages } = JSON.parse(readFileSync(join(ROOT, "package-lock.json"), "utf8")) as {
    packages: Record<string, { optionalDependencies?: Record<string, string>; resolved?: string }>
  }
  return Object.entries(packages).flatMap(([path, { optionalDependencies = {}, resolved }]) => {
    const missing = Object.keys(optionalDependencies).filter(
      (name) =>
        !(`node_modules/${name}` in packages) && !(`${path}/node_modules/${name}` in packages),
    )
    return [
      ...missing.map((name) => `package-lock.json: ${path} wants ${name}, which is not in it`),
      ...(resolved === undefined
        ? []
        : [`package-lock.json: ${path} names the registry it came from`]),
    ]
  })
}

const sources = ["src", "ffi"].flatMap(sourcesOf)
const scripts = ["scripts", "bench", "examples"].flatMap(sourcesOf)
const problems = [
  ...sources.flatMap(layering),
  ...[...sources, ...scripts].flatMap(headers),
  ...sources.flatMap(paths),
  ...abi(),
  ...documentation(),
  ...lockFile(),
]
for (const problem of problems) console.error(problem)
console.log(`house rules: ${sources.length + scripts.length} files, ${problems.length} problems`)
process.exit(problems.length === 0 ? 0 : 1)
