import type { ConfirmAnswer } from "../src/control/contract.ts";
import type { Deployment } from "../src/deployment.ts";
import type { Enrolment } from "../src/instance/contract.ts";
import { rosterOf } from "../src/objects.ts";
import { within } from "../src/within.ts";

/** A roster that has not answered by then is out of reach, and the call is refused. Below the gate's own patience. */
export const ROSTER_ANSWER_MS = 5_000;
/** Where the roster did not hear that calls run, it is told so again after this: each run of a stream is an occasion. */
const SAY_AGAIN_MS = 5_000;

/**
 * An instance's right to admit calls, for a time: what makes a kill certain where its push can't get through. Held in
 * memory alone, so an object that starts anew asks first.
 */
export class Confirmation {
  readonly #deployment: () => Deployment;
  readonly #isRunning: () => boolean;
  readonly #onAsk: () => (answer: ConfirmAnswer) => void;
  #untilMs = 0;
  #askedAtMs = 0;
  /** The roster knows that calls run, or is being told. */
  #saidRunning = false;
  /** Since the last question. */
  #hasRun = false;
  #isSaying = false;
  #unheardAtMs = 0;
  #asking: Promise<boolean> | null = null;

  /** @param onAsk called before each question; what it returns gets the answer before that counts. */
  constructor(deployment: () => Deployment, isRunning: () => boolean, onAsk: () => (answer: ConfirmAnswer) => void) {
    this.#deployment = deployment;
    this.#isRunning = isRunning;
    this.#onAsk = onAsk;
  }

  /** From a question that was sent then. */
  extend(sentAtMs: number, validMs: number): void {
    this.#untilMs = Math.max(this.#untilMs, sentAtMs + validMs);
  }

  /** True while it holds. A busy instance asks again ahead of need and off the call's path; an idle one never. */
  holds(who: Enrolment, nowMs: number, later: (work: Promise<unknown>) => void): boolean {
    if (nowMs >= this.#untilMs) return false;
    if (this.#untilMs - nowMs < this.#deployment().config.roster.confirmationMs / 2) later(this.ask(who));
    return true;
  }

  /** When the last question was sent. */
  get askedAtMs(): number {
    return this.#askedAtMs;
  }

  /**
   * The roster cuts first who it knows to run calls. It is told once, however many run: while that goes on, the questions
   * that are asked anyway say so. A word that is lost makes a cut later, and nothing else.
   */
  sayRunning(who: Enrolment, later: (work: Promise<unknown>) => void): void {
    this.#hasRun = true;
    if (this.#saidRunning || this.#isSaying || Date.now() < this.#unheardAtMs + SAY_AGAIN_MS) return;
    this.#isSaying = true;
    later(
      this.#sayRunning(who).finally(() => {
        this.#isSaying = false;
      }),
    );
  }

  async #sayRunning(who: Enrolment): Promise<void> {
    // One that is on its way may have left before the call was admitted that it was asked for.
    await this.#asking;
    if (!this.#saidRunning) await this.ask(who);
  }

  /** One question at a time. False: not confirmed, or the roster could not be asked. */
  ask(who: Enrolment): Promise<boolean> {
    this.#asking ??= this.#askRoster(who).finally(() => {
      this.#asking = null;
    });
    return this.#asking;
  }

  async #askRoster({ instance, rosterShard }: Enrolment): Promise<boolean> {
    // Measured from before the question, by the roster from its answer: it never ends there sooner than here.
    const sentAtMs = Date.now();
    this.#askedAtMs = sentAtMs;
    const isRunning = this.#isRunning() || this.#hasRun;
    this.#saidRunning = isRunning;
    this.#hasRun = false;
    const onAnswer = this.#onAsk();
    let isHeard = false;
    try {
      const asked = rosterOf(this.#deployment(), rosterShard).confirm(instance, isRunning);
      const answer = await within(ROSTER_ANSWER_MS, asked);
      if (answer === undefined) return false;
      onAnswer(answer);
      if (!answer.confirmed) return false;
      isHeard = true;
      this.extend(sentAtMs, answer.validMs);
      // An answer may lie here for a while: what counts is the time, not that there was one.
      return Date.now() < this.#untilMs;
    } catch {
      return false;
    } finally {
      if (!isHeard) {
        this.#saidRunning = false;
        this.#unheardAtMs = Date.now();
      }
    }
  }
}
