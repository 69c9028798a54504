import type { KeyRing } from "../src/grant/keys.ts";
import type { ErasedBodies } from "../src/instance/contract.ts";
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
import { type BodyRun, LogTable } from "./log-table.ts";
import { storeSegment } from "./segment-store.ts";

/** A frozen log table: its range and seal are fixed before it is written anywhere. */
interface Segment {
  readonly firstSeq: number;
  readonly lastSeq: number;
  /** Of its last line. */
  readonly head: string;
  readonly sealLine: string;
  /** Totals at its end. */
  readonly state: string;
  readonly jtiUntilMs: number;
  readonly bytes: number;
  /** Nothing follows. */
  readonly final: boolean;
  readonly stage: Stage;
}

const SEALED = 0;
const STORED = 1;
/** In R2, and its table dropped. Only the newest segment stays as this: the chain goes on from it. */
const DROPPED = 2;
type Stage = typeof SEALED | typeof STORED | typeof DROPPED;

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

/** A segment that stands in R2. Times are those of its first and last record. */
export interface StoredSegment {
  readonly first: number;
  readonly last: number;
  readonly head: string;
  readonly fromMs: number;
  readonly toMs: number;
  readonly final: boolean;
  readonly bodies: number;
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
  /** Oldest first. Their tables are there until `DROPPED`. */
  readonly #segments = new Map<number, Segment>();
  #open: Open;
  #nextSeq = 0;
  #head = FIRST_PREV;
  #state: string | null = null;
  /** Bytes that are not in R2. */
  #heldBytes = 0;
  /** Read when the first proof is held against them: who is only stopped needs none. */
  #jtis: Map<string, number> | null = null;
  /** In R2, and still to be named in the index: how many objects hold their bodies, by number. */
  readonly #put = new Map<number, number>();
  #closed = false;

  /** Memory is only a cache of storage: everything in it is made here. */
  constructor(sql: SqlStorage, kept: Kept) {
    this.#sql = sql;
    this.#kept = kept;
    const segments = [...kept.take<Segment>("segment")].map(([no, segment]) => [Number(no), segment] as const);
    for (const [no, segment] of segments.sort(([a], [b]) => a - b)) {
      this.#segments.set(no, segment);
      this.#nextSeq = segment.lastSeq + 1;
      this.#head = segment.head;
      this.#state = segment.state;
      this.#closed = segment.final;
      if (segment.stage === SEALED) this.#heldBytes += segment.bytes;
    }
    const last = segments.at(-1)?.[0] ?? -1;
    this.#open = this.#closed ? this.#newTable(last + 1) : this.#findTable(last + 1);
  }

  #newTable(no: number): Open {
    const table = new LogTable(this.#sql, no, false);
    return { no, table, records: 0, firstSeq: null, bytes: 0, jtiUntilMs: 0, oldestAtMs: null };
  }

  #findTable(no: number): Open {
    const open = this.#newTable(no);
    const { table } = open;
    const { firstSeq, lastSeq, ...contents } = table.contents();
    this.#heldBytes += contents.bytes;
    if (firstSeq === null || lastSeq === null) return { ...open, ...contents };
    const newest = table.record(lastSeq)!;
    this.#nextSeq = lastSeq + 1;
    this.#head = sha256Hex(newest.line);
    this.#state = newest.state;
    const { line } = firstSeq === lastSeq ? newest : table.record(firstSeq)!;
    return { ...open, ...contents, firstSeq, oldestAtMs: (JSON.parse(line) as { at: number }).at };
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
    const line = writeEnvelope(
      { v: ENVELOPE_VERSION, type: record.type, seq, at: record.nowMs, prev: this.#head },
      record.fields,
    );
    const state = JSON.stringify(record.state);
    const { jti = null, body = null } = record;
    // Before the row, or it would be read from there as well, and be its own replay.
    const seen = jti === null ? null : this.#seen;
    this.#count(open.table.insert({ seq, jti, body, state, line }));
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
    this.#count(this.#open.table.insert({ seq: null, jti: null, body: run, state: null, line: null }));
  }

  #count(bytes: number): void {
    this.#open.bytes += bytes;
    this.#heldBytes += bytes;
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
      prev: this.#segments.get(no - 1)?.head ?? FIRST_PREV,
      head,
      at: nowMs,
      final,
    });
    const state = this.#state ?? "null";
    this.#keep(no, { firstSeq, lastSeq, head, sealLine, state, jtiUntilMs, bytes, final, stage: SEALED });
    this.#open = this.#newTable(no + 1);
    this.#closed = final;
  }

  #keep(no: number, segment: Segment): void {
    this.#kept.put("segment", String(no), segment);
    this.#segments.set(no, segment);
  }

  #forget(no: number): void {
    this.#kept.delete("segment", String(no));
    this.#segments.delete(no);
  }

  /** Puts sealed segments into R2, oldest first. Rows stay until the put is confirmed, whatever happens between. */
  async store(
    bucket: R2Bucket,
    partition: string,
    onStored: (segment: StoredSegment) => Promise<void> = async () => {},
  ): Promise<void> {
    let failed: unknown;
    for (const [no, segment] of this.#in(SEALED)) {
      const table = this.#table(no);
      const { firstSeq, sealLine } = segment;
      const bodies =
        this.#put.get(no) ??
        (await storeSegment(bucket, partition, {
          firstSeq,
          sealLine,
          lines: () => [...table.lines(0)],
          runAfter: (id) => table.runAfter(id),
        }));
      this.#put.set(no, bodies);
      // Dying here, the segment is in R2 and will be found equal.
      // Where it can't be named it stays, and is named later. The next goes to R2 all the same.
      if (failed === undefined) await onStored(describe(segment, table, bodies)).catch((error) => (failed = error));
      if (failed !== undefined) continue;
      // Dying here, it is named once more.
      this.#put.delete(no);
      // Another run of the alarm may have been through with it meanwhile: it counts once.
      if (this.#segments.get(no)?.stage !== SEALED) continue;
      this.#keep(no, { ...segment, stage: STORED });
      this.#heldBytes -= segment.bytes;
    }
    if (failed !== undefined) throw failed;
  }

  /**
   * Drops tables of segments that are in R2, hold no `jti` that could come again, and no run of a body still growing.
   * Of what is gone only the newest segment stays: the chain goes on from it.
   */
  drop(nowMs: number, oldestOpenCall: number | null): void {
    const newest = this.#open.no - 1;
    for (const [no, segment] of this.#in(STORED)) {
      if (segment.jtiUntilMs >= nowMs || (oldestOpenCall !== null && oldestOpenCall <= segment.lastSeq)) continue;
      this.#table(no).drop();
      if (no === newest) this.#keep(no, { ...segment, stage: DROPPED });
      else this.#forget(no);
    }
    for (const [no] of this.#in(DROPPED)) if (no !== newest) this.#forget(no);
    for (const [jti, untilMs] of this.#jtis ?? []) if (untilMs < nowMs) this.#jtis?.delete(jti);
  }

  /** From when on there is something to drop. What a running call holds back, the record of its answer will free. */
  dropAtMs(oldestOpenCall: number | null): number | null {
    const times = this.#in(STORED)
      .filter(([, { lastSeq }]) => oldestOpenCall === null || oldestOpenCall > lastSeq)
      .map(([, { jtiUntilMs }]) => jtiUntilMs + 1);
    return times.length === 0 ? null : Math.min(...times);
  }

  get hasUnstored(): boolean {
    return this.#in(SEALED).length > 0;
  }

  /**
   * Envelope lines from `fromSeq` on that are not in R2, oldest first, as many as fit; a sealed segment's seal follows
   * its last line.
   */
  unstoredLines(fromSeq: number, maxLines: number): string[] {
    const lines: string[] = [];
    const room = { lines: maxLines, chars: READ_MAX_CHARS };
    for (const [no, { sealLine, lastSeq }] of this.#in(SEALED)) {
      if (lastSeq < fromSeq) continue;
      if (!fill(lines, room, this.#table(no).lines(fromSeq))) return lines;
      lines.push(sealLine);
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
    const later = rows.filter(({ at }) => at > beforeMs);
    const fromSeq = later.reduce((first, { seq }) => Math.min(first, seq), this.#nextSeq);
    const answeredLater = later.flatMap(({ answers }) => (answers === null ? [] : [answers]));
    const running = [...new Set([...open, ...answeredLater])].filter((seq) => seq < fromSeq).sort((a, b) => a - b);
    // Of dropped tables only the newest seal is known: when it was written, all that it covers was.
    const [first] = rows;
    const dropped = this.#in(DROPPED).at(-1)?.[1];
    const isSealedBefore = dropped !== undefined && sealedAtMs(dropped.sealLine) <= beforeMs;
    const isExact =
      first === undefined
        ? dropped === undefined || isSealedBefore
        : first.seq === 0 || first.at <= beforeMs || (isSealedBefore && dropped.lastSeq === first.seq - 1);
    let blanked = 0;
    for (const table of this.#tables()) {
      const { bodies, bytes } = table.eraseBodies(fromSeq, running);
      blanked += bodies;
      if (table === this.#open.table) this.#count(-bytes);
    }
    return { fromSeq, running, isExact, blanked };
  }

  #in(stage: Stage): [no: number, segment: Segment][] {
    return [...this.#segments].filter(([, segment]) => segment.stage === stage);
  }

  #table(no: number): LogTable {
    return no === this.#open.no ? this.#open.table : new LogTable(this.#sql, no, true);
  }

  /** Oldest first, the open one last. */
  #tables(): LogTable[] {
    const frozen = [...this.#segments].filter(([, { stage }]) => stage !== DROPPED);
    return [...frozen.map(([no]) => this.#table(no)), this.#open.table];
  }
}

function describe({ firstSeq, lastSeq, head, final }: Segment, table: LogTable, bodies: number): StoredSegment {
  const atOf = (seq: number): number => (JSON.parse(table.record(seq)!.line) as { at: number }).at;
  return { first: firstSeq, last: lastSeq, head, fromMs: atOf(firstSeq), toMs: atOf(lastSeq), final, bodies };
}
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
