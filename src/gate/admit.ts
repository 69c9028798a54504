import { APPROVAL_WAIT_MAX_SECONDS } from "../config/approval.ts";
import { unavailable } from "../denial.ts";
import type { Deployment } from "../deployment.ts";
import type { Grant } from "../grant/claims.ts";
import type {
  Admission,
  AdmitRefusal,
  AdmitRequest,
  DelegationFacts,
  ResumeRequest,
  Resumption,
  Settlement,
  Ticket,
} from "../instance/contract.ts";
import type { LimitState } from "../instance/limits.ts";
import { instanceOf } from "../objects.ts";
import { err, ok, type Result } from "../result.ts";
import { HeldLease } from "./held-lease.ts";
import { Stop } from "./stop.ts";

declare const admitted: unique symbol;

/** An admitted call: its lease, and the switch that stops it. `forward` takes nothing else, and only `admit` makes one. */
export interface Admitted {
  readonly [admitted]: true;
  readonly seq: number;
  readonly lease: HeldLease;
  readonly stop: Stop;
  readonly limits: LimitState;
  /** Null where it was not asked for. */
  readonly delegation: DelegationFacts | null;
  /** Says that the call is over, where its lease is lost: another life of the instance's object may count it as one that runs. */
  confirmStopped(): Promise<void>;
  /** From here on a switch cuts the call at once. Streams begin with it; anything else comes to it by time. */
  listen(): void;
}

export type Refusal = Pick<AdmitRefusal, "denial" | "limits">;

/** An instance that has not answered by then counts as unreachable. */
const ADMIT_TIMEOUT_MS = 10_000;

/**
 * A call without a stream that is over by then never asks whether its lease broke: the settlement tells it, and its
 * answer waits for that. A longer one listens from here on, and a switch that was closed meanwhile answers at once.
 */
const LISTEN_AFTER_MS = 50;

/** One RPC: the instance refuses and records, or records and gives a lease. */
export async function admit(
  deployment: Deployment,
  grant: Grant,
  request: Omit<AdmitRequest, "grant" | "deployment">,
  gone: AbortSignal,
): Promise<Result<Admitted, Refusal>> {
  const stop = new Stop();
  const listener = new Listener();
  // The earliest time first: the call's one timer is set once.
  stop.wakeAfter(LISTEN_AFTER_MS, () => listener.listen());
  stop.allow(ADMIT_TIMEOUT_MS, { kind: "lease-lost" });
  try {
    const asked = instanceOf(deployment, grant.instance).admit({
      ...request,
      grant: { id: grant.jti, expiresAtMs: grant.expiresAtMs },
      deployment: deployment.version,
    });
    const first = await stop.orStopped(asked);
    const admission =
      first?.admitted === false && first.ticket ? await waitFor(first, first.ticket, stop, gone) : first;
    if (admission === undefined) {
      giveBack(asked);
      return err({ denial: unavailable("the instance did not answer") });
    }
    if (!admission.admitted) {
      stop.end();
      return err(admission);
    }
    const { seq, aheadBytes, limits, delegation = null, tickets = [] } = admission;
    const resume = resumption(deployment, grant.instance, seq, request, tickets);
    const lease = new HeldLease(admission.lease, aheadBytes, stop, resume);
    listener.hold(lease);
    return ok({
      seq,
      lease,
      stop,
      limits,
      delegation,
      // Nobody hears it: its time frees the place as well.
      confirmStopped: () =>
        instanceOf(deployment, grant.instance)
          .callStopped(seq)
          .catch(() => {}),
      listen: () => lease.listen(),
    } as unknown as Admitted);
  } catch {
    stop.end();
    return err({ denial: unavailable("the instance could not be reached") });
  }
}

/**
 * A call that a person must approve may wait here. Undefined: the instance did not answer. An agent that has gone away
 * claims nothing: its approval is there for when it comes again.
 */
async function waitFor(
  pending: AdmitRefusal,
  ticket: Ticket,
  stop: Stop,
  gone: AbortSignal,
): Promise<Admission | undefined> {
  stop.allow(APPROVAL_WAIT_MAX_SECONDS * 1_000 + ADMIT_TIMEOUT_MS, { kind: "lease-lost" });
  const isDecided = await stop.orStopped(ticket.decided());
  if (isDecided === undefined) return undefined;
  if (!isDecided || gone.aborted) return pending;
  stop.allow(ADMIT_TIMEOUT_MS, { kind: "lease-lost" });
  const asked = ticket.claim();
  const admission = await stop.orStopped(asked);
  if (admission === undefined) giveBack(asked);
  return admission;
}

/** Listens from its time on, or from when there is a lease. */
class Listener {
  #lease: HeldLease | null = null;
  #isWanted = false;

  hold(lease: HeldLease): void {
    this.#lease = lease;
    if (this.#isWanted) lease.listen();
  }

  listen(): void {
    this.#isWanted = true;
    this.#lease?.listen();
  }
}

/**
 * How the call is taken up again, where its lease dies with the object. Null: not at all. Of a long request the object would have to
 * read all runs again, and that takes longer than anybody waits. By itself, so that nothing else of the call is kept for it.
 */
function resumption(
  deployment: Deployment,
  instance: string,
  seq: number,
  { call, request: { bodyFollows } }: Pick<AdmitRequest, "call" | "request">,
  tickets: ResumeRequest["tickets"],
): (() => Promise<Resumption>) | null {
  return call === null || bodyFollows ? null : resumingOf(deployment, instance, { seq, call, tickets });
}
const resumingOf = (deployment: Deployment, instance: string, request: ResumeRequest) => () =>
  instanceOf(deployment, instance).resume(request);

/** A lease that comes too late is settled at once: nothing was sent. */
function giveBack(asked: Promise<Admission>): void {
  const nothing: Settlement = {
    outcome: "not-sent",
    head: null,
    tail: new Uint8Array(0),
    passedBytes: 0,
    heldBytes: 0,
    forwardedBytes: 0,
    timing: { startedAtMs: Date.now(), firstByteAtMs: null, lastByteAtMs: null, endedAtMs: Date.now() },
    reason: "the admission came too late",
  };
  asked
    .then((admission) => (admission.admitted ? admission.lease.settle(nothing) : false))
    .catch(() => {
      // The instance will give the call up for its silence.
    });
}
