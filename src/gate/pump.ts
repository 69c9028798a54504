import type { Config, UpstreamConfig } from "../config/define.ts";
import type { AnswerHead, Outcome, Settlement } from "../instance/contract.ts";
import { chargeOf, type Metered, NOTHING_SAID } from "../metering/charge.ts";
import { type AnswerForm, AnswerReader, type Room } from "../metering/read-answer.ts";
import { within } from "../within.ts";
import type { Admitted } from "./admit.ts";
import type { CallRedaction } from "./call-redaction.ts";
import { EchoScan } from "./echo-scan.ts";
import type { Forwarded } from "./forward.ts";
import { LEASE_ANSWER_MS } from "./held-lease.ts";
import { outcomeOf, reasonText } from "./outcome.ts";
import { giveRoom, takeRoom } from "./request-body.ts";
import { concat, Unrecorded } from "./unrecorded.ts";

/** Of one read of a stream: small at first, and twice as much whenever it was filled. A buffer costs its length in zeros. */
const READ_MIN_BYTES = 4_096;
const READ_MAX_BYTES = 65_536;

const NOTHING = new Uint8Array(0);
/** The same that bodies are read whole in. */
const ROOM: Room = { take: takeRoom, give: giveRoom };

/** Between whom, and how long. */
export interface Passage {
  readonly upstream: UpstreamConfig;
  readonly lead: Pick<Config["transcripts"], "streamLeadMs">;
  /** Null: nothing of the call is metered. */
  readonly metered: Metered | null;
  /** Null: no rule concerns the call. */
  readonly redaction: CallRedaction | null;
  readonly startedAtMs: number;
  /** Keeps the Worker up until a stream is settled, whatever becomes of the client. */
  readonly waitUntil: (work: Promise<unknown>) => void;
}

/** When decoded bytes are more than an honest coding makes them. */
export interface Expansion {
  readonly freeBytes: number;
  readonly maxBytes: number;
}

/** One call's passage from the upstream to the agent and to the record. It ends in exactly one settlement. */
export class Pump {
  head: AnswerHead | null = null;
  readonly #call: Admitted;
  readonly #forwarded: Forwarded;
  readonly #passage: Passage;
  readonly #scan: EchoScan;
  readonly #firstByteAtMs = Date.now();
  #passedBytes = 0;
  #passedAtMs: number | null = null;
  #receivedBytes = 0;
  readonly #unrecorded: Unrecorded;
  #settled: Promise<boolean> | null = null;
  /** Of a metered call whose answer can be read. */
  #reader: AnswerReader | null = null;

  constructor(call: Admitted, forwarded: Forwarded, passage: Passage) {
    this.#call = call;
    this.#forwarded = forwarded;
    this.#passage = passage;
    this.#scan = new EchoScan(forwarded.guarded);
    this.#unrecorded = new Unrecorded(call, passage.lead.streamLeadMs);
  }

  /** True: what was sent is in them, and the call is stopped. */
  isEchoedIn(headers: Headers): boolean {
    const what = this.#scan.findInHeaders(headers);
    if (what !== null) this.#call.stop.stop({ kind: "echoed", what });
    return what !== null;
  }

  /** From here on what is received is read for what it says of its cost. */
  meter(form: AnswerForm | null): void {
    const { metered } = this.#passage;
    if (metered !== null && form !== null) this.#reader = new AnswerReader(metered, form, ROOM);
  }

  /** Of a whole answer alone: what was cut may have cost more than it came to say. */
  #unitsOf(outcome: Outcome): Pick<Settlement, "units"> {
    const { metered } = this.#passage;
    if (metered === null || outcome !== "complete" || this.head === null) return {};
    return { units: chargeOf(metered, this.#reader?.end() ?? NOTHING_SAID, this.head.status) };
  }

  /** The only ending. True: durable, and nobody had broken the lease before. */
  settle(outcome: Outcome, reason: string | null = null): Promise<boolean> {
    this.#settled ??= this.#settleOnce(outcome, reason);
    return this.#settled;
  }

  /** Settles a call that was stopped: the upstream's connection is closed, and then the word goes out that it is so. */
  async settleStopped(): Promise<void> {
    const { reason } = this.#call.stop;
    this.#call.stop.release();
    await this.settle(outcomeOf(reason), reasonText(reason));
  }

  async #settleOnce(outcome: Outcome, reason: string | null): Promise<boolean> {
    const { stop, lease } = this.#call;
    const settlement: Settlement = {
      outcome,
      head: this.head,
      tail: this.#unrecorded.settle(),
      passedBytes: this.#passedBytes,
      heldBytes: outcome === "complete" ? this.#receivedBytes - this.#passedBytes : 0,
      forwardedBytes: this.#forwarded.sent.bytes,
      timing: {
        startedAtMs: this.#passage.startedAtMs,
        firstByteAtMs: this.head === null ? null : this.#firstByteAtMs,
        lastByteAtMs: later(this.#passedAtMs, this.#forwarded.sent.lastAtMs),
        endedAtMs: Date.now(),
      },
      reason,
      ...this.#unitsOf(outcome),
      ...(this.#passage.redaction === null ? {} : { redaction: this.#passage.redaction.answer }),
    };
    stop.allow(LEASE_ANSWER_MS, { kind: "lease-lost" });
    const settling = lease.settle(settlement).finally(() => lease[Symbol.dispose]());
    try {
      const settled = await (stop.reason === null ? stop.orStopped(settling) : settling);
      // `false`: it was given up. What the agent hears is what any revoked token hears.
      if (settled === false) stop.stop({ kind: "cut", cause: "switched" });
      else if (typeof settled === "string") stop.stop({ kind: "cut", cause: settled });
      else if (settled === undefined) this.#loseLease(settling);
      return settled === true;
    } finally {
      stop.end();
      this.#reader?.close();
    }
  }

  /** It may still be settled: only who has surely no lease says that it has stopped without. */
  #loseLease(settling: Promise<unknown>): void {
    this.#call.stop.stop({ kind: "lease-lost" });
    const stopped = async (): Promise<void> => {
      if ((await within(LEASE_ANSWER_MS, settling)) === undefined) await this.#call.confirmStopped();
    };
    this.#passage.waitUntil(stopped());
  }

  /** An answer of a declared, short length. Null: stopped, or the upstream broke off; what came until then is pending, for the record. */
  async readWhole(body: ReadableStream<Uint8Array>, declared: number): Promise<Uint8Array | null> {
    const reader = body.getReader();
    const runs: Uint8Array[] = [];
    let bytes = 0;
    while (bytes < declared) {
      const run = await this.#read(() => reader.read());
      if (run === null) return null;
      if (run.byteLength === 0) {
        this.#call.stop.stop({ kind: "upstream-broke-off" });
        return null;
      }
      this.#take(run);
      runs.push(run);
      bytes += run.byteLength;
    }
    // Of one that came slowly some is appended by now, and pending no more.
    return this.#unrecorded.pendingBytes === bytes ? this.#unrecorded.join() : concat(runs);
  }

  /**
   * An answer that is not recorded as it came: none of it is ever pending. Null: stopped. `too-long`: it has more than
   * `maxBytes`. `no-room`: too many are being read whole.
   */
  async readApart(
    body: ReadableStream<Uint8Array>,
    maxBytes: number,
  ): Promise<Uint8Array | "too-long" | "no-room" | null> {
    const reader = body.getReader();
    const runs: Uint8Array[] = [];
    let bytes = 0;
    try {
      for (;;) {
        const run = await this.#read(() => reader.read());
        if (run === null) return null;
        if (run.byteLength === 0) break;
        if (bytes + run.byteLength > maxBytes) return "too-long";
        if (!takeRoom(run.byteLength)) return "no-room";
        runs.push(run);
        bytes += run.byteLength;
      }
    } finally {
      giveRoom(bytes);
    }
    return concat(runs);
  }

  /** The only ending of an answer that was read apart. */
  settleApart(whole: Uint8Array, recorded: Uint8Array): Promise<boolean> {
    this.#receivedBytes = whole.byteLength;
    this.#reader?.take(whole);
    this.#unrecorded.replace(recorded);
    return this.settle("complete");
  }

  /** The beginning of an answer that the agent does not get, for the record. */
  async readBeginning(body: ReadableStream<Uint8Array>, maxBytes: number): Promise<void> {
    const reader = body.getReader({ mode: "byob" });
    // Run by run: of one that falls silent, what had come stays. Of one that ends nothing is held back; of a longer one what may be
    // the credential's beginning is not recorded.
    for (let room = maxBytes; room > 0; ) {
      const run = await this.#read(() => reader.read(new Uint8Array(room)));
      if (run === null || run.byteLength === 0) return;
      this.#take(run.subarray(0, room));
      room -= run.byteLength;
    }
  }

  /**
   * The answer as a stream that is pulled: each run goes to the agent and to the record, and what was passed leads
   * what is durable by at most `aheadBytes`, as the instance says, and `streamLeadMs`. The last byte waits for the settlement; of an
   * event stream, whose reader needs every byte of an event at once, its end does.
   */
  stream(
    body: ReadableStream<Uint8Array>,
    isEventStream: boolean,
    { expansion, declaredBytes }: { readonly expansion: Expansion | null; readonly declaredBytes: number | null },
  ): ReadableStream<Uint8Array> {
    this.#unrecorded.declaredBytes = declaredBytes;
    const reader = body.getReader({ mode: "byob" });
    const finished = Promise.withResolvers<void>();
    this.#passage.waitUntil(finished.promise);
    this.#call.listen();
    // So the roster knows of it at once, and cuts it before those that run nothing. Others are known by their first run.
    if (isEventStream) this.#call.lease.sayRunning();
    this.#call.stop.leaveToPump();
    let held = NOTHING;
    let readBytes = READ_MIN_BYTES;
    let isOver = false;
    const cut = async (controller: ReadableByteStreamController): Promise<void> => {
      if (isOver) return;
      isOver = true;
      // First the agent's side, then the upstream's, then the word that it is so.
      try {
        controller.error(new Error("cut"));
      } catch {
        // The agent has closed it meanwhile.
      }
      // Where a switch cuts hundreds at once, all of them fall silent before the first upstream hears of it, or a word is written.
      await new Promise((resolve) => setTimeout(resolve, 0));
      await this.settleStopped();
      finished.resolve();
    };
    // A reader that does not read asks for nothing: its stream is cut all the same, and not when it reads again.
    const start = (controller: ReadableByteStreamController): void => {
      void this.#call.stop.stopped().then(() => cut(controller));
    };
    const pull = async (controller: ReadableByteStreamController): Promise<void> => {
      for (;;) {
        if (!this.#call.lease.isHeld) await this.#unrecorded.untilPassable();
        const run = await this.#read(() => reader.read(new Uint8Array(readBytes)));
        if (run === null) return cut(controller);
        if (run.byteLength === 0) break;
        if (run.byteLength === readBytes) readBytes = Math.min(2 * readBytes, READ_MAX_BYTES);
        this.#take(run);
        if (this.#isTooLarge(expansion)) {
          this.#call.stop.stop({ kind: "too-large", reason: "the answer" });
          return cut(controller);
        }
        // In the turn of the last look the bytes go out.
        while (!this.#unrecorded.isPassable()) await this.#unrecorded.untilPassable();
        if (this.#call.stop.reason !== null) return cut(controller);
        // The record keeps `run`; what is enqueued gives its buffer away.
        const out = isEventStream ? run.slice() : concat([held, run.subarray(0, run.byteLength - 1)]);
        if (!isEventStream) held = run.slice(run.byteLength - 1);
        if (out.byteLength === 0) continue;
        this.#passedBytes += out.byteLength;
        this.#passedAtMs = Date.now();
        controller.enqueue(out);
        return;
      }
      if (!(await this.settle("complete"))) return cut(controller);
      isOver = true;
      if (held.byteLength > 0) controller.enqueue(held);
      controller.close();
      controller.byobRequest?.respond(0);
      finished.resolve();
    };
    const cancel = async (): Promise<void> => {
      isOver = true;
      this.#call.stop.stop({ kind: "client-gone" });
      await this.settleStopped();
      finished.resolve();
    };
    return new ReadableStream({
      type: "bytes",
      start,
      pull,
      cancel,
    } as UnderlyingByteSource) as ReadableStream<Uint8Array>;
  }

  /** What of the answer may be passed and recorded: empty at the end, null where it failed or the call was stopped. */
  async #read(read: () => Promise<ReadableStreamReadResult<Uint8Array>>): Promise<Uint8Array | null> {
    for (;;) {
      const run = await this.#readOnce(read());
      if (run === null) return null;
      if (run.byteLength === 0) return this.#scan.end();
      const clean = this.#scan.pass(run);
      if (typeof clean === "string") {
        this.#call.stop.stop({ kind: "echoed", what: clean });
        return null;
      }
      if (clean.byteLength > 0) return lean(clean);
    }
  }

  /** One read within the idle bound. */
  async #readOnce(read: Promise<ReadableStreamReadResult<Uint8Array>>): Promise<Uint8Array | null> {
    const { stop } = this.#call;
    stop.allow(this.#passage.upstream.idleTimeoutMs, { kind: "timeout", what: "idle" });
    try {
      const result = await stop.orStopped(read);
      return result === undefined || stop.reason !== null ? null : (result.value ?? NOTHING);
    } catch {
      stop.stop({ kind: "upstream-broke-off" });
      return null;
    }
  }

  #take(run: Uint8Array): void {
    this.#unrecorded.add(run);
    this.#reader?.take(run);
    this.#receivedBytes += run.byteLength;
  }

  #isTooLarge(expansion: Expansion | null): boolean {
    if (this.#receivedBytes > this.#passage.upstream.maxAnswerBytes) return true;
    return expansion !== null && this.#receivedBytes > Math.max(expansion.freeBytes, expansion.maxBytes);
  }
}

/** What waits for more, or for its record, must not keep a whole buffer for a byte: an upstream may send them one by one. */
const lean = (run: Uint8Array): Uint8Array => (2 * run.byteLength < run.buffer.byteLength ? run.slice() : run);

const later = (a: number | null, b: number | null): number | null =>
  a === null || b === null ? (a ?? b) : Math.max(a, b);
