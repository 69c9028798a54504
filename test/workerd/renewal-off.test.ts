// `grants.refreshTokens: false` in a deployment whose predecessor gave refresh tokens out: what counts is the configuration of now.

import { createExecutionContext } from "cloudflare:test";
import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { afterEach, describe, expect, it } from "vitest";
import { createProof } from "../../src/agent/instance-key.ts";
import { authority } from "../../src/authority/authority.ts";
import config, { ORIGIN } from "./config.ts";
import { childOf, enrolmentOf, linesOf, type Node, rootOf, send, TOKEN_URL } from "./family-kit.ts";
import { deployment } from "./kit.ts";

const grants = config.grants as { refreshTokens: boolean };
afterEach(() => {
  grants.refreshTokens = true;
});

async function renew({ key, refresh }: Node, form: Readonly<Record<string, string>> = {}): Promise<unknown> {
  const answer = await send(TOKEN_URL, {
    method: "POST",
    body: new URLSearchParams({ grant_type: "refresh_token", refresh_token: refresh!, ...form }),
    headers: { dpop: await createProof(key, "POST", TOKEN_URL) },
  });
  return [answer.status, ((await answer.json()) as { error?: unknown; error_description?: unknown }).error_description];
}

describe("a deployment that gives no refresh tokens", () => {
  it("renews nothing by one that was given before, on no record of the instance, and takes it back", async () => {
    const child = await childOf(await rootOf());
    expect(await renew(child)).toEqual([200, undefined]);
    const renewals = async () => (await linesOf(child.id)).filter(({ type }) => type === "renewed").length;
    expect(await renewals()).toBe(1);
    grants.refreshTokens = false;
    expect(await renew(child)).toEqual([400, "the refresh token is not valid"]);
    expect(await child.held.renew()).toBe("refused");
    expect(await renewals()).toBe(1);
    const url = `${ORIGIN}/oauth/revoke`;
    const headers = { dpop: await createProof(child.key, "POST", url) };
    const body = new URLSearchParams({ token: child.refresh! });
    expect((await send(url, { method: "POST", body, headers })).status).toBe(200);
    grants.refreshTokens = true;
    expect(await renew(child)).toEqual([400, "the refresh token is not valid"]);
  });

  it("renews again where a later one gives them", async () => {
    const child = await childOf(await rootOf());
    grants.refreshTokens = false;
    expect(await renew(child)).toEqual([400, "the refresh token is not valid"]);
    grants.refreshTokens = true;
    expect(await renew(child)).toEqual([200, undefined]);
  });

  it("says to the platform that it is inactive, and offers no such grant", async () => {
    const child = await childOf(await rootOf());
    const { privateKey, publicKey } = await generateKeyPair("ES256");
    const jwks = { keys: [{ ...(await exportJWK(publicKey)), kid: "a" }] };
    const [id, platform] = Object.entries(config.platforms)[0]!;
    const platforms = { [id]: { ...platform, jwks, algorithms: ["ES256"] } } as unknown as typeof config.platforms;
    const ask = async (path: string, refreshTokens: boolean, form?: Readonly<Record<string, string>>) => {
      const held = {
        ...deployment,
        config: { ...config, platforms, grants: { ...config.grants, refreshTokens } },
      };
      const init = form === undefined ? {} : { method: "POST", body: new URLSearchParams(form) };
      const answer = await authority.request(ORIGIN + path, init, { deployment: held }, createExecutionContext());
      return (await answer.json()) as Record<string, unknown>;
    };
    const assertion = () =>
      new SignJWT({ iss: id, sub: id, aud: ORIGIN, jti: crypto.randomUUID() })
        .setProtectedHeader({ alg: "ES256", kid: "a" })
        .setIssuedAt()
        .setExpirationTime("60s")
        .sign(privateKey);
    const introspect = async (token: string, refreshTokens: boolean) => {
      const client_assertion_type = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
      const form = { token, client_assertion_type, client_assertion: await assertion() };
      return (await ask("/oauth/introspect", refreshTokens, form))["active"];
    };
    expect(await introspect(child.refresh!, true)).toBe(true);
    expect(await introspect(child.refresh!, false)).toBe(false);
    expect(await introspect(child.token, false)).toBe(true);
    const offered = async (refreshTokens: boolean) =>
      (await ask("/.well-known/oauth-authorization-server", refreshTokens))["grant_types_supported"];
    expect(await offered(true)).toContain("refresh_token");
    expect(await offered(false)).not.toContain("refresh_token");
  });

  it("gives a sub-agent no more time than its parent's grant has, which is its last", async () => {
    const root = await rootOf();
    const before = await enrolmentOf((await childOf(root)).id);
    expect(before.task.deadlineMs).toBe(root.agent.enrolment.task.deadlineMs);
    grants.refreshTokens = false;
    const after = await enrolmentOf((await childOf(root)).id);
    expect(after.task.deadlineMs).toBe(root.agent.grant.expiresAtMs);
    expect(after.refreshDigest).toBeNull();
    const asked = childOf(root, { deadline: String(root.agent.grant.expiresAtMs / 1_000 + 1) });
    await expect(asked).rejects.toThrow(/deadline/);
  });
});
