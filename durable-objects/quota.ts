import { DurableObject } from "cloudflare:workers";
import config from "#config";
import type { QuotaConfig } from "../src/config/quotas.ts";
import { type Deployment, type Env, parseDeployment } from "../src/deployment.ts";
import { instanceOf } from "../src/objects.ts";
import type { LeaseAnswer, LeaseRequest, QuotaCalls, QuotaReading, ShareReport } from "../src/quota/contract.ts";
import { EMPTY, giveBack, type Holder, lease, leaseMs, reading, type Totals } from "../src/quota/decide.ts";
import { dimensionsOf, of } from "../src/quota/dimensions.ts";
import { within } from "../src/within.ts";
import { HOLDER, TOTALS } from "./quota-shapes.ts";
import { readStored } from "./stored.ts";
import { Wake } from "./wake.ts";

type HolderRow = { instance: string; json: string };

const SCHEMA = [
  "CREATE TABLE IF NOT EXISTS totals (id INTEGER PRIMARY KEY CHECK (id = 0), json TEXT NOT NULL)",
  `CREATE TABLE IF NOT EXISTS holders (
     instance TEXT PRIMARY KEY, json TEXT NOT NULL, period INTEGER NOT NULL, until_ms INTEGER NOT NULL,
     recall INTEGER NOT NULL) WITHOUT ROWID`,
  "CREATE INDEX IF NOT EXISTS holders_by_end ON holders (recall, until_ms)",
  "CREATE TABLE IF NOT EXISTS ends (over_ms INTEGER NOT NULL, instance TEXT NOT NULL, PRIMARY KEY (over_ms, instance)) WITHOUT ROWID",
];

/** After the end of a lease, for its holder's own renewal to come first. */
const MARGIN_MS = 1_000;
/** Where something is short, leases are recalled before their end, but not at every word of it. */
const RECALL_PAUSE_MS = 1_000;
const RECALLS_AT_ONCE = 200;
const RECALL_TIMEOUT_MS = 5_000;
const RETRY_MS = 30_000;
/**
 * Whose task has been over for this long is not heard any more, and its row goes: from then on no question that is late, or
 * repeated by an object that was reset, can count again what is in the totals.
 */
const FORGET_AFTER_MS = 3_600_000;
/** So many at once. */
const FORGET_PAUSE_MS = 3_600_000;
/** More than so many holders are so many: what goes out ahead of need is little by then. */
const COUNT_MAX = 1_000;

/**
 * One shared limit for one key: who has leased how much of it. What is leased counts as spent until its holder, asked when
 * its lease has run out or somebody is short, has given it up and says what it used of it. A holder that does not answer
 * keeps what it has.
 */
export class Quota extends DurableObject<Env> implements QuotaCalls {
  #totals: Totals;
  readonly #wake: Wake;
  #recalledAtMs = 0;
  #isShort = false;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    const { sql } = ctx.storage;
    for (const statement of SCHEMA) sql.exec(statement);
    const [row] = sql.exec<{ json: string }>("SELECT json FROM totals").toArray();
    this.#totals = row === undefined ? EMPTY : readStored(TOTALS, "totals", row.json);
    // Of those that are over for long, too.
    this.#wake = new Wake(ctx, () => this.#nextWakeMs(0));
  }

  get #deployment(): Deployment {
    return parseDeployment(this.env, config);
  }

  get #name(): string {
    return this.ctx.id.name!;
  }

  /** As this deployment has it: a limit that was changed counts from the next question on. */
  get #quota(): QuotaConfig | undefined {
    const [name] = this.#name.split(".", 1);
    return Object.hasOwn(config.quotas, name!) ? config.quotas[name!] : undefined;
  }

  /** INVARIANT: synchronous, and durable before the answer leaves (output gate). */
  async lease(request: LeaseRequest): Promise<LeaseAnswer | null> {
    const quota = this.#quota;
    if (quota === undefined) return null;
    const nowMs = Date.now();
    const overMs = request.deadlineMs + FORGET_AFTER_MS;
    if (nowMs >= overMs) return null;
    const state = { totals: this.#totals, holder: this.#holder(request.instance), holders: this.#countHolders(nowMs) };
    const { totals, holder, answer } = lease(quota, state, request, nowMs);
    this.#keep(totals, request.instance, holder, nowMs + leaseMs(quota), isToRecall(holder, request));
    this.ctx.storage.sql.exec("INSERT OR IGNORE INTO ends (over_ms, instance) VALUES (?, ?)", overMs, request.instance);
    if (answer.short !== null && answer.short.dimension !== "rate") {
      this.#isShort = true;
      this.#wake.by(Math.max(nowMs, this.#recalledAtMs + RECALL_PAUSE_MS));
    } else this.#wake.by(nowMs + leaseMs(quota) + MARGIN_MS);
    return answer;
  }

  async read(): Promise<QuotaReading | null> {
    const quota = this.#quota;
    if (quota === undefined) return null;
    const [name = ""] = this.#name.split(".", 1);
    const [{ instances }] = this.ctx.storage.sql
      .exec<{ instances: number }>("SELECT count(*) AS instances FROM holders WHERE period = ?", this.#totals.period)
      .toArray() as [{ instances: number }];
    return {
      quota: name,
      key: this.#name.slice(name.length + 1),
      ...reading(quota, this.#totals, Date.now()),
      instances,
    };
  }

  /** Asks who has something that it may not need any more. Runs again from the start after any failure. */
  override async alarm(): Promise<void> {
    this.#wake.rang();
    const nowMs = Date.now();
    const quota = this.#quota;
    if (quota === undefined) return;
    const beforeMs = this.#isShort ? Number.MAX_SAFE_INTEGER : nowMs - MARGIN_MS;
    this.#isShort = false;
    this.#recalledAtMs = nowMs;
    const rows = this.ctx.storage.sql
      .exec<HolderRow>(
        "SELECT instance, json FROM holders WHERE recall = 1 AND until_ms <= ? ORDER BY until_ms LIMIT ?",
        beforeMs,
        RECALLS_AT_ONCE,
      )
      .toArray();
    await Promise.all(rows.map(({ instance, json }) => this.#recall(instance, JSON.parse(json) as Holder)));
    // What it had is of a period that is over, and it holds nothing else.
    this.ctx.storage.sql.exec("DELETE FROM holders WHERE recall = 0 AND period < ?", this.#totals.period);
    this.#forget(nowMs);
    const nextMs = this.#nextWakeMs(nowMs);
    if (nextMs !== null) this.#wake.by(Math.max(nextMs, Date.now() + RECALL_PAUSE_MS));
  }

  /**
   * INVARIANT: who was given anything meanwhile keeps all of it: its word may be older than that. Dying at the `await`,
   * it keeps what it has, and is asked again.
   */
  async #recall(instance: string, asked: Holder): Promise<void> {
    const recall = () => instanceOf(this.#deployment, instance).recall(this.#name);
    // An object that has died since it was heard last rejects once; the one that starts anew knows what it used.
    const said = await within(RECALL_TIMEOUT_MS, recall().catch(recall)).catch(() => undefined);
    const quota = this.#quota;
    const holder = this.#holder(instance);
    if (quota === undefined || holder === null || holder.version !== asked.version) return;
    const nowMs = Date.now();
    if (said === undefined) return this.#keep(this.#totals, instance, holder, nowMs + RETRY_MS, true);
    const given = giveBack(quota, { totals: this.#totals, holder }, said ?? NOTHING_USED, nowMs);
    const isRunning = (said?.running ?? 0) > 0;
    this.#keep(given.totals, instance, given.holder, nowMs + leaseMs(quota), isRunning);
  }

  // --- storage ----------------------------------------------------------------------------------------------------

  #holder(instance: string): Holder | null {
    const [row] = this.ctx.storage.sql
      .exec<HolderRow>("SELECT instance, json FROM holders WHERE instance = ?", instance)
      .toArray();
    return row === undefined ? null : readStored(HOLDER, "holder", row.json);
  }

  #countHolders(nowMs: number): number {
    return this.ctx.storage.sql
      .exec("SELECT 1 FROM holders WHERE recall = 1 AND until_ms > ? LIMIT ?", nowMs, COUNT_MAX)
      .toArray().length;
  }

  /** @param isToRecall it may hold something, or its use may change */
  #keep(totals: Totals, instance: string, holder: Holder, untilMs: number, isToRecall: boolean): void {
    const { sql } = this.ctx.storage;
    if (totals !== this.#totals)
      sql.exec("INSERT OR REPLACE INTO totals (id, json) VALUES (0, ?)", JSON.stringify(totals));
    sql.exec(
      "INSERT OR REPLACE INTO holders (instance, json, period, until_ms, recall) VALUES (?, ?, ?, ?, ?)",
      instance,
      JSON.stringify(holder),
      holder.period,
      untilMs,
      isToRecall ? 1 : 0,
    );
    this.#totals = totals;
  }

  /** Those that have said their last: what they used is in the totals, and stays there. Who has not is asked again first. */
  #forget(nowMs: number): void {
    const { sql } = this.ctx.storage;
    const over = "SELECT instance FROM ends WHERE over_ms <= ?";
    sql.exec(`DELETE FROM holders WHERE recall = 0 AND instance IN (${over})`, nowMs);
    const isHeld = "EXISTS (SELECT 1 FROM holders WHERE holders.instance = ends.instance)";
    sql.exec(`DELETE FROM ends WHERE over_ms <= ? AND NOT ${isHeld}`, nowMs);
  }

  #nextWakeMs(nowMs: number): number | null {
    const at = (query: string, ...bindings: number[]): number | null =>
      this.ctx.storage.sql.exec<{ at: number | null }>(query, ...bindings).one().at;
    const recallMs = at("SELECT min(until_ms) AS at FROM holders WHERE recall = 1");
    // Of those that are over already, whoever is still there is to be asked.
    const forgetMs = at("SELECT min(over_ms) AS at FROM ends WHERE over_ms > ?", nowMs - FORGET_PAUSE_MS);
    const times = [
      recallMs === null ? null : recallMs + MARGIN_MS,
      forgetMs === null ? null : forgetMs + FORGET_PAUSE_MS,
    ].filter((time) => time !== null);
    return times.length === 0 ? null : Math.min(...times);
  }
}

/** It holds something, or what it has used will change. */
const isToRecall = ({ granted, used }: Holder, { running }: LeaseRequest): boolean =>
  running > 0 || dimensionsOf(granted).some((one) => of(granted, one) !== of(used, one));

/** Of an object that is nobody's: it was never enrolled, and has admitted nothing. */
const NOTHING_USED: ShareReport = { period: 0, used: {}, running: 0 };
