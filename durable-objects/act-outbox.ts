import * as z from "zod";
import type { JournalEntry } from "../src/control/contract.ts";
import type { Deployment } from "../src/deployment.ts";
import { journalOf } from "../src/objects.ts";
import type { Fields } from "../src/transcript/envelope.ts";
import { within } from "../src/within.ts";
import { readStored, UnreadableState, whole } from "./stored.ts";

const JOURNAL_TIMEOUT_MS = 5_000;
const AT_ONCE = 100;

/** What it says goes on record as it is. */
export const ACT = whole<JournalEntry>({
  type: z.custom<JournalEntry["type"]>((value) => value === "act"),
  fields: z.custom<Fields>((value) => typeof value === "object" && value !== null),
  deployment: z.string(),
});

/**
 * Acts of admins: on record with the act itself, in one commit, and in the journal as soon as it can be written. A
 * journal out of reach hinders nothing; the object's alarm comes back as long as `hasUntold`.
 */
export class ActOutbox {
  readonly #sql: SqlStorage;
  readonly #deployment: () => Deployment;
  #telling: Promise<void> | null = null;
  /** Those that can't be read, and of which the operator has heard. */
  readonly #unreadable = new Set<number>();

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
    let after = -1;
    for (let untold = this.#untold(after); untold.length > 0; untold = this.#untold(after))
      for (const { no, json } of untold) {
        after = no;
        const entry = this.#read(no, json);
        if (entry === null) continue;
        try {
          const journal = journalOf(this.#deployment(), "admin", Date.now());
          const telling = journal.append(entry);
          if ((await within(JOURNAL_TIMEOUT_MS, telling)) !== true) return;
        } catch {
          return;
        }
        this.#sql.exec("DELETE FROM acts WHERE no = ?", no);
      }
  }

  /** Null: it stays until it can be read, and holds up no other. */
  #read(no: number, json: string): JournalEntry | null {
    try {
      return readStored(ACT, "act", json);
    } catch (error) {
      if (!(error instanceof UnreadableState)) throw error;
      if (!this.#unreadable.has(no)) console.error("state not readable", `${error.message}. The journal is not told`);
      this.#unreadable.add(no);
      return null;
    }
  }

  #untold(after: number): { no: number; json: string }[] {
    const query = "SELECT no, json FROM acts WHERE no > ? ORDER BY no LIMIT ?";
    return this.#sql.exec<{ no: number; json: string }>(query, after, AT_ONCE).toArray();
  }
}
