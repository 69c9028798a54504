import type { Config, UpstreamConfig } from "../config/define.ts";
import type { AnswerHead, Outcome, Settlement } from "../instance/contract.ts";
import type { Admitted } from "./admit.ts";
import { type Denial, unauthenticated, unavailable } from "./denial.ts";
import type { Forwarded } from "./forward.ts";
import { type AnswerRewriting, answeredHeaders, isDecodedByRuntime } from "./headers.ts";
import { within } from "./stop.ts";

/** A declared answer up to this is read whole before any of it is passed: one write, and no pump. */
const WHOLE_BYTES = 65_536;
const READ_BYTES = 65_536;
/** How much of an answer that is withheld from the agent (the upstream refused our credential) goes on record. */
const WITHHELD_BYTES = 65_536;
/** While nothing else is said, the pump asks its lease this often whether it still holds, and waits this long for a word. */
const BEAT_MS = 5_000;
const LEASE_ANSWER_MS = 5_000;

const NOTHING = new Uint8Array(0);
/** Statuses without a body (RFC 9110 §6.4.1): the constructor of Response takes none with them. */
const BODYLESS = new Set([204, 205, 304]);

export interface Relaying {
  readonly upstream: UpstreamConfig;
  readonly lead: Pick<Config["transcripts"], "streamLeadMs" | "streamLeadBytes">;
  readonly rewriting: Omit<AnswerRewriting, "decoded">;
  readonly isHead: boolean;
  readonly startedAtMs: number;
  /** Keeps the Worker up until the call is settled, whatever becomes of the client. */
  readonly waitUntil: (work: Promise<unknown>) => void;
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
  const { response } = forwarded;
  if (response === null || call.stop.reason !== null) return pump.withoutAnswer();
  // The credential is ours: that the upstream refuses it is our failure, and its words about it are not the agent's.
  if (response.status === 401 || response.status === 407) return pump.withheld(response);
  const coding = response.headers.get("content-encoding");
  const decoded = isDecodedByRuntime(coding);
  const headers = answeredHeaders(response.headers, { ...relaying.rewriting, decoded });
  pump.head = headOf(response.status, headers, decoded);
  const init: ResponseInit = {
    status: response.status,
    headers,
    encodeBody: decoded || coding === null ? "automatic" : "manual",
  };
  if (response.body === null || relaying.isHead || BODYLESS.has(response.status)) {
    // No last byte to hold: the head is held instead.
    if (relaying.isHead) copyLength(response.headers, headers);
    return (await pump.settle("complete")) ? answer(new Response(null, init)) : pump.withoutAnswer();
  }
  const declared = decoded ? null : declaredLength(response.headers);
  if (declared !== null && declared > relaying.upstream.maxAnswerBytes) {
    call.stop.stop({ kind: "too-large", reason: "the declared answer" });
    return pump.withoutAnswer();
  }
  const reader = (response.body as ReadableStream<Uint8Array>).getReader({ mode: "byob" });
  if (declared !== null && declared <= WHOLE_BYTES && !isEventStream(response.headers)) {
    const whole = await pump.readWhole(reader, declared);
    if (whole === null || !(await pump.settle("complete"))) return pump.withoutAnswer();
    return answer(new Response(whole, init));
  }
  const compressed = decoded ? declaredLength(response.headers) : null;
  return answer(new Response(pump.stream(reader, isEventStream(response.headers), decoded, compressed), init));
}

const answer = (response: Response): Relayed => ({ ok: true, response });

/** Decoded bytes beyond this are refused where they are more than this many times the coded ones. */
const EXPANSION_FREE_BYTES = 1_048_576;
const EXPANSION_RATIO = 200;
/** And, where the coded length is not declared, beyond this. */
const EXPANSION_MAX_BYTES = 67_108_864;

/** One call's passage. It ends in exactly one settlement. */
class Pump {
  head: AnswerHead | null = null;
  readonly #call: Admitted;
  readonly #forwarded: Forwarded;
  readonly #relaying: Relaying;
  readonly #firstByteAtMs: number;
  #passedBytes = 0;
  #receivedBytes = 0;
  /** Received and, perhaps, passed, but not durable yet. */
  #pending: Uint8Array[] = [];
  #pendingBytes = 0;
  #settled: Promise<boolean> | null = null;
  #pendingSinceMs = 0;

  constructor(call: Admitted, forwarded: Forwarded, relaying: Relaying) {
    this.#call = call;
    this.#forwarded = forwarded;
    this.#relaying = relaying;
    this.#firstByteAtMs = Date.now();
    const totalMs = Math.max(1, relaying.upstream.totalTimeoutMs - (Date.now() - relaying.startedAtMs));
    this.#totalTimer = setTimeout(() => call.stop.stop({ kind: "timeout", what: "total" }), totalMs);
  }
  readonly #totalTimer: number;

  /** The only ending. True: durable, and nobody had broken the lease before. */
  settle(outcome: Outcome, reason: string | null = null): Promise<boolean> {
    this.#settled ??= this.#settleOnce(outcome, reason);
    return this.#settled;
  }

  async #settleOnce(outcome: Outcome, reason: string | null): Promise<boolean> {
    clearTimeout(this.#totalTimer);
    const settlement: Settlement = {
      outcome,
      head: this.head,
      tail: this.#takePending(),
      passedBytes: outcome === "complete" ? this.#receivedBytes : this.#passedBytes,
      forwardedBytes: this.#forwarded.sent.bytes,
      timing: {
        startedAtMs: this.#relaying.startedAtMs,
        firstByteAtMs: this.head === null ? null : this.#firstByteAtMs,
        endedAtMs: Date.now(),
      },
      reason,
    };
    try {
      const settled = (await within(LEASE_ANSWER_MS, this.#call.lease.settle(settlement))) === true;
      if (!settled) this.#call.stop.stop({ kind: "lease-lost" });
      return settled;
    } catch {
      this.#call.stop.stop({ kind: "lease-lost" });
      return false;
    } finally {
      this.#call.lease[Symbol.dispose]?.();
    }
  }

  /** Settles a call that the agent gets nothing of, and says what it gets instead. */
  async withoutAnswer(): Promise<Relayed> {
    const { reason } = this.#call.stop;
    this.#call.stop.release();
    const settling = this.settle(outcomeOf(reason), reasonText(reason));
    this.#relaying.waitUntil(settling);
    await settling;
    return { ok: false, denial: denialOf(reason) };
  }

  async withheld(response: Response): Promise<Relayed> {
    this.head = headOf(response.status, response.headers, true);
    if (response.body !== null) this.#take(await this.#readUpTo(response.body, WITHHELD_BYTES));
    this.#call.stop.release();
    await this.settle("upstream-failed", "the upstream refused the gate's credential");
    return {
      ok: false,
      denial: { kind: "upstream-failed", status: 502, reason: "the upstream refused the gate's credential" },
    };
  }

  async #readUpTo(body: ReadableStream, bytes: number): Promise<Uint8Array> {
    const reader = (body as ReadableStream<Uint8Array>).getReader({ mode: "byob" });
    return (await this.#next(reader.readAtLeast(bytes, new Uint8Array(bytes)))) ?? NOTHING;
  }

  /** Null: stopped, or the upstream broke off. */
  async readWhole(reader: ReadableStreamBYOBReader, declared: number): Promise<Uint8Array | null> {
    if (declared === 0) return NOTHING;
    const whole = await this.#next(reader.readAtLeast(declared, new Uint8Array(declared)));
    if (whole !== null) this.#take(whole);
    return whole?.byteLength === declared ? whole : null;
  }

  /**
   * The answer as a stream that is pulled: each run goes to the agent and to the record, and what was passed leads
   * what is durable by at most `streamLeadBytes` and `streamLeadMs`. The last byte waits for the settlement; of an
   * event stream, whose reader needs every byte of an event at once, its end does.
   */
  stream(
    reader: ReadableStreamBYOBReader,
    isEventStream: boolean,
    decoded: boolean,
    compressedBytes: number | null,
  ): ReadableStream<Uint8Array> {
    let held = NOTHING;
    let buffer = new Uint8Array(READ_BYTES);
    const finished = Promise.withResolvers<void>();
    this.#relaying.waitUntil(finished.promise);
    const fail = async (controller: ReadableByteStreamController): Promise<void> => {
      // First the agent's side, then the upstream's, then the word that it is so.
      controller.error(new Error("cut"));
      await this.withoutAnswer();
      finished.resolve();
    };
    return new ReadableStream({
      type: "bytes",
      pull: async (controller) => {
        const run = await this.#next(reader.read(buffer));
        if (this.#call.stop.reason !== null) return fail(controller);
        if (run === null) {
          this.#call.stop.stop({ kind: "upstream-broke-off" });
          return fail(controller);
        }
        if (run.byteLength === 0) {
          if (!(await this.settle("complete"))) return fail(controller);
          if (held.byteLength > 0) controller.enqueue(held);
          controller.close();
          if (held.byteLength === 0) controller.byobRequest?.respond(0);
          finished.resolve();
          return;
        }
        this.#take(run);
        if (this.#isTooLarge(decoded, compressedBytes)) {
          this.#call.stop.stop({ kind: "too-large", reason: "the answer" });
          return fail(controller);
        }
        if (!(await this.#keepLead())) return fail(controller);
        const out = isEventStream ? run : concat(held, run.subarray(0, run.byteLength - 1));
        if (!isEventStream) held = run.slice(run.byteLength - 1);
        this.#passedBytes += out.byteLength;
        buffer = new Uint8Array(READ_BYTES);
        if (out.byteLength > 0) controller.enqueue(isEventStream ? out.slice() : out);
        else controller.enqueue(held.subarray(0, 0));
      },
      cancel: async () => {
        this.#call.stop.stop({ kind: "client-gone" });
        await this.withoutAnswer();
        finished.resolve();
      },
    } as UnderlyingByteSource) as ReadableStream<Uint8Array>;
  }

  /** The next run, or null where the read failed or the call was stopped. Meanwhile what is pending becomes durable in time, and the lease is asked. */
  async #next(read: Promise<ReadableStreamReadResult<Uint8Array>>): Promise<Uint8Array | null> {
    const { stop, lease } = this.#call;
    const idleUntilMs = Date.now() + this.#relaying.upstream.idleTimeoutMs;
    const arrived = read.then(
      ({ value }) => value ?? NOTHING,
      () => null,
    );
    const stopped = stop.stopped.then(() => "stopped" as const);
    for (;;) {
      const nowMs = Date.now();
      if (nowMs >= idleUntilMs) stop.stop({ kind: "timeout", what: "idle" });
      if (stop.reason !== null) return null;
      const leadUntilMs =
        this.#pendingBytes > 0 ? this.#pendingSinceMs + this.#relaying.lead.streamLeadMs : Number.POSITIVE_INFINITY;
      const event = await this.#wait(Math.min(idleUntilMs, leadUntilMs, nowMs + BEAT_MS) - nowMs, arrived, stopped);
      if (event === "stopped") return null;
      if (event !== "timer") return event;
      if (this.#pendingBytes > 0) await this.#append();
      else if (
        (await within(
          LEASE_ANSWER_MS,
          lease.beat().catch(() => false),
        )) !== true
      )
        stop.stop({ kind: "lease-lost" });
    }
  }

  async #wait<A, B>(ms: number, a: Promise<A>, b: Promise<B>): Promise<A | B | "timer"> {
    let timer: number | null = null;
    const late = new Promise<"timer">((resolve) => {
      timer = setTimeout(() => resolve("timer"), Math.max(0, ms));
    });
    try {
      return await Promise.race([a, b, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  #take(run: Uint8Array): void {
    if (this.#pendingBytes === 0) this.#pendingSinceMs = Date.now();
    this.#pending.push(run);
    this.#pendingBytes += run.byteLength;
    this.#receivedBytes += run.byteLength;
  }

  #takePending(): Uint8Array {
    const bytes = this.#pending.length === 1 ? this.#pending[0]! : concat(...this.#pending);
    this.#pending = [];
    this.#pendingBytes = 0;
    return bytes;
  }

  /** Before more is passed than the lead allows, what was received becomes durable. False: the call is stopped. */
  async #keepLead(): Promise<boolean> {
    const { streamLeadBytes, streamLeadMs } = this.#relaying.lead;
    const due = this.#pendingBytes >= streamLeadBytes || Date.now() - this.#pendingSinceMs >= streamLeadMs;
    if (due) await this.#append();
    return this.#call.stop.reason === null;
  }

  async #append(): Promise<void> {
    const bytes = this.#takePending();
    const kept = await within(
      LEASE_ANSWER_MS,
      this.#call.lease.append(bytes).catch(() => undefined),
    );
    // Nothing heard, or the object is gone: nobody could cut this call. `false`: the lease broke, and its cause is on its way.
    if (kept === undefined) this.#call.stop.stop({ kind: "lease-lost" });
    if (kept === false) await within(LEASE_ANSWER_MS, this.#call.stop.stopped);
    if (kept === false && this.#call.stop.reason === null) this.#call.stop.stop({ kind: "lease-lost" });
  }

  #isTooLarge(decoded: boolean, compressedBytes: number | null): boolean {
    if (this.#receivedBytes > this.#relaying.upstream.maxAnswerBytes) return true;
    if (!decoded || this.#receivedBytes <= EXPANSION_FREE_BYTES) return false;
    return this.#receivedBytes > (compressedBytes === null ? EXPANSION_MAX_BYTES : compressedBytes * EXPANSION_RATIO);
  }
}

type Reason = Admitted["stop"]["reason"];

/** How a call without an answer stands on record. */
function outcomeOf(reason: Reason): Outcome {
  switch (reason?.kind) {
    case "cut":
    case "lease-lost":
      return "cut";
    case "client-gone":
      return "client-gone";
    case "timeout":
      return "timeout";
    case "too-large":
      return "too-large";
    case "upstream-broke-off":
    case undefined:
      return "upstream-failed";
  }
}

function reasonText(reason: Reason): string | null {
  switch (reason?.kind) {
    case "cut":
      return `the lease broke: ${reason.cause}`;
    case "lease-lost":
      return "the lease was lost";
    case "timeout":
      return `${reason.what} timeout`;
    case "too-large":
      return `${reason.reason} is too large`;
    case "upstream-broke-off":
      return "the upstream broke off";
    case "client-gone":
      return null;
    case undefined:
      return "the upstream could not be reached";
  }
}

/** And what the agent is told, where its answer has not begun: of a cut, what any revoked token hears. */
function denialOf(reason: Reason): Denial {
  switch (reason?.kind) {
    case "cut":
      return reason.cause === "budget"
        ? { kind: "exhausted", budget: "bytes" }
        : unauthenticated("invalid_token", `cut: ${reason.cause}`);
    case "lease-lost":
      return unavailable("the lease was lost");
    case "timeout":
      return { kind: "upstream-failed", status: 504, reason: `${reason.what} timeout` };
    case "too-large":
      return reason.reason === "the request's body"
        ? { kind: "too-large", reason: reason.reason }
        : { kind: "upstream-failed", status: 502, reason: reason.reason };
    case "client-gone":
    case "upstream-broke-off":
    case undefined:
      return { kind: "upstream-failed", status: 502, reason: reasonText(reason) ?? "the agent went away" };
  }
}

const headOf = (status: number, headers: Headers, decoded: boolean): AnswerHead => ({
  status,
  headers: [...headers],
  mediaType: headers.get("content-type"),
  coding: decoded ? "identity" : (headers.get("content-encoding") ?? "identity"),
});

const isEventStream = (headers: Headers): boolean =>
  /^(text\/event-stream|application\/(x-)?nd-?json|application\/jsonl)\b/i.test(headers.get("content-type") ?? "");

function declaredLength(headers: Headers): number | null {
  const text = headers.get("content-length");
  return text !== null && /^\d{1,15}$/.test(text) ? Number(text) : null;
}

function copyLength(from: Headers, to: Headers): void {
  const length = declaredLength(from);
  if (length !== null) to.set("content-length", String(length));
}

function concat(...runs: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(runs.reduce((sum, run) => sum + run.byteLength, 0));
  let at = 0;
  for (const run of runs) {
    whole.set(run, at);
    at += run.byteLength;
  }
  return whole;
}
