import type { RecordType } from "./envelope.ts";
import type { Findings } from "./verify-findings.ts";
import { InstanceReader, type InstanceSummary } from "./verify-instance.ts";
import type { Partition } from "./verify-layout.ts";
import type { ReadRecord } from "./verify-segment.ts";
import type { BodyName, StatedBody } from "./verify-stated-bodies.ts";

const TYPES: Readonly<Record<Partition["kind"], readonly RecordType[]>> = {
  instance: [
    "enrolled",
    "renewed",
    "call",
    "answer",
    "refused",
    "switched",
    "signal",
    "delegated",
    "approval",
    "ended",
  ],
  journal: ["act", "read", "refused", "stored", "ended"],
};

/**
 * Order is what the chain says. `at` is read off a clock, which may be set back, or differ where an object moves to
 * another machine: lawful, so it is told and is no finding.
 */
export interface ClockBack {
  readonly records: number;
  readonly mostMs: number;
}

/** Reads the records of one transcript in order, and holds each to where it stands. What an instance's say is read by `InstanceReader`. */
export class RecordReader {
  readonly #partition: Partition;
  readonly #findings: Findings;
  readonly #instance: InstanceReader;
  #ended: ReadRecord | null = null;
  /** Ranges of `seq` whose records are not here to be read: what seems to be missing may stand in them. */
  readonly #holes: (readonly [first: number, last: number])[] = [];
  records = 0;
  #latestMs = 0;
  #clockBack = { records: 0, mostMs: 0 };

  constructor(partition: Partition, findings: Findings) {
    this.#partition = partition;
    this.#findings = findings;
    this.#instance = new InstanceReader(findings, { isHole: (seq) => this.isHole(seq), hasHoles: () => this.hasHoles });
  }

  markHole(firstSeq: number, lastSeq: number): void {
    this.#holes.push([firstSeq, lastSeq]);
  }
  isHole(seq: number): boolean {
    return this.#holes.some(([first, last]) => first <= seq && seq <= last);
  }
  get hasHoles(): boolean {
    return this.#holes.length > 0;
  }
  /** When the end is due; null where it can't be known. */
  get deadlineMs(): number | null {
    return this.#partition.deadlineMs ?? this.#instance.deadlineMs;
  }
  /** The `ended` record; null so far. */
  get ended(): ReadRecord | null {
    return this.#ended;
  }
  /** Records dated before one that they follow. */
  get clockBack(): ClockBack {
    return this.#clockBack;
  }
  get bodies(): Iterable<StatedBody> {
    return this.#instance.bodies.all;
  }
  /** What is known of a body; undefined where no record can account for it. */
  findBody(name: BodyName): StatedBody | undefined {
    return this.#instance.bodies.find(name) ?? this.#instance.calls.expect(name, this.isHole(name.seq));
  }
  /** More of it may follow. */
  isToCome(name: BodyName): boolean {
    return this.#instance.calls.isToCome(name);
  }
  /** Calls whose scope asks for something that is not here. */
  get uncheckedCalls(): readonly number[] {
    return this.#instance.scope.unchecked;
  }
  waitsForBody(seq: number): boolean {
    return this.#instance.scope.waitsFor(seq);
  }
  readBody(seq: number, bytes: Uint8Array): void {
    const found = this.#instance.scope.readBody(seq, bytes);
    if (found !== null) this.#findings.add(found.place, found.problem);
  }

  read(record: ReadRecord, segment: number): void {
    const { type, envelope } = record;
    this.records++;
    this.#readTime(record.at);
    if (this.#ended !== null) this.#find(record, "stands after the end");
    const foreign = Object.entries(this.#partition.ids).find(([field, value]) => envelope[field] !== value);
    if (foreign !== undefined) this.#find(record, `a foreign record: its ${foreign[0]} is not ${foreign[1]}`);
    if (!TYPES[this.#partition.kind].includes(type))
      this.#find(record, `a record of type ${type} in the transcript of ${article(this.#partition.kind)}`);
    else if (this.#partition.kind === "instance" && (record.seq === 0) !== (type === "enrolled"))
      this.#find(record, record.seq === 0 ? "record 0 is not the enrolment" : "a second enrolment");
    else if (this.#partition.kind === "instance") {
      if (foreign !== undefined) this.#instance.spoil();
      this.#instance.read(record, segment);
    }
    if (type === "ended") this.#ended = record;
  }

  #readTime(atMs: number): void {
    if (atMs < this.#latestMs)
      this.#clockBack = {
        records: this.#clockBack.records + 1,
        mostMs: Math.max(this.#clockBack.mostMs, this.#latestMs - atMs),
      };
    this.#latestMs = Math.max(this.#latestMs, atMs);
  }

  /** After the last record. */
  finish(isEnded: boolean): InstanceSummary {
    return this.#instance.finish(isEnded, { partition: this.#partition.path, latestMs: this.#latestMs });
  }

  #find({ place }: ReadRecord, problem: string): void {
    this.#findings.add(place, problem);
  }
}

const article = (kind: Partition["kind"]): string => (kind === "instance" ? "an instance" : "a journal");
