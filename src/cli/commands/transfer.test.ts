import { expect, test } from "bun:test"

import { CriaError } from "../../util/errors.ts"
import { pushError } from "./transfer.ts"

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
