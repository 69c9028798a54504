// A transcript as a story: records become entries, a call and its answer one, in the order of the calls.

import { z } from "zod";
import { type RecordLine, recordShape } from "./record-line.ts";

const text = z.string().catch("");
const figure = z.number().nullable().catch(null);
const reference = z
  .object({
    digest: z.string().nullable(),
    bytes: z.number().nullable(),
    mediaType: z.string().nullable(),
    coding: z.string(),
  })
  .nullable()
  .catch(null);
const optional = z.string().optional().catch(undefined);

const enrolledShape = z.object({
  instance: text,
  agent: text,
  agentVersion: text,
  human: text,
  task: text,
  client: text,
  chain: z.array(z.object({ client: z.string(), agent: z.string() })).catch([]),
  manifest: z.object({ model: text, promptDigest: text }).catch({ model: "", promptDigest: "" }),
  purpose: text,
  deadline: figure,
  scope: z
    .array(
      z.looseObject({
        upstream: text,
        operations: z.array(z.string()).catch([]),
        where: z.record(z.string(), z.unknown()).optional().catch(undefined),
      }),
    )
    .catch([]),
  /** Whoever provisioned it, where that was another instance. */
  parent: z.string().nullable().catch(null),
  /** Under which it works, where the human approved in advance. */
  mandate: optional,
  claims: reference,
});
const callShape = z.object({
  upstream: z.string().nullable().catch(null),
  method: text,
  target: text,
  body: reference,
  decision: z.object({ operation: optional }).catch({ operation: undefined }),
  redacted: z.array(z.unknown()).catch([]),
  approver: optional,
});
const refusedShape = callShape.extend({
  decision: z.object({ layer: optional, kind: optional, code: optional, reason: optional }).catch({
    layer: undefined,
    kind: undefined,
    code: undefined,
    reason: undefined,
  }),
  counted: figure,
  minute: figure,
});
const answerShape = z.object({
  call: z.number(),
  outcome: text,
  cause: optional,
  switch: optional,
  reason: optional,
  status: figure,
  body: reference,
  requestBody: reference,
  redacted: z.array(z.unknown()).catch([]),
  upstreamOutcome: optional,
  passedBytes: figure,
  forwardedBytes: figure,
  timing: z.object({ startedAtMs: z.number(), endedAtMs: z.number() }).nullable().catch(null),
});

export type Reference = NonNullable<z.infer<typeof reference>>;
type Enrolled = z.infer<typeof enrolledShape>;

/** Who sent whom: the beginning of every story. */
export interface Beginning extends Omit<Enrolled, "claims"> {
  readonly entry: "instance";
  readonly seq: number;
  readonly atMs: number;
  readonly claims: Reference | null;
}
export interface CallEntry {
  readonly entry: "call";
  readonly seq: number;
  readonly atMs: number;
  readonly upstream: string | null;
  readonly method: string;
  readonly target: string;
  readonly operation: string | null;
  /** Where a person had to approve it. */
  readonly approvedBy: string | null;
  /** `running`: without an answer so far. */
  readonly outcome: string;
  readonly status: number | null;
  readonly cause: string | null;
  readonly switch: string | null;
  readonly reason: string | null;
  readonly upstreamOutcome: string | null;
  readonly durationMs: number | null;
  readonly sentBytes: number | null;
  readonly receivedBytes: number | null;
  readonly redacted: number;
  readonly request: Reference | null;
  readonly answer: Reference | null;
  /** `seq` of its answer's record. */
  readonly answeredBy: number | null;
  /** When that was written. */
  readonly answeredAtMs: number | null;
}
export interface Refusal {
  readonly entry: "refused";
  readonly seq: number;
  readonly atMs: number;
  readonly method: string;
  readonly target: string;
  readonly upstream: string | null;
  readonly layer: string | null;
  readonly kind: string | null;
  readonly reason: string | null;
  readonly request: Reference | null;
  /** One record for so many refusals of a minute; null: it is one. */
  readonly counted: number | null;
}
/** A renewal, a switch, a signal, the end, and whatever a newer gate writes: its own members. */
export interface Event {
  readonly entry: "event";
  readonly type: string;
  readonly seq: number;
  readonly atMs: number;
  readonly record: RecordLine;
}
export type Entry = Beginning | CallEntry | Refusal | Event;

/** Takes records in their order, gives entries. What waits for a running call is kept, and nothing else. */
export class Story {
  /** In order; the first may be a call that runs. */
  readonly #waiting: Entry[] = [];
  readonly #running = new Map<number, CallEntry>();
  /** Running calls that were given already, as running. */
  readonly #given = new Set<number>();
  #nextSeq = 0;
  hasEnded = false;

  /** A line of the transcript; one that was added before changes nothing. Throws where it is no record. */
  add(line: string): void {
    const record = recordShape.parse(JSON.parse(line));
    // A seal says nothing of what happened.
    if (record.seq === undefined || record.seq < this.#nextSeq) return;
    this.#nextSeq = record.seq + 1;
    if (record.type === "answer") this.#answer(answerShape.parse(record), record);
    else {
      const entry = entryOf(record);
      this.#waiting.push(entry);
      if (entry.entry === "call") this.#running.set(entry.seq, entry);
    }
    this.hasEnded ||= record.type === "ended";
  }

  #answer(answer: z.infer<typeof answerShape>, { seq = 0, at = 0 }: RecordLine): void {
    const call = this.#running.get(answer.call);
    if (call === undefined) return;
    this.#running.delete(answer.call);
    const { timing } = answer;
    const whole: CallEntry = {
      ...call,
      outcome: answer.outcome,
      status: answer.status,
      cause: answer.cause ?? null,
      switch: answer.switch ?? null,
      reason: answer.reason ?? null,
      upstreamOutcome: answer.upstreamOutcome ?? null,
      durationMs: timing === null ? at - call.atMs : timing.endedAtMs - timing.startedAtMs,
      sentBytes: answer.forwardedBytes,
      receivedBytes: answer.passedBytes,
      redacted: call.redacted + answer.redacted.length,
      request: answer.requestBody ?? call.request,
      answer: answer.body,
      answeredBy: seq,
      answeredAtMs: at,
    };
    // One that was told as running is told again, when its answer comes.
    if (this.#given.delete(call.seq)) this.#waiting.push(whole);
    else this.#waiting[this.#waiting.indexOf(call)] = whole;
  }

  /** What can be told. `all`: running calls too, and what comes behind them. */
  *take(all: boolean): Generator<Entry> {
    for (let entry = this.#waiting[0]; entry !== undefined; entry = this.#waiting[0]) {
      const runs = entry.entry === "call" && this.#running.has(entry.seq);
      if (runs && !all) return;
      if (runs) this.#given.add(entry.seq);
      this.#waiting.shift();
      yield entry;
    }
  }
}

function entryOf(record: RecordLine): Entry {
  const { type, seq = 0, at: atMs = 0 } = record;
  if (type === "enrolled") return { entry: "instance", seq, atMs, ...enrolledShape.parse(record) };
  if (type === "call") {
    const { decision, body, redacted, approver, ...call } = callShape.parse(record);
    return {
      entry: "call",
      seq,
      atMs,
      ...call,
      operation: decision.operation ?? null,
      approvedBy: approver ?? null,
      ...RUNNING,
      redacted: redacted.length,
      request: body,
    };
  }
  if (type !== "refused") return { entry: "event", type, seq, atMs, record };
  const { decision, counted, upstream, method, target, body } = refusedShape.parse(record);
  const reason = [decision.code, decision.reason].filter((part) => part !== undefined).join(", ");
  return {
    entry: "refused",
    seq,
    atMs,
    method,
    target,
    upstream,
    layer: decision.layer ?? null,
    kind: decision.kind ?? null,
    reason: reason === "" ? null : reason,
    request: body,
    counted,
  };
}

const RUNNING = {
  outcome: "running",
  status: null,
  cause: null,
  switch: null,
  reason: null,
  upstreamOutcome: null,
  durationMs: null,
  sentBytes: null,
  receivedBytes: null,
  answer: null,
  answeredBy: null,
  answeredAtMs: null,
} as const;
