import type { Cause } from "../instance/contract.ts";
import type { Echoed } from "./echo-scan.ts";

/** Why the pump of a call must stop before the answer's end. */
export type StopReason =
  | { readonly kind: "cut"; readonly cause: Cause }
  /** The object that holds the lease was reset, or does not answer: nobody could cut this call any more. */
  | { readonly kind: "lease-lost" }
  /** It came back, and of the answer other bytes are durable than had been sent. */
  | { readonly kind: "misfit" }
  | { readonly kind: "client-gone" }
  | { readonly kind: "upstream-broke-off" }
  /** Nothing was sent. */
  | { readonly kind: "no-credential"; readonly reason: string }
  /** The answer held it: neither agent nor record gets that. */
  | { readonly kind: "echoed"; readonly what: Echoed }
  | { readonly kind: "timeout"; readonly what: "first byte" | "idle" | "total" }
  | { readonly kind: "too-large"; readonly reason: string };

const FOREVER = Number.POSITIVE_INFINITY;

/**
 * One switch for everything that can stop a call: the first reason counts, and the upstream's connection is closed.
 * It keeps the call's time as well, with a single timer however many phases there are: arming one costs as much as a
 * tenth of the whole call's own work.
 */
export class Stop {
  readonly #controller = new AbortController();
  readonly #waiting = new Set<() => void>();
  #reason: StopReason | null = null;
  #timer: number | null = null;
  #timerAtMs = 0;
  #phase: { readonly atMs: number; readonly reason: StopReason } | null = null;
  #totalAtMs = FOREVER;
  #isReleasedByPump = false;
  #wakes: { readonly atMs: number; readonly work: () => unknown }[] = [];

  get reason(): StopReason | null {
    return this.#reason;
  }
  /** For the fetch to the upstream. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }
  /** Resolves when stopped. */
  stopped(): Promise<void> {
    if (this.#reason !== null) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.add(resolve));
  }

  /**
   * What `work` comes to, or `undefined` once stopped. Not `Promise.race`: on a promise that lives as long as the call
   * that leaves something behind with every read of a long stream.
   */
  orStopped<T>(work: Promise<T>): Promise<T | undefined> {
    return new Promise((resolve, reject) => {
      const stopped = () => resolve(undefined);
      if (this.#reason !== null) stopped();
      else this.#waiting.add(stopped);
      work.then(
        (value) => {
          this.#waiting.delete(stopped);
          resolve(value);
        },
        (error) => {
          this.#waiting.delete(stopped);
          reject(error);
        },
      );
    });
  }

  stop(reason: StopReason): void {
    if (this.#reason !== null) return;
    this.#reason = reason;
    this.#clear();
    for (const tell of this.#waiting) tell();
    this.#waiting.clear();
    if (!this.#isReleasedByPump) this.#controller.abort();
  }

  /** From here on whoever pumps the answer closes the upstream's connection: after the agent's, which may be one of hundreds. */
  leaveToPump(): void {
    this.#isReleasedByPump = true;
  }

  /** Closes the upstream's connection, when there is nothing more to say about the call. */
  release(): void {
    this.#clear();
    this.#controller.abort();
  }

  /** The phase that begins now may take this long; the phase before is over. */
  allow(ms: number, reason: StopReason): void {
    this.#phase = { atMs: Date.now() + ms, reason };
    this.#arm();
  }

  /** However many phases, the whole may take this long. */
  allowTotal(untilMs: number): void {
    this.#totalAtMs = untilMs;
    this.#arm();
  }

  /** Does this once, if the call is still running then. */
  wakeAfter(ms: number, work: () => unknown): void {
    this.#wakes.push({ atMs: Date.now() + ms, work });
    this.#arm();
  }

  /** No more time is kept: the call is settled. */
  end(): void {
    this.#clear();
    this.#phase = null;
    this.#wakes = [];
    this.#totalAtMs = FOREVER;
  }

  /** Moves the timer only forward: one that fires too early looks again. */
  #arm(): void {
    if (this.#reason !== null) return;
    const dueMs = Math.min(this.#phase?.atMs ?? FOREVER, this.#totalAtMs, ...this.#wakes.map(({ atMs }) => atMs));
    if (dueMs === FOREVER || (this.#timer !== null && this.#timerAtMs <= dueMs)) return;
    this.#clear();
    this.#timerAtMs = dueMs;
    this.#timer = setTimeout(() => this.#fire(), Math.max(0, dueMs - Date.now())) as unknown as number;
  }

  #fire(): void {
    this.#timer = null;
    const nowMs = Date.now();
    const due = this.#wakes.filter(({ atMs }) => atMs <= nowMs);
    this.#wakes = this.#wakes.filter(({ atMs }) => atMs > nowMs);
    for (const { work } of due) work();
    if (this.#totalAtMs <= nowMs) this.stop({ kind: "timeout", what: "total" });
    else if (this.#phase !== null && this.#phase.atMs <= nowMs) this.stop(this.#phase.reason);
    this.#arm();
  }

  #clear(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}
