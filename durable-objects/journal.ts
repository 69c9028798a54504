import { DurableObject } from "cloudflare:workers";
import config from "#config";
import type { JournalCalls, JournalEntry } from "../src/control/contract.ts";
import { type Deployment, type Env, parseDeployment } from "../src/deployment.ts";
import { journalPartition } from "../src/transcript/layout.ts";
import { parseIndexName } from "../src/transcript/segment-index.ts";
import { Kept } from "./kept.ts";
import type { StoredSegment } from "./log-segments.ts";
import { RefusalCount } from "./refusal-count.ts";
import { nameInIndex } from "./segment-index.ts";
import { SEGMENT } from "./segment-shape.ts";
import { TranscriptLog } from "./transcript-log.ts";
import { Wake } from "./wake.ts";

/** A journal takes entries for its day and this long after: clocks of doors differ. */
const GRACE_MS = 300_000;
const DAY_MS = 86_400_000;
const RETRY_MS = 5_000;
/** The doors are open to the world. */
const REFUSALS_RECORDED_PER_MINUTE = 120;

/**
 * The same record and segment code for what has no instance: admin acts, reads of transcripts, refusals at the token endpoint, and
 * the index of segments.
 */
export class Journal extends DurableObject<Env> implements JournalCalls {
  readonly #log: TranscriptLog;
  readonly #wake: Wake;
  readonly #refusals = new RefusalCount(REFUSALS_RECORDED_PER_MINUTE);
  /** What the counted refusals carried: others that their doors had counted. */
  #suppressed = 0;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#log = new TranscriptLog(ctx.storage.sql, new Kept(ctx.storage.sql, "Journal", { segment: SEGMENT }));
    this.#wake = new Wake(ctx, () => this.#nextWakeMs());
  }

  /** Where it is used, not in the constructor: a secret that is missing must not stop the alarms. */
  get #deployment(): Deployment {
    return parseDeployment(this.env, config);
  }

  /** Durable when this returns true. False: its time is over. */
  async append(entry: JournalEntry): Promise<boolean> {
    const nowMs = Date.now();
    if (this.#log.isClosed || nowMs >= this.#period().endsAtMs) return false;
    this.#recordCounted(nowMs, false);
    if (entry.type === "refused" && !this.#refusals.mayRecord(nowMs)) {
      const { suppressed } = entry.fields;
      if (typeof suppressed === "number") this.#suppressed += suppressed;
      this.#wake.by(this.#refusals.dueAtMs ?? nowMs);
      return true;
    }
    this.#record(entry.type, { deployment: entry.deployment, ...entry.fields }, nowMs);
    return true;
  }

  async read(fromSeq: number, maxLines: number): Promise<string[]> {
    return this.#log.unstoredLines(fromSeq, maxLines);
  }

  override async alarm(): Promise<void> {
    this.#wake.rang();
    try {
      this.#sealIfDue(Date.now());
      await this.#log.store(this.env.TRANSCRIPTS, this.#period().path, (segment) => this.#nameInIndex(segment));
      this.#log.drop(Date.now(), null);
      const next = this.#nextWakeMs();
      if (next !== null) this.#wake.by(next);
    } catch (error) {
      console.error("flush failed", error instanceof Error ? error.message : "unknown");
      this.#wake.by(Date.now() + RETRY_MS);
    }
  }

  /** The index itself is in no index. */
  async #nameInIndex(segment: StoredSegment): Promise<void> {
    const log = this.#name();
    if (parseIndexName(log) !== undefined) return;
    await nameInIndex(this.#deployment, { log, human: null, task: null, partition: this.#period().path }, segment);
  }

  /** When there is something to do next; null for a journal without an entry, or with nothing left. */
  #nextWakeMs(): number | null {
    if (this.#log.nextSeq === 0) return this.#refusals.dueAtMs;
    if (this.#log.hasUnstored) return Date.now();
    if (this.#log.isClosed) return this.#log.dropAtMs(null);
    try {
      const flushAtMs = this.#log.oldestAtMs === null ? null : this.#log.oldestAtMs + this.#flushAfterMs();
      const times = [flushAtMs, this.#log.dropAtMs(null), this.#period().endsAtMs, this.#refusals.dueAtMs];
      return Math.min(...times.filter((time) => time !== null));
    } catch {
      return Date.now() + RETRY_MS;
    }
  }

  #sealIfDue(nowMs: number): void {
    if (this.#log.isClosed) return;
    const { endsAtMs, cause } = this.#period();
    const isOver = nowMs >= endsAtMs;
    this.#recordCounted(nowMs, isOver);
    if (isOver) this.#record("ended", { cause }, nowMs);
    const { oldestAtMs } = this.#log;
    const isDue = oldestAtMs !== null && (nowMs >= oldestAtMs + this.#flushAfterMs() || this.#isFull());
    if (isOver || isDue) this.#log.seal(this.#sealing(), isOver, nowMs);
  }

  #recordCounted(nowMs: number, force: boolean): void {
    const counted = this.#refusals.takeCounted(nowMs, force);
    if (counted === null) return;
    const suppressed = this.#suppressed === 0 ? {} : { suppressed: this.#suppressed };
    this.#record("refused", { counted: counted.counted, ...suppressed, minute: counted.minuteMs }, nowMs);
    this.#suppressed = 0;
  }

  #record(type: JournalEntry["type"] | "ended", fields: JournalEntry["fields"], nowMs: number): void {
    this.#log.append({ type, fields: { journal: this.#name(), ...fields }, state: null, nowMs });
    this.#wake.by(this.#isFull() ? nowMs : nowMs + this.#flushAfterMs());
  }

  #name(): string {
    const { name } = this.ctx.id;
    if (name === undefined) throw new Error("a journal is always found by its name");
    return name;
  }

  /** What its name says: where it stands in the bucket, and when it ends. */
  #period(): { readonly path: string; readonly endsAtMs: number; readonly cause: "hour" | "day" } {
    const index = parseIndexName(this.#name());
    if (index !== undefined) return { path: index.path, endsAtMs: index.endsAtMs, cause: "hour" };
    const [door, day] = this.#name().split(".") as [string, string];
    const endsAtMs = Date.parse(`${day}T00:00:00Z`) + DAY_MS + GRACE_MS;
    return { path: journalPartition(door, day), endsAtMs, cause: "day" };
  }

  #flushAfterMs(): number {
    const { flushAfterMs, indexFlushAfterMs } = this.#deployment.config.transcripts;
    return parseIndexName(this.#name()) === undefined ? flushAfterMs : indexFlushAfterMs;
  }

  #isFull(): boolean {
    return this.#log.openBytes >= this.#deployment.config.transcripts.flushAfterBytes;
  }

  #sealing() {
    const { config, sealKeys } = this.#deployment;
    return { issuer: config.origin, log: this.#name(), sealKeys };
  }
}
