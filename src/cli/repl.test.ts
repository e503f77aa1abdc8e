import { describe, expect, test } from "bun:test"
import { join } from "node:path"

/** A conversation in a process of its own, with a server that answers "hi" and tells what it was asked. */
const SCRIPT = `
  import { Client } from ${JSON.stringify(join(import.meta.dirname, "../client/client.ts"))}
  import { Spinner } from ${JSON.stringify(join(import.meta.dirname, "output.ts"))}
  import { talk } from ${JSON.stringify(join(import.meta.dirname, "repl.ts"))}
  const asked = []
  const ended = new Promise((resolve) => process.stdin.on("end", resolve))
  const client = new Client("http://x", async (url, init) => {
    if (!url.endsWith("/api/chat")) return Response.json({ done: true })
    const { messages } = JSON.parse(init.body)
    asked.push(messages.map(({ role, content }) => role + ": " + content))
    const last = messages.at(-1).content
    if (last === "wait") await ended
    if (last === "fail") return Response.json({ error: "no luck" }, { status: 500 })
    const reply = (content, done) => JSON.stringify({ message: { role: "assistant", content }, done })
    return new Response(reply("hi", false) + "\\n" + reply("", true) + "\\n")
  })
  const session = { client, model: "m", signal: new AbortController().signal, fields: {} }
  await talk(session, { messages: JSON.parse(process.env.KNOWN ?? "[]") }, new Spinner())
  console.log("ASKED" + JSON.stringify(asked))`

/** What is printed for some input, and the messages of each request. */
async function talk(input: string, known: readonly object[] = []) {
  const child = Bun.spawn([process.execPath, "-e", SCRIPT], {
    stdin: new Blob([input]),
    stdout: "pipe",
    stderr: "pipe",
    env: { ...process.env, KNOWN: JSON.stringify(known) },
  })
  const [stdout, stderr] = await Promise.all([child.stdout.text(), child.stderr.text()])
  const [printed = "", asked = "[]"] = stdout.split("ASKED")
  return { code: await child.exited, printed, stderr, asked: JSON.parse(asked) as string[][] }
}

describe("a conversation", () => {
  test("keeps what was said before", async () => {
    const { code, asked, printed } = await talk("hello\n\n  \nwhat?\n")
    expect(asked).toEqual([["user: hello"], ["user: hello", "assistant: hi", "user: what?"]])
    expect(printed).toContain(">>> hi\n\n")
    expect(code).toBe(0)
  })

  test("takes messages of several lines between quotes", async () => {
    const { asked } = await talk('"""one\ntwo\n\nthree"""\n"""four"""\n')
    expect(asked.map((messages) => messages.at(-1))).toEqual([
      "user: one\ntwo\n\nthree",
      "user: four",
    ])
  })

  test("forgets on request", async () => {
    const { asked, printed } = await talk("hello\n/clear\nagain\n")
    expect(asked).toEqual([["user: hello"], ["user: again"]])
    expect(printed).toContain("Cleared session context\n")
  })

  test("goes on after an error, and forgets what failed", async () => {
    const { asked, code, stderr } = await talk("fail\nhello\n")
    expect(asked).toEqual([["user: fail"], ["user: hello"]])
    expect(stderr).toContain("Error: no luck\n")
    expect(code).toBe(0)
  })

  test("begins with the turns of the model", async () => {
    const known = [
      { role: "user", content: "Ahoy" },
      { role: "assistant", content: "Arr" },
    ]
    const { printed } = await talk("", known)
    expect(printed).toStartWith(">>> Ahoy\nArr\n\n")
  })
})

describe("commands of a conversation", () => {
  test.each(["/bye", "/exit"])("%s ends it", async (command) => {
    const { asked, code } = await talk(`hello\n${command}\nmore\n`)
    expect(asked).toEqual([["user: hello"]])
    expect(code).toBe(0)
  })

  test.each(["/?", "/help"])("%s helps, on stderr", async (command) => {
    const { stderr, printed } = await talk(`${command}\n`)
    expect(stderr).toContain("Available Commands:\n")
    expect(printed).not.toContain("Available Commands")
  })

  test("that do not exist are named, without what comes after them", async () => {
    const { asked, printed } = await talk("/nonsense 1 2\n")
    expect(printed).toContain("Unknown command '/nonsense'. Type /? for help\n")
    expect(asked).toEqual([])
  })
})

describe("the end of input", () => {
  test("ends the conversation", async () => {
    expect(await talk("")).toMatchObject({ code: 0, stderr: "", asked: [] })
  })

  test("in the middle of an answer lets it end first", async () => {
    expect(await talk("wait\n")).toMatchObject({ code: 0, stderr: "", asked: [["user: wait"]] })
  })

  test("in the middle of a message of several lines drops it", async () => {
    expect(await talk('"""one\ntwo\n')).toMatchObject({ code: 0, stderr: "", asked: [] })
  })
})
