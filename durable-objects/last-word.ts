import type { Deployment } from "../src/deployment.ts";
import { type Amounts, add, spentOf } from "../src/instance/carve.ts";
import { instanceOf } from "../src/objects.ts";
import { within } from "../src/within.ts";
import type { Kept } from "./kept.ts";
import type { Ledger } from "./ledger.ts";

/** Longer than an instance takes to cut its calls. */
const ANSWER_MS = 8_000;
/** While its last calls are not over, it looks again after this. */
const AGAIN_MS = 5_000;
/** Children end when their parent does, at the latest: so long it waits for their word, before it says itself what was spent. */
const LAST_WORD_MS = 60_000;

export interface LastWordOptions {
  readonly kept: Kept;
  readonly deployment: () => Deployment;
  readonly ledger: () => Ledger;
  /** Calls that hold a place, those among them of whose Workers nobody has heard. */
  readonly running: (nowMs: number) => number;
  /** Puts on record what stops the instance, where that is in memory alone. */
  readonly keep: () => void;
  /** Of its own children, whether all have spoken. */
  readonly isChildless: () => boolean;
}

/** What a child says to its parent, once: what it and all below it have spent. The rest is the parent's again. */
export class LastWord {
  readonly #options: LastWordOptions;
  #isHeard: boolean;

  constructor(options: LastWordOptions, isHeard: boolean) {
    this.#options = options;
    this.#isHeard = isHeard;
  }

  get #ledger(): Ledger {
    return this.#options.ledger();
  }

  /** It is stopped for good, or over, and its parent has not heard of it. */
  get #isOwed(): boolean {
    const { enrolment, log, state } = this.#ledger;
    if (enrolment === null || enrolment.ancestors.length === 0 || this.#isHeard) return false;
    return log.isClosed || state.stopped !== null;
  }

  /** Or of an earlier life of the object, and not yet on record as lost. */
  #isRunning(nowMs: number): boolean {
    return this.#ledger.state.open.length > 0 || this.#options.running(nowMs) > 0;
  }

  /** When who has ended speaks for children that have not. */
  get #patienceEndsAtMs(): number {
    const { enrolment, log } = this.#ledger;
    return log.isClosed && enrolment !== null ? enrolment.task.deadlineMs + LAST_WORD_MS : Number.POSITIVE_INFINITY;
  }

  /**
   * INVARIANT: nothing can be charged to it any more. Nothing is admitted, every call is settled, or given up with all that it
   * may have passed; no Worker of it can run; its own children have spoken. Its transcript may stay open: attempts that are
   * refused spend nothing.
   */
  isDue(nowMs: number): boolean {
    if (!this.#isOwed || this.#isRunning(nowMs)) return false;
    return this.#options.isChildless() || this.#patienceEndsAtMs <= nowMs;
  }

  /** When to look again, where nobody says so: a child's word does, a Worker that stops in silence does not. */
  lookAgainAtMs(nowMs: number): number | null {
    if (!this.#isOwed) return null;
    if (this.#isRunning(nowMs)) return nowMs + AGAIN_MS;
    return Number.isFinite(this.#patienceEndsAtMs) ? this.#patienceEndsAtMs : null;
  }

  /** Rejects where the parent can't be reached. `below`: by all below it. */
  async say(below: Amounts): Promise<void> {
    const { enrolment, state } = this.#ledger;
    if (enrolment === null) return;
    // An object that is reset after this word must not come up as one that may spend.
    this.#options.keep();
    const { ancestors, instance, grant } = enrolment;
    const spent = add(spentOf(state.usage), below);
    const parent = instanceOf(this.#options.deployment(), ancestors.at(-1)!);
    const isHeard = await within(ANSWER_MS, parent.childEnded(instance, spent, grant));
    // Dying here, it is said again, and changes nothing.
    if (isHeard !== true) return;
    this.#options.kept.put("family", "reported", true);
    this.#isHeard = true;
  }
}
