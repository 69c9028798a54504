import { recordUnauthenticated } from "../authority/refused.ts";
import { groupsThatCount } from "../config/entitlements.ts";
import type { FlipAnswer, FlipRequest } from "../control/contract.ts";
import type { SwitchCause } from "../control/switch.ts";
import type { Deployment } from "../deployment.ts";
import { SET_MAX_CHARS, type SecurityEvent, verifySecurityEvent } from "../identity/security-event.ts";
import { journalOf, switchboardOf } from "../objects.ts";
import { readText } from "../read-text.ts";
import { err, ok, type Result } from "../result.ts";
import type { Fields } from "../transcript/envelope.ts";
import { within } from "../within.ts";
import { authenticateTransmitter, type Transmitter } from "./authenticate.ts";
import { type Decision, decideEvents } from "./decide.ts";
import { accepted, type SetError, setError, setErrorAnswer, tryAgain } from "./set-error.ts";
import { parseSubject, type Subject } from "./subject.ts";

const PATH = /^\/ssf\/events\/([^/]+)$/;
const PATH_MAX_CHARS = 256;
/** Above the switchboard's own wait for what a flip does. */
const FLIP_TIMEOUT_MS = 15_000;
const JOURNAL_TIMEOUT_MS = 5_000;

/** `unavailable`: it could not be decided or done, so the transmitter must push it again. */
type Refusal = SetError | { readonly code: "unavailable"; readonly description: string };
const unavailable = (description: string): Refusal => ({ code: "unavailable", description });

/**
 * The door of shared signals: security events (RFC 8417) that a transmitter pushes (RFC 8935). What it is told about
 * a human acts here as a switch. The order of checks is cheap, then authenticated, then signed, then claimed, then done.
 */
export async function signals(request: Request, deployment: Deployment): Promise<Response> {
  const { pathname } = new URL(request.url);
  const [, name] = PATH.exec(pathname) ?? [];
  if (name === undefined) return new Response(null, { status: 404, headers: { "Cache-Control": "no-store" } });
  if (request.method !== "POST")
    return new Response(null, { status: 405, headers: { Allow: "POST", "Cache-Control": "no-store" } });

  const framed = parseFrame(request);
  const transmitter = framed.ok
    ? authenticateTransmitter(name, request.headers.get("authorization"), deployment)
    : framed;
  if (!transmitter.ok) {
    const reason = transmitter.error;
    await recordUnauthenticated(deployment, "signals-refused", () => ({
      door: "signals",
      path: pathname.slice(0, PATH_MAX_CHARS),
      reason,
    }));
    // Which of the two failed is nobody's business: a name that is not known and a token that is not right are one.
    return setErrorAnswer(
      framed.ok ? setError("authentication_failed", "authentication failed") : setError("invalid_request", reason),
    );
  }

  const received = await receive(request, transmitter.value, deployment);
  if (received.ok) return accepted();
  const { code, description } = received.error;
  const isOnRecord = await record(deployment, "refused", {
    door: "signals",
    by: byOf(transmitter.value),
    error: code,
    reason: description,
  });
  return code === "unavailable" || !isOnRecord ? tryAgain() : setErrorAnswer({ code, description });
}

function parseFrame({ headers }: Request): Result<null, string> {
  const [mediaType = ""] = (headers.get("content-type") ?? "").split(";");
  if (mediaType.trim().toLowerCase() !== "application/secevent+jwt")
    return err("Content-Type is not application/secevent+jwt");
  if (Number(headers.get("content-length") ?? 0) > SET_MAX_CHARS) return err(`longer than ${SET_MAX_CHARS} bytes`);
  return ok(null);
}

/** Ok: all that it says is done or on record, durably. */
async function receive(
  request: Request,
  transmitter: Transmitter,
  deployment: Deployment,
): Promise<Result<null, Refusal>> {
  const text = await readText(request, SET_MAX_CHARS);
  if (text === undefined) return err(setError("invalid_request", `longer than ${SET_MAX_CHARS} bytes, or not UTF-8`));
  const verified = await verifySecurityEvent(text, transmitter.config, Date.now());
  if (!verified.ok) {
    const { code, reason } = verified.error;
    return err(code === "unavailable" ? unavailable(reason) : setError(code, reason));
  }
  const set = verified.value;
  // All of it is understood before anything of it is done.
  const { config } = deployment;
  const { groupsClaim } = config.identityProviders[transmitter.config.identityProvider]!;
  const decided = decideEvents(set, transmitter.config.acts, groupsClaim);
  if (!decided.ok) return decided;
  const about = decided.value.filter(({ kind }) => kind !== "stream");
  const subject = about.length === 0 ? ok(null) : subjectOf(set, transmitter, deployment);
  if (!subject.ok) return subject;
  for (const decision of decided.value) {
    const done = await carryOut(decision, subject.value, set, transmitter, deployment);
    if (!done.ok) return done;
  }
  return ok(null);
}

function subjectOf(set: SecurityEvent, { config }: Transmitter, deployment: Deployment): Result<Subject, SetError> {
  const { issuer } = deployment.config.identityProviders[config.identityProvider]!;
  return parseSubject(set.subject, { issuer, criticalMembers: config.criticalSubjectMembers });
}

/** Dying anywhere here: the transmitter has no answer and pushes again, and what was flipped is known by its key. */
async function carryOut(
  decision: Decision,
  subject: Subject | null,
  set: SecurityEvent,
  transmitter: Transmitter,
  deployment: Deployment,
): Promise<Result<null, Refusal>> {
  const { event } = decision;
  const cause: SwitchCause = {
    kind: "set",
    issuer: set.issuer,
    jti: set.jti,
    event,
    ...(set.txn === null ? {} : { txn: set.txn }),
  };
  if (decision.kind === "act" && subject?.kind === "human") {
    const flipped = await flip(deployment, {
      id: crypto.randomUUID(),
      reach: "human",
      target: { human: subject.human },
      act: decision.act,
      reason: decision.reason,
      by: byOf(transmitter),
      email: null,
      cause,
      untilMs: decision.untilMs,
      idempotencyKey: `${set.jti}/${event}`,
      ...(decision.act === "narrow"
        ? {
            groups: groupsThatCount(deployment.config.entitlements, decision.groups),
            eventAtMs: decision.eventAtMs,
          }
        : {}),
    });
    if (flipped === undefined) return err(unavailable("the switchboard could not be reached"));
    return flipped.flipped ? ok(null) : err(setError("invalid_request", "jti: used for another event"));
  }
  const isOnRecord = await record(deployment, "act", {
    deed: decision.kind === "stream" ? "stream event" : "signal ignored",
    by: byOf(transmitter),
    reason: whyNot(decision, subject),
    causedBy: { ...cause },
    ...(subject?.kind === "human" ? { switchTarget: { human: subject.human } } : {}),
  });
  return isOnRecord ? ok(null) : err(unavailable("the journal could not be written"));
}

/** Undefined: nobody knows whether it stands. Asked again with the same key, it stands once. */
async function flip(deployment: Deployment, request: FlipRequest): Promise<FlipAnswer | undefined> {
  try {
    return await within(FLIP_TIMEOUT_MS, switchboardOf(deployment).flip(request));
  } catch {
    return undefined;
  }
}

function whyNot(decision: Decision, subject: Subject | null): string {
  if (decision.kind === "stream") return "about the stream, and about nobody";
  if (subject?.kind === "discarded") return subject.why;
  return decision.kind === "ignore" ? decision.why : "it has no subject";
}

const byOf = ({ name }: Transmitter): string => `transmitter:${name}`;

/** False: it is not on record, and nothing that depends on it may be said. */
async function record(deployment: Deployment, type: "act" | "refused", fields: Fields): Promise<boolean> {
  try {
    const journal = journalOf(deployment, "admin", Date.now());
    return (
      (await within(JOURNAL_TIMEOUT_MS, journal.append({ type, fields, deployment: deployment.version }))) === true
    );
  } catch {
    return false;
  }
}
