import type { KeyRing } from "../src/grant/keys.ts";
import type { Json } from "../src/scope/call.ts";
import type { BodyPart } from "../src/transcript/body-line.ts";
import {
  ENVELOPE_VERSION,
  FIRST_PREV,
  type Fields,
  type RecordType,
  sha256Hex,
  writeEnvelope,
} from "../src/transcript/envelope.ts";
import { writeSealLine } from "../src/transcript/seal.ts";
import { type SealedSegment, storeSegment } from "./segment-store.ts";

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
  state: string | null;
  line: string | null;
  body: ArrayBuffer | null;
};

/** A frozen log table: its range and seal are fixed before it is written anywhere. */
type SegmentRow = {
  no: number;
  first_seq: number;
  last_seq: number;
  head: string;
  seal_line: string;
  state: string;
  jti_until_ms: number;
  /** 1: nothing follows. */
  final: number;
  /** 0 sealed, 1 in R2, 2 in R2 and its table dropped. */
  stage: number;
};

const SEGMENTS = `CREATE TABLE IF NOT EXISTS segments (
  no INTEGER PRIMARY KEY, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL, head TEXT NOT NULL,
  seal_line TEXT NOT NULL, state TEXT NOT NULL, jti_until_ms INTEGER NOT NULL, final INTEGER NOT NULL,
  stage INTEGER NOT NULL)`;

const insertInto = (no: number): string =>
  `INSERT INTO log_${no} (seq, jti, jti_until_ms, body_of, body_part, body_index, salt, state, line, body)
   VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`;

const logTable = (no: number): string => `CREATE TABLE IF NOT EXISTS log_${no} (
  id INTEGER PRIMARY KEY, seq INTEGER, jti TEXT, jti_until_ms INTEGER, body_of INTEGER, body_part TEXT,
  body_index INTEGER, salt BLOB, state TEXT, line TEXT, body BLOB)`;

/** Of one answer over RPC, which takes 32 MiB. */
const READ_MAX_CHARS = 8_388_608;
/** Beyond this many, a `jti` of a refusal that had no effect is no longer kept in memory alone. */
const REMEMBERED_MAX = 50_000;
/** A SQLite value holds 2 MB on the platform (locally 4 MiB pass, so nothing but this constant catches it). */
export const BODY_RUN_MAX_BYTES = 1_900_000;

export interface BodyRun {
  /** `seq` of the envelope that the body belongs to. */
  readonly of: number;
  readonly part: BodyPart;
  readonly index: number;
  /** With index 0. */
  readonly salt: Uint8Array | null;
  readonly bytes: Uint8Array;
}

export interface Append {
  readonly type: RecordType;
  readonly fields: Fields;
  /** The proof whose replay must be refused until then. */
  readonly jti?: { readonly id: string; readonly untilMs: number };
  readonly body?: BodyRun;
  /** Running totals after this record; the newest is what a restart begins with. */
  readonly state: Json;
  readonly nowMs: number;
}

/** What a seal says besides the range. */
export interface Sealing {
  readonly issuer: string;
  /** The name that seals carry. */
  readonly log: string;
  readonly sealKeys: KeyRing;
}

/**
 * The hash-chained log of one object: rows in SQLite until they stand in R2. One row a record, with its body, its
 * `jti`, the running totals. All of `append` and `seal` is synchronous: nothing interleaves between reading the
 * head and writing the next one, and the object's output gate holds every answer until the rows are durable.
 */
export class TranscriptLog {
  readonly #storage: DurableObjectStorage;
  #no = 0;
  #insertSql = "";
  #nextSeq = 0;
  #head = FIRST_PREV;
  #state: string | null = null;
  /** Of the open table. */
  #records = 0;
  #openBytes = 0;
  #oldestAtMs: number | null = null;
  /** Bytes that are not in R2. */
  #heldBytes = 0;
  #jtis = new Map<string, number>();
  #closed = false;

  constructor(storage: DurableObjectStorage) {
    this.#storage = storage;
    this.#storage.sql.exec(SEGMENTS);
    this.#rebuild();
  }

  get nextSeq(): number {
    return this.#nextSeq;
  }
  get state(): Json | undefined {
    return this.#state === null ? undefined : (JSON.parse(this.#state) as Json);
  }
  get heldBytes(): number {
    return this.#heldBytes;
  }
  /** Sealed as final: nothing can follow. */
  get isClosed(): boolean {
    return this.#closed;
  }
  /** When the first record of the open table was written; null while it is empty. */
  get oldestAtMs(): number | null {
    return this.#oldestAtMs;
  }
  get openBytes(): number {
    return this.#openBytes;
  }

  hasSeen(jti: string): boolean {
    return this.#jtis.has(jti);
  }

  /** Remembers a `jti` in memory alone: for refusals that share one counted record, which have no effect to repeat. */
  remember(jti: string, untilMs: number): void {
    if (this.#jtis.size < REMEMBERED_MAX) this.#jtis.set(jti, untilMs);
  }

  /** One row. Returns the record's `seq`. */
  append(record: Append): number {
    if (this.#closed) throw new Error("the log has ended");
    const seq = this.#nextSeq;
    const line = writeEnvelope(
      { v: ENVELOPE_VERSION, type: record.type, seq, at: record.nowMs, prev: this.#head },
      record.fields,
    );
    const state = JSON.stringify(record.state);
    this.#insert({ seq, jti: record.jti ?? null, body: record.body ?? null, state, line });
    this.#nextSeq = seq + 1;
    this.#head = sha256Hex(line);
    this.#state = state;
    this.#records++;
    this.#oldestAtMs ??= record.nowMs;
    if (record.jti !== undefined) this.#jtis.set(record.jti.id, record.jti.untilMs);
    return seq;
  }

  /** One row: a run of a body that is longer than what fits beside its record. */
  appendBody(run: BodyRun): void {
    if (this.#closed) throw new Error("the log has ended");
    this.#insert({ seq: null, jti: null, body: run, state: null, line: null });
  }

  #insert(row: {
    seq: number | null;
    jti: { id: string; untilMs: number } | null;
    body: BodyRun | null;
    state: string | null;
    line: string | null;
  }): void {
    const { body } = row;
    if (body !== null && body.bytes.length > BODY_RUN_MAX_BYTES)
      throw new Error("a run of a body longer than a row holds");
    this.#storage.sql.exec(
      this.#insertSql,
      row.seq,
      row.jti?.id ?? null,
      row.jti?.untilMs ?? null,
      body?.of ?? null,
      body?.part ?? null,
      body?.index ?? null,
      body?.salt ?? null,
      row.state,
      row.line,
      body === null || body.bytes.length === 0 ? null : body.bytes,
    );
    const bytes = (row.line?.length ?? 0) + (body?.bytes.length ?? 0);
    this.#openBytes += bytes;
    this.#heldBytes += bytes;
  }

  /** Runs of one body that are still in the log, in order; for hashing it again after a restart. */
  *bodyRuns(of: number, part: BodyPart): Generator<{ salt: Uint8Array | null; bytes: Uint8Array }> {
    const tables = [...this.#segments("stage < 2").map(({ no }) => no), this.#no];
    for (const no of tables) {
      const rows = this.#storage.sql.exec<Pick<LogRow, "salt" | "body">>(
        `SELECT salt, body FROM log_${no} WHERE body_of = ? AND body_part = ? ORDER BY id`,
        of,
        part,
      );
      for (const { salt, body } of rows) yield { salt: bytesOrNull(salt), bytes: bytesOf(body) };
    }
  }

  /** A record that has not been dropped from the log. */
  recordOf(seq: number): Fields | undefined {
    for (const no of [this.#no, ...this.#segments("stage < 2").map((segment) => segment.no)]) {
      const row = this.#storage.sql
        .exec<{ line: string }>(`SELECT line FROM log_${no} WHERE seq = ?`, seq)
        .toArray()[0];
      if (row !== undefined) return JSON.parse(row.line) as Fields;
    }
    return undefined;
  }

  /** Freezes the open table as a segment. Synchronous: range and seal are fixed in one commit, before any copy of it leaves. */
  seal(options: Sealing, final: boolean, nowMs: number): void {
    if (this.#records === 0) return;
    const range = this.#storage.sql
      .exec<{ first_seq: number; last_seq: number; until: number | null }>(
        `SELECT min(seq) AS first_seq, max(seq) AS last_seq, max(jti_until_ms) AS until FROM log_${this.#no}`,
      )
      .one();
    const before = this.#segments("no = ?", this.#no - 1)[0];
    const sealLine = writeSealLine(options.sealKeys, {
      iss: options.issuer,
      log: options.log,
      first: range.first_seq,
      last: range.last_seq,
      prev: before?.head ?? FIRST_PREV,
      head: this.#head,
      at: nowMs,
      final,
    });
    this.#storage.sql.exec(
      `INSERT INTO segments (no, first_seq, last_seq, head, seal_line, state, jti_until_ms, final, stage)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)`,
      this.#no,
      range.first_seq,
      range.last_seq,
      this.#head,
      sealLine,
      this.#state ?? "null",
      range.until ?? 0,
      final ? 1 : 0,
    );
    this.#open(this.#no + 1);
    this.#records = 0;
    this.#openBytes = 0;
    this.#oldestAtMs = null;
    if (final) this.#closed = true;
  }

  /** Puts sealed segments into R2, oldest first. Rows stay until the put is confirmed, whatever happens between. */
  async store(bucket: R2Bucket, partition: string): Promise<void> {
    for (const segment of this.#segments("stage = 0")) {
      await storeSegment(bucket, partition, this.#sealed(segment));
      // Dying here, the segment is in R2 and will be found equal.
      this.#storage.sql.exec("UPDATE segments SET stage = 1 WHERE no = ?", segment.no);
      this.#heldBytes = Math.max(0, this.#heldBytes - this.#bytesOf(segment.no));
    }
  }

  #sealed({ no, first_seq, seal_line }: SegmentRow): SealedSegment {
    const { sql } = this.#storage;
    return {
      firstSeq: first_seq,
      sealLine: seal_line,
      lines: () => this.#lines(no),
      runAfter: (id) => {
        const row = sql
          .exec<Pick<LogRow, "id" | "body_of" | "body_part" | "body_index" | "salt" | "body">>(
            `SELECT id, body_of, body_part, body_index, salt, body FROM log_${no}
             WHERE id > ? AND body_of IS NOT NULL ORDER BY id LIMIT 1`,
            id,
          )
          .toArray()[0];
        if (row === undefined) return undefined;
        const { body_of, body_part, body_index } = row;
        return {
          id: row.id,
          of: body_of!,
          part: body_part!,
          index: body_index!,
          salt: bytesOrNull(row.salt),
          bytes: bytesOf(row.body),
        };
      },
    };
  }

  /**
   * Drops tables of segments that are in R2, hold no `jti` that could come again, and no run of a body still growing.
   * Of what is gone only the newest row stays: the chain goes on from it.
   */
  drop(nowMs: number, oldestOpenCall: number | null): void {
    const { sql } = this.#storage;
    for (const { no, last_seq } of this.#segments("stage = 1 AND jti_until_ms < ?", nowMs)) {
      if (oldestOpenCall !== null && oldestOpenCall <= last_seq) continue;
      sql.exec(`DROP TABLE log_${no}`);
      if (no === this.#no - 1) sql.exec("UPDATE segments SET stage = 2 WHERE no = ?", no);
      else sql.exec("DELETE FROM segments WHERE no = ?", no);
    }
    sql.exec("DELETE FROM segments WHERE stage = 2 AND no < ?", this.#no - 1);
    for (const [jti, untilMs] of this.#jtis) if (untilMs < nowMs) this.#jtis.delete(jti);
  }

  /** From when on there is something to drop. What a running call holds back, the record of its answer will free. */
  dropAtMs(oldestOpenCall: number | null): number | null {
    const held = this.#segments("stage = 1").filter(
      ({ last_seq }) => oldestOpenCall === null || oldestOpenCall > last_seq,
    );
    return held.length === 0 ? null : Math.min(...held.map((segment) => segment.jti_until_ms)) + 1;
  }

  get hasUnstored(): boolean {
    return this.#segments("stage = 0").length > 0;
  }

  /**
   * Envelope lines from `fromSeq` on that are not in R2, oldest first, as many as fit; a sealed segment's seal follows
   * its last line.
   */
  unstoredLines(fromSeq: number, maxLines: number): string[] {
    const lines: string[] = [];
    const room = { lines: maxLines, chars: READ_MAX_CHARS };
    for (const { no, seal_line, last_seq } of this.#segments("stage = 0")) {
      if (last_seq < fromSeq) continue;
      if (!this.#fill(lines, room, no, fromSeq)) return lines;
      lines.push(seal_line);
    }
    this.#fill(lines, room, this.#no, fromSeq);
    return lines;
  }

  /** False: there are more lines than fit. */
  #fill(lines: string[], room: { lines: number; chars: number }, no: number, fromSeq: number): boolean {
    const rows = this.#storage.sql.exec<{ line: string }>(
      `SELECT line FROM log_${no} WHERE line IS NOT NULL AND seq >= ? ORDER BY id`,
      fromSeq,
    );
    for (const { line } of rows) {
      // At least one, however long: who reads must come forward.
      if (room.lines <= 0 || (room.chars < line.length && lines.length > 0)) return false;
      room.lines--;
      room.chars -= line.length;
      lines.push(line);
    }
    return true;
  }

  #bytesOf(no: number): number {
    const { bytes } = this.#storage.sql
      .exec<{ bytes: number | null }>(
        `SELECT sum(coalesce(length(line), 0) + coalesce(length(body), 0)) AS bytes FROM log_${no}`,
      )
      .one();
    return bytes ?? 0;
  }

  #lines(no: number): string[] {
    return this.#storage.sql
      .exec<{ line: string }>(`SELECT line FROM log_${no} WHERE line IS NOT NULL ORDER BY id`)
      .toArray()
      .map(({ line }) => line);
  }

  #open(no: number): void {
    this.#no = no;
    this.#insertSql = insertInto(no);
    this.#storage.sql.exec(logTable(no));
  }

  #segments(where: string, ...bindings: number[]): SegmentRow[] {
    return this.#storage.sql
      .exec<SegmentRow>(`SELECT * FROM segments WHERE ${where} ORDER BY no`, ...bindings)
      .toArray();
  }

  /** Memory is only a cache of storage: everything in it is made here. */
  #rebuild(): void {
    const segments = this.#segments("1");
    const last = segments.at(-1);
    this.#open(last === undefined ? 0 : last.no + 1);
    if (last !== undefined) {
      this.#nextSeq = last.last_seq + 1;
      this.#head = last.head;
      this.#state = last.state;
      this.#closed = last.final === 1;
    }
    const newest = this.#storage.sql
      .exec<Pick<LogRow, "seq" | "line" | "state">>(
        `SELECT seq, line, state FROM log_${this.#no} WHERE line IS NOT NULL ORDER BY id DESC LIMIT 1`,
      )
      .toArray()[0];
    if (newest !== undefined) {
      this.#nextSeq = newest.seq! + 1;
      this.#head = sha256Hex(newest.line!);
      this.#state = newest.state;
      const open = this.#storage.sql
        .exec<{ records: number; at: string }>(
          `SELECT count(*) AS records, min(seq), line AS at FROM log_${this.#no} WHERE line IS NOT NULL`,
        )
        .one();
      this.#records = open.records;
      this.#oldestAtMs = (JSON.parse(open.at) as { at: number }).at;
    }
    for (const no of [...segments.filter(({ stage }) => stage < 2).map((segment) => segment.no), this.#no]) {
      const rows = this.#storage.sql.exec<{ jti: string; jti_until_ms: number }>(
        `SELECT jti, jti_until_ms FROM log_${no} WHERE jti IS NOT NULL`,
      );
      for (const { jti, jti_until_ms } of rows) this.#jtis.set(jti, jti_until_ms);
      const stored = segments.some((segment) => segment.no === no && segment.stage > 0);
      if (stored) continue;
      const bytes = this.#bytesOf(no);
      this.#heldBytes += bytes;
      if (no === this.#no) this.#openBytes = bytes;
    }
  }
}

const bytesOf = (value: ArrayBuffer | null): Uint8Array => new Uint8Array(value ?? new ArrayBuffer(0));
const bytesOrNull = (value: ArrayBuffer | null): Uint8Array | null => (value === null ? null : new Uint8Array(value));
