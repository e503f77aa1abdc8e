/**
 * Async iterables as HTTP bodies: NDJSON and server-sent events.
 *
 * The first item is awaited before the status goes out, so that whatever goes wrong before it is a real status.
 *
 * @module
 */

/** How items are framed on the wire. */
export interface Framing<T> {
  readonly contentType: string
  readonly frame: (item: T) => string
  /** The last frame of a stream that broke. */
  readonly error: (error: unknown) => string
  /** Comes after the last item. */
  readonly end: string
}

/**
 * Streams items. When the client goes away, the iteration is returned, which frees what it holds.
 *
 * @throws What the iteration throws before its first item.
 */
export async function streamed<T>(
  items: AsyncIterator<T, undefined>,
  framing: Framing<T>,
): Promise<Response> {
  const first = await items.next()
  const encoder = new TextEncoder()
  let next: Promise<IteratorResult<T, undefined>> = Promise.resolve(first)
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      try {
        const { done, value } = await next
        if (done === true) {
          if (framing.end !== "") controller.enqueue(encoder.encode(framing.end))
          controller.close()
          return
        }
        controller.enqueue(encoder.encode(framing.frame(value)))
        next = items.next()
        // Awaited at the next pull; until then a failure must not count as unhandled.
        next.catch(() => {})
      } catch (error) {
        controller.enqueue(encoder.encode(framing.error(error)))
        controller.close()
        // It may not have been the source that failed.
        await items.return?.()
      }
    },
    async cancel() {
      await items.return?.()
    },
  })
  return new Response(body, {
    headers: { "Content-Type": framing.contentType, "Cache-Control": "no-cache" },
  })
}
