import type { LimitState } from "../instance/limits.ts";
import type { HeaderList } from "./headers.ts";

/** The most that an integer of a structured field holds (RFC 9651 §3.3.1). */
const INTEGER_MAX = 999_999_999_999_999;

const integer = (amount: number): number => Math.min(INTEGER_MAX, Math.max(0, Math.floor(amount)));

/**
 * `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers-11): the instance's own limits, and what is left
 * of them. Budgets are of the whole task, and have no window. INVARIANT: nothing here is of a limit that others share.
 */
export function limitHeaders(state: LimitState): HeaderList {
  const { limits } = state;
  const { callsPerSecond, burst } = limits;
  const items = [
    { name: "calls", quota: limits.calls, left: state.calls },
    { name: "bytes", quota: limits.bytes, left: state.bytes, unit: "content-bytes" },
    ...Object.entries(limits.units).map(([unit, quota]) => ({
      name: `units-${unit}`,
      quota,
      left: state.units[unit] ?? 0,
      unit,
    })),
    { name: "concurrency", quota: limits.concurrency, left: state.concurrency, unit: "concurrent-requests" },
    {
      name: "rate",
      quota: burst,
      left: state.tokens,
      windowSeconds: Math.ceil(burst / callsPerSecond),
      nextSeconds: Math.ceil(1 / callsPerSecond),
    },
  ];
  const policy = items.map(({ name, quota, unit, windowSeconds }) => {
    const of = unit === undefined ? "" : `;qu="${unit}"`;
    const window = windowSeconds === undefined ? "" : `;w=${integer(windowSeconds)}`;
    return `"${name}";q=${integer(quota)}${of}${window}`;
  });
  const left = items.map(({ name, left: amount, nextSeconds }) => {
    const next = nextSeconds === undefined ? "" : `;t=${integer(nextSeconds)}`;
    return `"${name}";r=${integer(amount)}${next}`;
  });
  return [
    ["ratelimit-policy", policy.join(", ")],
    ["ratelimit", left.join(", ")],
  ];
}

/** An answer of the gate's own, with them. */
export function withLimits(response: Response, state: LimitState | undefined): Response {
  if (state !== undefined) for (const [name, value] of limitHeaders(state)) response.headers.set(name, value);
  return response;
}
