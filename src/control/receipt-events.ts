import * as z from "zod";
import { groupOfPlace } from "../config/entitlements.ts";
import type { Json } from "../scope/call.ts";
import type { Partition } from "../transcript/verify-layout.ts";
import type { ReadRecord } from "../transcript/verify-segment.ts";

/** What a transcript says that a receipt can be held to. */
interface At {
  readonly place: string;
  readonly seq: number;
  /** On the instance's clock. */
  readonly atMs: number;
}
export interface CallEvent extends At {
  /** Null: not said, and then it can be any. */
  readonly upstream: string | null;
  /** The group that the human was entitled by; null: another way, or not said. */
  readonly group: string | null;
}
export interface AnswerEvent extends At {
  readonly call: number | null;
  readonly outcome: string | null;
  readonly switchId: string | null;
  readonly endedAtMs: number | null;
  readonly lastByteAtMs: number | null;
}
export interface SwitchedEvent extends At {
  readonly switchId: string | null;
  readonly fields: { readonly [key: string]: Json };
}

/** One instance's, in the order of their `seq`. */
export interface ReceiptTranscript {
  readonly instance: string;
  readonly partition: string;
  readonly calls: readonly CallEvent[];
  readonly answers: readonly AnswerEvent[];
  readonly switched: readonly SwitchedEvent[];
  readonly enrolledAtMs: number | null;
  readonly endedAtMs: number | null;
}

type Gathering = {
  -readonly [member in keyof ReceiptTranscript]: ReceiptTranscript[member] extends readonly (infer Event)[]
    ? Event[]
    : ReceiptTranscript[member];
};

// What is not of the right type reads as not said: the records' own verifier names it.
const text = z.string().nullable().catch(null);
const time = z.int().nullable().catch(null);
const callShape = z.object({
  upstream: text,
  decision: z
    .object({ ceilings: z.array(z.object({ layer: z.string(), at: z.string() })).catch([]) })
    .catch({ ceilings: [] }),
});
const answerShape = z.object({
  call: time,
  outcome: text,
  switch: text.default(null),
  timing: z.object({ endedAtMs: time, lastByteAtMs: time }).catch({ endedAtMs: null, lastByteAtMs: null }),
});
const switchedShape = z.object({ switch: text.default(null) });

/** Hears records as they are read, and keeps of them only what a receipt speaks of. */
export class ReceiptEvents {
  readonly #transcripts = new Map<string, Gathering>();

  add({ kind, path, ids }: Partition, { place, seq, type, envelope }: ReadRecord): void {
    const { instance } = ids;
    if (kind !== "instance" || instance === undefined) return;
    let of = this.#transcripts.get(path);
    if (of === undefined) {
      of = { instance, partition: path, calls: [], answers: [], switched: [], enrolledAtMs: null, endedAtMs: null };
      this.#transcripts.set(path, of);
    }
    const atMs = envelope["at"] as number;
    if (type === "enrolled") of.enrolledAtMs = atMs;
    else if (type === "ended") of.endedAtMs = atMs;
    else if (type === "call") {
      const { upstream, decision } = callShape.parse(envelope);
      const entitled = decision.ceilings.find(({ layer }) => layer === "entitlement");
      of.calls.push({ place, seq, atMs, upstream, group: groupOfPlace(entitled?.at ?? "") });
    } else if (type === "answer") {
      const { switch: switchId, timing, call, outcome } = answerShape.parse(envelope);
      of.answers.push({ place, seq, atMs, call, outcome, switchId, ...timing });
    } else if (type === "switched")
      of.switched.push({ place, seq, atMs, switchId: switchedShape.parse(envelope).switch, fields: envelope });
  }

  get transcripts(): readonly ReceiptTranscript[] {
    return [...this.#transcripts.values()];
  }
}
