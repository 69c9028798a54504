import { compactVerify, errors } from "jose";
import type { TransmitterConfig } from "../config/define.ts";
import { isEventUri } from "../config/signal-acts.ts";
import { hasType, isSeconds, type JsonObject, parseCompact } from "../grant/compact.ts";
import { err, ok, type Result } from "../result.ts";
import type { Json } from "../scope/call.ts";
import { keysAt } from "./jwks.ts";

export const SET_MAX_CHARS = 32_768;
const SKEW_SECONDS = 60;
/** A transmitter that could not push retries for a time. What is older than this tells of nothing that still runs. */
const AGE_MAX_SECONDS = 604_800;
const ID_MAX_CHARS = 255;
/** RFC 8417 §2: several aspects of one event, not a batch. */
const EVENTS_MAX = 16;

/** A Security Event Token (RFC 8417) whose signature and claims hold. What it asks for is not decided yet. */
export interface SecurityEvent {
  readonly issuer: string;
  readonly jti: string;
  readonly issuedAtMs: number;
  readonly txn: string | null;
  /** RFC 9493, not looked into. */
  readonly subject: JsonObject;
  /** At least one. */
  readonly events: readonly { readonly uri: string; readonly payload: JsonObject }[];
}

/** Codes of RFC 8935 §2.4. `unavailable`: the token was not looked at, because the keys to do so are not to be had. */
export interface SecurityEventRefusal {
  readonly code: "invalid_request" | "invalid_key" | "invalid_issuer" | "invalid_audience" | "unavailable";
  readonly reason: string;
}

/**
 * Verifies a SET of exactly one transmitter for this receiver: shape, kind, key, and only then claims. Other kinds of
 * token are refused by `typ`, and by the claims that a SET never has (RFC 8417 §4.5 and 4.6).
 */
export async function verifySecurityEvent(
  token: string,
  transmitter: TransmitterConfig,
  nowMs: number,
): Promise<Result<SecurityEvent, SecurityEventRefusal>> {
  const refused = (code: SecurityEventRefusal["code"], reason: string) => err({ code, reason });
  const jws = parseCompact(token, SET_MAX_CHARS);
  if (!jws.ok) return refused("invalid_request", jws.error);
  const { header, payload } = jws.value;
  if (!hasType(header, "secevent+jwt")) return refused("invalid_request", "typ is not secevent+jwt");
  const { alg } = header;
  if (typeof alg !== "string" || !(transmitter.algorithms as readonly string[]).includes(alg))
    return refused("invalid_key", "alg is not allowed");
  const keys = await keysAt(transmitter.jwksUri, header["kid"], nowMs);
  if (keys === undefined) return refused("unavailable", "the transmitter's keys could not be read");
  try {
    await compactVerify(token, keys, { algorithms: [alg] });
  } catch (error) {
    const what = error instanceof errors.JOSEError ? `the signature: ${error.code}` : "the signature does not verify";
    return refused("invalid_key", what);
  }
  if (payload["iss"] !== transmitter.issuer) return refused("invalid_issuer", "iss is not the configured transmitter");
  const { aud } = payload;
  const audiences = Array.isArray(aud) ? aud : [aud];
  if (!audiences.includes(transmitter.audience)) return refused("invalid_audience", "aud is not this receiver");
  const event = parseClaims(payload, transmitter.issuer, Math.floor(nowMs / 1000));
  return event.ok ? event : refused("invalid_request", event.error);
}

const isId = (value: Json | undefined): value is string =>
  typeof value === "string" && value !== "" && value.length <= ID_MAX_CHARS;

const isObject = (value: Json | undefined): value is JsonObject =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function parseClaims(claims: JsonObject, issuer: string, now: number): Result<SecurityEvent, string> {
  const { jti, iat, exp, sub, txn, sub_id, events } = claims;
  if (!isId(jti)) return err(`jti: 1 to ${ID_MAX_CHARS} characters`);
  if (!isSeconds(iat)) return err("iat is missing, or not a time in seconds");
  if (iat - SKEW_SECONDS > now) return err("iat is in the future");
  if (iat + AGE_MAX_SECONDS < now) return err("iat is more than 7 days ago");
  if (exp !== undefined) return err("exp: a security event does not expire");
  if (sub !== undefined) return err("sub: a security event names its subject in sub_id");
  if (txn !== undefined && !isId(txn)) return err(`txn: 1 to ${ID_MAX_CHARS} characters`);
  if (!isObject(sub_id)) return err("sub_id is missing, or not an object");
  if (!isObject(events)) return err("events is missing, or not an object");
  const named = Object.entries(events);
  if (named.length === 0) return err("events holds no event");
  if (named.length > EVENTS_MAX) return err(`events holds more than ${EVENTS_MAX}`);
  const parsed: SecurityEvent["events"][number][] = [];
  for (const [uri, payload] of named) {
    if (!isEventUri(uri)) return err("events: a name that is not the URI of an event");
    if (!isObject(payload)) return err("events: an event that is not an object");
    parsed.push({ uri, payload });
  }
  return ok({ issuer, jti, issuedAtMs: iat * 1000, txn: txn ?? null, subject: sub_id, events: parsed });
}
