import type { JournalEntry } from "../src/control/contract.ts";
import type { Deployment } from "../src/deployment.ts";
import { journalOf } from "../src/objects.ts";
import type { Fields } from "../src/transcript/envelope.ts";
import { within } from "../src/within.ts";

const JOURNAL_TIMEOUT_MS = 5_000;
const AT_ONCE = 100;

/**
 * Acts of admins: on record with the act itself, in one commit, and in the journal as soon as it can be written. A
 * journal out of reach hinders nothing; the object's alarm comes back as long as `hasUntold`.
 */
export class ActOutbox {
  readonly #sql: SqlStorage;
  readonly #deployment: () => Deployment;
  #telling: Promise<void> | null = null;

  /** @param deployment throws while a secret is missing */
  constructor(sql: SqlStorage, deployment: () => Deployment) {
    this.#sql = sql;
    this.#deployment = deployment;
    sql.exec("CREATE TABLE IF NOT EXISTS acts (no INTEGER PRIMARY KEY, json TEXT NOT NULL)");
  }

  keep(fields: Fields): void {
    let version = "unknown";
    try {
      version = this.#deployment().version;
    } catch {
      // A secret is missing. The act counts all the same.
    }
    const entry: JournalEntry = { type: "act", fields, deployment: version };
    this.#sql.exec("INSERT INTO acts (json) VALUES (?)", JSON.stringify(entry));
  }

  get hasUntold(): boolean {
    return this.#sql.exec("SELECT 1 FROM acts LIMIT 1").toArray().length > 0;
  }

  /** In order, one at a time. What was told and not marked is told again: entries carry the ids of what they speak of. */
  tellAll(): Promise<void> {
    this.#telling ??= this.#tellNow().finally(() => {
      this.#telling = null;
    });
    return this.#telling;
  }

  async #tellNow(): Promise<void> {
    for (let untold = this.#untold(); untold.length > 0; untold = this.#untold())
      for (const { no, json } of untold) {
        try {
          const journal = journalOf(this.#deployment(), "admin", Date.now());
          const telling = journal.append(JSON.parse(json) as JournalEntry);
          if ((await within(JOURNAL_TIMEOUT_MS, telling)) !== true) return;
        } catch {
          return;
        }
        this.#sql.exec("DELETE FROM acts WHERE no = ?", no);
      }
  }

  #untold(): { no: number; json: string }[] {
    const query = "SELECT no, json FROM acts ORDER BY no LIMIT ?";
    return this.#sql.exec<{ no: number; json: string }>(query, AT_ONCE).toArray();
  }
}
