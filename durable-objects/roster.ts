import { DurableObject } from "cloudflare:workers";
import config from "#config";
import { mayAct, SILENT_WORKER_CUT_MS } from "../src/control/acknowledgement.ts";
import type {
  BookedSwitch,
  ConfirmAnswer,
  EnlistAnswer,
  Member,
  Opening,
  RosterCalls,
  ShardProgress,
} from "../src/control/contract.ts";
import { longestReachMs, PROVIDER_AHEAD_MS } from "../src/control/narrowing.ts";
import { type Attributes, isInReach, isWhole, refusesNewcomer, type Switch } from "../src/control/switch.ts";
import { type Deployment, type Env, parseDeployment } from "../src/deployment.ts";
import { instanceOf, switchboardOf } from "../src/objects.ts";
import { within } from "../src/within.ts";
import { type Booked, BookedSwitches } from "./booked-switches.ts";
import { type Confirmed, type Enlisted, Members } from "./members.ts";
import { Push } from "./push.ts";
import { readStored } from "./stored.ts";
import { SWITCH } from "./switch-shape.ts";

type SwitchRow = { id: string; json: string; opened_at_ms: number | null };

const SCHEMA = [
  `CREATE TABLE IF NOT EXISTS switches (id TEXT PRIMARY KEY, json TEXT NOT NULL, opened_at_ms INTEGER) WITHOUT ROWID`,
  `CREATE TABLE IF NOT EXISTS joined (id INTEGER PRIMARY KEY CHECK (id = 0))`,
  `CREATE TABLE IF NOT EXISTS woken (id INTEGER PRIMARY KEY CHECK (id = 0), last TEXT NOT NULL)`,
];

/** How often members whose task is over are looked after, how many at once, and when they are forgotten. */
const PURGE_MS = 3_600_000;
const WAKES_AT_ONCE = 100;
const FORGET_MS = 604_800_000;
const WAKE_TIMEOUT_MS = 8_000;
/** Below the instance's own patience with its roster. */
const JOIN_TIMEOUT_MS = 4_000;

/**
 * One shard of who is enrolled, and until when each may admit calls without asking again. A copy of every closed switch
 * stands here before any push of it: from then on no new confirmation in reach is given.
 */
export class Roster extends DurableObject<Env> implements RosterCalls {
  readonly #members: Members;
  readonly #book = new BookedSwitches();
  readonly #pushes = new Map<string, Push>();
  /** Who may act without asking, or did until a moment ago: made anew from the table at every start. */
  readonly #active: Map<string, Confirmed>;
  #hasJoined: boolean;
  #joining: Promise<boolean> | null = null;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    const { sql } = ctx.storage;
    for (const statement of SCHEMA) sql.exec(statement);
    this.#members = new Members(sql);
    for (const { id, json, opened_at_ms } of sql.exec<SwitchRow>("SELECT * FROM switches"))
      this.#book.set(id, { sw: readStored(SWITCH, "switch", json), openedAtMs: opened_at_ms });
    this.#active = new Map(
      this.#members.confirmedAfter(Date.now() - SILENT_WORKER_CUT_MS).map((member) => [member.instance, member]),
    );
    this.#hasJoined = sql.exec("SELECT 1 FROM joined").toArray().length > 0;
  }

  /** Where it is used, not in the constructor: a secret that is missing must not stop the alarms. */
  get #deployment(): Deployment {
    return parseDeployment(this.env, config);
  }

  // --- who is enrolled --------------------------------------------------------------------------------------------

  /** Adds a newcomer, unless a closed switch keeps it out. The answer is its first confirmation. */
  async enlist(attributes: Attributes, reckoned: readonly string[] = []): Promise<EnlistAnswer | null> {
    if (!(await this.#join())) return null;
    // INVARIANT: synchronous from here. A switch that comes later finds the newcomer among the active.
    // A key whose enrolment broke off is no newcomer: what was final for it then is now.
    const enlistedAtMs = this.#members.get(attributes.instance)?.enlistedAtMs ?? Number.POSITIVE_INFINITY;
    const closed = this.#closedFor({ ...attributes, enlistedAtMs });
    if (closed.some(refusesNewcomer)) return { enlisted: false, closed, validMs: 0 };
    // Its scope is held to what is left first, and it stands here only when it is to be enrolled.
    if (closed.some(({ act, id }) => act === "narrow" && !reckoned.includes(id)))
      return { enlisted: false, closed, validMs: 0 };
    const { confirmationMs } = config.roster;
    const nowMs = Date.now();
    this.#members.put(attributes, Math.max(nowMs, this.#lastOpenedAtMs + 1), nowMs + confirmationMs);
    this.#active.set(attributes.instance, { ...this.#members.get(attributes.instance)!, isRunning: false });
    if ((await this.ctx.storage.getAlarm()) === null) await this.ctx.storage.setAlarm(nowMs + PURGE_MS);
    return { enlisted: true, closed, validMs: confirmationMs };
  }

  /** Measured here from the answer on, by the instance from its question on: the roster never believes it shorter. */
  async confirm(instance: string, isRunning = false): Promise<ConfirmAnswer> {
    const member = this.#members.get(instance);
    if (member === undefined) return { confirmed: false, closed: [], validMs: 0 };
    const closed = this.#closedFor(member);
    if (closed.some(isWhole)) return { confirmed: false, closed, validMs: 0 };
    const { confirmationMs } = config.roster;
    const confirmedUntilMs = Date.now() + confirmationMs;
    this.#members.confirm(instance, confirmedUntilMs, isRunning);
    this.#active.set(instance, { ...member, confirmedUntilMs, isRunning });
    return { confirmed: true, closed, validMs: confirmationMs };
  }

  get #lastOpenedAtMs(): number {
    return [...this.#book.values()].reduce((last, { openedAtMs }) => Math.max(last, openedAtMs ?? 0), 0);
  }

  async leave(instance: string): Promise<readonly Switch[]> {
    const member = this.#members.get(instance);
    if (member === undefined) return [];
    this.#members.remove(instance);
    this.#active.delete(instance);
    return this.#closedFor(member);
  }

  #closedFor(member: Attributes & { readonly enlistedAtMs: number }): Switch[] {
    return [...this.#book.concerning(member)].flatMap((booked) => (isClosedFor(booked, member) ? [booked.sw] : []));
  }

  async list(after: string, limit: number): Promise<readonly Member[]> {
    return this.#members.page(after, limit).map((member) => {
      const closed = this.#closedFor(member);
      const whole = closed.filter(isWhole);
      const state = whole.some(({ act }) => act === "kill") ? "killed" : whole.length > 0 ? "paused" : "live";
      return { ...member, state, narrowedBy: closed.flatMap(({ act, id }) => (act === "narrow" ? [id] : [])) };
    });
  }

  async membersOf(human: string, after: string, limit: number): Promise<readonly { instance: string; task: string }[]> {
    return this.#members.pageOf(human, after, limit).map(({ instance, task }) => ({ instance, task }));
  }

  // --- switches ---------------------------------------------------------------------------------------------------

  async apply(sw: Switch, waitMs: number): Promise<ShardProgress> {
    this.#keep({ sw, openedAtMs: null });
    // Dying here: the switch stands, no confirmation in reach is renewed, and the switchboard asks again.
    let push = this.#pushes.get(sw.id);
    if (push === undefined) {
      const nowMs = Date.now();
      const booked = this.#book.get(sw.id)!;
      // Who holds no confirmation needs no push: it must ask before its next call, and finds the switch here. One that ran out
      // a moment ago is another matter: calls that it covered may run until their next beat.
      push = new Push(
        (instance) => instanceOf(this.#deployment, instance).close(sw),
        [...this.#active.values()].filter((one) => mayAct(one.confirmedUntilMs, nowMs) && isClosedFor(booked, one)),
        () => this.#members.countIdle(sw, nowMs - SILENT_WORKER_CUT_MS),
        // Who was killed acts no more, whatever confirmation it holds: the next switch passes it by.
        (instance) => (sw.act === "kill" && isWhole(sw) ? void this.#active.delete(instance) : undefined),
      );
      this.#pushes.set(sw.id, push);
    }
    return push.progress(waitMs, (work) => this.ctx.waitUntil(work));
  }

  /** Who was paused hears of it at once where this shard remembers them, else with their next call. */
  async open(sw: Switch, opening: Opening): Promise<void> {
    this.#keep({ sw, openedAtMs: this.#openedAtMs(sw, opening) });
    if (sw.act !== "pause") return;
    const push = this.#pushes.get(sw.id);
    this.#pushes.delete(sw.id);
    if (push !== undefined)
      this.ctx.waitUntil(push.tellAll((instance) => instanceOf(this.#deployment, instance).reopen(sw.id, opening)));
  }

  /**
   * INVARIANT: who came before a kill was lifted has an `enlistedAtMs` up to `openedAtMs`, who came after it a later one,
   * whatever the clock does between: it stands still within a turn, and it may step back.
   */
  #nowAfterAllMs(): number {
    return Math.max(Date.now(), this.#members.lastEnlistedAtMs);
  }

  /**
   * Whether the time of a block was over when it was opened is the switchboard's to say (`isByEndedSession`): this shard's clock
   * is another, and the word may come late. Who was there stays there before it.
   */
  #openedAtMs({ target: { human }, untilMs }: Switch, opening: Opening): number {
    const nowMs = this.#nowAfterAllMs();
    if (untilMs === null) return nowMs;
    if (opening.atMs >= untilMs) return Math.max(nowMs, untilMs);
    if (human === undefined) return nowMs;
    return Math.max(Math.min(nowMs, untilMs - 1), this.#members.lastEnlistedAtMsOf(human));
  }

  /** What is open stays open: pushes come twice, and in any order. */
  #keep({ sw, openedAtMs }: Booked): void {
    const known = this.#book.get(sw.id);
    if (known !== undefined && (known.openedAtMs !== null || openedAtMs === null)) return;
    this.ctx.storage.sql.exec(
      `INSERT INTO switches (id, json, opened_at_ms) VALUES (?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET opened_at_ms = excluded.opened_at_ms`,
      sw.id,
      JSON.stringify(sw),
      openedAtMs,
    );
    this.#book.set(sw.id, { sw, openedAtMs });
  }

  /** A shard that comes up knows no switch. Before it takes anybody it asks for all, and gets each one from then on. */
  #join(): Promise<boolean> {
    if (this.#hasJoined) return Promise.resolve(true);
    this.#joining ??= this.#joinNow().finally(() => {
      this.#joining = null;
    });
    return this.#joining;
  }

  async #joinNow(): Promise<boolean> {
    const shard = Number(this.ctx.id.name);
    const booked = await within(JOIN_TIMEOUT_MS, switchboardOf(this.#deployment).join(shard)).catch(() => undefined);
    if (booked === undefined) return false;
    // As the switchboard has it: nobody is here yet who could have come before or after, and by whom it was opened is told by when.
    for (const { switch: sw, isOpen, openedAtMs } of booked as readonly BookedSwitch[])
      this.#keep({ sw, openedAtMs: isOpen ? (openedAtMs ?? this.#nowAfterAllMs()) : null });
    this.ctx.storage.sql.exec("INSERT OR IGNORE INTO joined (id) VALUES (0)");
    this.#hasJoined = true;
    return true;
  }

  // --- time -------------------------------------------------------------------------------------------------------

  /**
   * Members whose task is long over and who have not left: the call wakes an object that lost its alarm, and it comes
   * to its end. Who does not even then (an enrolment that broke off) is forgotten, and so is a switch that was opened
   * when everybody now here had not come yet.
   */
  override async alarm(): Promise<void> {
    const nowMs = Date.now();
    await this.ctx.storage.setAlarm(nowMs + PURGE_MS);
    await Promise.all(this.#nextOverdue(nowMs).map(({ instance }) => this.#wake(instance)));
    this.#members.forget(nowMs - FORGET_MS);
    for (const [instance, { confirmedUntilMs }] of this.#active)
      if (!mayAct(confirmedUntilMs, nowMs)) this.#active.delete(instance);
    for (const id of this.#pushes.keys()) {
      // Long over; asked once more, it is made anew. Of a closed pause it still knows whom to tell of the end.
      const { sw, openedAtMs = null } = this.#book.get(id) ?? {};
      const isPaused = sw?.act === "pause" && openedAtMs === null;
      if (!isPaused && (sw?.atMs ?? 0) < nowMs - PURGE_MS) this.#pushes.delete(id);
    }
    this.#forgetOpened(nowMs);
    if (this.#members.isEmpty) await this.ctx.storage.deleteAlarm();
  }

  /** In turn, from where the last alarm stopped: those that don't leave must not keep the others from their turn. */
  #nextOverdue(nowMs: number): Enlisted[] {
    const { sql } = this.ctx.storage;
    const [woken] = sql.exec<{ last: string }>("SELECT last FROM woken").toArray();
    const after = woken?.last ?? "";
    const overdue = this.#members.overdue(nowMs - PURGE_MS, after, WAKES_AT_ONCE);
    const last = overdue.length < WAKES_AT_ONCE ? "" : overdue.at(-1)!.instance;
    // Dying here passes over these for one turn.
    if (last !== after) sql.exec("INSERT OR REPLACE INTO woken (id, last) VALUES (0, ?)", last);
    return overdue;
  }

  #forgetOpened(nowMs: number): void {
    const longestMs = longestReachMs(config);
    // As the configuration is now: who came while tasks could last longer is here still.
    const { firstEnlistedAtMs } = this.#members;
    for (const [id, { openedAtMs }] of this.#book) {
      if (openedAtMs === null || openedAtMs > nowMs - longestMs - FORGET_MS) continue;
      if (firstEnlistedAtMs <= openedAtMs) continue;
      this.ctx.storage.sql.exec("DELETE FROM switches WHERE id = ?", id);
      this.#book.delete(id);
    }
  }

  async #wake(instance: string): Promise<void> {
    try {
      await within(WAKE_TIMEOUT_MS, instanceOf(this.#deployment, instance).read(0, 0));
    } catch {
      // Tried again with the next alarm.
    }
  }
}

/**
 * A kill that was lifted since is closed for those alone who had come before. One that narrows is closed for whoever works on
 * an older word of the identity provider, however late they come: a sub-agent has its parent's.
 */
const isClosedFor = ({ sw, openedAtMs }: Booked, member: Attributes & { readonly enlistedAtMs: number }): boolean =>
  (openedAtMs === null ||
    sw.act === "narrow" ||
    (sw.act === "kill" && member.enlistedAtMs <= openedAtMs) ||
    isByEndedSession(sw, openedAtMs, member)) &&
  isInReach(sw, member);

/**
 * The provider has ended a human's sessions, and their time to sign in anew is over: an ID token from before is good for nothing
 * all the same, however long it lives. Opened earlier than that, somebody has decided otherwise.
 */
const isByEndedSession = (
  { act, reach, cause, atMs, untilMs }: Switch,
  openedAtMs: number,
  member: Attributes,
): boolean =>
  act === "kill" &&
  reach === "human" &&
  cause?.kind === "set" &&
  untilMs !== null &&
  openedAtMs >= untilMs &&
  // One that came late says nothing of who signed in after its own time was over.
  member.groupsAtMs <= Math.min(atMs, untilMs) + PROVIDER_AHEAD_MS;
