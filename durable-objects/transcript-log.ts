import * as z from "zod";
import type { KeyRing } from "../src/grant/keys.ts";
import type { ErasedBodies } from "../src/instance/contract.ts";
import { extentOf } from "../src/retention/cover.ts";
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
import type { Kept } from "./kept.ts";
import { LogSegments, type StoredSegment } from "./log-segments.ts";
import { type BodyRun, LogTable } from "./log-table.ts";
import { parseStored, readStored, whole } from "./stored.ts";

/** The table that is written to. */
interface Open {
  readonly no: number;
  readonly table: LogTable;
  records: number;
  firstSeq: number | null;
  bytes: number;
  jtiUntilMs: number;
  /** When its first record was written. */
  oldestAtMs: number | null;
}

/** Of one answer over RPC, which takes 32 MiB. */
const READ_MAX_CHARS = 8_388_608;
/** Beyond this many, a `jti` of a refusal that had no effect is no longer kept in memory alone. */
const REMEMBERED_MAX = 50_000;

export interface Append {
  readonly type: RecordType;
  readonly fields: Fields;
  /** The proof whose replay must be refused until then. */
  readonly jti?: { readonly id: string; readonly untilMs: number };
  readonly body?: BodyRun | null;
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
  readonly #sql: SqlStorage;
  readonly #kept: Kept;
  readonly #segments: LogSegments;
  #open: Open;
  #nextSeq = 0;
  #head = FIRST_PREV;
  #state: string | null = null;
  /** Read when the first proof is held against them: who is only stopped needs none. */
  #jtis: Map<string, number> | null = null;
  #closed = false;

  /** Memory is only a cache of storage: everything in it is made here. */
  constructor(sql: SqlStorage, kept: Kept) {
    this.#sql = sql;
    this.#kept = kept;
    this.#segments = new LogSegments(sql, kept);
    const { newest, nextNo } = this.#segments;
    if (newest !== undefined) {
      this.#nextSeq = newest.lastSeq + 1;
      this.#head = newest.head;
      this.#state = newest.state;
      this.#closed = newest.final;
    }
    this.#open = this.#closed ? this.#newTable(nextNo) : this.#findTable(nextNo);
  }

  #newTable(no: number): Open {
    const table = new LogTable(this.#sql, no, false);
    return { no, table, records: 0, firstSeq: null, bytes: 0, jtiUntilMs: 0, oldestAtMs: null };
  }

  #findTable(no: number): Open {
    const open = this.#newTable(no);
    const { table } = open;
    const { firstSeq, lastSeq, ...contents } = table.contents();
    if (firstSeq === null || lastSeq === null) return { ...open, ...contents };
    const newest = table.record(lastSeq)!;
    this.#nextSeq = lastSeq + 1;
    this.#head = sha256Hex(newest.line);
    this.#state = newest.state;
    const { line } = firstSeq === lastSeq ? newest : table.record(firstSeq)!;
    return { ...open, ...contents, firstSeq, oldestAtMs: readStored(FRAME, "record", line).at };
  }

  get nextSeq(): number {
    return this.#nextSeq;
  }
  get state(): Json | undefined {
    return this.#state === null ? undefined : (parseStored("running totals", this.#state) as Json);
  }
  /** Bytes that are not in R2. */
  get heldBytes(): number {
    return this.#segments.unstoredBytes + this.#open.bytes;
  }
  /** Sealed as final: nothing can follow. */
  get isClosed(): boolean {
    return this.#closed;
  }
  /** When the first record of the open table was written; null while it is empty. */
  get oldestAtMs(): number | null {
    return this.#open.oldestAtMs;
  }
  get openBytes(): number {
    return this.#open.bytes;
  }

  hasSeen(jti: string): boolean {
    return this.#seen.has(jti);
  }

  /** Remembers a `jti` in memory alone: for refusals that share one counted record, which have no effect to repeat. */
  remember(jti: string, untilMs: number): void {
    if (this.#seen.size < REMEMBERED_MAX) this.#seen.set(jti, untilMs);
  }

  get #seen(): Map<string, number> {
    this.#jtis ??= new Map(this.#tables().flatMap((table) => [...table.jtis()]));
    return this.#jtis;
  }

  /** One row. Returns the record's `seq`. */
  append(record: Append): number {
    if (this.#closed) throw new Error("the log has ended");
    const open = this.#open;
    const seq = this.#nextSeq;
    if (seq === 0) this.#kept.begin();
    const line = writeEnvelope(
      { v: ENVELOPE_VERSION, type: record.type, seq, at: record.nowMs, prev: this.#head },
      record.fields,
    );
    const state = JSON.stringify(record.state);
    const { jti = null, body = null } = record;
    // Before the row, or it would be read from there as well, and be its own replay.
    const seen = jti === null ? null : this.#seen;
    open.bytes += open.table.insert({ seq, jti, body, state, line });
    this.#nextSeq = seq + 1;
    this.#head = sha256Hex(line);
    this.#state = state;
    open.records++;
    open.firstSeq ??= seq;
    open.oldestAtMs ??= record.nowMs;
    if (jti !== null) {
      seen?.set(jti.id, jti.untilMs);
      open.jtiUntilMs = Math.max(open.jtiUntilMs, jti.untilMs);
    }
    return seq;
  }

  /** One row: a run of a body that is longer than what fits beside its record. */
  appendBody(run: BodyRun): void {
    if (this.#closed) throw new Error("the log has ended");
    this.#open.bytes += this.#open.table.insert({ seq: null, jti: null, body: run, state: null, line: null });
  }

  /** Runs of one body that are still in the log, in order. */
  *bodyRuns(of: number, part: BodyPart): Generator<BodyRun> {
    for (const table of this.#tables()) yield* table.runsOf(of, part);
  }

  /** A record that has not been dropped from the log. */
  recordOf(seq: number): Fields | undefined {
    for (const table of this.#tables()) {
      const row = table.record(seq);
      if (row !== undefined) return JSON.parse(row.line) as Fields;
    }
    return undefined;
  }

  /** The answer to a call that was made a moment ago. Reads what followed it. */
  answerTo(call: number): Fields | undefined {
    for (const table of this.#tables())
      for (const line of table.lines(call + 1)) {
        const record = JSON.parse(line) as Fields;
        if (record["type"] === "answer" && record["call"] === call) return record;
      }
    return undefined;
  }

  /** Freezes the open table as a segment. Synchronous: range and seal are fixed in one commit, before any copy of it leaves. */
  seal(options: Sealing, final: boolean, nowMs: number): void {
    const { no, firstSeq, jtiUntilMs, bytes } = this.#open;
    if (firstSeq === null) return;
    const lastSeq = this.#nextSeq - 1;
    const head = this.#head;
    const sealLine = writeSealLine(options.sealKeys, {
      iss: options.issuer,
      log: options.log,
      first: firstSeq,
      last: lastSeq,
      prev: this.#segments.newest?.head ?? FIRST_PREV,
      head,
      at: nowMs,
      final,
    });
    const state = this.#state ?? "null";
    this.#segments.seal({ firstSeq, lastSeq, head, sealLine, state, jtiUntilMs, bytes, final });
    this.#open = this.#newTable(no + 1);
    this.#closed = final;
  }

  /** Puts what is sealed into R2. */
  store(bucket: R2Bucket, partition: string, onStored?: (segment: StoredSegment) => Promise<void>): Promise<void> {
    return this.#segments.store(bucket, partition, onStored);
  }

  /** Drops what is in R2 and nothing here needs any more. */
  drop(nowMs: number, oldestOpenCall: number | null): void {
    this.#segments.drop(nowMs, oldestOpenCall);
    for (const [jti, untilMs] of this.#jtis ?? []) if (untilMs < nowMs) this.#jtis?.delete(jti);
  }

  dropAtMs(oldestOpenCall: number | null): number | null {
    return this.#segments.dropAtMs(oldestOpenCall);
  }

  get hasUnstored(): boolean {
    return this.#segments.hasUnstored;
  }

  /**
   * Envelope lines from `fromSeq` on that are not in R2, oldest first, as many as fit; a sealed segment's seal follows
   * its last line.
   */
  unstoredLines(fromSeq: number, maxLines: number): string[] {
    const lines: string[] = [];
    const room = { lines: maxLines, chars: READ_MAX_CHARS };
    for (const { segment, table } of this.#segments.unstored()) {
      if (segment.lastSeq < fromSeq) continue;
      if (!fill(lines, room, table.lines(fromSeq))) return lines;
      lines.push(segment.sealLine);
    }
    fill(lines, room, this.#open.table.lines(fromSeq));
    return lines;
  }

  /**
   * Blanks bodies of records up to this time, but of calls that had no answer by then: what is recorded later must still
   * fit. `later`: a sealed segment is not in R2, whose bytes are fixed. Synchronous; in R2 nothing is touched.
   */
  eraseBodies(beforeMs: number, open: readonly number[]): ErasedBodies | "later" {
    if (this.hasUnstored) return "later";
    const rows = this.#tables().flatMap((table) => table.times());
    const { dropped } = this.#segments;
    // Of dropped tables only the newest seal is known.
    const before =
      dropped === undefined ? null : { lastSeq: dropped.lastSeq, sealedAtMs: sealedAtMs(dropped.sealLine) };
    const extent = extentOf(rows, before, { beforeMs, open, nextSeq: this.#nextSeq });
    let blanked = 0;
    for (const table of this.#tables()) {
      const { bodies, bytes } = table.eraseBodies(extent.fromSeq, extent.running);
      blanked += bodies;
      if (table === this.#open.table) this.#open.bytes -= bytes;
    }
    return { ...extent, blanked };
  }

  /** Oldest first, the open one last. */
  #tables(): LogTable[] {
    return [...this.#segments.tables(), this.#open.table];
  }
}

/** What a start needs of a record. */
const FRAME = whole<{ readonly at: number }>({ at: z.number() });

/** As its signature states; it is our own. */
const sealedAtMs = (sealLine: string): number => {
  const { jws } = JSON.parse(sealLine) as { jws: string };
  return (JSON.parse(Buffer.from(jws.split(".")[1]!, "base64url").toString()) as { at: number }).at;
};

/** False: there are more lines than fit. */
function fill(lines: string[], room: { lines: number; chars: number }, more: Iterable<string>): boolean {
  for (const line of more) {
    // At least one, however long: who reads must come forward.
    if (room.lines <= 0 || (room.chars < line.length && lines.length > 0)) return false;
    room.lines--;
    room.chars -= line.length;
    lines.push(line);
  }
  return true;
}
