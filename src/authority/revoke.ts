import type { Deployment } from "../deployment.ts";
import { authenticate } from "../gate/authenticate.ts";
import type { Grant } from "../grant/claims.ts";
import type { Proof } from "../grant/proof.ts";
import { verifyMandateToken } from "../mandate/token.ts";
import { instanceOf } from "../objects.ts";
import { err, ok, type Result } from "../result.ts";
import { authenticateClient } from "./client.ts";
import type { Form } from "./form.ts";
import { readHeldToken } from "./held-token.ts";
import { concerning, failed, type OAuthError, oauthError, type Verified } from "./oauth-error.ts";
import { verifyKey } from "./proof-of-key.ts";

/** RFC 9278: all tokens that are bound to this key. A parent has none of its child's, and knows its key's thumbprint. */
const KEY_URI = "urn:ietf:params:oauth:jwk-thumbprint:sha-256:";
const THUMBPRINT = /^[A-Za-z0-9_-]{43}$/;

/** Who asks. A platform, or an instance: by its key alone for itself, with its grant for its children, too. */
interface Revoker {
  readonly who: Pick<Verified, "client" | "instance">;
  readonly asParent: { readonly grant: Grant; readonly proof: Proof } | null;
}

/**
 * RFC 7009. The permissions of an instance end at once: by the platform that provisioned, by the instance itself, or by the
 * instance that is its parent. In the value stands what is for the journal alone: to its sender it was a 200 like any other.
 */
export async function revoke(
  request: Request,
  form: Form,
  deployment: Deployment,
  nowMs: number,
): Promise<Result<OAuthError | null, OAuthError>> {
  const by = await authenticateRevoker(request, form, deployment, nowMs);
  if (!by.ok) return by;
  const { who, asParent } = by.value;
  const text = form.get("token");
  if (text === undefined) return concerning(who, failed("invalid_request", "token is missing"));
  const byKey = text.startsWith(KEY_URI);
  if (byKey && asParent === null)
    return concerning(who, failed("unsupported_token_type", "a key is named by an instance with its grant alone"));
  // Unknown or malformed: nothing is left to revoke (RFC 7009 §2.2). A token is revoked after its expiry, too.
  const named = byKey ? keyIn(text) : readHeldToken(text, deployment, 0);
  if (named === undefined)
    return isMandateOf(who.client, text, deployment, nowMs) ? concerning(who, NOT_HERE) : ok(null);
  const isOwn = who.instance === named.instance || (who.client !== undefined && who.client === named.client);
  if (!isOwn && asParent !== null) return concerning(who, await endChild(named.instance, asParent, deployment));
  if (!isOwn) return concerning(who, failed("unauthorized_client", "the token was issued to another client"));
  try {
    await instanceOf(deployment, named.instance).revoke(who.client ?? "the instance", deployment.version);
  } catch {
    // RFC 7009 §2.2.1: never a false 200.
    return concerning(who, TRY_AGAIN);
  }
  return ok(null);
}

/** RFC 7009 §2.2.1. A platform that was told 200 would believe that it is over, and it would stand. */
const NOT_HERE = failed(
  "unsupported_token_type",
  "a mandate is revoked by the human who approved it, or by an operator",
);

function isMandateOf(client: string | undefined, text: string, deployment: Deployment, nowMs: number): boolean {
  const mandate = verifyMandateToken(text, deployment, nowMs);
  return client !== undefined && mandate.ok && mandate.value.client === client;
}

const TRY_AGAIN = failed("temporarily_unavailable", "try again");

function keyIn(text: string): { readonly instance: string; readonly client?: string } | undefined {
  const instance = text.slice(KEY_URI.length);
  return THUMBPRINT.test(instance) ? { instance } : undefined;
}

async function authenticateRevoker(
  request: Request,
  form: Form,
  deployment: Deployment,
  nowMs: number,
): Promise<Result<Revoker, OAuthError>> {
  const hasAssertion = form.get("client_assertion") !== undefined || form.get("client_assertion_type") !== undefined;
  if (hasAssertion || !request.headers.has("dpop")) {
    const client = await authenticateClient(request, form, deployment.config, nowMs);
    return client.ok ? ok({ who: { client: client.value.id }, asParent: null }) : client;
  }
  const { origin } = deployment.config;
  if (!request.headers.has("authorization")) {
    const proof = await verifyKey(request, `${origin}/oauth/revoke`, nowMs);
    return proof.ok ? ok({ who: { instance: proof.value.thumbprint }, asParent: null }) : proof;
  }
  // RFC 9449 §7.1, as at the gate: an object is asked only for who was given a grant.
  const context = { origin, grantKeys: deployment.grantKeys, rawPath: "/oauth/revoke", nowMs };
  const shown = await authenticate(request, context);
  if (shown.ok) return ok({ who: { instance: shown.value.grant.instance }, asParent: shown.value });
  const denial = shown.error;
  const isByProof = denial.kind === "unauthenticated" && denial.code === "invalid_dpop_proof";
  return failed(isByProof ? "invalid_dpop_proof" : "invalid_client", "reason" in denial ? denial.reason : denial.kind);
}

/**
 * The parent's object alone knows whose child it is. Of another's, of one that has ended, of one that never was: the same
 * answer, so nothing is to be learned of an id by naming it.
 */
async function endChild(
  child: string,
  { grant, proof }: NonNullable<Revoker["asParent"]>,
  deployment: Deployment,
): Promise<Result<OAuthError | null, OAuthError>> {
  const answer = await instanceOf(deployment, grant.instance)
    .endChild({
      child,
      grant: grant.jti,
      proof: { jti: proof.jti, issuedAtMs: proof.issuedAtMs },
      deployment: deployment.version,
    })
    .catch(() => "unheard" as const);
  switch (answer) {
    case "ended":
      return ok(null);
    case "unknown":
      return ok({
        ...oauthError("invalid_request", `token: ${child} is no living child of this instance`),
        who: { instance: grant.instance },
      });
    case "replay":
      return err(oauthError("invalid_dpop_proof", "it was used before"));
    case "unheard":
      return TRY_AGAIN;
  }
}
