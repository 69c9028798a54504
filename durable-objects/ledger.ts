import type { Deployment } from "../src/deployment.ts";
import type { Enrolment, ErasedBodies, UnstoredBody } from "../src/instance/contract.ts";
import type { Usage } from "../src/instance/limits.ts";
import { addUnits, own, type Units } from "../src/metering/amounts.ts";
import type { Ticket } from "../src/quota/contract.ts";
import { countingBytes, type Shares } from "../src/quota/shares.ts";
import type { Json } from "../src/scope/call.ts";
import type { BodyPart } from "../src/transcript/body-line.ts";
import type { Fields, RecordType } from "../src/transcript/envelope.ts";
import { instancePartition, type RawPart } from "../src/transcript/layout.ts";
import { within } from "../src/within.ts";
import type { Piece } from "./bodies.ts";
import { identityFields } from "./instance-fields.ts";
import type { Kept } from "./kept.ts";
import type { StoredSegment } from "./log-segments.ts";
import { RawBodies } from "./raw-bodies.ts";
import { nameInIndex } from "./segment-index.ts";
import { TranscriptLog } from "./transcript-log.ts";

/** So much of raw bodies may wait for R2 before who sends more has to wait, too, */
const RAW_AHEAD_BYTES = 33_554_432;
/** and that is below a Worker's patience with its lease. */
const PACE_MAX_MS = 3_000;
const RAW_RETRY_MS = 5_000;
/** So long an alarm waits for R2: it has a deadline to keep. What takes longer goes on beside it, and the next one waits. */
export const R2_WAIT_MS = 10_000;

/** The running totals. Every record carries them, so that they are as durable as what they count. */
export interface State {
  readonly usage: Usage;
  /** `seq` of calls without an answer, ascending. */
  readonly open: readonly number[];
  /** The last moment at which any grant given out so far is valid. */
  readonly grantsExpireAtMs: number;
  /** Set once; from then on nothing is admitted. */
  readonly stopped: "revoked" | "switched" | null;
  /** Calls that a switch has cut, and whose Worker has confirmed it, by the switch's id. */
  readonly cuts?: Readonly<Record<string, number>>;
  /** Calls that died with an earlier life of this object, or that its end gave up: their Workers cut by themselves until then, and confirm it to nobody. */
  readonly orphaned?: { readonly calls: number; readonly untilMs: number };
  /** What was used of shared limits. */
  readonly shares?: Shares;
  /** Of open calls, by `seq`: what of `usage.bytesAhead` each of them holds. */
  readonly ahead?: Readonly<Record<string, number>>;
  /** Of open calls, by `seq`: how much of their long bodies is counted, and by which quotas. What came after that is counted when they are lost. */
  readonly passing?: Readonly<Record<string, Passing>>;
}

export interface Passing {
  readonly bytes: number;
  readonly quotas: readonly string[];
}

const NEW: State = {
  usage: { calls: 0, bytes: 0, bytesAhead: 0, units: {}, tokens: 0, tokensAtMs: 0 },
  open: [],
  grantsExpireAtMs: 0,
  stopped: null,
};

/** What shares a record's row. */
export interface Beside {
  readonly grant?: string;
  readonly jti?: { readonly id: string; readonly untilMs: number };
  readonly body?: Piece;
}

export interface LedgerOptions {
  readonly ctx: DurableObjectState;
  readonly kept: Kept;
  /** Throws where that is not what it must be. */
  readonly readTotals: (found: Json) => State;
  readonly bucket: () => R2Bucket;
  /** Throws while a secret is missing. */
  readonly deployment: () => Deployment;
  readonly wakeBy: (atMs: number) => void;
  /** Writes what must stand before the record that comes. */
  readonly beforeRecord: () => void;
}

/** Who an instance is, its transcript, and its running totals: what is decided here is on record in the same commit. */
export class Ledger {
  readonly log: TranscriptLog;
  readonly raw: RawBodies;
  readonly #options: LedgerOptions;
  #enrolment: Enrolment | null;
  #state: State;
  #rawTriedAtMs = 0;
  #storing: Promise<void> | null = null;

  constructor(options: LedgerOptions) {
    this.#options = options;
    this.log = new TranscriptLog(options.ctx.storage.sql, options.kept);
    const found = this.log.state;
    this.#state = found === undefined ? NEW : options.readTotals(found);
    this.raw = new RawBodies(options.ctx.storage.sql, options.kept);
    // Of calls that were answered, nothing waits but their bytes.
    for (const call of this.raw.openCalls) if (!this.#state.open.includes(call)) this.raw.close(call);
    this.#enrolment = options.kept.take<Enrolment>("enrolment").get("") ?? null;
  }

  get enrolment(): Enrolment | null {
    return this.#enrolment;
  }
  get state(): State {
    return this.#state;
  }

  /** Once, for good. The record of it is the caller's to write. */
  enrol(enrolment: Enrolment, usage: Usage, grantsExpireAtMs: number): void {
    this.#options.kept.put("enrolment", "", enrolment);
    this.#enrolment = enrolment;
    this.#state = { ...NEW, usage, grantsExpireAtMs };
  }

  /** In memory until the next record, which carries it. */
  change(part: Partial<State>): void {
    this.#state = { ...this.#state, ...part };
  }

  /** @param aheadBytes what the call may pass from here on before it is counted; `usage` is with that */
  holdAhead(call: number, usage: Usage, aheadBytes: number): void {
    const { [String(call)]: _before, ...others } = this.#state.ahead ?? {};
    this.change({ usage, ahead: aheadBytes > 0 ? { ...others, [call]: aheadBytes } : others });
  }

  /** The record of a call's end: one commit with what ends with it. */
  recordAnswer(call: number, nowMs: number, fields: Fields, beside: Beside): void {
    const { [String(call)]: _over, ...passing } = this.#state.passing ?? {};
    const rest = Object.keys(passing).length === 0 ? {} : { passing };
    const { passing: _before, ...state } = this.#state;
    this.#state = { ...state, ...rest, open: state.open.filter((seq) => seq !== call) };
    this.record("answer", nowMs, fields, beside);
    this.raw.close(call);
  }

  /** Of a body that comes in runs, so many are counted by now. */
  countPassing(call: number, bytes: number, tickets: readonly Ticket[]): void {
    const { passing = {} } = this.#state;
    const before = passing[call] ?? { bytes: 0, quotas: countingBytes(tickets).map(({ name }) => name) };
    this.change({ passing: { ...passing, [call]: { ...before, bytes: before.bytes + bytes } } });
  }

  /** What a metered call cost, in the place of what was reserved for it. */
  chargeUnits(reserved: Units, cost: Units): void {
    const { usage } = this.#state;
    const less = Object.fromEntries(Object.keys(cost).map((unit) => [unit, -own(reserved, unit)]));
    this.change({ usage: { ...usage, units: addUnits(addUnits(usage.units, less), cost) } });
  }

  countCut(switchId: string): void {
    const { cuts = {} } = this.#state;
    this.change({ cuts: { ...cuts, [switchId]: (cuts[switchId] ?? 0) + 1 } });
  }

  /** The `seq` of the record that comes: what must stand before it is written now, not between. */
  nextSeq(): number {
    this.#options.beforeRecord();
    return this.log.nextSeq;
  }

  /** One row. What must stand before it is written first. */
  record(type: RecordType, nowMs: number, fields: Fields, more: Beside & { readonly deployment?: string } = {}): void {
    this.#options.beforeRecord();
    this.append(type, nowMs, fields, more);
  }

  append(type: RecordType, nowMs: number, fields: Fields, more: Beside & { readonly deployment?: string } = {}): void {
    const { grant, deployment, body, ...row } = more;
    const enrolment = this.#enrolment!;
    const { config, version } = this.#options.deployment();
    const identity = identityFields(enrolment, grant ?? enrolment.grant, deployment ?? version);
    const state = this.#state as unknown as Json;
    this.#write(() => {
      this.log.append({ type, fields: { ...identity, ...fields }, state, nowMs, ...row, body: body?.run ?? null });
      if (body !== undefined) this.#appendRaw(body);
    });
    const { flushAfterMs, flushAfterBytes } = config.transcripts;
    this.#options.wakeBy(this.log.openBytes >= flushAfterBytes ? nowMs : nowMs + flushAfterMs);
  }

  /** A run of a body, before the record that states its digest. */
  appendBody(piece: Piece): void {
    this.#write(() => {
      if (piece.run !== null) this.log.appendBody(piece.run);
      this.#appendRaw(piece);
    });
  }

  #write(rows: () => void): void {
    try {
      rows();
    } catch (error) {
      // Totals and digests in memory are ahead of what is stored, and storage is the truth: begin anew from it.
      this.#options.ctx.abort("a record could not be written");
      throw error;
    }
  }

  #appendRaw({ raw }: Piece): void {
    if (raw === null) return;
    this.raw.append(raw.of, raw.part, raw.bytes);
    const nowMs = Date.now();
    // Full objects leave as they come, not with the next segment. Where R2 refuses them, not at every run anew.
    if (!this.raw.hasFull || this.raw.progress !== null || nowMs < this.#rawTriedAtMs + RAW_RETRY_MS) return;
    this.#options.ctx.waitUntil(this.#storeFull());
  }

  async #storeFull(): Promise<void> {
    try {
      while (this.raw.hasFull) await this.raw.store(this.#options.bucket(), this.partition);
    } catch {
      this.#rawTriedAtMs = Date.now();
      this.#options.wakeBy(this.#rawTriedAtMs + RAW_RETRY_MS);
    }
  }

  /** Waits, not for long, while R2 takes less than comes in. While R2 can't be written nobody waits: the log holds it, up to its bound. */
  async pace(): Promise<void> {
    const untilMs = Date.now() + PACE_MAX_MS;
    while (this.raw.heldBytes > RAW_AHEAD_BYTES) {
      const { progress } = this.raw;
      const leftMs = untilMs - Date.now();
      if (progress === null || leftMs <= 0) return;
      await within(leftMs, progress);
    }
  }

  /** Of bodies and records. */
  get isFull(): boolean {
    return this.heldBytes > this.#options.deployment().config.transcripts.maxHeldBytes;
  }

  /** Bytes that are not in R2. */
  get heldBytes(): number {
    return this.log.heldBytes + this.raw.heldBytes;
  }

  /** What is here of a body; the rest of it is in R2. */
  readBody(seq: number, part: BodyPart): UnstoredBody {
    const runs = [...this.log.bodyRuns(seq, part)].map(({ index, isRaw, bytes }) => ({ index, isRaw, bytes }));
    return { partition: this.partition, runs, objects: part === "claims" ? 0 : this.raw.objectsOf(seq, part) };
  }

  readRaw(seq: number, part: RawPart, no: number): Uint8Array | null {
    return this.raw.unstored(seq, part, no);
  }

  /** When the transcript ends: at the deadline; once stopped, when the last grant has run out and no more attempt can be authentic. */
  get endsAtMs(): number {
    const { deadlineMs } = this.#enrolment!.task;
    return this.#state.stopped === null ? deadlineMs : Math.min(deadlineMs, this.#state.grantsExpireAtMs + 1_000);
  }

  /** `later`: what is sealed, or raw and over, must reach R2 first. Bodies that are there are the asker's. */
  eraseBodies(beforeMs: number): ErasedBodies | "later" {
    return this.raw.hasClosed ? "later" : this.log.eraseBodies(beforeMs, this.#state.open);
  }

  sealIfDue(nowMs: number): void {
    if (this.log.isClosed) return;
    const { flushAfterMs, flushAfterBytes } = this.#options.deployment().config.transcripts;
    const { oldestAtMs, openBytes } = this.log;
    if (oldestAtMs === null || (nowMs < oldestAtMs + flushAfterMs && openBytes < flushAfterBytes)) return;
    this.log.seal(this.#sealing(), false, nowMs);
  }

  /** The last record, and its seal. */
  end(nowMs: number): void {
    const { usage, stopped } = this.#state;
    const { calls, bytes, bytesUnheard, units } = usage;
    const unheard = bytesUnheard === undefined ? {} : { bytesUnheard };
    const metered = Object.keys(units).length === 0 ? {} : { units: { ...units } };
    this.record("ended", nowMs, { cause: stopped ?? "deadline", calls, bytes, ...unheard, ...metered });
    this.log.seal(this.#sealing(), true, nowMs);
  }

  /** Sealed segments to R2, and tables away that nobody needs any more. */
  async store(): Promise<void> {
    this.#storing ??= this.#store().finally(() => {
      this.#storing = null;
    });
    await within(R2_WAIT_MS, this.#storing);
  }

  async #store(): Promise<void> {
    const bucket = this.#options.bucket();
    // Bodies first: whoever sees an envelope in R2 finds its bodies there.
    await this.raw.store(bucket, this.partition);
    const { instance, human, task } = this.#enrolment!;
    const of = { log: instance, human, task: task.id, partition: this.partition };
    const name = (segment: StoredSegment) => nameInIndex(this.#options.deployment(), of, segment);
    try {
      await this.log.store(bucket, this.partition, name);
    } finally {
      this.log.drop(Date.now(), this.#state.open[0] ?? null);
    }
  }

  get partition(): string {
    const { instance, human, task } = this.#enrolment!;
    return instancePartition({ human, task: task.id, instance });
  }

  #sealing() {
    const { config, sealKeys } = this.#options.deployment();
    return { issuer: config.origin, log: this.#enrolment!.instance, sealKeys };
  }

  /** When it wants to be looked after; none: it has nothing left. Throws while a secret is missing. */
  wakeTimes(nowMs: number): number[] {
    const { oldestAtMs, isClosed } = this.log;
    return [
      oldestAtMs === null ? null : oldestAtMs + this.#options.deployment().config.transcripts.flushAfterMs,
      this.log.hasUnstored || this.raw.hasFull ? nowMs : null,
      this.log.dropAtMs(this.#state.open[0] ?? null),
      isClosed ? null : this.endsAtMs,
    ].filter((time) => time !== null);
  }
}
