import * as z from "zod";
import type { BodyPart } from "./body-line.ts";
import type { RecordType } from "./envelope.ts";
import { ApprovalReader } from "./verify-approvals.ts";
import type { Findings } from "./verify-findings.ts";
import type { Partition } from "./verify-layout.ts";
import type { ReadRecord } from "./verify-segment.ts";

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

const seq = z.number().int().nonnegative();
const digest = z.string().regex(/^[0-9a-f]{64}$/);
const frame = { mediaType: z.string().nullable(), coding: z.string(), complete: z.boolean(), mayMiss: seq.optional() };
/** Of a body that was redacted: the length of what passed. What is recorded has another, or is nothing. */
const redactedFrom = { trueBytes: seq.nullable().optional() };
const knownBody = z.strictObject({ digest, bytes: seq, ...frame, ...redactedFrom });
/** Nothing of it was ever recorded. */
const noBody = z.strictObject({ digest: z.null(), bytes: z.literal(0), ...frame, ...redactedFrom });
/** Longer than its call's record: the answer states it, unless the object was reset in between, and some of it was erased. */
const laterBody = z.strictObject({ digest: z.null(), bytes: z.null(), ...frame });

const enrolledShape = z.looseObject({ claims: knownBody, deadline: seq });
const redaction = {
  rulesApplied: z.array(z.string()).optional(),
  redacted: z
    .array(z.strictObject({ rule: z.string(), at: z.string(), digest: digest.nullable(), bytes: seq.nullable() }))
    .optional(),
};
const callShape = z.looseObject({ body: z.union([knownBody, laterBody]).nullable(), ...redaction });
/** A refusal, or a request for approval. None where one record counts many. */
const refusedShape = z.looseObject({ body: knownBody.nullable().optional(), ...redaction });
const answerShape = z.looseObject({
  call: seq,
  body: z.union([knownBody, noBody, laterBody]).nullable(),
  requestBody: z.union([knownBody, laterBody]).optional(),
  ...redaction,
});

export interface BodyName {
  readonly seq: number;
  readonly part: BodyPart;
}

/** What the records say of one body, and between which segments (by their first `seq`) its runs can stand. */
export interface StatedBody extends BodyName {
  /** Null: no digest is stated, so its runs can't be told from others. */
  readonly digest: string | null;
  /** Null: not stated. */
  readonly bytes: number | null;
  /** More of it may be here than is stated: its object was reset while it came. */
  readonly mayBeMore: boolean;
  readonly place: string;
  /** `at` of the record that it belongs to: of a request its call's, of an answer its own. */
  readonly atMs: number;
  /** Before it nothing of the body can have been written. */
  readonly sinceMs: number;
  readonly fromSegment: number;
  readonly untilSegment: number;
}

interface ReadCall {
  readonly place: string;
  readonly atMs: number;
  readonly segment: number;
  answered: boolean;
}

/**
 * Order is what the chain says. `at` is read off a clock, which may be set back, or differ where an object moves to
 * another machine: lawful, so it is told and is no finding.
 */
export interface ClockBack {
  readonly records: number;
  readonly mostMs: number;
}

/** Reads the records of one transcript in order and holds each to what the records before it allow. */
export class RecordReader {
  readonly #partition: Partition;
  readonly #findings: Findings;
  readonly #calls = new Map<number, ReadCall>();
  readonly #bodies = new Map<string, StatedBody>();
  readonly #approvals = new ApprovalReader();
  #ended: ReadRecord | null = null;
  /** Ranges of `seq` whose records are not here to be read: what seems to be missing may stand in them. */
  readonly #holes: (readonly [first: number, last: number])[] = [];
  deadlineMs: number | null;
  records = 0;
  #latestMs = 0;
  #clockBack = { records: 0, mostMs: 0 };

  constructor(partition: Partition, findings: Findings) {
    this.#partition = partition;
    this.#findings = findings;
    this.deadlineMs = partition.deadlineMs;
  }

  markHole(firstSeq: number, lastSeq: number): void {
    this.#holes.push([firstSeq, lastSeq]);
  }
  isHole(seq: number): boolean {
    return this.#holes.some(([first, last]) => first <= seq && seq <= last);
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
    return this.#bodies.values();
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
    else if (type === "enrolled") this.#readEnrolled(record, segment);
    else if (type === "call") this.#readCall(record, segment);
    else if (type === "answer") this.#readAnswer(record, segment);
    else if (type === "refused") this.#readRefused(record, segment);
    else if (type === "approval") this.#readApproval(record, segment);
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

  #readEnrolled(record: ReadRecord, segment: number): void {
    const enrolled = this.#parse(enrolledShape, record);
    if (enrolled === null) return;
    this.deadlineMs = enrolled.deadline;
    this.#state({ seq: 0, part: "claims" }, enrolled.claims, record, segment, segment);
  }

  #readCall(record: ReadRecord, segment: number): void {
    this.#calls.set(record.seq, { place: record.place, atMs: record.at, segment, answered: false });
    this.#findOfApproval(record, this.#approvals.readCall(record.envelope));
    const body = this.#parse(callShape, record)?.body ?? null;
    if (body === null) return;
    const until = body.digest === null ? Number.POSITIVE_INFINITY : segment;
    this.#state({ seq: record.seq, part: "request" }, body, record, segment, until);
  }

  #readAnswer(record: ReadRecord, segment: number): void {
    const answer = this.#parse(answerShape, record);
    if (answer === null) return;
    const call = this.#calls.get(answer.call);
    if (call === undefined) {
      if (!this.isHole(answer.call)) this.#find(record, `answers seq ${answer.call}, which is no call before it`);
      return;
    }
    if (call.answered) {
      this.#find(record, `a second answer to the call of seq ${answer.call}`);
      return;
    }
    call.answered = true;
    if (answer.body !== null)
      this.#state({ seq: answer.call, part: "answer" }, answer.body, record, call.segment, segment, call.atMs);
    if (answer.requestBody === undefined) return;
    const request = this.#bodies.get(bodyId({ seq: answer.call, part: "request" }));
    if (request === undefined || request.digest !== null)
      this.#find(record, "states a request body that its call did not leave open");
    else
      this.#state(
        { seq: answer.call, part: "request" },
        answer.requestBody,
        { ...record, at: call.atMs },
        call.segment,
        segment,
      );
  }

  #readRefused(record: ReadRecord, segment: number): void {
    const body = this.#parse(refusedShape, record)?.body ?? null;
    if (body !== null) this.#state({ seq: record.seq, part: "request" }, body, record, segment, segment);
  }

  #readApproval(record: ReadRecord, segment: number): void {
    this.#findOfApproval(record, this.#approvals.read(record.envelope));
    this.#readRefused(record, segment);
  }

  /** What was asked and decided before may stand in what is not here. */
  #findOfApproval(record: ReadRecord, problem: string | null): void {
    if (problem !== null && this.#holes.length === 0) this.#find(record, problem);
  }

  /** Calls without an answer: a fact while the transcript is open, a finding once it has ended. */
  openCalls(ended: boolean): number[] {
    const open = [...this.#calls].filter(([, { answered }]) => !answered);
    if (ended && this.#holes.length === 0)
      for (const [, { place }] of open) this.#findings.add(place, "a call without an answer, and the transcript ended");
    return open.map(([seq]) => seq);
  }

  /** What is known of a body; undefined where no record can account for it. */
  findBody(name: BodyName): StatedBody | undefined {
    const stated = this.#bodies.get(bodyId(name));
    if (stated !== undefined) return stated;
    const call = this.#calls.get(name.seq);
    const isAnswerToCome = call !== undefined && !call.answered && name.part === "answer";
    if (!isAnswerToCome && !this.isHole(name.seq)) return undefined;
    const fromSegment = call?.segment ?? 0;
    const times = { atMs: Number.POSITIVE_INFINITY, sinceMs: call?.atMs ?? 0 };
    const nothing = { digest: null, bytes: null, mayBeMore: true, place: "" };
    return { ...name, ...nothing, ...times, fromSegment, untilSegment: Number.POSITIVE_INFINITY };
  }

  /** More of it may follow. */
  isToCome({ seq, part }: BodyName): boolean {
    return part !== "claims" && this.#calls.get(seq)?.answered === false;
  }

  #state(
    name: BodyName,
    { digest, bytes, mayMiss = 0 }: { digest: string | null; bytes: number | null; mayMiss?: number | undefined },
    { place, at }: ReadRecord,
    fromSegment: number,
    untilSegment: number,
    sinceMs = at,
  ): void {
    const mayBeMore = bytes === null || mayMiss > 0;
    const stated = { ...name, digest, bytes, mayBeMore, place, atMs: at, sinceMs, fromSegment, untilSegment };
    this.#bodies.set(bodyId(name), stated);
  }

  #parse<T>(shape: z.ZodType<T>, record: ReadRecord): T | null {
    const parsed = shape.safeParse(record.envelope);
    if (parsed.success) return parsed.data;
    this.#find(record, `not a record of type ${record.type}: ${parsed.error.issues[0]?.path.join(".")}`);
    return null;
  }

  #find({ place }: ReadRecord, problem: string): void {
    this.#findings.add(place, problem);
  }
}

export const bodyId = ({ seq, part }: BodyName): string => `${seq} ${part}`;

const article = (kind: Partition["kind"]): string => (kind === "instance" ? "an instance" : "a journal");
