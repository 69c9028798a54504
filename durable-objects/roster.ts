import { DurableObject } from "cloudflare:workers";
import config from "#config";
import type { ConfirmAnswer, EnlistAnswer, Member, RosterCalls } from "../src/control/contract.ts";
import { type Attributes, isInReach, type Reached, type Switch } from "../src/control/switch.ts";
import { type Deployment, type Env, parseDeployment } from "../src/deployment.ts";
import { instanceOf } from "../src/objects.ts";
import { within } from "../src/within.ts";

type MemberRow = {
  instance: string;
  attributes: string;
  enlisted_at_ms: number;
  confirmed_until_ms: number;
  deadline_ms: number;
};
type SwitchRow = { json: string };

const SCHEMA = [
  `CREATE TABLE IF NOT EXISTS members (instance TEXT PRIMARY KEY, attributes TEXT NOT NULL,
     enlisted_at_ms INTEGER NOT NULL, confirmed_until_ms INTEGER NOT NULL, deadline_ms INTEGER NOT NULL) WITHOUT ROWID`,
  "CREATE TABLE IF NOT EXISTS switches (id TEXT PRIMARY KEY, json TEXT NOT NULL) WITHOUT ROWID",
];

/** How often members whose task is over are looked after, how many at once, and when they are forgotten. */
const PURGE_MS = 3_600_000;
const WAKES_AT_ONCE = 100;
const FORGET_MS = 604_800_000;
/** Pushes that run at the same time. */
const PUSH_CONCURRENCY = 64;
/** A push that takes longer counts as not delivered: the confirmation then closes the gap. Above the instance's own wait for its Workers. */
const PUSH_TIMEOUT_MS = 8_000;

/**
 * Who is enrolled, and until when each may admit calls without asking again. A copy of every closed switch stands here
 * before any push of it: from then on no new confirmation in reach is given.
 */
export class Roster extends DurableObject<Env> implements RosterCalls {
  #switches: Switch[];

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    for (const statement of SCHEMA) ctx.storage.sql.exec(statement);
    this.#switches = ctx.storage.sql
      .exec<SwitchRow>("SELECT json FROM switches")
      .toArray()
      .map(({ json }) => JSON.parse(json) as Switch);
  }

  /** Where it is used, not in the constructor: a secret that is missing must not stop the alarms. */
  get #deployment(): Deployment {
    return parseDeployment(this.env, config);
  }

  /** Adds a newcomer, unless a closed switch has it in reach. The answer is its first confirmation. */
  async enlist(attributes: Attributes): Promise<EnlistAnswer> {
    const closed = this.#switches.filter((sw) => isInReach(sw, attributes));
    if (closed.length > 0) return { closed, validMs: 0 };
    const { confirmationMs } = this.#deployment.config.roster;
    const nowMs = Date.now();
    this.ctx.storage.sql.exec(
      `INSERT INTO members (instance, attributes, enlisted_at_ms, confirmed_until_ms, deadline_ms) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (instance) DO UPDATE SET attributes = excluded.attributes, deadline_ms = excluded.deadline_ms,
         confirmed_until_ms = max(confirmed_until_ms, excluded.confirmed_until_ms)`,
      attributes.instance,
      JSON.stringify(attributes),
      nowMs,
      nowMs + confirmationMs,
      attributes.deadlineMs,
    );
    if ((await this.ctx.storage.getAlarm()) === null) await this.ctx.storage.setAlarm(nowMs + PURGE_MS);
    return { closed: [], validMs: confirmationMs };
  }

  /** Measured here from the answer on, by the instance from its question on: the roster never believes it shorter. */
  async confirm(instance: string): Promise<ConfirmAnswer> {
    const row = this.#member(instance);
    if (row === undefined) return { confirmed: false, closed: [], validMs: 0 };
    const attributes = JSON.parse(row.attributes) as Attributes;
    const closed = this.#switches.filter((sw) => isInReach(sw, attributes));
    if (closed.length > 0) return { confirmed: false, closed, validMs: 0 };
    const { confirmationMs } = this.#deployment.config.roster;
    this.ctx.storage.sql.exec(
      "UPDATE members SET confirmed_until_ms = ? WHERE instance = ?",
      Date.now() + confirmationMs,
      instance,
    );
    return { confirmed: true, closed: [], validMs: confirmationMs };
  }

  /** The instance's transcript has ended: it admits nothing any more. */
  async leave(instance: string): Promise<void> {
    this.ctx.storage.sql.exec("DELETE FROM members WHERE instance = ?", instance);
  }

  /**
   * Members whose task is long over and who have not left: the call wakes an object that lost its alarm, and it comes
   * to its end. Who does not even then (an enrolment that broke off) is forgotten.
   */
  override async alarm(): Promise<void> {
    const { sql } = this.ctx.storage;
    await this.ctx.storage.setAlarm(Date.now() + PURGE_MS);
    const overdue = sql
      .exec<MemberRow>("SELECT * FROM members WHERE deadline_ms < ? LIMIT ?", Date.now() - PURGE_MS, WAKES_AT_ONCE)
      .toArray();
    await Promise.all(overdue.map(({ instance }) => this.#wake(instance)));
    sql.exec("DELETE FROM members WHERE deadline_ms < ?", Date.now() - FORGET_MS);
    if (sql.exec("SELECT 1 FROM members LIMIT 1").toArray().length === 0) await this.ctx.storage.deleteAlarm();
  }

  async #wake(instance: string): Promise<void> {
    try {
      await within(PUSH_TIMEOUT_MS, instanceOf(this.#deployment, instance).read(0, 0));
    } catch {
      // Tried again with the next alarm.
    }
  }

  /**
   * Takes a closed switch, then pushes it to everyone in reach. Who holds no running confirmation needs no push: it
   * must ask before its next call, and finds the switch here.
   */
  async apply(sw: Switch): Promise<readonly Reached[]> {
    if (!this.#switches.some(({ id }) => id === sw.id)) {
      this.ctx.storage.sql.exec("INSERT INTO switches (id, json) VALUES (?, ?)", sw.id, JSON.stringify(sw));
      this.#switches.push(sw);
    }
    // Dying here: the switch stands, no confirmation in reach is renewed, and the switchboard asks again.
    const members = this.#inReach(sw);
    const reached: Reached[] = [];
    const queue = [...members];
    const worker = async (): Promise<void> => {
      for (let row = queue.shift(); row !== undefined; row = queue.shift()) reached.push(await this.#push(sw, row));
    };
    await Promise.all(Array.from({ length: Math.min(PUSH_CONCURRENCY, members.length) }, worker));
    return reached;
  }

  async #push(sw: Switch, row: MemberRow): Promise<Reached> {
    const { instance, confirmed_until_ms: stoppedByMs } = row;
    try {
      const answer = await within(PUSH_TIMEOUT_MS, instanceOf(this.#deployment, instance).close(sw));
      return { instance, answer: answer ?? null, stoppedByMs };
    } catch {
      return { instance, answer: null, stoppedByMs };
    }
  }

  async list(limit: number): Promise<readonly Member[]> {
    return this.ctx.storage.sql
      .exec<MemberRow>("SELECT * FROM members ORDER BY enlisted_at_ms, instance LIMIT ?", limit)
      .toArray()
      .map((row) => {
        const attributes = JSON.parse(row.attributes) as Attributes;
        return {
          ...attributes,
          enlistedAtMs: row.enlisted_at_ms,
          confirmedUntilMs: row.confirmed_until_ms,
          killed: this.#switches.some((sw) => isInReach(sw, attributes)),
        };
      });
  }

  #member(instance: string): MemberRow | undefined {
    return this.ctx.storage.sql.exec<MemberRow>("SELECT * FROM members WHERE instance = ?", instance).toArray()[0];
  }

  /** By index where the reach has one. */
  #inReach(sw: Switch): MemberRow[] {
    switch (sw.reach) {
      case "instance": {
        const row = this.#member(sw.target);
        return row === undefined ? [] : [row];
      }
    }
  }
}
