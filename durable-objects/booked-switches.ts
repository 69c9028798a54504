import type { Attributes, Switch } from "../src/control/switch.ts";

/** In the book of a roster shard. A lifted kill stays as long as somebody lives who was in its reach: for them it is final. */
export interface Booked {
  readonly sw: Switch;
  readonly openedAtMs: number | null;
}

/**
 * The book of a shard in memory, by id. Switches that close are few, and each may concern anybody; those that narrow, or end a mandate, may be
 * tens of thousands, and each concerns one human, or one mandate: who asks is not made to wait for the others'.
 */
export class BookedSwitches extends Map<string, Booked> {
  readonly #shelves = new Map<string, Map<string, Booked>>();
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
      const name = shelfOf(booked.sw);
      if (name !== null && shelf.size === 0) this.#shelves.delete(name);
    }
    return super.delete(id);
  }

  /** All in whose reach somebody can be; whether they are is still to be asked. */
  *concerning({
    human,
    emailDigest,
    mandate,
  }: Pick<Attributes, "human" | "emailDigest" | "mandate">): Generator<Booked> {
    yield* this.#others.values();
    for (const name of new Set([human, emailDigest]))
      if (name !== null) yield* this.#shelves.get(ofHuman(name))?.values() ?? [];
    if (mandate !== null) yield* this.#shelves.get(ofMandate(mandate))?.values() ?? [];
  }

  #shelf(sw: Switch): Map<string, Booked> {
    const name = shelfOf(sw);
    if (name === null) return this.#others;
    const shelf = this.#shelves.get(name) ?? new Map<string, Booked>();
    this.#shelves.set(name, shelf);
    return shelf;
  }
}

const ofHuman = (name: string): string => `human ${name}`;
const ofMandate = (id: string): string => `mandate ${id}`;

/** One that does not say whom it means, concerns everybody. */
function shelfOf({ act, reach, target: { human, mandate } }: Switch): string | null {
  if (act === "narrow" && reach === "human" && human !== undefined) return ofHuman(human);
  if (reach === "mandate" && mandate !== undefined) return ofMandate(mandate);
  return null;
}
