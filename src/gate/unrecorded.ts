import { within } from "../within.ts";
import type { Admitted } from "./admit.ts";
import { LEASE_ANSWER_MS } from "./held-lease.ts";

const NOTHING = new Uint8Array(0);

/** What of an answer was received and, perhaps, passed, and is not durable yet. */
export class Unrecorded {
  /** Of the whole answer, where its head says so. */
  declaredBytes: number | null = null;
  readonly #call: Pick<Admitted, "lease" | "stop">;
  readonly #leadMs: number;
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  /** On its way to the instance. */
  #appendingBytes = 0;
  #appending: Promise<void> = Promise.resolve();
  /** An append is to come within `#leadMs`. */
  #isAppendDue = false;
  #isSettled = false;
  /** The lease broke, or is no more. Why is on its way. */
  #isRefused = false;

  constructor(call: Pick<Admitted, "lease" | "stop">, leadMs: number) {
    this.#call = call;
    this.#leadMs = leadMs;
  }

  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  add(run: Uint8Array): void {
    if (!this.#isAppendDue) {
      this.#isAppendDue = true;
      this.#call.stop.wakeAfter(this.#leadMs, () => {
        this.#isAppendDue = false;
        return this.#append();
      });
    }
    this.#pending.push(run);
    this.#pendingBytes += run.byteLength;
  }

  /** In the place of what was received. */
  replace(bytes: Uint8Array): void {
    this.#pending = [bytes];
    this.#pendingBytes = bytes.byteLength;
  }

  join(): Uint8Array {
    if (this.#pending.length > 1) this.#pending = [concat(this.#pending)];
    return this.#pending[0] ?? NOTHING;
  }

  /** The rest goes with the settlement. From here on nothing is appended. */
  settle(): Uint8Array {
    this.#isSettled = true;
    return this.#take();
  }

  #take(): Uint8Array {
    const bytes = this.join();
    this.#pending = [];
    this.#pendingBytes = 0;
    return bytes;
  }

  /** Nobody waits for anything: the call is stopped, or its lease holds, and covers what was received. */
  isPassable(): boolean {
    const { stop, lease } = this.#call;
    if (stop.reason !== null) return true;
    if (this.#isRefused) return false;
    const ahead = this.#pendingBytes + this.#appendingBytes;
    return lease.isHeld && (ahead === 0 || ahead <= lease.aheadBytes);
  }

  async untilPassable(): Promise<void> {
    const { stop, lease } = this.#call;
    if (this.#isRefused) await stop.stopped();
    else if (lease.isHeld) await this.#append();
    else await stop.orStopped(lease.holding());
  }

  /** Returns when all that was received is durable. Appends reach the instance in the order of these calls. */
  #append(): Promise<void> {
    if (this.#pendingBytes > 0 && !this.#isSettled) {
      const before = this.#appending;
      const bytes = this.#take();
      this.#appendingBytes += bytes.byteLength;
      const appended = this.#appendOnce(bytes);
      this.#appending = before.then(() => appended);
    }
    return this.#appending;
  }

  async #appendOnce(bytes: Uint8Array): Promise<void> {
    const { stop, lease } = this.#call;
    const kept = await lease.append(bytes, this.declaredBytes);
    this.#appendingBytes -= bytes.byteLength;
    if (typeof kept === "number" || this.#isSettled) return;
    // `null`: the lease broke, and its cause is on its way. Until it is here nothing passes. Nothing heard: nobody could cut this call.
    this.#isRefused = true;
    if (kept === null) await within(LEASE_ANSWER_MS, stop.stopped());
    stop.stop({ kind: "lease-lost" });
  }
}

/** An array: as arguments, a body in a million runs is more than the stack holds. */
export function concat(runs: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(runs.reduce((sum, run) => sum + run.byteLength, 0));
  let at = 0;
  for (const run of runs) {
    whole.set(run, at);
    at += run.byteLength;
  }
  return whole;
}
