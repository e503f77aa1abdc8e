/**
 * Fair measuring on a noisy machine: contenders take turns, medians count, ratios are taken round by round.
 *
 * @module
 */

/** A figure of one contender: one value per round. */
export interface Series {
  readonly name: string
  readonly values: number[]
}

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

/** Middle of the ratios of two series, round by round: drift of the machine cancels out. */
export function medianRatio(ours: readonly number[], theirs: readonly number[]): number {
  return median(ours.map((value, round) => value / (theirs[round] ?? Number.NaN)))
}

/** One line of a result table. */
export interface Comparison {
  readonly what: string
  readonly unit: string
  readonly ours: number
  readonly theirs: number
  /** Above 1 is better for us, whatever the unit. */
  readonly ratio: number
  readonly goal: number
}

/**
 * Compares two series.
 *
 * @param better Whether more or less of the unit is better.
 */
export function compare(
  what: { name: string; unit: string; goal: number; better: "more" | "less" },
  ours: readonly number[],
  theirs: readonly number[],
): Comparison {
  const ratio = what.better === "more" ? medianRatio(ours, theirs) : medianRatio(theirs, ours)
  return {
    what: what.name,
    unit: what.unit,
    ours: median(ours),
    theirs: median(theirs),
    ratio,
    goal: what.goal,
  }
}

/** A table for people. */
export function formatComparisons(rows: readonly Comparison[]): string {
  const lines = rows.map(
    ({ what, unit, ours, theirs, ratio, goal }) =>
      `| ${what} | ${ours.toFixed(1)} ${unit} | ${theirs.toFixed(1)} ${unit} | ${ratio.toFixed(2)} | ≥ ${goal.toFixed(2)} | ${ratio >= goal ? "yes" : "no"} |`,
  )
  return [
    "| case | cria | llama.cpp | ratio | goal | reached |",
    "|---|---|---|---|---|---|",
    ...lines,
  ].join("\n")
}
