import { hasType, isSeconds, parseCompact } from "../grant/compact.ts";
import type { KeyRing } from "../grant/keys.ts";
import { err, ok, type Result } from "../result.ts";
import type { Mandate } from "./contract.ts";

export const MANDATE_TYPE = "portcullis-mandate+jwt";
const MANDATE_MAX_CHARS = 4_096;

/** A mandate's token whose signature holds. What the mandate says, and whether it stands, the book says. */
export interface MandateToken {
  readonly id: string;
  readonly human: string;
  readonly client: string;
}

interface Keys {
  readonly grantKeys: KeyRing;
  readonly config: { readonly origin: string };
}

/** Names the mandate to the one client that may exchange it, which must authenticate: it is worth nothing to who finds it. */
export const issueMandateToken = ({ grantKeys, config }: Keys, mandate: Mandate): string =>
  grantKeys.signCompact(MANDATE_TYPE, {
    iss: config.origin,
    aud: config.origin,
    sub: mandate.human,
    client_id: mandate.platform,
    jti: mandate.id,
    iat: Math.floor(mandate.approvedAtMs / 1000),
    exp: Math.floor(mandate.expiresAtMs / 1000),
  });

export function verifyMandateToken(
  token: string,
  { grantKeys, config }: Keys,
  nowMs: number,
): Result<MandateToken, string> {
  const jws = parseCompact(token, MANDATE_MAX_CHARS);
  if (!jws.ok) return jws;
  const { header, payload, signingInput, signature } = jws.value;
  if (!hasType(header, MANDATE_TYPE)) return err(`typ is not "${MANDATE_TYPE}"`);
  if (header["alg"] !== "Ed25519") return err("alg is not Ed25519");
  if (!grantKeys.verify(header, signingInput, signature).ok) return err("the signature does not verify");
  const { iss, aud, sub, client_id, jti, exp } = payload;
  if (iss !== config.origin || aud !== config.origin) return err("iss or aud is not this gate");
  if (!isSeconds(exp) || exp * 1000 <= nowMs) return err("expired");
  if (typeof sub !== "string" || typeof client_id !== "string" || typeof jti !== "string")
    return err("a claim is missing");
  return ok({ id: jti, human: sub, client: client_id });
}
