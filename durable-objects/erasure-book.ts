import type { ErasureRequest, ErasureState, ErasureStatus, Left } from "../src/retention/contract.ts";
import { type Extent, NOBODY } from "../src/retention/cover.ts";
import { type Doomed, ERASURE, type Erasure, EXTENT, PAGE, type Page } from "./retention-shapes.ts";
import { readStored } from "./stored.ts";

export type { Doomed, Erasure, Page };

type ErasureRow = {
  id: string;
  json: string;
  stage: Stage;
  /** Where it goes on: after this member of the roster, or after this key of the bucket. */
  cursor: string;
  /** JSON of `Page`, decided and not through yet; null: the next one is to be looked for. */
  page: string | null;
  /** How many of the page are gone, or left. */
  page_at: number;
  objects: number;
  bytes: number;
  rewritten: number;
  instances: number;
  blanked: number;
  status: ErasureStatus;
  stopped_by: string | null;
  ended_at_ms: number | null;
};

const SCHEMA = [
  `CREATE TABLE IF NOT EXISTS erasures (no INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, json TEXT NOT NULL,
     stage TEXT NOT NULL, cursor TEXT NOT NULL DEFAULT '', page TEXT,
     page_at INTEGER NOT NULL DEFAULT 0, instances INTEGER NOT NULL DEFAULT 0, objects INTEGER NOT NULL DEFAULT 0,
     bytes INTEGER NOT NULL DEFAULT 0, rewritten INTEGER NOT NULL DEFAULT 0, blanked INTEGER NOT NULL DEFAULT 0,
     status TEXT NOT NULL DEFAULT 'running', stopped_by TEXT, ended_at_ms INTEGER)`,
  "CREATE INDEX IF NOT EXISTS erasures_running ON erasures (no) WHERE status = 'running'",
  `CREATE TABLE IF NOT EXISTS extents (erasure TEXT NOT NULL, instance TEXT NOT NULL, task TEXT NOT NULL, extent TEXT,
     attempts INTEGER NOT NULL, PRIMARY KEY (erasure, instance)) WITHOUT ROWID`,
  `CREATE TABLE IF NOT EXISTS sweeps (erasure TEXT PRIMARY KEY, at_ms INTEGER NOT NULL, objects INTEGER NOT NULL,
     bytes INTEGER NOT NULL, rewritten INTEGER NOT NULL) WITHOUT ROWID`,
  `CREATE TABLE IF NOT EXISTS left_over (erasure TEXT NOT NULL, what TEXT NOT NULL, why TEXT NOT NULL,
     PRIMARY KEY (erasure, what)) WITHOUT ROWID`,
  `CREATE TABLE IF NOT EXISTS idempotency (by_key TEXT PRIMARY KEY, request TEXT NOT NULL, erasure TEXT NOT NULL) WITHOUT ROWID`,
];

/**
 * The certificate, then who still holds bodies, then the bucket, and what it refused once more. `late`: it is over, and
 * the bucket is gone through for what came back.
 */
export type Stage = "certificate" | "instances" | "objects" | "objects-again" | "late" | "over";

/** How far it is. */
export interface Running {
  readonly erasure: Erasure;
  readonly stage: Stage;
  readonly cursor: string;
  readonly page: Page | null;
  readonly pageAt: number;
}

/** Of a sweep. */
export type Found = { readonly objects: number; readonly bytes: number; readonly rewritten: number };

const LEFT_SHOWN = 100;
const HEARD = "SELECT count(*) AS n FROM extents WHERE erasure = ? AND extent IS NOT NULL";

/** The tables of erasures. Whatever is decided stands here first. */
export class ErasureBook {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    for (const statement of SCHEMA) sql.exec(statement);
  }

  add(erasure: Erasure, request: ErasureRequest): void {
    const { id } = erasure;
    this.#sql.exec("INSERT INTO erasures (id, json, stage) VALUES (?, ?, 'certificate')", id, JSON.stringify(erasure));
    if (request.idempotencyKey === null) return;
    this.#sql.exec(
      "INSERT INTO idempotency (by_key, request, erasure) VALUES (?, ?, ?)",
      keyOf(request),
      fingerprint(request),
      id,
    );
  }

  /** The erasure that this key made before: `undefined` none, `null` one of another request. */
  repeated(request: ErasureRequest): string | null | undefined {
    if (request.idempotencyKey === null) return undefined;
    const [row] = this.#sql
      .exec<{ request: string; erasure: string }>(
        "SELECT request, erasure FROM idempotency WHERE by_key = ?",
        keyOf(request),
      )
      .toArray();
    if (row === undefined) return undefined;
    return row.request === fingerprint(request) ? row.erasure : null;
  }

  /** The oldest: one at a time. */
  running(): Running | undefined {
    const [row] = this.#sql
      .exec<ErasureRow>("SELECT * FROM erasures WHERE status = 'running' ORDER BY no LIMIT 1")
      .toArray();
    if (row === undefined) return undefined;
    return runningOf(row);
  }

  // --- the sweep --------------------------------------------------------------------------------------------------

  /** One that is over, and is to be gone through once more by now: begun, or from where it was. */
  sweeping(nowMs: number): Running | undefined {
    const [row] = this.#sql
      .exec<ErasureRow>(
        "SELECT erasures.* FROM sweeps JOIN erasures ON id = erasure WHERE at_ms <= ? ORDER BY at_ms LIMIT 1",
        nowMs,
      )
      .toArray();
    if (row === undefined) return undefined;
    if (row.stage !== "over") return runningOf(row);
    this.goTo(row.id, "late", "");
    // Where nobody was, or answered, an instance may have come since: it is asked anew before anything of it goes.
    this.#sql.exec(
      "DELETE FROM extents WHERE erasure = ? AND (extent IS NULL OR json_extract(extent, '$.fromSeq') = ?)",
      row.id,
      NOBODY.fromSeq,
    );
    return runningOf({ ...row, stage: "late", cursor: "" });
  }

  get sweepAtMs(): number | null {
    return this.#sql.exec<{ at: number | null }>("SELECT min(at_ms) AS at FROM sweeps").one().at;
  }

  /** What the sweep has found. */
  endSweep(id: string): Found {
    const [found] = this.#sql
      .exec<Found>(
        `SELECT erasures.objects - sweeps.objects AS objects, erasures.bytes - sweeps.bytes AS bytes,
           erasures.rewritten - sweeps.rewritten AS rewritten
         FROM sweeps JOIN erasures ON id = erasure WHERE erasure = ?`,
        id,
      )
      .toArray();
    this.#sql.exec("UPDATE erasures SET stage = 'over', cursor = '', page = NULL WHERE id = ?", id);
    this.#sql.exec("DELETE FROM extents WHERE erasure = ?", id);
    this.#sql.exec("DELETE FROM sweeps WHERE erasure = ?", id);
    return found ?? { objects: 0, bytes: 0, rewritten: 0 };
  }

  get hasRunning(): boolean {
    return this.#sql.exec("SELECT 1 FROM erasures WHERE status = 'running' LIMIT 1").toArray().length > 0;
  }

  goTo(id: string, stage: Stage, cursor: string): void {
    this.#sql.exec("UPDATE erasures SET stage = ?, cursor = ? WHERE id = ?", stage, cursor, id);
  }

  setPage(id: string, page: Page): void {
    this.#sql.exec("UPDATE erasures SET page = ?, page_at = 0 WHERE id = ?", JSON.stringify(page), id);
  }

  /** The next of the page are through: counted where they are gone, in one commit. */
  passed(id: string, through: number, gone: readonly Doomed[]): void {
    const whole = gone.filter(({ isWhole }) => isWhole);
    this.#sql.exec(
      `UPDATE erasures SET page_at = page_at + ?, objects = objects + ?, bytes = bytes + ?, rewritten = rewritten + ?
         WHERE id = ?`,
      through,
      whole.length,
      whole.reduce((sum, { bytes }) => sum + bytes, 0),
      gone.length - whole.length,
      id,
    );
  }

  finishPage(id: string, { upTo }: Page): void {
    this.#sql.exec("UPDATE erasures SET page = NULL, page_at = 0, cursor = ? WHERE id = ?", upTo, id);
  }

  /** What an instance answered; null: it has not, so far. */
  setExtent(erasure: string, instance: string, task: string, extent: Extent | null, blanked: number): void {
    this.#sql.exec(
      `INSERT INTO extents (erasure, instance, task, extent, attempts) VALUES (?, ?, ?, ?, 1)
       ON CONFLICT (erasure, instance) DO UPDATE SET extent = excluded.extent, attempts = attempts + 1`,
      erasure,
      instance,
      task,
      extent === null ? null : JSON.stringify(extent),
    );
    this.#sql.exec("UPDATE erasures SET blanked = blanked + ? WHERE id = ?", blanked, erasure);
  }

  extent(erasure: string, instance: string): Extent | null | undefined {
    const [row] = this.#sql
      .exec<{ extent: string | null }>(
        "SELECT extent FROM extents WHERE erasure = ? AND instance = ?",
        erasure,
        instance,
      )
      .toArray();
    if (row === undefined) return undefined;
    return row.extent === null ? null : readStored(EXTENT, "extent of an erasure", row.extent);
  }

  attempts(erasure: string, instance: string): number {
    const [row] = this.#sql
      .exec<{ attempts: number }>("SELECT attempts FROM extents WHERE erasure = ? AND instance = ?", erasure, instance)
      .toArray();
    return row?.attempts ?? 0;
  }

  /** Instances that were asked, and have not answered. */
  unheard(
    erasure: string,
    limit: number,
  ): { readonly instance: string; readonly task: string; readonly attempts: number }[] {
    return this.#sql
      .exec<{ instance: string; task: string; attempts: number }>(
        "SELECT instance, task, attempts FROM extents WHERE erasure = ? AND extent IS NULL ORDER BY attempts LIMIT ?",
        erasure,
        limit,
      )
      .toArray();
  }

  /** Of one that is over nothing is added: what the sweep after it meets and does not take was written since, for all that can be told. */
  leave(erasure: string, what: string, why: string): void {
    this.#sql.exec(
      `INSERT OR IGNORE INTO left_over (erasure, what, why)
         SELECT ?1, ?2, ?3 WHERE NOT EXISTS (SELECT 1 FROM sweeps WHERE erasure = ?1)`,
      erasure,
      what,
      why,
    );
  }

  /** Objects that the bucket would not give, or that could not be told: they are looked at anew. */
  forgetLeftObjects(erasure: string): number {
    return this.#sql.exec("DELETE FROM left_over WHERE erasure = ? AND what LIKE 'bodies/%'", erasure).rowsWritten;
  }

  /** @param sweepAtMs null: it is not gone through again */
  end(id: string, status: ErasureStatus, stoppedBy: string | null, nowMs: number, sweepAtMs: number | null): void {
    this.#sql.exec(
      `UPDATE erasures SET stage = 'over', page = NULL, status = ?, stopped_by = ?, ended_at_ms = ?,
         instances = (${HEARD}) WHERE id = ?`,
      status,
      stoppedBy,
      nowMs,
      id,
      id,
    );
    if (sweepAtMs === null) this.#sql.exec("DELETE FROM extents WHERE erasure = ?", id);
    else
      this.#sql.exec(
        `INSERT OR IGNORE INTO sweeps (erasure, at_ms, objects, bytes, rewritten)
           SELECT id, ?, objects, bytes, rewritten FROM erasures WHERE id = ?`,
        sweepAtMs,
        id,
      );
  }

  leftCount(id: string): number {
    return this.#sql.exec<{ n: number }>("SELECT count(*) AS n FROM left_over WHERE erasure = ?", id).one().n;
  }

  state(id: string): ErasureState | undefined {
    const [row] = this.#sql.exec<ErasureRow>("SELECT * FROM erasures WHERE id = ?", id).toArray();
    if (row === undefined) return undefined;
    const { email: _, ...erasure } = readStored(ERASURE, "erasure", row.json);
    const left = this.#sql
      .exec<{ what: string; why: string }>(
        "SELECT what, why FROM left_over WHERE erasure = ? ORDER BY what LIMIT ?",
        id,
        LEFT_SHOWN,
      )
      .toArray() satisfies Left[];
    const { objects, bytes, rewritten, blanked, status, stopped_by, ended_at_ms } = row;
    return {
      ...erasure,
      status,
      objects,
      bytes,
      rewritten,
      instances: status === "running" ? this.#sql.exec<{ n: number }>(HEARD, id).one().n : row.instances,
      blanked,
      leftCount: this.leftCount(id),
      left,
      stoppedBy: stopped_by,
      endedAtMs: ended_at_ms,
    };
  }
}

const runningOf = ({ json, stage, cursor, page, page_at }: ErasureRow): Running => ({
  erasure: readStored(ERASURE, "erasure", json),
  stage,
  cursor,
  page: page === null ? null : readStored(PAGE, "page of an erasure", page),
  pageAt: page_at,
});

const keyOf = ({ by, idempotencyKey }: ErasureRequest): string => JSON.stringify([by, idempotencyKey]);

const fingerprint = ({ human, task, reason }: ErasureRequest): string => JSON.stringify([human, task, reason]);
