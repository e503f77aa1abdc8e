/**
 * Several stores that look like one: cria's own, then Ollama's, then the model inside the executable.
 *
 * A name belongs to the first store that has it, even when its manifest cannot be read there: the user shall see that,
 * not another model. A blob may come from any store, because its digest says what it holds.
 *
 * @module
 */
import { nameKey } from "./name.ts"
import {
  installedNames,
  type ModelStore,
  newestFirst,
  type StoredModel,
  type StoreListing,
  type StoreProblem,
} from "./store.ts"

/** Joins stores; earlier ones win. */
export function layerStores(stores: readonly ModelStore[]): ModelStore {
  return {
    list: () => mergeListings(stores.map((store) => store.list())),
    find: (name) => firstDefined(stores, (store) => store.find(name)),
    blobPath: (digest) => firstDefined(stores, (store) => store.blobPath(digest)),
    readBlob: (digest, bytesMax) =>
      firstDefined(stores, (store) => store.readBlob(digest, bytesMax)),
  }
}

function mergeListings(listings: readonly StoreListing[]): StoreListing {
  const taken = new Set<string>()
  const models: StoredModel[] = []
  const problems: StoreProblem[] = []
  for (const listing of listings) {
    models.push(...listing.models.filter((model) => !taken.has(nameKey(model.name))))
    problems.push(...listing.problems)
    for (const name of installedNames(listing)) taken.add(nameKey(name))
  }
  return { models: newestFirst(models), problems }
}

function firstDefined<T>(
  stores: readonly ModelStore[],
  look: (store: ModelStore) => T | undefined,
): T | undefined {
  for (const store of stores) {
    const found = look(store)
    if (found !== undefined) return found
  }
  return undefined
}
