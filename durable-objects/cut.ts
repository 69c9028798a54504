import type { CloseAnswer } from "../src/control/acknowledgement.ts";
import type { Cause } from "../src/instance/contract.ts";
import type { Lease } from "./lease.ts";

/** Calls that are being cut: who of their Workers has confirmed, and when. */
export class Cut {
  readonly #leases: Lease[];
  readonly #switchId: string | null;
  readonly #startedAtMs = Date.now();
  #doneAtMs: number | null = null;
  #done: Promise<unknown> = Promise.resolve();

  /** Breaks the leases: each Worker hears of it at once. */
  constructor(leases: readonly Lease[], cause: Cause, switchId: string | null) {
    this.#leases = [...leases];
    this.#switchId = switchId;
    for (const lease of leases) lease.break(cause, switchId);
    this.#wait();
  }

  get done(): Promise<unknown> {
    return this.#done;
  }

  /** One that broke by it when its Worker took it up again, after a reset of the object. */
  add(lease: Lease): void {
    this.#leases.push(lease);
    this.#wait();
  }

  #wait(): void {
    this.#doneAtMs = null;
    const done = Promise.all(this.#leases.map((lease) => lease.done)).then(() => {
      if (this.#done === done) this.#doneAtMs = Date.now();
    });
    this.#done = done;
  }

  /** Nothing ran. */
  get isEmpty(): boolean {
    return this.#leases.length === 0;
  }

  /** Calls that this switch cut and whose Workers have confirmed it to this life of the object. */
  get #own(): readonly Lease[] {
    return this.#leases.filter(({ isSettled, switchId }) => isSettled && switchId === this.#switchId);
  }
  get owned(): number {
    return this.#own.length;
  }

  /** As of now. A Worker that was given up for its silence has confirmed nothing. */
  answer(nowMs: number): CloseAnswer {
    const confirmed = this.#leases.filter((lease) => lease.isSettled);
    // A call that broke by another switch a moment before is waited for, and counted there alone.
    const lastBytes = this.#own.flatMap(({ lastByteAtMs }) => lastByteAtMs ?? []);
    const acknowledgedAtMs = this.#leases.length === 0 ? this.#startedAtMs : (this.#doneAtMs ?? nowMs);
    return {
      cut: confirmed.length,
      unconfirmed: this.#leases.length - confirmed.length,
      acknowledgedAgeMs: Math.max(0, nowMs - acknowledgedAtMs),
      lastByteAgeMs: lastBytes.length === 0 ? null : Math.max(0, nowMs - Math.max(...lastBytes)),
    };
  }
}
