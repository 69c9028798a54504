import type { JournalEntry } from "../src/control/contract.ts";

/** What is still to be said to the journal, in the same commit as what it tells of. */
export class ActOutbox {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    sql.exec("CREATE TABLE IF NOT EXISTS acts (no INTEGER PRIMARY KEY, json TEXT NOT NULL)");
  }

  tell(entry: JournalEntry): void {
    this.#sql.exec("INSERT INTO acts (json) VALUES (?)", JSON.stringify(entry));
  }

  untold(): { readonly no: number; readonly entry: JournalEntry }[] {
    return this.#sql
      .exec<{ no: number; json: string }>("SELECT no, json FROM acts ORDER BY no LIMIT 100")
      .toArray()
      .map(({ no, json }) => ({ no, entry: JSON.parse(json) as JournalEntry }));
  }

  get hasUntold(): boolean {
    return this.#sql.exec("SELECT 1 FROM acts LIMIT 1").toArray().length > 0;
  }

  told(no: number): void {
    this.#sql.exec("DELETE FROM acts WHERE no = ?", no);
  }
}
