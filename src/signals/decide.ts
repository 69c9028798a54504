import { type SignalOverride, STREAM_EVENTS, signalRule } from "../config/signal-acts.ts";
import type { Act } from "../control/switch.ts";
import type { JsonObject } from "../grant/compact.ts";
import type { SecurityEvent } from "../identity/security-event.ts";
import { err, ok, type Result } from "../result.ts";
import { type SetError, setError } from "./set-error.ts";

/** What one event of a SET is to do. */
export type Decision =
  | {
      readonly kind: "act";
      readonly event: string;
      readonly act: Act;
      readonly untilMs: number | null;
      readonly reason: string;
    }
  | { readonly kind: "ignore"; readonly event: string; readonly why: string }
  /** About the stream: there is nobody to act on. */
  | { readonly kind: "stream"; readonly event: string };

const INITIATORS = ["admin", "user", "policy", "system"];

/**
 * Pure, and of the SET alone: no clock. A SET that comes again is then the same request, and one that comes late still
 * acts: in which order events come says nothing of the order in which they happened.
 */
export function decideEvents(
  { events, issuedAtMs }: Pick<SecurityEvent, "events" | "issuedAtMs">,
  overrides: Readonly<Record<string, SignalOverride>>,
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
    else
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

const nameOf = (uri: string): string => uri.split("/").at(-1) || uri;

/** A word of the event's, and never its free text: that may hold what has no place in an envelope. */
function reasonOf(uri: string, payload: JsonObject): string {
  const initiator = INITIATORS.find((one) => one === payload["initiating_entity"]);
  return `security event ${nameOf(uri)}${initiator === undefined ? "" : `, initiated by ${initiator}`}`;
}
