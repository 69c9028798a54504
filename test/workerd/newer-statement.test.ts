// A newer ID token beside a renewal: what it no longer lists is lost, though it entitles to nothing until a later deployment.

import { createExecutionContext, runInDurableObject } from "cloudflare:test";
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { afterEach, expect, it, vi } from "vitest";
import { Switchboard } from "../../durable-objects/switchboard.ts";
import { createProof } from "../../src/agent/instance-key.ts";
import { authority } from "../../src/authority/authority.ts";
import { humanId } from "../../src/identity/id-token.ts";
import { instanceOf } from "../../src/objects.ts";
import config, { ORIGIN } from "./config.ts";
import { childOf, linesOf, type Node, rootOf, TOKEN_URL } from "./family-kit.ts";
import { deployment, instanceStub, upstream } from "./kit.ts";

const groups = config.entitlements.groups as Record<string, unknown>;
const { engineering } = groups;
afterEach(() => {
  vi.restoreAllMocks();
  groups["engineering"] = engineering;
  delete groups["later"];
});

/** A renewal by the platform, with an ID token of now that lists these groups. */
async function renewWith(child: Node, sub: string, listed: readonly string[]): Promise<unknown> {
  const { privateKey, publicKey } = await generateKeyPair("ES256");
  const jwks = { keys: [{ ...(await exportJWK(publicKey)), kid: "a" }] };
  const jwksUri = `https://idp.test/${crypto.randomUUID()}`;
  const corp = { ...config.identityProviders["corp"]!, jwksUri };
  const [id, platform] = Object.entries(config.platforms).find(([name]) => name === "build-platform")!;
  const platforms = { [id]: { ...platform, jwks, algorithms: ["ES256"] } } as unknown as typeof config.platforms;
  const held = { ...deployment, config: { ...config, platforms, identityProviders: { corp } } };
  const outbound = vi.spyOn(globalThis, "fetch").mockImplementation(async () => Response.json(jwks));
  const sign = (claims: JWTPayload) =>
    new SignJWT(claims)
      .setProtectedHeader({ alg: "ES256", kid: "a" })
      .setIssuedAt()
      .setExpirationTime("60s")
      .sign(privateKey);
  const form = {
    grant_type: "refresh_token",
    refresh_token: child.refresh!,
    client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    client_assertion: await sign({ iss: id, sub: id, aud: ORIGIN, jti: crypto.randomUUID() }),
    subject_token_type: "urn:ietf:params:oauth:token-type:id_token",
    subject_token: await sign({ iss: corp.issuer, sub, aud: platform.subjectAudience, groups: [...listed] }),
  };
  const headers = { DPoP: await createProof(child.key, "POST", TOKEN_URL) };
  const init = { method: "POST", body: new URLSearchParams(form), headers };
  const answer = await authority.request(TOKEN_URL, init, { deployment: held }, createExecutionContext());
  outbound.mockRestore();
  return [answer.status, ((await answer.json()) as { error_description?: unknown }).error_description];
}

async function instanceOfHuman(sub: string, listed: readonly string[]): Promise<Node> {
  const human = humanId(config.identityProviders["corp"]!.issuer, sub);
  return childOf(await rootOf({ human, groups: listed, groupsAtMs: Date.now() - 60_000 }));
}

/** The next deployment: what engineering could do, another group can. */
async function deploy(child: Node): Promise<void> {
  groups["later"] = engineering;
  delete groups["engineering"];
  await runInDurableObject(instanceStub(child.id), (_, state) => state.abort("a deployment")).catch(() => {});
}

it("takes a group that entitles to nothing yet, and a later deployment does not bring it back", async () => {
  const sub = crypto.randomUUID();
  const child = await instanceOfHuman(sub, ["engineering", "later"]);
  expect(await renewWith(child, sub, ["engineering"])).toEqual([200, undefined]);
  upstream(() => Response.json([]));
  expect(await child.call()).toBe(200);
  await deploy(child);
  expect(await child.call()).toBe(404);
  expect((await instanceOf(deployment, child.id).introspect()).groups).toEqual(["engineering"]);
});

it("is no switch where it lists all of them, however often, and one where it doesn't", async () => {
  const sub = crypto.randomUUID();
  const child = await instanceOfHuman(sub, ["engineering", "chess"]);
  const switches = async () => (await linesOf(child.id)).filter(({ type }) => type === "switched").length;
  expect(await renewWith(child, sub, ["chess", "engineering", "more"])).toEqual([200, undefined]);
  expect(await switches()).toBe(0);
  for (let i = 0; i < 2; i++) expect(await renewWith(child, sub, ["engineering"])).toEqual([200, undefined]);
  await vi.waitFor(async () => expect(await switches()).toBe(1));
  upstream(() => Response.json([]));
  expect(await child.call()).toBe(200);
});

it("renews nothing where the loss does not stand: the switchboard is out of reach, or says no", async () => {
  const sub = crypto.randomUUID();
  const child = await instanceOfHuman(sub, ["engineering", "chess"]);
  const flip = vi.spyOn(Switchboard.prototype, "flip");
  flip.mockRejectedValueOnce(new Error("out of reach"));
  expect(await renewWith(child, sub, ["chess"])).toEqual([503, "try again"]);
  flip.mockResolvedValueOnce({ flipped: false });
  expect(await renewWith(child, sub, ["chess"])).toEqual([503, "try again"]);
  expect((await linesOf(child.id)).map(({ type }) => type)).toEqual(["enrolled"]);
  expect(await renewWith(child, sub, ["chess"])).toEqual([200, undefined]);
  upstream(() => Response.json([]));
  expect(await child.call()).toBe(404);
});

it("is told, and does nothing, where the instance was stopped; and of a human whom no instance has", async () => {
  const sub = crypto.randomUUID();
  const child = await instanceOfHuman(sub, ["engineering", "chess"]);
  const flip = vi.spyOn(Switchboard.prototype, "flip");
  expect(await renewWith(child, "somebody else", [])).toEqual([400, "subject_token: it is of another human"]);
  expect(await child.held.revoke()).toBe(true);
  expect(await renewWith(child, sub, [])).toEqual([400, "the instance has ended, or was stopped"]);
  expect(flip).not.toHaveBeenCalled();
});
