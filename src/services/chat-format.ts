/**
 * Recognises the format of a chat template, for the texts at which an answer has to stop.
 *
 * The template itself stays in the model's file, and llama.cpp renders it. It also stops at the tokens that end a turn;
 * but of a model that learned a format which its vocabulary does not know, such as `### Instruction:`, only the text
 * tells that it has begun to speak for the user. Names and texts are those of the templates that Ollama detects.
 *
 * @module
 */

/** A format. */
export interface ChatFormat {
  /** Ollama's name of it. */
  readonly name: string
  readonly stops: readonly string[]
}

interface KnownFormat extends ChatFormat {
  /** All of them are in a template of this format; by default the texts to stop at are. */
  readonly marks?: readonly string[]
  /** Whether the marks are words that may stand in any template: then only short ones are taken for it. */
  readonly isPlain?: boolean
}

/** Characters of a template that does nothing but put words between messages. */
const PLAIN_CHARS_MAX = 1000

/** The first that fits counts: what has more marks stands before what has some of them. */
const FORMATS: readonly KnownFormat[] = [
  { name: "llama3-instruct", stops: ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"] },
  { name: "chatml", stops: ["<|im_start|>", "<|im_end|>"] },
  { name: "gemma-instruct", stops: ["<start_of_turn>", "<end_of_turn>"] },
  { name: "command-r", stops: ["<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"] },
  {
    name: "alfred",
    stops: ["<start_system>", "<end_message>", "<start_user>", "<start_assistant>"],
  },
  { name: "openchat", stops: ["<|end_of_turn|>"] },
  {
    name: "phi-3",
    stops: ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"],
    marks: ["<|end|>", "<|user|>", "<|assistant|>"],
  },
  {
    name: "zephyr",
    stops: ["<|system|>", "</s>", "<|user|>", "<|assistant|>"],
    marks: ["<|user|>", "<|assistant|>"],
  },
  { name: "llama2-chat", stops: ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"] },
  // Ollama's own list has the texts of another format here.
  { name: "mistral-instruct", stops: ["[INST]", "[/INST]"] },
  { name: "codellama-70b-instruct", stops: ["Source:", "Destination:", "<step>"] },
  { name: "magicoder", stops: ["@@ Instruction", "@@ Response"] },
  { name: "solar-instruct", stops: ["### System:", "### User:", "### Assistant"] },
  { name: "alpaca", stops: ["### Instruction:", "### Response"] },
  { name: "starcoder2-instruct", stops: ["### Instruction", "### Response", "<|endoftext|>"] },
  { name: "granite-instruct", stops: ["System:", "Question:", "Answer:"], isPlain: true },
  { name: "chatqa", stops: ["System:", "User:", "Assistant:", "<|begin_of_text|>"], isPlain: true },
  { name: "falcon-instruct", stops: ["User:", "Assistant:"], isPlain: true },
  { name: "vicuna", stops: ["USER:", "ASSISTANT:"], isPlain: true },
]

/** The format of a Jinja template; undefined when it is none that is known. */
export function chatFormatOf(template: string): ChatFormat | undefined {
  return FORMATS.find(
    ({ stops, marks = stops, isPlain = false }) =>
      marks.every((mark) => template.includes(mark)) &&
      (!isPlain || template.length <= PLAIN_CHARS_MAX),
  )
}
