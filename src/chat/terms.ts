/**
 * On what terms a request is served: how soon, for whom, and with whom it may share.
 *
 * @module
 */

/** Terms of a request. What is left out has the engine's default. */
export interface RequestTerms {
  /** Default: normal. */
  readonly priority?: "interactive" | "normal" | "batch"
  /** Clients that compete get equal shares; those of one group, `group/name`, have one together. */
  readonly client?: string
  /** Requests of one scope share the prompts that they have in common; null shares with nobody, ever. */
  readonly cacheScope?: string | null
}
