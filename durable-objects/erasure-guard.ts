import { holds } from "../src/retention/cover.ts";
import type { Erasure, ErasureBook } from "./erasure-book.ts";
import type { HoldBook } from "./hold-book.ts";

/** A hold forbids what is left of it. */
export class HeldError extends Error {
  readonly hold: string;
  constructor(hold: string) {
    super(`hold ${hold}`);
    this.hold = hold;
  }
}

/**
 * Between holds and deletions. INVARIANT: between the look at the holds and the call that deletes, nothing is waited for.
 */
export class ErasureGuard {
  readonly #book: ErasureBook;
  readonly #holds: HoldBook;
  #deleting: Promise<void> = Promise.resolve();

  constructor(book: ErasureBook, holds: HoldBook) {
    this.#book = book;
    this.#holds = holds;
  }

  /** Settles when no deletion is on its way that was begun before. Never rejects. */
  get deleting(): Promise<void> {
    return this.#deleting;
  }

  /** Of all that deletes. */
  track<T>(work: Promise<T>): Promise<T> {
    const before = this.#deleting;
    // What they came to is left behind, or each would hold on to all before it.
    this.#deleting = Promise.allSettled([before, work]).then(() => {});
    return work;
  }

  /** Throws `HeldError`. */
  lookAtHolds({ human, task }: Erasure): void {
    const hold = this.#holds.forbidding({ human, task });
    if (hold !== undefined) throw new HeldError(hold.id);
  }

  /** A hold keeps this task alone: the rest goes on, and this is said. */
  isLeftHeld(erasure: Erasure, task: string): boolean {
    const hold = this.#holds.standing((subject) => holds(subject, erasure.human, task));
    if (hold === undefined) return false;
    this.#book.leave(erasure.id, `task ${task}`, `hold ${hold.id}`);
    return true;
  }
}
