import type { Denial } from "../denial.ts";
import type { AnswerHead } from "../instance/contract.ts";
import { formOf } from "../metering/read-answer.ts";
import type { Admitted } from "./admit.ts";
import type { CallRedaction } from "./call-redaction.ts";
import { type SignedDelegation, withoutDelegation } from "./delegation.ts";
import type { Forwarded } from "./forward.ts";
import {
  type AnswerRewriting,
  answeredHeaders,
  declaredLength,
  type HeaderList,
  isDecodedByRuntime,
} from "./headers.ts";
import { denialOf, reasonText } from "./outcome.ts";
import { type Expansion, type Passage, Pump } from "./pump.ts";
import { MAX_REDACTABLE_BYTES, TOO_LONG } from "./redact.ts";

/** A declared answer up to this is read whole before any of it is passed: one write, and no pump. */
const WHOLE_BYTES = 65_536;
/** How much of an answer that is withheld from the agent (the upstream refused our credential) goes on record. */
const WITHHELD_BYTES = 65_536;
/** A decoded body may have this many bytes, and beyond it this many times the coded ones, or this many where those are not declared. */
const EXPANSION_FREE_BYTES = 1_048_576;
const EXPANSION_RATIO = 200;
const EXPANSION_MAX_BYTES = 67_108_864;

/** Statuses without a body (RFC 9110 §6.4.1): the constructor of Response takes none with them. */
const BODYLESS = new Set([204, 205, 304]);

export interface Relaying extends Passage {
  readonly rewriting: Omit<AnswerRewriting, "decoded">;
  readonly isHead: boolean;
  /** Go with the answer, in the place of any that the upstream sent by these names. */
  readonly limitHeaders: HeaderList;
  /** What went out with the call, and comes back to nobody. */
  readonly delegation: SignedDelegation | null;
}

/** What the agent gets: an answer, or what the call came to without one. */
export type Relayed =
  | { readonly ok: true; readonly response: Response }
  | { readonly ok: false; readonly denial: Denial };

/**
 * Passes the upstream's answer to the agent and to the record, by hand: a body given to the client as it is could be
 * neither recorded with back-pressure nor cut.
 */
export async function relay(call: Admitted, forwarded: Forwarded, relaying: Relaying): Promise<Relayed> {
  const pump = new Pump(call, forwarded, relaying);
  const withoutAnswer = async (): Promise<Relayed> => {
    await pump.settleStopped();
    return { ok: false, denial: denialOf(call.stop.reason) };
  };
  const { response } = forwarded;
  if (response === null || call.stop.reason !== null) return withoutAnswer();
  // The credential is ours: that the upstream refuses it is our failure, and its words about it are not the agent's.
  const received = withoutDelegation(response.headers, relaying.delegation);
  if (response.status === 401 || response.status === 407)
    return withhold(response, received, call, pump, relaying.redaction);
  // Three digits that are no status (RFC 9110 §15), and that no Response can be made of.
  if (response.status < 200 || response.status > 599) {
    call.stop.stop({ kind: "upstream-broke-off" });
    return withoutAnswer();
  }

  const coding = response.headers.get("content-encoding");
  const decoded = isDecodedByRuntime(coding);
  const headers = answeredHeaders(received, { ...relaying.rewriting, decoded });
  if (pump.isEchoedIn(headers)) {
    pump.head = headOf(response.status, new Headers(), decoded);
    return withoutAnswer();
  }
  for (const [name, value] of relaying.limitHeaders) headers.set(name, value);
  const head = headOf(response.status, headers, decoded);
  const { redaction } = relaying;
  pump.head = redaction === null ? head : redaction.answerHead(head);
  // Of a coding that nobody here reads, nobody reads what it says.
  if (decoded || coding === null || coding === "identity") pump.meter(formOf(head.mediaType));
  const encodeBody = decoded || coding === null ? "automatic" : "manual";
  const init: ResponseInit = { status: response.status, headers, encodeBody };
  const answer = (body: BodyInit | null): Relayed => ({ ok: true, response: new Response(body, init) });

  const body = response.body as ReadableStream<Uint8Array> | null;
  if (body === null || relaying.isHead || BODYLESS.has(response.status)) {
    // No last byte to hold: the head is held instead.
    const length = declaredLength(response.headers);
    // Of a coding that the agent would not see, neither does it see the length.
    if (relaying.isHead && length !== null && !decoded) headers.set("content-length", String(length));
    return (await pump.settle("complete")) ? answer(null) : withoutAnswer();
  }
  const length = declaredLength(response.headers);
  const declared = decoded ? null : length;
  if (declared !== null && declared > relaying.upstream.maxAnswerBytes) {
    call.stop.stop({ kind: "too-large", reason: "the declared answer" });
    return withoutAnswer();
  }
  const eventStream = isEventStream(response.headers);
  if (redaction?.hasAnswerFields) {
    if (eventStream) return unrecordable(call, pump, redaction.withholdAnswer("a stream of events", null));
    const isTooLong = (declared ?? 0) > MAX_REDACTABLE_BYTES;
    const whole = isTooLong ? "too-long" : await pump.readApart(body, MAX_REDACTABLE_BYTES);
    if (whole === null) return withoutAnswer();
    if (whole === "too-long") return unrecordable(call, pump, redaction.withholdAnswer(TOO_LONG, null));
    if (whole === "no-room") return unrecordable(call, pump, redaction.withholdAnswer("too many are being read", null));
    const recorded = redaction.answerBody(whole, head);
    if (!recorded.ok) return unrecordable(call, pump, recorded.error);
    return (await pump.settleApart(whole, recorded.value)) ? answer(whole) : withoutAnswer();
  }
  if (declared !== null && declared <= WHOLE_BYTES && !eventStream) {
    const whole = await pump.readWhole(body, declared);
    return whole !== null && (await pump.settle("complete")) ? answer(whole) : withoutAnswer();
  }
  const size = { expansion: decoded ? expansionOf(length) : null, declaredBytes: declared };
  return answer(pump.stream(body, eventStream, size));
}

/** An answer that a rule concerns, and that can't be redacted for certain. */
async function unrecordable(call: Admitted, pump: Pump, reason: string): Promise<Relayed> {
  call.stop.release();
  await pump.settle("upstream-failed", reason);
  return { ok: false, denial: { kind: "upstream-failed", status: 502, reason } };
}

async function withhold(
  response: Response,
  received: Headers,
  call: Admitted,
  pump: Pump,
  redaction: CallRedaction | null,
): Promise<Relayed> {
  const reason = "the upstream refused the gate's credential";
  const decoded = isDecodedByRuntime(response.headers.get("content-encoding"));
  const recordable = pump.isEchoedIn(received) ? new Headers() : received;
  const head = headOf(response.status, recordable, decoded);
  pump.head = redaction === null ? head : redaction.answerHead(head);
  // Its beginning is no JSON that could be redacted.
  if (redaction?.hasAnswerFields) redaction.withholdAnswer("the beginning of a body", null);
  else if (response.body !== null && call.stop.reason === null)
    await pump.readBeginning(response.body as ReadableStream<Uint8Array>, WITHHELD_BYTES);
  call.stop.release();
  const echoed = call.stop.reason?.kind === "echoed" ? `, and ${reasonText(call.stop.reason)}` : "";
  await pump.settle("upstream-failed", reason + echoed);
  return { ok: false, denial: { kind: "upstream-failed", status: 502, reason } };
}

const expansionOf = (codedBytes: number | null): Expansion => ({
  freeBytes: EXPANSION_FREE_BYTES,
  maxBytes: codedBytes === null ? EXPANSION_MAX_BYTES : codedBytes * EXPANSION_RATIO,
});

const headOf = (status: number, headers: Headers, decoded: boolean): AnswerHead => ({
  status,
  headers: [...headers],
  mediaType: headers.get("content-type"),
  coding: decoded ? "identity" : (headers.get("content-encoding") ?? "identity"),
});

/** Answers whose reader acts on each part as it comes, and must not wait for the next one to get its last byte. */
const isEventStream = (headers: Headers): boolean =>
  /^(text\/event-stream|application\/(x-)?nd-?json|application\/jsonl)\b/i.test(headers.get("content-type") ?? "");
