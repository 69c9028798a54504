import { RpcTarget } from "cloudflare:workers";
import type { Cause, LeaseCalls, Settlement } from "../src/instance/contract.ts";
import type { Units } from "../src/metering/amounts.ts";
import type { Ticket } from "../src/quota/contract.ts";
import type { Call } from "../src/scope/call.ts";
import type { BodyReference } from "../src/transcript/envelope.ts";
import { BodyWriter, type Piece, wholeBody } from "./bodies.ts";

/** The part of the instance that a lease writes through. What writes is synchronous: one atomic block each. */
export interface LeaseHost {
  /** Breaks the lease where the instance has no confirmation any more, and gets none. */
  confirm(lease: Lease): Promise<void>;
  appendPiece(lease: Lease, piece: Piece, part: "request" | "answer", bytes: number): Cause | null;
  /** Holds back who sends more than R2 takes, and breaks the lease where a shared limit has nothing left for what is to come. */
  pace(lease: Lease): Promise<void>;
  /** Bytes of an answer that is over and were not counted yet. Not null: the budget does not cover them. */
  countRest(lease: Lease, bytes: number): Cause | null;
  recordAnswer(lease: Lease, settlement: Settlement, bytes: number, answer: AnswerBody): void;
  recordLost(lease: Lease): void;
  release(lease: Lease): void;
}

/** What a call took when it was admitted, to be settled when it is over. */
export interface Taken {
  readonly units: Units;
  readonly tickets: readonly Ticket[];
  /** Of the instance's own budget. */
  readonly aheadBytes: number;
}

const FIRST = { isResumed: false, answer: null };

export interface AnswerBody {
  readonly reference: BodyReference | null;
  /** What shares the answer's row. */
  readonly tail: Piece | null;
}

/**
 * The live hold of one admitted call. The Worker that pumps the call keeps `broken()` pending: a switch resolves it,
 * a reset of this object rejects it, and either way the pump stops. What the Worker answers with (`settle`) is the
 * confirmation of the cut. A Worker that is gone is known by its silence: a disposer here would run once more for every call.
 */
export class Lease extends RpcTarget implements LeaseCalls {
  readonly seq: number;
  /** What was admitted: asked of the ceilings again when those narrow. */
  readonly call: Call;
  readonly upstream: string;
  /** `jti` of the grant that the call came with. */
  readonly grant: string;
  readonly #host: LeaseHost;
  /** Of an answer that comes in runs; one that comes whole never needs it. */
  #answer: BodyWriter | null;
  /** Of a request body that did not fit into the call's own record. */
  readonly request: BodyWriter | null;
  requestComplete: boolean;
  #cause: Cause | null = null;
  #switchId: string | null = null;
  /** When the Worker last said anything. */
  heardAtMs = Date.now();
  #broken = Promise.withResolvers<Cause>();
  #done = Promise.withResolvers<void>();
  #isDone = false;
  #isSettled = false;
  readonly taken: Taken;
  /** So many bytes of the answer its Worker may pass before they are counted. */
  aheadBytes: number;

  /** Where the call began in an earlier life of the object, with what is durable of its answer. */
  constructor(
    host: LeaseHost,
    seq: number,
    call: Call,
    request: BodyWriter | null,
    grant: string,
    taken: Taken,
    { isResumed, answer }: { readonly isResumed: boolean; readonly answer: BodyWriter | null } = FIRST,
  ) {
    super();
    this.#answer = answer;
    this.isResumed = isResumed;
    this.seq = seq;
    this.call = call;
    this.upstream = call.upstream;
    this.grant = grant;
    this.taken = taken;
    this.aheadBytes = taken.aheadBytes;
    this.#host = host;
    this.request = request;
    this.requestComplete = request === null;
  }

  /** Resolves when the Worker has settled, or was given up. */
  get done(): Promise<void> {
    return this.#done.promise;
  }
  get isDone(): boolean {
    return this.#isDone;
  }
  /** Its Worker has said how it ended; else it was given up. */
  get isSettled(): boolean {
    return this.#isSettled;
  }
  get cause(): Cause | null {
    return this.#cause;
  }

  /** By which switch it broke; null where it was no switch. */
  get switchId(): string | null {
    return this.#switchId;
  }
  readonly isResumed: boolean;
  /** Its Worker has it, and has said so by any of the calls below. */
  isHeld = false;
  /** When a byte of it last passed, as far as its Worker has said. */
  lastByteAtMs: number | null = null;

  /** The first cause counts. */
  break(cause: Cause, switchId: string | null = null): void {
    if (this.#cause === null) {
      this.#cause = cause;
      this.#switchId = switchId;
    }
    this.#broken.resolve(this.#cause);
  }

  async broken(): Promise<Cause> {
    this.isHeld = true;
    return this.#broken.promise;
  }

  async beat(): Promise<boolean> {
    this.isHeld = true;
    this.heardAtMs = Date.now();
    if (this.#cause === null && !this.#isDone) await this.#host.confirm(this);
    return this.#cause === null && !this.#isDone;
  }

  async appendRequest(bytes: Uint8Array, last: boolean): Promise<boolean> {
    if (this.#isDone || this.request === null || this.requestComplete) return false;
    this.heardAtMs = Date.now();
    this.#append(this.request, "request", bytes);
    this.requestComplete = last;
    await this.#host.pace(this);
    return this.#cause === null;
  }

  async append(bytes: Uint8Array, declaredBytes: number | null = null): Promise<number | null> {
    if (this.#isDone) return null;
    this.isHeld = true;
    this.heardAtMs = Date.now();
    this.#answer ??= new BodyWriter(this.seq, "answer", { declaredBytes });
    this.#append(this.#answer, "answer", bytes);
    // As of now: what the calls beside it take meanwhile is not its own.
    const { aheadBytes } = this;
    await this.#host.pace(this);
    return this.#cause === null ? aheadBytes : null;
  }

  #append(body: BodyWriter, part: "request" | "answer", bytes: Uint8Array): void {
    const cause = this.#host.appendPiece(this, body.next(bytes), part, bytes.length);
    if (cause !== null) this.break(cause);
  }

  async settle(settlement: Settlement): Promise<boolean | Cause> {
    if (this.#isDone) return false;
    const { endedAtMs, lastByteAtMs } = settlement.timing;
    // How long ago it was is the same on every clock.
    if (lastByteAtMs !== null) this.lastByteAtMs = Date.now() - Math.max(0, endedAtMs - lastByteAtMs);
    const bytes = settlement.redaction?.body?.trueBytes ?? settlement.tail.length;
    const uncovered = this.#host.countRest(this, bytes);
    // What was not to be passed any more needs no cover.
    if (uncovered !== null && settlement.outcome === "complete") this.break(uncovered);
    const complete = settlement.outcome === "complete" && this.#cause === null;
    this.#host.recordAnswer(this, settlement, bytes, this.#answerBody(settlement, complete));
    this.#isSettled = true;
    this.#finish();
    return this.#cause ?? true;
  }

  #answerBody({ head, tail }: Settlement, complete: boolean): AnswerBody {
    const mediaType = head?.mediaType ?? null;
    const coding = head?.coding ?? "identity";
    if (this.#answer !== null) {
      const piece = tail.length === 0 ? null : this.#answer.next(tail);
      return { reference: this.#answer.reference(mediaType, coding, complete), tail: piece };
    }
    // Without a byte there is no body, but a body that was expected and did not come is named.
    if (tail.length === 0) {
      const nothing = { digest: null, bytes: 0, mediaType, coding, complete: false };
      return { reference: head === null || complete ? null : nothing, tail: null };
    }
    const { reference, run } = wholeBody(this.seq, "answer", tail, mediaType, coding);
    return { reference: { ...reference, complete }, tail: { run, raw: null } };
  }

  /** What is known of an answer whose Worker is gone: what it appended, and nothing of what it passed since. */
  lostReference(mayMiss: number): BodyReference {
    const nothing = { digest: null, bytes: 0, mediaType: null, coding: "unknown", complete: false };
    return { ...(this.#answer?.reference(null, "unknown", false) ?? nothing), mayMiss };
  }

  /** Gives the call up without its Worker: it is recorded as lost, and whatever the Worker still says is refused. */
  abandon(): void {
    if (this.#isDone) return;
    this.#host.recordLost(this);
    // No switch reaches it from here on. A Worker that is there after all hears that at once, and not with its next append.
    this.#broken.resolve("ended");
    this.#finish();
  }

  #finish(): void {
    this.#isDone = true;
    this.#done.resolve();
    this.#host.release(this);
  }
}
