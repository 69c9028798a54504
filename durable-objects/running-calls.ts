import type { Limits } from "../src/config/define.ts";
import type { Deployment } from "../src/deployment.ts";
import { amountsOf, settledCharges } from "../src/instance/call-cost.ts";
import type { Cause, Settlement } from "../src/instance/contract.ts";
import { chargeAhead, countBytes } from "../src/instance/limits.ts";
import { chargesOf } from "../src/metering/charge.ts";
import type { BodyPart } from "../src/transcript/body-line.ts";
import type { Piece } from "./bodies.ts";
import type { InstanceControl } from "./instance-control.ts";
import { answerFields, lostFields } from "./instance-fields.ts";
import type { AnswerBody, Lease, LeaseHost } from "./lease.ts";
import type { Ledger } from "./ledger.ts";
import type { Orphans } from "./orphans.ts";
import type { InstanceShares } from "./shares.ts";

/** A Worker says something every five seconds while its call runs; one that was silent for this long is gone. */
export const SILENT_MS = 20_000;

export interface RunningCallsOptions {
  readonly ledger: () => Ledger;
  readonly control: () => InstanceControl;
  readonly shares: () => InstanceShares;
  readonly orphans: () => Orphans;
  /** What the instance may still use by itself. */
  readonly limits: () => Limits;
  readonly deployment: () => Deployment;
}

/** The calls that were admitted and have not ended: what their Workers say of them is on record in the same turn. */
export class RunningCalls implements LeaseHost {
  readonly leases = new Map<number, Lease>();
  readonly #options: RunningCallsOptions;

  constructor(options: RunningCallsOptions) {
    this.#options = options;
  }

  get #ledger(): Ledger {
    return this.#options.ledger();
  }

  /** Those that hold a place: with those of an earlier life of the object, whose Workers have not said that they stopped. */
  runningAt(nowMs: number): number {
    return this.leases.size + this.#options.orphans().runningAt(nowMs);
  }

  async confirm(lease: Lease): Promise<void> {
    if (!(await this.#options.control().isConfirmedRunning())) lease.break("unconfirmed");
    // The alarm says so to all at once; it may be late, where it waits for R2.
    else if (Date.now() >= this.#ledger.enrolment!.task.deadlineMs) lease.break("expired");
  }

  appendPiece(lease: Lease, piece: Piece, part: BodyPart, bytes: number): Cause | null {
    this.#ledger.appendBody(piece);
    const isCovered = this.#count(lease, part, bytes);
    this.#options.shares().count(lease.taken.tickets, bytes);
    this.#ledger.countPassing(lease.seq, bytes, lease.taken.tickets);
    this.#options.control().saw({ kind: "passed", bytes }, Date.now());
    if (!isCovered) return "budget";
    return this.#ledger.isFull ? "log-full" : null;
  }

  async pace(lease: Lease): Promise<void> {
    await this.#ledger.pace();
    if (!(await this.#options.shares().extendBytes(lease.taken.tickets))) lease.break("budget");
  }

  /** Exact: of an answer what its Worker may have passed is reserved, and of a request nothing passes before it is counted. */
  #count(lease: Lease, part: BodyPart, bytes: number): boolean {
    const ahead = part === "answer" ? lease.aheadBytes : 0;
    const counted = countBytes(this.#ledger.state.usage, this.#options.limits(), ahead, bytes);
    if (part === "request") this.#ledger.change({ usage: counted.usage });
    else {
      lease.aheadBytes = counted.aheadBytes ?? 0;
      this.#ledger.holdAhead(lease.seq, counted.usage, lease.aheadBytes);
    }
    return counted.aheadBytes !== null;
  }

  countRest(lease: Lease, bytes: number): Cause | null {
    const isCovered = this.#count(lease, "answer", bytes);
    this.#giveBackAhead(lease);
    return isCovered ? null : "budget";
  }

  #giveBackAhead(lease: Lease): void {
    const { usage } = this.#ledger.state;
    this.#ledger.holdAhead(lease.seq, { ...usage, bytesAhead: usage.bytesAhead - lease.aheadBytes }, 0);
    lease.aheadBytes = 0;
  }

  recordAnswer(lease: Lease, settlement: Settlement, bytes: number, answer: AnswerBody): void {
    const { units, tickets } = lease.taken;
    const charges = settledCharges(units, settlement);
    const cost = amountsOf(charges);
    this.#ledger.chargeUnits(units, cost);
    this.#options.shares().count(tickets, bytes);
    this.#options.shares().settle(tickets, cost);
    if (lease.switchId !== null) this.#ledger.countCut(lease.switchId);
    const beside = { grant: lease.grant, ...(answer.tail === null ? {} : { body: answer.tail }) };
    this.#ledger.recordAnswer(lease.seq, Date.now(), answerFields(lease, settlement, answer, charges), beside);
    // It is over, and on record as it was: what this trips cuts other calls.
    this.release(lease);
    const { outcome, head } = settlement;
    this.#options.control().saw({ kind: "answered", bytes, outcome, status: head?.status ?? null }, Date.now());
  }

  recordLost(lease: Lease): void {
    if (this.#ledger.log.isClosed) return;
    const { units, tickets } = lease.taken;
    const lead = this.#options.deployment().config.transcripts.streamLeadBytes;
    const fields = lostFields(lease, lead, chargesOf(units, null));
    // It may have passed them, and nobody will say so.
    this.#ledger.holdAhead(lease.seq, chargeAhead(this.#ledger.state.usage, lease.aheadBytes), 0);
    lease.aheadBytes = 0;
    this.#options.shares().settle(tickets, null);
    this.#ledger.recordAnswer(lease.seq, Date.now(), fields, { grant: lease.grant });
  }

  release(lease: Lease): void {
    this.leases.delete(lease.seq);
  }

  /** A Worker stops that has lost a lease: it may never have heard that it was given another one. */
  stopped(seq: number): void {
    const lease = this.leases.get(seq);
    if (lease?.isResumed === true && !lease.isHeld) lease.abandon();
  }

  /** A Worker that died without a word holds no place: its call is recorded as lost, and what it may still say is refused. */
  giveUpSilent(nowMs: number): void {
    for (const lease of [...this.leases.values()]) if (lease.heardAtMs < nowMs - SILENT_MS) lease.abandon();
  }
}
