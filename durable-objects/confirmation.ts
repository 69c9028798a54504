import type { Switch } from "../src/control/switch.ts";
import type { Deployment } from "../src/deployment.ts";
import { rosterOf } from "../src/objects.ts";
import { within } from "../src/within.ts";

/** A roster that has not answered by then is out of reach, and the call is refused. Below the gate's own patience. */
export const ROSTER_ANSWER_MS = 5_000;

/**
 * An instance's right to admit calls, for a time: what makes a kill certain where its push can't get through. Held in
 * memory alone, so an object that starts anew asks first.
 */
export class Confirmation {
  readonly #deployment: () => Deployment;
  readonly #onClosed: (sw: Switch) => void;
  #untilMs = 0;
  #asking: Promise<boolean> | null = null;

  /** @param onClosed gets each closed switch that the roster answers with, before the answer counts. */
  constructor(deployment: () => Deployment, onClosed: (sw: Switch) => void) {
    this.#deployment = deployment;
    this.#onClosed = onClosed;
  }

  /** From a question that was sent then. */
  extend(sentAtMs: number, validMs: number): void {
    this.#untilMs = Math.max(this.#untilMs, sentAtMs + validMs);
  }

  /** True while it holds. A busy instance asks again ahead of need and off the call's path; an idle one never. */
  holds(instance: string, nowMs: number, later: (work: Promise<unknown>) => void): boolean {
    if (nowMs >= this.#untilMs) return false;
    if (this.#untilMs - nowMs < this.#deployment().config.roster.confirmationMs / 2) later(this.ask(instance));
    return true;
  }

  /** One question at a time. False: not confirmed, or the roster could not be asked. */
  ask(instance: string): Promise<boolean> {
    this.#asking ??= this.#askRoster(instance).finally(() => {
      this.#asking = null;
    });
    return this.#asking;
  }

  async #askRoster(instance: string): Promise<boolean> {
    // Measured from before the question, by the roster from its answer: it never ends there sooner than here.
    const sentAtMs = Date.now();
    try {
      const answer = await within(ROSTER_ANSWER_MS, rosterOf(this.#deployment()).confirm(instance));
      if (answer === undefined) return false;
      for (const sw of answer.closed) this.#onClosed(sw);
      if (!answer.confirmed) return false;
      this.extend(sentAtMs, answer.validMs);
      return true;
    } catch {
      return false;
    }
  }
}
