/**
 * Where a model comes from: its name, and who answers for it.
 *
 * @module
 */

import type { ModelName } from "../store/name.ts"
import { type ClientOptions, RegistryClient } from "./client.ts"
import { Hub, type HubOptions, isHub } from "./hub.ts"

/** See the module. */
export interface Repository {
  readonly name: ModelName
  readonly client: RegistryClient
  /** Set when the registry is Hugging Face, or its mirror. */
  readonly hub: Hub | undefined
}

/** @throws {CriaError} `invalid-input` for `http://` names when that was not asked for. */
export function openRepository(
  name: ModelName,
  options: ClientOptions & Pick<HubOptions, "token" | "mirror">,
): Repository {
  const client = new RegistryClient(name, options)
  const hub = isHub(name.host, options.mirror)
    ? new Hub(name, client.base.origin, options)
    : undefined
  return { name, client, hub }
}
