import type { IdentityProviderConfig } from "../config/define.ts";
import { hasType, isSeconds, type JsonObject, parseCompact } from "../grant/compact.ts";
import { err, ok, type Result } from "../result.ts";
import type { Json } from "../scope/call.ts";
import { type Human, humanOfClaims, type IdTokenRefusal, verifyByProvider } from "./id-token.ts";

const ID_JAG_MAX_CHARS = 32_768;
const SKEW_SECONDS = 60;
/** A longer life would make of an assertion a password, and its `jti` would have to be kept as long. */
const LONGEST_SECONDS = 3_600;
const JTI_MAX_CHARS = 256;

/** What an identity assertion says besides who the human is. Null: it does not speak of that. */
export interface IdJag {
  readonly human: Human;
  readonly jti: string;
  readonly expiresAtMs: number;
  /** The key that must make the proof. */
  readonly jkt: string | null;
  /** RFC 9396; what can't be read bounds to nothing, which is for who reads it to see. */
  readonly authorizationDetails: Json | null;
  /** The words of `scope`. */
  readonly scopes: readonly string[] | null;
  readonly resources: readonly string[] | null;
}

/**
 * Verifies an Identity Assertion JWT Authorization Grant (draft-ietf-oauth-identity-assertion-authz-grant §4.4), issued
 * to this client for this gate. Signature before claims, and nothing that is there is passed over: a member of another
 * form than expected refuses the whole.
 */
export async function verifyIdJag(
  token: string,
  provider: IdentityProviderConfig,
  expected: { readonly audience: string; readonly clientId: string; readonly tenant: string | undefined },
  nowMs: number,
): Promise<Result<IdJag, IdTokenRefusal>> {
  const invalid = (reason: string) => err({ kind: "invalid", reason } as const);
  const jws = parseCompact(token, ID_JAG_MAX_CHARS);
  if (!jws.ok) return invalid(jws.error);
  const { header, payload } = jws.value;
  if (!hasType(header, "oauth-id-jag+jwt")) return invalid("typ is not that of an ID-JAG");
  const signed = await verifyByProvider(token, jws.value, provider, nowMs);
  if (!signed.ok) return signed;
  const jag = parseClaims(payload, provider, expected, Math.floor(nowMs / 1000));
  return jag.ok ? jag : invalid(jag.error);
}

function parseClaims(
  claims: JsonObject,
  provider: IdentityProviderConfig,
  expected: { readonly audience: string; readonly clientId: string; readonly tenant: string | undefined },
  now: number,
): Result<IdJag, string> {
  const { aud, client_id, jti, exp, iat, nbf, tenant } = claims;
  const audiences = typeof aud === "string" ? [aud] : Array.isArray(aud) ? aud : [];
  // An array with exactly one element, or the text itself.
  if (audiences.length !== 1 || audiences[0] !== expected.audience) return err("aud is not this gate alone");
  if (client_id !== expected.clientId) return err("client_id is another client");
  if (typeof jti !== "string" || jti === "" || jti.length > JTI_MAX_CHARS) return err("jti");
  if (!isSeconds(exp) || exp + SKEW_SECONDS <= now) return err("expired");
  if (!isSeconds(iat) || iat - SKEW_SECONDS > now) return err("iat is in the future");
  if (exp > iat + LONGEST_SECONDS) return err("it lives longer than an hour");
  // Its groups are as old as it is, as those of an ID token are.
  if (iat + provider.maxTokenAgeSeconds + SKEW_SECONDS <= now) return err("iat is longer ago than maxTokenAgeSeconds");
  if (nbf !== undefined && (!isSeconds(nbf) || nbf - SKEW_SECONDS > now)) return err("not valid yet");
  // One `sub` may be somebody else at another tenant of the same issuer.
  if (tenant !== expected.tenant) return err("tenant is another");
  const human = humanOfClaims(claims, provider, { iat, exp, now });
  if (!human.ok) return human;
  const jkt = thumbprintIn(claims["cnf"]);
  if (jkt === undefined) return err("cnf names no key by its thumbprint");
  const details = claims["authorization_details"];
  // Said, and nothing: not the same as not said.
  if (details === null) return err("authorization_details can't be read");
  const scopes = wordsIn(claims["scope"]);
  if (scopes === undefined) return err("scope is not a text");
  const resources = textsIn(claims["resource"]);
  if (resources === undefined) return err("resource is not a text or a list of texts");
  return ok({
    human: human.value,
    jti,
    expiresAtMs: (exp + SKEW_SECONDS) * 1000,
    jkt,
    authorizationDetails: details ?? null,
    scopes,
    resources,
  });
}

/** Undefined: another way of confirmation, which nobody here understands. */
function thumbprintIn(cnf: Json | undefined): string | null | undefined {
  if (cnf === undefined) return null;
  if (typeof cnf !== "object" || cnf === null || Array.isArray(cnf)) return undefined;
  const { jkt, ...others } = cnf as { readonly jkt?: Json };
  return typeof jkt === "string" && Object.keys(others).length === 0 ? jkt : undefined;
}

function wordsIn(scope: Json | undefined): readonly string[] | null | undefined {
  if (scope === undefined) return null;
  return typeof scope === "string" ? scope.split(" ").filter((word) => word !== "") : undefined;
}

function textsIn(value: Json | undefined): readonly string[] | null | undefined {
  if (value === undefined) return null;
  if (typeof value === "string") return [value];
  return Array.isArray(value) && value.every((one): one is string => typeof one === "string") ? value : undefined;
}
