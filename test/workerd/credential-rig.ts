import { env } from "cloudflare:test";
import type { Limits } from "../../src/config/define.ts";
import { encodeBase64url } from "../../src/grant/base64url.ts";
import { issueGrant } from "../../src/grant/claims.ts";
import { ORIGIN } from "./config.ts";
import { CREDENTIAL_UPSTREAMS } from "./credentials-config.ts";
import { type Agent, deployment, enrolAgent, upstream } from "./kit.ts";

/** One whose grant is for upstreams of every kind of credential. */
export interface CredentialAgent extends Agent {
  readonly ask: (path: string, init?: RequestInit) => Promise<Response>;
  /** Its grant, and a proof for it: for who makes the request. */
  readonly credentials: (method: string, path: string) => Promise<Record<string, string>>;
}

const REPOSITORY = {
  type: "http",
  upstream: "app",
  operations: ["GET /repos/{owner}/{repo}/issues", "GET /repos/{owner}/{repo}/labels"],
  where: { owner: ["acme"], repo: ["widgets"] },
};

export async function enrolFor(
  details: readonly object[] = [],
  limits: Partial<Limits> = {},
): Promise<CredentialAgent> {
  const scope = [
    ...["keyed", "plain", "tokened", "exchange"].map((name) => ({
      type: "http",
      upstream: name,
      operations: ["GET /{+path}", "POST /{+path}"],
    })),
    ...(details.length === 0 ? [REPOSITORY] : details),
  ];
  const agent = await enrolAgent({
    limits: { ...deployment.config.agents["triage-bot"]!.limits, concurrency: 500, ...limits },
  });
  const token = issueGrant(deployment.grantKeys, {
    iss: ORIGIN,
    sub: "subject-1",
    aud: [...Object.keys(CREDENTIAL_UPSTREAMS), "whole"].map((name) => `${ORIGIN}/${name}`),
    client_id: "build-platform",
    jti: "grant-1",
    iat: Math.floor(Date.now() / 1000),
    exp: agent.grant.expiresAtMs / 1000,
    cnf: { jkt: agent.id },
    authorization_details: scope as never,
  });
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(token));
  const ath = encodeBase64url(new Uint8Array(digest));
  const credentials = async (method: string, path: string) => ({
    authorization: `DPoP ${token}`,
    dpop: await agent.prove(method, path, { ath }),
  });
  const { exports } = await import("cloudflare:workers");
  const ask: CredentialAgent["ask"] = async (path, init = {}) => {
    const headers = new Headers(init.headers);
    for (const [name, value] of Object.entries(await credentials(init.method ?? "GET", path))) headers.set(name, value);
    return exports.default.fetch(new Request(ORIGIN + path, { ...init, headers }));
  };
  return { ...agent, token, ask, credentials };
}

/** What was asked of whom, and an answer for each host. */
export function world(
  answers: Readonly<Record<string, (request: Request, nth: number) => Response | Promise<Response>>>,
) {
  const asked: { readonly host: string; readonly request: Request; readonly body: string }[] = [];
  upstream(async (request) => {
    const { host } = new URL(request.url);
    const body = await request.clone().text();
    asked.push({ host, request, body });
    const nth = asked.filter((one) => one.host === host).length;
    return answers[host]?.(request, nth) ?? new Response("{}", { headers: { "content-length": "2" } });
  });
  return { asked, of: (host: string) => asked.filter((one) => one.host === host) };
}

export const json = (value: unknown, status = 200): Response => {
  const text = JSON.stringify(value);
  return new Response(text, {
    status,
    headers: { "content-type": "application/json", "content-length": String(text.length) },
  });
};

/** A token endpoint that numbers its tokens. */
export const tokens =
  (lifeSeconds: number | undefined = 3_600, prefix = "token") =>
  (_request: Request, nth: number): Response =>
    json({ access_token: tokenNo(nth, prefix), token_type: "Bearer", expires_in: lifeSeconds });
export const tokenNo = (nth: number, prefix = "token"): string => `${prefix}-0123456789abcdef-${nth}`;

/** Brokers hold tokens in memory, and so do Workers: each test begins with neither. */
export const secretOf = (name: string): string => (env as unknown as Record<string, string>)[name]!;
