import type { ReadRecord } from "./verify-segment.ts";
import type { AnswerSaid, CallBody } from "./verify-shapes.ts";
import type { BodyName, StatedBodies, StatedBody } from "./verify-stated-bodies.ts";

interface ReadCall {
  readonly place: string;
  readonly atMs: number;
  readonly segment: number;
  /** By which it came; null where the record does not say. */
  readonly grant: unknown;
  readonly requestBytes: number | null;
  answered: boolean;
}

/** Causes by which a switch cuts. */
const BY_SWITCH = new Set<string | undefined>(["switched", "upstream-switched", "narrowed"]);
/** What the upstream has done is not known, where a call ended before its answer did. */
const UNKNOWN = new Set<string>(["cut", "client-gone", "timeout", "lost"]);
/** Of a call that was lost nobody is there to say these. */
const OF_WORKER = ["status", "headers", "passedBytes", "forwardedBytes", "timing"] as const;

/** Calls and their answers: every answer is of one call before it, and the only one. */
export class CallReader {
  readonly #bodies: StatedBodies;
  readonly #calls = new Map<number, ReadCall>();

  constructor(bodies: StatedBodies) {
    this.#bodies = bodies;
  }

  readCall(record: ReadRecord, { body }: CallBody, segment: number): void {
    const { seq, place, at, envelope } = record;
    const requestBytes = body === null ? 0 : bytesOf(body);
    this.#calls.set(seq, { place, atMs: at, segment, grant: envelope["grant"], requestBytes, answered: false });
    if (body === null) return;
    const until = body.digest === null ? Number.POSITIVE_INFINITY : segment;
    this.#bodies.state({ seq, part: "request" }, body, record, segment, until);
  }

  /** Whether the call is there, and open. The error may be because of what is not here to be read. */
  isOpen(seq: number): "open" | "answered" | "none" {
    const call = this.#calls.get(seq);
    return call === undefined ? "none" : call.answered ? "answered" : "open";
  }

  /** @param said of a call that is open */
  readAnswer(record: ReadRecord, said: AnswerSaid, segment: number): string | null {
    const { seq } = { seq: said.call };
    const call = this.#calls.get(seq)!;
    call.answered = true;
    if (said.body !== null)
      this.#bodies.state({ seq, part: "answer" }, said.body, record, call.segment, segment, call.atMs);
    if (said.requestBody !== undefined) {
      const request = this.#bodies.find({ seq, part: "request" });
      if (request === undefined || request.digest !== null)
        return "states a request body that its call did not leave open";
      const ofCall = { place: record.place, at: call.atMs };
      this.#bodies.state({ seq, part: "request" }, said.requestBody, ofCall, call.segment, segment);
    }
    if (record.envelope["grant"] !== call.grant) return `its grant is not that of its call, seq ${seq}`;
    return findOfAnswer(record, said, said.requestBody === undefined ? call.requestBytes : said.requestBody.bytes);
  }

  /** Calls without an answer. */
  get open(): readonly { readonly seq: number; readonly place: string }[] {
    return [...this.#calls].flatMap(([seq, { answered, place }]) => (answered ? [] : [{ seq, place }]));
  }

  /** More of it may follow. */
  isToCome({ seq, part }: BodyName): boolean {
    return part !== "claims" && this.#calls.get(seq)?.answered === false;
  }

  /** Of a body that no record states yet; undefined where none can account for it. */
  expect(name: BodyName, isHole: boolean): StatedBody | undefined {
    const call = this.#calls.get(name.seq);
    const isAnswerToCome = call !== undefined && !call.answered && name.part === "answer";
    if (!isAnswerToCome && !isHole) return undefined;
    const fromSegment = call?.segment ?? 0;
    const times = { atMs: Number.POSITIVE_INFINITY, sinceMs: call?.atMs ?? 0 };
    const nothing = { digest: null, bytes: null, mayBeMore: true, place: "" };
    return { ...name, ...nothing, ...times, fromSegment, untilSegment: Number.POSITIVE_INFINITY };
  }
}

const bytesOf = (body: {
  readonly bytes: number | null;
  readonly trueBytes?: number | null | undefined;
}): number | null => (body.trueBytes === undefined ? body.bytes : body.trueBytes);

/** What the members of an answer say of each other. */
function findOfAnswer({ envelope }: ReadRecord, said: AnswerSaid, requestBytes: number | null): string | null {
  const { outcome, cause, body, passedBytes = 0, forwardedBytes = 0 } = said;
  const isLost = outcome === "lost";
  const odd = OF_WORKER.find((name) => (envelope[name] === undefined) !== isLost);
  if (odd !== undefined) return isLost ? `is lost, and says its ${odd}` : `does not say its ${odd}`;
  if (outcome === "complete" && cause !== undefined) return "is complete, and its lease broke";
  if ((said.switch !== undefined) !== BY_SWITCH.has(cause)) return "names a switch, or none, against its cause";
  if ((said.upstreamOutcome !== undefined) !== UNKNOWN.has(outcome))
    return "its upstreamOutcome is against its outcome";
  if (isLost && (body?.mayMiss === undefined || said.reason === undefined))
    return "is lost, and says not why, or what it may miss";
  if (isLost && body?.complete !== false) return "is lost, and its body is complete";
  // What a rule kept from the record was withheld as a whole.
  if (outcome === "complete" && body?.complete === false && !("trueBytes" in body))
    return "is complete, and its body is not";
  const bytes = body === null ? 0 : bytesOf(body);
  if (bytes !== null && passedBytes > bytes) return `passed ${passedBytes} bytes, of an answer of ${bytes}`;
  if (outcome === "complete" && bytes !== null && passedBytes !== bytes)
    return `is complete, and passed ${passedBytes} of ${bytes} bytes`;
  if (requestBytes !== null && forwardedBytes > requestBytes)
    return `forwarded ${forwardedBytes} bytes, of a request of ${requestBytes}`;
  return null;
}
