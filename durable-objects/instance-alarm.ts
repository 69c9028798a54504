import type { Enrolment } from "../src/instance/contract.ts";
import type { Approvals } from "./approvals.ts";
import type { Family } from "./family.ts";
import type { InstanceControl } from "./instance-control.ts";
import type { Ledger } from "./ledger.ts";
import type { Orphans } from "./orphans.ts";
import type { RefusedCalls } from "./refused-calls.ts";
import type { RuleWatch } from "./rule-watch.ts";
import { type RunningCalls, SILENT_MS } from "./running-calls.ts";
import type { InstanceShares } from "./shares.ts";
import type { Wake } from "./wake.ts";

/** A failed flush is tried again after this. */
const RETRY_MS = 5_000;

export interface InstanceAlarmOptions {
  readonly ledger: Ledger;
  readonly control: InstanceControl;
  readonly watch: RuleWatch;
  readonly family: Family;
  readonly approvals: Approvals;
  readonly shares: InstanceShares;
  readonly orphans: Orphans;
  readonly calls: RunningCalls;
  readonly refused: RefusedCalls;
  readonly wake: () => Wake;
}

/** What time does to an instance. */
export class InstanceAlarm {
  readonly #options: InstanceAlarmOptions;
  /** Ended, and on the roster until every Worker that has confirmed nothing has surely cut by itself. */
  #leaveAtMs: number | null;

  constructor(options: InstanceAlarmOptions) {
    this.#options = options;
    const { log, state } = options.ledger;
    // Whether it has left is not kept: to leave twice is nothing.
    this.#leaveAtMs = log.isClosed ? (state.orphaned?.untilMs ?? null) : null;
  }

  /** Everything that time does: the sealed end, lost calls, segments to R2, tables dropped. Runs again from the start after any failure. */
  async ring(): Promise<void> {
    const { ledger, control, watch, family, approvals, orphans, calls, refused } = this.#options;
    const wake = this.#options.wake();
    wake.rang();
    const { enrolment } = ledger;
    if (enrolment === null) return;
    try {
      orphans.record(Date.now());
      watch.handOver();
      family.tend();
      approvals.settle(Date.now());
      approvals.handOver();
      const isOver = !ledger.log.isClosed && Date.now() >= ledger.endsAtMs;
      const cut = isOver ? await control.cutAll("expired") : null;
      if (!isOver) calls.giveUpSilent(Date.now());
      // What R2 must be read for comes behind what may not wait for it, and where it can't be read, only the end waits.
      const unread = await orphans.recordLarge().catch((error: unknown) => ({ error }));
      if (cut !== null && !orphans.hasLarge) await this.#end(enrolment, cut.unconfirmed);
      await this.#leaveIfDue(enrolment, Date.now());
      family.tend();
      if (!ledger.log.isClosed) refused.recordCounted(Date.now(), false);
      ledger.sealIfDue(Date.now());
      await ledger.store();
      if (unread !== undefined) throw unread.error;
      const next = this.dueAtMs();
      if (next !== null) wake.by(next);
    } catch (error) {
      // Nothing is lost: rows stay until a put is confirmed. Retries of the platform are finite, so this arms its own.
      console.error("flush failed", error instanceof Error ? error.message : "unknown");
      wake.by(Date.now() + RETRY_MS);
    }
  }

  /** The last calls are cut and answered before the end is written, and what was closed while nobody called is on record. */
  async #end(enrolment: Enrolment, unconfirmed: number): Promise<void> {
    const { ledger, control, shares, approvals, orphans, calls, refused } = this.#options;
    // Who has not confirmed may still pass bytes: it stays within reach of a switch, whose receipt counts it.
    if (unconfirmed === 0) await control.leave(enrolment);
    else await control.learn(enrolment);
    if (ledger.log.isClosed) return;
    const nowMs = Date.now();
    orphans.giveUp(nowMs);
    orphans.count(calls.leases.size, nowMs);
    shares.loseRunning(nowMs);
    for (const lease of calls.leases.values()) lease.abandon();
    refused.recordCounted(nowMs, true);
    approvals.cancel(nowMs, "the transcript ended");
    ledger.end(nowMs);
    if (unconfirmed > 0) this.#leaveAtMs = ledger.state.orphaned?.untilMs ?? nowMs;
  }

  async #leaveIfDue(enrolment: Enrolment, nowMs: number): Promise<void> {
    if (this.#leaveAtMs === null || nowMs < this.#leaveAtMs) return;
    this.#leaveAtMs = null;
    await this.#options.control.leave(enrolment);
  }

  /** When there is something to do next; null for who never enrolled, or has nothing left. */
  dueAtMs(): number | null {
    const { ledger, watch, family, approvals, orphans, calls, refused } = this.#options;
    if (ledger.enrolment === null) return null;
    const nowMs = Date.now();
    try {
      const others = [
        ledger.log.isClosed ? null : refused.dueAtMs,
        calls.leases.size === 0 ? null : nowMs + SILENT_MS,
        watch.dueAtMs(nowMs),
        approvals.dueAtMs(nowMs),
        this.#leaveAtMs,
        orphans.dueAtMs(nowMs),
        family.dueAtMs(nowMs),
      ].filter((time) => time !== null);
      const times = [...ledger.wakeTimes(nowMs), ...others];
      return times.length === 0 ? null : Math.min(...times);
    } catch {
      return nowMs + RETRY_MS;
    }
  }
}
