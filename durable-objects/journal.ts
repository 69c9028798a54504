import { DurableObject } from "cloudflare:workers";
import config from "#config";
import type { JournalCalls, JournalEntry } from "../src/control/contract.ts";
import { type Deployment, type Env, parseDeployment } from "../src/deployment.ts";
import { journalPartition } from "../src/transcript/layout.ts";
import { Kept } from "./kept.ts";
import { RefusalCount } from "./refusal-count.ts";
import { TranscriptLog } from "./transcript-log.ts";
import { Wake } from "./wake.ts";

/** A journal takes entries for its day and this long after: clocks of doors differ. */
const GRACE_MS = 300_000;
const DAY_MS = 86_400_000;
const RETRY_MS = 5_000;
/** The doors are open to the world. */
const REFUSALS_RECORDED_PER_MINUTE = 120;

/** The same record and segment code for what has no instance: admin acts, reads of transcripts, refusals at the token endpoint. */
export class Journal extends DurableObject<Env> implements JournalCalls {
  readonly #log: TranscriptLog;
  readonly #wake: Wake;
  readonly #refusals = new RefusalCount(REFUSALS_RECORDED_PER_MINUTE);
  /** What the counted refusals carried: others that their doors had counted. */
  #suppressed = 0;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#log = new TranscriptLog(ctx.storage.sql, new Kept(ctx.storage.sql));
    this.#wake = new Wake(ctx, () => this.#nextWakeMs());
  }

  /** Where it is used, not in the constructor: a secret that is missing must not stop the alarms. */
  get #deployment(): Deployment {
    return parseDeployment(this.env, config);
  }

  /** Durable when this returns true. False: the day is over. */
  async append(entry: JournalEntry): Promise<boolean> {
    if (this.#log.isClosed) return false;
    const nowMs = Date.now();
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
      await this.#log.store(this.env.TRANSCRIPTS, this.#partition());
      this.#log.drop(Date.now(), null);
      const next = this.#nextWakeMs();
      if (next !== null) this.#wake.by(next);
    } catch (error) {
      console.error("flush failed", error instanceof Error ? error.message : "unknown");
      this.#wake.by(Date.now() + RETRY_MS);
    }
  }

  /** When there is something to do next; null for a journal without an entry, or with nothing left. */
  #nextWakeMs(): number | null {
    if (this.#log.nextSeq === 0) return this.#refusals.dueAtMs;
    if (this.#log.hasUnstored) return Date.now();
    if (this.#log.isClosed) return this.#log.dropAtMs(null);
    try {
      const { flushAfterMs } = this.#deployment.config.transcripts;
      const flushAtMs = this.#log.oldestAtMs === null ? null : this.#log.oldestAtMs + flushAfterMs;
      const times = [flushAtMs, this.#log.dropAtMs(null), this.#endsAtMs(), this.#refusals.dueAtMs];
      return Math.min(...times.filter((time) => time !== null));
    } catch {
      return Date.now() + RETRY_MS;
    }
  }

  #sealIfDue(nowMs: number): void {
    if (this.#log.isClosed) return;
    const isOver = nowMs >= this.#endsAtMs();
    this.#recordCounted(nowMs, isOver);
    if (isOver) this.#record("ended", { cause: "day" }, nowMs);
    const { oldestAtMs } = this.#log;
    const isDue = oldestAtMs !== null && nowMs >= oldestAtMs + this.#deployment.config.transcripts.flushAfterMs;
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
    this.#wake.by(nowMs + this.#deployment.config.transcripts.flushAfterMs);
  }

  #name(): string {
    const { name } = this.ctx.id;
    if (name === undefined) throw new Error("a journal is always found by its name");
    return name;
  }

  #day(): { readonly door: string; readonly day: string } {
    const [door, day] = this.#name().split(".") as [string, string];
    return { door, day };
  }

  #endsAtMs(): number {
    return Date.parse(`${this.#day().day}T00:00:00Z`) + DAY_MS + GRACE_MS;
  }

  #partition(): string {
    const { door, day } = this.#day();
    return journalPartition(door, day);
  }

  #sealing() {
    const { config, sealKeys } = this.#deployment;
    return { issuer: config.origin, log: this.#name(), sealKeys };
  }
}
