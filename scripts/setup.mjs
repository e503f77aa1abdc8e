/**
 * The first step of `npm run demo` and `npm test` on a fresh clone: installs the packages, then starts the real script
 * under Bun. Plain JavaScript for Node 20, because nothing else is there yet.
 *
 *   node scripts/setup.mjs <script.ts> [arguments]
 *
 * @module
 */

import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..")
const STAMP = join(ROOT, "node_modules/.cria-stamp")

function fail(message) {
  console.error(message)
  process.exit(1)
}

/** Installs the packages of the lock file unless they are the ones installed last. */
function install() {
  const lock = readFileSync(join(ROOT, "package-lock.json"))
  const stamp = createHash("sha256").update(lock).update(process.platform).digest("hex")
  if (existsSync(STAMP) && readFileSync(STAMP, "utf8") === stamp && findBun() !== undefined) return
  console.error("[setup] install packages from npm (about 130 MB the first time) …")
  const started = performance.now()
  const options = {
    cwd: ROOT,
    stdio: ["ignore", "ignore", "inherit"],
    shell: process.platform === "win32",
  }
  const { status } = spawnSync(
    "npm",
    ["ci", "--no-fund", "--no-audit", "--loglevel=error"],
    options,
  )
  if (status !== 0) fail("Cannot install the packages: npm ci failed, see above")
  if (findBun() === undefined)
    fail("Cannot find Bun after npm ci: node_modules/bun has no program for this platform")
  writeFileSync(STAMP, stamp)
  console.error(
    `[setup] install packages from npm: done in ${((performance.now() - started) / 1000).toFixed(1)} s`,
  )
}

/** Bun's program. Its install script puts it under `bun/bin`; where scripts are off it stays in the platform's package. */
function findBun() {
  const folder = join(ROOT, "node_modules/@oven")
  const platforms = existsSync(folder)
    ? readdirSync(folder).map((name) => join(folder, name, "bin/bun"))
    : []
  return [join(ROOT, "node_modules/bun/bin/bun.exe"), ...platforms].find(
    (path) => existsSync(path) && spawnSync(path, ["--version"]).status === 0,
  )
}

const [major] = process.versions.node.split(".").map(Number)
if (major < 20) fail(`Node ${process.versions.node} is too old: cria's scripts need 20 or newer`)
install()
const { status } = spawnSync(findBun(), [join(ROOT, process.argv[2]), ...process.argv.slice(3)], {
  cwd: ROOT,
  stdio: "inherit",
})
process.exit(status ?? 1)
