import { DurableObject } from "cloudflare:workers";
import type { Env } from "../src/deployment.ts";
import type { IndexedMandate, MandateIndexCalls } from "../src/mandate/contract.ts";

type EntryRow = { no: number; id: string; human: string };
type EndRow = { until_ms: number; id: string };

const SCHEMA = [
  "CREATE TABLE IF NOT EXISTS mandates (no INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, human TEXT NOT NULL)",
  "CREATE TABLE IF NOT EXISTS ends (until_ms INTEGER NOT NULL, id TEXT NOT NULL, PRIMARY KEY (until_ms, id)) WITHOUT ROWID",
];

/** With each that comes: more than one, so that what has gathered goes. */
const FORGET_AT_ONCE = 100;

/**
 * Whose each mandate is, for admins who have an id, or want all. An entry stands here before its mandate does, so none
 * is missing; one whose approval broke off leads to nothing. It goes when its mandate and whatever works under it have long been over.
 */
export class MandateIndex extends DurableObject<Env> implements MandateIndexCalls {
  readonly #sql: SqlStorage;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#sql = ctx.storage.sql;
    for (const statement of SCHEMA) this.#sql.exec(statement);
  }

  async note({ id, human }: IndexedMandate, untilMs: number): Promise<void> {
    this.#forget(Date.now());
    this.#sql.exec("INSERT OR IGNORE INTO mandates (id, human) VALUES (?, ?)", id, human);
    this.#sql.exec("INSERT OR IGNORE INTO ends (until_ms, id) VALUES (?, ?)", untilMs, id);
  }

  #forget(nowMs: number): void {
    const over = `SELECT until_ms, id FROM ends WHERE until_ms <= ? ORDER BY until_ms, id LIMIT ${FORGET_AT_ONCE}`;
    for (const { until_ms, id } of this.#sql.exec<EndRow>(over, nowMs).toArray()) {
      this.#sql.exec("DELETE FROM mandates WHERE id = ?", id);
      this.#sql.exec("DELETE FROM ends WHERE until_ms = ? AND id = ?", until_ms, id);
    }
  }

  async find(id: string): Promise<string | null> {
    const rows = this.#sql.exec<EntryRow>("SELECT * FROM mandates WHERE id = ?", id).toArray();
    return rows[0]?.human ?? null;
  }

  async list(before: string | null, limit: number): Promise<readonly IndexedMandate[] | null> {
    // A list that ends there would look like one that is whole.
    if (before !== null && (await this.find(before)) === null) return null;
    const where = before === null ? "1 = 1" : "no < (SELECT no FROM mandates WHERE id = ?)";
    const bindings = before === null ? [] : [before];
    return this.#sql
      .exec<EntryRow>(`SELECT * FROM mandates WHERE ${where} ORDER BY no DESC LIMIT ${limit}`, ...bindings)
      .toArray()
      .map(({ id, human }) => ({ id, human }));
  }
}
