import type { ErasureRequest, HeldSubject, Hold, HoldState, Release } from "../src/retention/contract.ts";
import { forbids } from "../src/retention/cover.ts";
import { HOLD, RELEASE } from "./retention-shapes.ts";
import { readStored } from "./stored.ts";

type HoldRow = { no: number; json: string; released: string | null };

const SCHEMA = [
  "CREATE TABLE IF NOT EXISTS holds (no INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, json TEXT NOT NULL, released TEXT)",
  "CREATE INDEX IF NOT EXISTS holds_standing ON holds (no) WHERE released IS NULL",
  `CREATE TABLE IF NOT EXISTS releases (hold TEXT NOT NULL, by TEXT NOT NULL, at_ms INTEGER NOT NULL,
     PRIMARY KEY (hold, by)) WITHOUT ROWID`,
];

/** The tables of legal holds. */
export class HoldBook {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    for (const statement of SCHEMA) sql.exec(statement);
  }

  add(hold: Hold): void {
    this.#sql.exec("INSERT INTO holds (id, json) VALUES (?, ?)", hold.id, JSON.stringify(hold));
  }

  get(id: string, sinceMs: number): HoldState | undefined {
    return this.#select("id = ?", [id], sinceMs)[0];
  }

  before(before: string | null, limit: number, sinceMs: number): HoldState[] {
    const where = before === null ? "1 = 1" : "no < (SELECT no FROM holds WHERE id = ?)";
    return this.#select(`${where} ORDER BY no DESC LIMIT ${limit}`, before === null ? [] : [before], sinceMs);
  }

  /** The first standing hold of whom this is true. */
  standing(keeps: (subject: HeldSubject) => boolean): Hold | undefined {
    for (const { json } of this.#sql.exec<HoldRow>("SELECT * FROM holds WHERE released IS NULL ORDER BY no")) {
      const hold = readStored(HOLD, "hold", json);
      if (keeps(hold.subject)) return hold;
    }
    return undefined;
  }

  /** A standing hold because of which nothing of this erasure may go. */
  forbidding(erasure: Pick<ErasureRequest, "human" | "task">): Hold | undefined {
    return this.standing((subject) => forbids(subject, erasure));
  }

  askRelease(id: string, by: string, nowMs: number): void {
    this.#sql.exec("INSERT OR REPLACE INTO releases (hold, by, at_ms) VALUES (?, ?, ?)", id, by, nowMs);
  }

  release(id: string, release: Release): void {
    this.#sql.exec("UPDATE holds SET released = ? WHERE id = ?", JSON.stringify(release), id);
    this.#sql.exec("DELETE FROM releases WHERE hold = ?", id);
  }

  #select(where: string, bindings: readonly string[], sinceMs: number): HoldState[] {
    return this.#sql
      .exec<HoldRow>(`SELECT * FROM holds WHERE ${where}`, ...bindings)
      .toArray()
      .map(({ json, released }) => {
        const hold = readStored(HOLD, "hold", json);
        const asked = this.#sql
          .exec<{ by: string }>("SELECT by FROM releases WHERE hold = ? AND at_ms > ? ORDER BY at_ms", hold.id, sinceMs)
          .toArray();
        return {
          ...hold,
          released: released === null ? null : readStored(RELEASE, "release of a hold", released),
          releaseAskedBy: asked.map(({ by }) => by),
        };
      });
  }
}
