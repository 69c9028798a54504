import { APPROVAL_WAIT_MAX_SECONDS } from "../config/approval.ts";
import { unavailable } from "../denial.ts";
import type { Deployment } from "../deployment.ts";
import type { Grant } from "../grant/claims.ts";
import type {
  Admission,
  AdmitRefusal,
  AdmitRequest,
  DelegationFacts,
  LeaseCalls,
  Settlement,
  Ticket,
} from "../instance/contract.ts";
import type { LimitState } from "../instance/limits.ts";
import { instanceOf } from "../objects.ts";
import { err, ok, type Result } from "../result.ts";
import { within } from "../within.ts";
import { Stop } from "./stop.ts";

declare const admitted: unique symbol;

/** An admitted call: its lease, and the switch that stops it. `forward` takes nothing else, and only `admit` makes one. */
export interface Admitted {
  readonly [admitted]: true;
  readonly seq: number;
  readonly lease: LeaseCalls & Partial<Disposable>;
  readonly stop: Stop;
  /** So many bytes of its answer may pass before they are appended. */
  readonly aheadBytes: number;
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
/** From then on the lease is asked in turns whether it still holds, and has this long for a word: who hears nothing cuts by itself. */
const BEAT_MS = 5_000;
export const LEASE_ANSWER_MS = 5_000;

/** One RPC: the instance refuses and records, or records and gives a lease. */
export async function admit(
  deployment: Deployment,
  grant: Grant,
  request: Omit<AdmitRequest, "grant" | "deployment">,
  gone: AbortSignal,
): Promise<Result<Admitted, Refusal>> {
  const stop = new Stop();
  const listener = new Listener(stop);
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
    const { lease, seq, aheadBytes, limits, delegation = null } = admission;
    listener.hold(lease);
    return ok({
      seq,
      lease,
      stop,
      aheadBytes,
      limits,
      delegation,
      // Nobody hears it: its time frees the place as well.
      confirmStopped: () =>
        instanceOf(deployment, grant.instance)
          .callStopped(seq)
          .catch(() => {}),
      listen: () => listener.listen(),
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

/** Waits for the lease to break, and asks in turns whether it can still be heard. */
class Listener {
  readonly #stop: Stop;
  #lease: LeaseCalls | null = null;
  #isWanted = false;
  #isListening = false;

  constructor(stop: Stop) {
    this.#stop = stop;
  }

  hold(lease: LeaseCalls): void {
    this.#lease = lease;
    if (this.#isWanted) this.listen();
  }

  /** A switch resolves `broken()`, a reset of the object rejects it: the pump stops either way. */
  listen(): void {
    this.#isWanted = true;
    if (this.#lease === null || this.#isListening) return;
    this.#isListening = true;
    this.#lease.broken().then(
      (cause) => this.#stop.stop({ kind: "cut", cause }),
      () => this.#stop.stop({ kind: "lease-lost" }),
    );
    this.#beat(this.#lease);
  }

  /** As long as the call runs, also while it waits for an upstream that says nothing. */
  #beat(lease: LeaseCalls): void {
    this.#stop.wakeAfter(BEAT_MS, async () => {
      const asked = lease.beat().catch(() => undefined);
      // `false`: it broke, and its cause is on its way by `broken()`.
      if ((await within(LEASE_ANSWER_MS, asked)) === undefined) this.#stop.stop({ kind: "lease-lost" });
      else this.#beat(lease);
    });
  }
}

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
