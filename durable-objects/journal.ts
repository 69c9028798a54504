import { DurableObject } from "cloudflare:workers";
import config from "#config";
import type { JournalCalls, JournalEntry } from "../src/control/contract.ts";
import { type Deployment, type Env, parseDeployment } from "../src/deployment.ts";
import { journalPartition } from "../src/transcript/layout.ts";
import { type LogOptions, TranscriptLog } from "./transcript-log.ts";

/** A journal takes entries for its day and this long after: clocks of doors differ. */
const GRACE_MS = 300_000;
const DAY_MS = 86_400_000;
const RETRY_MS = 5_000;
/** Beyond this many refusals a minute they share one counted record: the token endpoint is open to the world. */
const REFUSALS_RECORDED_PER_MINUTE = 120;

/** The same record and segment code for what has no instance: admin acts, reads of transcripts, refusals at the token endpoint. */
export class Journal extends DurableObject<Env> implements JournalCalls {
  readonly #deployment: Deployment;
  readonly #log: TranscriptLog;
  #refusals = { minute: 0, recorded: 0, counted: 0 };
  #alarmAtMs: number | null = null;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#deployment = parseDeployment(env, config);
    this.#log = new TranscriptLog(ctx.storage);
    void ctx.blockConcurrencyWhile(async () => {
      this.#alarmAtMs = await ctx.storage.getAlarm();
    });
  }

  /** Durable when this returns true. False: the day is over. */
  async append(entry: JournalEntry): Promise<boolean> {
    if (this.#log.isClosed) return false;
    const nowMs = Date.now();
    if (entry.type === "refused" && !this.#mayRecordRefusal(nowMs)) return true;
    this.#record(entry.type, { deployment: entry.deployment, ...entry.fields }, nowMs);
    return true;
  }

  async read(fromSeq: number, maxLines: number): Promise<string[]> {
    return this.#log.unstoredLines(fromSeq, maxLines);
  }

  override async alarm(): Promise<void> {
    this.#alarmAtMs = null;
    try {
      const nowMs = Date.now();
      const { flushAfterMs } = this.#deployment.config.transcripts;
      this.#recordCounted(nowMs, Math.floor(nowMs / 60_000));
      if (!this.#log.isClosed && nowMs >= this.#endsAtMs()) {
        this.#record("ended", { cause: "day" }, nowMs);
        this.#log.seal(this.#options(), true, nowMs);
      } else if (this.#log.oldestAtMs !== null && nowMs >= this.#log.oldestAtMs + flushAfterMs) {
        this.#log.seal(this.#options(), false, nowMs);
      }
      await this.#log.store(this.env.TRANSCRIPTS, this.#options());
      this.#log.drop(Date.now(), null);
      if (this.#log.oldestAtMs !== null) this.#wakeBy(this.#log.oldestAtMs + flushAfterMs);
      if (!this.#log.isClosed) this.#wakeBy(this.#endsAtMs());
    } catch (error) {
      console.error("flush failed", error instanceof Error ? error.message : "unknown");
      this.#wakeBy(Date.now() + RETRY_MS);
    }
  }

  #mayRecordRefusal(nowMs: number): boolean {
    const minute = Math.floor(nowMs / 60_000);
    if (this.#refusals.minute !== minute) {
      this.#recordCounted(nowMs, minute);
      this.#refusals = { minute, recorded: 0, counted: 0 };
    }
    if (this.#refusals.recorded < REFUSALS_RECORDED_PER_MINUTE) {
      this.#refusals.recorded++;
      return true;
    }
    this.#refusals.counted++;
    this.#wakeBy((minute + 1) * 60_000);
    return false;
  }

  #recordCounted(nowMs: number, minute: number): void {
    if (this.#refusals.counted === 0 || this.#refusals.minute === minute || this.#log.isClosed) return;
    const { counted } = this.#refusals;
    this.#refusals.counted = 0;
    this.#record("refused", { counted, minute: this.#refusals.minute * 60_000 }, nowMs);
  }

  #record(type: JournalEntry["type"] | "ended", fields: JournalEntry["fields"], nowMs: number): void {
    this.#log.append({ type, fields: { journal: this.#name(), ...fields }, state: null, nowMs });
    this.#wakeBy(nowMs + this.#deployment.config.transcripts.flushAfterMs);
  }

  #name(): string {
    const { name } = this.ctx.id;
    if (name === undefined) throw new Error("a journal is always found by its name");
    return name;
  }

  #endsAtMs(): number {
    return Date.parse(`${this.#name().split(".")[1]}T00:00:00Z`) + DAY_MS + GRACE_MS;
  }

  #options(): LogOptions {
    const [door, day] = this.#name().split(".") as [string, string];
    return {
      issuer: this.#deployment.config.origin,
      log: this.#name(),
      partition: journalPartition(door, day),
      sealKeys: this.#deployment.sealKeys,
    };
  }

  #wakeBy(atMs: number): void {
    if (this.#alarmAtMs !== null && this.#alarmAtMs <= atMs) return;
    this.#alarmAtMs = atMs;
    void this.ctx.storage.setAlarm(atMs);
  }
}
