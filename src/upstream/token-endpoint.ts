import * as z from "zod";
import type { OAuthClient } from "../config/credential.ts";
import type { Env } from "../deployment.ts";
import { parseStrictJson } from "../json/strict-json.ts";
import { readText } from "../read-text.ts";
import { err, ok, type Result } from "../result.ts";
import type { FetchedToken } from "./credential-kind.ts";
import { fetchOutbound } from "./outbound.ts";
import { authenticateBasic, authenticateInForm, signWithJwk } from "./placing.ts";
import { readSecret, SENT_MIN_CHARS } from "./read-secret.ts";
import { Secret } from "./secret.ts";

export const TOKEN_TIMEOUT_MS = 10_000;
const ANSWER_MAX_BYTES = 65_536;
/** With headers of its own, a token of this length still passes most servers. */
const TOKEN_MAX_CHARS = 8_192;
/** Of an answer that does not say how long (RFC 6749 §5.1 recommends it). */
const ASSUMED_LIFE_SECONDS = 300;
const MAX_LIFE_SECONDS = 86_400;
const ASSERTION_SECONDS = 60;
/** RFC 6749 §5.2, RFC 8693 §2.2.2. Another code is not repeated: it could be anything. */
const ERRORS = new Set([
  "invalid_request",
  "invalid_client",
  "invalid_grant",
  "unauthorized_client",
  "unsupported_grant_type",
  "invalid_scope",
  "invalid_target",
]);

/** RFC 6750 §2.1: what a bearer token is made of. */
export const bearerToken = z
  .string()
  .regex(/^[A-Za-z0-9\-._~+/]+=*$/)
  .min(SENT_MIN_CHARS)
  .max(TOKEN_MAX_CHARS);

const tokenAnswer = z.looseObject({
  access_token: bearerToken,
  token_type: z.string().regex(/^bearer$/i),
  expires_in: z.number().positive().optional(),
});

/** RFC 6749 §3.2: one form, by an authenticated client. Never repeats what was answered. */
export async function askTokenEndpoint(
  client: OAuthClient,
  parameters: Readonly<Record<string, string>>,
  env: Env,
): Promise<Result<FetchedToken, string>> {
  const form = new URLSearchParams(parameters);
  for (const name of ["scope", "audience", "resource"] as const)
    if (client[name] !== undefined) form.set(name, client[name]);
  const headers = new Headers({ accept: "application/json", "content-type": "application/x-www-form-urlencoded" });
  const authenticated = await authenticate(client, form, headers, env);
  if (!authenticated.ok) return authenticated;
  const answer = await ask(client.tokenEndpoint, { method: "POST", headers, body: form.toString() });
  if (!answer.ok) return answer;
  const { status, json } = answer.value;
  if (status !== 200) {
    const code = z.object({ error: z.string() }).safeParse(json).data?.error ?? "";
    return err(`the token endpoint answered ${status}${ERRORS.has(code) ? ` (${code})` : ""}`);
  }
  const parsed = tokenAnswer.safeParse(json);
  if (!parsed.success) return err("the token endpoint's answer holds no bearer token of 16 to 8192 characters");
  const lifeSeconds = Math.min(parsed.data.expires_in ?? ASSUMED_LIFE_SECONDS, MAX_LIFE_SECONDS);
  return ok({ token: new Secret(parsed.data.access_token), lifeMs: lifeSeconds * 1000 });
}

/** A request for a token, and its answer as JSON; null where it is none. */
export async function ask(
  url: string,
  init: { readonly method: string; readonly headers: Headers; readonly body: string },
  maxBytes = ANSWER_MAX_BYTES,
): Promise<Result<{ readonly status: number; readonly json: unknown }, string>> {
  const late = new AbortController();
  // Not AbortSignal.timeout: its timer would keep the broker awake when the answer is long here.
  const timer = setTimeout(() => late.abort(), TOKEN_TIMEOUT_MS);
  try {
    const response = await fetchOutbound(url, { ...init, signal: late.signal });
    const text = await readText(response, maxBytes);
    const json = text === undefined ? undefined : parseStrictJson(text);
    return ok({ status: response.status, json: json?.ok === true ? json.value : null });
  } catch {
    // What it says may hold the URL, or more.
    return err("the token endpoint could not be reached");
  } finally {
    clearTimeout(timer);
  }
}

async function authenticate(
  { clientId, authentication, tokenEndpoint }: OAuthClient,
  form: URLSearchParams,
  headers: Headers,
  env: Env,
): Promise<Result<null, string>> {
  const nowMs = Date.now();
  const isKey = authentication.method === "private_key_jwt";
  const read = await readSecret(env, { name: authentication.secret, form: isKey ? "jwk" : "any" }, nowMs);
  if (!read.ok) return read;
  const secret = read.value;
  if (authentication.method === "private_key_jwt") {
    const nowSeconds = Math.floor(nowMs / 1000);
    const claims = {
      iss: clientId,
      sub: clientId,
      aud: authentication.audience ?? tokenEndpoint,
      jti: crypto.randomUUID(),
      iat: nowSeconds,
      exp: nowSeconds + ASSERTION_SECONDS,
    };
    try {
      form.set("client_id", clientId);
      form.set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
      form.set("client_assertion", await signWithJwk(secret, claims));
    } catch {
      return err(`secret ${authentication.secret} is no key that signs`);
    }
  } else if (authentication.method === "client_secret_post") authenticateInForm(form, clientId, secret);
  else authenticateBasic(headers, clientId, secret);
  return ok(null);
}
