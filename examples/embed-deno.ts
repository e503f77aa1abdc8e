/**
 * cria inside a Deno program: load a model, stream a chat, embed a text, free everything.
 *
 *   deno run --allow-ffi --allow-read --allow-env --allow-sys examples/embed-deno.ts [model.gguf]
 *
 * @module
 */

import { openModel } from "../src/index.ts"

const path = Deno.args[0] ?? "models/demo/cria-demo-q8_0.gguf"

await using model = await openModel(path, { contextTokens: 1024 })

const encoder = new TextEncoder()
const messages = [{ role: "user", content: "What is the capital of France?" }]
for await (const event of model.chat(messages, { temperature: 0, thinking: false })) {
  if (event.kind === "delta") Deno.stdout.writeSync(encoder.encode(event.content))
  if (event.kind === "done") console.log(`\n${event.usage.completionTokens} tokens`)
}

const [vector] = await model.embed(["A llama lives in the Andes"])
console.log(`${vector?.length} dimensions`)
