import { Hono } from "hono";
import type { Deployment } from "../deployment.ts";
import type { IntrospectAnswer } from "../instance/contract.ts";
import { instanceOf, journalOf } from "../objects.ts";
import type { Result } from "../result.ts";
import { authenticateClient } from "./client.ts";
import { exchange, TOKEN_EXCHANGE, type TokenAnswer } from "./exchange.ts";
import { type Form, parseForm } from "./form.ts";
import { readHeldToken } from "./held-token.ts";
import { authorizationServerMetadata, protectedResourceMetadata, UPSTREAM_NAME } from "./metadata.ts";
import { type OAuthError, oauthError, oauthErrorAnswer } from "./oauth-error.ts";
import { verifyKey } from "./proof-of-key.ts";
import { refresh } from "./refresh.ts";

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
    const proof = await verifyKey(request, url, nowMs);
    return proof.ok ? refresh(form, proof.value, deployment, nowMs) : proof;
  }
  if (grantType !== TOKEN_EXCHANGE) return failed("unsupported_grant_type", "grant_type");
  const client = await authenticateClient(form, deployment.config, nowMs);
  if (!client.ok) return client;
  const proof = await verifyKey(request, url, nowMs);
  if (!proof.ok) return proof;
  return exchange(form, client.value, proof.value, deployment, nowMs);
}

/** RFC 7009, by the platform that provisioned, or by the instance with its key. The instance's permissions end at once. */
authority.post("/oauth/revoke", async (c) => {
  const { deployment } = c.env;
  const nowMs = Date.now();
  const form = await parseForm(c.req.raw);
  if (!form.ok) return refuse(form.error, undefined, deployment, "revoke");
  const text = form.value.get("token");
  if (text === undefined)
    return refuse(oauthError("invalid_request", "token is missing"), form.value, deployment, "revoke");
  const by = await authenticateRevoker(c.req.raw, form.value, deployment, nowMs);
  if (!by.ok) return refuse(by.error, form.value, deployment, "revoke");
  // Unknown, expired, malformed: nothing is left to revoke (RFC 7009 §2.2). An access token is revoked after its expiry, too.
  const held = readHeldToken(text, deployment, nowMs) ?? readHeldToken(text, deployment, 0);
  if (held === undefined) return new Response(null, { status: 200, headers: { "Cache-Control": "no-store" } });
  const isOwner = by.value.client === held.client || by.value.instance === held.instance;
  if (!isOwner)
    return refuse(
      oauthError("unauthorized_client", "the token was issued to another client"),
      form.value,
      deployment,
      "revoke",
    );
  try {
    await instanceOf(deployment, held.instance).revoke(by.value.client ?? "the instance", deployment.version);
  } catch {
    // RFC 7009 §2.2.1: never a false 200.
    return oauthErrorAnswer(oauthError("temporarily_unavailable", "try again"));
  }
  return new Response(null, { status: 200, headers: { "Cache-Control": "no-store" } });
});

interface Revoker {
  readonly client?: string;
  readonly instance?: string;
}

async function authenticateRevoker(
  request: Request,
  form: Form,
  deployment: Deployment,
  nowMs: number,
): Promise<Result<Revoker, OAuthError>> {
  const hasAssertion = form.get("client_assertion") !== undefined || form.get("client_assertion_type") !== undefined;
  if (!hasAssertion && request.headers.has("dpop")) {
    const proof = await verifyKey(request, `${deployment.config.origin}/oauth/revoke`, nowMs);
    return proof.ok ? { ok: true, value: { instance: proof.value.thumbprint } } : proof;
  }
  const client = await authenticateClient(form, deployment.config, nowMs);
  return client.ok ? { ok: true, value: { client: client.value.id } } : client;
}

/** RFC 7662, for the platform that provisioned. Everything that is not an active token of its own is one answer. */
authority.post("/oauth/introspect", async (c) => {
  const { deployment } = c.env;
  const nowMs = Date.now();
  const headers = { "Cache-Control": "no-store" };
  const inactive = () => Response.json({ active: false }, { headers });
  const form = await parseForm(c.req.raw);
  if (!form.ok) return refuse(form.error, undefined, deployment, "introspect");
  const client = await authenticateClient(form.value, deployment.config, nowMs);
  if (!client.ok) return refuse(client.error, form.value, deployment, "introspect");
  const text = form.value.get("token");
  if (text === undefined)
    return refuse(oauthError("invalid_request", "token is missing"), form.value, deployment, "introspect");
  const held = readHeldToken(text, deployment, nowMs);
  if (held === undefined || held.client !== client.value.id) return inactive();
  let answer: IntrospectAnswer;
  try {
    answer = await instanceOf(deployment, held.instance).introspect();
  } catch {
    return oauthErrorAnswer(oauthError("temporarily_unavailable", "try again"));
  }
  const { enrolment } = answer;
  if (!answer.active || enrolment === null) return inactive();
  return Response.json(
    {
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
      act: { sub: held.instance, client_id: enrolment.client },
      human: enrolment.human,
      agent: enrolment.agent,
      agent_version: enrolment.agentVersion,
      task: enrolment.task.id,
    },
    { headers },
  );
});

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

/** A refusal stands in the journal before it is said. Who has not authenticated is told no more than the code. */
async function refuse(
  error: OAuthError,
  form: Form | undefined,
  deployment: Deployment,
  endpoint: string,
): Promise<Response> {
  const recorded = await journalOf(deployment, "authority", Date.now())
    .append({
      type: "refused",
      deployment: deployment.version,
      fields: {
        endpoint,
        error: error.code,
        reason: error.description,
        client: form?.get("client_id")?.slice(0, 64) ?? null,
        task: form?.get("task")?.slice(0, 64) ?? null,
        grantType: form?.get("grant_type")?.slice(0, 100) ?? null,
      },
    })
    .catch(() => false);
  if (!recorded) return oauthErrorAnswer(oauthError("temporarily_unavailable", "try again"));
  return oauthErrorAnswer(
    error.code === "invalid_client" ? oauthError("invalid_client", "client authentication failed") : error,
  );
}
