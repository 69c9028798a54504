// Cross App Access: the identity provider's own word that this platform may act here for this human (STANDARDS: ID-JAG profile of
// RFC 7523). Each negative of the profile, and each bound that an assertion may state.

import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { humans } from "../../scripts/local/humans.ts";
import {
  type Answer,
  DETAILS,
  type Harness,
  type Members,
  makeKey,
  nowSeconds,
  type SigningKey,
  signCompact,
  startHarness,
} from "./harness.ts";

const JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const ISSUES = { ...DETAILS[0]! };
const COMMENTS = { ...ISSUES, operations: ["POST /repos/{owner}/{repo}/issues/{issue_number}/comments"] };

let h: Harness;
beforeAll(async () => {
  const idJag = {
    clients: { "build-platform": "builder-at-corp" },
    scopes: { "issues:read": [ISSUES as never], nothing: [] },
  };
  h = await startHarness({ addresses: { flushAfterMs: 100, idJag } });
});
afterAll(() => h.close());

/** Right, unless it is spoilt. */
const idJag = (claims: Members = {}, header: Members = {}, key = h.providerKey): string =>
  signCompact(
    key,
    { alg: key.alg, typ: "oauth-id-jag+jwt", kid: h.secrets.identityProviderKey.kid, ...header },
    {
      iss: h.idp.issuer,
      sub: humans.ada.sub,
      aud: h.origin,
      client_id: "builder-at-corp",
      jti: randomUUID(),
      exp: nowSeconds() + 300,
      iat: nowSeconds(),
      email: humans.ada.email,
      groups: humans.ada.groups,
      ...claims,
    },
  );

const ask = (assertion: string, form: Members = {}, key: SigningKey = makeKey()): Promise<Answer> => {
  const { subject_token: _, subject_token_type: __, ...rest } = h.exchangeForm();
  return h.post("/oauth/token", { ...rest, grant_type: JWT_BEARER, assertion, ...form } as never, {
    DPoP: h.proof(key),
  });
};
const said = ({ json }: Answer): string => `${json["error"]}: ${json["error_description"]}`;

describe("an ID-JAG", () => {
  it("becomes a grant of its human's that works, without a refresh token", async () => {
    const key = makeKey();
    const { status, json } = await ask(idJag({ aud: [h.origin] }), {}, key);
    expect([status, json["token_type"], json["refresh_token"]]).toEqual([200, "DPoP", undefined]);
    expect(json["authorization_details"]).toEqual(DETAILS);
    // The upstream is out of reach here; the gate let the call go.
    expect((await h.call(key, json["access_token"] as string)).status).toBe(502);
    const introspected = (await h.introspect(json["access_token"] as string)).json;
    const { json: byIdToken } = await h.provision();
    const same = (await h.introspect(byIdToken["access_token"] as string)).json;
    // However their word comes, it is one human: a kill of them reaches both.
    expect(introspected["human"]).toBe(same["human"]);
  });

  it("is announced", async () => {
    const { json } = await h.send("/.well-known/oauth-authorization-server", {});
    expect(json["grant_types_supported"]).toContain(JWT_BEARER);
    expect(json["authorization_grant_profiles_supported"]).toEqual(["urn:ietf:params:oauth:grant-profile:id-jag"]);
  });

  it.each<[name: string, assertion: () => string, reason: string]>([
    ["an ID token", () => h.idToken(), "typ is not that of an ID-JAG"],
    ["without typ", () => idJag({}, { typ: undefined }), "typ is not that of an ID-JAG"],
    ["a grant of ours", () => h.grant(makeKey()), "typ is not that of an ID-JAG"],
    ["of the typ of a security event", () => idJag({}, { typ: "secevent+jwt" }), "typ is not that of an ID-JAG"],
    ["alg none", () => idJag({}, { alg: "none" }), "alg is not allowed"],
    ["by another key", () => idJag({}, {}, makeKey()), "the signature: ERR_JWS_SIGNATURE_VERIFICATION_FAILED"],
    ["of another issuer", () => idJag({ iss: "https://other.example" }), "iss is not the configured provider"],
    ["for another gate", () => idJag({ aud: "https://other.example" }), "aud is not this gate alone"],
    ["for us and another", () => idJag({ aud: [h.origin, "https://x.example"] }), "aud is not this gate alone"],
    ["for nobody", () => idJag({ aud: [] }), "aud is not this gate alone"],
    ["for the token endpoint", () => idJag({ aud: `${h.origin}/oauth/token` }), "aud is not this gate alone"],
    ["without aud", () => idJag({ aud: undefined }), "aud is not this gate alone"],
    ["of another client", () => idJag({ client_id: "other" }), "client_id is another client"],
    ["of the platform's name here", () => idJag({ client_id: "build-platform" }), "client_id is another client"],
    ["without client_id", () => idJag({ client_id: undefined }), "client_id is another client"],
    ["without jti", () => idJag({ jti: undefined }), "jti"],
    ["with an empty jti", () => idJag({ jti: "" }), "jti"],
    ["with a jti that is no text", () => idJag({ jti: 7 }), "jti"],
    ["with a long jti", () => idJag({ jti: "j".repeat(257) }), "jti"],
    ["without sub", () => idJag({ sub: undefined }), "sub"],
    ["without exp", () => idJag({ exp: undefined }), "expired"],
    ["without iat", () => idJag({ iat: undefined }), "iat is in the future"],
    ["expired", () => idJag({ exp: nowSeconds() - 61, iat: nowSeconds() - 300 }), "expired"],
    ["of the future", () => idJag({ iat: nowSeconds() + 120 }), "iat is in the future"],
    ["not valid yet", () => idJag({ nbf: nowSeconds() + 120 }), "not valid yet"],
    ["that lives too long", () => idJag({ exp: nowSeconds() + 3_700 }), "it lives longer than an hour"],
    ["of a tenant", () => idJag({ tenant: "acme" }), "tenant is another"],
    ["with groups that are none", () => idJag({ groups: "engineering" }), "the groups claim is not a list of strings"],
    ["confirmed by what nobody knows", () => idJag({ cnf: { kid: "k" } }), "cnf names no key by its thumbprint"],
    ["confirmed by more than a key", () => idJag({ cnf: { jkt: "k", x: 1 } }), "cnf names no key by its thumbprint"],
    [
      "bound to another key",
      () => idJag({ cnf: { jkt: makeKey().thumbprint } }),
      "cnf is another key than the proof's",
    ],
    ["with a scope that is none", () => idJag({ scope: ["issues:read"] }), "scope is not a text"],
    ["with a resource that is none", () => idJag({ resource: 1 }), "resource is not a text or a list of texts"],
    [
      "with details that are none",
      () => idJag({ authorization_details: [{ type: "x" }] }),
      "authorization_details can't be read",
    ],
    ["with details null", () => idJag({ authorization_details: null }), "authorization_details can't be read"],
    ["of a tenant null", () => idJag({ tenant: null }), "tenant is another"],
    ["for another actor", () => idJag({ may_act: { sub: "other" } }), "may_act does not name this client alone"],
    ["for nobody to act", () => idJag({ may_act: null }), "may_act does not name this client alone"],
    [
      "bound to a key by more than one way",
      () => idJag({ cnf: { jkt: "k", "x5t#S256": "x" } }),
      "cnf names no key by its thumbprint",
    ],
    ["with spaces in it", () => `${idJag()} `, "not canonical base64url"],
  ])("is refused: %s", async (_name, assertion, reason) => {
    const answer = await ask(assertion());
    expect([answer.status, said(answer)]).toEqual([400, `invalid_grant: assertion: ${reason}`]);
  });

  it("is good once, also of ten at a time", async () => {
    const assertion = idJag();
    const answers = await Promise.all(Array.from({ length: 10 }, () => ask(assertion)));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1);
    for (const answer of answers.filter(({ status }) => status !== 200))
      expect(said(answer)).toBe("invalid_grant: assertion: it was used before");
    expect(said(await ask(assertion))).toBe("invalid_grant: assertion: it was used before");
  });

  it("that was refused for what was asked is not used up", async () => {
    const assertion = idJag();
    expect(said(await ask(assertion, { purpose: undefined }))).toMatch(/purpose/);
    expect((await ask(assertion)).status).toBe(200);
  });

  it("bound to the proof's key is good with it", async () => {
    const key = makeKey();
    expect((await ask(idJag({ cnf: { jkt: key.thumbprint } }), {}, key)).status).toBe(200);
  });

  const exceeds = (what: string) =>
    `invalid_authorization_details: authorization_details[0] exceeds the assertion's ${what}`;
  const both = { authorization_details: JSON.stringify([COMMENTS]) };
  it.each<[name: string, claims: () => Members, form: Members, said: string]>([
    ["details", () => ({ authorization_details: [ISSUES] }), both, exceeds("authorization_details")],
    ["no details at all", () => ({ authorization_details: [] }), {}, exceeds("authorization_details")],
    ["a scope", () => ({ scope: "issues:read" }), both, exceeds("scope")],
    ["a scope that nobody knows", () => ({ scope: "issues:all" }), {}, exceeds("scope")],
    ["a scope named like what every object has", () => ({ scope: "constructor" }), {}, exceeds("scope")],
    ["an empty scope", () => ({ scope: "" }), {}, exceeds("scope")],
    [
      "a scope, and details beside it",
      () => ({ scope: "nothing", authorization_details: [ISSUES] }),
      {},
      exceeds("scope"),
    ],
    [
      "a resource",
      () => ({ resource: `${h.origin}/slack` }),
      {},
      "invalid_target: a resource is not one that the assertion names",
    ],
    [
      "no resource at all",
      () => ({ resource: [] }),
      {},
      "invalid_target: a resource is not one that the assertion names",
    ],
    [
      "groups",
      () => ({ groups: undefined }),
      {},
      "invalid_authorization_details: authorization_details[0]: 'GET /repos/{owner}/{repo}/issues' exceeds the human's entitlement",
    ],
  ])("is a bound: by %s", async (_name, claims, form, expected) => {
    expect(said(await ask(idJag(claims()), form))).toBe(expected);
  });

  it.each<[name: string, claims: () => Members]>([
    ["the details", () => ({ authorization_details: [ISSUES, COMMENTS] })],
    ["the scope", () => ({ scope: "nothing issues:read" })],
    ["the resource", () => ({ resource: [`${h.origin}/github`] })],
    ["the gate as a whole", () => ({ resource: h.origin })],
  ])("is granted within %s", async (_name, claims) => {
    expect((await ask(idJag(claims()))).status).toBe(200);
  });
});

describe("beside it", () => {
  it("the platform must authenticate, and show the instance's key", async () => {
    expect((await ask(idJag(), { client_assertion: undefined })).json["error"]).toBe("invalid_client");
    const { subject_token: _, subject_token_type: __, ...form } = h.exchangeForm();
    const unproven = await h.post("/oauth/token", { ...form, grant_type: JWT_BEARER, assertion: idJag() });
    expect(unproven.json["error"]).toBe("invalid_dpop_proof");
  });
  it("an assertion that is missing is said so, and `scope` is refused", async () => {
    expect(said(await ask("", {}))).toBe("invalid_request: assertion is missing");
    expect(said(await ask(idJag(), { scope: "issues:read" }))).toMatch(/^invalid_scope/);
  });
  it("it is no subject token, and no access token at the gate", async () => {
    const asSubject = await h.exchange({ form: { subject_token: idJag({ aud: "build-platform-app" }) } });
    expect(said(asSubject)).toBe("invalid_request: subject_token: typ is of another kind of token");
    expect((await h.call(makeKey(), idJag())).status).toBe(401);
  });
  it("a refusal is on record with the human, as far as they were known", async () => {
    const task = "jag-refused";
    await ask(idJag({ cnf: { jkt: makeKey().thumbprint } }), { task });
    const [record] = await h.journal("authority", (line) => line["task"] === task);
    expect(record).toMatchObject({ error: "invalid_grant", client: "build-platform", human: expect.any(String) });
  });
});

describe("a platform whose provider gives none", () => {
  it("is refused, and nothing is announced", async () => {
    const other = await startHarness();
    try {
      const { subject_token: _, subject_token_type: __, ...form } = other.exchangeForm();
      const answer = await other.post(
        "/oauth/token",
        { ...form, grant_type: JWT_BEARER, assertion: idJag() },
        { DPoP: other.proof(makeKey()) },
      );
      expect(said(answer)).toMatch(/^unauthorized_client/);
      // Nor has it a door for mandates, whoever knocks.
      const { status } = await other.send("/mandates/v1/mandates", {
        headers: { authorization: `Bearer ${other.idToken({ aud: "portcullis-mandates" })}` },
      });
      expect(status).toBe(404);
    } finally {
      await other.close();
    }
  });
});
