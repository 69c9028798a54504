// The admin's door of approvals: who may look, who may decide, and that nothing an agent holds is any good there.

import { createExecutionContext } from "cloudflare:test";
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { admin } from "../../src/admin/admin.ts";
import type { Approval } from "../../src/approval/contract.ts";
import type { Deployment } from "../../src/deployment.ts";
import { encodeBase64url } from "../../src/grant/base64url.ts";
import { emailDigest } from "../../src/identity/email-digest.ts";
import { desk, fileIn, heard, put, storyOf } from "./approval-kit.ts";
import { type Agent, deployment, enrolAgent, journalLines, type Line } from "./kit.ts";

const utf8 = new TextEncoder();
const part = (value: object): string => encodeBase64url(utf8.encode(JSON.stringify(value)));
const PATH = "/admin/v1/approvals";

let keys: CryptoKeyPair;
let jwk: JsonWebKey;
let count = 0;
let held: Deployment;
beforeAll(async () => {
  keys = (await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, [
    "sign",
    "verify",
  ])) as CryptoKeyPair;
  jwk = (await crypto.subtle.exportKey("jwk", keys.publicKey)) as JsonWebKey;
});
beforeEach(() => {
  // Keys are known by address, so every test has its own.
  const jwksUri = `https://idp.test/jwks/${count++}`;
  const { config } = deployment;
  const corp = { ...config.identityProviders["corp"]!, jwksUri };
  held = { ...deployment, config: { ...config, identityProviders: { corp } } };
  vi.spyOn(globalThis, "fetch").mockImplementation(async (input) =>
    String(input instanceof Request ? input.url : input) === jwksUri
      ? Response.json({ keys: [{ kty: "EC", crv: "P-256", x: jwk.x, y: jwk.y }] })
      : Response.json({}),
  );
});
afterEach(() => vi.restoreAllMocks());

async function idToken(claims: object = {}): Promise<string> {
  const now = Math.floor(Date.now() / 1_000);
  const all = {
    iss: "https://idp.test",
    sub: "olga",
    aud: "portcullis-admin",
    iat: now,
    exp: now + 600,
    email: "olga@acme.example",
    groups: ["approvers"],
    ...claims,
  };
  const input = `${part({ alg: "ES256", typ: "JWT" })}.${part(all)}`;
  const signature = await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, keys.privateKey, utf8.encode(input));
  return `${input}.${encodeBase64url(new Uint8Array(signature))}`;
}

async function ask(
  path: string,
  token: string,
  body?: object,
): Promise<{ status: number; json: Record<string, unknown> }> {
  const init = body === undefined ? {} : { method: "POST", body: JSON.stringify(body) };
  const headers = { authorization: `Bearer ${token}` };
  const answer = await admin.request(path, { ...init, headers }, { deployment: held }, createExecutionContext());
  const text = await answer.text();
  return { status: answer.status, json: text.startsWith("{") ? JSON.parse(text) : { text } };
}

async function asking(change: object = {}, repo = "vault"): Promise<{ agent: Agent; approval: Approval }> {
  const agent = await enrolAgent(change);
  await put(agent, "what is to be approved", fileIn(repo));
  const [found] = await heard(agent);
  return { agent, approval: (await desk().read(found!.id))! };
}
const journal = (): Promise<readonly Line[]> => journalLines("admin");
const REASON = { reason: "read it" };

describe("an approver", () => {
  it("finds what waits, sees all of it, on record, and lets it pass once", async () => {
    const { agent, approval } = await asking();
    const token = await idToken();
    const list = (await ask(`${PATH}?state=open`, token)).json as { approvals: { id: string; headers?: unknown }[] };
    const found = list.approvals.find(({ id }) => id === approval.id);
    expect(found).toMatchObject({
      state: "asked",
      method: "PUT",
      url: "https://github.test/repos/acme/vault/contents/a.txt",
    });
    expect(found?.headers).toBeUndefined();
    expect((await ask(`${PATH}/${approval.id}`, token)).json).toMatchObject({
      headers: expect.arrayContaining([["content-type", "text/plain"]]),
      body: { bytes: 22, digest: expect.stringMatching(/^[0-9a-f]{64}$/) },
    });
    expect((await ask(`${PATH}/${approval.id}/body`, token)).json).toEqual({ text: "what is to be approved" });
    const reads = (await journal()).filter((line) => line.type === "read" && line["approval"] === approval.id);
    expect(reads).toMatchObject([
      { part: null },
      { part: "request", bodyOf: approval.seq, email: "olga@acme.example" },
    ]);
    const decided = await ask(`${PATH}/${approval.id}/approve`, token, REASON);
    expect([decided.status, decided.json["state"]]).toEqual([200, "approved"]);
    expect((await put(agent, "what is to be approved")).status).toBe(200);
  });

  it("who lists what waits is on record, once for a page, and not where there is nothing", async () => {
    const [first, second] = [await asking(), await asking()];
    const token = await idToken({ sub: "lister" });
    const listings = async () =>
      (await journal())
        .filter((line) => line.type === "read" && line["approvals"] !== undefined)
        .map(({ approvals, shown, newest, oldest, email }: Line) => ({ approvals, shown, newest, oldest, email }));
    const before = (await listings()).length;
    const page = (await ask(`${PATH}?state=all&limit=2`, token)).json as { approvals: { id: string }[] };
    expect(page.approvals.map(({ id }) => id)).toEqual([second.approval.id, first.approval.id]);
    expect((await listings()).slice(before)).toEqual([
      {
        approvals: "all",
        shown: 2,
        newest: second.approval.id,
        oldest: first.approval.id,
        email: "olga@acme.example",
      },
    ]);
    // Nothing is before a request that is not known: an empty page says nothing of anybody.
    expect((await ask(`${PATH}?before=${crypto.randomUUID()}`, token)).json["approvals"]).toEqual([]);
    expect((await ask(PATH, await idToken({ groups: ["nobody"] }))).status).toBe(403);
    expect(await listings()).toHaveLength(before + 1);
  });

  it("denies with a reason, and is told when it is over", async () => {
    const { agent, approval } = await asking();
    const token = await idToken();
    expect((await ask(`${PATH}/${approval.id}/deny`, token, REASON)).status).toBe(200);
    expect((await ask(`${PATH}/${approval.id}/deny`, token, REASON)).status).toBe(200);
    const other = await ask(`${PATH}/${approval.id}/approve`, token, REASON);
    expect([other.status, other.json["detail"]]).toEqual([409, expect.stringMatching(/has decided: denied$/)]);
    expect((await put(agent, "what is to be approved")).status).toBe(404);
  });

  it.each([
    ["no reason", {}, 400],
    ["an empty one", { reason: " " }, 400],
    ["more than it takes", { reason: "x", by: "somebody else" }, 400],
  ])("needs its reason: %s", async (_, body, status) => {
    const { agent, approval } = await asking();
    expect((await ask(`${PATH}/${approval.id}/approve`, await idToken(), body)).status).toBe(status);
    expect(await storyOf(agent)).not.toContain("approval approved");
  });

  it.each(["not-an-id", crypto.randomUUID()])("finds nothing under %s", async (id) => {
    const token = await idToken();
    for (const path of [`${PATH}/${id}`, `${PATH}/${id}/body`]) expect((await ask(path, token)).status).toBe(404);
    expect((await ask(`${PATH}/${id}/approve`, token, REASON)).status).toBe(404);
  });
});

describe("nobody else decides", () => {
  it.each([
    ["an operator, auditor and viewer", { groups: ["security"] }, /role approver/],
    ["somebody without a group", { groups: [] }, /role approver/],
    ["an approver for whom the agent acts", { email: "Ada@acme.example" }, /the agent acts for you/],
    ["an approver without an address", { email: undefined }, /no e-mail address/],
    ["an approver whose address nobody has verified", { email_verified: false }, /not a verified one/],
    ["the same in words", { email_verified: "false" }, /not a verified one/],
  ])("%s", async (_, claims, why) => {
    const { agent, approval } = await asking({ emailDigest: emailDigest("ada@acme.example") });
    const refused = await ask(`${PATH}/${approval.id}/approve`, await idToken(claims), REASON);
    expect([refused.status, refused.json["detail"]]).toEqual([403, expect.stringMatching(why)]);
    const last = (await journal()).findLast(
      (line) => line.type === "refused" && String(line["path"]).includes(approval.id),
    );
    expect(last?.["reason"]).toMatch(why);
    expect((await put(agent, "what is to be approved")).status).toBe(503);
  });

  it("an approver outside of the entry's groups", async () => {
    const { approval } = await asking({}, "vault-group");
    const refused = await ask(`${PATH}/${approval.id}/approve`, await idToken(), REASON);
    expect([refused.status, refused.json["detail"]]).toEqual([403, expect.stringMatching(/the group treasury/)]);
    const token = await idToken({ groups: ["approvers", "treasury"] });
    expect((await ask(`${PATH}/${approval.id}/approve`, token, REASON)).status).toBe(200);
  });

  it("nothing that an agent or its platform holds: its grant, its proof, the human's ID token", async () => {
    const { agent, approval } = await asking();
    const tokens = [
      agent.token,
      await agent.prove("POST", `${PATH}/${approval.id}/approve`),
      // Right in all but for whom it was issued.
      await idToken({ aud: "build-platform-app" }),
      await idToken({ aud: ["portcullis-admin", "build-platform-app"] }),
    ];
    for (const token of tokens)
      for (const verb of ["approve", "deny"])
        expect((await ask(`${PATH}/${approval.id}/${verb}`, token, REASON)).status).toBe(401);
    expect((await ask(PATH, agent.token)).status).toBe(401);
    expect(await storyOf(agent)).toEqual(["approval asked"]);
  });

  it("and who neither decides nor reads transcripts does not look", async () => {
    const { approval } = await asking();
    const viewer = await idToken({ groups: ["nobody"] });
    for (const path of [PATH, `${PATH}/${approval.id}`, `${PATH}/${approval.id}/body`])
      expect((await ask(path, viewer)).status).toBe(403);
    const auditor = await idToken({ groups: ["security"] });
    expect((await ask(`${PATH}/${approval.id}`, auditor)).status).toBe(200);
  });
});
