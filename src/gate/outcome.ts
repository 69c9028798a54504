import { absent, type Denial, unauthenticated, unavailable } from "../denial.ts";
import type { Cause, Outcome } from "../instance/contract.ts";
import type { StopReason } from "./stop.ts";

/** The faces of why a call ended without its answer: on record, in words, and to the agent. `null`: the upstream could not be reached. */
type Reason = StopReason | null;

export function outcomeOf(reason: Reason): Outcome {
  switch (reason?.kind) {
    case "cut":
    case "lease-lost":
    case "misfit":
      return "cut";
    case "client-gone":
      return "client-gone";
    case "timeout":
      return "timeout";
    case "too-large":
      return "too-large";
    case "no-credential":
      return "not-sent";
    case "upstream-broke-off":
    case "echoed":
    case undefined:
      return "upstream-failed";
  }
}

export function reasonText(reason: Reason): string | null {
  switch (reason?.kind) {
    case "cut":
      return `the lease broke: ${reason.cause}`;
    case "lease-lost":
      return "the lease was lost";
    case "misfit":
      return "after a reset of the object, what was durable of the answer did not fit what had been sent";
    case "timeout":
      return `${reason.what} timeout`;
    case "too-large":
      return `${reason.reason} is too large`;
    case "upstream-broke-off":
      return "the upstream broke off";
    case "no-credential":
      return `no credential: ${reason.reason}`;
    case "echoed":
      return `the answer held the ${reason.what}`;
    case "client-gone":
      return null;
    case undefined:
      return "the upstream could not be reached";
  }
}

function denialOfCut(cause: Cause): Denial {
  switch (cause) {
    case "budget":
      return { kind: "exhausted", budget: "bytes" };
    case "log-full":
      return unavailable("the log is full");
    case "upstream-switched":
      return absent("switch", "cut");
    case "narrowed":
      return absent("entitlement", "cut");
    case "switched":
    case "ended":
    case "expired":
    case "unconfirmed":
      return unauthenticated("invalid_token", `cut: ${cause}`);
  }
}

/** What the agent is told, where its answer has not begun: of a cut, what any revoked token hears. */
export function denialOf(reason: Reason): Denial {
  switch (reason?.kind) {
    case "cut":
      return denialOfCut(reason.cause);
    case "lease-lost":
    case "misfit":
      return unavailable("the lease was lost");
    case "timeout":
      return { kind: "upstream-failed", status: 504, reason: `${reason.what} timeout` };
    case "too-large":
      return reason.reason === "the request's body"
        ? { kind: "too-large", reason: reason.reason }
        : { kind: "upstream-failed", status: 502, reason: reason.reason };
    case "client-gone":
    case "upstream-broke-off":
    case "no-credential":
    case "echoed":
    case undefined:
      return { kind: "upstream-failed", status: 502, reason: reasonText(reason) ?? "the agent went away" };
  }
}
