import type { Kept } from "./kept.ts";
import { LogTable } from "./log-table.ts";
import { storeSegment } from "./segment-store.ts";

/** A frozen log table: its range and seal are fixed before it is written anywhere. */
export interface Segment {
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

/** The frozen part of a log: sealed, then in R2, then dropped here. Memory is only a cache of storage. */
export class LogSegments {
  readonly #sql: SqlStorage;
  readonly #kept: Kept;
  /** Oldest first. Their tables are there until `DROPPED`. */
  readonly #segments: Map<number, Segment>;
  /** In R2, and still to be named in the index: how many objects hold their bodies, by number. */
  readonly #put = new Map<number, number>();
  #unstoredBytes = 0;

  constructor(sql: SqlStorage, kept: Kept) {
    this.#sql = sql;
    this.#kept = kept;
    const segments = [...kept.take<Segment>("segment")].map(([no, segment]) => [Number(no), segment] as const);
    this.#segments = new Map(segments.sort(([a], [b]) => a - b));
    for (const [, { bytes }] of this.#in(SEALED)) this.#unstoredBytes += bytes;
  }

  get newest(): Segment | undefined {
    return [...this.#segments.values()].at(-1);
  }
  /** The number of the table that is written to. */
  get nextNo(): number {
    return ([...this.#segments.keys()].at(-1) ?? -1) + 1;
  }
  get unstoredBytes(): number {
    return this.#unstoredBytes;
  }
  get hasUnstored(): boolean {
    return this.#in(SEALED).length > 0;
  }
  /** The newest of which only the seal is known. */
  get dropped(): Segment | undefined {
    return this.#in(DROPPED).at(-1)?.[1];
  }

  /** Oldest first. */
  tables(): LogTable[] {
    return [...this.#segments].flatMap(([no, { stage }]) => (stage === DROPPED ? [] : [this.#table(no)]));
  }

  /** Those that are not in R2, oldest first. */
  unstored(): { readonly segment: Segment; readonly table: LogTable }[] {
    return this.#in(SEALED).map(([no, segment]) => ({ segment, table: this.#table(no) }));
  }

  /** From here on nothing of it changes. */
  seal(segment: Omit<Segment, "stage">): void {
    this.#keep(this.nextNo, { ...segment, stage: SEALED });
    this.#unstoredBytes += segment.bytes;
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
      this.#unstoredBytes -= segment.bytes;
    }
    if (failed !== undefined) throw failed;
  }

  /**
   * Drops tables of segments that are in R2, hold no `jti` that could come again, and no run of a body still growing.
   * Of what is gone only the newest segment stays: the chain goes on from it.
   */
  drop(nowMs: number, oldestOpenCall: number | null): void {
    const newest = this.nextNo - 1;
    for (const [no, segment] of this.#in(STORED)) {
      if (segment.jtiUntilMs >= nowMs || (oldestOpenCall !== null && oldestOpenCall <= segment.lastSeq)) continue;
      this.#table(no).drop();
      if (no === newest) this.#keep(no, { ...segment, stage: DROPPED });
      else this.#forget(no);
    }
    for (const [no] of this.#in(DROPPED)) if (no !== newest) this.#forget(no);
  }

  /** From when on there is something to drop. What a running call holds back, the record of its answer will free. */
  dropAtMs(oldestOpenCall: number | null): number | null {
    const times = this.#in(STORED)
      .filter(([, { lastSeq }]) => oldestOpenCall === null || oldestOpenCall > lastSeq)
      .map(([, { jtiUntilMs }]) => jtiUntilMs + 1);
    return times.length === 0 ? null : Math.min(...times);
  }

  #keep(no: number, segment: Segment): void {
    this.#kept.put("segment", String(no), segment);
    this.#segments.set(no, segment);
  }

  #forget(no: number): void {
    this.#kept.delete("segment", String(no));
    this.#segments.delete(no);
  }

  #in(stage: Stage): [no: number, segment: Segment][] {
    return [...this.#segments].filter(([, segment]) => segment.stage === stage);
  }

  #table(no: number): LogTable {
    return new LogTable(this.#sql, no, true);
  }
}

function describe({ firstSeq, lastSeq, head, final }: Segment, table: LogTable, bodies: number): StoredSegment {
  const atOf = (seq: number): number => (JSON.parse(table.record(seq)!.line) as { at: number }).at;
  return { first: firstSeq, last: lastSeq, head, fromMs: atOf(firstSeq), toMs: atOf(lastSeq), final, bodies };
}
