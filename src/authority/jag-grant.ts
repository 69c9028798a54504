import { createHash } from "node:crypto";
import { takesIdJag } from "../config/id-jag.ts";
import type { Deployment } from "../deployment.ts";
import { resourceOf } from "../grant/claims.ts";
import type { Proof } from "../grant/proof.ts";
import { type IdJag, verifyIdJag } from "../identity/id-jag.ts";
import { mandateBookOf } from "../objects.ts";
import { ok, type Result } from "../result.ts";
import { coveredBy } from "../scope/decide.ts";
import { type Entry, parseEntries } from "../scope/entry.ts";
import { within } from "../within.ts";
import type { Client } from "./client.ts";
import type { Form } from "./form.ts";
import { delegationBy } from "./human-subject.ts";
import { BARRED_BY_MAY_ACT, isBarredByMayAct } from "./may-act.ts";
import { concerning, failed, type OAuthError } from "./oauth-error.ts";
import { type AskedScope, provision } from "./provision.ts";
import type { TokenAnswer } from "./token-answer.ts";

export const JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer";
export const ID_JAG_PROFILE = "urn:ietf:params:oauth:grant-profile:id-jag";
const BOOK_TIMEOUT_MS = 5_000;

/**
 * RFC 7523 §2.1 with the profile of Cross App Access: the identity provider itself says that this platform may act here
 * for this human. All else is as in the exchange: the task, the scope, the instance's key. No refresh token: the next
 * grant takes the provider's word anew.
 */
export async function jagGrant(
  form: Form,
  client: Client,
  proof: Proof,
  deployment: Deployment,
  nowMs: number,
): Promise<Result<TokenAnswer, OAuthError>> {
  const { config } = deployment;
  const assertion = form.get("assertion");
  if (assertion === undefined) return failed("invalid_request", "assertion is missing");
  if (form.get("scope") !== undefined) return failed("invalid_scope", "scope is stated in authorization_details");
  const provider = config.identityProviders[client.platform.identityProvider]!;
  const { idJag } = provider;
  if (!takesIdJag(provider) || idJag === undefined)
    return failed("unauthorized_client", "this platform's identity provider gives no ID-JAG to this gate");
  const clientId = Object.hasOwn(idJag.clients, client.id) ? idJag.clients[client.id]! : client.id;
  const expected = { audience: config.origin, clientId, tenant: idJag.tenant };
  const verified = await verifyIdJag(assertion, provider, expected, nowMs);
  if (!verified.ok) {
    // RFC 7521 §4.1.1. One that nobody could look at is neither good nor bad.
    const code = verified.error.kind === "unavailable" ? "temporarily_unavailable" : "invalid_grant";
    return failed(code, `assertion: ${verified.error.reason}`);
  }
  const jag = verified.value;
  const about = <T>(result: Result<T, OAuthError>) => concerning({ human: jag.human.id }, result);
  if (jag.jkt !== null && jag.jkt !== proof.thumbprint)
    return about(failed("invalid_grant", "assertion: cnf is another key than the proof's"));
  if (isBarredByMayAct(jag.human.claims, provider.issuer, clientId))
    return about(failed("invalid_grant", `assertion: ${BARRED_BY_MAY_ACT}`));
  const delegation = {
    ...delegationBy(jag.human, client, { form, proof }),
    bounds: (asked: AskedScope) => withinAssertion(jag, idJag.scopes, asked, config.origin),
    mayRenew: false,
    spend: () => spendOnce(jag, deployment),
  };
  return about(await provision(form, delegation, proof, deployment, nowMs));
}

/** Pure. What the assertion speaks of is a bound, and it bounds to nothing where it can't be read. */
function withinAssertion(
  { authorizationDetails, scopes, resources }: IdJag,
  words: Readonly<Record<string, readonly Entry[]>>,
  { scope, audiences }: AskedScope,
  origin: string,
): Result<null, OAuthError> {
  const isNamed = (resource: string) =>
    resources === null || resources.includes(resource) || resources.includes(origin);
  if (!audiences.every(isNamed)) return failed("invalid_target", "a resource is not one that the assertion names");
  const granted = scope.filter((entry) => audiences.includes(resourceOf(origin, entry.upstream)));
  const bounds: (readonly [what: string, entries: readonly Entry[]])[] = [];
  if (authorizationDetails !== null) {
    const parsed = parseEntries(authorizationDetails, "");
    if (!parsed.ok) return failed("invalid_grant", "assertion: authorization_details can't be read");
    bounds.push(["authorization_details", parsed.value]);
  }
  if (scopes !== null)
    bounds.push(["scope", scopes.flatMap((word) => (Object.hasOwn(words, word) ? words[word]! : []))]);
  for (const entry of granted)
    for (const [what, entries] of bounds)
      if (!coveredBy(entries, entry))
        return failed(
          "invalid_authorization_details",
          `authorization_details[${scope.indexOf(entry)}] exceeds the assertion's ${what}`,
        );
  return ok(null);
}

/** Of two that come with one assertion, one gets a grant. Kept by the human's own book until it has expired; unknown means no. */
async function spendOnce(
  { human, jti, expiresAtMs }: IdJag,
  deployment: Deployment,
): Promise<Result<null, OAuthError>> {
  // The human's id stands for issuer and subject, so the digest for this provider's `jti` alone.
  const digest = createHash("sha256").update(jti).digest("base64url");
  const spending = mandateBookOf(deployment, human.id).spendAssertion(digest, expiresAtMs);
  const isFirst = await within(BOOK_TIMEOUT_MS, spending).catch(() => undefined);
  if (isFirst === undefined) return failed("temporarily_unavailable", "try again");
  return isFirst ? ok(null) : failed("invalid_grant", "assertion: it was used before");
}
