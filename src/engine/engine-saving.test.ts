import { describe, expect, test } from "bun:test"
import { setImmediate as nextTurn } from "node:timers/promises"

import type { TierEntry } from "./prefix-tier.ts"
import { KeptTier, Machine, run } from "./test-machine.ts"

/** A tier that writes one state at a time, and meanwhile takes no other. */
class BusyTier extends KeptTier {
  #writing: Promise<void> | undefined

  override accepts(bytes: number): boolean {
    return this.#writing === undefined && super.accepts(bytes)
  }

  override put(scope: string, entry: Pick<TierEntry, "tokens" | "from">, state: Uint8Array): void {
    super.put(scope, entry, state)
    this.#writing = this.#write()
  }

  async flush(): Promise<void> {
    await this.#writing
  }

  async #write(): Promise<void> {
    for (let turn = 0; turn < 50; turn++) await nextTurn()
    this.#writing = undefined
  }
}

describe("Engine, with a tier that outlives it and is slow", () => {
  test("saves all that is cached before it goes away", async () => {
    const tier = new BusyTier(1e6)
    const prompts = [0, 1, 2, 3].map((i) => run(i * 200, 150))
    {
      await using machine = new Machine({ tier })
      await Promise.all(prompts.map((prompt) => machine.ask(prompt)))
    }
    await using again = new Machine({ tier })
    const answers = await Promise.all(prompts.map((prompt) => again.ask(prompt)))
    expect(answers.map(({ usage }) => usage.cachedTokens)).toEqual([149, 149, 149, 149])
  })

  test("saves all that is cached though it is still writing what had to leave when it comes to rest", async () => {
    const tier = new BusyTier(1e6)
    const prompts = [0, 1, 2].map((i) => run(i * 200, 150))
    {
      await using machine = new Machine({ tier, cells: 400 })
      for (const prompt of prompts) await machine.ask(prompt)
      await nextTurn()
    }
    await using again = new Machine({ tier })
    const answers = await Promise.all(prompts.map((prompt) => again.ask(prompt)))
    expect(answers.map(({ usage }) => usage.cachedTokens)).toEqual([149, 149, 149])
  })

  test("saves while it rests, as fast as the tier writes", async () => {
    const tier = new BusyTier(1e6)
    await using machine = new Machine({ tier })
    await Promise.all([0, 1, 2].map((i) => machine.ask(run(i * 200, 150))))
    const saved = () => machine.engine.status.counters.savedTokens
    while (saved() < 3 * 153) await nextTurn()
    expect([...tier.entries("")].map(({ tokens }) => tokens.length)).toEqual([153, 153, 153])
  })
})
