import type { Limits } from "../config/define.ts";
import { add as addAmounts, addUnits } from "../metering/amounts.ts";
import { err, ok, type Result } from "../result.ts";
import { type Bucket, tokensAt } from "./limits.ts";

/** Pure: what a parent's limits leave for a child, and what is left of them for itself. A tree never spends more than its root. */

/** Every limit but what is no spending. A new number in `Limits` breaks the build until it has its row. */
type Shared = Exclude<
  { [K in keyof Limits]: Limits[K] extends number ? K : never }[keyof Limits],
  "refusalsRecordedPerMinute"
>;

interface Sharing {
  /** What was used of it is gone; else it comes back whole when its holder has ended. */
  readonly isSpent: boolean;
  readonly isWhole: boolean;
  /** What the parent itself must keep, so that it can go on at all. */
  readonly keeps: number;
}

const SHARED: Readonly<Record<Shared, Sharing>> = {
  calls: { isSpent: true, isWhole: true, keeps: 0 },
  bytes: { isSpent: true, isWhole: true, keeps: 0 },
  concurrency: { isSpent: false, isWhole: true, keeps: 1 },
  burst: { isSpent: false, isWhole: true, keeps: 1 },
  callsPerSecond: { isSpent: false, isWhole: false, keeps: 0.1 },
};
const NAMES = Object.keys(SHARED) as readonly Shared[];
const UNIT: Sharing = { isSpent: true, isWhole: false, keeps: 0 };

/** Amounts of limits; what is not named is none. */
export interface Amounts extends Partial<Readonly<Record<Shared, number>>> {
  readonly units: Readonly<Record<string, number>>;
}
/** What a child asks for; what is not named, it leaves to the parent. */
export type Asked = Partial<Amounts>;
/** What has been used of the limits that are spent. */
export type Spent = Amounts;

export const NOTHING: Amounts = { units: {} };

/** Units alone are whole millionths: bytes in millionths would be more than a double holds. */
export function add(a: Amounts, b: Amounts): Amounts {
  const amounts: Partial<Record<Shared, number>> = {};
  for (const name of NAMES)
    if (a[name] !== undefined || b[name] !== undefined) amounts[name] = (a[name] ?? 0) + (b[name] ?? 0);
  return { ...amounts, units: addUnits(a.units, b.units) };
}

/** Of units: exact. */
const less = (amount: number, taken = 0): number => addAmounts(amount, -taken);

const own = (table: Readonly<Record<string, number>>, name: string): number | undefined =>
  Object.hasOwn(table, name) ? table[name] : undefined;

/** Of a child's limits, what its parent has reserved: units alone that are bounded at the parent. */
export const reservedOf = (limits: Limits, parent: Limits): Amounts => {
  const units: Record<string, number> = {};
  for (const name of Object.keys(parent.units)) units[name] = own(limits.units, name) ?? 0;
  return { ...pick((name) => limits[name]), units };
};

const pick = (of: (name: Shared) => number): Record<Shared, number> =>
  Object.fromEntries(NAMES.map((name) => [name, of(name)])) as Record<Shared, number>;

/** What an instance may still use of its limits by itself: what children hold and have spent is not its own any more. */
export function withoutChildren(limits: Limits, taken: Amounts): Limits {
  const units = Object.fromEntries(
    Object.entries(limits.units).map(([name, limit]) => [name, Math.max(0, less(limit, own(taken.units, name)))]),
  );
  return { ...limits, ...pick((name) => Math.max(0, limits[name] - (taken[name] ?? 0))), units };
}

/**
 * A child's limits: what it asks of what is left, or an equal share of it among the places that are free and the parent; and
 * never more than its own agent may have. The error is the name of the first limit that has too little left.
 *
 * @param mine what is the parent's own now, see `withoutChildren`
 * @param used of that, what is used or in use
 * @param ceiling of the child's agent, and lower where it asks for less
 * @param places that are free, the child's among them
 */
export function carve(
  mine: Limits,
  used: Amounts,
  ceiling: Limits,
  asked: Asked,
  places: number,
): Result<Limits, string> {
  const take = (name: string, how: Sharing, have: number, most: number, wanted: number | undefined) => {
    const left = have - how.keeps;
    if (wanted !== undefined) return wanted <= left && wanted > 0 ? ok(Math.min(wanted, most)) : err(name);
    const share = rounded(have / (places + 1), how);
    // Of what can't be cut into so many, who comes first has one.
    const amount = how.isWhole ? Math.max(1, share) : share;
    return amount <= left && amount > 0 ? ok(Math.min(amount, most)) : err(name);
  };
  const amounts = {} as Record<Shared, number>;
  for (const name of NAMES) {
    const taken = take(name, SHARED[name], mine[name] - (used[name] ?? 0), ceiling[name], asked[name]);
    if (!taken.ok) return taken;
    amounts[name] = taken.value;
  }
  // What the parent's limits don't name is not bounded there, and so is not taken from it.
  const units: [string, number][] = Object.entries(ceiling.units).map(([name, limit]) => [
    name,
    Math.min(limit, own(asked.units ?? {}, name) ?? limit),
  ]);
  for (const [name, limit] of Object.entries(mine.units)) {
    const most = own(ceiling.units, name) ?? Number.POSITIVE_INFINITY;
    const wanted = own(asked.units ?? {}, name);
    const taken = take(`units.${name}`, UNIT, less(limit, own(used.units, name)), most, wanted);
    if (!taken.ok) return taken;
    units.push([name, taken.value]);
  }
  return ok({ ...ceiling, ...amounts, units: Object.fromEntries(units) });
}

/** Down, to what a person can read: sums of shares never exceed what was shared. */
const GRAIN = 1_000_000;
const rounded = (amount: number, { isWhole }: Sharing): number =>
  isWhole ? Math.floor(amount) : Math.floor(amount * GRAIN) / GRAIN;

/** Of an instance: what it used of what is spent. */
export const spentOf = (usage: {
  readonly calls: number;
  readonly bytes: number;
  readonly bytesAhead: number;
  readonly units: Readonly<Record<string, number>>;
}): Spent => ({
  calls: usage.calls,
  // What runs may have passed that much more.
  bytes: usage.bytes + usage.bytesAhead,
  units: usage.units,
});

/** What a reservation costs its parent if its holder never reports: all that is spent. */
export const spendable = (reserved: Amounts): Spent => {
  const spent: Partial<Record<Shared, number>> = {};
  for (const name of NAMES) if (SHARED[name].isSpent) spent[name] = reserved[name] ?? 0;
  return { ...spent, units: reserved.units };
};

/** A bucket as it is now, filled by the limits so far: done before they change, so that no time is counted at another rate. */
export const settleBucket = <T extends Bucket>(bucket: T, limits: Limits, nowMs: number): T => ({
  ...bucket,
  tokens: tokensAt(bucket, limits, nowMs),
  tokensAtMs: Math.max(bucket.tokensAtMs, nowMs),
});
