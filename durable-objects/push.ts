import { aged, type CloseAnswer, type Pushed } from "../src/control/acknowledgement.ts";
import type { ShardProgress } from "../src/control/contract.ts";
import { within } from "../src/within.ts";

/** Pushes that run at the same time: enough to keep many objects at work, and few enough that the first to be cut need not wait for the last to be told. */
const CONCURRENCY = 1_000;
/** Of one invocation, which may ask others 10,000 times on the platform: the next question starts the rest. */
export const ROUND_MAX = 5_000;
/** A push that takes longer counts as not delivered: the confirmation then closes the gap. Above the instance's own wait for its Workers. */
const TIMEOUT_MS = 8_000;

/** So long those that run calls are cut before the others are told: what there is to cut does not wait for what there is to stop. */
const HEAD_START_MS = 250;

/** Somebody who may act, and until when without asking. */
export interface Holder {
  readonly instance: string;
  readonly confirmedUntilMs: number;
  /** It ran a call when it was last heard of. */
  readonly isRunning: boolean;
}

interface Heard {
  readonly answer: CloseAnswer | null;
  readonly atMs: number;
  readonly confirmedUntilMs: number;
}

/**
 * One switch on its way to those of a roster shard that may act: rounds of pushes, each to whoever has not wholly
 * acknowledged yet. Held in memory alone; a shard that starts anew pushes to all again, who then say what they said.
 */
export class Push {
  readonly #close: (instance: string) => Promise<CloseAnswer>;
  readonly #onSilent: (instance: string) => void;
  readonly #heard = new Map<string, Heard>();
  readonly #idle: () => number;
  /** Not tried yet in this pass over whoever is missing. */
  #queue: string[] = [];
  readonly #running: ReadonlySet<string>;
  readonly #rounds = new Set<Promise<void>>();
  #idleCount: number | null = null;
  readonly #underway = new Map<string, Promise<void>>();
  #isGivenUp = false;

  /** @param onSilent told of each that has acknowledged, with all its Workers. */
  constructor(
    close: (instance: string) => Promise<CloseAnswer>,
    holders: readonly Holder[],
    idle: () => number,
    onSilent: (instance: string) => void,
  ) {
    this.#close = close;
    this.#onSilent = onSilent;
    this.#idle = idle;
    this.#running = new Set(holders.flatMap(({ instance, isRunning }) => (isRunning ? [instance] : [])));
    for (const { instance, confirmedUntilMs } of holders)
      this.#heard.set(instance, { answer: null, atMs: 0, confirmedUntilMs });
  }

  /**
   * Gives the push up, and says something else to everybody it went to, as far as they can be reached: to an instance that
   * is being told at this moment once more after that, since the two may come to it in any order.
   */
  async tellAll(tell: (instance: string) => Promise<unknown>): Promise<void> {
    this.#isGivenUp = true;
    this.#queue = [];
    const say = (instance: string): Promise<unknown> => tell(instance).catch(() => {});
    const after = [...this.#underway].map(([instance, closing]) => closing.then(() => say(instance)));
    await Promise.all([atOnce([...this.#heard.keys()], say), ...after]);
  }

  /**
   * Starts a round, if somebody is missing and the one before has come to its last ones: who hangs holds up nobody. Answers
   * when all rounds are over, or after `waitMs`.
   */
  async progress(waitMs: number, keep: (work: Promise<unknown>) => void): Promise<ShardProgress> {
    if (!this.#isGivenUp && !this.#isRunning) this.#queue = this.#missing();
    if (this.#queue.length > 0 && this.#underway.size < CONCURRENCY) {
      const round = this.#tell(this.#queue.splice(0, ROUND_MAX)).finally(() => this.#rounds.delete(round));
      this.#rounds.add(round);
      keep(round);
    }
    if (this.#rounds.size > 0) await within(waitMs, Promise.all(this.#rounds));
    // A scan of the table: it has time until the pushes are out.
    this.#idleCount ??= this.#idle();
    const nowMs = Date.now();
    return { pushed: this.#pushed(nowMs), isRunning: this.#isRunning, idle: this.#idleCount };
  }

  get #isRunning(): boolean {
    return this.#rounds.size > 0 || this.#queue.length > 0;
  }

  async #tell(instances: readonly string[]): Promise<void> {
    const running = instances.filter((instance) => this.#running.has(instance));
    const others = instances.filter((instance) => !this.#running.has(instance));
    const cut = atOnce(running, (instance) => this.#one(instance));
    if (running.length > 0) await within(HEAD_START_MS, cut);
    await Promise.all([cut, atOnce(others, (instance) => this.#one(instance))]);
  }

  /** First those that run calls. */
  #missing(): string[] {
    const missing = [...this.#heard].flatMap(([instance, { answer }]) =>
      answer === null || answer.unconfirmed > 0 ? [instance] : [],
    );
    return missing.sort((a, b) => Number(this.#running.has(b)) - Number(this.#running.has(a)));
  }

  async #one(instance: string): Promise<void> {
    if (this.#isGivenUp) return;
    const telling = this.#tellOne(instance);
    this.#underway.set(instance, telling);
    await telling;
    this.#underway.delete(instance);
  }

  async #tellOne(instance: string): Promise<void> {
    try {
      const answer = await within(TIMEOUT_MS, this.#close(instance));
      const { confirmedUntilMs } = this.#heard.get(instance)!;
      if (answer === undefined) return;
      this.#heard.set(instance, { answer, atMs: Date.now(), confirmedUntilMs });
      if (answer.unconfirmed === 0) this.#onSilent(instance);
    } catch {
      // Not delivered: it is tried again, and its confirmation runs out.
    }
  }

  #pushed(nowMs: number): Pushed[] {
    return [...this.#heard].map(([instance, { answer, atMs, confirmedUntilMs }]) => ({
      instance,
      answer: answer === null ? null : aged(answer, nowMs - atMs),
      stoppedInMs: confirmedUntilMs - nowMs,
    }));
  }
}

async function atOnce(instances: readonly string[], work: (instance: string) => Promise<unknown>): Promise<void> {
  let at = 0;
  const next = async (): Promise<void> => {
    for (let instance = instances[at++]; instance !== undefined; instance = instances[at++]) await work(instance);
  };
  await Promise.all(Array.from({ length: Math.min(CONCURRENCY, instances.length) }, next));
}
