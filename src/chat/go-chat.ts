/**
 * Chats through Go templates, as Ollama renders them: the old kind of template knows one prompt and one response, the
 * newer one all messages, and some can fill in between two texts.
 *
 * @module
 */

import type { Spent } from "../template/execute.ts"
import type { BranchNode } from "../template/nodes.ts"
import {
  asksFor,
  endTexts,
  firstText,
  listAround,
  mentionedNames,
  nodesOf,
  rangeAround,
  textsOf,
  untilResponse,
  withResponse,
} from "../template/scan.ts"
import { parseTemplate, runTemplate, type Template } from "../template/template.ts"
import { GoMap, type Value } from "../template/value.ts"
import { messageList, toolList } from "./go-data.ts"
import type { Message, Tool } from "./message.ts"

/** What thoughts stand between. */
export interface ThinkingTags {
  readonly opening: string
  readonly closing: string
}

/** A template with what can be known of it without running it. */
export interface ChatTemplate {
  readonly template: Template
  /** All that it says by itself. */
  readonly text: string
  /** It goes over the messages itself. */
  readonly hasMessages: boolean
  readonly hasTools: boolean
  /** It renders calls of tools and their results too. */
  readonly hasToolTurns: boolean
  /** It can fill in between two texts. */
  readonly hasSuffix: boolean
  readonly thinking: ThinkingTags | undefined
  /** What an answer that calls a tool begins with. */
  readonly toolTag: string
}

/** How much the model shall think. */
export interface ThinkingWish {
  /** Undefined: the caller did not say. */
  readonly thinking?: boolean | undefined
  /** Level, for templates that know levels. */
  readonly effort?: string | undefined
}

/** A conversation to render. */
export interface ChatRendering extends ThinkingWish {
  readonly messages: readonly Message[]
  readonly tools: readonly Tool[]
}

/** What there is when a template does not show how it writes calls of tools. */
const ANY_JSON = "{"

/**
 * Reads a template.
 *
 * @throws {CriaError} `invalid-input` with the words of Go's parser.
 */
export function readChatTemplate(source: string): ChatTemplate {
  const parsed = parseTemplate(source)
  const names = mentionedNames(parsed)
  const isOpen = !names.has("messages") && !names.has("response")
  const template = isOpen ? withResponse(parsed) : parsed
  const texts = textsOf(template)
  const hasResults = comparesWithTool(template) || /tool_response|TOOL_RESULTS/.test(texts)
  return {
    template,
    text: texts,
    hasMessages: names.has("messages"),
    hasTools: names.has("tools"),
    hasToolTurns: names.has("tools") && names.has("toolcalls") && hasResults,
    hasSuffix: names.has("suffix"),
    thinking: thinkingTags(template),
    toolTag: toolTag(template),
  }
}

/** `eq .Role "tool"` */
function comparesWithTool(template: Template): boolean {
  for (const { node } of nodesOf(template)) {
    if (node.kind !== "command") continue
    const [callee, ...args] = node.args
    const isComparison = callee.kind === "identifier" && callee.name === "eq"
    const hasTool = args.some((arg) => arg.kind === "string" && arg.text === "tool")
    if (isComparison && hasTool && args.some((arg) => asksFor(arg, "Role"))) return true
  }
  return false
}

/** The texts around the place where a range over the messages prints `.Thinking`. */
function thinkingTags(template: Template): ThinkingTags | undefined {
  let tags: ThinkingTags | undefined
  const overMessages = new Map<BranchNode, boolean>()
  for (const visit of nodesOf(template)) {
    const { node } = visit
    const isPrinted = node.kind === "action" && asksFor(node, "Thinking")
    const isSubject = node.kind === "with" && asksFor(node.pipe, "Thinking")
    if (!isPrinted && !isSubject) continue
    const range = rangeAround(visit)
    const list = isSubject ? node.list : listAround(visit)
    if (list === undefined || range === undefined) continue
    const isOverMessages = overMessages.get(range) ?? asksFor(range.pipe, "Messages")
    overMessages.set(range, isOverMessages)
    if (!isOverMessages) continue
    const [opening, closing] = endTexts(list)
    if (opening !== "" && closing !== "") tags = { opening, closing }
  }
  return tags
}

/** The first text of the block for messages that have calls of tools, up to the JSON. */
function toolTag(template: Template): string {
  for (const { node } of nodesOf(template)) {
    if (node.kind !== "if" || !asksFor(node.pipe, "ToolCalls")) continue
    const [tag = ""] = (firstText(node.list) ?? "").split("{")
    return tag.trim() || ANY_JSON
  }
  return ANY_JSON
}

/**
 * Renders a conversation up to the place where the model goes on.
 *
 * @throws {CriaError} `internal` with the words of Go's executor, `invalid-input` for tools that cannot be shown.
 */
export function renderChat(chat: ChatTemplate, rendering: ChatRendering): string {
  const messages = merged(rendering.messages)
  if (!chat.hasMessages) return renderTurns(chat, messages, rendering)
  const system = rendering.messages
    .filter(({ role }) => role === "system")
    .map(({ content }) => content)
    .join("\n\n")
  return run(chat.template, {
    ...thinkingFields(rendering),
    System: system,
    Messages: messageList(messages),
    Tools: toolList(rendering.tools),
    Response: "",
  })
}

/**
 * Renders the two sides of a gap that the model shall fill.
 *
 * @throws {CriaError} `internal` with the words of Go's executor.
 */
export function renderInsert(
  { template }: ChatTemplate,
  gap: ThinkingWish & { readonly prompt: string; readonly suffix: string },
): string {
  return run(template, {
    ...thinkingFields(gap),
    Prompt: gap.prompt,
    Suffix: gap.suffix,
    Response: "",
  })
}

/** Neighbours of one role become one message; results of tools stay apart. */
function merged(messages: readonly Message[]): Message[] {
  const result: Message[] = []
  for (const message of messages) {
    const last = result.at(-1)
    if (last?.role !== message.role || message.role === "tool") result.push(message)
    else result[result.length - 1] = { ...last, content: `${last.content}\n\n${message.content}` }
  }
  return result
}

/** One system text, one prompt and one response at a time; the last response is open. */
function renderTurns(
  { template }: ChatTemplate,
  messages: readonly Message[],
  wish: ThinkingWish,
): string {
  const texts: string[] = []
  // All turns together may take what one run may.
  const spent = { steps: 0, chars: 0 }
  let turn = { System: "", Prompt: "", Response: "" }
  const finish = () => {
    texts.push(run(template, { ...thinkingFields(wish), ...turn }, spent))
    turn = { System: "", Prompt: "", Response: "" }
  }
  for (const { role, content } of messages) {
    if (role === "system") {
      if (turn.Prompt !== "" || turn.Response !== "") finish()
      turn.System = content
    } else if (role === "user") {
      if (turn.Response !== "") finish()
      turn.Prompt = content
    } else if (role === "assistant") turn.Response = content
  }
  texts.push(run(untilResponse(template), { ...thinkingFields(wish), ...turn }, spent))
  return texts.join("")
}

function thinkingFields({ thinking, effort }: ThinkingWish): Record<string, Value> {
  const isOn = thinking === true
  return {
    Think: isOn,
    ThinkLevel: isOn ? (effort ?? "medium") : "",
    IsThinkSet: thinking !== undefined,
  }
}

function run(template: Template, fields: Record<string, Value>, spent?: Spent): string {
  const options = spent === undefined ? {} : { spent }
  return runTemplate(template, new GoMap(new Map(Object.entries(fields))), options)
}
