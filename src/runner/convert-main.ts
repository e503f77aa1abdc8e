/**
 * The converting child: one model, then it ends. A process of its own, because what stands in large headers and
 * tokenizers takes seconds to read and the weights all of a core, which the server's users would wait for; and because
 * its memory ends with it.
 *
 * @module
 */

import { convertAdapter, readAdapterBase } from "../convert/adapter.ts"
import { convertFolder, type ConvertEvent } from "../convert/convert.ts"
import { linesOf } from "../util/lines.ts"
import { type ConvertJob, parseConvertJob } from "./convert-protocol.ts"
import { reportJob } from "./worker-protocol.ts"

/** Does the job that the first line of stdin describes. */
export async function convertMain(): Promise<void> {
  // A Ctrl-C in the terminal is for our parent, which ends us.
  process.on("SIGINT", () => {})
  const lines = linesOf(Bun.stdin.stream())
  const { value: line = "" } = await lines.next()
  const orphaned = new AbortController()
  // When the parent is gone, nobody wants the file.
  void lines.next().then(() => orphaned.abort())
  await reportJob(async (report) => {
    for await (const event of events(parseConvertJob(line), orphaned.signal)) {
      if (event.kind === "progress") report(event.completedBytes, event.totalBytes)
    }
  })
  // Nothing more will come from stdin that is worth waiting for.
  process.exit()
}

function events(
  { source, target, type, base }: ConvertJob,
  signal: AbortSignal,
): AsyncGenerator<ConvertEvent, void> {
  if (base === undefined) return convertFolder(source, target, { type, signal })
  return convertAdapter(source, target, { base: readAdapterBase(base.path, base.label), signal })
}
