import { describe, expect, test } from "bun:test"
import { rejects } from "node:assert/strict"
import { chmodSync, writeFileSync } from "node:fs"
import { join } from "node:path"

import { TemporaryFolder } from "../gguf/raw-file.ts"
import { findCredential } from "./credentials.ts"

const AUTH = Buffer.from("user:pass:word").toString("base64")
const PASSWORD = { kind: "password", user: "user", password: "pass:word" } as const

/** What is found for a host with a `config.json`. */
async function found(config: unknown, host: string, env: Record<string, string> = {}) {
  using folder = new TemporaryFolder()
  const text = typeof config === "string" ? config : JSON.stringify(config)
  writeFileSync(join(folder.path, "config.json"), text)
  return await findCredential(host, { DOCKER_CONFIG: folder.path, ...env })
}

describe("findCredential()", () => {
  test.each(["h:5000", "https://h:5000", "https://h:5000/v2/", "http://h:5000/v1/"])(
    "the host may be written %s",
    async (key) => {
      expect(await found({ auths: { [key]: { auth: AUTH } } }, "h:5000")).toEqual(PASSWORD)
    },
  )

  test("is that of the host and of no other", async () => {
    const config = { auths: { "h:5000": { auth: AUTH } } }
    for (const host of ["h", "h:5001", "x.h:5000", "h:50000"]) {
      expect(await found(config, host)).toBeUndefined()
    }
  })

  test("a user and a password, a token for tokens, and nothing", async () => {
    const plain = { username: "user", password: "pass:word" }
    expect(await found({ auths: { h: plain } }, "h")).toEqual(PASSWORD)
    const token = { auth: AUTH, identitytoken: "t" }
    expect(await found({ auths: { h: token } }, "h")).toEqual({ kind: "refresh-token", token: "t" })
    expect(await found({ auths: { h: {} } }, "h")).toBeUndefined()
    expect(await found({}, "h")).toBeUndefined()
    expect(await findCredential("h", { HOME: "/nowhere" })).toBeUndefined()
  })

  test("Docker Hub by its old name; Hugging Face by HF_TOKEN", async () => {
    const config = { auths: { "https://index.docker.io/v1/": { auth: AUTH } } }
    expect(await found(config, "registry-1.docker.io")).toEqual(PASSWORD)
    expect(await found({}, "hf.co", { HF_TOKEN: "hf_x" })).toEqual({
      kind: "bearer",
      token: "hf_x",
    })
    expect(await found({}, "hf.co.example", { HF_TOKEN: "hf_x" })).toBeUndefined()
  })

  test("a damaged file is named, and nothing of what is in it", async () => {
    for (const text of ["{ secret", '{"auths": {"h": {"auth": 5}}}', "[]"]) {
      await rejects(found(text, "h"), (error: Error) => {
        expect(error.message).toMatch(
          /^Cannot read ".*config\.json": expected Docker's config\.json$/,
        )
        expect(error.cause).toBeUndefined()
        return true
      })
    }
  })

  test.each<[string, unknown]>([
    ['{"ServerURL":"h","Username":"user","Secret":"pass:word"}', PASSWORD],
    ['{"Username":"<token>","Secret":"t"}', { kind: "refresh-token", token: "t" }],
  ])("a helper that answers %s", async (answer, expected) => {
    using folder = new TemporaryFolder()
    const helper = join(folder.path, "docker-credential-test")
    writeFileSync(
      helper,
      `#!/bin/sh\nread host\n[ "$1 $host" = "get h" ] || exit 1\necho '${answer}'\n`,
    )
    chmodSync(helper, 0o755)
    const env = { PATH: `${folder.path}:/usr/bin:/bin` }
    for (const config of [{ credsStore: "test" }, { credHelpers: { h: "test" } }]) {
      expect(await found(config, "h", env)).toEqual(expected as never)
      expect(await found(config, "other", env)).toBeUndefined()
    }
  })

  test("a helper knows Docker Hub by its old name, too", async () => {
    using folder = new TemporaryFolder()
    const helper = join(folder.path, "docker-credential-test")
    const answer = '{"Username":"user","Secret":"pass:word"}'
    writeFileSync(
      helper,
      `#!/bin/sh\nread host\n[ "$host" = "https://index.docker.io/v1/" ] || exit 1\necho '${answer}'\n`,
    )
    chmodSync(helper, 0o755)
    const env = { PATH: `${folder.path}:/usr/bin:/bin` }
    for (const config of [
      { credsStore: "test" },
      { credHelpers: { "https://index.docker.io/v1/": "test" } },
    ]) {
      expect(await found(config, "registry-1.docker.io", env)).toEqual(PASSWORD)
      expect(await found(config, "other", env)).toBeUndefined()
    }
  })

  test("a helper that is a path, is missing, or talks nonsense", async () => {
    await rejects(found({ credsStore: "../x" }, "h"), /Cannot run the credential helper/)
    await rejects(
      found({ credsStore: "missing" }, "h", { PATH: "/nowhere" }),
      /Cannot use the cred/,
    )
    using folder = new TemporaryFolder()
    const helper = join(folder.path, "docker-credential-test")
    writeFileSync(helper, "#!/bin/sh\necho top-secret\n")
    chmodSync(helper, 0o755)
    await rejects(
      found({ credsStore: "test" }, "h", { PATH: `${folder.path}:/usr/bin:/bin` }),
      (error: Error) => {
        expect(error.message).toEndWith("its answer is no credential")
        return true
      },
    )
  })
})
