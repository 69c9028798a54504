import type { Limits } from "../config/define.ts";
import type { Denial } from "../denial.ts";
import { add, addUnits, own, toMillionths, type Units } from "../metering/amounts.ts";

/** What an instance has used. Part of every record's state, so that it is as durable as the record. */
export interface Usage extends Bucket {
  readonly calls: number;
  readonly bytes: number;
  /** What running calls may have passed beyond that, and nobody has counted yet. Both together never exceed the limit. */
  readonly bytesAhead: number;
  /** Of `bytes`: what calls may have passed ahead of the count, and nobody has said so. None where it is missing. */
  readonly bytesUnheard?: number;
  /** Metered units that were spent, by name. */
  readonly units: Readonly<Record<string, number>>;
}

export const unused = (limits: Limits, nowMs: number): Usage => ({
  calls: 0,
  bytes: 0,
  bytesAhead: 0,
  units: {},
  tokens: limits.burst,
  tokensAtMs: nowMs,
});

/** A bucket of calls: what is in it, and since when. */
export interface Bucket {
  readonly tokens: number;
  readonly tokensAtMs: number;
}

/** What is in it now. A clock that goes back refills nothing. */
export const tokensAt = ({ tokens, tokensAtMs }: Bucket, { burst, callsPerSecond }: Limits, nowMs: number): number =>
  Math.min(burst, tokens + (Math.max(0, nowMs - tokensAtMs) / 1000) * callsPerSecond);

/** Pure. Takes one call's worth, or says what is missing. Every comparison is one that a number which is none fails. */
export function reserve(
  usage: Usage,
  limits: Limits,
  want: {
    /** Calls that hold a place. */
    readonly running: number;
    /** Calls beside it that wait for shared limits: each of them may take a place before this one does. */
    readonly waiting: number;
    readonly bytes: number;
    /** What its Worker would best pass before it is counted. */
    readonly leadBytes: number;
    readonly units: Units;
    readonly nowMs: number;
  },
):
  | { readonly ok: true; readonly usage: Usage; readonly aheadBytes: number }
  | { readonly ok: false; readonly denial: Denial } {
  const tokens = tokensAt(usage, limits, want.nowMs);
  if (!(usage.calls + 1 <= limits.calls)) return { ok: false, denial: { kind: "exhausted", budget: "calls" } };
  if (!(usage.bytes + want.bytes < limits.bytes)) return { ok: false, denial: { kind: "exhausted", budget: "bytes" } };
  const spent = addUnits(usage.units, want.units);
  for (const unit of Object.keys(want.units))
    if (Object.hasOwn(limits.units, unit) && !(toMillionths(own(spent, unit)) <= toMillionths(limits.units[unit]!)))
      return { ok: false, denial: { kind: "exhausted", budget: `units.${unit}` } };
  // The last bytes are held by calls that run: when those are over, some may be left.
  const freeBytes = limits.bytes - usage.bytes - usage.bytesAhead - want.bytes;
  if (!(want.running + want.waiting + 1 <= limits.concurrency && freeBytes > 0))
    return { ok: false, denial: { kind: "limited", limit: "concurrency", retryAfterSeconds: 1 } };
  if (!(tokens >= 1)) {
    const retryAfterSeconds = Math.max(1, Math.ceil((1 - tokens) / limits.callsPerSecond) || 1);
    return { ok: false, denial: { kind: "limited", limit: "rate", retryAfterSeconds } };
  }
  const aheadBytes = aheadOf(freeBytes, limits, want);
  return {
    ok: true,
    aheadBytes,
    usage: {
      ...usage,
      calls: usage.calls + 1,
      bytes: usage.bytes + want.bytes,
      bytesAhead: usage.bytesAhead + aheadBytes,
      units: spent,
      tokens: tokens - 1,
      tokensAtMs: Math.max(usage.tokensAtMs, want.nowMs),
    },
  };
}

/** Near the end of its budget, no more than a share for each call that may yet come beside it. */
const aheadOf = (
  freeBytes: number,
  { concurrency }: Limits,
  { running, leadBytes }: { readonly running: number; readonly leadBytes: number },
): number => Math.min(leadBytes, Math.floor(Math.max(0, freeBytes) / Math.max(1, concurrency - running)));

/**
 * Pure. Of calls that ran when their object died: whether each still holds ahead of the count what it held as on record. It does where
 * that and all that was counted since are within the limit, so that nothing of it was used up. Where they are not, nobody knows whose was.
 * @param uncountedBytes what is durable of them, and was counted in memory alone
 */
export const isAheadKept = (usage: Usage, limits: Limits, uncountedBytes: number): boolean =>
  usage.bytes + usage.bytesAhead + uncountedBytes <= limits.bytes;

/**
 * Pure. So many bytes more of a running call that holds `aheadBytes` of the budget: what it holds afterwards, or null where
 * the budget does not cover them. What it does not cover has not passed, and is not counted.
 */
export function countBytes(
  usage: Usage,
  limits: Limits,
  aheadBytes: number,
  bytes: number,
): { readonly usage: Usage; readonly aheadBytes: number | null } {
  const othersAhead = usage.bytesAhead - aheadBytes;
  const left = Math.max(0, limits.bytes - usage.bytes - othersAhead);
  const counted = Math.min(bytes, left);
  const ahead = Math.min(aheadBytes, left - counted);
  return {
    usage: { ...usage, bytes: usage.bytes + counted, bytesAhead: othersAhead + ahead },
    aheadBytes: counted >= bytes ? ahead : null,
  };
}

/** Pure. What was held ahead by calls of which nobody will say what passed: it stays charged, and is told apart. */
export function chargeAhead(usage: Usage, aheadBytes: number): Usage {
  if (aheadBytes === 0) return usage;
  return {
    ...usage,
    bytes: usage.bytes + aheadBytes,
    bytesAhead: usage.bytesAhead - aheadBytes,
    bytesUnheard: (usage.bytesUnheard ?? 0) + aheadBytes,
  };
}

/** The instance's own limits, and what is left of each: nothing that others share. */
export interface LimitState {
  readonly limits: Limits;
  readonly calls: number;
  readonly bytes: number;
  readonly units: Units;
  readonly concurrency: number;
  /** Whole tokens of the rate's bucket. */
  readonly tokens: number;
  readonly deadlineInMs: number;
}

/** What is left. Pure. */
export function limitStateOf(
  usage: Usage,
  limits: Limits,
  { running, deadlineMs, nowMs }: { readonly running: number; readonly deadlineMs: number; readonly nowMs: number },
): LimitState {
  const left = (limit: number, used: number): number => Math.max(0, limit - used);
  return {
    limits,
    calls: left(limits.calls, usage.calls),
    bytes: left(limits.bytes, usage.bytes),
    units: Object.fromEntries(
      Object.entries(limits.units).map(([unit, limit]) => [unit, Math.max(0, add(limit, -own(usage.units, unit)))]),
    ),
    concurrency: left(limits.concurrency, running),
    tokens: Math.floor(tokensAt(usage, limits, nowMs)),
    deadlineInMs: left(deadlineMs, nowMs),
  };
}
