import { Hono } from "hono";
import { groupsThatCount } from "../config/entitlements.ts";
import { actOf } from "../delegation/act.ts";
import type { Deployment } from "../deployment.ts";
import { sightingOf } from "../gate/place.ts";
import type { IntrospectAnswer } from "../instance/contract.ts";
import { instanceOf, journalOf } from "../objects.ts";
import { err, ok, type Result } from "../result.ts";
import type { Fields } from "../transcript/envelope.ts";
import { authenticateClient, claimedClient } from "./client.ts";
import { exchange, isByParent, TOKEN_EXCHANGE } from "./exchange.ts";
import { type Form, parseForm } from "./form.ts";
import { readHeldToken } from "./held-token.ts";
import { JWT_BEARER, jagGrant } from "./jag-grant.ts";
import { authorizationServerMetadata, protectedResourceMetadata, UPSTREAM_NAME } from "./metadata.ts";
import { hasStatement } from "./newer-statement.ts";
import { concerning, type OAuthError, oauthError, oauthErrorAnswer } from "./oauth-error.ts";
import { verifyKey } from "./proof-of-key.ts";
import { refresh } from "./refresh.ts";
import { recordUnauthenticated } from "./refused.ts";
import { revoke } from "./revoke.ts";
import type { TokenAnswer } from "./token-answer.ts";

/** The authority's door: where platforms provision instances, and instances renew and hand back. */
export const authority = new Hono<{ Bindings: { deployment: Deployment } }>();

authority.post("/oauth/token", async (c) => {
  const { deployment } = c.env;
  const nowMs = Date.now();
  const form = await parseForm(c.req.raw);
  const answer = form.ok ? await token(c.req.raw, form.value, deployment, nowMs) : form;
  if (!answer.ok) return refuse(answer.error, form.ok ? form.value : undefined, deployment, "token");
  return Response.json(answer.value, { headers: { "Cache-Control": "no-store", Pragma: "no-cache" } });
});

/** The order is pinned by a test: form, client, proof, then what `exchange` and `refresh` look at. */
async function token(
  request: Request,
  form: Form,
  deployment: Deployment,
  nowMs: number,
): Promise<Result<TokenAnswer, OAuthError>> {
  const url = `${deployment.config.origin}/oauth/token`;
  const grantType = form.get("grant_type");
  const failed = (code: OAuthError["code"], text: string) => ({ ok: false, error: oauthError(code, text) }) as const;
  if (grantType === undefined) return failed("invalid_request", "grant_type is missing");
  if (grantType === "refresh_token") {
    const platform = hasStatement(form) ? await authenticateClient(request, form, deployment.config, nowMs) : null;
    if (platform?.ok === false) return platform;
    const client = platform?.value ?? null;
    const by = client === null ? {} : { client: client.id };
    const proof = await verifyKey(request, url, nowMs);
    if (!proof.ok) return concerning(by, proof);
    const who = { ...by, instance: proof.value.thumbprint };
    // A platform renews from a place of its own: that says nothing of where the key is used.
    const sighting = client === null ? sightingOf(request, nowMs) : null;
    return concerning(who, await refresh(form, proof.value, client, sighting, deployment, nowMs));
  }
  if (grantType !== TOKEN_EXCHANGE && grantType !== JWT_BEARER) return failed("unsupported_grant_type", "grant_type");
  if (grantType === TOKEN_EXCHANGE && isByParent(form)) {
    const proof = await verifyKey(request, url, nowMs);
    if (!proof.ok) return proof;
    const who = { instance: proof.value.thumbprint };
    return concerning(who, await exchange(form, null, proof.value, deployment, nowMs));
  }
  const client = await authenticateClient(request, form, deployment.config, nowMs);
  if (!client.ok) return client;
  const proof = await verifyKey(request, url, nowMs);
  if (!proof.ok) return concerning({ client: client.value.id }, proof);
  const who = { client: client.value.id, instance: proof.value.thumbprint };
  const grant = grantType === JWT_BEARER ? jagGrant : exchange;
  return concerning(who, await grant(form, client.value, proof.value, deployment, nowMs));
}

authority.post("/oauth/revoke", async (c) => {
  const { deployment } = c.env;
  const form = await parseForm(c.req.raw);
  const revoked = form.ok ? await revoke(c.req.raw, form.value, deployment, Date.now()) : form;
  if (!revoked.ok) return refuse(revoked.error, form.ok ? form.value : undefined, deployment, "revoke");
  if (revoked.value !== null && form.ok) await record(revoked.value, form.value, deployment, "revoke");
  return new Response(null, { status: 200, headers: { "Cache-Control": "no-store" } });
});

/** RFC 7662, for the platform that provisioned. Everything that is not an active token of its own is one answer. */
authority.post("/oauth/introspect", async (c) => {
  const { deployment } = c.env;
  const form = await parseForm(c.req.raw);
  const answer = form.ok ? await introspect(c.req.raw, form.value, deployment, Date.now()) : form;
  if (!answer.ok) return refuse(answer.error, form.ok ? form.value : undefined, deployment, "introspect");
  return Response.json(answer.value, { headers: { "Cache-Control": "no-store" } });
});

const INACTIVE = { active: false };

async function introspect(
  request: Request,
  form: Form,
  deployment: Deployment,
  nowMs: number,
): Promise<Result<object, OAuthError>> {
  const client = await authenticateClient(request, form, deployment.config, nowMs);
  if (!client.ok) return client;
  const who = { client: client.value.id };
  const text = form.get("token");
  if (text === undefined) return concerning(who, err(oauthError("invalid_request", "token is missing")));
  const held = readHeldToken(text, deployment, nowMs);
  if (held === undefined || held.client !== client.value.id) return ok(INACTIVE);
  if (held.kind === "refresh" && !deployment.config.grants.refreshTokens) return ok(INACTIVE);
  let answer: IntrospectAnswer;
  try {
    answer = await instanceOf(deployment, held.instance).introspect();
  } catch {
    return concerning(who, err(oauthError("temporarily_unavailable", "try again")));
  }
  const { enrolment, state, groups } = answer;
  if (state === "unknown") return concerning(who, err(oauthError("temporarily_unavailable", "try again")));
  if (state === "inactive" || enrolment === null) return ok(INACTIVE);
  return ok({
    active: true,
    iss: deployment.config.origin,
    client_id: held.client,
    token_type: held.kind === "access" ? "DPoP" : "refresh_token",
    sub: enrolment.subject,
    cnf: { jkt: held.instance },
    exp: held.claims?.exp ?? Math.floor(enrolment.task.deadlineMs / 1000),
    ...(held.claims === null ? {} : { aud: held.claims.aud, iat: held.claims.iat, jti: held.claims.jti }),
    authorization_details: enrolment.scope,
    // RFC 8693 §4.1: who acts, and for whom it was delegated. Only the platform that holds the human's token sees it.
    act: actOf(enrolment.chain),
    ...(enrolment.ancestors.length === 0 ? {} : { parent: enrolment.ancestors.at(-1) }),
    human: enrolment.human,
    /** Of the human, as they count for this instance: what was lost since it was enrolled is not among them. */
    groups: groupsThatCount(deployment.config.entitlements, groups),
    agent: enrolment.agent,
    agent_version: enrolment.agentVersion,
    task: enrolment.task.id,
  });
}

const cached = { "Cache-Control": "public, max-age=300" };

authority.get("/.well-known/oauth-authorization-server", (c) =>
  c.json(authorizationServerMetadata(c.env.deployment.config), 200, cached),
);
authority.get("/.well-known/openid-configuration", (c) =>
  c.json(authorizationServerMetadata(c.env.deployment.config), 200, cached),
);
authority.get("/.well-known/oauth-protected-resource", (c) =>
  c.json(protectedResourceMetadata(c.env.deployment.config, undefined), 200, cached),
);
authority.get("/.well-known/oauth-protected-resource/:upstream", (c) => {
  const upstream = c.req.param("upstream");
  return UPSTREAM_NAME.test(upstream)
    ? c.json(protectedResourceMetadata(c.env.deployment.config, upstream), 200, cached)
    : c.notFound();
});
authority.get("/.well-known/jwks.json", (c) => c.json(c.env.deployment.grantKeys.jwks, 200, cached));
/** The public halves of the keys that seal transcripts: what an outsider verifies with. */
authority.get("/.well-known/portcullis-seal-keys.json", (c) => c.json(c.env.deployment.sealKeys.jwks, 200, cached));

authority.notFound(() =>
  Response.json(
    { type: "about:blank", title: "Not Found", status: 404 },
    { status: 404, headers: { "Content-Type": "application/problem+json" } },
  ),
);
authority.onError((error) => {
  throw error;
});

/** Who has failed as a client is told no more than the code. */
async function refuse(
  error: OAuthError,
  form: Form | undefined,
  deployment: Deployment,
  endpoint: string,
): Promise<Response> {
  const isRecorded = await record(error, form, deployment, endpoint);
  if (!isRecorded) return oauthErrorAnswer(oauthError("temporarily_unavailable", "try again"));
  const isNobody = error.who?.client === undefined && error.code === "invalid_client";
  return oauthErrorAnswer(isNobody ? oauthError("invalid_client", "client authentication failed") : error);
}

/**
 * A refusal of a platform stands in the journal before it is said; false: it could not. Everyone else has shown a key of their own
 * making, or nothing: theirs go to another journal, as far as there is room.
 */
async function record(
  error: OAuthError,
  form: Form | undefined,
  deployment: Deployment,
  endpoint: string,
): Promise<boolean> {
  const fields = (): Fields => ({
    endpoint,
    error: error.code,
    reason: error.description,
    client: error.who?.client ?? null,
    instance: error.who?.instance ?? null,
    human: error.who?.human ?? null,
    ...(error.who?.parent === undefined ? {} : { parent: error.who.parent }),
    claimedClient: form === undefined ? null : claimedClient(form),
    task: form?.get("task")?.slice(0, 64) ?? null,
    grantType: form?.get("grant_type")?.slice(0, 100) ?? null,
  });
  if (error.who?.client === undefined) {
    await recordUnauthenticated(deployment, "authority-refused", fields);
    return true;
  }
  return journalOf(deployment, "authority", Date.now())
    .append({ type: "refused", deployment: deployment.version, fields: fields() })
    .catch(() => false);
}
