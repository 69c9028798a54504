import type { QuotaConfig } from "../config/quotas.ts";
import { fromMillionths } from "../metering/amounts.ts";
import type { LeaseAnswer, LeaseRequest, QuotaReading, ShareReport, Short } from "./contract.ts";
import {
  type Dimension,
  dimensionsOf,
  isLasting,
  limitsOf,
  map,
  minus,
  of,
  only,
  plus,
  type Some,
} from "./dimensions.ts";

/**
 * What a quota gives out. Pure. INVARIANT: what is granted, over all holders, never exceeds the limit, but for what a holder
 * says that it used beyond its grant, or where the limit was lowered since; and a holder uses no more than it is granted.
 */

export interface Totals {
  /** When it began, in milliseconds: so that they follow one another also where their length was changed. 0: for good. */
  readonly period: number;
  /** Over all holders; without the rate, which has its bucket. */
  readonly granted: Some;
  readonly used: Some;
  /** Of the rate's bucket; null: it was never asked for. */
  readonly tokens: number | null;
  readonly tokensAtMs: number;
}

export interface Holder {
  /** Of its newest answer: every answer has a new one. */
  readonly version: number;
  readonly period: number;
  readonly granted: Some;
  readonly used: Some;
}

export const EMPTY: Totals = { period: 0, granted: {}, used: {}, tokens: null, tokensAtMs: 0 };
const NOBODY: Holder = { version: 0, period: 0, granted: {}, used: {} };

/** How long a lease may be used: as short as what it holds back is dear to others. */
const BUDGET_LEASE_MS = 60_000;
const CONCURRENCY_LEASE_MS = 10_000;
const RATE_LEASE_MS = 3_000;
/** Ahead of need goes out at most this part of what is left, over all who hold a lease. */
const AHEAD_PART = 4;

export function leaseMs({ concurrency, callsPerSecond }: QuotaConfig): number {
  if (callsPerSecond !== undefined) return RATE_LEASE_MS;
  return concurrency === undefined ? BUDGET_LEASE_MS : CONCURRENCY_LEASE_MS;
}

export interface Leased {
  readonly totals: Totals;
  readonly holder: Holder;
  readonly answer: LeaseAnswer;
}

/** @param holders how many hold a lease at present */
export function lease(
  quota: QuotaConfig,
  state: { readonly totals: Totals; readonly holder: Holder | null; readonly holders: number },
  request: LeaseRequest,
  nowMs: number,
): Leased {
  let totals = refill(quota, inPeriod(quota, state.totals, nowMs), nowMs);
  let holder = ofPeriod(state.holder ?? NOBODY, totals.period);
  const isNewest = state.holder !== null && request.basis === holder.version;
  // Whoever is not known, and has used something, was known once: it counts.
  if (isNewest || state.holder === null) ({ totals, holder } = report(totals, holder, request));
  const limits = limitsOf(quota);
  // What goes on from an older answer is told the newest, and asks again.
  const short = isNewest || request.basis === null ? shortOf(quota, limits, totals, request.least, nowMs) : null;
  const isAnswered = short === null && (isNewest || request.basis === null);
  const given = isAnswered ? grantOf(limits, totals, request, state.holders) : {};
  const granted = plus(holder.granted, given);
  totals = {
    ...totals,
    granted: plus(
      totals.granted,
      only(given, (one) => one !== "rate"),
    ),
    tokens: totals.tokens === null ? null : totals.tokens - of(given, "rate"),
  };
  const version = holder.version + 1;
  const missing = dimensionsOf(request.need).find((one) => of(given, one) < of(request.need, one));
  const partly =
    isAnswered && missing !== undefined
      ? { dimension: missing, retryAfterSeconds: retryOf(quota, totals, missing, 1, nowMs) }
      : null;
  return {
    totals,
    holder: { ...holder, version, granted },
    answer: {
      version,
      period: totals.period,
      granted,
      // Of a clock that went back behind the period, the lease is over when it should be by that clock.
      validMs: Math.max(0, Math.min(leaseMs(quota), endOf(quota, totals) - nowMs)),
      short: short ?? partly,
    },
  };
}

/** A holder that has given up its lease, and said what it used of it. The rest is free again. */
export function giveBack(
  quota: QuotaConfig,
  state: { readonly totals: Totals; readonly holder: Holder },
  said: ShareReport,
  nowMs: number,
): { readonly totals: Totals; readonly holder: Holder } {
  const current = refill(quota, inPeriod(quota, state.totals, nowMs), nowMs);
  const { totals, holder } = report(current, ofPeriod(state.holder, current.period), said);
  const unused = minus(holder.granted, holder.used);
  return {
    totals: {
      ...totals,
      granted: minus(
        totals.granted,
        only(unused, (one) => one !== "rate"),
      ),
      tokens: totals.tokens === null ? null : Math.min(of(limitsOf(quota), "rate"), totals.tokens + of(unused, "rate")),
    },
    holder: { ...holder, version: holder.version + 1, granted: holder.used },
  };
}

const startOf = (periodSeconds: number, atMs: number): number => {
  const lengthMs = periodSeconds * 1_000;
  return Math.floor(atMs / lengthMs) * lengthMs;
};

const endOf = ({ periodSeconds }: QuotaConfig, { period }: Totals): number =>
  periodSeconds === undefined ? Number.POSITIVE_INFINITY : startOf(periodSeconds, period) + periodSeconds * 1_000;

/** Never goes back: a clock that does finds the budget of the later period. */
function inPeriod({ periodSeconds }: QuotaConfig, totals: Totals, nowMs: number): Totals {
  if (periodSeconds === undefined) return totals;
  const period = startOf(periodSeconds, nowMs);
  if (period <= totals.period) return totals;
  return { ...totals, period, granted: only(totals.granted, isLasting), used: only(totals.used, isLasting) };
}

const ofPeriod = (holder: Holder, period: number): Holder =>
  holder.period === period
    ? holder
    : { ...holder, period, granted: only(holder.granted, isLasting), used: only(holder.used, isLasting) };

/** A clock that goes back refills nothing. */
function refill(quota: QuotaConfig, totals: Totals, nowMs: number): Totals {
  if (quota.callsPerSecond === undefined) return { ...totals, tokens: null };
  const burst = of(limitsOf(quota), "rate");
  const elapsedSeconds = Math.max(0, nowMs - totals.tokensAtMs) / 1_000;
  const tokens = Math.min(burst, (totals.tokens ?? burst) + elapsedSeconds * quota.callsPerSecond);
  return { ...totals, tokens, tokensAtMs: Math.max(totals.tokensAtMs, nowMs) };
}

/** What it used beyond its grant, it has all the same. */
function report(
  totals: Totals,
  holder: Holder,
  said: ShareReport,
): { readonly totals: Totals; readonly holder: Holder } {
  const used = said.period === holder.period ? said.used : only(said.used, isLasting);
  // A dimension that it says nothing of, it has not used.
  const all = plus(
    map(holder.used, () => 0),
    used,
  );
  const granted = plus(
    holder.granted,
    map(all, (one, amount) => Math.max(0, amount - of(holder.granted, one))),
  );
  const withoutRate = (amounts: Some): Some => only(amounts, (one) => one !== "rate");
  return {
    totals: {
      ...totals,
      used: plus(totals.used, withoutRate(minus(all, holder.used))),
      granted: plus(totals.granted, withoutRate(minus(granted, holder.granted))),
    },
    holder: { ...holder, used: all, granted },
  };
}

/** The first dimension of which there is not enough for anything that waits. */
function shortOf(quota: QuotaConfig, limits: Some, totals: Totals, least: Some, nowMs: number): Short | null {
  for (const dimension of dimensionsOf(least)) {
    if (of(least, dimension) <= leftOf(limits, totals, dimension)) continue;
    return { dimension, retryAfterSeconds: retryOf(quota, totals, dimension, of(least, dimension), nowMs) };
  }
  return null;
}

/** What this deployment does not bound is not short. */
const leftOf = (limits: Some, totals: Totals, dimension: Dimension): number => {
  if (!Object.hasOwn(limits, dimension)) return Number.MAX_SAFE_INTEGER;
  return dimension === "rate" ? Math.floor(totals.tokens ?? 0) : of(limits, dimension) - of(totals.granted, dimension);
};

function grantOf(limits: Some, totals: Totals, { least, need, ahead }: LeaseRequest, holders: number): Some {
  const asked = plus(
    need,
    map(ahead, () => 0),
  );
  return map(asked, (one) => {
    const left = Math.max(0, leftOf(limits, totals, one));
    const step = Math.max(1, of(least, one));
    const needed = of(need, one) <= left ? of(need, one) : Math.floor(left / step) * step;
    return needed + Math.min(of(ahead, one), Math.floor((left - needed) / (AHEAD_PART * Math.max(1, holders))));
  });
}

/** The same for everybody: it tells nothing of who else there is. */
function retryOf(
  quota: QuotaConfig,
  totals: Totals,
  dimension: Dimension,
  wanted: number,
  nowMs: number,
): number | null {
  if (dimension === "concurrency") return 1;
  if (dimension === "rate") return Math.max(1, Math.ceil((wanted - (totals.tokens ?? 0)) / quota.callsPerSecond!));
  if (quota.periodSeconds === undefined) return null;
  return Math.max(1, Math.ceil((endOf(quota, totals) - nowMs) / 1_000));
}

/** What an admin sees: limits, and of each what is spent and what is given out besides. */
export function reading(
  quota: QuotaConfig,
  before: Totals,
  nowMs: number,
): Pick<QuotaReading, "period" | "dimensions"> {
  const totals = refill(quota, inPeriod(quota, before, nowMs), nowMs);
  const limits = limitsOf(quota);
  return {
    period: quota.periodSeconds === undefined ? null : { fromMs: totals.period, untilMs: endOf(quota, totals) },
    dimensions: dimensionsOf(limits).map((dimension) => {
      const shown = (amount: number): number => (dimension.startsWith("units.") ? fromMillionths(amount) : amount);
      const limit = of(limits, dimension);
      const spent = dimension === "rate" ? limit - Math.floor(totals.tokens ?? 0) : of(totals.used, dimension);
      const leased = dimension === "rate" ? 0 : of(totals.granted, dimension) - spent;
      return { dimension, limit: shown(limit), spent: shown(spent), leased: shown(Math.max(0, leased)) };
    }),
  };
}
