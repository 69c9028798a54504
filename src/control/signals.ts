import type { Signal } from "../config/rules.ts";
import type { Denial } from "../denial.ts";
import type { Outcome } from "../instance/contract.ts";

/** What happened at an instance, as far as rules speak of it. Bytes are those that its budget counts. */
export type InstanceEvent =
  | { readonly kind: "refused"; readonly denial: Denial }
  | { readonly kind: "admitted"; readonly bytes: number }
  /** A run of a body, in either direction. */
  | { readonly kind: "passed"; readonly bytes: number }
  | {
      readonly kind: "answered";
      readonly bytes: number;
      readonly outcome: Outcome;
      /** Of the upstream; null where it said nothing. */
      readonly status: number | null;
    }
  /** Its key is used from two places: see second-copy.ts. */
  | { readonly kind: "second-copy" };

export type WindowSignal = Exclude<Signal, "refusals-in-a-row">;

const isProbe = (denial: Denial): boolean =>
  denial.kind === "absent" && (denial.layer === "route" || denial.layer === "describe" || denial.layer === "grant");

const isRefused = (event: InstanceEvent, fits: (denial: Denial) => boolean): number =>
  event.kind === "refused" && fits(event.denial) ? 1 : 0;

const AMOUNTS: Readonly<Record<WindowSignal, (event: InstanceEvent) => number>> = {
  refusals: (event) => isRefused(event, () => true),
  "unknown-paths": (event) => isRefused(event, isProbe),
  "rate-limit-hits": (event) => isRefused(event, ({ kind }) => kind === "limited"),
  "replayed-proofs": (event) =>
    isRefused(event, (denial) => denial.kind === "unauthenticated" && denial.reason === "replay"),
  "calls-burn": ({ kind }) => (kind === "admitted" ? 1 : 0),
  "bytes-burn": (event) => ("bytes" in event ? event.bytes : 0),
  "upstream-errors": (event) =>
    event.kind === "answered" &&
    (event.outcome === "upstream-failed" || event.outcome === "timeout" || (event.status ?? 0) >= 500)
      ? 1
      : 0,
  "second-copy": ({ kind }) => (kind === "second-copy" ? 1 : 0),
};

/** How much an event adds to a signal: one or nothing, of a burn the calls or bytes that it took. Pure. */
export const amountOf = (signal: WindowSignal, event: InstanceEvent): number => AMOUNTS[signal](event);

/** In so many steps a window moves on: it is never shorter than it should be, and at most this part of it longer. */
export const BUCKETS = 60;

/** What was counted of late. Its size is fixed, whatever is counted. */
export interface Window {
  /** Number of the newest bucket, in steps since 1970. */
  readonly newest: number;
  /** Newest first: the bucket that time is in, and at most `BUCKETS` before it. */
  readonly counts: readonly number[];
}

export const EMPTY_WINDOW: Window = { newest: 0, counts: [] };

export const totalOf = ({ counts }: Window): number => counts.reduce((sum, one) => sum + one, 0);

/** Pure. */
export function count(window: Window, windowMs: number, amount: number, nowMs: number): Window {
  const { newest, counts } = movedTo(window, Math.floor((nowMs * BUCKETS) / windowMs));
  const [first = 0, ...rest] = counts;
  return { newest, counts: [first + amount, ...rest] };
}

/**
 * A clock that goes back a little moves nothing, and forgets nothing. One that goes back by more than the window takes it
 * along: what was counted counts on for one window, not until the clock is where it was.
 */
function movedTo(window: Window, bucket: number): Window {
  const steps = bucket - window.newest;
  if (steps === 0 || (steps < 0 && steps >= -BUCKETS)) return window;
  if (steps < 0) return { newest: bucket, counts: window.counts };
  const passed = Array<number>(Math.min(steps, BUCKETS + 1)).fill(0);
  return { newest: bucket, counts: [...passed, ...window.counts].slice(0, BUCKETS + 1) };
}
