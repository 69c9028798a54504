import { within } from "../src/within.ts";

/** Calls that wait until something becomes of their request, by its id. In memory alone: they die with their object. */
export class ApprovalWaits {
  readonly #tells = new Map<string, Set<() => void>>();

  /** How many calls wait, in all. */
  get size(): number {
    return [...this.#tells.values()].reduce((sum, { size }) => sum + size, 0);
  }
  get ids(): Iterable<string> {
    return this.#tells.keys();
  }

  /** True when something became of the request, false after the time. Holds nothing but a promise. */
  async wait(id: string, ms: number): Promise<boolean> {
    const { promise, resolve } = Promise.withResolvers<true>();
    const tell = (): void => resolve(true);
    const ofId = this.#tells.get(id) ?? new Set();
    this.#tells.set(id, ofId.add(tell));
    try {
      return (await within(ms, promise)) === true;
    } finally {
      ofId.delete(tell);
      if (ofId.size === 0 && this.#tells.get(id) === ofId) this.#tells.delete(id);
    }
  }

  wake(id: string): void {
    for (const tell of this.#tells.get(id) ?? []) tell();
  }
}
