import { expect, test } from "bun:test"

import { CriaError } from "../../util/errors.ts"
import { addressOf, pushError } from "./transfer.ts"

test("a push without rights is said in Ollama's words, with the reason as the hint", () => {
  const denied = new CriaError("unavailable", "unauthorized: access denied")
  expect(pushError(denied)).toMatchObject({
    message:
      "you are not authorized to push to this namespace, create the model under a namespace you own",
    hint: "unauthorized: access denied",
    cause: denied,
  })
  const other = new CriaError("unavailable", "503: no")
  expect(pushError(other)).toBe(other)
})

test.each([
  ["ann/m", "https://ollama.com/ann/m"],
  ["ann/m:latest", "https://ollama.com/ann/m"],
  ["registry.ollama.ai/ann/m:q8_0", "https://ollama.com/ann/m:q8_0"],
  ["https://Registry.Ollama.ai/ann/m", "https://ollama.com/ann/m"],
  ["registry.example/ann/m:latest", "registry.example/ann/m:latest"],
])("%s is found at %s", (model, address) => {
  expect(addressOf(model)).toBe(address)
})
