// What lives on after the exchange: renewal by the instance, revocation (RFC 7009), introspection (RFC 7662).

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type Answer,
  DETAILS,
  type Harness,
  keyFrom,
  type Members,
  makeKey,
  nowSeconds,
  type SigningKey,
  startHarness,
} from "./harness.ts";

type Provisioned = Awaited<ReturnType<Harness["provision"]>>;

let h: Harness;
/** Its task ends in a moment: the last test of each kind looks at it. */
let brief: Provisioned;
let briefUntil: number;
let alive: Provisioned;

beforeAll(async () => {
  h = await startHarness();
  alive = await h.provision();
  briefUntil = nowSeconds() + 4;
  brief = await h.provision({ form: { deadline: String(briefUntil) } });
});
afterAll(() => h.close());

const untilBriefIsOver = () =>
  new Promise((resolve) => setTimeout(resolve, Math.max(0, briefUntil * 1_000 - Date.now()) + 50));
const said = ({ status, json }: Answer): string =>
  json["error"] === undefined ? String(status) : `${status} ${json["error"]}: ${json["error_description"]}`;
const payloadOf = (jws: unknown) =>
  JSON.parse(Buffer.from(String(jws).split(".")[1] ?? "", "base64url").toString()) as Record<string, unknown>;
const claimsOf = ({ json }: Answer) => payloadOf(json["access_token"]);
/** As `alive`'s, were it given long ago. */
const expired = (of: Provisioned) => {
  const { iat: _, exp: __, ...claims } = payloadOf(of.access);
  return h.grant(of.key, { ...claims, iat: nowSeconds() - 600, exp: nowSeconds() - 1 });
};
const otherSpelling = (token: string) => `${token.slice(0, -1)}${token.endsWith("A") ? "B" : "_"}`;
const revoke = (form: Readonly<Record<string, string | readonly string[]>>, headers: Record<string, string> = {}) =>
  h.post("/oauth/revoke", form, headers);
const revokeAs = (token: string, client: "build-platform" | "other-platform" = "build-platform") =>
  revoke({ ...h.clientForm(client), token });
const revokeWith = (key: SigningKey, token: string, claims: Members = {}) =>
  revoke({ token }, { DPoP: h.proof(key, { htu: `${h.origin}/oauth/revoke`, ...claims }) });

const mandateToken = (claims: Members = {}) =>
  h.grant(alive.key, { aud: h.origin, sub: "a-human", ...claims }, { typ: "portcullis-mandate+jwt" });

const INVALID_GRANT = "400 invalid_grant: the refresh token is not valid";

describe("renewal", () => {
  it("gives a new grant with the same scope and sub, and the same refresh token", async () => {
    const renewed = await h.renew(alive.key, alive.refresh);
    expect(said(renewed)).toBe("200");
    expect(renewed.headers.get("cache-control")).toBe("no-store");
    expect(renewed.json).toEqual({ ...alive.json, access_token: expect.any(String), expires_in: 300 });
    const { jti, iat, exp, ...rest } = claimsOf(renewed);
    expect({ ...payloadOf(alive.access), ...rest }).toEqual(payloadOf(alive.access));
    expect(jti).not.toBe(payloadOf(alive.access)["jti"]);
    expect(Number(exp) - Number(iat)).toBe(300);
    const introspected = await h.introspect(String(renewed.json["access_token"]));
    expect(introspected.json).toMatchObject({ active: true, jti });
  });

  it("works when the grant has run out", async () => {
    expect((await h.call(alive.key, expired(alive))).status).toBe(401);
    expect(said(await h.renew(alive.key, alive.refresh))).toBe("200");
  });

  it("may name its client", async () => {
    const form = { grant_type: "refresh_token", refresh_token: alive.refresh, client_id: "build-platform" };
    expect(said(await h.post("/oauth/token", form, { DPoP: h.proof(alive.key) }))).toBe("200");
  });

  const ringSigned = (claims: Members, header: Members = {}, by = h.grantKey) =>
    h.grant(alive.key, { ...payloadOf(alive.refresh), ...claims }, { typ: "portcullis-refresh+jwt", ...header }, by);
  const cases: [name: string, send: () => Promise<Answer> | Answer, reason: string][] = [
    ["another key", () => h.renew(makeKey(), alive.refresh), INVALID_GRANT],
    ["another instance's token", async () => h.renew((await h.provision()).key, alive.refresh), INVALID_GRANT],
    ["the grant in its place", () => h.renew(alive.key, alive.access), INVALID_GRANT],
    ["an ID token in its place", () => h.renew(alive.key, h.idToken()), INVALID_GRANT],
    ["another spelling", () => h.renew(alive.key, otherSpelling(alive.refresh)), INVALID_GRANT],
    ["padding", () => h.renew(alive.key, `${alive.refresh}==`), INVALID_GRANT],
    ["a text", () => h.renew(alive.key, "refresh"), INVALID_GRANT],
    [
      "a token that another key signed",
      () => h.renew(alive.key, ringSigned({}, {}, makeKey("Ed25519"))),
      INVALID_GRANT,
    ],
    ["a kid that is not ours", () => h.renew(alive.key, ringSigned({}, { kid: "k" })), INVALID_GRANT],
    ["alg EdDSA", () => h.renew(alive.key, ringSigned({}, { alg: "EdDSA" })), INVALID_GRANT],
    ["typ JWT", () => h.renew(alive.key, ringSigned({}, { typ: "JWT" })), INVALID_GRANT],
    ["another issuer", () => h.renew(alive.key, ringSigned({ iss: "https://gate.example" })), INVALID_GRANT],
    ["an expired token", () => h.renew(alive.key, ringSigned({ exp: nowSeconds() - 1 })), INVALID_GRANT],
    ["no binding", () => h.renew(alive.key, ringSigned({ cnf: undefined })), INVALID_GRANT],
    ["a token of ours that is not its current one", () => h.renew(alive.key, ringSigned({ jti: "x" })), INVALID_GRANT],
    [
      "a token for a key that never enrolled",
      () => {
        const key = makeKey();
        return h.renew(key, ringSigned({ cnf: { jkt: key.thumbprint } }));
      },
      INVALID_GRANT,
    ],
    [
      "another client's name",
      () =>
        h.post(
          "/oauth/token",
          { grant_type: "refresh_token", refresh_token: alive.refresh, client_id: "other-platform" },
          { DPoP: h.proof(alive.key) },
        ),
      INVALID_GRANT,
    ],
    [
      "no token",
      () => h.post("/oauth/token", { grant_type: "refresh_token" }, { DPoP: h.proof(alive.key) }),
      "400 invalid_request: refresh_token is missing",
    ],
    [
      "no proof",
      () => h.post("/oauth/token", { grant_type: "refresh_token", refresh_token: alive.refresh }),
      "400 invalid_dpop_proof: a DPoP proof by the instance's key is required",
    ],
    [
      "a proof for a call",
      () => h.renew(alive.key, alive.refresh, { htm: "GET", htu: `${h.origin}/github` }),
      "400 invalid_dpop_proof: htm is another method",
    ],
    ...["scope", "authorization_details", "resource", "audience"].map(
      (name): [string, () => Promise<Answer>, string] => [
        `${name} besides`,
        () =>
          h.post(
            "/oauth/token",
            { grant_type: "refresh_token", refresh_token: alive.refresh, [name]: "[]" },
            { DPoP: h.proof(alive.key) },
          ),
        "400 invalid_request: a renewal keeps the scope as it is",
      ],
    ),
  ];
  it.each(cases)("is refused with %s", async (_name, send, reason) => expect(said(await send())).toBe(reason));

  it("is refused with the proof of the enrolment, and of a renewal before", async () => {
    const key = makeKey();
    const DPoP = h.proof(key);
    const { refresh_token } = (await h.exchange({ headers: { DPoP } })).json;
    const form = { grant_type: "refresh_token", refresh_token: String(refresh_token) };
    expect(said(await h.post("/oauth/token", form, { DPoP }))).toBe(INVALID_GRANT);
    const again = h.proof(key);
    expect(said(await h.post("/oauth/token", form, { DPoP: again }))).toBe("200");
    expect(said(await h.post("/oauth/token", form, { DPoP: again }))).toBe(INVALID_GRANT);
  });

  it("is given to exactly one of ten that race with one proof, and to all with a proof each", async () => {
    const form = { grant_type: "refresh_token", refresh_token: alive.refresh };
    const DPoP = h.proof(alive.key);
    const racing = await Promise.all(Array.from({ length: 10 }, () => h.post("/oauth/token", form, { DPoP })));
    expect(racing.map(said).sort()).toEqual(["200", ...Array<string>(9).fill(INVALID_GRANT)]);
    const calm = await Promise.all(Array.from({ length: 5 }, () => h.renew(alive.key, alive.refresh)));
    expect(calm.map(said)).toEqual(Array(5).fill("200"));
    expect(new Set(calm.map((answer) => claimsOf(answer)["jti"])).size).toBe(5);
  });

  it("is refused after a kill and after a revocation, without saying which", async () => {
    const [killed, revoked] = [await h.provision(), await h.provision()];
    expect((await h.kill(killed.key.thumbprint)).status).toBe(201);
    expect((await revokeAs(revoked.access)).status).toBe(200);
    expect(said(await h.renew(killed.key, killed.refresh))).toBe(INVALID_GRANT);
    expect(said(await h.renew(revoked.key, revoked.refresh))).toBe(INVALID_GRANT);
  });

  it("ends with the task, and never reaches beyond it", async () => {
    const answer = await h.renew(brief.key, brief.refresh);
    if (answer.status === 200) expect(claimsOf(answer)["exp"]).toBe(briefUntil);
    await untilBriefIsOver();
    expect(said(await h.renew(brief.key, brief.refresh))).toBe(INVALID_GRANT);
    expect((await h.call(brief.key, brief.access)).status).toBe(401);
  });
});

describe("introspection", () => {
  it("tells the platform of its own instance", async () => {
    const answer = await h.introspect(alive.access);
    expect(answer.status).toBe(200);
    expect(answer.headers.get("cache-control")).toBe("no-store");
    const { iss, sub, aud, client_id, jti, iat, exp, cnf } = payloadOf(alive.access);
    expect(answer.json).toEqual({
      active: true,
      ...{ iss, sub, aud, client_id, jti, iat, exp, cnf },
      token_type: "DPoP",
      authorization_details: DETAILS,
      act: { sub: alive.key.thumbprint, agent: "triage-bot", agent_version: "1.4.0", client_id: "build-platform" },
      human: expect.stringMatching(/^[A-Za-z0-9_-]{43}$/),
      groups: ["engineering"],
      agent: "triage-bot",
      agent_version: "1.4.0",
      task: "build-platform_t-1",
    });
    const refresh = await h.introspect(alive.refresh);
    expect(refresh.json).toMatchObject({ active: true, token_type: "refresh_token", sub, cnf });
    expect(refresh.json["exp"]).toBe(payloadOf(alive.refresh)["exp"]);
  });

  const dead = async (end: (of: Provisioned) => Promise<Answer>, which: "access" | "refresh") => {
    const of = await h.provision();
    expect((await end(of)).status).toBeLessThan(300);
    return of[which];
  };
  const inactive: [name: string, token: () => string | Promise<string>][] = [
    ["an expired grant", () => expired(alive)],
    ["the grant of a killed instance", () => dead(({ key }) => h.kill(key.thumbprint), "access")],
    ["the refresh token of a killed instance", () => dead(({ key }) => h.kill(key.thumbprint), "refresh")],
    ["a revoked grant", () => dead(({ access }) => revokeAs(access), "access")],
    ["the refresh token beside a revoked grant", () => dead(({ access }) => revokeAs(access), "refresh")],
    ["the grant beside a revoked refresh token", () => dead(({ refresh }) => revokeAs(refresh), "access")],
    ["another platform's grant", async () => (await h.provision({ client: "other-platform" })).access],
    ["another platform's refresh token", async () => (await h.provision({ client: "other-platform" })).refresh],
    ["a grant for a key that never enrolled", () => h.grant(makeKey())],
    ["a grant that another key signed", () => h.grant(alive.key, {}, {}, makeKey("Ed25519"))],
    [
      "a grant with the signature of another",
      () => `${alive.access.slice(0, alive.access.lastIndexOf("."))}.${h.grant(alive.key).split(".")[2]}`,
    ],
    ["a grant of another issuer", () => h.grant(alive.key, { iss: "https://gate.example" })],
    ["a grant in another spelling", () => otherSpelling(alive.access)],
    ["a grant with a space", () => ` ${alive.access}`],
    ["an ID token", () => h.idToken()],
    ["a text", () => "token"],
    ["a long text", () => "t".repeat(100_000)],
    ["the grant of a task that is over", () => untilBriefIsOver().then(() => brief.access)],
    ["the refresh token of a task that is over", () => untilBriefIsOver().then(() => brief.refresh)],
  ];
  it.each(inactive)("says no more than that it is not active of %s", async (_name, token) => {
    const answer = await h.introspect(await token());
    expect(answer.status).toBe(200);
    expect(answer.text).toBe('{"active":false}');
    expect(answer.headers.get("cache-control")).toBe("no-store");
  });

  it("ignores a hint, right or wrong", async () => {
    for (const token_type_hint of ["access_token", "refresh_token", "nonsense"]) {
      const answer = await h.post("/oauth/introspect", { ...h.clientForm(), token: alive.access, token_type_hint });
      expect(answer.json["active"]).toBe(true);
    }
  });

  const CLIENT = "401 invalid_client: client authentication failed";
  const refusals: [name: string, send: () => Promise<Answer>, reason: string][] = [
    ["nobody", () => h.post("/oauth/introspect", { token: alive.access }), CLIENT],
    [
      "the instance itself",
      () =>
        h.post(
          "/oauth/introspect",
          { token: alive.access },
          { DPoP: h.proof(alive.key, { htu: `${h.origin}/oauth/introspect` }) },
        ),
      CLIENT,
    ],
    [
      "the token as a credential",
      () => h.post("/oauth/introspect", { token: alive.access }, { authorization: `Bearer ${alive.access}` }),
      CLIENT,
    ],
    [
      "a platform without a token",
      () => h.post("/oauth/introspect", h.clientForm()),
      "400 invalid_request: token is missing",
    ],
    [
      "two tokens",
      () => h.post("/oauth/introspect", { ...h.clientForm(), token: [alive.access, alive.access] }),
      "400 invalid_request: a parameter is given twice",
    ],
    [
      "a query",
      () => h.post(`/oauth/introspect?token=${alive.access}`, h.clientForm()),
      "400 invalid_request: parameters belong in the body, not in the query",
    ],
    ["a GET", () => h.send(`/oauth/introspect?token=${alive.access}`, {}), "404"],
  ];
  it.each(refusals)("refuses %s", async (_name, send, reason) => {
    const answer = await send();
    expect(said(answer)).toBe(reason);
    expect(answer.text).not.toContain("active");
  });
});

describe("revocation", () => {
  const isOver = async ({ key, access, refresh }: Provisioned) => {
    expect((await h.introspect(access)).text).toBe('{"active":false}');
    expect((await h.call(key, access)).status).toBe(401);
    expect(said(await h.renew(key, refresh))).toBe(INVALID_GRANT);
  };
  const isAlive = async ({ key, access, refresh }: Provisioned) => {
    expect((await h.introspect(access)).json["active"]).toBe(true);
    expect((await h.call(key, access)).status).toBe(502);
    expect(said(await h.renew(key, refresh))).toBe("200");
  };

  const ways: [name: string, revoke: (of: Provisioned) => Promise<Answer>][] = [
    ["its platform, by the grant", ({ access }) => revokeAs(access)],
    ["its platform, by the refresh token", ({ refresh }) => revokeAs(refresh)],
    ["its platform, by a grant that has run out", (of) => revokeAs(expired(of))],
    ["itself, by the grant", ({ key, access }) => revokeWith(key, access)],
    ["itself, by the refresh token", ({ key, refresh }) => revokeWith(key, refresh)],
    [
      "its platform, with a wrong hint",
      ({ access }) => revoke({ ...h.clientForm(), token: access, token_type_hint: "refresh_token" }),
    ],
    [
      "its platform, with a hint nobody knows",
      ({ refresh }) => revoke({ ...h.clientForm(), token: refresh, token_type_hint: "nonsense" }),
    ],
    [
      "its platform, with a callback to be ignored",
      ({ access }) => revoke({ ...h.clientForm(), token: access, callback: "f" }),
    ],
  ];
  it.each(ways)("ends the instance at once: by %s", async (_name, end) => {
    const of = await h.provision();
    await isAlive(of);
    const answer = await end(of);
    expect(answer.status).toBe(200);
    expect(answer.text).toBe("");
    await isOver(of);
    // Revoked already: the same again.
    expect((await revokeAs(of.access)).status).toBe(200);
  });

  const unknown: [name: string, token: () => string | Promise<string>][] = [
    ["a text", () => "token"],
    ["an ID token", () => h.idToken()],
    ["a grant that another key signed", () => h.grant(alive.key, {}, {}, makeKey("Ed25519"))],
    ["a grant for a key that never enrolled", () => h.grant(makeKey())],
    ["a grant in another spelling", () => otherSpelling(alive.access)],
    ["another platform's mandate", () => mandateToken({ client_id: "other-platform" })],
    ["a mandate that is over", () => mandateToken({ exp: nowSeconds() - 1 })],
    [
      "a killed instance's grant",
      async () => {
        const { key, access } = await h.provision();
        await h.kill(key.thumbprint);
        return access;
      },
    ],
  ];
  it.each(unknown)("answers 200 to %s, and nothing ends", async (_name, token) => {
    const answer = await revokeAs(await token());
    expect([answer.status, answer.text]).toEqual([200, ""]);
    await isAlive(alive);
  });

  const CLIENT = "401 invalid_client: client authentication failed";
  const FOREIGN = "400 unauthorized_client: the token was issued to another client";
  const refusals: [name: string, send: () => Promise<Answer>, reason: string][] = [
    ["nobody", () => revoke({ token: alive.access }), CLIENT],
    ["another platform, with the grant", () => revokeAs(alive.access, "other-platform"), FOREIGN],
    ["another platform, with the refresh token", () => revokeAs(alive.refresh, "other-platform"), FOREIGN],
    ["another platform, with a grant that has run out", () => revokeAs(expired(alive), "other-platform"), FOREIGN],
    ["another instance", async () => revokeWith((await h.provision()).key, alive.access), FOREIGN],
    ["any key", () => revokeWith(makeKey(), alive.refresh), FOREIGN],
    [
      "its key, with a proof for the token endpoint",
      () => revokeWith(alive.key, alive.access, { htu: `${h.origin}/oauth/token` }),
      "400 invalid_dpop_proof: htu is another URL",
    ],
    [
      "its key, when a client's assertion that fails comes along",
      () =>
        revoke(
          { token: alive.access, client_assertion: "x" },
          { DPoP: h.proof(alive.key, { htu: `${h.origin}/oauth/revoke` }) },
        ),
      CLIENT,
    ],
    [
      "its platform, by the name of its key",
      () => revokeAs(`urn:ietf:params:oauth:jwk-thumbprint:sha-256:${alive.key.thumbprint}`),
      "400 unsupported_token_type: a key is named by an instance with its grant alone",
    ],
    [
      "its platform, with a mandate of its own, which would stand all the same",
      () => revokeAs(mandateToken()),
      "400 unsupported_token_type: a mandate is revoked by the human who approved it, or by an operator",
    ],
    ["its platform, without a token", () => revoke(h.clientForm()), "400 invalid_request: token is missing"],
    [
      "its platform, with two tokens",
      () => revoke({ ...h.clientForm(), token: [alive.access, alive.refresh] }),
      "400 invalid_request: a parameter is given twice",
    ],
    [
      "its platform, in a query",
      () => h.post(`/oauth/revoke?token=${alive.access}`, h.clientForm()),
      "400 invalid_request: parameters belong in the body, not in the query",
    ],
    [
      "its platform, in more than a form holds",
      () => revoke({ ...h.clientForm(), token: alive.access, more: "m".repeat(131_072) }),
      "400 invalid_request: the body is too long, or not UTF-8",
    ],
    ["a GET", () => h.send(`/oauth/revoke?token=${alive.access}&callback=f`, {}), "404"],
  ];
  it.each(refusals)("refuses %s, and nothing ends", async (_name, send, reason) => {
    expect(said(await send())).toBe(reason);
    await isAlive(alive);
  });
});

describe("signing keys", () => {
  it("rotate by kid: the new one signs, the old one verifies until it is taken away", async () => {
    const [old] = h.secrets.grantKeys.keys;
    const { privateJwk } = makeKey("Ed25519");
    const added = { ...privateJwk, kid: "new-key" } as unknown as NonNullable<typeof old>;
    if (old === undefined) throw new Error("no key");
    const rotated = await startHarness({ secrets: (made) => ({ ...made, grantKeys: { keys: [added, old] } }) });
    try {
      const { keys } = (await rotated.send("/.well-known/jwks.json", {})).json as { keys: Members[] };
      expect(keys.map(({ kid, alg, use, d }) => [kid, alg, use, d])).toEqual([
        ["new-key", "Ed25519", "sig", undefined],
        [old.kid, "Ed25519", "sig", undefined],
      ]);
      const { key, access } = await rotated.provision();
      expect(JSON.parse(Buffer.from(access.split(".")[0] ?? "", "base64url").toString())).toMatchObject({
        kid: "new-key",
      });
      const by = (kid: string, signer: SigningKey) => rotated.introspect(rotated.grant(key, {}, { kid }, signer));
      const oldKey = keyFrom(old);
      expect((await by(old.kid, oldKey)).json["active"]).toBe(true);
      expect((await by("new-key", keyFrom(added))).json["active"]).toBe(true);
      expect((await by("new-key", oldKey)).text).toBe('{"active":false}');
      expect((await by(old.kid, keyFrom(added))).text).toBe('{"active":false}');
      expect((await by("unknown", oldKey)).text).toBe('{"active":false}');
    } finally {
      await rotated.close();
    }
  });
});
