import type { Cause, Outcome, ResumeRequest, Resumption } from "../src/instance/contract.ts";
import type { Units } from "../src/metering/amounts.ts";
import type { BodyReference } from "../src/transcript/envelope.ts";
import { BodyWriter } from "./bodies.ts";
import type { InstanceControl } from "./instance-control.ts";
import { Lease } from "./lease.ts";
import type { Ledger } from "./ledger.ts";
import type { Orphans } from "./orphans.ts";
import type { RunningCalls } from "./running-calls.ts";
import type { InstanceShares } from "./shares.ts";

export interface ResumerOptions {
  readonly ledger: Ledger;
  readonly control: InstanceControl;
  readonly shares: InstanceShares;
  readonly calls: RunningCalls;
  readonly orphans: Orphans;
}

/**
 * Gives the Worker of a call that ran when the object was reset another lease: where nothing says that the call may not go on. Where
 * something does, the lease is broken from the beginning, and what the Worker settles it with is the record of the cut.
 */
export class Resumer {
  readonly #options: ResumerOptions;

  constructor(options: ResumerOptions) {
    this.#options = options;
  }

  async resume(request: ResumeRequest): Promise<Resumption> {
    const { control, orphans } = this.#options;
    if (!orphans.isResumable(request.seq)) return this.#overOrRefused(request.seq);
    // An object that starts anew holds no confirmation: this asks the roster, and takes what is closed there.
    const isConfirmed = await orphans.whileAsked(request.seq, control.isConfirmed());
    return this.#resumeNow(request, isConfirmed, Date.now());
  }

  /**
   * INVARIANT: synchronous. Between what is looked at and the lease nothing can interleave. Of what it changes
   * nothing waits for a record: another life of the object comes to the same from what is stored.
   */
  #resumeNow({ seq, call, tickets }: ResumeRequest, isConfirmed: boolean, nowMs: number): Resumption {
    const { ledger, control, shares, calls, orphans } = this.#options;
    if (!orphans.isResumable(seq)) return this.#overOrRefused(seq);
    const record = ledger.log.recordOf(seq);
    if (record?.["type"] !== "call" || record["upstream"] !== call.upstream) return { kind: "refused" };
    // Of a long request the object knows no digest any more.
    if ((record["body"] as BodyReference | null)?.digest === null) return { kind: "refused" };
    const answer = BodyWriter.after(seq, "answer", ledger.log.bodyRuns(seq, "answer"));
    const answerBytes = answer?.bytes ?? 0;
    orphans.takeUp(seq);
    shares.takeUp(tickets, nowMs);
    const aheadBytes = ledger.state.ahead?.[seq] ?? 0;
    const units = (record["reserved"] ?? {}) as Units;
    const lease = new Lease(
      calls,
      seq,
      call,
      null,
      record["grant"] as string,
      { units, tickets, aheadBytes },
      {
        isResumed: true,
        answer,
      },
    );
    calls.leases.set(seq, lease);
    control.breakIfStopped(lease, nowMs);
    if (!isConfirmed) lease.break("unconfirmed");
    if (!orphans.isCovered(seq)) lease.break("budget");
    if (ledger.isFull) lease.break("log-full");
    return { kind: "resumed", lease, aheadBytes, answerBytes, cause: lease.cause };
  }

  /** What was settled, and its Worker did not hear of it, is as durable as what it finds here. */
  #overOrRefused(seq: number): Resumption {
    const { log, state } = this.#options.ledger;
    if (state.open.includes(seq)) return { kind: "refused" };
    const answer = log.answerTo(seq);
    if (answer === undefined) return { kind: "refused" };
    const { outcome, cause = null } = answer as { outcome: Outcome | "lost"; cause?: Cause | null };
    return { kind: "over", outcome, cause };
  }
}
