import { importJWK, importPKCS8, type JWTPayload, SignJWT } from "jose";
import { parseWebhookSecret, webhookHeaders } from "../approval/webhook.ts";
import { Needles } from "./needles.ts";
import { SENT_MIN_CHARS } from "./read-secret.ts";
import type { Secret } from "./secret.ts";
import { spellingsOf } from "./spellings.ts";

/**
 * INVARIANT: the one file that opens secrets, and every place that one may be put into: the request that leaves, and
 * nothing else. Not a record, not a log line, not an error. A test holds that nobody else calls `open`.
 */

/** What is sent of a credential, in the place where the upstream wants it. */
export type Place =
  | { readonly in: "header"; readonly name: string; readonly value: string }
  | { readonly in: "query"; readonly parameter: string };

/** RFC 6750 §2.1. */
export const BEARER: Place = { in: "header", name: "Authorization", value: "Bearer {secret}" };

/** Puts it into the headers, or gives back the URL that holds it. */
export function placeCredential(place: Place, secret: Secret, url: string, headers: Headers): string {
  if (place.in === "query") {
    const pair = `${encodeURIComponent(place.parameter)}=${encodeURIComponent(secret.open())}`;
    return `${url}${url.includes("?") ? "&" : "?"}${pair}`;
  }
  headers.set(
    place.name,
    place.value.replaceAll("{secret}", () => secret.open()),
  );
  return url;
}

/** What is made of a secret takes a hundred times its memory, and an isolate may hold the tokens of thousands of instances. */
const MAX_NEEDLES = 100;
const needles = new Map<Secret, Needles>();

/** By what its echo is known. Kept for the secrets that were used last. */
export function needlesOf(secret: Secret): Needles {
  const made = needles.get(secret) ?? new Needles(spellingsOf(secret.open(), SENT_MIN_CHARS));
  needles.delete(secret);
  for (const oldest of needles.keys()) {
    if (needles.size < MAX_NEEDLES) break;
    needles.delete(oldest);
  }
  needles.set(secret, made);
  return made;
}

/** RFC 6749 §2.3.1: both are form-urlencoded before they are joined. */
export function authenticateBasic(headers: Headers, clientId: string, secret: Secret): void {
  headers.set("authorization", `Basic ${btoa(`${formEncoded(clientId)}:${formEncoded(secret.open())}`)}`);
}

const formEncoded = (text: string): string => new URLSearchParams([["", text]]).toString().slice(1);

export function authenticateInForm(form: URLSearchParams, clientId: string, secret: Secret): void {
  form.set("client_id", clientId);
  form.set("client_secret", secret.open());
}

/** What a receiver knows a message by (Standard Webhooks). */
export function signWebhook(secret: Secret, message: { readonly id: string; readonly body: string }, nowMs: number) {
  const keys = parseWebhookSecret(secret.open());
  if (!keys.ok) throw new Error("the webhook's secret");
  return webhookHeaders(message.id, message.body, keys.value, nowMs);
}

/** With a private JWK that names its algorithm and itself. Throws where it can't sign; the message is nobody's business. */
export async function signWithJwk(secret: Secret, claims: JWTPayload): Promise<string> {
  const jwk = JSON.parse(secret.open()) as { readonly alg: string; readonly kid: string };
  const key = await importJWK(jwk as Parameters<typeof importJWK>[0], jwk.alg);
  return new SignJWT(claims).setProtectedHeader({ alg: jwk.alg, kid: jwk.kid, typ: "JWT" }).sign(key);
}

/** With a private RSA key in PKCS#8 PEM. */
export async function signWithPem(secret: Secret, claims: JWTPayload): Promise<string> {
  const key = await importPKCS8(secret.open().trim(), "RS256");
  return new SignJWT(claims).setProtectedHeader({ alg: "RS256", typ: "JWT" }).sign(key);
}

/** A broker's answer to a Worker of the same deployment: what can't cross an RPC otherwise. */
export const handToWorker = (secret: Secret): string => secret.open();
