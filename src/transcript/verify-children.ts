import { findUncovered } from "../scope/decide.ts";
import { type Entry, readEntries } from "../scope/entry.ts";
import { millionths, own, Sums } from "./verify-amounts.ts";
import type { Delegation, Enrolled, LimitsSaid, Return } from "./verify-shapes.ts";

/** Limits that are taken out of a parent's, and whether what was used of them is gone for good. */
const CARVED = { calls: true, bytes: true, concurrency: false, burst: false, callsPerSecond: false } as const;
type Carved = keyof typeof CARVED;
const NAMES = Object.keys(CARVED) as readonly Carved[];
/** Sums of shares that are no whole numbers. */
const ROUNDING = 1e-9;

/** What an instance has used by itself so far: no more than it surely has. */
export interface Used {
  readonly calls: number;
  readonly bytes: number;
  readonly units: Sums;
}

/** What a parent's own records say of its children: limits that are carved out, and what came back. */
export class ChildrenReader {
  readonly #out = new Map<string, Delegation>();
  /** Of those that are out, added up: it is asked for with every call. */
  readonly #carved: Record<Carved, number> = { calls: 0, bytes: 0, concurrency: 0, burst: 0, callsPerSecond: 0 };
  readonly #carvedUnits = new Sums();
  readonly #spent = { calls: 0, bytes: 0, units: new Sums() };

  /** What is left to the instance itself of one limit. */
  left(limits: LimitsSaid, name: Carved): number {
    const spent = name === "calls" || name === "bytes" ? this.#spent[name] : 0;
    return Math.max(0, limits[name] - spent - this.#carved[name]);
  }

  /** The same of a unit, in millionths. Null: not bounded. */
  leftOfUnit({ units }: LimitsSaid, unit: string): number | null {
    if (!Object.hasOwn(units, unit)) return null;
    return Math.max(0, millionths(units[unit]!) - this.#spent.units.of(unit) - this.#carvedUnits.of(unit));
  }

  /** Children that have not come back. */
  get out(): Iterable<Delegation> {
    return this.#out.values();
  }
  get spent(): Used {
    return this.#spent;
  }

  delegate(said: Delegation, parent: Enrolled, scope: readonly Entry[] | null, used: Used): string | null {
    const { child } = said;
    if (this.#out.has(child)) return `delegates to ${child}, which has not come back`;
    const beyond = this.#beyond(said, parent, used);
    this.#carve(said, 1);
    this.#out.set(child, said);
    if (said.deadline > parent.deadline) return "delegates beyond its own deadline";
    if (beyond !== null) return `delegates more of ${beyond} than it has left`;
    const entries = readEntries(said.scope, "scope");
    if (!entries.ok) return `delegates a scope that is none: ${entries.error.path} ${entries.error.message}`;
    const at = scope === null ? -1 : entries.value.findIndex((entry) => findUncovered(scope, entry) !== undefined);
    return at === -1 ? null : `delegates what its own scope does not cover: entry ${at}`;
  }

  #carve({ limits }: Delegation, sign: 1 | -1): void {
    for (const name of NAMES) this.#carved[name] += sign * limits[name];
    this.#carvedUnits.add(limits.units, sign);
  }

  #beyond({ limits }: Delegation, parent: Enrolled, used: Used): string | null {
    for (const name of NAMES) {
      const spent = name === "calls" || name === "bytes" ? used[name] : 0;
      if (limits[name] > this.left(parent.limits, name) - spent + ROUNDING) return name;
    }
    for (const unit of Object.keys(parent.limits.units)) {
      const left = this.leftOfUnit(parent.limits, unit)! - used.units.of(unit);
      if (millionths(own(limits.units, unit)) > Math.max(0, left)) return `units.${unit}`;
    }
    return null;
  }

  giveBack({ child, spent }: Return): string | null {
    const said = this.#out.get(child);
    if (said === undefined) return `takes back ${child}, to which nothing was delegated`;
    this.#carve(said, -1);
    this.#out.delete(child);
    this.#spent.calls += spent.calls;
    this.#spent.bytes += spent.bytes;
    this.#spent.units.add(spent.units);
    // Of units an answer may say more than its reserve.
    const over = (["calls", "bytes"] as const).find((name) => spent[name] > said.limits[name]);
    return over === undefined ? null : `says that ${child} has spent more ${over} than were delegated to it`;
  }
}
