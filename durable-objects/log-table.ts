import type { LoggedTime } from "../src/retention/cover.ts";
import type { BodyPart } from "../src/transcript/body-line.ts";
import type { StoredRun } from "./segment-store.ts";
import { rowsIfThere } from "./stored.ts";

/** One write of a record or of a run of a body. `line` and `body` are last: scans for `jti` never read their pages. */
type LogRow = {
  id: number;
  seq: number | null;
  jti: string | null;
  jti_until_ms: number | null;
  body_of: number | null;
  body_part: BodyPart | null;
  body_index: number | null;
  salt: ArrayBuffer | null;
  raw: 1 | null;
  state: string | null;
  line: string | null;
  body: ArrayBuffer | null;
};

/** A SQLite value holds 2 MB on the platform (locally 4 MiB pass, so nothing but this constant catches it). */
export const BODY_RUN_MAX_BYTES = 1_900_000;

/** Of one query. A line holds the headers of a call, so these are a few MB at most. */
const LINES_AT_ONCE = 64;

export interface BodyRun {
  /** `seq` of the envelope that the body belongs to. */
  readonly of: number;
  readonly part: BodyPart;
  readonly index: number;
  /** With index 0. */
  readonly salt: Uint8Array | null;
  readonly bytes: Uint8Array;
  /** It stands for what follows of the body, which lies in raw objects. It has no bytes of its own. */
  readonly isRaw: boolean;
}

export interface NewRow {
  readonly seq: number | null;
  /** The proof whose replay must be refused until then. */
  readonly jti: { readonly id: string; readonly untilMs: number } | null;
  /** Running totals after this record; the newest is what a restart begins with. */
  readonly state: string | null;
  readonly line: string | null;
  readonly body: BodyRun | null;
}

/** What an object that starts anew must know of its open table. */
export interface Contents {
  readonly records: number;
  readonly firstSeq: number | null;
  readonly lastSeq: number | null;
  readonly jtiUntilMs: number;
  readonly bytes: number;
}

/** One table of a log: the rows of one segment, from its first record until they stand in R2. Created with its first row. */
export class LogTable {
  readonly #sql: SqlStorage;
  readonly #name: string;
  readonly #insert: string;
  #isThere: boolean;

  /** @param isThere false: not known, and created if need be. */
  constructor(sql: SqlStorage, no: number, isThere: boolean) {
    this.#sql = sql;
    this.#name = `log_${no}`;
    this.#insert = `INSERT INTO ${this.#name} (seq, jti, jti_until_ms, body_of, body_part, body_index, salt, raw, state, line, body)
      VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`;
    this.#isThere = isThere;
  }

  /** Of a table that may not have been created. */
  contents(): Contents {
    const [found] =
      rowsIfThere<{ records: number; first: number | null; last: number | null; until: number | null; bytes: number }>(
        this.#sql,
        `SELECT count(line) AS records, min(seq) AS first, max(seq) AS last, max(jti_until_ms) AS until,
         coalesce(sum(coalesce(length(line), 0) + coalesce(length(body), 0)), 0) AS bytes FROM ${this.#name}`,
      ) ?? [];
    this.#isThere = found !== undefined;
    const { records = 0, first = null, last = null, until = null, bytes = 0 } = found ?? {};
    return { records, firstSeq: first, lastSeq: last, jtiUntilMs: until ?? 0, bytes };
  }

  /** One row. Returns its bytes, as far as they count. */
  insert({ seq, jti, state, line, body }: NewRow): number {
    if (body !== null && body.bytes.length > BODY_RUN_MAX_BYTES)
      throw new Error("a run of a body longer than a row holds");
    if (!this.#isThere) {
      this.#sql.exec(
        `CREATE TABLE IF NOT EXISTS ${this.#name} (
         id INTEGER PRIMARY KEY, seq INTEGER, jti TEXT, jti_until_ms INTEGER, body_of INTEGER, body_part TEXT,
         body_index INTEGER, salt BLOB, raw INTEGER, state TEXT, line TEXT, body BLOB)`,
      );
      this.#isThere = true;
    }
    this.#sql.exec(
      this.#insert,
      seq,
      jti?.id ?? null,
      jti?.untilMs ?? null,
      body?.of ?? null,
      body?.part ?? null,
      body?.index ?? null,
      body?.salt ?? null,
      body?.isRaw === true ? 1 : null,
      state,
      line,
      body === null || body.bytes.length === 0 ? null : body.bytes,
    );
    return (line?.length ?? 0) + (body?.bytes.length ?? 0);
  }

  record(seq: number): { readonly line: string; readonly state: string } | undefined {
    const [row] = this.#rows<{ line: string; state: string }>("SELECT line, state", "WHERE seq = ?", seq);
    return row;
  }

  /** Who stops in the middle leaves no cursor behind: one that is open keeps the table from being dropped. */
  *lines(fromSeq: number): Generator<string> {
    const where = "WHERE id > ? AND line IS NOT NULL AND seq >= ? ORDER BY id LIMIT ?";
    for (let after = 0; ; ) {
      const rows = this.#rows<{ id: number; line: string }>("SELECT id, line", where, after, fromSeq, LINES_AT_ONCE);
      for (const { line } of rows) yield line;
      const last = rows.at(-1);
      if (last === undefined || rows.length < LINES_AT_ONCE) return;
      after = last.id;
    }
  }

  *jtis(): Generator<readonly [jti: string, untilMs: number]> {
    const rows = this.#rows<{ jti: string; jti_until_ms: number }>("SELECT jti, jti_until_ms", "WHERE jti IS NOT NULL");
    for (const { jti, jti_until_ms } of rows) yield [jti, jti_until_ms];
  }

  /** The next run after the row with this id. One at a time: a table holds more than memory does. */
  runAfter(id: number): StoredRun | undefined {
    const [row] = this.#rows<Pick<LogRow, "id" | "body_of" | "body_part" | "body_index" | "salt" | "raw" | "body">>(
      "SELECT id, body_of, body_part, body_index, salt, raw, body",
      "WHERE id > ? AND body_of IS NOT NULL ORDER BY id LIMIT 1",
      id,
    );
    if (row === undefined) return undefined;
    const { body_of, body_part, body_index } = row;
    return { ...runOf(row), id: row.id, of: body_of!, part: body_part!, index: body_index!, isRaw: row.raw === 1 };
  }

  /** Runs of one body, in order. */
  *runsOf(of: number, part: BodyPart): Generator<BodyRun> {
    const where = "WHERE body_of = ? AND body_part = ? ORDER BY id";
    const select = "SELECT body_index, salt, raw, body";
    const rows = this.#each<Pick<LogRow, "body_index" | "salt" | "raw" | "body">>(select, where, of, part);
    for (const row of rows) yield { ...runOf(row), of, part, index: row.body_index!, isRaw: row.raw === 1 };
  }

  /** When each record was written, and which call it answers. */
  times(): LoggedTime[] {
    return this.#rows<{ readonly seq: number; readonly at: number; readonly answers: number | null }>(
      `SELECT seq, json_extract(line, '$.at') AS at,
       CASE json_extract(line, '$.type') WHEN 'answer' THEN json_extract(line, '$.call') END AS answers`,
      "WHERE line IS NOT NULL ORDER BY id",
    );
  }

  /** Bodies of records before this one go, salts included, but of these calls. How many, and how many bytes. */
  eraseBodies(fromSeq: number, but: readonly number[]): { readonly bodies: number; readonly bytes: number } {
    const where = "WHERE body_of < ? ORDER BY id";
    const runs = this.#rows<{ id: number; of: number; part: string; bytes: number }>(
      "SELECT id, body_of AS of, body_part AS part, coalesce(length(body), 0) AS bytes",
      where,
      fromSeq,
    ).filter(({ of }) => !but.includes(of));
    for (const { id } of runs)
      this.#sql.exec(
        `UPDATE ${this.#name} SET body_of = NULL, body_part = NULL, body_index = NULL, salt = NULL, raw = NULL, body = NULL
         WHERE id = ?`,
        id,
      );
    const bodies = new Set(runs.map(({ of, part }) => `${of} ${part}`)).size;
    return { bodies, bytes: runs.reduce((sum, { bytes }) => sum + bytes, 0) };
  }

  drop(): void {
    this.#sql.exec(`DROP TABLE ${this.#name}`);
    this.#isThere = false;
  }

  #rows<T extends Record<string, SqlStorageValue>>(select: string, where: string, ...bindings: SqlStorageValue[]): T[] {
    return [...this.#each<T>(select, where, ...bindings)];
  }

  #each<T extends Record<string, SqlStorageValue>>(
    select: string,
    where: string,
    ...bindings: SqlStorageValue[]
  ): Iterable<T> {
    return this.#isThere ? this.#sql.exec<T>(`${select} FROM ${this.#name} ${where}`, ...bindings) : [];
  }
}

const runOf = ({ salt, body }: Pick<LogRow, "salt" | "body">): Pick<BodyRun, "salt" | "bytes"> => ({
  salt: salt === null ? null : new Uint8Array(salt),
  bytes: new Uint8Array(body ?? new ArrayBuffer(0)),
});
