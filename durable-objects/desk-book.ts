import type * as z from "zod";
import { type Approval, type ApprovalState, type ApprovalSummary, isOpen } from "../src/approval/contract.ts";
import { APPROVAL, APPROVAL_SUMMARY } from "./instance-shapes.ts";
import { readStored } from "./stored.ts";

type RequestRow = { json: string };

const SCHEMA = [
  `CREATE TABLE IF NOT EXISTS requests (no INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, state TEXT NOT NULL,
     ended_at_ms INTEGER, json TEXT NOT NULL)`,
  "CREATE INDEX IF NOT EXISTS requests_asked ON requests (no) WHERE state = 'asked'",
  "CREATE INDEX IF NOT EXISTS requests_ended ON requests (ended_at_ms) WHERE ended_at_ms IS NOT NULL",
];

/** What is over is listed for so long. The record of it is in the instance's transcript and in the journal. */
const RECENT_MS = 30 * 86_400_000;

/** A state never goes back: what is told late, or twice, changes nothing. */
const RANK: Readonly<Record<ApprovalState, number>> = {
  asked: 0,
  approved: 1,
  used: 2,
  denied: 2,
  expired: 2,
  cancelled: 2,
};

/** The desk's table of requests for approval, of all instances. */
export class DeskBook {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    for (const statement of SCHEMA) sql.exec(statement);
  }

  get(id: string): Approval | undefined {
    return this.#select("json", APPROVAL, "WHERE id = ?", id)[0];
  }

  /** What was known of it before; null where nothing was. `known` itself where this says nothing new. */
  put(approval: Approval): { readonly isNews: boolean; readonly before: Approval | null } {
    const before = this.get(approval.id) ?? null;
    if (before !== null && RANK[approval.state] <= RANK[before.state]) return { isNews: false, before };
    this.#sql.exec(
      `INSERT INTO requests (id, state, ended_at_ms, json) VALUES (?, ?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET state = excluded.state, ended_at_ms = excluded.ended_at_ms, json = excluded.json`,
      approval.id,
      approval.state,
      isOpen(approval.state) ? null : approval.endedAtMs,
      JSON.stringify(approval),
    );
    return { isNews: true, before };
  }

  /** Newest first. */
  list(which: "open" | "all", before: string | null, limit: number): ApprovalSummary[] {
    const conditions = [
      which === "open" ? "state = 'asked'" : "1",
      before === null ? "1" : "no < coalesce((SELECT no FROM requests WHERE id = ?), 0)",
    ];
    const bindings = before === null ? [limit] : [before, limit];
    const where = `WHERE ${conditions.join(" AND ")} ORDER BY no DESC LIMIT ?`;
    return this.#select("json_remove(json, '$.seq', '$.headers', '$.body')", APPROVAL_SUMMARY, where, ...bindings);
  }

  prune(nowMs: number): void {
    this.#sql.exec("DELETE FROM requests WHERE ended_at_ms <= ?", nowMs - RECENT_MS);
  }

  get pruneAtMs(): number | null {
    const [row] = this.#sql
      .exec<{ at: number | null }>("SELECT min(ended_at_ms) AS at FROM requests WHERE ended_at_ms IS NOT NULL")
      .toArray();
    return row?.at == null ? null : row.at + RECENT_MS;
  }

  #select<T>(
    what: "json" | `json_remove(${string})`,
    shape: z.ZodType<T>,
    where: string,
    ...bindings: SqlStorageValue[]
  ): T[] {
    return this.#sql
      .exec<RequestRow>(`SELECT ${what} AS json FROM requests ${where}`, ...bindings)
      .toArray()
      .map(({ json }) => readStored(shape, "request for approval", json));
  }
}
