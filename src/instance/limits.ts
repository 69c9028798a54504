import type { Limits } from "../config/define.ts";
import type { Denial } from "../denial.ts";

/** What an instance has used. Part of every record's state, so that it is as durable as the record. */
export interface Usage {
  readonly calls: number;
  readonly bytes: number;
  /** Metered units that were spent, by name. */
  readonly units: Readonly<Record<string, number>>;
  readonly tokens: number;
  readonly tokensAtMs: number;
}

export const unused = (limits: Limits, nowMs: number): Usage => ({
  calls: 0,
  bytes: 0,
  units: {},
  tokens: limits.burst,
  tokensAtMs: nowMs,
});

/** Pure. Takes one call's worth, or says what is missing. A clock that goes back refills nothing. */
export function reserve(
  usage: Usage,
  limits: Limits,
  want: { readonly running: number; readonly bytes: number; readonly nowMs: number },
): { readonly ok: true; readonly usage: Usage } | { readonly ok: false; readonly denial: Denial } {
  const elapsedSeconds = Math.max(0, want.nowMs - usage.tokensAtMs) / 1000;
  const tokens = Math.min(limits.burst, usage.tokens + elapsedSeconds * limits.callsPerSecond);
  if (usage.calls + 1 > limits.calls) return { ok: false, denial: { kind: "exhausted", budget: "calls" } };
  if (usage.bytes + want.bytes >= limits.bytes) return { ok: false, denial: { kind: "exhausted", budget: "bytes" } };
  if (want.running + 1 > limits.concurrency)
    return { ok: false, denial: { kind: "limited", limit: "concurrency", retryAfterSeconds: 1 } };
  if (tokens < 1) {
    const retryAfterSeconds = Math.max(1, Math.ceil((1 - tokens) / limits.callsPerSecond));
    return { ok: false, denial: { kind: "limited", limit: "rate", retryAfterSeconds } };
  }
  return {
    ok: true,
    usage: {
      ...usage,
      calls: usage.calls + 1,
      bytes: usage.bytes + want.bytes,
      tokens: tokens - 1,
      tokensAtMs: Math.max(usage.tokensAtMs, want.nowMs),
    },
  };
}
