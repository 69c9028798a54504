import { closes, isWhole, type Switch } from "../src/control/switch.ts";

type SwitchRow = { id: string; json: string; open: number };

const SCHEMA = `CREATE TABLE IF NOT EXISTS switches (
  id TEXT PRIMARY KEY, json TEXT NOT NULL, open INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID`;

/**
 * The switches that an instance was told of. One that was opened stays known: a push of it may still be on its way.
 *
 * A switch counts from when it is taken, in memory: what makes it certain is the roster, which has it durably and without
 * whose confirmation no object that starts anew admits anything. So it is kept, and recorded, a moment later.
 */
export class ClosedSwitches {
  readonly #sql: SqlStorage;
  readonly #known = new Map<string, { readonly sw: Switch; readonly isOpen: boolean }>();
  #unkept: Switch[] = [];

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    sql.exec(SCHEMA);
    for (const { id, json, open } of sql.exec<SwitchRow>("SELECT * FROM switches"))
      this.#known.set(id, { sw: JSON.parse(json) as Switch, isOpen: open === 1 });
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
    for (const sw of taken) {
      // It may have been opened in that moment.
      const open = this.#known.get(sw.id)?.isOpen === true ? 1 : 0;
      this.#sql.exec("INSERT INTO switches (id, json, open) VALUES (?, ?, ?)", sw.id, JSON.stringify(sw), open);
    }
    return taken;
  }

  /** The pause that was closed until now; undefined: it was not. What was killed stays so. */
  open(id: string): Switch | undefined {
    const known = this.#known.get(id);
    if (known === undefined || known.isOpen || known.sw.act === "kill") return undefined;
    this.#sql.exec("UPDATE switches SET open = 1 WHERE id = ?", id);
    this.#known.set(id, { sw: known.sw, isOpen: true });
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
