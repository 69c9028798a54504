const MINUTE_MS = 60_000;

/** Refusals that were not recorded one by one. */
export interface Counted {
  readonly counted: number;
  readonly minuteMs: number;
}

/**
 * How many refusals of a minute stand in records of their own. Beyond that they share one counted record, so that a
 * loop of refused calls can't buy rows without end.
 */
export class RefusalCount {
  readonly #perMinute: number;
  #minuteMs = 0;
  #recorded = 0;
  #counted = 0;

  constructor(perMinute: number) {
    this.#perMinute = perMinute;
  }

  /** True: this one gets a record of its own. Ask `takeCounted` before, for the minute that is over. */
  mayRecord(nowMs: number): boolean {
    const minuteMs = nowMs - (nowMs % MINUTE_MS);
    if (minuteMs !== this.#minuteMs) {
      this.#minuteMs = minuteMs;
      this.#recorded = 0;
    }
    if (this.#recorded < this.#perMinute) {
      this.#recorded++;
      return true;
    }
    this.#counted++;
    return false;
  }

  /** What is to be recorded as counted: of a minute that is over, or at once where `force`d, because the log ends. */
  takeCounted(nowMs: number, force: boolean): Counted | null {
    if (this.#counted === 0 || (!force && nowMs < this.#minuteMs + MINUTE_MS)) return null;
    const taken = { counted: this.#counted, minuteMs: this.#minuteMs };
    this.#counted = 0;
    return taken;
  }

  /** When `takeCounted` has something to give; null: nothing. */
  get dueAtMs(): number | null {
    return this.#counted === 0 ? null : this.#minuteMs + MINUTE_MS;
  }
}
