/**
 * A conversation as the data that Go templates see: Ollama's names and types.
 *
 * @module
 */

import { writeJson } from "../template/json.ts"
import type { Sink } from "../template/sink.ts"
import { type GoField, GoList, GoMap, GoStruct, type Value } from "../template/value.ts"
import { CriaError } from "../util/errors.ts"
import type { Message, Tool, ToolCall } from "./message.ts"

/** Schemas and values within each other; clients may send anything. A printed schema is three levels deep. */
const DEPTH_MAX = 30

/** The messages, each a struct. */
export function messageList(messages: readonly Message[]): GoList {
  return new GoList(messages.map(messageValue), { type: "[]Message" })
}

function messageValue(message: Message): GoStruct {
  return struct("Message", {
    Role: field(message.role, "role"),
    Content: field(message.content, "content"),
    Thinking: optional(message.thinking ?? "", "thinking"),
    Images: optional(new GoList([]), "images"),
    ToolCalls: optional(
      new GoList((message.toolCalls ?? []).map(callValue), { type: "[]ToolCall" }),
      "tool_calls",
    ),
    ToolName: optional(message.toolName ?? "", "tool_name"),
    ToolCallID: optional(message.toolCallId ?? "", "tool_call_id"),
  })
}

function callValue(call: ToolCall, index: number): GoStruct {
  return struct("ToolCall", {
    ID: optional(call.id, "id"),
    Function: field(
      struct("ToolCallFunction", {
        Index: field(BigInt(index), "index"),
        Name: field(call.name, "name"),
        Arguments: field(argumentsOf(call), "arguments"),
      }),
      "function",
    ),
  })
}

/** Prints as JSON. */
function argumentsOf({ name, arguments: text }: ToolCall): GoMap {
  let parsed: unknown
  try {
    parsed = text === "" ? {} : JSON.parse(text)
  } catch {
    parsed = undefined
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    const message = `Cannot use the arguments of the call of "${name}": expected a JSON object`
    throw new CriaError("invalid-input", message)
  }
  const map: GoMap = new GoMap(entriesOf(parsed, 1), {
    type: "ToolCallFunctionArguments",
    print: (sink) => writeJson(map, sink),
  })
  return map
}

/** The tools; the list and each of them print as JSON. */
export function toolList(tools: readonly Tool[]): GoList {
  const list: GoList = new GoList(tools.map(toolValue), {
    type: "Tools",
    print: (sink) => writeJson(list, sink),
  })
  return list
}

function toolValue({ name, description = "", parameters }: Tool): GoStruct {
  const tool: GoStruct = struct(
    "Tool",
    {
      Type: field("function", "type"),
      Items: optional(null, "items"),
      Function: field(
        struct("ToolFunction", {
          Name: field(name, "name"),
          Description: optional(description, "description"),
          Parameters: field(parametersValue(parameters), "parameters"),
        }),
        "function",
      ),
    },
    (sink) => writeJson(tool, sink),
  )
  return tool
}

function parametersValue(schema: unknown): GoStruct {
  const { type, $defs, items, required, properties } = objectOf(schema)
  const parameters: GoStruct = struct(
    "ToolFunctionParameters",
    {
      Type: field(typeof type === "string" ? type : "", "type"),
      Defs: optional(jsonValue($defs), "$defs"),
      Items: optional(jsonValue(items), "items"),
      Required: optional(textList(required), "required"),
      Properties: field(propertyMap(properties, 0), "properties"),
    },
    (sink) => writeJson(parameters, sink),
  )
  return parameters
}

function propertyMap(properties: unknown, depth: number): GoMap {
  const entries = Object.entries(objectOf(properties)).map(([name, schema]): [string, Value] => [
    name,
    propertyValue(schema, depth + 1),
  ])
  const map: GoMap = new GoMap(new Map(entries), {
    type: "map[string]ToolProperty",
    print: (sink) => writeJson(map, sink),
    zero: NO_PROPERTY,
  })
  return map
}

function propertyValue(schema: unknown, depth: number): GoStruct {
  if (depth > DEPTH_MAX) {
    const message = `Cannot use a tool: its parameters are nested more than ${DEPTH_MAX} deep`
    throw new CriaError("invalid-input", message)
  }
  const { anyOf, type, items, description, enum: choices, properties, required } = objectOf(schema)
  return propertyStruct({
    AnyOf: optional(
      new GoList(
        listOf(anyOf).map((option) => propertyValue(option, depth + 1)),
        {
          type: "[]ToolProperty",
        },
      ),
      "anyOf",
    ),
    Type: typeField(type),
    Items: optional(jsonValue(items), "items"),
    Description: optional(typeof description === "string" ? description : "", "description"),
    Enum: optional(new GoList(listOf(choices).map((choice) => jsonValue(choice))), "enum"),
    Properties: optional(propertyMap(properties, depth), "properties"),
    Required: optional(textList(required), "required"),
  })
}

function propertyStruct(fields: Record<string, GoField>): GoStruct {
  return struct("ToolProperty", fields)
}

/** What a property map gives for a name that it does not have. */
const NO_PROPERTY = propertyStruct({
  AnyOf: optional(new GoList([]), "anyOf"),
  Type: typeField(undefined),
  Items: optional(null, "items"),
  Description: optional("", "description"),
  Enum: optional(new GoList([]), "enum"),
  Properties: optional(new GoMap(new Map()), "properties"),
  Required: optional(new GoList([]), "required"),
})

/** One type prints and encodes as its name, several as a list. */
function typeField(type: unknown): GoField {
  const names = typeof type === "string" ? [type] : listOf(type).map(String)
  const [only = ""] = names
  const text = names.length > 1 ? `[${names.join(" ")}]` : only
  const value = new GoList(names, { type: "PropertyType", print: (sink) => void sink.add(text) })
  return { ...optional(value, "type"), ...(names.length === 1 ? { jsonValue: only } : {}) }
}

function textList(value: unknown): GoList {
  return new GoList(
    listOf(value).filter((item) => typeof item === "string"),
    { type: "[]string" },
  )
}

/** A value of a JSON document. */
function jsonValue(value: unknown, depth = 0): Value {
  if (typeof value === "string" || typeof value === "boolean" || typeof value === "number") {
    return value
  }
  if (typeof value !== "object" || value === null) return null
  if (depth > DEPTH_MAX) {
    const message = `Cannot use a tool: its values are nested more than ${DEPTH_MAX} deep`
    throw new CriaError("invalid-input", message)
  }
  if (Array.isArray(value)) return new GoList(value.map((item) => jsonValue(item, depth + 1)))
  return new GoMap(entriesOf(value, depth + 1))
}

function entriesOf(object: object, depth: number): Map<string, Value> {
  return new Map(Object.entries(object).map(([key, value]) => [key, jsonValue(value, depth)]))
}

function objectOf(value: unknown): Record<string, unknown> {
  const isObject = typeof value === "object" && value !== null && !Array.isArray(value)
  // Whatever an object of a JSON document has under a name is checked where it is used.
  return isObject ? (value as Record<string, unknown>) : {}
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : []
}

function struct(
  type: string,
  fields: Record<string, GoField>,
  print?: (sink: Sink) => void,
): GoStruct {
  return new GoStruct(new Map(Object.entries(fields)), { type, print })
}

function field(value: Value, json: string): GoField {
  return { value, json }
}

function optional(value: Value, json: string): GoField {
  return { value, json, omitEmpty: true }
}
