import type { Cause, LeaseCalls, Resumption, Settlement } from "../instance/contract.ts";
import { within } from "../within.ts";
import { outcomeOf, reasonText } from "./outcome.ts";
import type { Stop } from "./stop.ts";

/** From then on the lease is asked in turns whether it still holds, and has this long for a word: who hears nothing cuts by itself. */
const BEAT_MS = 5_000;
export const LEASE_ANSWER_MS = 5_000;
/** So long a call whose lease died with the object waits for another one, silent; then it is cut. As long as the object keeps it open. */
const RESUME_MS = 5_000;
const RETRY_MS = 100;
/** Of one call: who loses its lease more often is cut. */
const RESUMPTIONS_MAX = 3;

const NOTHING = new Uint8Array(0);
/** What a call on a lease comes to that died with its object. */
const GONE = Symbol("gone");

/** A run of the answer on its way to the record, and what came of it: see `append`. */
interface Run {
  readonly bytes: Uint8Array;
  readonly endByte: number;
  readonly declaredBytes: number | null;
  readonly answered: (kept: number | null | undefined) => void;
}

/**
 * A call's lease, over resets of the instance's object. INVARIANT: from the moment that one is known to be gone until another holds,
 * and all that had passed is on record again, `isHeld` is false; whoever passes bytes looks at it in the same turn.
 */
export class HeldLease {
  readonly #stop: Stop;
  /** Null: a call that can't be taken up again. */
  readonly #resume: (() => Promise<Resumption>) | null;
  #lease: LeaseCalls & Partial<Disposable>;
  #isBroken = false;
  #resuming: Promise<void> | null = null;
  #resumptions = 0;
  /** No other lease will come. */
  #isLost = false;
  #isOver = false;
  /** On record by a settlement whose answer was lost. */
  #ended: Extract<Resumption, { readonly kind: "over" }> | null = null;
  /** What is durable and what passed do not fit together: no more is appended. */
  #isMisfit = false;
  #isListening = false;
  #settlements = 0;
  /** So many bytes of the answer may pass before they are appended. */
  aheadBytes: number;
  /** Of the answer: surely durable, and on its way as well. */
  #durableBytes = 0;
  #sentBytes = 0;
  #unanswered: Run[] = [];

  constructor(
    lease: LeaseCalls & Partial<Disposable>,
    aheadBytes: number,
    stop: Stop,
    resume: (() => Promise<Resumption>) | null,
  ) {
    this.#lease = lease;
    this.aheadBytes = aheadBytes;
    this.#stop = stop;
    this.#resume = resume;
  }

  get isHeld(): boolean {
    return !this.#isBroken && this.#resuming === null;
  }

  /** Resolves when it is held again, or never will be. */
  async holding(): Promise<void> {
    while (this.#resuming !== null) await this.#resuming;
  }

  [Symbol.dispose](): void {
    this.#isOver = true;
    this.#lease[Symbol.dispose]?.();
  }

  // --- hearing ----------------------------------------------------------------------------------------------------

  /** Waits for the lease to break, and asks in turns whether it can still be heard. */
  listen(): void {
    if (this.#isListening) return;
    this.#isListening = true;
    this.#hear(this.#lease);
    this.#beat();
  }

  /** A beat ahead of its time. Where the lease is gone, others notice. */
  sayRunning(): void {
    void orGone(() => this.#lease.beat());
  }

  /** A switch resolves `broken()`, a reset of the object rejects it: no byte passes either way. */
  #hear(lease: LeaseCalls): void {
    lease.broken().then(
      (cause) => {
        if (lease === this.#lease) this.#stop.stop({ kind: "cut", cause });
      },
      () => this.#break(lease),
    );
  }

  /** As long as the call runs, also while it waits for an upstream that says nothing. */
  #beat(): void {
    if (this.#isOver) return;
    this.#stop.wakeAfter(BEAT_MS, async () => {
      await this.holding();
      const lease = this.#lease;
      if (this.#isLost || this.#isOver) return;
      // `false`: it broke, and its cause is on its way by `broken()`.
      const heard = await within(
        LEASE_ANSWER_MS,
        orGone(() => lease.beat()),
      );
      if (heard === GONE) this.#break(lease);
      else if (heard === undefined && lease === this.#lease) this.#stop.stop({ kind: "lease-lost" });
      this.#beat();
    });
  }

  // --- taken up again ---------------------------------------------------------------------------------------------

  #break(lease: LeaseCalls): void {
    if (lease !== this.#lease || this.#isOver || this.#isLost) return;
    this.#isBroken = true;
    if (this.#resuming !== null) return;
    if (this.#resume === null) {
      this.#lose();
      return;
    }
    this.#resuming = this.#takeUp(this.#resume).then((isHeld) => {
      if (isHeld) return;
      this.#resuming = null;
      this.#lose();
    });
  }

  #lose(): void {
    this.#isBroken = true;
    this.#isLost = true;
    if (this.#ended === null) this.#stop.stop({ kind: "lease-lost" });
    for (const { answered } of this.#unanswered.splice(0)) answered(undefined);
  }

  /** False: the call is over, or nobody gives it another lease. */
  async #takeUp(resume: () => Promise<Resumption>): Promise<boolean> {
    const untilMs = Date.now() + RESUME_MS;
    while (this.#resumptions < RESUMPTIONS_MAX) {
      const given = await this.#ask(resume, untilMs);
      if (given === null || given.kind === "refused") return false;
      if (given.kind === "over") {
        // By nobody else's word than its own, or it was given up.
        if (this.#settlements > 0 && given.outcome !== "lost") this.#ended = given;
        return false;
      }
      this.#resumptions++;
      this.#lease[Symbol.dispose]?.();
      this.#lease = given.lease;
      this.aheadBytes = given.aheadBytes;
      this.#isBroken = false;
      if (this.#isListening) this.#hear(given.lease);
      if (given.cause !== null) this.#stop.stop({ kind: "cut", cause: given.cause });
      if (!(await this.#appendAgain(given.answerBytes))) return false;
      // What came in the turns since then is the next one's as well.
      while (!this.#isBroken && this.#unanswered.length > 0)
        if (!(await this.#appendAgain(this.#durableBytes))) return false;
      // It may have gone while that was on its way. If not it is held from this turn on: what breaks or comes now finds it so.
      if (!this.#isBroken) {
        this.#resuming = null;
        return true;
      }
      if (Date.now() >= untilMs) return false;
    }
    return false;
  }

  /** The object may be about to be reset once more, or not be there yet. Null: nobody answered in time. */
  async #ask(resume: () => Promise<Resumption>, untilMs: number): Promise<Resumption | null> {
    for (let leftMs = untilMs - Date.now(); leftMs > 0; leftMs = untilMs - Date.now()) {
      const given = await within(leftMs, orGone(resume));
      // What comes too late is given up when its call says that it has stopped.
      if (given === undefined) return null;
      if (given !== GONE) return given;
      await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
    }
    return null;
  }

  /**
   * What was on its way, but for what of it is durable: so much of the answer is. False: nobody answers. A lease that goes
   * meanwhile leaves the rest for the next one.
   */
  async #appendAgain(durable: number): Promise<boolean> {
    if (durable < this.#durableBytes || durable > this.#sentBytes) {
      this.#isMisfit = true;
      this.#stop.stop(MISFIT);
      for (const { answered } of this.#unanswered.splice(0)) answered(null);
      return true;
    }
    this.#durableBytes = durable;
    for (let run = this.#unanswered[0]; run !== undefined; run = this.#unanswered[0]) {
      const missing = run.endByte - this.#durableBytes;
      let kept: number | null | undefined = this.aheadBytes;
      if (missing > 0) {
        // Of a copy: what goes over RPC must not take the whole buffer along.
        const rest = run.bytes.slice(run.bytes.byteLength - missing);
        const appended = await within(
          LEASE_ANSWER_MS,
          orGone(() => this.#lease.append(rest, run.declaredBytes)),
        );
        if (appended === GONE) {
          this.#isBroken = true;
          return true;
        }
        if (appended === undefined) return false;
        kept = appended;
        this.#durableBytes = run.endByte;
        if (appended !== null) this.aheadBytes = Math.min(this.aheadBytes, appended);
      }
      this.#unanswered.shift();
      run.answered(kept);
    }
    return true;
  }

  // --- what is said on it -----------------------------------------------------------------------------------------

  /** Of a call that can't be taken up again. False: forward nothing. */
  async appendRequest(bytes: Uint8Array, last: boolean): Promise<boolean> {
    const lease = this.#lease;
    const kept = await orGone(() => lease.appendRequest(bytes, last));
    if (kept === GONE) this.#break(lease);
    return kept === true;
  }

  /** As the lease's own, in the order of these calls. Undefined: nobody has answered, or will. */
  append(bytes: Uint8Array, declaredBytes: number | null): Promise<number | null | undefined> {
    return new Promise((answered) => {
      if (this.#isLost) return answered(undefined);
      if (this.#isMisfit) return answered(null);
      this.#sentBytes += bytes.byteLength;
      const run: Run = { bytes, endByte: this.#sentBytes, declaredBytes, answered };
      this.#unanswered.push(run);
      if (this.isHeld) void this.#send(run, this.#lease);
    });
  }

  async #send(run: Run, lease: LeaseCalls): Promise<void> {
    const kept = await within(
      LEASE_ANSWER_MS,
      orGone(() => lease.append(run.bytes, run.declaredBytes)),
    );
    if (kept === GONE) return this.#break(lease);
    // What was answered too late, by a lease that is gone, the next one has said better.
    const at = this.#unanswered.indexOf(run);
    if (lease !== this.#lease || at < 0) return;
    // Nobody waits for it any more, nor knows where it is: should this lease go as well, the next one is to get it before the rest.
    if (kept === undefined) return run.answered(undefined);
    this.#unanswered.splice(at, 1);
    this.#durableBytes = Math.max(this.#durableBytes, run.endByte);
    // It only ever shrinks, and answers may come out of turn: the least is the newest.
    if (typeof kept === "number") this.aheadBytes = Math.min(this.aheadBytes, kept);
    run.answered(kept);
  }

  /** As the lease's own, over its resets. Undefined: nobody has answered, or will. */
  async settle(settlement: Settlement): Promise<boolean | Cause | undefined> {
    for (;;) {
      // What waits for another lease has time for a word on it, too.
      if (this.#resuming !== null) this.#stop.allow(RESUME_MS + LEASE_ANSWER_MS, { kind: "lease-lost" });
      await this.holding();
      if (this.#ended !== null) return this.#ended.cause ?? true;
      if (this.#isLost) return undefined;
      const lease = this.#lease;
      this.#settlements++;
      const settling = orGone(() => lease.settle(this.#isMisfit ? asMisfit(settlement) : settlement));
      // A stopped call keeps no time of its own any more.
      const settled = await (this.#stop.reason === null ? settling : within(LEASE_ANSWER_MS, settling));
      if (settled !== GONE) return settled;
      this.#break(lease);
      // Nobody waits for another one any more.
      if (this.#isOver) return undefined;
    }
  }
}

/** What nobody knows the place of stays out of the record. */
const MISFIT = { kind: "misfit" } as const;
const asMisfit = (settlement: Settlement): Settlement => ({
  ...settlement,
  outcome: outcomeOf(MISFIT),
  reason: reasonText(MISFIT),
  heldBytes: 0,
  tail: NOTHING,
});

async function orGone<T>(ask: () => Promise<T>): Promise<T | typeof GONE> {
  try {
    return await ask();
  } catch {
    return GONE;
  }
}
