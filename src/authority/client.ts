import { compactVerify, createLocalJWKSet, type JSONWebKeySet, type JWTVerifyGetKey } from "jose";
import type { Config, PlatformConfig } from "../config/define.ts";
import { hasType, isSeconds, parseCompact } from "../grant/compact.ts";
import { err, ok, type Result } from "../result.ts";
import type { Form } from "./form.ts";
import { type OAuthError, oauthError } from "./oauth-error.ts";

const ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const ASSERTION_MAX_CHARS = 8_192;
const NAME_MAX_CHARS = 64;
/** A longer life would be a password. */
const ASSERTION_MAX_SECONDS = 300;
const SKEW_SECONDS = 30;

const keySets = new WeakMap<PlatformConfig, JWTVerifyGetKey>();

/** Imported once: the keys of a platform change with the deployment only. */
function keysOf(platform: PlatformConfig): JWTVerifyGetKey {
  const known = keySets.get(platform) ?? createLocalJWKSet(platform.jwks as JSONWebKeySet);
  keySets.set(platform, known);
  return known;
}

/** A platform that has shown its key. */
export interface Client {
  readonly id: string;
  readonly platform: PlatformConfig;
}

/**
 * `private_key_jwt` (OpenID Connect Core §9, RFC 7523 §3). To whoever fails, all failures are one: `invalid_client`;
 * what it was goes into the description's place in the journal only.
 */
export async function authenticateClient(
  request: Request,
  form: Form,
  config: Config,
  nowMs: number,
): Promise<Result<Client, OAuthError>> {
  const failed = (reason: string) => err(oauthError("invalid_client", reason));
  // RFC 6749 §2.3: one method of authentication a request.
  if (request.headers.has("authorization")) return failed("an Authorization header is not accepted");
  if (form.get("client_secret") !== undefined) return failed("client_secret is not accepted");
  if (form.get("client_assertion_type") !== ASSERTION_TYPE) return failed("client_assertion_type");
  const assertion = form.get("client_assertion");
  if (assertion === undefined) return failed("no client_assertion");
  const jws = parseCompact(assertion, ASSERTION_MAX_CHARS);
  if (!jws.ok) return failed(jws.error);
  const { header, payload } = jws.value;
  if (header["typ"] !== undefined && !hasType(header, "jwt") && !hasType(header, "client-authentication+jwt"))
    return failed("typ is of another kind of token");
  const { iss, sub, aud, exp, nbf, iat, jti } = payload;
  if (typeof sub !== "string" || !Object.hasOwn(config.platforms, sub)) return failed("no such client");
  const platform = config.platforms[sub]!;
  const { alg } = header;
  if (typeof alg !== "string" || !(platform.algorithms as readonly string[]).includes(alg))
    return failed("alg is not allowed");
  try {
    await compactVerify(assertion, keysOf(platform), { algorithms: [alg] });
  } catch {
    return failed("the signature does not verify");
  }
  const now = Math.floor(nowMs / 1000);
  if (iss !== sub) return failed("iss is not sub");
  const named = form.get("client_id");
  if (named !== undefined && named !== sub) return failed("client_id is another client");
  const audiences = Array.isArray(aud) ? aud : [aud];
  const ours = [
    config.origin,
    `${config.origin}/oauth/token`,
    `${config.origin}/oauth/revoke`,
    `${config.origin}/oauth/introspect`,
  ];
  if (audiences.length !== 1 || typeof audiences[0] !== "string" || !ours.includes(audiences[0]))
    return failed("aud is not this gate");
  if (!isSeconds(exp) || exp + SKEW_SECONDS <= now) return failed("expired");
  if (exp > now + ASSERTION_MAX_SECONDS + SKEW_SECONDS) return failed("exp is too far ahead");
  if (iat !== undefined && (!isSeconds(iat) || iat - SKEW_SECONDS > now)) return failed("iat is in the future");
  if (nbf !== undefined && (!isSeconds(nbf) || nbf - SKEW_SECONDS > now)) return failed("not valid yet");
  if (typeof jti !== "string" || jti === "") return failed("no jti");
  return ok({ id: sub, platform });
}

/** Who somebody says to be, for the journal: nothing of it is verified. */
export function claimedClient(form: Form): string | null {
  const assertion = parseCompact(form.get("client_assertion") ?? "", ASSERTION_MAX_CHARS);
  const claimed = form.get("client_id") ?? (assertion.ok ? assertion.value.payload["sub"] : undefined);
  return typeof claimed === "string" ? claimed.slice(0, NAME_MAX_CHARS) : null;
}
