/**
 * A TCP proxy in front of a registry that cuts connections which have passed on so many bytes. For tests.
 *
 * @module
 */

import {
  type AddressInfo,
  connect,
  createServer,
  type Server as TcpServer,
  type Socket,
} from "node:net"

/** Whose bytes are counted. */
export type CutSide = "replies" | "requests"

/** Milliseconds between the last byte and the cut: a client that learns of both at once may drop the bytes. */
const SETTLE_MS = 50

/** See the module. */
export class CuttingProxy implements AsyncDisposable {
  /**
   * Bytes: the first connection that has let so many through is cut, then the next limit holds for all; no limit when
   * used up. How often it cuts so depends on what is sent and not on how many connections send it.
   */
  readonly limits: number[]
  /** Connections that were cut. */
  cuts = 0
  readonly #server: TcpServer
  readonly #side: CutSide
  readonly #sockets = new Set<Socket>()

  /** Use {@link CuttingProxy.start}. */
  constructor(server: TcpServer, limits: number[], side: CutSide) {
    this.#server = server
    this.limits = limits
    this.#side = side
  }

  /** @param host `address:port` of what it stands before. */
  static async start(
    host: string,
    limits: number[],
    side: CutSide = "replies",
  ): Promise<CuttingProxy> {
    const server = createServer()
    const proxy = new CuttingProxy(server, limits, side)
    const [address = "", port = ""] = host.split(":")
    server.on("connection", (client) => proxy.#join(client, connect(Number(port), address)))
    const listening = Promise.withResolvers<void>()
    server.listen(0, "127.0.0.1", () => listening.resolve())
    await listening.promise
    return proxy
  }

  get host(): string {
    // A server on TCP has an address with a port.
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    const closed = Promise.withResolvers<void>()
    this.#server.close(() => closed.resolve())
    await closed.promise
  }

  #join(client: Socket, upstream: Socket): void {
    let passed = 0
    let isCut = false
    const cut = () => {
      client.destroy()
      upstream.destroy()
    }
    for (const socket of [client, upstream]) {
      this.#sockets.add(socket)
      socket.on("error", cut)
      socket.on("close", () => {
        this.#sockets.delete(socket)
        cut()
      })
    }
    const [counted, other] = this.#side === "replies" ? [upstream, client] : [client, upstream]
    // What lies on the way when a connection is cut does not arrive.
    other.on("data", (bytes) => {
      if (!isCut) counted.write(bytes)
    })
    counted.on("data", (bytes: Buffer) => {
      if (isCut) return
      const left = (this.limits[0] ?? Infinity) - passed
      const last = bytes.subarray(0, Math.max(0, Math.min(left, bytes.length)))
      passed += bytes.length
      const isLast = bytes.length >= left
      // What was let through arrives: who reads gets a moment for it, and closes the connection when it ends.
      other.write(last, () => {
        if (isLast) setTimeout(() => other.end(), SETTLE_MS)
      })
      if (!isLast) return
      isCut = true
      this.limits.shift()
      this.cuts++
    })
  }
}
