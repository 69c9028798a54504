import type { Json } from "../scope/call.ts";
import type { Finding } from "../transcript/verify-findings.ts";
import type { Receipt } from "./receipt.ts";
import type { CallEvent, ReceiptTranscript, SwitchedEvent } from "./receipt-events.ts";
import { closes, switchFields } from "./switch.ts";

/** How far the clocks of a Worker, an instance and the switchboard may be apart. Well kept ones differ by milliseconds. */
export const CLOCK_TOLERANCE_MS = 5_000;

type Named = NonNullable<Receipt["instances"]>[number];
type Unreached = NonNullable<Receipt["unreached"]>[number];

/** Records by which this switch closed. A resumption of the same id is none. */
export const closingsOf = ({ switch: { id } }: Receipt, { switched }: ReceiptTranscript): readonly SwitchedEvent[] =>
  switched.filter(({ switchId, fields }) => switchId === id && fields["act"] !== "resume");

/** Pure. An instance that the receipt says has acknowledged. */
export function verifyNamed(receipt: Receipt, named: Named, transcript: ReceiptTranscript): Finding[] {
  const findings: Finding[] = [];
  const whole = `transcripts/${transcript.partition}`;
  const [closing] = closingsOf(receipt, transcript);
  const latestMs = named.acknowledgedAtMs + CLOCK_TOLERANCE_MS;
  if (closing === undefined) {
    // Who had ended already had nothing left to stop, and no place to say so.
    const { endedAtMs } = transcript;
    if (endedAtMs === null || endedAtMs > latestMs || named.cut > 0)
      findings.push({
        place: whole,
        problem: `no switched record of ${receipt.switch.id}, which the receipt says it has acknowledged: its tail is missing, the copy is older than the receipt, or it was reset before it wrote`,
      });
  } else if (closing.atMs > latestMs && named.cut > 0)
    // Without a cut it may have been reset before it wrote, and have heard again: then it has asked before any call.
    findings.push({ place: closing.place, problem: "later than its acknowledgement in the receipt" });
  for (const call of transcript.calls)
    if (
      call.atMs > latestMs &&
      call.seq < (closing?.seq ?? resumedSeq(receipt, transcript)) &&
      isForbidden(receipt, call)
    )
      findings.push({ place: call.place, problem: "a call after its acknowledgement in the receipt" });
  findings.push(...verifySilence(receipt, transcript), ...verifyCuts(receipt, named, transcript, latestMs));
  return findings;
}

function verifyCuts(receipt: Receipt, named: Named, transcript: ReceiptTranscript, latestMs: number): Finding[] {
  const { id } = receipt.switch;
  const { cut, unconfirmed } = named;
  // A lost one is nobody's confirmation: its Worker was given up.
  const confirmed = transcript.answers.filter((answer) => answer.switchId === id && answer.outcome !== "lost");
  const findings: Finding[] = [];
  // Whose Worker had not confirmed may have done so since.
  if (confirmed.length < cut || confirmed.length > cut + unconfirmed) {
    const stated = unconfirmed === 0 ? `${cut}` : `${cut} and ${unconfirmed} unconfirmed`;
    findings.push({
      place: confirmed.at(-1)?.place ?? `transcripts/${transcript.partition}`,
      problem: `${confirmed.length} calls are on record as cut by ${id}, and the receipt says ${stated}`,
    });
  }
  if (unconfirmed > 0) return findings;
  for (const { place, endedAtMs, lastByteAtMs } of confirmed)
    for (const [name, timeMs] of Object.entries({ endedAtMs, lastByteAtMs }))
      if (timeMs !== null && timeMs > latestMs)
        findings.push({
          place,
          problem: `${name} is ${timeMs - named.acknowledgedAtMs} ms after the receipt's acknowledgement, more than clocks differ (${CLOCK_TOLERANCE_MS} ms)`,
        });
  return findings;
}

/** Pure. One that has not acknowledged: from a time on it could admit nothing, and its transcript must not say otherwise. */
export function verifyUnreached(
  receipt: Receipt,
  { stoppedByMs }: Unreached,
  transcript: ReceiptTranscript,
): Finding[] {
  const reopenedSeq = resumedSeq(receipt, transcript);
  const late = transcript.calls.filter(
    (call) =>
      call.atMs > stoppedByMs + CLOCK_TOLERANCE_MS &&
      call.seq < reopenedSeq &&
      (receipt.opened === null || receipt.switch.act !== "pause" || call.atMs < receipt.opened.atMs) &&
      isForbidden(receipt, call),
  );
  return [
    ...verifySilence(receipt, transcript),
    ...late.map(({ place }) => ({ place, problem: "a call after the time by which the receipt says it was stopped" })),
  ];
}

/**
 * Pure. What holds wherever the switch is on record: it stands there once and says what the receipt says; after it no call
 * in its reach is admitted, and none that ran is answered in full. A pause holds until it is resumed, and what it cut
 * stays cut.
 */
export function verifySilence(receipt: Receipt, transcript: ReceiptTranscript): Finding[] {
  const [closing, ...more] = closingsOf(receipt, transcript);
  if (closing === undefined) return [];
  const findings: Finding[] = [];
  const { id, act } = receipt.switch;
  for (const { place } of more) findings.push({ place, problem: `a second switched record of ${id}` });
  for (const [field, value] of Object.entries(switchFields(receipt.switch)))
    if (!isEqual(closing.fields[field], value))
      findings.push({ place: closing.place, problem: `its ${field} is not that of the receipt` });
  for (const { place, switchId, fields } of transcript.switched)
    if (act !== "pause" && switchId === id && fields["act"] === "resume")
      findings.push({ place, problem: `${act === "kill" ? "a kill" : "a narrowing"} was resumed: ${id}` });

  const reopenedSeq = resumedSeq(receipt, transcript);
  const what = receipt.switch.target.upstream ?? "anything";
  const upstreamOf = new Map(transcript.calls.map(({ seq, upstream }) => [seq, upstream]));
  for (const call of transcript.calls) {
    const { place, seq, upstream, group } = call;
    if (seq <= closing.seq || seq >= reopenedSeq || !isForbidden(receipt, call)) continue;
    const problem =
      act === "narrow"
        ? `a call by the group ${group ?? "(not said)"} after the switch that took it`
        : `a call to ${upstream ?? "somewhere"} after the switch that closed ${what}`;
    findings.push({ place, problem });
  }
  // A call that ran may have been allowed by another group as well.
  if (act === "narrow") return findings;
  for (const { place, seq, call, outcome } of transcript.answers) {
    if (seq < closing.seq || outcome !== "complete") continue;
    const isOfBefore = call === null || call < reopenedSeq;
    if (isOfBefore && isClosed(receipt, call === null ? null : (upstreamOf.get(call) ?? null)))
      findings.push({ place, problem: `a complete answer after the switch that closed ${what}` });
  }
  return findings;
}

/** `seq` of the record that resumed it; a kill is final. */
function resumedSeq({ switch: { id, act } }: Receipt, { switched }: ReceiptTranscript): number {
  if (act !== "pause") return Number.POSITIVE_INFINITY;
  const resumed = switched.find(({ switchId, fields }) => switchId === id && fields["act"] === "resume");
  return resumed?.seq ?? Number.POSITIVE_INFINITY;
}

/** What a call that comes after it must not be: to what it closed, or by a group that it took. */
function isForbidden(receipt: Receipt, { upstream, group }: CallEvent): boolean {
  const { act, groups = [] } = receipt.switch;
  return act === "narrow" ? group !== null && !groups.includes(group) : isClosed(receipt, upstream);
}

/** An upstream that is not said can be the one. */
const isClosed = (receipt: Receipt, upstream: string | null): boolean =>
  upstream === null || closes(receipt.switch, upstream);

/** JSON is the same whatever the order of an object's members. */
function isEqual(a: Json | undefined, b: Json | undefined): boolean {
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return a === b;
  const [left, right] = [a as { readonly [key: string]: Json }, b as { readonly [key: string]: Json }];
  const keys = Object.keys(left);
  return (
    Array.isArray(a) === Array.isArray(b) &&
    keys.length === Object.keys(right).length &&
    keys.every((key) => Object.hasOwn(right, key) && isEqual(left[key], right[key]))
  );
}
