import type { FlipRequest } from "../src/control/contract.ts";
import type { Mandate, MandateState, Revocation } from "../src/mandate/contract.ts";
import { HANDOVER } from "./instance-shapes.ts";
import { MANDATE } from "./mandate-shape.ts";
import { readStored, UnreadableState } from "./stored.ts";

type MandateRow = {
  no: number;
  id: string;
  json: string;
  uses: number;
  /** JSON of `Revocation`; null while it stands. */
  revoked: string | null;
  /** JSON of the flip that ends what works under it; null: none, or the switchboard has it. */
  flip: string | null;
  ended_at_ms: number;
};

const SCHEMA = [
  `CREATE TABLE IF NOT EXISTS mandates (no INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, json TEXT NOT NULL,
     uses INTEGER NOT NULL DEFAULT 0, revoked TEXT, flip TEXT, ended_at_ms INTEGER NOT NULL)`,
  "CREATE INDEX IF NOT EXISTS mandates_flips ON mandates (no) WHERE flip IS NOT NULL",
  `CREATE TABLE IF NOT EXISTS days (mandate TEXT NOT NULL, day TEXT NOT NULL, uses INTEGER NOT NULL,
     PRIMARY KEY (mandate, day)) WITHOUT ROWID`,
  "CREATE TABLE IF NOT EXISTS assertions (jti TEXT PRIMARY KEY, until_ms INTEGER NOT NULL) WITHOUT ROWID",
];

const LISTED_MAX = 1_000;

export interface PendingFlip {
  readonly next: { readonly mandate: string; readonly flip: FlipRequest } | null;
  /** Why one before it can't be read; null: there is none. */
  readonly unreadable: UnreadableState | null;
}

/** The tables of one human's mandates, and of the assertions about them that were used. */
export class MandateTables {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    for (const statement of SCHEMA) sql.exec(statement);
  }

  add(mandate: Mandate): void {
    const insert = "INSERT INTO mandates (id, json, ended_at_ms) VALUES (?, ?, ?)";
    this.#sql.exec(insert, mandate.id, JSON.stringify(mandate), mandate.expiresAtMs);
  }

  get(id: string): MandateState | undefined {
    return this.#select("id = ?", id)[0];
  }

  newest(): MandateState[] {
    return this.#select(`1 = 1 ORDER BY no DESC LIMIT ${LISTED_MAX}`);
  }

  countStanding(nowMs: number): number {
    const query = "SELECT count(*) AS standing FROM mandates WHERE revoked IS NULL AND ended_at_ms > ?";
    return this.#sql.exec<{ standing: number }>(query, nowMs).one().standing;
  }

  /** When the one that so many others came after, itself included, was approved. `-Infinity`: there are fewer. */
  approvedAtOf(count: number): number {
    const query = "SELECT json_extract(json, '$.approvedAtMs') AS at FROM mandates ORDER BY no DESC LIMIT 1 OFFSET ?";
    return this.#sql.exec<{ at: number }>(query, count - 1).toArray()[0]?.at ?? Number.NEGATIVE_INFINITY;
  }

  /** Over for so long that nobody asks any more. A flip that the switchboard has not heard of is never forgotten. */
  forget(endedByMs: number): void {
    const old = "SELECT id FROM mandates WHERE ended_at_ms <= ?1 AND flip IS NULL";
    this.#sql.exec(`DELETE FROM days WHERE mandate IN (${old})`, endedByMs);
    this.#sql.exec("DELETE FROM mandates WHERE ended_at_ms <= ? AND flip IS NULL", endedByMs);
  }

  usesOn(id: string, day: string): number {
    const query = "SELECT uses FROM days WHERE mandate = ? AND day = ?";
    return this.#sql.exec<{ uses: number }>(query, id, day).toArray()[0]?.uses ?? 0;
  }

  countUse(id: string, day: string): void {
    this.#sql.exec("UPDATE mandates SET uses = uses + 1 WHERE id = ?", id);
    this.#sql.exec("DELETE FROM days WHERE mandate = ? AND day <> ?", id, day);
    this.#sql.exec(
      "INSERT INTO days (mandate, day, uses) VALUES (?, ?, 1) ON CONFLICT (mandate, day) DO UPDATE SET uses = uses + 1",
      id,
      day,
    );
  }

  revoke(id: string, revocation: Revocation, flip: FlipRequest | null): void {
    this.#sql.exec(
      "UPDATE mandates SET revoked = ?, flip = ?, ended_at_ms = min(ended_at_ms, ?) WHERE id = ?",
      JSON.stringify(revocation),
      flip === null ? null : JSON.stringify(flip),
      revocation.atMs,
      id,
    );
  }

  get hasFlips(): boolean {
    return this.#sql.exec("SELECT 1 FROM mandates WHERE flip IS NOT NULL LIMIT 1").toArray().length > 0;
  }

  /** Of a mandate whose revocation the switchboard has perhaps not heard of: the first that can be read. */
  nextFlip(): PendingFlip {
    let unreadable: UnreadableState | null = null;
    const query = "SELECT id, flip FROM mandates WHERE flip IS NOT NULL ORDER BY no";
    for (const { id, flip } of this.#sql.exec<{ id: string; flip: string }>(query).toArray())
      try {
        return { next: { mandate: id, flip: readStored(HANDOVER, "switch of a mandate", flip) }, unreadable };
      } catch (error) {
        if (!(error instanceof UnreadableState)) throw error;
        unreadable = error;
      }
    return { next: null, unreadable };
  }

  setFlipped(mandate: string): void {
    this.#sql.exec("UPDATE mandates SET flip = NULL WHERE id = ?", mandate);
  }

  /** True: it was not used before. */
  spendAssertion(jti: string, untilMs: number, nowMs: number): boolean {
    this.#sql.exec("DELETE FROM assertions WHERE until_ms <= ?", nowMs);
    if (this.#sql.exec("SELECT 1 FROM assertions WHERE jti = ?", jti).toArray().length > 0) return false;
    this.#sql.exec("INSERT INTO assertions (jti, until_ms) VALUES (?, ?)", jti, untilMs);
    return true;
  }

  #select(where: string, ...bindings: string[]): MandateState[] {
    return this.#sql
      .exec<MandateRow>(`SELECT * FROM mandates WHERE ${where}`, ...bindings)
      .toArray()
      .map(({ json, uses, revoked }) => ({
        mandate: readStored(MANDATE, "mandate", json),
        uses,
        revoked: revoked === null ? null : (JSON.parse(revoked) as Revocation),
      }));
  }
}
