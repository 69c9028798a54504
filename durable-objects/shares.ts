import { SILENT_WORKER_CUT_MS } from "../src/control/acknowledgement.ts";
import type { Denial } from "../src/denial.ts";
import { unavailable } from "../src/denial.ts";
import type { Deployment } from "../src/deployment.ts";
import type { Units } from "../src/metering/amounts.ts";
import { quotaOf } from "../src/objects.ts";
import type { LeaseAnswer, LeaseRequest, ShareReport, Short, Ticket, Wanted } from "../src/quota/contract.ts";
import { type Dimension, map, minus, of, plus, type Some } from "../src/quota/dimensions.ts";
import {
  countingBytes,
  covers,
  enterPeriod,
  type Share,
  type Shares,
  settled,
  shareOf,
  takenUp,
  usedAt,
  withoutWorkers,
} from "../src/quota/shares.ts";
import { within } from "../src/within.ts";
import type { Lease } from "./lease.ts";
import type { Ledger } from "./ledger.ts";

/** A quota that has not answered by then is out of reach, and the call is refused. Below the gate's own patience. */
const QUOTA_ANSWER_MS = 3_000;
/** What was short is not asked for again before this. */
const SHORT_PAUSE_MS = 500;
/** The first lease holds this many calls more than were asked for; the next ones follow what was used. */
const AHEAD_CALLS = 3;
/** Who has made so many calls since it asked last is busy, and asks again ahead of need. */
const BUSY_CALLS = 3;
const EXTEND_TRIES = 8;

/** What is held of one quota. In memory alone: an object that starts anew asks, and is told. */
interface Held {
  lease: { readonly period: number; readonly granted: Some; readonly validMs: number; readonly untilMs: number } | null;
  /** Of the newest answer; null: to be told. */
  version: number | null;
  /** Recalled so many times: an answer that was on its way meanwhile does not count. */
  recalls: number;
  asking: Promise<void> | null;
  /** What waits for the next question. */
  readonly waiting: Set<Some>;
  /** What was used when it was asked last, and how many calls have come since. */
  usedAtAsk: Some | null;
  callsSinceAsk: number;
  /** Of what there was not enough, and until when nobody asks again. */
  short: {
    readonly denial: Denial;
    readonly dimension: Dimension;
    readonly least: Some;
    readonly untilMs: number;
  } | null;
  isReachable: boolean;
}

/**
 * This instance's leases of shared limits. INVARIANT: what is used of a lease is on record in the same commit as the call,
 * and never more than was granted, of a lease that is neither over nor recalled.
 */
export class InstanceShares {
  readonly #ledger: () => Ledger;
  readonly #deployment: () => Deployment;
  readonly #waitUntil: (work: Promise<unknown>) => void;
  readonly #leases: ReadonlyMap<number, Lease>;
  readonly #hasUncounted: () => boolean;
  readonly #held = new Map<string, Held>();

  constructor(
    ctx: DurableObjectState,
    deployment: () => Deployment,
    ledger: () => Ledger,
    leases: ReadonlyMap<number, Lease>,
    /** Calls whose bytes are not counted to their end, though nothing of them runs. */
    hasUncounted: () => boolean,
  ) {
    this.#waitUntil = (work) => ctx.waitUntil(work);
    this.#leases = leases;
    this.#hasUncounted = hasUncounted;
    this.#deployment = deployment;
    this.#ledger = ledger;
  }

  /**
   * Calls whose Workers nobody hears any more: their places are free when those must have cut. When the object starts and at
   * its transcript's end, before the records of what was lost: they carry it.
   */
  loseRunning(nowMs: number): void {
    const { shares } = this.#ledger().state;
    if (shares !== undefined)
      this.#ledger().change({ shares: withoutWorkers(shares, nowMs, nowMs + SILENT_WORKER_CUT_MS) });
  }

  /** A call of an earlier life runs again: what it took is still charged, and is settled with it. */
  takeUp(tickets: readonly Ticket[], nowMs: number): void {
    for (const { name, need } of tickets)
      if (Object.hasOwn(need, "concurrency")) this.#set(name, takenUp(shareOf(this.#shares, name), nowMs));
  }

  get #shares(): Shares {
    return this.#ledger().state.shares ?? {};
  }

  /** Synchronous. Those that no lease covers. */
  uncovered(wanted: readonly Wanted[], nowMs: number): readonly Wanted[] {
    return wanted.filter(({ name, need }) => {
      const lease = this.#leaseAt(name, nowMs);
      return lease === null || !covers(lease.granted, usedAt(shareOf(this.#shares, name), nowMs), need);
    });
  }

  /** Synchronous, and in the commit of the call's record. All of it is covered. */
  take(wanted: readonly Wanted[], leadBytes: number, nowMs: number): readonly Ticket[] {
    const tickets = wanted.map(({ name, need }) => {
      const share = shareOf(this.#shares, name);
      this.#set(name, { ...share, used: plus(share.used, need) });
      const kept = Object.hasOwn(need, "bytes") ? { ...need, bytes: leadBytes } : need;
      return { name, period: share.period, need: kept };
    });
    for (const { name, need } of wanted) this.#renewAhead(name, need, nowMs);
    return tickets;
  }

  /** Bytes of a running call that passed. */
  count(tickets: readonly Ticket[], bytes: number): void {
    for (const { name } of countingBytes(tickets)) {
      const share = shareOf(this.#shares, name);
      this.#set(name, { ...share, used: plus(share.used, { bytes }) });
    }
  }

  /** Leases more, where the bytes that passed need it. False: there are none. */
  async extendBytes(tickets: readonly Ticket[]): Promise<boolean> {
    const counted = countingBytes(tickets);
    const wanted = counted.map(({ name, need }) => ({ name, need: { bytes: of(need, "bytes") } }));
    // What was on its way for others may not be enough for this one; asked for itself it is, or there is none.
    for (let tries = 0; tries < EXTEND_TRIES && !this.#hasBytes(counted); tries++)
      if ((await this.extend(wanted)) !== null) break;
    return this.#hasBytes(counted);
  }

  /** A lease that is over covers what was taken of it: no other has got it. */
  #hasBytes(tickets: readonly Ticket[]): boolean {
    return tickets.every(({ name }) => {
      const granted = this.#held.get(name)?.lease?.granted;
      return granted !== undefined && of(shareOf(this.#shares, name).used, "bytes") <= of(granted, "bytes");
    });
  }

  /** Synchronous, and in the commit of the record of its end. `cost` null: see `settled`. */
  settle(tickets: readonly Ticket[], cost: Units | null): void {
    for (const ticket of tickets) this.#set(ticket.name, settled(shareOf(this.#shares, ticket.name), ticket, cost));
  }

  /** Asks for what is not covered. Null: look again; else why not. */
  async extend(wanted: readonly Wanted[]): Promise<Denial | null> {
    const denials = await Promise.all(wanted.map((one) => this.#extendOne(one)));
    return denials.find((denial) => denial !== null) ?? null;
  }

  async #extendOne({ name, need }: Wanted): Promise<Denial | null> {
    const held = this.#heldOf(name);
    const { short } = held;
    if (short !== null && Date.now() < short.untilMs && of(need, short.dimension) >= of(short.least, short.dimension))
      return short.denial;
    // Asked before this one waited: it looks again.
    if (held.asking !== null) return held.asking.then(() => null);
    held.waiting.add(need);
    try {
      await this.#ask(name);
    } finally {
      held.waiting.delete(need);
    }
    if (!held.isReachable) return unavailable(`the quota ${name} could not be asked`);
    return held.short?.denial ?? null;
  }

  /** The quota wants back what is not used. From here on nothing is covered by it any more. */
  recall(name: string, nowMs: number): ShareReport {
    const held = this.#held.get(name);
    if (held !== undefined) {
      held.lease = null;
      held.version = null;
      held.recalls++;
    }
    return this.#report(name, nowMs);
  }

  #report(name: string, nowMs: number): ShareReport {
    const share = shareOf(this.#shares, name);
    const used = usedAt(share, nowMs);
    const holding = [...this.#leases.values()].filter(({ taken }) =>
      taken.tickets.some((ticket) => ticket.name === name),
    );
    const lost = of(used, "concurrency") - of(share.used, "concurrency");
    return { period: share.period, used, running: holding.length + lost + (this.#hasUncounted() ? 1 : 0) };
  }

  // --- leases -----------------------------------------------------------------------------------------------------

  #leaseAt(name: string, nowMs: number): Held["lease"] {
    const lease = this.#held.get(name)?.lease ?? null;
    return lease === null || nowMs >= lease.untilMs ? null : lease;
  }

  /** Busy: the next call would not be covered, or not for long. Beside the call. */
  #renewAhead(name: string, need: Some, nowMs: number): void {
    const held = this.#heldOf(name);
    held.callsSinceAsk++;
    const lease = this.#leaseAt(name, nowMs);
    if (lease === null || held.asking !== null) return;
    const used = usedAt(shareOf(this.#shares, name), nowMs);
    const isEnding = lease.untilMs - nowMs < lease.validMs / 2;
    if (held.callsSinceAsk < BUSY_CALLS || (held.short !== null && nowMs < held.short.untilMs)) return;
    if (isEnding || !covers(lease.granted, used, need)) this.#waitUntil(this.#ask(name));
  }

  /** One question at a time, for all that waits by the time it leaves. Never rejects. */
  #ask(name: string): Promise<void> {
    const held = this.#heldOf(name);
    held.asking ??= this.#askQuota(name, held).finally(() => {
      held.asking = null;
    });
    return held.asking;
  }

  async #askQuota(name: string, held: Held): Promise<void> {
    // Those that came together ask together.
    await new Promise((resolve) => setTimeout(resolve, 0));
    // Measured from before the question.
    const sentAtMs = Date.now();
    const request = this.#requestOf(name, held, sentAtMs);
    const { recalls } = held;
    held.usedAtAsk = request.used;
    held.callsSinceAsk = 0;
    held.short = null;
    try {
      const asked = quotaOf(this.#deployment(), name).lease(request);
      const answer = await within(QUOTA_ANSWER_MS, asked);
      held.isReachable = answer !== undefined && answer !== null;
      // It may have given something out, and what, the next question is told.
      if (answer === undefined || answer === null) held.version = null;
      else if (held.recalls === recalls) this.#adopt(name, held, answer, request, sentAtMs);
    } catch {
      held.isReachable = false;
      held.version = null;
    }
  }

  #requestOf(name: string, held: Held, nowMs: number): LeaseRequest {
    const waiting = [...held.waiting];
    const need = waiting.reduce<Some>((sum, one) => plus(sum, one), {});
    const least = map(need, (one) =>
      waiting.reduce(
        (min, some) => (Object.hasOwn(some, one) ? Math.min(min, of(some, one)) : min),
        Number.MAX_SAFE_INTEGER,
      ),
    );
    const report = this.#report(name, nowMs);
    const sinceAsk = held.usedAtAsk === null ? {} : minus(report.used, held.usedAtAsk);
    const ahead = map({ ...least, ...held.lease?.granted }, (one) => {
      if (one === "concurrency") return 1;
      return Math.max(2 * of(sinceAsk, one), held.lease === null ? AHEAD_CALLS * of(least, one) : 0);
    });
    const { instance, task } = this.#ledger().enrolment!;
    const { deadlineMs } = task;
    return { ...report, instance, deadlineMs, basis: held.version, least, need, ahead };
  }

  #adopt(name: string, held: Held, answer: LeaseAnswer, { least }: LeaseRequest, sentAtMs: number): void {
    const { version, period, granted, validMs, short } = answer;
    // With the next record; who dies before it has used nothing of this period.
    const share = shareOf(this.#shares, name);
    if (period > share.period) this.#set(name, enterPeriod(share, period));
    held.version = version;
    held.lease = { period, granted, validMs, untilMs: sentAtMs + validMs };
    if (short === null) return;
    const denial = denialOf(name, short);
    held.short = { denial, dimension: short.dimension, least, untilMs: Date.now() + SHORT_PAUSE_MS };
  }

  #set(name: string, share: Share): void {
    this.#ledger().change({ shares: { ...this.#shares, [name]: share } });
  }

  #heldOf(name: string): Held {
    let held = this.#held.get(name);
    if (held === undefined) {
      held = {
        lease: null,
        version: null,
        recalls: 0,
        asking: null,
        waiting: new Set(),
        usedAtAsk: null,
        callsSinceAsk: 0,
        short: null,
        isReachable: true,
      };
      this.#held.set(name, held);
    }
    return held;
  }
}

function denialOf(name: string, { dimension, retryAfterSeconds }: Short): Denial {
  if (dimension === "rate" || dimension === "concurrency")
    return { kind: "limited", limit: dimension, retryAfterSeconds: retryAfterSeconds ?? 1, quota: name };
  const retry = retryAfterSeconds === null ? {} : { retryAfterSeconds };
  return { kind: "exhausted", budget: dimension, quota: name, ...retry };
}
