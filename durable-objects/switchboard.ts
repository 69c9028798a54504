import { DurableObject } from "cloudflare:workers";
import config from "#config";
import { isSilent, mergeReached, onClock } from "../src/control/acknowledgement.ts";
import type {
  BookedSwitch,
  FlipAnswer,
  FlipProgress,
  FlipRequest,
  FlipState,
  LiftAnswer,
  OpenRequest,
  ShardProgress,
  SwitchboardCalls,
} from "../src/control/contract.ts";
import type { Narrowing } from "../src/control/narrowing.ts";
import { longestReachMs, narrowingUntilMs } from "../src/control/narrowing.ts";
import { progressOf } from "../src/control/receipt.ts";
import { needsTwoToLift, type Switch, switchFields } from "../src/control/switch.ts";
import { type Deployment, type Env, parseDeployment } from "../src/deployment.ts";
import { rosterOf } from "../src/objects.ts";
import type { Fields } from "../src/transcript/envelope.ts";
import { within } from "../src/within.ts";
import { ActOutbox } from "./act-outbox.ts";
import { UnreadableState } from "./stored.ts";
import { type Entry, type ShardOutcome, SwitchBook } from "./switch-book.ts";
import { Wake } from "./wake.ts";

/** A flip that is not done is pushed again after this, until nobody in reach can do anything any more. */
const RETRY_MS = 1_000;
/** How long a shard gathers acknowledgements before it says how far it is. */
const ROUND_MS = 250;
/** Above that, and a shard that comes up cold. What takes longer runs on there, and is asked for again. */
const ROUND_TIMEOUT_MS = 10_000;
/** A shard that was just reset answers the next question; one that is down is asked again by the alarm. */
const ASK_AGAIN_MS = [50, 200];
/** An alarm waits this long for shards and journal, and what takes longer goes on beside the next: one that is down holds up no other. */
const ALARM_WAIT_MS = 2_000;
/** Who flips waits this long for the end; what is left goes on without them. */
const FLIP_WAIT_MS = 8_000;
/** Two operators who agree do so within this. */
const LIFT_WINDOW_MS = 3_600_000;
/** After the longest reach, as at the shards. Longer than anybody asks again with the same idempotency key. */
const FORGET_MS = 604_800_000;

/** A switch on its way to the shards. */
interface Carrying {
  readonly outcomes: Map<number, ShardOutcome>;
  /** Why it can't be read what had come of it before; null: it can. */
  readonly unreadable: UnreadableState | null;
  /** What they have answered that is not in the book yet. */
  readonly unbooked: Set<number>;
  readonly asked: Map<number, Promise<boolean>>;
}

/** The book of switches. Traffic only on flips: no call ever asks here. */
export class Switchboard extends DurableObject<Env> implements SwitchboardCalls {
  readonly #book: SwitchBook;
  readonly #wake: Wake;
  readonly #carrying = new Map<string, Carrying>();
  readonly #acts: ActOutbox;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#book = new SwitchBook(ctx.storage.sql);
    this.#acts = new ActOutbox(ctx.storage.sql, () => this.#deployment);
    this.#wake = new Wake(ctx, () => this.#nextWakeMs(Date.now()));
  }

  /** Where it is used, not in the constructor: a secret that is missing must not end the retries of a kill. */
  get #deployment(): Deployment {
    return parseDeployment(this.env, config);
  }

  // --- acts -------------------------------------------------------------------------------------------------------

  /** Persists the switch, hands it to every roster shard, and answers with what came of it so far. */
  async flip(request: FlipRequest): Promise<FlipAnswer> {
    // Its id is the asker's own: asked again without a key it is the same flip, too.
    const repeated = this.#book.repeated(request);
    if (repeated === null) return { flipped: false };
    if (repeated !== undefined)
      return { flipped: true, isRepeated: true, state: this.#stateOf(this.#book.get(repeated)!) };
    const nowMs = Date.now();
    const sw = switchAt(nowMs, request);
    const { untilMs } = sw;
    this.#book.add(sw, request);
    this.#keepAct({ deed: "flip", email: request.email, ...switchFields(sw) });
    // From here the flip survives: if this object dies, the alarm carries it on.
    this.#wake.by(Math.min(nowMs + RETRY_MS, untilMs ?? Number.POSITIVE_INFINITY));
    await within(FLIP_WAIT_MS, this.#carryOut(sw));
    this.ctx.waitUntil(this.#acts.tellAll());
    return { flipped: true, isRepeated: false, state: this.#stateOf(this.#book.get(sw.id)!) };
  }

  /** A pause is resumed, a kill is lifted: newcomers are let in again. What was killed stays so. */
  async lift(id: string, request: OpenRequest): Promise<LiftAnswer> {
    const entry = this.#book.get(id);
    if (entry === undefined) return { kind: "unknown" };
    if (entry.opened !== null) return { kind: "open-already", state: this.#stateOf(entry) };
    if (entry.sw.act === "narrow") return { kind: "not-lifted", state: this.#stateOf(entry) };
    const nowMs = Date.now();
    if (needsTwoToLift(entry.sw)) {
      this.#book.askLift(id, request.by, nowMs);
      if (this.#book.liftAskedBy(id, nowMs - LIFT_WINDOW_MS).length < 2) {
        const { by, email, reason } = request;
        this.#keepAct({ deed: "ask to lift", switch: id, by, email, reason });
        this.ctx.waitUntil(this.#acts.tellAll());
        return { kind: "second-operator", state: this.#stateOf(entry) };
      }
    }
    await this.#open([entry], request, nowMs);
    return { kind: "opened", state: this.#stateOf(this.#book.get(id)!) };
  }

  async resume(
    { reach, target }: Pick<Switch, "reach" | "target">,
    request: OpenRequest,
  ): Promise<readonly FlipState[]> {
    const wanted = JSON.stringify([reach, Object.entries(target).sort()]);
    const { entries, unreadable } = this.#book.closedPauses();
    const paused = entries.filter(({ sw }) => JSON.stringify([sw.reach, Object.entries(sw.target).sort()]) === wanted);
    // What is asked for may be the one that can't be read: that there is none would be a lie.
    if (paused.length === 0 && unreadable !== null) throw unreadable;
    await this.#open(paused, request, Date.now());
    return paused.map(({ sw }) => this.#stateOf(this.#book.get(sw.id)!));
  }

  /** INVARIANT: all of them are open in the book before anything is waited for: nobody else opens one meanwhile. */
  async #open(entries: readonly Entry[], request: OpenRequest, nowMs: number): Promise<void> {
    for (const entry of entries) this.#bookOpening(entry, request, nowMs);
    await within(FLIP_WAIT_MS, Promise.all(entries.map(({ sw }) => this.#openAtShards(sw))));
    this.ctx.waitUntil(this.#acts.tellAll());
  }

  #bookOpening({ sw }: Entry, { by, email, reason }: OpenRequest, nowMs: number): void {
    this.#book.open(sw.id, { atMs: nowMs, by, reason });
    this.#keepAct({ deed: sw.act === "pause" ? "resume" : "lift", switch: sw.id, by, email, reason });
    this.#wake.by(nowMs + RETRY_MS);
  }

  // --- reading ----------------------------------------------------------------------------------------------------

  async read(id: string): Promise<FlipState | null> {
    const entry = this.#book.get(id);
    return entry === undefined ? null : this.#stateOf(entry);
  }

  async progress(id: string): Promise<FlipProgress | null> {
    const entry = this.#book.get(id);
    return entry === undefined ? null : progressOf(this.#stateOf(entry));
  }

  async list(before: string | null, limit: number): Promise<readonly FlipState[]> {
    const no = before === null ? Number.MAX_SAFE_INTEGER : (this.#book.get(before)?.no ?? 0);
    // Without looking at who was reached: of a page of switches that is more than this object could hold.
    return this.#book.before(no, limit).map((entry) => this.#stateOf(entry, this.#countsOf(entry.sw.id)));
  }

  async shards(): Promise<readonly number[]> {
    return this.#book.shards();
  }

  async humanKilledAt(names: readonly string[]): Promise<number | null> {
    return this.#book.humanKilledAtMs(names);
  }

  async narrowingsOf(names: readonly string[]): Promise<readonly Narrowing[]> {
    return this.#book.narrowingsOf(names);
  }

  #stateOf({ sw, isDone, isGivenUp, opened }: Entry, outcomes = this.#outcomesOf(sw.id)): FlipState {
    const shards = this.#book.shards();
    const isHeard = outcomes.size > 0 || shards.length === 0;
    return {
      switch: sw,
      status: isDone ? "done" : isGivenUp ? "resumed" : isHeard ? "pending" : "accepted",
      // Of what is over, a shard that came up since is asked for nothing.
      unheardShards: isDone || isGivenUp ? 0 : shards.filter((shard) => !outcomes.has(shard)).length,
      reached: [...outcomes.values()].flatMap(({ reached }) => reached),
      idle: [...outcomes.values()].reduce((sum, { idle }) => sum + idle, 0),
      opened,
      liftAskedBy: opened === null ? this.#book.liftAskedBy(sw.id, Date.now() - LIFT_WINDOW_MS) : [],
    };
  }

  #outcomesOf(id: string): Map<number, ShardOutcome> {
    const { outcomes = null, unreadable = null } = this.#carrying.get(id) ?? {};
    if (unreadable !== null) throw unreadable;
    // What is being carried out began with what stood in the book.
    return outcomes ?? this.#book.outcome(id);
  }

  #countsOf(id: string): Map<number, ShardOutcome> {
    const outcomes = [...(this.#carrying.get(id)?.outcomes ?? [])];
    const counts = outcomes.map(([shard, { idle }]) => [shard, { idle, reached: [] }] as const);
    return new Map([...this.#book.idleOf(id), ...counts]);
  }

  // --- the shards -------------------------------------------------------------------------------------------------

  /** INVARIANT: synchronous. Of a flip and a shard that comes up, one finds the other. */
  async join(shard: number): Promise<readonly BookedSwitch[]> {
    this.#book.join(shard);
    // What was opened before the oldest task began, and the oldest identity token was issued, is nothing to anybody who may come.
    const sinceMs = Date.now() - longestReachMs(config);
    return this.#book.standing(sinceMs).map(({ sw, opened }) => ({
      switch: sw,
      isOpen: opened !== null,
      openedAtMs: opened?.atMs ?? null,
    }));
  }

  /** Runs as often as needed: shards and instances know a switch by its id. */
  #carryOut(sw: Switch): Promise<UnreadableState | null> {
    const carrying = this.#carryOutNow(sw);
    this.ctx.waitUntil(carrying);
    return carrying;
  }

  async #carryOutNow(sw: Switch): Promise<UnreadableState | null> {
    let carrying = this.#carrying.get(sw.id);
    if (carrying === undefined) {
      carrying = { ...this.#begun(sw), unbooked: new Set(), asked: new Map() };
      this.#carrying.set(sw.id, carrying);
    }
    const { outcomes, unreadable, unbooked, asked } = carrying;
    const heard = await Promise.all(this.#book.shards().map((shard) => this.#carryOnceTo(shard, sw, carrying)));
    if (asked.size === 0) this.#carrying.delete(sw.id);
    if (unreadable !== null) return unreadable;
    // One commit. Dying before it, the shards are asked again, and say what they said.
    for (const shard of unbooked) this.#book.setOutcome(sw.id, shard, outcomes.get(shard)!);
    unbooked.clear();
    const nowMs = Date.now();
    const reached = [...outcomes.values()].flatMap((outcome) => outcome.reached);
    if (heard.every(Boolean) && reached.every((one) => isSilent(one, nowMs))) this.#book.setDone(sw.id);
    return null;
  }

  /** Where it can't be read who was reached, it is pushed to all anew, and nothing of that is booked over what stands there. */
  #begun({ id }: Switch): Pick<Carrying, "outcomes" | "unreadable"> {
    try {
      return { outcomes: this.#book.outcome(id), unreadable: null };
    } catch (error) {
      if (!(error instanceof UnreadableState)) throw error;
      return { outcomes: new Map(), unreadable: error };
    }
  }

  /** A shard that is being asked is waited for; the others are asked again meanwhile, for those whom they have not reached. */
  #carryOnceTo(shard: number, sw: Switch, carrying: Carrying): Promise<boolean> {
    let asking = carrying.asked.get(shard);
    if (asking === undefined) {
      asking = this.#carryTo(shard, sw, carrying).finally(() => carrying.asked.delete(shard));
      carrying.asked.set(shard, asking);
    }
    return asking;
  }

  /** True: the shard has the switch, and every push of this round has ended. */
  async #carryTo(shard: number, sw: Switch, { outcomes, unbooked }: Carrying): Promise<boolean> {
    for (let failures = 0; ; ) {
      let answer: ShardProgress | undefined;
      try {
        answer = await within(ROUND_TIMEOUT_MS, rosterOf(this.#deployment, shard).apply(sw, ROUND_MS));
      } catch {
        const againMs = ASK_AGAIN_MS[failures++];
        if (againMs === undefined) return false;
        await new Promise((resolve) => setTimeout(resolve, againMs));
        continue;
      }
      if (answer === undefined) return false;
      const nowMs = Date.now();
      const { reached: before = [], idle = answer.idle } = outcomes.get(shard) ?? {};
      const now = answer.pushed.map((one) => onClock(nowMs, sw.atMs, one));
      // Idle are those who were so when it first came: a shard that began anew counts whom it had reached, too.
      outcomes.set(shard, { idle, reached: mergeReached(before, now) });
      unbooked.add(shard);
      if (!answer.isRunning) return true;
    }
  }

  async #openAtShards(sw: Switch): Promise<void> {
    const { opened: opening } = this.#book.get(sw.id)!;
    if (opening === null) return;
    const opened = await Promise.all(
      this.#book.shards().map(async (shard) => {
        try {
          const telling = rosterOf(this.#deployment, shard).open(sw, opening);
          return (
            (await within(
              ROUND_TIMEOUT_MS,
              telling.then(() => true),
            )) === true
          );
        } catch {
          return false;
        }
      }),
    );
    if (opened.every(Boolean)) this.#book.setOpenDone(sw.id);
  }

  #keepAct(fields: Fields): void {
    this.#acts.keep(fields);
    this.#wake.by(Date.now() + RETRY_MS);
  }

  // --- time -------------------------------------------------------------------------------------------------------

  override async alarm(): Promise<void> {
    this.#wake.rang();
    const nowMs = Date.now();
    // Said to the shards below, beside the rest: a shard that is out of reach must not hold up a kill.
    const due = this.#book.due(nowMs);
    for (const entry of due.entries)
      this.#bookOpening(entry, { by: "expiry", email: null, reason: "its time is over" }, nowMs);
    const unfinished = this.#book.unfinished();
    const next = this.#nextWakeMs(nowMs);
    // The time of one that can't be read stays over, however often this rings.
    if (next !== null) this.#wake.by(due.unreadable === null ? next : Math.max(next, nowMs + RETRY_MS));
    const carrying = Promise.all(
      unfinished.entries.map(async ({ sw, isDone, isGivenUp, opened, isOpenDone }) => {
        const unreadable = isDone || isGivenUp ? null : await this.#carryOut(sw);
        if (opened !== null && !isOpenDone) await this.#openAtShards(sw);
        return unreadable;
      }),
    );
    const all = Promise.all([carrying, this.#acts.tellAll()]);
    this.ctx.waitUntil(all);
    const [carried] = (await within(ALARM_WAIT_MS, all)) ?? [[]];
    // Each flip and each opening rings once at least: what the book is to grow by, it is looked through for.
    this.#book.forget(nowMs - longestReachMs(config) - FORGET_MS);
    // One that can't be read stays closed, and holds up no other: what could be done has been.
    const unreadable = [due.unreadable, unfinished.unreadable, ...carried].find((one) => one !== null);
    if (unreadable !== undefined) throw unreadable;
  }

  /** What is not through is tried again soon, and nothing is armed for what is. */
  #nextWakeMs(nowMs: number): number | null {
    const times = [this.#book.nextUntilMs].filter((time) => time !== null);
    if (this.#book.hasUnfinished || this.#acts.hasUntold) times.push(nowMs + RETRY_MS);
    return times.length === 0 ? null : Math.max(nowMs, Math.min(...times));
  }
}

function switchAt(nowMs: number, { id, reach, target, act, reason, by, cause, ...request }: FlipRequest): Switch {
  const sw = { id, reach, target, act, reason, by, cause, atMs: nowMs, untilMs: request.untilMs };
  if (act !== "narrow") return sw;
  const { groups = [], eventAtMs = nowMs } = request;
  return { ...sw, untilMs: narrowingUntilMs(config, eventAtMs), groups, eventAtMs };
}
