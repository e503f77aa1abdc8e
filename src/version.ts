/**
 * Versions: of cria and of the llama.cpp it is built on.
 *
 * @module
 */

import project from "../package.json" with { type: "json" }
import pin from "../vendor/llama.cpp/PIN.json" with { type: "json" }

/** Version of cria. */
export const VERSION: string = project.version

/** Version of llama.cpp, such as `v0.5.0`. */
export const LLAMA_VERSION: string = pin["llama.cpp"].version

/** Commit of llama.cpp, shortened. */
export const LLAMA_COMMIT: string = pin["llama.cpp"].commit.slice(0, 7)

/** What `--version` prints. */
export function versionText(): string {
  return `cria version is ${VERSION}\nllama.cpp ${LLAMA_VERSION} (${LLAMA_COMMIT})`
}
