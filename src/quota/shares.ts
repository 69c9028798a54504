import type { QuotaConfig, Sharer } from "../config/quotas.ts";
import type { Enrolment } from "../instance/contract.ts";
import { own, toMillionths, type Units } from "../metering/amounts.ts";
import type { Ticket, Wanted } from "./contract.ts";
import { type Dimension, dimensionsOf, isLasting, limitsOf, of, only, plus, type Some } from "./dimensions.ts";

/** What an instance has of shared limits, and what a call needs of them. Pure. */

/** Of one quota, as durable as the records of what it counts. */
export interface Share {
  /** The quota's, by its own clock. */
  readonly period: number;
  /** Sums since the instance began; of calls, bytes and units since the period did. Of the concurrency: calls that run now. */
  readonly used: Some;
  /** Calls that died with an earlier life of the object, or that its end gave up: their Workers cut by themselves until then. */
  readonly lost?: { readonly calls: number; readonly untilMs: number };
}

/** By the name of the object: `<quota>.<key>`. */
export type Shares = Readonly<Record<string, Share>>;

const NEW: Share = { period: 0, used: {} };
export const shareOf = (shares: Shares, name: string): Share => (Object.hasOwn(shares, name) ? shares[name]! : NEW);

/** Of each shared limit that concerns the call, how much it takes. Bytes are those that may pass before they are counted. */
export function wantedOf(
  quotas: Readonly<Record<string, QuotaConfig>>,
  who: Pick<Enrolment, "human" | "agent" | "task">,
  call: { readonly upstream: string; readonly units: Units; readonly bytes: number },
): readonly Wanted[] {
  return Object.entries(quotas).flatMap(([name, quota]) => {
    if (quota.agents?.includes(who.agent) === false || quota.upstreams?.includes(call.upstream) === false) return [];
    const key = quota.per.map((one) => keyOf(one, who, call.upstream)).join(".");
    const need: { [dimension in Dimension]?: number } = {};
    for (const dimension of dimensionsOf(limitsOf(quota))) {
      const amount = amountOf(dimension, call);
      if (amount > 0) need[dimension] = amount;
    }
    return Object.keys(need).length === 0 ? [] : [{ name: `${name}.${key}`, need }];
  });
}

function keyOf(sharer: Sharer, who: Pick<Enrolment, "human" | "agent" | "task">, upstream: string): string {
  switch (sharer) {
    case "task":
      return who.task.id;
    case "human":
      return who.human;
    case "agent":
      return who.agent;
    case "upstream":
      return upstream;
    case "everything":
      return "all";
  }
}

function amountOf(dimension: Dimension, { units, bytes }: { readonly units: Units; readonly bytes: number }): number {
  if (dimension === "bytes") return bytes;
  return dimension.startsWith("units.") ? toMillionths(own(units, dimension.slice("units.".length))) : 1;
}

/** With what may still run of an earlier life. */
export const usedAt = ({ used, lost }: Share, nowMs: number): Some =>
  lost === undefined || nowMs >= lost.untilMs ? used : plus(used, { concurrency: lost.calls });

export const covers = (granted: Some, used: Some, need: Some): boolean =>
  dimensionsOf(need).every((one) => of(used, one) + of(need, one) <= of(granted, one));

/** Only ever to a later one, whose budgets are new. */
export const enterPeriod = (share: Share, period: number): Share =>
  period <= share.period ? share : { ...share, period, used: only(share.used, isLasting) };

/** The calls that ran when the object was reset, or ended: whatever they reserved stays charged, and their places are not free yet. */
export function withoutWorkers(shares: Shares, nowMs: number, untilMs: number): Shares {
  return Object.fromEntries(
    Object.entries(shares).map(([name, share]) => {
      const running = of(share.used, "concurrency");
      if (running === 0) return [name, share];
      // Those of a life before may still run as well; later than needed is safe.
      const calls = running + (share.lost !== undefined && nowMs < share.lost.untilMs ? share.lost.calls : 0);
      return [name, { ...share, used: { ...share.used, concurrency: 0 }, lost: { calls, untilMs } }];
    }),
  );
}

/** One of those calls runs again, under a lease of this life: it holds the same place. */
export function takenUp(share: Share, nowMs: number): Share {
  const { used, lost } = share;
  const running = { ...share, used: { ...used, concurrency: of(used, "concurrency") + 1 } };
  if (lost === undefined || nowMs >= lost.untilMs || lost.calls === 0) return running;
  return { ...running, lost: { ...lost, calls: lost.calls - 1 } };
}

export const countingBytes = (tickets: readonly Ticket[]): readonly Ticket[] =>
  tickets.filter(({ need }) => Object.hasOwn(need, "bytes"));

/**
 * When it is over: its place is free, its bytes are those that were counted, its units those that it cost. What a period
 * that is over was charged stays as it was; what a call cost beyond its reserve is charged to the one that is.
 * @param cost by unit, where it is known; null: nobody knows what it came to, and all that it reserved stays charged
 */
export function settled(share: Share, { need, period }: Ticket, cost: Units | null): Share {
  const isOver = period !== share.period;
  const used: { [dimension in Dimension]?: number } = { ...share.used };
  for (const dimension of dimensionsOf(need)) {
    const before = of(used, dimension);
    if (dimension === "concurrency") used.concurrency = Math.max(0, before - 1);
    else if (cost === null) continue;
    else if (dimension === "bytes") used.bytes = isOver ? before : before - of(need, "bytes");
    else if (dimension.startsWith("units.")) {
      const unit = dimension.slice("units.".length);
      if (!Object.hasOwn(cost, unit)) continue;
      const more = toMillionths(cost[unit]!) - of(need, dimension);
      used[dimension] = before + (isOver ? Math.max(0, more) : more);
    }
  }
  return { ...share, used };
}
