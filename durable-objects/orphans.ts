import type { Limits } from "../src/config/define.ts";
import { SILENT_WORKER_CUT_MS } from "../src/control/acknowledgement.ts";
import type { Deployment } from "../src/deployment.ts";
import type { Units } from "../src/metering/amounts.ts";
import { chargesOf } from "../src/metering/charge.ts";
import { plus } from "../src/quota/dimensions.ts";
import { type Shares, shareOf } from "../src/quota/shares.ts";
import type { BodyReference } from "../src/transcript/envelope.ts";
import { RAW_OBJECT_MAX_BYTES } from "../src/transcript/layout.ts";
import { within } from "../src/within.ts";
import { DurableBody } from "./bodies.ts";
import { orphanFields } from "./instance-fields.ts";
import { type Ledger, R2_WAIT_MS } from "./ledger.ts";

export interface OrphansOptions {
  readonly ledger: () => Ledger;
  readonly bucket: () => R2Bucket;
  /** What the instance may use by itself. */
  readonly limits: () => Limits;
  /** Throws while a secret is missing. */
  readonly deployment: () => Deployment;
  /** This life of the object holds its lease. */
  readonly isHeld: (seq: number) => boolean;
}

/**
 * Calls that ran when the object was reset: their Workers have lost their leases, and stop. What is durable of them is on record
 * as lost, and they hold their places until their Workers say that they have stopped, or must have.
 */
export class Orphans {
  readonly #options: OrphansOptions;
  /** Their bodies are to be read from R2 before their records can be written. */
  readonly #large = new Set<number>();
  /** Their Workers may still run, as far as anybody knows. How many there are is on record. */
  readonly #unheard = new Set<number>();
  #reading: Promise<void> | null = null;

  constructor(options: OrphansOptions) {
    this.#options = options;
  }

  get #ledger(): Ledger {
    return this.#options.ledger();
  }

  /** Those with bodies in R2 follow with `recordLarge`. */
  record(nowMs: number): void {
    const { log, raw, state } = this.#ledger;
    if (log.isClosed) return;
    const orphans = state.open.filter((seq) => !this.#options.isHeld(seq) && !this.#large.has(seq));
    if (orphans.length === 0) return;
    // Throws before anything is counted.
    this.#options.deployment();
    // Durable with the records: another reset must not make them look confirmed.
    this.count(orphans.length, nowMs);
    for (const seq of orphans) {
      this.#unheard.add(seq);
      if (raw.openCalls.has(seq)) this.#large.add(seq);
      else this.#recordOne(seq, this.#durable(seq, "answer"), this.#durable(seq, "request"), nowMs);
    }
  }

  /** Nothing may end before they are on record. */
  get hasLarge(): boolean {
    return this.#large.size > 0;
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
    for (const seq of this.#large) {
      const bucket = this.#options.bucket();
      const bodies = { answer: this.#durable(seq, "answer"), request: this.#durable(seq, "request") };
      for (const part of ["answer", "request"] as const) {
        const contents = this.#ledger.raw.contents(bucket, this.#ledger.partition, seq, part);
        for await (const bytes of contents) {
          if (bytes === null) bodies[part].lose(RAW_OBJECT_MAX_BYTES);
          else bodies[part].add({ salt: null, bytes });
        }
      }
      this.#large.delete(seq);
      this.#recordOne(seq, bodies.answer, bodies.request, Date.now());
    }
  }

  /** What lies in lines of it. */
  #durable(seq: number, part: "answer" | "request"): DurableBody {
    const body = new DurableBody();
    for (const run of this.#ledger.log.bodyRuns(seq, part)) body.add(run);
    return body;
  }

  #recordOne(seq: number, answer: DurableBody, request: DurableBody, nowMs: number): void {
    const { streamLeadBytes } = this.#options.deployment().config.transcripts;
    // A body that came in runs has no digest in its call's record: it is stated here, as far as it came.
    const call = this.#ledger.log.recordOf(seq);
    const sent = call?.["body"] as BodyReference | null | undefined;
    const requestBody = sent?.digest === null ? request.reference(0, sent) : null;
    this.#charge(seq, answer.bytes + (sent?.digest === null ? request.bytes : 0));
    const reserved = (call?.["reserved"] ?? {}) as Units;
    const beside = typeof call?.["grant"] === "string" ? { grant: call["grant"] } : {};
    const fields = orphanFields(seq, answer.reference(streamLeadBytes, null), requestBody, chargesOf(reserved, null));
    this.#ledger.recordAnswer(seq, nowMs, fields, beside);
  }

  /** What is durable of it, and was counted in memory alone. */
  #charge(seq: number, durableBytes: number): void {
    const { state } = this.#ledger;
    const { usage, shares = {}, passing = {} } = state;
    const { bytes = 0, quotas = [] } = passing[seq] ?? {};
    const missed = Math.max(0, durableBytes - bytes);
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
  }

  /** More calls whose Workers nobody waits for any more. They cut by themselves, by `orphaned.untilMs`. */
  count(calls: number, nowMs: number): void {
    if (calls === 0) return;
    this.#ledger.change({
      orphaned: { calls: this.runningAt(nowMs) + calls, untilMs: nowMs + SILENT_WORKER_CUT_MS },
    });
  }

  /** The Worker of such a call has stopped, and says so: nothing of it runs any more. Said again it changes nothing. */
  confirm(seq: number, nowMs: number): void {
    const calls = this.runningAt(nowMs);
    const { orphaned } = this.#ledger.state;
    if (orphaned === undefined || calls === 0 || !this.#unheard.delete(seq)) return;
    this.#ledger.change({ orphaned: { ...orphaned, calls: calls - 1 } });
  }

  /** Those, and calls that the transcript's end gave up, that may still run, unheard. */
  runningAt(nowMs: number): number {
    const { calls, untilMs } = this.#ledger.state.orphaned ?? { calls: 0, untilMs: 0 };
    return nowMs < untilMs ? calls : 0;
  }
}
