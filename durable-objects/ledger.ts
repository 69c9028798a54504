import { SILENT_WORKER_CUT_MS } from "../src/control/acknowledgement.ts";
import type { Deployment } from "../src/deployment.ts";
import type { Enrolment } from "../src/instance/contract.ts";
import type { Usage } from "../src/instance/limits.ts";
import type { Json } from "../src/scope/call.ts";
import type { BodyReference, Fields, RecordType } from "../src/transcript/envelope.ts";
import { instancePartition } from "../src/transcript/layout.ts";
import { durableReference } from "./bodies.ts";
import { identityFields, orphanFields } from "./instance-fields.ts";
import type { Kept } from "./kept.ts";
import type { BodyRun } from "./log-table.ts";
import { TranscriptLog } from "./transcript-log.ts";

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
}

const NEW: State = {
  usage: { calls: 0, bytes: 0, tokens: 0, tokensAtMs: 0 },
  open: [],
  grantsExpireAtMs: 0,
  stopped: null,
};

/** What shares a record's row. */
export interface Beside {
  readonly grant?: string;
  readonly jti?: { readonly id: string; readonly untilMs: number };
  readonly body?: BodyRun;
}

export interface LedgerOptions {
  readonly ctx: DurableObjectState;
  readonly kept: Kept;
  /** Throws while a secret is missing. */
  readonly deployment: () => Deployment;
  readonly wakeBy: (atMs: number) => void;
  /** Writes what must stand before the record that comes. */
  readonly beforeRecord: () => void;
}

/** Who an instance is, its transcript, and its running totals: what is decided here is on record in the same commit. */
export class Ledger {
  readonly log: TranscriptLog;
  readonly #options: LedgerOptions;
  #enrolment: Enrolment | null;
  #state: State;

  constructor(options: LedgerOptions) {
    this.#options = options;
    this.log = new TranscriptLog(options.ctx.storage.sql, options.kept);
    this.#state = (this.log.state as State | undefined) ?? NEW;
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

  closeCall(call: number): void {
    this.change({ open: this.#state.open.filter((seq) => seq !== call) });
  }

  countBytes(bytes: number): Usage {
    const { usage } = this.#state;
    this.change({ usage: { ...usage, bytes: usage.bytes + bytes } });
    return this.#state.usage;
  }

  countCut(switchId: string): void {
    const { cuts = {} } = this.#state;
    this.change({ cuts: { ...cuts, [switchId]: (cuts[switchId] ?? 0) + 1 } });
  }

  /** One row. What must stand before it is written first. */
  record(type: RecordType, nowMs: number, fields: Fields, more: Beside & { readonly deployment?: string } = {}): void {
    this.#options.beforeRecord();
    this.append(type, nowMs, fields, more);
  }

  append(type: RecordType, nowMs: number, fields: Fields, more: Beside & { readonly deployment?: string } = {}): void {
    const { grant, deployment, ...row } = more;
    const enrolment = this.#enrolment!;
    const { config, version } = this.#options.deployment();
    const identity = identityFields(enrolment, grant ?? enrolment.grant, deployment ?? version);
    const state = this.#state as unknown as Json;
    try {
      this.log.append({ type, fields: { ...identity, ...fields }, state, nowMs, ...row });
    } catch (error) {
      // The totals in memory are ahead of what is stored, and storage is the truth: begin anew from it.
      this.#options.ctx.abort("a record could not be written");
      throw error;
    }
    const { flushAfterMs, flushAfterBytes } = config.transcripts;
    this.#options.wakeBy(this.log.openBytes >= flushAfterBytes ? nowMs : nowMs + flushAfterMs);
  }

  /** Calls that ran when this object was reset: their Workers have lost their leases, and stop. */
  recordOrphans(isHeld: (seq: number) => boolean, nowMs: number): void {
    if (this.log.isClosed) return;
    const orphans = this.#state.open.filter((seq) => !isHeld(seq));
    if (orphans.length === 0) return;
    const { streamLeadBytes } = this.#options.deployment().config.transcripts;
    // Durable with the records: another reset must not make them look confirmed.
    this.countOrphans(orphans.length, nowMs);
    for (const seq of orphans) {
      this.closeCall(seq);
      const body = durableReference(this.log.bodyRuns(seq, "answer"), streamLeadBytes);
      // A body that came in runs has no digest in its call's record: it is stated here, as far as it came.
      const sent = this.log.recordOf(seq)?.["body"] as BodyReference | null | undefined;
      const inRuns = sent?.digest === null;
      const requestBody = inRuns ? durableReference(this.log.bodyRuns(seq, "request"), 0, sent) : null;
      this.record("answer", nowMs, orphanFields(seq, body, requestBody));
    }
  }

  /** More calls whose Workers nobody waits for any more. They cut by themselves, by `orphaned.untilMs`. */
  countOrphans(calls: number, nowMs: number): void {
    if (calls === 0) return;
    this.change({
      orphaned: { calls: this.orphanedAt(nowMs) + calls, untilMs: nowMs + SILENT_WORKER_CUT_MS },
    });
  }

  /** Calls of an earlier life of this object, or that its end gave up, that may still run, unheard. */
  orphanedAt(nowMs: number): number {
    const { calls, untilMs } = this.#state.orphaned ?? { calls: 0, untilMs: 0 };
    return nowMs < untilMs ? calls : 0;
  }

  /** When the transcript ends: at the deadline; once stopped, when the last grant has run out and no more attempt can be authentic. */
  get endsAtMs(): number {
    const { deadlineMs } = this.#enrolment!.task;
    return this.#state.stopped === null ? deadlineMs : Math.min(deadlineMs, this.#state.grantsExpireAtMs + 1_000);
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
    const { calls, bytes } = usage;
    this.record("ended", nowMs, { cause: stopped ?? "deadline", calls, bytes });
    this.log.seal(this.#sealing(), true, nowMs);
  }

  /** Sealed segments to R2, and tables away that nobody needs any more. */
  async store(bucket: R2Bucket): Promise<void> {
    await this.log.store(bucket, this.partition);
    this.log.drop(Date.now(), this.#state.open[0] ?? null);
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
      this.log.hasUnstored ? nowMs : null,
      this.log.dropAtMs(this.#state.open[0] ?? null),
      isClosed ? null : this.endsAtMs,
    ].filter((time) => time !== null);
  }
}
