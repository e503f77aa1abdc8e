import { expect, test } from "bun:test"

import { byteSteps } from "./progress.ts"

test("byteSteps() — whoever leaves early ends the counting, too", async () => {
  let isClosed = false
  async function* counts(): AsyncGenerator<number, string> {
    try {
      for (let bytes = 2 ** 21; ; bytes *= 2) yield bytes
    } finally {
      isClosed = true
    }
  }
  for await (const step of byteSteps(counts(), { status: "s", digest: "d", total: 2 ** 22 })) {
    expect(step.completed).toBe(2 ** 21)
    break
  }
  expect(isClosed).toBe(true)
})
