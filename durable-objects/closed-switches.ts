import { closes, isWhole, type Switch } from "../src/control/switch.ts";
import type { Kept } from "./kept.ts";

export interface KnownSwitch {
  readonly sw: Switch;
  /** A pause that was resumed. */
  readonly isOpen: boolean;
}

/**
 * The switches that an instance was told of. One that was opened stays known: a push of it may still be on its way.
 *
 * A switch counts from when it is taken, in memory: what makes it certain is the roster, which has it durably and without
 * whose confirmation no object that starts anew admits anything. So it is kept, and recorded, a moment later.
 */
export class ClosedSwitches {
  readonly #kept: Kept;
  readonly #known: Map<string, KnownSwitch>;
  #unkept: Switch[] = [];

  constructor(kept: Kept) {
    this.#kept = kept;
    this.#known = kept.take<KnownSwitch>("switch");
  }

  get closed(): Switch[] {
    return [...this.#known.values()].flatMap(({ sw, isOpen }) => (isOpen ? [] : [sw]));
  }

  /** False: known already, closed or open. */
  take(sw: Switch): boolean {
    if (this.#known.has(sw.id)) return false;
    this.#known.set(sw.id, { sw, isOpen: false });
    this.#unkept.push(sw);
    return true;
  }

  /** Those that were taken since the last time; they are kept now. One row each. */
  keep(): readonly Switch[] {
    const taken = this.#unkept;
    this.#unkept = [];
    // As it is now: it may have been opened in that moment.
    for (const { id } of taken) this.#kept.put("switch", id, this.#known.get(id));
    return taken;
  }

  /** The pause that was closed until now; undefined: it was not. What was killed stays so, and what was lost stays lost. */
  open(id: string): Switch | undefined {
    const known = this.#known.get(id);
    if (known === undefined || known.isOpen || known.sw.act !== "pause") return undefined;
    const opened = { sw: known.sw, isOpen: true };
    this.#kept.put("switch", id, opened);
    this.#known.set(id, opened);
    return known.sw;
  }

  get hasWhole(): boolean {
    return this.closed.some(isWhole);
  }

  hasClosed(upstream: string): boolean {
    return this.closed.some((sw) => closes(sw, upstream));
  }

  get pauses(): readonly Switch[] {
    return this.closed.filter(({ act }) => act === "pause");
  }
}
