import { DurableObject } from "cloudflare:workers";
import type { Env } from "../src/deployment.ts";
import type { IndexedMandate, MandateIndexCalls } from "../src/mandate/contract.ts";

type EntryRow = { no: number; id: string; human: string };

const SCHEMA =
  "CREATE TABLE IF NOT EXISTS mandates (no INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, human TEXT NOT NULL)";

/**
 * Whose each mandate is, for admins who have an id, or want all. An entry stands here before its mandate does, so none
 * is missing; one whose approval broke off leads to nothing.
 */
export class MandateIndex extends DurableObject<Env> implements MandateIndexCalls {
  readonly #sql: SqlStorage;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#sql = ctx.storage.sql;
    this.#sql.exec(SCHEMA);
  }

  async note({ id, human }: IndexedMandate): Promise<void> {
    this.#sql.exec("INSERT OR IGNORE INTO mandates (id, human) VALUES (?, ?)", id, human);
  }

  async find(id: string): Promise<string | null> {
    const rows = this.#sql.exec<EntryRow>("SELECT * FROM mandates WHERE id = ?", id).toArray();
    return rows[0]?.human ?? null;
  }

  async list(before: string | null, limit: number): Promise<readonly IndexedMandate[]> {
    const where = before === null ? "1 = 1" : "no < (SELECT no FROM mandates WHERE id = ?)";
    const bindings = before === null ? [] : [before];
    return this.#sql
      .exec<EntryRow>(`SELECT * FROM mandates WHERE ${where} ORDER BY no DESC LIMIT ${limit}`, ...bindings)
      .toArray()
      .map(({ id, human }) => ({ id, human }));
  }
}
