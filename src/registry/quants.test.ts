import { describe, expect, test } from "bun:test"

import { listFiles, quantLabel, quantsOfFiles, quantTags } from "./quants.ts"

test.each([
  ["Qwen3-8B-Q4_K_M", "Q4_K_M"],
  ["model.IQ4_XS", "IQ4_XS"],
  ["8b-instruct-q8_0", "Q8_0"],
  ["Llama-3-UD-Q4_K_XL", "UD-Q4_K_XL"],
  ["BF16/model-BF16", "BF16"],
  ["m-fp16", "FP16"],
  ["gpt-oss-20b-mxfp4", "MXFP4"],
  ["q4_0", "Q4_0"],
  ["Q2_K", "Q2_K"],
  ["Q3_K_L", "Q3_K_L"],
  ["latest", undefined],
  ["8b", undefined],
  ["xQ4_0", undefined],
  ["Q4_0x", undefined],
])("quantLabel(%j)", (name, label) => {
  expect(quantLabel(name)).toBe(label)
})

describe("quantsOfFiles()", () => {
  test("counts weights, not encoders, and adds the parts of split files up", () => {
    const files = [
      { path: "README.md", bytes: 1 },
      { path: "M-Q4_K_M.gguf", bytes: 40 },
      { path: "M-Q8_0-00001-of-00002.gguf", bytes: 50 },
      { path: "M-Q8_0-00002-of-00002.gguf", bytes: 30 },
      { path: "BF16/M-BF16-00001-of-00002.gguf", bytes: 99 },
      { path: "BF16/M-BF16-00002-of-00002.gguf", bytes: 1 },
      { path: "mmproj-M-F16.gguf", bytes: 7 },
      { path: "other-Q4_K_M.gguf", bytes: 1 },
    ]
    expect(quantsOfFiles(files)).toEqual([
      { tag: "Q4_K_M", label: "Q4_K_M", bytes: 40, files: 1 },
      { tag: "Q8_0", label: "Q8_0", bytes: 80, files: 2 },
      { tag: "BF16", label: "BF16", bytes: 100, files: 2 },
    ])
  })
})

describe("quantTags()", () => {
  test("of one model in several quantisations", () => {
    expect(quantTags(["latest", "8b-q4_0", "8b-q8_0"]).map(({ tag }) => tag)).toEqual([
      "8b-q4_0",
      "8b-q8_0",
    ])
    expect(quantTags(["8b-q4_0", "70b-q4_0"])).toEqual([])
    expect(quantTags(["latest", "v2"])).toEqual([])
  })
})

describe("listFiles()", () => {
  const network = { userAgent: "test", replyMs: 5000, sendMs: 5000, storeMs: 5000 }

  test("follows pages and renamed repositories, on the same host only", async () => {
    const seen: (string | null)[] = []
    using server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch(request) {
        seen.push(request.headers.get("Authorization"))
        const { pathname, origin } = new URL(request.url)
        if (pathname === "/old") return Response.redirect(`${origin}/new`, 307)
        if (pathname === "/away") return Response.redirect("http://127.0.0.1:1/x", 307)
        const file = { type: "file", path: `${pathname}.gguf`, size: 3, lfs: { size: 9 } }
        const folder = { type: "directory", path: "x", size: 0 }
        return Response.json([file, folder], {
          headers: pathname === "/new" ? { Link: `<${origin}/page2>; rel="next"` } : {},
        })
      },
    })
    const files = await listFiles(new URL("/old", server.url), network, "token")
    expect(files).toEqual([
      { path: "/new.gguf", bytes: 9 },
      { path: "/page2.gguf", bytes: 9 },
    ])
    expect(new Set(seen)).toEqual(new Set(["Bearer token"]))
    expect(await listFiles(new URL("/away", server.url), network)).toEqual([])
  })

  test("what is no list is an empty one", async () => {
    const replies = ["<html>", "{}", '[{"path":5}]', "[]"]
    using server = Bun.serve({
      port: 0,
      hostname: "127.0.0.1",
      fetch: ({ url }) => new Response(replies[Number(new URL(url).pathname.slice(1))]),
    })
    for (const i of replies.keys()) {
      expect(await listFiles(new URL(`/${i}`, server.url), network)).toEqual([])
    }
  })
})
