import type { Deployment } from "../deployment.ts";
import type { Grant } from "../grant/claims.ts";
import type { AdmitRequest, LeaseCalls } from "../instance/contract.ts";
import { instanceOf } from "../objects.ts";
import { err, ok, type Result } from "../result.ts";
import { type Denial, unavailable } from "./denial.ts";
import { Stop, within } from "./stop.ts";

declare const admitted: unique symbol;

/** An admitted call: its lease, and the switch that stops it. `forward` takes nothing else, and only `admit` makes one. */
export interface Admitted {
  readonly [admitted]: true;
  readonly seq: number;
  readonly lease: LeaseCalls & Partial<Disposable>;
  readonly stop: Stop;
}

/** An instance that has not answered by then counts as unreachable. */
const ADMIT_TIMEOUT_MS = 10_000;

/**
 * One RPC: the instance refuses and records, or records and gives a lease. `broken()` is asked for in the same
 * message, so that from the moment of admission a switch has somebody to tell.
 */
export async function admit(
  deployment: Deployment,
  grant: Grant,
  request: Omit<AdmitRequest, "grant" | "deployment">,
): Promise<Result<Admitted, Denial>> {
  const stop = new Stop();
  const call = instanceOf(deployment, grant.instance).admit({
    ...request,
    grant: { id: grant.jti, expiresAtMs: grant.expiresAtMs },
    deployment: deployment.version,
  });
  try {
    const admission = await within(ADMIT_TIMEOUT_MS, call);
    if (admission === undefined) return err(unavailable("the instance did not answer"));
    if (!admission.admitted) return err(admission.denial);
    const { lease, seq } = admission;
    lease.broken().then(
      (cause) => stop.stop({ kind: "cut", cause }),
      () => stop.stop({ kind: "lease-lost" }),
    );
    return ok({ seq, lease, stop } as unknown as Admitted);
  } catch {
    return err(unavailable("the instance could not be reached"));
  }
}
