const SECOND_MS = 1_000;
/** Refusals of who has not authenticated that ask an object, of one isolate, door and second. An object takes about a thousand a second. */
export const RECORDED_PER_SECOND = 5;

/** Which refusals go on record, and how many did not since the last one that went. */
export class RefusalGauge {
  #secondMs = Number.NEGATIVE_INFINITY;
  #taken = 0;
  #suppressed = 0;

  /** Null: this one is counted only. Else it goes, and carries how many were counted since the last that went. */
  take(nowMs: number): number | null {
    // A clock that stepped back begins anew, too.
    if (nowMs < this.#secondMs || nowMs >= this.#secondMs + SECOND_MS) {
      this.#secondMs = nowMs;
      this.#taken = 0;
    }
    if (this.#taken >= RECORDED_PER_SECOND) {
      this.#suppressed++;
      return null;
    }
    this.#taken++;
    const suppressed = this.#suppressed;
    this.#suppressed = 0;
    return suppressed;
  }

  /** What went and did not arrive is for the next one to carry. */
  giveBack(count: number): void {
    this.#suppressed += count;
  }
}
