// An identity assertion of a provider with several tenants, and of one whose word is good for a short time.

import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { afterEach, beforeAll, beforeEach, expect, it, vi } from "vitest";
import { jagGrant } from "../../src/authority/jag-grant.ts";
import type { IdentityProviderConfig } from "../../src/config/define.ts";
import { verifyIdJag } from "../../src/identity/id-jag.ts";
import config from "../workerd/config.ts";
import { deployment } from "../workerd/kit.ts";

const NOW = 1_900_000_000;
const provider: IdentityProviderConfig = {
  ...config.identityProviders["corp"]!,
  jwksUri: "https://idp.test/id-jag",
  algorithms: ["ES256"],
  maxTokenAgeSeconds: 300,
};
let pair: CryptoKeyPair;
let jwks: string;
beforeAll(async () => {
  pair = (await generateKeyPair("ES256", { extractable: true })) as CryptoKeyPair;
  jwks = JSON.stringify({ keys: [{ ...(await exportJWK(pair.publicKey)), alg: "ES256" }] });
});
beforeEach(() => void vi.spyOn(globalThis, "fetch").mockImplementation(async () => new Response(jwks)));
afterEach(() => vi.restoreAllMocks());

async function verdict(claims: Record<string, unknown>, tenant?: string): Promise<string> {
  const about = { iss: provider.issuer, sub: "ada", aud: "https://gate.test", client_id: "c", jti: "j" };
  const times = { iat: NOW, exp: NOW + 300 };
  const token = await new SignJWT({ ...about, ...times, ...claims })
    .setProtectedHeader({ alg: "ES256", typ: "oauth-id-jag+jwt" })
    .sign(pair.privateKey);
  const expected = { audience: "https://gate.test", clientId: "c", tenant };
  const jag = await verifyIdJag(token, provider, expected, NOW * 1_000);
  return jag.ok ? `of ${jag.value.human.groupsAtMs}` : `${jag.error.kind}: ${jag.error.reason}`;
}

it.each<[name: string, tenant: unknown, expected: string | undefined, verdict: string]>([
  ["the tenant itself", "acme", "acme", `of ${NOW * 1_000}`],
  ["another one", "other", "acme", "invalid: tenant is another"],
  ["none, where there are several", undefined, "acme", "invalid: tenant is another"],
  ["null, where there are several", null, "acme", "invalid: tenant is another"],
  ["a list with it", ["acme"], "acme", "invalid: tenant is another"],
  ["one, where there are not several", "acme", undefined, "invalid: tenant is another"],
])("of %s", async (_name, tenant, expected, says) => {
  expect(await verdict(tenant === undefined ? {} : { tenant }, expected)).toBe(says);
});

it("is no older than an ID token of this provider may be: its groups are as old as it is", async () => {
  const at = (iat: number) => verdict({ iat, exp: iat + 3_600 });
  expect(await at(NOW - 359)).toBe(`of ${(NOW - 359) * 1_000}`);
  expect(await at(NOW - 360)).toBe("invalid: iat is longer ago than maxTokenAgeSeconds");
});

it("of a clock that runs ahead says the groups of now", async () => {
  expect(await verdict({ iat: NOW + 60, exp: NOW + 300 })).toBe(`of ${NOW * 1_000}`);
});

it("is taken from no provider that gives none, and from none whose are switched off", async () => {
  const form = { get: (name: string) => (name === "assertion" ? "a.b.c" : undefined), all: () => [] };
  const ask = async (idJag: object | undefined) => {
    const corp = { ...provider, idJag } as IdentityProviderConfig;
    const held = { ...deployment, config: { ...config, identityProviders: { corp } } };
    const client = { id: "build-platform", platform: config.platforms["build-platform"]! };
    const answer = await jagGrant(form, client, { thumbprint: "k", jti: "j", issuedAtMs: NOW }, held, NOW * 1_000);
    return answer.ok || answer.error.code;
  };
  const none = { clients: {}, scopes: {} };
  expect(await ask(undefined)).toBe("unauthorized_client");
  expect(await ask({ ...none, enabled: false })).toBe("unauthorized_client");
  expect(await ask({ ...none, enabled: true })).toBe("invalid_grant");
});
