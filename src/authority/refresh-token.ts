import { createHash, randomBytes } from "node:crypto";
import type { Deployment } from "../deployment.ts";
import { encodeBase64url } from "../grant/base64url.ts";
import { hasType, isSeconds, parseCompact } from "../grant/compact.ts";
import { err, ok, type Result } from "../result.ts";

const REFRESH_TYPE = "portcullis-refresh+jwt";
const REFRESH_MAX_CHARS = 2_048;

/** A refresh token whose signature holds. Whether it is the instance's current one, the instance says. */
export interface RefreshToken {
  readonly instance: string;
  readonly client: string;
  readonly digest: string;
  /** The task's deadline. */
  readonly expiresAtMs: number;
}

/**
 * Signed, so that a made-up one costs no object; opaque to its holder; bound to the instance's key, so that it needs
 * no rotation (RFC 9449 §5, RFC 9700 §4.14.2).
 */
export const issueRefreshToken = (
  { grantKeys, config }: Deployment,
  token: { readonly instance: string; readonly client: string; readonly expiresAtMs: number; readonly nowMs: number },
): string =>
  grantKeys.signCompact(REFRESH_TYPE, {
    iss: config.origin,
    jti: encodeBase64url(randomBytes(16)),
    client_id: token.client,
    iat: Math.floor(token.nowMs / 1000),
    exp: Math.floor(token.expiresAtMs / 1000),
    cnf: { jkt: token.instance },
  });

export function verifyRefreshToken(
  token: string,
  { grantKeys, config }: Deployment,
  nowMs: number,
): Result<RefreshToken, string> {
  const jws = parseCompact(token, REFRESH_MAX_CHARS);
  if (!jws.ok) return jws;
  const { header, payload, signingInput, signature } = jws.value;
  if (!hasType(header, REFRESH_TYPE) || header["alg"] !== "Ed25519") return err("another kind of token");
  if (!grantKeys.verify(header, signingInput, signature).ok) return err("the signature does not verify");
  const { iss, exp, client_id, cnf } = payload;
  if (iss !== config.origin) return err("iss is not this gate");
  if (!isSeconds(exp) || exp * 1000 <= nowMs) return err("expired");
  const jkt = (cnf as { readonly jkt?: unknown } | undefined)?.jkt;
  if (typeof jkt !== "string" || typeof client_id !== "string") return err("a claim is missing");
  const digest = createHash("sha256").update(token).digest("hex");
  return ok({ instance: jkt, client: client_id, digest, expiresAtMs: exp * 1000 });
}
