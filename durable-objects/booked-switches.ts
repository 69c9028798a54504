import type { Attributes, Switch } from "../src/control/switch.ts";

/** In the book of a roster shard. A lifted kill stays as long as somebody lives who was in its reach: for them it is final. */
export interface Booked {
  readonly sw: Switch;
  readonly openedAtMs: number | null;
}

/**
 * The book of a shard in memory, by id. Switches that close are few, and each may concern anybody; those that narrow may be
 * tens of thousands, and each concerns one human: who asks is not made to wait for the others'.
 */
export class BookedSwitches extends Map<string, Booked> {
  readonly #narrowing = new Map<string, Map<string, Booked>>();
  readonly #others = new Map<string, Booked>();

  override set(id: string, booked: Booked): this {
    this.#shelf(booked.sw).set(id, booked);
    return super.set(id, booked);
  }

  override delete(id: string): boolean {
    const booked = this.get(id);
    if (booked !== undefined) {
      const shelf = this.#shelf(booked.sw);
      shelf.delete(id);
      if (shelf !== this.#others && shelf.size === 0) this.#narrowing.delete(booked.sw.target.human!);
    }
    return super.delete(id);
  }

  /** All in whose reach somebody can be; whether they are is still to be asked. */
  *concerning({ human, emailDigest }: Pick<Attributes, "human" | "emailDigest">): Generator<Booked> {
    yield* this.#others.values();
    for (const name of new Set([human, emailDigest]))
      if (name !== null) yield* this.#narrowing.get(name)?.values() ?? [];
  }

  /** One that narrows and does not say whom, concerns everybody. */
  #shelf({ act, reach, target: { human } }: Switch): Map<string, Booked> {
    if (act !== "narrow" || reach !== "human" || human === undefined) return this.#others;
    const shelf = this.#narrowing.get(human) ?? new Map<string, Booked>();
    this.#narrowing.set(human, shelf);
    return shelf;
  }
}
