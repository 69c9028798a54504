import type { Deployment } from "../src/deployment.ts";
import { instanceOf, rosterOf, switchboardOf } from "../src/objects.ts";
import { NOBODY, UNHEARD } from "../src/retention/cover.ts";
import { within } from "../src/within.ts";
import type { Erasure, ErasureBook, Running } from "./erasure-book.ts";
import type { ErasureGuard } from "./erasure-guard.ts";

const MEMBERS_AT_ONCE = 200;
const ASKED_AT_ONCE = 20;
const ASK_TIMEOUT_MS = 10_000;
/** Above the patience of who holds. */
const TRACKED_MS = 30_000;
/** An instance that has not answered after so many, a second apart at least, is left, and that is said. */
const ATTEMPTS_MAX = 10;

export interface Asked {
  readonly instance: string;
  readonly task: string;
  /** How often it did not answer. */
  readonly attempts: number;
}

/** Who still holds bodies of a human, and how far an erasure reaches in each transcript. */
export class ErasureReach {
  readonly #book: ErasureBook;
  readonly #guard: ErasureGuard;
  readonly #deployment: () => Deployment;

  constructor(book: ErasureBook, guard: ErasureGuard, deployment: () => Deployment) {
    this.#book = book;
    this.#guard = guard;
    this.#deployment = deployment;
  }

  /** A page of the roster, from where the cursor stands. */
  async askMembers({ erasure, cursor }: Running): Promise<void> {
    const deployment = this.#deployment();
    const [shard, after] = cursor.split(".") as [string, string];
    const shards = (await switchboardOf(deployment).shards()).filter((no) => no >= Number(shard)).sort((a, b) => a - b);
    const [first] = shards;
    if (first === undefined) {
      this.#book.goTo(erasure.id, "instances", "unheard");
      return;
    }
    const from = first === Number(shard) ? after : "";
    const members = await rosterOf(deployment, first).membersOf(erasure.human, from, MEMBERS_AT_ONCE);
    await this.askAll(
      erasure,
      members.filter(({ task }) => erasure.task === null || task === erasure.task),
    );
    const last = members.at(-1);
    const next = members.length < MEMBERS_AT_ONCE || last === undefined ? `${first + 1}.` : `${first}.${last.instance}`;
    this.#book.goTo(erasure.id, "instances", next);
  }

  /** Those that did not answer. False: there is none. */
  async askAgain(erasure: Erasure): Promise<boolean> {
    const unheard = this.#book.unheard(erasure.id, MEMBERS_AT_ONCE);
    if (unheard.length === 0) {
      this.#book.goTo(erasure.id, "objects", "");
      return false;
    }
    await this.askAll(erasure, unheard);
    return true;
  }

  /** At most so many; the rest is left to another step. */
  async askAll(erasure: Erasure, instances: readonly (Omit<Asked, "attempts"> & Partial<Asked>)[]): Promise<void> {
    for (let i = 0; i < instances.length; i += ASKED_AT_ONCE)
      await Promise.all(
        instances
          .slice(i, i + ASKED_AT_ONCE)
          .map(({ instance, task, attempts = 0 }) => this.#ask(erasure, instance, task, attempts)),
      );
  }

  /** Its bodies go where they have not left it yet, and it says how far the erasure reaches. */
  async #ask(erasure: Erasure, instance: string, task: string, attempts: number): Promise<void> {
    this.#guard.lookAtHolds(erasure);
    if (this.#guard.isLeftHeld(erasure, task)) return;
    const asked = instanceOf(this.#deployment(), instance).erase(erasure.beforeMs);
    // What is given up here may still be done there: who holds waits for it longer than an erasure does.
    this.#guard.track(within(TRACKED_MS, asked)).catch(() => {});
    const answer = await within(ASK_TIMEOUT_MS, asked).catch(() => undefined);
    if (answer === undefined || answer === "later") {
      const isGivenUp = attempts + 1 >= ATTEMPTS_MAX;
      if (isGivenUp)
        this.#book.leave(erasure.id, `instance ${instance}`, "it could not be asked for what it still holds");
      this.#book.setExtent(erasure.id, instance, task, isGivenUp ? UNHEARD : null, 0);
      return;
    }
    if (answer === null) {
      this.#book.setExtent(erasure.id, instance, task, NOBODY, 0);
      return;
    }
    const { blanked, ...extent } = answer;
    if (extent.running.length > 0)
      this.#book.leave(
        erasure.id,
        `calls ${extent.running.join(", ")} of instance ${instance}`,
        "they were running: when they are over, another erasure takes their bodies",
      );
    this.#book.setExtent(erasure.id, instance, task, extent, blanked);
  }
}
