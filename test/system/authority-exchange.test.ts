// RFC 8693 token exchange with everything that must be refused at it: STANDARDS of client, proof, subject, task, scope.

import { createHmac, createPublicKey } from "node:crypto";
import { request } from "node:http";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type Answer,
  DETAILS,
  type ExchangeOverrides,
  encodePart,
  type Harness,
  makeKey,
  nowSeconds,
  type SigningKey,
  signCompact,
  startHarness,
} from "./harness.ts";

let h: Harness;
beforeAll(async () => {
  h = await startHarness();
});
afterAll(() => h.close());

/** What the answer says, and that it says it as RFC 6749 §5.2 asks. */
function said({ status, headers, json }: Answer): string {
  expect(headers.get("cache-control")).toBe("no-store");
  expect(headers.get("content-type")).toBe("application/json");
  if (status !== 200) expect(Object.keys(json)).toEqual(["error", "error_description"]);
  const expected = json["error"] === undefined ? 200 : json["error"] === "invalid_client" ? 401 : 400;
  expect(status).toBe(expected);
  return status === 200 ? "granted" : `${json["error"]}: ${json["error_description"]}`;
}

const payloadOf = (jws: unknown) =>
  JSON.parse(Buffer.from(String(jws).split(".")[1] ?? "", "base64url").toString()) as Record<string, unknown>;
const headerOf = (jws: unknown) =>
  JSON.parse(Buffer.from(String(jws).split(".")[0] ?? "", "base64url").toString()) as Record<string, unknown>;

const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/** The same bytes in another spelling: the unused bits of the last character are set. */
const respell = (token: string) => token.slice(0, -1) + ALPHABET[ALPHABET.indexOf(token.at(-1) ?? "") + 1];
const withSpace = (token: string, part: 0 | 1 | 2, space: string) => {
  const parts = token.split(".");
  parts[part] = `${parts[part]?.slice(0, 4)}${space}${parts[part]?.slice(4)}`;
  return parts.join(".");
};

const manyUnits = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`u${i}`, 1]));

describe("a right request", () => {
  it("is granted with what RFC 8693 and RFC 9068 ask, with a subject token from a real sign-in", async () => {
    const key = makeKey();
    const deadline = nowSeconds() + 600;
    const subject_token = await h.idp.signIn("ada", "build-platform-app");
    const answer = await h.exchange({ key, form: { subject_token, deadline: String(deadline) } });
    expect(said(answer)).toBe("granted");
    expect(answer.headers.get("pragma")).toBe("no-cache");
    expect(answer.json).toEqual({
      access_token: expect.any(String),
      issued_token_type: "urn:ietf:params:oauth:token-type:access_token",
      token_type: "DPoP",
      expires_in: 300,
      authorization_details: DETAILS,
      refresh_token: expect.any(String),
    });
    const { access_token } = answer.json;
    expect(headerOf(access_token)).toEqual({ alg: "Ed25519", typ: "at+jwt", kid: h.secrets.grantKeys.keys[0]?.kid });
    const claims = payloadOf(access_token);
    // Exactly these: nothing of the human, the task or the chain is in what the agent holds.
    expect(claims).toEqual({
      iss: h.origin,
      sub: expect.stringMatching(/^[A-Za-z0-9_-]{22}$/),
      aud: [`${h.origin}/github`],
      client_id: "build-platform",
      jti: expect.stringMatching(/^[A-Za-z0-9_-]{22}$/),
      iat: expect.any(Number),
      exp: Number(claims["iat"]) + 300,
      cnf: { jkt: key.thumbprint },
      authorization_details: DETAILS,
    });
  });

  it("has another opaque `sub` for each instance of the same human", async () => {
    const [a, b] = await Promise.all([h.provision(), h.provision()]);
    expect(payloadOf(a.access)["sub"]).not.toBe(payloadOf(b.access)["sub"]);
  });

  it("gives a grant that does not outlive the task", async () => {
    const deadline = nowSeconds() + 20;
    const { access, json } = await h.provision({ form: { deadline: String(deadline) } });
    expect(payloadOf(access)["exp"]).toBe(deadline);
    expect(json["expires_in"]).toBeLessThanOrEqual(20);
  });

  it("is narrowed by `resource` and `audience`, in `aud` and in what is granted, and stays so when renewed", async () => {
    const both = [...DETAILS, { type: "http", upstream: "slack", operations: ["POST /api/chat.postMessage"] }];
    const details = { authorization_details: JSON.stringify(both) };
    const all = await h.provision({ form: details });
    expect(payloadOf(all.access)["aud"]).toEqual([`${h.origin}/github`, `${h.origin}/slack`]);
    for (const target of [{ resource: `${h.origin}/slack` }, { audience: "slack" }]) {
      const { key, access, refresh, json } = await h.provision({ form: { ...details, ...target } });
      expect(payloadOf(access)["aud"]).toEqual([`${h.origin}/slack`]);
      expect(json["authorization_details"]).toEqual([both[1]]);
      const renewed = payloadOf((await h.renew(key, refresh)).json["access_token"]);
      expect(renewed["aud"]).toEqual([`${h.origin}/slack`]);
      expect(renewed["authorization_details"]).toEqual([both[1]]);
    }
    const twice = [`${h.origin}/slack`, `${h.origin}/github`];
    const { access } = await h.provision({ form: { ...details, resource: twice } });
    // In the order of the scope, so that a renewal says the same.
    expect(payloadOf(access)["aud"]).toEqual([`${h.origin}/github`, `${h.origin}/slack`]);
  });

  it.each<[string, ExchangeOverrides]>([
    ["an Ed25519 key", { key: makeKey("Ed25519") }],
    ["a purpose of 1000 characters", { form: { purpose: "p".repeat(1_000) } }],
    ["limits of as many units as there may be", { form: { task_limits: JSON.stringify({ units: manyUnits(64) }) } }],
    ["lower limits", { form: { task_limits: '{"calls":5,"bytes":1000}' } }],
    [
      "all of the lower limits",
      { form: { task_limits: '{"concurrency":1,"callsPerSecond":0.5,"units":{"usd":0.01}}' } },
    ],
    ["an empty parameter, which is an omitted one", { form: { scope: "", requested_token_type: "" } }],
    ["a jwt asked for", { form: { requested_token_type: "urn:ietf:params:oauth:token-type:jwt" } }],
    ["a charset", { headers: { "content-type": "application/x-www-form-urlencoded; charset=UTF-8" } }],
  ])("may have %s", async (_name, overrides) => {
    expect(said(await h.exchange(overrides))).toBe("granted");
  });
});

describe("the form (RFC 6749 §3.2)", () => {
  const cases: [name: string, send: () => Promise<Answer>, reason: string][] = [
    ["nothing", () => h.post("/oauth/token", ""), "invalid_request: grant_type is missing"],
    [
      "JSON",
      () =>
        h.post("/oauth/token", JSON.stringify(h.exchangeForm()), {
          "content-type": "application/json",
          DPoP: h.proof(makeKey()),
        }),
      "invalid_request: the body must be application/x-www-form-urlencoded",
    ],
    [
      "no media type",
      () => h.post("/oauth/token", "grant_type=x", { "content-type": "" }),
      "invalid_request: the body must be application/x-www-form-urlencoded",
    ],
    [
      "parameters in the query",
      () => h.post("/oauth/token?task=t-2", h.exchangeForm(), { DPoP: h.proof(makeKey()) }),
      "invalid_request: parameters belong in the body, not in the query",
    ],
    [
      "a parameter twice",
      () => h.exchange({ form: { task: ["t-1", "t-1"] } }),
      "invalid_request: a parameter is given twice",
    ],
    [
      "a parameter twice, once empty",
      () => h.exchange({ form: { subject_token: ["", h.idToken()] } }),
      "invalid_request: a parameter is given twice",
    ],
    [
      "an unknown parameter twice",
      () => h.exchange({ form: { other: ["1", "2"] } }),
      "invalid_request: a parameter is given twice",
    ],
    [
      "the client's assertion twice",
      () => h.exchange({ form: { client_assertion: [h.clientAssertion(), h.clientAssertion()] } }),
      "invalid_request: a parameter is given twice",
    ],
    [
      "1 MB of scope",
      () => h.exchange({ form: { authorization_details: `[${" ".repeat(1_000_000)}]` } }),
      "invalid_request: the body is too long, or not UTF-8",
    ],
    [
      "bytes that are not UTF-8",
      async () => {
        const body = Buffer.concat([Buffer.from("grant_type="), Buffer.from([0xff, 0xfe])]);
        const headers = { "content-type": "application/x-www-form-urlencoded" };
        return h.send("/oauth/token", { method: "POST", body, headers });
      },
      "invalid_request: the body is too long, or not UTF-8",
    ],
    ["another grant", () => h.exchange({ form: { grant_type: "password" } }), "unsupported_grant_type: grant_type"],
    [
      "client credentials",
      () => h.exchange({ form: { grant_type: "client_credentials" } }),
      "unsupported_grant_type: grant_type",
    ],
  ];
  it.each(cases)("refuses %s", async (_name, send, reason) => expect(said(await send())).toBe(reason));

  it.each(["GET", "PUT", "DELETE", "PATCH"])("is not read from a %s", async (method) => {
    const query = method === "GET" ? `?${new URLSearchParams(h.exchangeForm()).toString()}` : "";
    const answer = await h.send(`/oauth/token${query}`, {
      method,
      headers: { DPoP: h.proof(makeKey(), { htm: method }) },
    });
    expect(answer.status).toBe(404);
    expect(answer.text).not.toContain("token");
  });
});

describe("the client (RFC 7523)", () => {
  const assertion = (claims: object, header: object = {}) => ({
    form: { client_assertion: h.clientAssertion({ ...claims }, { ...header }) },
  });
  const cases: [name: string, overrides: () => ExchangeOverrides][] = [
    ["no credentials", () => ({ form: { client_assertion: undefined, client_assertion_type: undefined } })],
    ["a secret", () => ({ form: { client_secret: "s" } })],
    ["another assertion type", () => ({ form: { client_assertion_type: "urn:ietf:params:oauth:x" } })],
    ["another method besides", () => ({ headers: { authorization: "Basic YTpi" } })],
    ["a client nobody knows", () => assertion({ iss: "who", sub: "who" })],
    ["a client called constructor", () => assertion({ iss: "constructor", sub: "constructor" })],
    [
      "another platform's key",
      () => ({
        form: {
          client_assertion: h.clientAssertion({ iss: "build-platform", sub: "build-platform" }, {}, "other-platform"),
        },
      }),
    ],
    ["another platform's client_id", () => ({ form: { client_id: "other-platform" } })],
    ["an audience elsewhere", () => assertion({ aud: "https://other.example" })],
    ["a lifetime of an hour", () => assertion({ exp: nowSeconds() + 3_600 })],
    ["an expired assertion", () => assertion({ exp: nowSeconds() - 60 })],
    ["an ID token", () => ({ form: { client_assertion: h.idToken() } })],
    ["a grant of ours", () => ({ form: { client_assertion: h.grant(makeKey()) } })],
    ["alg none", () => assertion({}, { alg: "none" })],
    ["another spelling", () => ({ form: { client_assertion: respell(h.clientAssertion()) } })],
  ];
  it.each(cases)("with %s is told nothing but that it failed", async (_name, overrides) =>
    expect(said(await h.exchange(overrides()))).toBe("invalid_client: client authentication failed"));
});

describe("the proof (RFC 9449 §4.3)", () => {
  const other = makeKey();
  const bad: [name: string, proof: (key: SigningKey) => string | undefined, reason: string][] = [
    ["none", () => undefined, "a DPoP proof by the instance's key is required"],
    ["two, joined", (key) => `${h.proof(key)}, ${h.proof(key)}`, "not a JWS in compact form"],
    ["no JWS", () => "hello", "not a JWS in compact form"],
    ["the JSON serialisation", () => '{"payload":"","signatures":[]}', "not a JWS in compact form"],
    ["no typ", (key) => h.proof(key, {}, { typ: undefined }), "typ is not 'dpop+jwt'"],
    ["typ JWT", (key) => h.proof(key, {}, { typ: "JWT" }), "typ is not 'dpop+jwt'"],
    ["typ at+jwt", (key) => h.proof(key, {}, { typ: "at+jwt" }), "typ is not 'dpop+jwt'"],
    ["alg none", (key) => h.proof(key, {}, { alg: "none" }), "alg is not one of ES256, Ed25519"],
    ["alg HS256", (key) => h.proof(key, {}, { alg: "HS256" }), "alg is not one of ES256, Ed25519"],
    ["alg EdDSA", (key) => h.proof(key, {}, { alg: "EdDSA" }), "alg is not one of ES256, Ed25519"],
    ["alg of another key", (key) => h.proof(key, {}, { alg: "Ed25519" }), "jwk is not a public key for alg"],
    ["a private key", (key) => h.proof(key, {}, { jwk: key.privateJwk }), "jwk is not a public key for alg"],
    ["a secret key", (key) => h.proof(key, {}, { jwk: { kty: "oct", k: "AAAA" } }), "jwk is not a public key for alg"],
    [
      "a point off its curve",
      (key) => h.proof(key, {}, { jwk: { ...key.publicJwk, y: Buffer.alloc(32, 7).toString("base64url") } }),
      "the signature does not verify",
    ],
    ["a kid only", (key) => h.proof(key, {}, { jwk: undefined, kid: "k" }), "no jwk in the header"],
    ["a certificate besides", (key) => h.proof(key, {}, { x5c: ["AAAA"] }), "a key besides jwk"],
    ["a key set's address", (key) => h.proof(key, {}, { jku: "http://127.0.0.1:9/jwks" }), "a key besides jwk"],
    ["another key's signature", (key) => h.proof(key, {}, { jwk: other.publicJwk }), "the signature does not verify"],
    ["no jti", (key) => h.proof(key, { jti: undefined }), "jti"],
    ["an empty jti", (key) => h.proof(key, { jti: "" }), "jti"],
    ["a jti that is a number", (key) => h.proof(key, { jti: 7 }), "jti"],
    ["a jti one over the cap", (key) => h.proof(key, { jti: "j".repeat(129) }), "jti"],
    ["no htm", (key) => h.proof(key, { htm: undefined }), "htm is another method"],
    ["htm GET", (key) => h.proof(key, { htm: "GET" }), "htm is another method"],
    ["htm post", (key) => h.proof(key, { htm: "post" }), "htm is another method"],
    ["no htu", (key) => h.proof(key, { htu: undefined }), "htu is another URL"],
    ["another path", (key) => h.proof(key, { htu: `${h.origin}/oauth/revoke` }), "htu is another URL"],
    ["a slash more", (key) => h.proof(key, { htu: `${h.origin}/oauth/token/` }), "htu is another URL"],
    ["another host", (key) => h.proof(key, { htu: "http://gate.example/oauth/token" }), "htu is another URL"],
    ["the upstream", (key) => h.proof(key, { htu: "http://127.0.0.1:9/oauth/token" }), "htu is another URL"],
    [
      "another scheme",
      (key) => h.proof(key, { htu: `${h.origin.replace("http:", "https:")}/oauth/token` }),
      "htu is another URL",
    ],
    ["a user before the host", (key) => h.proof(key, { htu: h.origin.replace("//", "//a@") }), "htu is another URL"],
    ["no iat", (key) => h.proof(key, { iat: undefined }), "iat"],
    ["iat a text", (key) => h.proof(key, { iat: String(nowSeconds()) }), "iat"],
    ["iat a fraction", (key) => h.proof(key, { iat: nowSeconds() + 0.5 }), "iat"],
    ["iat below zero", (key) => h.proof(key, { iat: -1 }), "iat"],
    ["iat too old", (key) => h.proof(key, { iat: nowSeconds() - 121 }), "iat is outside of the window"],
    ["iat too far ahead", (key) => h.proof(key, { iat: nowSeconds() + 32 }), "iat is outside of the window"],
    [
      "iat beyond numbers",
      (key) => rawProof(key, `{"jti":"j","htm":"POST","htu":"${h.origin}/oauth/token","iat":1e400}`),
      "payload: number out of range",
    ],
    [
      "a key twice",
      (key) =>
        rawProof(key, `{"jti":"j","jti":"k","htm":"POST","htu":"${h.origin}/oauth/token","iat":${nowSeconds()}}`),
      "payload: duplicate key",
    ],
    ["crit", (key) => h.proof(key, {}, { crit: ["x"], x: 1 }), "an extension that is not understood (crit)"],
    ["more than 8 kB", (key) => h.proof(key, { more: "m".repeat(8_192) }), "the token is too long"],
    ["depth", (key) => rawProof(key, `{"a":${"[".repeat(40)}${"]".repeat(40)}}`), "payload: nested deeper than"],
    ["another spelling", (key) => respell(h.proof(key)), "not canonical base64url"],
    ["padding", (key) => `${h.proof(key)}==`, "not canonical base64url"],
    ["a space inside", (key) => withSpace(h.proof(key), 2, " "), "not canonical base64url"],
    ["a payload that is no object", (key) => rawProof(key, "[]"), "header and payload must be objects"],
  ];
  const rawProof = (key: SigningKey, payload: string) =>
    signCompact(key, { typ: "dpop+jwt", alg: key.alg, jwk: key.publicJwk }, payload);

  it.each(bad)("is refused: %s", async (_name, proof, reason) => {
    const key = makeKey();
    const answer = said(await h.exchange({ key, headers: { DPoP: proof(key) } }));
    expect(answer.startsWith(`invalid_dpop_proof: ${reason}`), answer).toBe(true);
  });

  const good: [name: string, proof: (key: SigningKey) => string][] = [
    ["a query", (key) => h.proof(key, { htu: `${h.origin}/oauth/token?a=b` })],
    ["a fragment", (key) => h.proof(key, { htu: `${h.origin}/oauth/token#f` })],
    ["a scheme in capitals", (key) => h.proof(key, { htu: `${h.origin.replace("http", "HTTP")}/oauth/token` })],
    ["an escape that none needs", (key) => h.proof(key, { htu: `${h.origin}/%6fauth/t%6Fken` })],
    ["its full media type", (key) => h.proof(key, {}, { typ: "application/dpop+jwt" })],
    ["an iat of nearly two minutes ago", (key) => h.proof(key, { iat: nowSeconds() - 115 })],
    ["an iat a little ahead", (key) => h.proof(key, { iat: nowSeconds() + 25 })],
    ["a jti at the cap", (key) => h.proof(key, { jti: "j".repeat(128) })],
  ];
  it.each(good)("is accepted with %s", async (_name, proof) => {
    const key = makeKey();
    expect(said(await h.exchange({ key, headers: { DPoP: proof(key) } }))).toBe("granted");
  });

  it("is refused where two headers bring it", async () => {
    const key = makeKey();
    const body = new URLSearchParams(h.exchangeForm()).toString();
    const text = await new Promise<string>((resolve, reject) => {
      const headers = { "content-type": "application/x-www-form-urlencoded", DPoP: [h.proof(key), h.proof(key)] };
      const sent = request(`${h.origin}/oauth/token`, { method: "POST", headers }, (response) => {
        let read = "";
        response.on("data", (data: Buffer) => {
          read += data.toString();
        });
        response.on("end", () => resolve(read));
      });
      sent.on("error", reject);
      sent.end(body);
    });
    expect(JSON.parse(text)).toEqual({
      error: "invalid_dpop_proof",
      error_description: "not a JWS in compact form",
    });
  });

  const enrolled = "invalid_request: this key is enrolled already: every instance needs a key of its own";

  it("enrols once: the same proof again, and another by the same key, are refused", async () => {
    const key = makeKey();
    const DPoP = h.proof(key);
    expect(said(await h.exchange({ headers: { DPoP } }))).toBe("granted");
    expect(said(await h.exchange({ headers: { DPoP } }))).toBe(enrolled);
    expect(said(await h.exchange({ key }))).toBe(enrolled);
    expect(said(await h.exchange({ key, client: "other-platform" }))).toBe(enrolled);
  });

  it("enrols exactly one of ten that race with it", async () => {
    const DPoP = h.proof(makeKey());
    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, i) => h.exchange({ headers: { DPoP }, form: { task: `race-${i}` } })),
    );
    expect(answers.map(said).filter((text) => text === "granted")).toHaveLength(1);
    expect(answers.map(said).filter((text) => text === enrolled)).toHaveLength(9);
  });
});

const [APP, MAY_ACT] = ["build-platform-app", "may_act does not name this client alone"] as const;

describe("the subject token", () => {
  const publicPem = () =>
    createPublicKey({ key: { ...h.providerKey.publicJwk }, format: "jwk" }).export({ type: "spki", format: "pem" });
  const hs256 = (secret: string | Buffer) => {
    const [, payload] = h.idToken().split(".");
    const input = `${encodePart({ alg: "HS256", typ: "JWT" })}.${payload}`;
    return `${input}.${createHmac("sha256", secret).update(input).digest("base64url")}`;
  };

  const cases: [name: string, token: () => string | Promise<string>, reason: string][] = [
    ["issued to another client", () => h.idp.signIn("ada", "other-app"), "aud is another client"],
    ["issued to the admin client", () => h.idp.signIn("oscar", "portcullis-admin"), "aud is another client"],
    [
      "for two audiences",
      () => h.idToken({ aud: ["build-platform-app", "other-app"], azp: "build-platform-app" }),
      "aud is another client",
    ],
    ["for the gate", () => h.idToken({ aud: h.origin }), "aud is another client"],
    ["without aud", () => h.idToken({ aud: undefined }), "aud is another client"],
    ["asked for by another client", () => h.idToken({ azp: "other-app" }), "azp is another client"],
    ["of another issuer", () => h.idToken({ iss: "https://idp.example" }), "iss is not the configured provider"],
    ["of the issuer with a slash", () => h.idToken({ iss: `${h.idp.issuer}/` }), "iss is not the configured provider"],
    ["of no issuer", () => h.idToken({ iss: undefined }), "iss is not the configured provider"],
    ["expired", () => h.idToken({ exp: nowSeconds() - 61 }), "expired"],
    ["without exp", () => h.idToken({ exp: undefined }), "expired"],
    ["with exp as text", () => h.idToken({ exp: String(nowSeconds() + 60) }), "expired"],
    ["not valid yet", () => h.idToken({ nbf: nowSeconds() + 120 }), "not valid yet"],
    ["issued in the future", () => h.idToken({ iat: nowSeconds() + 120 }), "iat is in the future"],
    ["without iat", () => h.idToken({ iat: undefined }), "iat is in the future"],
    [
      "issued more than a day ago",
      () => h.idToken({ iat: nowSeconds() - 86_500 }),
      "iat is longer ago than maxTokenAgeSeconds",
    ],
    ["without sub", () => h.idToken({ sub: undefined }), "sub"],
    ["with an empty sub", () => h.idToken({ sub: "" }), "sub"],
    ["with a sub of 256 characters", () => h.idToken({ sub: "s".repeat(256) }), "sub"],
    ["with groups that are no list", () => h.idToken({ groups: "engineering" }), "the groups claim is not a list"],
    ["with a group that is no text", () => h.idToken({ groups: [1] }), "the groups claim is not a list"],
    ["with 501 groups", () => h.idToken({ groups: Array(501).fill("g") }), "the groups claim is not a list"],
    ["that names another actor", () => h.idToken({ may_act: { sub: "other-app" } }), MAY_ACT],
    ["that names its actor elsewhere", () => h.idToken({ may_act: { sub: APP, iss: "https://x.example" } }), MAY_ACT],
    ["that names its actor and more", () => h.idToken({ may_act: { sub: APP, email: "a@x.example" } }), MAY_ACT],
    ["that names no actor", () => h.idToken({ may_act: {} }), MAY_ACT],
    ["whose actors are a list", () => h.idToken({ may_act: [{ sub: APP }] }), MAY_ACT],
    ["that is a security event", () => h.idToken({ events: {} }), "a security event is not a person"],
    ...[
      "at+jwt",
      "dpop+jwt",
      "logout+jwt",
      "secevent+jwt",
      "oauth-id-jag+jwt",
      "application/at+jwt",
      "portcullis-refresh+jwt",
      "portcullis-mandate+jwt",
      "portcullis-delegation+jwt",
      "token-introspection+jwt",
      "txntoken+jwt",
      "",
    ].map((typ): [string, () => string, string] => [
      `typ '${typ}'`,
      () => h.idToken({}, { typ }),
      "typ is of another kind",
    ]),
    ["with a typ that is no text", () => h.idToken({}, { typ: 1 }), "typ is of another kind"],
    [
      "alg none, without signature",
      () => `${h.idToken({}, { alg: "none" }).split(".").slice(0, 2).join(".")}.`,
      "an empty part",
    ],
    ["alg none", () => h.idToken({}, { alg: "none" }), "alg is not allowed"],
    ["alg NONE", () => h.idToken({}, { alg: "NONE" }), "alg is not allowed"],
    ["no alg", () => h.idToken({}, { alg: undefined }), "alg is not allowed"],
    ["HS256 with the public key as its secret, PEM", () => hs256(publicPem()), "alg is not allowed"],
    [
      "HS256 with the public key as its secret, x",
      () => hs256(Buffer.from(h.providerKey.publicJwk["x"] ?? "", "base64url")),
      "alg is not allowed",
    ],
    [
      "an alg that the provider does not use",
      () => h.idToken({}, { alg: "Ed25519" }, makeKey("Ed25519")),
      "alg is not allowed",
    ],
    [
      "signed by another key",
      () => h.idToken({}, {}, makeKey()),
      "the signature: ERR_JWS_SIGNATURE_VERIFICATION_FAILED",
    ],
    [
      "of an unknown kid",
      () => h.idToken({}, { kid: "unknown" }, makeKey()),
      "the signature: ERR_JWKS_NO_MATCHING_KEY",
    ],
    [
      "with a key of its own",
      () => {
        const key = makeKey();
        return h.idToken({}, { kid: undefined, jwk: key.publicJwk }, key);
      },
      "the signature: ERR_JWS_SIGNATURE_VERIFICATION_FAILED",
    ],
    [
      "with another payload",
      () => {
        const [head, , mac] = h.idToken().split(".");
        return `${head}.${h.idToken({ sub: "root" }).split(".")[1]}.${mac}`;
      },
      "the signature: ERR_JWS_SIGNATURE_VERIFICATION_FAILED",
    ],
    ["with crit", () => h.idToken({}, { crit: ["exp"] }), "an extension that is not understood (crit)"],
    ["with b64", () => h.idToken({}, { b64: false }), "an extension that is not understood (crit)"],
    ["in another spelling", () => respell(h.idToken()), "not canonical base64url"],
    ["with padding", () => `${h.idToken()}==`, "not canonical base64url"],
    ["with a space in the header", () => withSpace(h.idToken(), 0, " "), "not canonical base64url"],
    ["with a newline in the payload", () => withSpace(h.idToken(), 1, "\n"), "not canonical base64url"],
    ["with a space in the signature", () => withSpace(h.idToken(), 2, " "), "not canonical base64url"],
    ["with a space behind", () => `${h.idToken()} `, "not canonical base64url"],
    [
      "in the standard alphabet",
      () => h.idToken({ x: "???>>>~~~" }).replaceAll("_", "/").replaceAll("-", "+").replace(/$/, "+"),
      "not canonical base64url",
    ],
    ["encrypted", () => `${h.idToken()}.a.b`, "not a JWS in compact form"],
    ["of no shape", () => "hello", "not a JWS in compact form"],
    ["of 33 kB", () => h.idToken({ more: "m".repeat(33_000) }), "the token is too long"],
    ["that is our own grant", async () => (await h.provision()).access, "typ is of another kind of token"],
    ["that is our own refresh token", async () => (await h.provision()).refresh, "typ is of another kind of token"],
    ["that is a client assertion", () => h.clientAssertion(), "iss is not the configured provider"],
    ["that is a proof", () => h.proof(makeKey()), "typ is of another kind of token"],
  ];
  it.each(cases)("is refused: %s", async (_name, token, reason) => {
    const answer = said(await h.exchange({ form: { subject_token: await token() } }));
    expect(answer.startsWith(`invalid_request: subject_token: ${reason}`), answer).toBe(true);
  });

  it("that names this client as its actor is granted", async () => {
    for (const may_act of [{ sub: APP }, { sub: APP, iss: h.idp.issuer }])
      expect(said(await h.exchange({ form: { subject_token: h.idToken({ may_act }) } }))).toBe("granted");
  });

  it("of another platform's client is that platform's alone", async () => {
    const subject_token = await h.idp.signIn("ada", "other-app");
    expect(said(await h.exchange({ client: "other-platform", form: { subject_token } }))).toBe("granted");
    const mine = await h.idp.signIn("ada", "build-platform-app");
    const answer = await h.exchange({ client: "other-platform", form: { subject_token: mine } });
    expect(said(answer)).toBe("invalid_request: subject_token: aud is another client");
  });

  it.each<[string, Record<string, string | undefined>, string]>([
    ["missing", { subject_token: undefined }, "subject_token is missing"],
    ["without its type", { subject_token_type: undefined }, "subject_token_type is missing"],
    ["of an unknown type", { subject_token_type: "urn:x" }, "subject_token_type is not one that this gate takes"],
    [
      "of the type constructor",
      { subject_token_type: "constructor" },
      "subject_token_type is not one that this gate takes",
    ],
    [
      "of the type of an access token",
      { subject_token_type: "urn:ietf:params:oauth:token-type:access_token" },
      "a grant is no human: a sub-agent comes without client_assertion",
    ],
    ["with an actor without type", { actor_token: "a" }, "actor_token without its type"],
    ["with an actor's type alone", { actor_token_type: "urn:x" }, "actor_token_type without actor_token"],
    [
      "with an actor",
      { actor_token: "a", actor_token_type: "urn:ietf:params:oauth:token-type:jwt" },
      "the actor is the instance, by its DPoP key",
    ],
    [
      "for an unknown type of token",
      { requested_token_type: "urn:ietf:params:oauth:token-type:refresh_token" },
      "requested_token_type must be that of an access_token",
    ],
  ])("is refused: %s", async (_name, form, reason) =>
    expect(said(await h.exchange({ form }))).toBe(`invalid_request: ${reason}`));
});

describe("the task", () => {
  const TASK = "task must be 1 to 40 letters, digits, - or _";
  const PURPOSE = "purpose must be 1 to 1000 characters";
  const DEADLINE = "deadline must be a NumericDate in whole seconds";
  const VERSION = "agent_version is not registered for this agent";
  const LIMITS = "task_limits must be an object of limits, each lower than without";
  it.each<[string, Record<string, string | undefined>, string]>([
    ["none", { task: undefined }, TASK],
    ["a slash in its id", { task: "a/b" }, TASK],
    ["dots in its id", { task: ".." }, TASK],
    ["41 characters", { task: "t".repeat(41) }, TASK],
    ["no purpose", { purpose: undefined }, PURPOSE],
    ["a blank purpose", { purpose: "  \n" }, PURPOSE],
    ["a purpose of 1001 characters", { purpose: "p".repeat(1_001) }, PURPOSE],
    ["no deadline", { deadline: undefined }, DEADLINE],
    ["a deadline that is no number", { deadline: "tomorrow" }, DEADLINE],
    ["a deadline in fractions", { deadline: "1900000000.5" }, DEADLINE],
    ["a deadline with an exponent", { deadline: "1e10" }, DEADLINE],
    ["a deadline below zero", { deadline: "-1" }, DEADLINE],
    ["a deadline in the past", { deadline: "1000000000" }, "deadline is in the past"],
    ["a deadline beyond a day", { deadline: "99999999999" }, "deadline is later than this gate allows"],
    ["no version", { agent_version: undefined }, VERSION],
    ["an unknown version", { agent_version: "9.9.9" }, VERSION],
    ["a version called constructor", { agent_version: "constructor" }, VERSION],
    ["limits that are no JSON", { task_limits: "{" }, LIMITS],
    ["limits that are a list", { task_limits: "[]" }, LIMITS],
    ["a limit that nobody knows", { task_limits: '{"refusalsRecordedPerMinute":1000}' }, LIMITS],
    ["a unit's limit of nothing", { task_limits: '{"units":{"usd":0}}' }, LIMITS],
    ["a unit's limit beyond what is counted", { task_limits: '{"units":{"usd":1e300}}' }, LIMITS],
    ["a limit of nothing", { task_limits: '{"calls":0}' }, LIMITS],
    ["a rate of nearly nothing", { task_limits: '{"callsPerSecond":5e-324}' }, LIMITS],
    ["a rate below what shares are cut to", { task_limits: '{"callsPerSecond":0.0000009}' }, LIMITS],
    ["a limit beyond whole numbers", { task_limits: '{"calls":1e20}' }, LIMITS],
    ["a limit in fractions", { task_limits: '{"burst":1.5}' }, LIMITS],
    ["limits of more units than there may be", { task_limits: JSON.stringify({ units: manyUnits(65) }) }, LIMITS],
    ["a limit of the prototype's", { task_limits: '{"__proto__":{"calls":1}}' }, LIMITS],
    ["a limit twice", { task_limits: '{"calls":1,"calls":2}' }, LIMITS],
    ["a limit that is text", { task_limits: '{"calls":"1"}' }, LIMITS],
  ])("is refused: %s", async (_name, form, reason) =>
    expect(said(await h.exchange({ form }))).toBe(`invalid_request: ${reason}`));
});

describe("the scope (RFC 9396 §5, RFC 8707)", () => {
  const [entry] = DETAILS;
  const details = (value: unknown) => ({ form: { authorization_details: JSON.stringify(value) } });
  const raw = (text: string) => ({ form: { authorization_details: text } });
  const cases: [name: string, overrides: ExchangeOverrides, reason: string][] = [
    ["not JSON", raw("github"), "authorization_details: not JSON"],
    ["not an array", details(entry), "authorization_details: must be an array"],
    ["empty", details([]), "authorization_details: must not be empty"],
    ["of a text", details(["http"]), "authorization_details[0]: must be an object"],
    ["of null", details([null]), "authorization_details[0]: must be an object"],
    ["of a list", details([[]]), "authorization_details[0]: must be an object"],
    ["of nothing", details([{}]), "authorization_details[0].type: must be a known type"],
    ["of an unknown type", details([{ ...entry, type: "ftp" }]), "authorization_details[0].type: must be a known type"],
    ["of the type constructor", details([{ ...entry, type: "constructor" }]), "authorization_details[0].type: must be"],
    [
      "with an unknown field",
      details([{ ...entry, actions: ["*"] }]),
      "authorization_details[0].actions: unknown field",
    ],
    [
      "with locations",
      details([{ ...entry, locations: ["https://a@b"] }]),
      "authorization_details[0].locations: unknown",
    ],
    [
      "with a field of the wrong type",
      details([{ ...entry, operations: "GET /x" }]),
      "authorization_details[0].operations: ",
    ],
    [
      "with an operation that is none",
      details([{ ...entry, operations: ["*"] }]),
      "authorization_details[0].operations[0]: ",
    ],
    [
      "with every operation",
      details([{ ...entry, operations: ["* /{+all}"], where: {} }]),
      "authorization_details[0].operations[0]",
    ],
    ["without operations", details([{ type: "http", upstream: "github" }]), "authorization_details[0].operations: "],
    ["without upstream", details([{ type: "http", operations: ["GET /x"] }]), "authorization_details[0].upstream: "],
    [
      "with an upstream of capitals",
      details([{ ...entry, upstream: "GitHub" }]),
      "authorization_details[0].upstream: ",
    ],
    [
      "with an unknown predicate",
      details([{ ...entry, where: { owner: { like: "a" } } }]),
      "authorization_details[0].where.owner",
    ],
    ["with __proto__", raw('[{"__proto__":{"type":"http"}}]'), "authorization_details: forbidden key"],
    ["with a key twice", raw(`[{"type":"http","type":"http"}]`), "authorization_details: duplicate key"],
    ["of 64 kB and one", raw(`[${" ".repeat(65_535)}]`), "authorization_details: longer than 65536 bytes"],
    [
      "longer than a grant can state",
      details([
        {
          ...entry,
          where: { ...entry?.where, "query.q": Array.from({ length: 60 }, (_, i) => `${i}`.padEnd(240, "x")) },
        },
      ]),
      "authorization_details: longer than a grant can state",
    ],
  ];
  it.each(cases)("is refused: %s", async (_name, overrides, reason) => {
    const answer = said(await h.exchange(overrides));
    expect(answer.startsWith(`invalid_authorization_details: ${reason}`), answer).toBe(true);
  });

  it.each<[string, ExchangeOverrides, string]>([
    ["missing", { form: { authorization_details: undefined } }, "invalid_request: authorization_details is missing"],
    ["as `scope`", { form: { scope: "repo" } }, "invalid_scope: scope is stated in authorization_details"],
    [
      "beyond the human",
      { human: "grace" },
      "invalid_authorization_details: authorization_details[0]: 'GET /repos/{owner}/{repo}/issues' exceeds the human's entitlement",
    ],
    [
      "of a human without groups",
      { human: "oscar" },
      "invalid_authorization_details: authorization_details[0]: 'GET /repos/{owner}/{repo}/issues' exceeds the human's entitlement",
    ],
    [
      "of a group called constructor",
      { form: {} },
      "invalid_authorization_details: authorization_details[0]: 'GET /repos/{owner}/{repo}/issues' exceeds the human's entitlement",
    ],
    [
      "beyond the human in the second entry",
      details([entry, { ...entry, where: { owner: ["acme"], repo: ["helpdesk"] } }]),
      "invalid_authorization_details: authorization_details[1]: 'GET /repos/{owner}/{repo}/issues' exceeds the human's entitlement",
    ],
    [
      "that two entries would only cover together",
      details([{ ...entry, where: { owner: ["acme"], repo: ["widgets", "helpdesk"] } }]),
      "invalid_authorization_details: authorization_details[0]: 'GET /repos/{owner}/{repo}/issues' exceeds the human's entitlement",
    ],
    [
      "without the condition",
      details([{ ...entry, where: {} }]),
      "invalid_authorization_details: authorization_details[0]: 'GET /repos/{owner}/{repo}/issues' exceeds the human's entitlement",
    ],
    [
      "of an upstream that nobody built",
      details([{ type: "http", upstream: "nowhere", operations: ["GET /x"] }]),
      "invalid_authorization_details: authorization_details[0]: 'GET /x' exceeds the human's entitlement",
    ],
  ])("is refused: %s", async (name, overrides, reason) => {
    const groups = name.includes("constructor")
      ? { form: { subject_token: h.idToken({ groups: ["constructor"] }) } }
      : {};
    expect(said(await h.exchange({ ...overrides, ...groups }))).toBe(reason);
  });

  const TARGET = "invalid_target: a resource is not one that authorization_details speaks of";
  it.each<[string, () => Record<string, string | readonly string[]>]>([
    ["of an upstream outside of the scope", () => ({ resource: `${h.origin}/slack` })],
    ["of another host", () => ({ resource: "https://api.github.com" })],
    ["of the gate", () => ({ resource: h.origin })],
    ["with a fragment", () => ({ resource: `${h.origin}/github#f` })],
    ["with a slash", () => ({ resource: `${h.origin}/github/` })],
    ["relative", () => ({ resource: "/github" })],
    ["an unknown audience", () => ({ audience: "slack" })],
    ["an audience called constructor", () => ({ audience: "constructor" })],
    ["one right, one wrong", () => ({ resource: [`${h.origin}/github`, `${h.origin}/slack`] })],
  ])("has no target %s", async (_name, form) => expect(said(await h.exchange({ form: form() }))).toBe(TARGET));
});

describe("the order of the steps", () => {
  const key = makeKey();
  const twice = { task: ["a", "b"] };
  const noClient = { client_assertion: "x" };
  const noProof = { DPoP: undefined };
  const noShape = { requested_token_type: "urn:x" };
  const badSignature = () => ({ subject_token: h.idToken({ exp: 1 }, {}, makeKey()) });
  const noSubject = () => ({ subject_token: h.idToken({ exp: 1 }) });
  const noTask = { task: "" };
  const noScope = { authorization_details: "[]" };
  const noTarget = { resource: "urn:x" };
  const tooMuch = { authorization_details: JSON.stringify([{ ...DETAILS[0], where: {} }]) };

  const steps: [first: string, then: string, overrides: () => ExchangeOverrides, reason: string][] = [
    ["form", "client", () => ({ form: { ...twice, ...noClient } }), "invalid_request: a parameter is given twice"],
    ["grant type", "client", () => ({ form: { grant_type: "x", ...noClient } }), "unsupported_grant_type: grant_type"],
    ["client", "proof", () => ({ form: noClient, headers: noProof }), "invalid_client: client authentication failed"],
    [
      "proof",
      "shape",
      () => ({ form: noShape, headers: noProof }),
      "invalid_dpop_proof: a DPoP proof by the instance's key is required",
    ],
    [
      "shape",
      "subject",
      () => ({ form: { ...noShape, ...noSubject() } }),
      "invalid_request: requested_token_type must be that of an access_token",
    ],
    [
      "subject's signature",
      "its claims",
      () => ({ form: badSignature() }),
      "invalid_request: subject_token: the signature: ERR_JWS_SIGNATURE_VERIFICATION_FAILED",
    ],
    ["subject", "task", () => ({ form: { ...noSubject(), ...noTask } }), "invalid_request: subject_token: expired"],
    [
      "task",
      "scope",
      () => ({ form: { ...noTask, ...noScope } }),
      "invalid_request: task must be 1 to 40 letters, digits, - or _",
    ],
    [
      "scope",
      "target",
      () => ({ form: { ...noScope, ...noTarget } }),
      "invalid_authorization_details: authorization_details: must not be empty",
    ],
    [
      "target",
      "ceilings",
      () => ({ form: { ...noTarget, ...tooMuch } }),
      "invalid_target: a resource is not one that authorization_details speaks of",
    ],
    [
      "ceilings",
      "enrolment",
      () => ({ key, form: tooMuch }),
      "invalid_authorization_details: authorization_details[0]: 'GET /repos/{owner}/{repo}/issues' exceeds the human's entitlement",
    ],
  ];
  it.each(steps)("%s before %s", async (_first, _then, overrides, reason) => {
    if (_then === "enrolment") await h.provision({ key });
    expect(said(await h.exchange(overrides()))).toBe(reason);
  });

  it("is that of the proof's own checks: signature before claims", async () => {
    const DPoP = h.proof(key, { htm: "GET", iat: 1 }, { jwk: makeKey().publicJwk });
    expect(said(await h.exchange({ headers: { DPoP } }))).toBe("invalid_dpop_proof: the signature does not verify");
  });

  it("leaves a key that was refused free to enrol", async () => {
    const fresh = makeKey();
    expect(said(await h.exchange({ key: fresh, form: noTarget }))).toMatch(/^invalid_target/);
    expect(said(await h.exchange({ key: fresh }))).toBe("granted");
  });
});
