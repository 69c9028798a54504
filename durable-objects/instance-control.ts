import type { CloseAnswer } from "../src/control/acknowledgement.ts";
import type { ConfirmAnswer, EnlistAnswer, Opening } from "../src/control/contract.ts";
import type { InstanceEvent } from "../src/control/signals.ts";
import { closes, isWhole, refusesNewcomer, type Switch, switchFields } from "../src/control/switch.ts";
import type { Deployment } from "../src/deployment.ts";
import type { Cause, Enrolment } from "../src/instance/contract.ts";
import { rosterOf } from "../src/objects.ts";
import { within } from "../src/within.ts";
import { ClosedSwitches } from "./closed-switches.ts";
import { Confirmation, ROSTER_ANSWER_MS } from "./confirmation.ts";
import { Cut } from "./cut.ts";
import { attributesOf } from "./instance-fields.ts";
import type { Kept } from "./kept.ts";
import type { Lease } from "./lease.ts";
import type { Ledger } from "./ledger.ts";
import { LiveCeilings } from "./live-ceilings.ts";
import type { Orphans } from "./orphans.ts";
import type { RuleWatch } from "./rule-watch.ts";

/** How long a Worker has to confirm a cut before the instance answers without it. */
const CUT_CONFIRM_MS = 5_000;
/** A switch that cuts nothing is on record after this. */
const KEEP_AFTER_MS = 250;
/** Who is paused asks at most so often whether it still is. */
const PAUSE_RECHECK_MS = 1_000;
/** Another group may be lost between two questions. */
const ENLIST_TRIES = 3;

export interface ControlOptions {
  readonly ctx: DurableObjectState;
  readonly kept: Kept;
  readonly deployment: () => Deployment;
  readonly ledger: () => Ledger;
  readonly watch: RuleWatch;
  readonly leases: ReadonlyMap<number, Lease>;
  readonly wakeBy: (atMs: number) => void;
  /** What waits for a person: it hears of a switch at once, and is cancelled with its record. */
  readonly orphans: () => Orphans;
  readonly approvals: () => { wakeStopped(nowMs: number): void; cancel(nowMs: number): void };
}

/** What the roster said to a newcomer. */
export type Enlisting =
  | { readonly kind: "enlisted"; readonly sentAtMs: number; readonly answer: EnlistAnswer }
  | { readonly kind: "refused" }
  /** Its scope is more than the groups allow that are left. Nothing stands on the roster. */
  | { readonly kind: "narrowed"; readonly groups: readonly string[] }
  | { readonly kind: "unavailable" };

/** What stops an instance, and who says that it may go on: switches, the roster's confirmation, its own rules. */
export class InstanceControl {
  readonly #options: ControlOptions;
  readonly #switches: ClosedSwitches;
  readonly ceilings: LiveCeilings;
  readonly #confirmation: Confirmation;
  readonly #cuts = new Map<string, Cut>();

  constructor(options: ControlOptions) {
    this.#options = options;
    this.#switches = new ClosedSwitches(options.kept);
    this.ceilings = new LiveCeilings(options.deployment, () => this.#switches.closed);
    this.#confirmation = new Confirmation(
      options.deployment,
      // Those that wait to be taken up again as well: a kill finds them first.
      () => options.leases.size > 0 || options.orphans().runningAt(Date.now()) > 0,
      () => this.#onConfirmation(),
    );
  }

  get #ledger(): Ledger {
    return this.#options.ledger();
  }

  /** Why no call can be admitted any more; null while the instance lives. */
  deadReason(nowMs: number): string | null {
    const { state, enrolment } = this.#ledger;
    if (state.stopped !== null) return state.stopped;
    if (this.#switches.hasWhole) return "switched";
    if (enrolment !== null && enrolment.task.deadlineMs <= nowMs) return "the task is over";
    return null;
  }

  hasClosed(upstream: string): boolean {
    return this.#switches.hasClosed(upstream);
  }

  // --- the roster -------------------------------------------------------------------------------------------------

  /** Asks for the first confirmation, which counts from `begin` on. */
  async enlist(enrolment: Enrolment): Promise<Enlisting> {
    const sentAtMs = Date.now();
    const pausesBefore = this.#switches.pauses;
    let answer = await this.#askToEnlist(enrolment, []);
    for (let tries = 0; tries < ENLIST_TRIES && isNarrowed(answer); tries++) {
      // Some groups were lost since the identity token. What is left may do for this scope, and may not.
      const groups = this.ceilings.exceeding(enrolment, answer.closed);
      if (groups !== null) return { kind: "narrowed", groups };
      const reckoned = answer.closed.map(({ id }) => id);
      answer = await this.#askToEnlist(enrolment, reckoned);
    }
    if (answer === null || isNarrowed(answer)) return { kind: "unavailable" };
    // A pause that was pushed to an enrolment that broke off, and resumed since.
    this.#reopenUnnamed(pausesBefore, answer.closed);
    const isKeptOut = !answer.enlisted || this.#switches.closed.some(refusesNewcomer);
    return isKeptOut ? { kind: "refused" } : { kind: "enlisted", sentAtMs, answer };
  }

  async #askToEnlist(enrolment: Enrolment, reckoned: readonly string[]): Promise<EnlistAnswer | null> {
    const roster = rosterOf(this.#options.deployment(), enrolment.rosterShard);
    const enlisting = roster.enlist(attributesOf(enrolment), reckoned);
    return (await within(ROSTER_ANSWER_MS, enlisting).catch(() => undefined)) ?? null;
  }

  /** With the record of the enrolment. What is closed for a newcomer is of one upstream alone, or narrows: anything else keeps it out. */
  begin({ sentAtMs, answer }: Extract<Enlisting, { readonly kind: "enlisted" }>): void {
    this.#confirmation.extend(sentAtMs, answer.validMs);
    for (const sw of answer.closed) this.take(sw);
    this.keep();
  }

  /** Whether this object may admit. Who is not enrolled, or stopped for good, needs no roster to be refused. */
  async isConfirmed(): Promise<boolean> {
    const { enrolment } = this.#ledger;
    const nowMs = Date.now();
    if (enrolment === null) return true;
    this.#askWhetherPaused(enrolment, nowMs);
    if (this.deadReason(nowMs) !== null) return true;
    if (this.#confirmation.holds(enrolment, nowMs, (work) => this.#options.ctx.waitUntil(work))) return true;
    return (await this.#confirmation.ask(enrolment)) || this.deadReason(Date.now()) !== null;
  }

  /** Of a call that still runs. */
  async isConfirmedRunning(): Promise<boolean> {
    const isConfirmed = await this.isConfirmed();
    if (this.deadReason(Date.now()) === null) this.#sayRunning();
    return isConfirmed;
  }

  /** Beside the call, which does not wait for it. */
  #sayRunning(): void {
    const { enrolment } = this.#ledger;
    if (enrolment !== null) this.#confirmation.sayRunning(enrolment, (work) => this.#options.ctx.waitUntil(work));
  }

  /**
   * The word that a pause is over may have been lost. Asked beside the call, which is refused as it stands: an agent whose
   * refusal had waited for the roster could tell a pause from a kill by time.
   */
  #askWhetherPaused(enrolment: Enrolment, nowMs: number): void {
    if (this.#ledger.state.stopped !== null || this.#switches.pauses.length === 0) return;
    if (nowMs < this.#confirmation.askedAtMs + PAUSE_RECHECK_MS) return;
    this.#options.ctx.waitUntil(this.#confirmation.ask(enrolment));
  }

  /**
   * What the roster says in a confirmation is a switch like one that it pushed. A pause that this object knew before it
   * asked, and that the roster does not name any more, was resumed.
   */
  #onConfirmation(): (answer: ConfirmAnswer) => void {
    const before = this.#switches.pauses.filter(({ id }) => !this.#options.watch.isHandingOver(id));
    return ({ confirmed, closed }) => {
      for (const sw of closed) this.take(sw);
      // Who is refused and in reach of nothing is unknown there: that says nothing of a pause.
      if (confirmed || closed.length > 0) this.#reopenUnnamed(before, closed);
    };
  }

  /** Who admits nothing any more needs no confirmation. What it has not been told of is taken, where the roster can be asked. */
  async leave({ instance, rosterShard }: Enrolment): Promise<void> {
    const leaving = rosterOf(this.#options.deployment(), rosterShard).leave(instance);
    const closed = await within(ROSTER_ANSWER_MS, leaving).catch(() => undefined);
    for (const sw of closed ?? []) this.take(sw);
  }

  /** What `leave` would say, of one who stays within reach of a switch. */
  async learn(enrolment: Enrolment): Promise<void> {
    await this.#confirmation.ask(enrolment);
  }

  // --- switches ---------------------------------------------------------------------------------------------------

  /** A switch in whose reach this instance is. Answers when the running calls in its reach are cut; asked again, how far that is. */
  async close(sw: Switch): Promise<CloseAnswer> {
    const cut = this.take(sw);
    if (!cut.isEmpty) await within(CUT_CONFIRM_MS, cut.done);
    const nowMs = Date.now();
    const answer = cut.answer(nowMs);
    const { state } = this.#ledger;
    // What nobody confirmed is over when its time is, and not before.
    const overAgeMs = Math.max(0, nowMs - this.#options.orphans().overAtMs);
    // As counted on record: what was confirmed before this object was reset is in it.
    const counted = state.cuts?.[sw.id] ?? 0;
    // Of those nobody knows when their last bytes passed, but that it was before this life of the object heard of the switch.
    const forgottenAgeMs = counted > cut.owned ? answer.acknowledgedAgeMs : Number.POSITIVE_INFINITY;
    const lastByteAgeMs = Math.min(answer.lastByteAgeMs ?? Number.POSITIVE_INFINITY, forgottenAgeMs);
    return {
      ...answer,
      lastByteAgeMs: Number.isFinite(lastByteAgeMs) ? lastByteAgeMs : null,
      acknowledgedAgeMs: Math.min(answer.acknowledgedAgeMs, overAgeMs),
      cut: counted,
      unconfirmed: answer.unconfirmed + this.#options.orphans().runningAt(nowMs),
    };
  }

  /** INVARIANT: synchronous. From here on nothing in its reach is admitted, and the Workers of what runs are told. */
  take(sw: Switch): Cut {
    const known = this.#cuts.get(sw.id);
    if (known !== undefined) return known;
    const isNew = this.#switches.take(sw);
    const cut = new Cut(isNew ? this.#inReach(sw) : [], causeOf(sw), sw.id);
    this.#cuts.set(sw.id, cut);
    // A kill is final, whatever becomes of its switch.
    if (sw.act === "kill" && isWhole(sw)) this.#ledger.change({ stopped: this.#ledger.state.stopped ?? "switched" });
    // With the next record, and that is soon: what the Workers say. Nobody waits for a write before they are told.
    if (isNew) setTimeout(() => this.keep(), KEEP_AFTER_MS);
    if (isNew) this.#options.approvals().wakeStopped(Date.now());
    return cut;
  }

  /** Running calls that may not go on. */
  #inReach(sw: Switch): readonly Lease[] {
    const leases = this.#options.leases.values();
    if (sw.act === "narrow") return this.ceilings.narrow(this.#ledger.enrolment, leases);
    return [...leases].filter(({ upstream }) => closes(sw, upstream));
  }

  /**
   * INVARIANT: synchronous, with the making of the lease. One that is taken up again breaks at once where a newcomer would be
   * refused; by a switch, its cut waits for it.
   */
  breakIfStopped(lease: Lease, nowMs: number): void {
    const { state, enrolment } = this.#ledger;
    const { closed } = this.#switches;
    const sw = closed.find((one) => closes(one, lease.upstream));
    const permits = this.ceilings.permitsOf(enrolment!, lease.call);
    if (sw !== undefined) this.#breakBy(sw, lease);
    else if (state.stopped !== null) lease.break(state.stopped === "revoked" ? "ended" : "switched");
    else if (this.deadReason(nowMs) !== null) lease.break("expired");
    else if (!permits.ok) {
      const isEntitlement = permits.error.kind === "absent" && permits.error.layer === "entitlement";
      const narrowing = isEntitlement ? closed.findLast(({ act }) => act === "narrow") : undefined;
      // Without one the configuration has changed.
      if (narrowing === undefined) lease.break("narrowed");
      else this.#breakBy(narrowing, lease);
    }
  }

  #breakBy(sw: Switch, lease: Lease): void {
    lease.break(causeOf(sw), sw.id);
    const cut = this.#cuts.get(sw.id) ?? new Cut([], causeOf(sw), sw.id);
    this.#cuts.set(sw.id, cut);
    cut.add(lease);
  }

  /** Puts on record what was taken. Dying before this, the object that starts anew hears of it from the roster. */
  keep(): void {
    const ledger = this.#ledger;
    if (ledger.enrolment === null || ledger.log.isClosed) return;
    const kept = this.#switches.keep();
    for (const sw of kept) {
      ledger.append("switched", Date.now(), switchFields(sw));
      this.#options.wakeBy(ledger.endsAtMs);
    }
    if (kept.length > 0) this.#options.approvals().cancel(Date.now());
  }

  /** @param opening who resumed it, and why; null: the roster names the pause no more, and does not say. */
  reopen(id: string, opening: Pick<Opening, "by" | "reason"> | null): void {
    const sw = this.#switches.open(id);
    const ledger = this.#ledger;
    if (sw === undefined || ledger.enrolment === null || ledger.log.isClosed) return;
    const { by = null, reason = null } = opening ?? {};
    ledger.record("switched", Date.now(), { ...switchFields(sw), act: "resume", by, reason });
  }

  #reopenUnnamed(before: readonly Switch[], closed: readonly Switch[]): void {
    for (const { id } of before) if (!closed.some((sw) => sw.id === id)) this.reopen(id, null);
  }

  /** Breaks every lease and waits until each Worker has confirmed, within bounds. */
  async cutAll(cause: Cause): Promise<CloseAnswer> {
    const cut = new Cut([...this.#options.leases.values()], cause, null);
    await within(CUT_CONFIRM_MS, cut.done);
    const nowMs = Date.now();
    const answer = cut.answer(nowMs);
    // Of an earlier life of this object nobody confirms, here as with a switch.
    return { ...answer, unconfirmed: answer.unconfirmed + this.#options.orphans().runningAt(nowMs) };
  }

  // --- rules ------------------------------------------------------------------------------------------------------

  /** INVARIANT: synchronous. What trips a rule, its record, and the stop that the rule makes of it are one commit. */
  saw(event: InstanceEvent, nowMs: number): void {
    const ledger = this.#ledger;
    const { watch, wakeBy } = this.#options;
    if (ledger.log.isClosed || this.deadReason(nowMs) !== null) return;
    // A body that comes in runs is a call that lasts. One that is short has none.
    if (event.kind === "passed") this.#sayRunning();
    for (const { fields, sw } of watch.saw(event, nowMs)) {
      ledger.record("signal", nowMs, fields);
      if (sw === null) continue;
      this.take(sw);
      // No roster has this one yet, so it can't be left for a moment later.
      this.keep();
      wakeBy(watch.dueAtMs(nowMs) ?? nowMs);
      watch.handOver();
    }
  }
}

/** Kept out by nothing but groups that it was not known to have lost. */
const isNarrowed = (answer: EnlistAnswer | null): answer is EnlistAnswer & { readonly enlisted: false } =>
  answer !== null && !answer.enlisted && !answer.closed.some(refusesNewcomer);

const causeOf = (sw: Switch): Cause =>
  sw.act === "narrow" ? "narrowed" : isWhole(sw) ? "switched" : "upstream-switched";
