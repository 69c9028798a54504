import { type SignalOverride, STREAM_EVENTS, signalRule } from "../config/signal-acts.ts";
import { endOfSecondMs } from "../control/narrowing.ts";
import type { Switch } from "../control/switch.ts";
import type { JsonObject } from "../grant/compact.ts";
import type { SecurityEvent } from "../identity/security-event.ts";
import { err, ok, type Result } from "../result.ts";
import { type SetError, setError } from "./set-error.ts";

/** What one event of a SET is to do. */
export type Decision =
  | {
      readonly kind: "act";
      readonly event: string;
      readonly act: Exclude<Switch["act"], "narrow">;
      readonly untilMs: number | null;
      readonly reason: string;
    }
  /** `groups`: all that the provider says the human still has. */
  | {
      readonly kind: "act";
      readonly event: string;
      readonly act: "narrow";
      readonly untilMs: null;
      readonly groups: readonly string[];
      readonly eventAtMs: number;
      readonly reason: string;
    }
  | { readonly kind: "ignore"; readonly event: string; readonly why: string }
  /** About the stream: there is nobody to act on. */
  | { readonly kind: "stream"; readonly event: string };

const EVENT_SKEW_MS = 60_000;
const INITIATORS = ["admin", "user", "policy", "system"];

/**
 * Pure, and of the SET alone: no clock. A SET that comes again is then the same request, and one that comes late still
 * acts: in which order events come says nothing of the order in which they happened.
 */
export function decideEvents(
  { events, issuedAtMs }: Pick<SecurityEvent, "events" | "issuedAtMs">,
  overrides: Readonly<Record<string, SignalOverride>>,
  groupsClaim: string,
): Result<readonly Decision[], SetError> {
  const decisions: Decision[] = [];
  for (const { uri, payload } of events) {
    if (STREAM_EVENTS.includes(uri)) {
      decisions.push({ kind: "stream", event: uri });
      continue;
    }
    const { act, blockSeconds, when } = signalRule(uri, overrides);
    const value = when === undefined ? undefined : payload[when.member];
    if (when !== undefined && ![...when.acts, ...when.spares].some((known) => known === value))
      return err(setError("invalid_request", `${nameOf(uri)}: ${when.member} is missing, or not known`));
    if (act === "ignore") decisions.push({ kind: "ignore", event: uri, why: "such events are not acted upon" });
    else if (when?.spares.some((one) => one === value))
      decisions.push({ kind: "ignore", event: uri, why: `not acted upon with ${when.member} ${String(value)}` });
    else if (act === "narrow") {
      const lost = decideClaims(uri, payload, issuedAtMs, groupsClaim);
      if (!lost.ok) return lost;
      decisions.push(lost.value);
    } else
      decisions.push({
        kind: "act",
        event: uri,
        act,
        untilMs: blockSeconds === null ? null : issuedAtMs + blockSeconds * 1000,
        reason: reasonOf(uri, payload),
      });
  }
  return ok(decisions);
}

/** As in an ID token. */
const GROUPS_MAX = 500;

/** CAEP 1.0 §3.2: the claims that have changed, with their new values. One that is null is gone. */
function decideClaims(
  uri: string,
  payload: JsonObject,
  issuedAtMs: number,
  groupsClaim: string,
): Result<Decision, SetError> {
  const bad = (what: string) => err(setError("invalid_request", `${nameOf(uri)}: ${what}`));
  const { claims, event_timestamp: at } = payload;
  if (typeof claims !== "object" || claims === null || Array.isArray(claims))
    return bad("claims is missing, or not an object");
  // CAEP 1.0 §2: in seconds. What is to happen later has not happened.
  const atSeconds = at === undefined ? issuedAtMs / 1_000 : at;
  if (typeof atSeconds !== "number" || !Number.isFinite(atSeconds) || atSeconds < 0)
    return bad("event_timestamp is not a time in seconds");
  if (atSeconds * 1_000 > issuedAtMs + EVENT_SKEW_MS) return bad("event_timestamp is later than iat");
  const named = claims as JsonObject;
  if (!Object.hasOwn(named, groupsClaim))
    return ok({ kind: "ignore", event: uri, why: `its claims do not name ${groupsClaim}` });
  const groups = named[groupsClaim] ?? [];
  if (!Array.isArray(groups) || groups.length > GROUPS_MAX || !groups.every((one) => typeof one === "string"))
    return bad(`claims.${groupsClaim} is not a list of at most ${GROUPS_MAX} strings`);
  const reason = reasonOf(uri, payload);
  return ok({
    kind: "act",
    event: uri,
    act: "narrow",
    untilMs: null,
    groups,
    eventAtMs: endOfSecondMs(atSeconds),
    reason,
  });
}

const nameOf = (uri: string): string => uri.split("/").at(-1) || uri;

/** A word of the event's, and never its free text: that may hold what has no place in an envelope. */
function reasonOf(uri: string, payload: JsonObject): string {
  const initiator = INITIATORS.find((one) => one === payload["initiating_entity"]);
  return `security event ${nameOf(uri)}${initiator === undefined ? "" : `, initiated by ${initiator}`}`;
}
