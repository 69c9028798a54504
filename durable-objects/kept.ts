/** SQLite's word for a table that was never created. */
const isMissingTable = (error: unknown): boolean => error instanceof Error && error.message.includes("no such table");

/** What a query finds; null where its table was never created. */
export function rowsIfThere<T extends Record<string, SqlStorageValue>>(
  sql: SqlStorage,
  query: string,
  ...bindings: SqlStorageValue[]
): T[] | null {
  try {
    return sql.exec<T>(query, ...bindings).toArray();
  } catch (error) {
    if (isMissingTable(error)) return null;
    throw error;
  }
}

type KeptRow = { kind: string; id: string; json: string };

/** What is kept. Each kind has one owner, which says what stands in it. */
export type Kind = "enrolment" | "switch" | "handover" | "approval" | "segment" | "raw" | "orphan" | "child" | "family";

const SCHEMA =
  "CREATE TABLE IF NOT EXISTS kept (kind TEXT, id TEXT, json TEXT NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID";

/**
 * The few things of an object that are no records, one row each, in one table. A kill may have to wake thousands of
 * objects: each opens one table and reads it once, and one that has nothing to keep creates none.
 */
export class Kept {
  readonly #sql: SqlStorage;
  /** As found at the start, until their owners take them. */
  readonly #found = new Map<string, Map<string, unknown>>();
  #isThere: boolean;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    const rows = rowsIfThere<KeptRow>(sql, "SELECT kind, id, json FROM kept");
    this.#isThere = rows !== null;
    for (const { kind, id, json } of rows ?? []) {
      const ofKind = this.#found.get(kind) ?? new Map<string, unknown>();
      this.#found.set(kind, ofKind.set(id, JSON.parse(json)));
    }
  }

  /** Once, by the owner of the kind: what was kept when this object started. */
  take<T>(kind: Kind): Map<string, T> {
    const found = this.#found.get(kind) ?? new Map<string, unknown>();
    this.#found.delete(kind);
    return found as Map<string, T>;
  }

  put(kind: Kind, id: string, value: unknown): void {
    if (!this.#isThere) this.#sql.exec(SCHEMA);
    this.#isThere = true;
    this.#sql.exec("INSERT OR REPLACE INTO kept (kind, id, json) VALUES (?, ?, ?)", kind, id, JSON.stringify(value));
  }

  delete(kind: Kind, id: string): void {
    this.#sql.exec("DELETE FROM kept WHERE kind = ? AND id = ?", kind, id);
  }
}
