/**
 * Fair measuring on a noisy machine: contenders take turns, medians count, ratios are taken round by round.
 *
 * @module
 */

/** The middle value; the mean of the two middle ones when their number is even. */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  const [low = Number.NaN, high = Number.NaN] = [
    sorted[Math.ceil(middle) - 1],
    sorted[Math.floor(middle)],
  ]
  return (low + high) / 2
}

/** The value that a share of all does not exceed: 0.99 for p99. */
export function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)] ?? Number.NaN
}

/** Middle of the ratios of two series, round by round: drift of the machine cancels out. */
function medianRatio(ours: readonly number[], theirs: readonly number[]): number {
  return median(ours.map((value, round) => value / (theirs[round] ?? Number.NaN)))
}

/** What is measured. */
export interface Figure {
  readonly name: string
  readonly unit: string
  readonly better: "more" | "less"
  /** Where cria has to be whatever others do: most or least of the unit. */
  readonly limit?: number | undefined
}

/** One line of a result table. */
export interface Comparison {
  readonly what: Figure
  /** Whom we stand beside. */
  readonly rival: string
  /** One value per round. */
  readonly ours: readonly number[]
  readonly theirs: readonly number[]
  /** Above 1 is better for us, whatever the unit. */
  readonly ratio: number
  /** The least ratio that was wanted; undefined where the figure is for information. */
  readonly goal: number | undefined
}

/** Compares two series. */
export function compare(
  what: Figure,
  rival: { name: string; goal?: number | undefined },
  ours: readonly number[],
  theirs: readonly number[],
): Comparison {
  const ratio = what.better === "more" ? medianRatio(ours, theirs) : medianRatio(theirs, ours)
  return { what, rival: rival.name, ours, theirs, ratio, goal: rival.goal }
}

/** A table for people. */
export function formatComparisons(rows: readonly Comparison[]): string {
  const lines = rows.map(({ what, rival, ours, theirs, ratio, goal }) => {
    const cells = [
      what.name,
      `${format(median(ours))} ${what.unit}`,
      rival,
      theirs.length === 0 ? "–" : `${format(median(theirs))} ${what.unit}`,
      Number.isFinite(ratio) ? ratio.toFixed(2) : "–",
      ...verdict({ what, ours, ratio, goal }),
    ]
    return `| ${cells.join(" | ")} |`
  })
  return [
    "| case | cria | beside | theirs | ratio | goal | reached |",
    "|---|---|---|---|---|---|---|",
    ...lines,
  ].join("\n")
}

/** The goal, and whether it was reached; empty where a figure is for information. */
function verdict({
  what: { better, limit, unit },
  ours,
  ratio,
  goal,
}: Pick<Comparison, "what" | "ours" | "ratio" | "goal">): [string, string] {
  if (goal !== undefined) return [`ratio ≥ ${goal}`, ratio >= goal ? "yes" : "no"]
  if (limit === undefined) return ["", ""]
  const isReached = better === "more" ? median(ours) >= limit : median(ours) <= limit
  return [`${better === "more" ? "≥" : "≤"} ${limit} ${unit}`.trim(), isReached ? "yes" : "no"]
}

function format(value: number): string {
  return value >= 1000 ? value.toFixed(0) : value.toFixed(1)
}
