import { type Proof, parseProof, verifyProof } from "../grant/proof.ts";
import { err, ok, type Result } from "../result.ts";
import { type OAuthError, oauthError } from "./oauth-error.ts";

/** The DPoP proof of a request to the authority (RFC 9449 §5): which instance's key is meant, or who is speaking. */
export async function verifyKey(request: Request, url: string, nowMs: number): Promise<Result<Proof, OAuthError>> {
  const failed = (description: string) => err(oauthError("invalid_dpop_proof", description));
  const header = request.headers.get("dpop");
  if (header === null) return failed("a DPoP proof by the instance's key is required");
  const parsed = parseProof(header);
  if (!parsed.ok) return failed(parsed.error);
  // What a parent has signed for its child speaks for nobody else, and the child holds it.
  if (parsed.value.jws.payload["cnf"] !== undefined) return failed("a proof that was made for a sub-agent");
  const proof = await verifyProof(parsed.value, { method: "POST", url, tokenDigest: undefined, nowMs });
  return proof.ok ? ok(proof.value) : failed(proof.error);
}
