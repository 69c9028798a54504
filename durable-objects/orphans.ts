import type { Limits } from "../src/config/define.ts";
import { SILENT_WORKER_CUT_MS } from "../src/control/acknowledgement.ts";
import type { Deployment } from "../src/deployment.ts";
import { chargeAhead, isAheadKept } from "../src/instance/limits.ts";
import type { Units } from "../src/metering/amounts.ts";
import { chargesOf } from "../src/metering/charge.ts";
import { plus } from "../src/quota/dimensions.ts";
import { type Shares, shareOf } from "../src/quota/shares.ts";
import type { BodyReference } from "../src/transcript/envelope.ts";
import { RAW_OBJECT_MAX_BYTES } from "../src/transcript/layout.ts";
import { within } from "../src/within.ts";
import { DurableBody } from "./bodies.ts";
import { orphanFields } from "./instance-fields.ts";
import type { Kept } from "./kept.ts";
import { type Ledger, R2_WAIT_MS } from "./ledger.ts";

/** So long after the object has started, a Worker may come and take its call up again. As long as it tries to. */
export const RESUMABLE_MS = 5_000;
/** Who is being asked about is looked at again after this. */
const ASKED_RETRY_MS = 1_000;

export interface OrphansOptions {
  readonly kept: Kept;
  readonly ledger: () => Ledger;
  readonly bucket: () => R2Bucket;
  /** What the instance may use by itself. */
  readonly limits: () => Limits;
  /** Throws while a secret is missing. */
  readonly deployment: () => Deployment;
  readonly wakeBy: (atMs: number) => void;
}

/** One that is still to be recorded, or taken up again. */
interface Found {
  /** When the first life of the object after its own found it: however often it is reset after that. */
  readonly atMs: number;
  /** Its bodies are to be read from R2 before its record can be written. It is not taken up again. */
  readonly isLarge: boolean;
  /** Questions about it that have not been answered: until they are it is not given up. */
  asked: number;
  /** Its Worker has said that it runs no more. */
  isStopped: boolean;
}

/**
 * Calls that ran when the object was reset: their Workers have lost their leases, and pass nothing. Each is taken up again by its
 * Worker within a few seconds, or is recorded as lost with what is durable of it. They hold their places until they are taken up,
 * or until their Workers say that they have stopped, or must have.
 */
export class Orphans {
  readonly #options: OrphansOptions;
  /** By `seq`. They are open on record: another life of the object finds them again. */
  readonly #found = new Map<number, Found>();
  /** On record as lost, and their Workers may still run, as far as anybody knows. How many there are is on record. */
  readonly #unheard = new Set<number>();
  /** More of them is durable than the budget covers: their Workers were to be told so, and perhaps never heard it. */
  readonly #uncovered = new Set<number>();
  #reading: Promise<void> | null = null;

  constructor(options: OrphansOptions) {
    this.#options = options;
  }

  get #ledger(): Ledger {
    return this.#options.ledger();
  }

  /** When the object starts: nothing is open yet but by an earlier life of it. */
  find(nowMs: number): void {
    const { log, raw, state } = this.#ledger;
    const { kept } = this.#options;
    const known = kept.take<number>("orphan");
    if (log.isClosed) return;
    for (const seq of state.open) {
      const atMs = Math.min(known.get(String(seq)) ?? nowMs, nowMs);
      if (!known.delete(String(seq))) kept.put("orphan", String(seq), nowMs);
      const isLarge = raw.openCalls.has(seq);
      this.#found.set(seq, { atMs, isLarge, asked: 0, isStopped: false });
    }
    for (const seq of known.keys()) kept.delete("orphan", seq);
    // Also of what must be read from R2 before it is on record: from here on nobody is to believe that it is still there.
    if (this.#found.size > 0) this.#countDurable();
  }

  /**
   * Before anything else is admitted. What each of them held ahead of the count it holds on, until it is recorded, or by a lease of
   * this life; but at the end of the budget all of that is charged.
   */
  #countDurable(): void {
    const missed = new Map([...this.#found.keys()].map((seq) => [seq, this.#missedOf(seq)]));
    const { usage, ahead = {} } = this.#ledger.state;
    const held = Object.values(ahead).reduce((sum, bytes) => sum + bytes, 0);
    const uncounted = [...missed.values()].reduce((sum, bytes) => sum + bytes, 0);
    const limits = this.#options.limits();
    const isKept = held === usage.bytesAhead && isAheadKept(usage, limits, uncounted);
    const isCovered = usage.bytes + uncounted <= limits.bytes;
    if (!isKept) this.#ledger.change({ usage: chargeAhead(usage, usage.bytesAhead), ahead: {} });
    for (const [seq, bytes] of missed) {
      if (bytes === 0) continue;
      this.#charge(seq, bytes);
      if (!isCovered) this.#uncovered.add(seq);
    }
  }

  /** What is durable of it, and was counted in memory alone. */
  #missedOf(seq: number): number {
    const { log, raw, state } = this.#ledger;
    let bytes = raw.mostBytesOf(seq);
    for (const run of log.bodyRuns(seq, "answer")) bytes += run.bytes.length;
    return Math.max(0, bytes - (state.passing?.[seq]?.bytes ?? 0));
  }

  #forget(seq: number): void {
    this.#found.delete(seq);
    this.#options.kept.delete("orphan", String(seq));
  }

  /** Those that nobody has taken up in time, or can. Those with bodies in R2 follow with `recordLarge`. */
  record(nowMs: number): void {
    this.#recordThose(nowMs, (one) => one.isStopped || (one.asked === 0 && nowMs >= one.atMs + RESUMABLE_MS));
  }

  /** All of them: nothing is taken up any more. */
  giveUp(nowMs: number): void {
    this.#recordThose(nowMs, () => true);
  }

  #recordThose(nowMs: number, isDue: (one: Found) => boolean): void {
    for (const [seq, one] of this.#found) {
      if (one.isLarge || !isDue(one)) continue;
      this.#recordOne(seq, one, this.#durable(seq, "answer"), this.#durable(seq, "request"), nowMs);
    }
  }

  /** When there is something to record next. Of what R2 must be read for, at once. */
  dueAtMs(nowMs: number): number | null {
    const times = [...this.#found.values()].map(({ isLarge, isStopped, asked, atMs }) => {
      if (isLarge || isStopped) return nowMs;
      return asked === 0 ? atMs + RESUMABLE_MS : Math.max(atMs + RESUMABLE_MS, nowMs + ASKED_RETRY_MS);
    });
    return times.length === 0 ? null : Math.min(...times);
  }

  // --- taken up again ---------------------------------------------------------------------------------------------

  isResumable(seq: number): boolean {
    const one = this.#found.get(seq);
    return one !== undefined && !one.isLarge && !one.isStopped;
  }

  isCovered(seq: number): boolean {
    return !this.#uncovered.has(seq);
  }

  /** What `work` comes to. Meanwhile the call is not given up. */
  async whileAsked<T>(seq: number, work: Promise<T>): Promise<T> {
    const one = this.#found.get(seq)!;
    one.asked++;
    try {
      return await work;
    } finally {
      one.asked--;
    }
  }

  /** From here on it is a lease of this life that holds its place. What is durable of it is counted. */
  takeUp(seq: number): void {
    this.#forget(seq);
  }

  /** Not all of what they come to is counted. */
  get hasAny(): boolean {
    return this.#found.size > 0;
  }

  // --- large bodies -----------------------------------------------------------------------------------------------

  /** Nothing may end before they are on record. */
  get hasLarge(): boolean {
    return [...this.#found.values()].some(({ isLarge }) => isLarge);
  }

  /** Gives up waiting where R2 is slow, see `hasLarge`; throws where it can't be read. */
  async recordLarge(): Promise<void> {
    if (!this.hasLarge) return;
    this.#reading ??= this.#recordLarge().finally(() => {
      this.#reading = null;
    });
    await within(R2_WAIT_MS, this.#reading);
  }

  async #recordLarge(): Promise<void> {
    for (const [seq, one] of this.#found) {
      if (!one.isLarge) continue;
      const bucket = this.#options.bucket();
      const bodies = { answer: this.#durable(seq, "answer"), request: this.#durable(seq, "request") };
      for (const part of ["answer", "request"] as const) {
        const contents = this.#ledger.raw.contents(bucket, this.#ledger.partition, seq, part);
        for await (const bytes of contents) {
          if (bytes === null) bodies[part].lose(RAW_OBJECT_MAX_BYTES);
          else bodies[part].add({ salt: null, bytes });
        }
      }
      this.#recordOne(seq, one, bodies.answer, bodies.request, Date.now());
    }
  }

  // --- on record --------------------------------------------------------------------------------------------------

  /** What lies in lines of it. */
  #durable(seq: number, part: "answer" | "request"): DurableBody {
    const body = new DurableBody();
    for (const run of this.#ledger.log.bodyRuns(seq, part)) body.add(run);
    return body;
  }

  #recordOne(seq: number, one: Found, answer: DurableBody, request: DurableBody, nowMs: number): void {
    // Throws before anything is counted.
    const { streamLeadBytes } = this.#options.deployment().config.transcripts;
    // A body that came in runs has no digest in its call's record: it is stated here, as far as it came.
    const call = this.#ledger.log.recordOf(seq);
    const sent = call?.["body"] as BodyReference | null | undefined;
    const requestBody = sent?.digest === null ? request.reference(0, sent) : null;
    this.#tellApart(seq, answer.bytes + (sent?.digest === null ? request.bytes : 0));
    const reserved = (call?.["reserved"] ?? {}) as Units;
    const beside = typeof call?.["grant"] === "string" ? { grant: call["grant"] } : {};
    const fields = orphanFields(seq, answer.reference(streamLeadBytes, null), requestBody, chargesOf(reserved, null));
    this.#forget(seq);
    // It may have passed that, and nobody will say so.
    const { usage, ahead = {} } = this.#ledger.state;
    this.#ledger.holdAhead(seq, chargeAhead(usage, ahead[seq] ?? 0), 0);
    // Durable with the record: another reset must not make it look confirmed.
    if (!one.isStopped) this.#addUnheard(1, one.atMs + SILENT_WORKER_CUT_MS, nowMs);
    if (!one.isStopped) this.#unheard.add(seq);
    this.#ledger.recordAnswer(seq, nowMs, fields, beside);
  }

  #charge(seq: number, missed: number): void {
    const { state } = this.#ledger;
    const { usage, shares = {}, passing = {} } = state;
    const { quotas = [] } = passing[seq] ?? {};
    // Some of it may be what it held ahead of the count, which is charged already. What its children have, it did not pass.
    const all = Math.max(usage.bytes, Math.min(usage.bytes + missed, this.#options.limits().bytes));
    const charged: Shares = Object.fromEntries(
      quotas.map((name) => {
        const share = shareOf(shares, name);
        return [name, { ...share, used: plus(share.used, { bytes: missed }) }];
      }),
    );
    this.#ledger.change({
      usage: { ...usage, bytes: all },
      ...(quotas.length > 0 ? { shares: { ...shares, ...charged } } : {}),
    });
    this.#ledger.countPassing(seq, missed, []);
  }

  /** What was counted of it for want of knowing better stays charged, and is said to be nothing that is on record. */
  #tellApart(seq: number, durableBytes: number): void {
    const { usage, passing = {} } = this.#ledger.state;
    const more = Math.max(0, (passing[seq]?.bytes ?? 0) - durableBytes);
    if (more > 0) this.#ledger.change({ usage: { ...usage, bytesUnheard: (usage.bytesUnheard ?? 0) + more } });
  }

  // --- their places -----------------------------------------------------------------------------------------------

  /** More calls whose Workers nobody waits for any more. They cut by themselves, by `orphaned.untilMs`. */
  count(calls: number, nowMs: number): void {
    this.#addUnheard(calls, nowMs + SILENT_WORKER_CUT_MS, nowMs);
  }

  #addUnheard(calls: number, untilMs: number, nowMs: number): void {
    if (calls === 0) return;
    const before = this.#unheardAt(nowMs);
    const until = before === 0 ? untilMs : Math.max(untilMs, this.#ledger.state.orphaned!.untilMs);
    this.#ledger.change({ orphaned: { calls: before + calls, untilMs: until } });
  }

  /** The Worker of such a call has stopped, and says so: nothing of it runs any more. Said again it changes nothing. */
  confirm(seq: number, nowMs: number): void {
    const one = this.#found.get(seq);
    const calls = this.#unheardAt(nowMs);
    if (one !== undefined && !one.isStopped) {
      one.isStopped = true;
      // What is over is over from now on, as a switch would hear of it.
      if (calls === 0) this.#ledger.change({ orphaned: { calls: 0, untilMs: nowMs } });
      this.#options.wakeBy(nowMs);
      return;
    }
    const { orphaned } = this.#ledger.state;
    if (orphaned === undefined || calls === 0 || !this.#unheard.delete(seq)) return;
    this.#ledger.change({ orphaned: { ...orphaned, calls: calls - 1 } });
  }

  /** Those, and calls that the transcript's end gave up, that may still run, unheard. */
  runningAt(nowMs: number): number {
    let calls = this.#unheardAt(nowMs);
    for (const { atMs, isStopped } of this.#found.values())
      if (!isStopped && nowMs < atMs + SILENT_WORKER_CUT_MS) calls++;
    return calls;
  }

  /** By then the last of them has surely stopped, or has said so. */
  get overAtMs(): number {
    const times = [...this.#found.values()].map(({ atMs, isStopped }) => (isStopped ? 0 : atMs + SILENT_WORKER_CUT_MS));
    return Math.max(this.#ledger.state.orphaned?.untilMs ?? 0, ...times);
  }

  #unheardAt(nowMs: number): number {
    const { calls, untilMs } = this.#ledger.state.orphaned ?? { calls: 0, untilMs: 0 };
    return nowMs < untilMs ? calls : 0;
  }
}
