/**
 * cria inside a Bun program: load a model, stream a chat, embed a text, free everything.
 *
 *   bun examples/embed-bun.ts [model.gguf]
 *
 * @module
 */

import { openModel } from "../src/index.ts"

const path = process.argv[2] ?? "models/demo/cria-demo-q8_0.gguf"

await using model = await openModel(path, { contextTokens: 1024 })

const messages = [{ role: "user", content: "What is the capital of France?" }]
for await (const event of model.chat(messages, { temperature: 0, thinking: false })) {
  if (event.kind === "delta") process.stdout.write(event.content)
  if (event.kind === "done") console.log(`\n${event.usage.completionTokens} tokens`)
}

const [vector] = await model.embed(["A llama lives in the Andes"])
console.log(`${vector?.length} dimensions`)
