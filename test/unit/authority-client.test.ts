import { exportJWK, generateKeyPair, SignJWT } from "jose";
import { beforeAll, describe, expect, it } from "vitest";
import { authenticateClient, claimedClient } from "../../src/authority/client.ts";
import { type Form, parseForm } from "../../src/authority/form.ts";
import type { Config } from "../../src/config/define.ts";

const NOW_MS = 1_900_000_000_000;
const NOW = NOW_MS / 1000;
const ORIGIN = "https://gate.test";
const TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
type Members = Readonly<Record<string, unknown>>;

let config: Config;
let keys: { a: CryptoKey; rsa: CryptoKey };
beforeAll(async () => {
  const a = await generateKeyPair("ES256");
  const rsa = await generateKeyPair("RS256");
  keys = { a: a.privateKey as CryptoKey, rsa: rsa.privateKey as CryptoKey };
  const jwks = {
    keys: [
      { ...(await exportJWK(a.publicKey)), kid: "a" },
      { ...(await exportJWK(rsa.publicKey)), kid: "rsa" },
    ],
  };
  const platform = { agent: "bot", identityProvider: "corp", subjectAudience: "app", jwks, algorithms: ["ES256"] };
  config = { origin: ORIGIN, platforms: { build: platform } } as unknown as Config;
});

const assertion = (claims: Members = {}, header: Members = {}, key = keys.a) =>
  new SignJWT({ iss: "build", sub: "build", aud: ORIGIN, exp: NOW + 60, iat: NOW, jti: "j", ...claims })
    .setProtectedHeader({ alg: "ES256", kid: "a", ...header })
    .sign(key);
const formOf = (values: Readonly<Record<string, string | undefined>>): Form => ({
  get: (name) => values[name],
  all: (name) => (values[name] === undefined ? [] : [values[name]]),
});
async function authenticate(
  client_assertion: string | undefined,
  more: Readonly<Record<string, string>> = {},
  headers = {},
) {
  const request = new Request(`${ORIGIN}/oauth/token`, { method: "POST", headers });
  const form = formOf({ client_assertion_type: TYPE, client_assertion, ...more });
  const client = await authenticateClient(request, form, config, NOW_MS);
  if (!client.ok) expect(client.error.code).toBe("invalid_client");
  return client.ok ? client.value.id : client.error.description;
}

describe("a client", () => {
  it("is nobody with nothing at all", async () => expect(await authenticate(undefined)).toBe("no client_assertion"));

  it.each<[string, Members, Members]>([
    ["the issuer as audience", {}, {}],
    ["an audience in a list", { aud: [ORIGIN] }, {}],
    ["the token endpoint as audience", { aud: `${ORIGIN}/oauth/token` }, {}],
    ["the introspection endpoint as audience", { aud: `${ORIGIN}/oauth/introspect` }, {}],
    ["typ JWT", {}, { typ: "JWT" }],
    ["its own typ", {}, { typ: "client-authentication+jwt" }],
    ["no iat", { iat: undefined }, {}],
    ["five minutes", { exp: NOW + 300 }, {}],
    ["nbf now", { nbf: NOW }, {}],
  ])("is known with %s", async (_name, claims, header) => {
    expect(await authenticate(await assertion(claims, header))).toBe("build");
  });

  it.each<[string, Members, Members, string]>([
    ["typ at+jwt", {}, { typ: "at+jwt" }, "typ is of another kind of token"],
    ["typ dpop+jwt", {}, { typ: "dpop+jwt" }, "typ is of another kind of token"],
    ["no sub", { sub: undefined }, {}, "no such client"],
    ["an unknown sub", { sub: "who" }, {}, "no such client"],
    ["sub constructor", { sub: "constructor" }, {}, "no such client"],
    ["sub __proto__", { sub: "__proto__" }, {}, "no such client"],
    ["an unknown kid", {}, { kid: "b" }, "the signature does not verify"],
    ["the kid of a key of another kind", {}, { kid: "rsa" }, "the signature does not verify"],
    ["another issuer", { iss: "other" }, {}, "iss is not sub"],
    ["no issuer", { iss: undefined }, {}, "iss is not sub"],
    ["no aud", { aud: undefined }, {}, "aud is not this gate"],
    ["two audiences", { aud: [ORIGIN, "https://other.test"] }, {}, "aud is not this gate"],
    ["an empty list of audiences", { aud: [] }, {}, "aud is not this gate"],
    ["an audience in a list in a list", { aud: [[ORIGIN]] }, {}, "aud is not this gate"],
    ["another audience", { aud: "https://other.test" }, {}, "aud is not this gate"],
    ["the audience with a slash", { aud: `${ORIGIN}/` }, {}, "aud is not this gate"],
    ["no exp", { exp: undefined }, {}, "expired"],
    ["an exp just past the skew", { exp: NOW - 30 }, {}, "expired"],
    ["a life over five minutes", { exp: NOW + 331 }, {}, "exp is too far ahead"],
    ["an iat in the future", { iat: NOW + 31 }, {}, "iat is in the future"],
    ["nbf in the future", { nbf: NOW + 31 }, {}, "not valid yet"],
    ["no jti", { jti: undefined }, {}, "no jti"],
    ["an empty jti", { jti: "" }, {}, "no jti"],
    ["the signature before the claims", { exp: 1 }, { kid: "b" }, "the signature does not verify"],
  ])("is nobody with %s", async (_name, claims, header, reason) => {
    expect(await authenticate(await assertion(claims, header))).toBe(reason);
  });

  it("is nobody with an algorithm that was not agreed, though the key is its own", async () =>
    expect(await authenticate(await assertion({}, { alg: "RS256", kid: "rsa" }, keys.rsa))).toBe("alg is not allowed"));

  it("authenticates in one way", async () => {
    const text = await assertion();
    expect(await authenticate(text, { client_secret: "s" })).toBe("client_secret is not accepted");
    expect(await authenticate(text, {}, { authorization: "Basic YTpi" })).toBe(
      "an Authorization header is not accepted",
    );
    expect(await authenticate(text, { client_assertion_type: "urn:x" })).toBe("client_assertion_type");
    expect(await authenticate(text, { client_id: "other" })).toBe("client_id is another client");
    expect(await authenticate(text, { client_id: "build" })).toBe("build");
  });

  it("has a bound", async () =>
    expect(await authenticate(await assertion({ more: "m".repeat(8_192) }))).toBe("the token is too long"));
});

describe("who somebody says to be", () => {
  it("is read from client_id, else from the assertion, and bounded", async () => {
    const client_assertion = await assertion({ sub: "s".repeat(100) });
    expect(claimedClient(formOf({ client_id: "a", client_assertion }))).toBe("a");
    expect(claimedClient(formOf({ client_assertion }))).toBe("s".repeat(64));
    expect(claimedClient(formOf({ client_id: "c".repeat(100) }))).toBe("c".repeat(64));
    expect(claimedClient(formOf({ client_assertion: "x" }))).toBeNull();
    expect(claimedClient(formOf({}))).toBeNull();
  });
});

describe("a form", () => {
  const parse = async (body: BodyInit, type = "application/x-www-form-urlencoded", url = `${ORIGIN}/oauth/token`) => {
    const form = await parseForm(new Request(url, { method: "POST", body, headers: { "content-type": type } }));
    return form.ok ? form.value : form.error.description;
  };
  const MEDIA = "the body must be application/x-www-form-urlencoded";
  it.each<[string, string]>([
    ["application/json", MEDIA],
    ["text/plain", MEDIA],
    ["multipart/form-data; boundary=x", MEDIA],
    ["application/x-www-form-urlencoded2", MEDIA],
    ["text/plain; application/x-www-form-urlencoded", MEDIA],
  ])("is not %s", async (type, reason) => expect(await parse("a=b", type)).toBe(reason));

  it("has a bound", async () => {
    const form = await parse(`a=${"b".repeat(131_070)}`);
    expect(typeof form === "string" ? form : form.get("a")?.length).toBe(131_070);
    expect(await parse(`a=${"b".repeat(131_071)}`)).toBe("the body is too long, or not UTF-8");
  });

  it("takes resources and audiences more than once, and nothing else", async () => {
    const form = await parse("resource=a&resource=b&audience=c&audience=&audience=d&x=&__proto__=p");
    if (typeof form === "string") throw new Error(form);
    expect([form.all("resource"), form.all("audience"), form.get("x"), form.all("y")]).toEqual([
      ["a", "b"],
      ["c", "d"],
      undefined,
      [],
    ]);
    expect(form.get("constructor")).toBeUndefined();
    for (const twice of ["x=1&x=2", "x=1&x=1", "x=&x=1", "x=1&%78=2"])
      expect(await parse(twice)).toBe("a parameter is given twice");
  });

  const times = (count: number, pair: (i: number) => string) =>
    Array.from({ length: count }, (_, i) => pair(i)).join("&");
  it.each<[name: string, body: string, expected: string | number]>([
    ["64 values of one name", times(64, (i) => `resource=${i}`), 64],
    ["65 values of one name", times(65, (i) => `resource=${i}`), "a parameter is given more than 64 times"],
    ["65 empty values of one name", times(65, () => "audience="), "a parameter is given more than 64 times"],
    ["200 names", `resource=a&${times(199, (i) => `x${i}=1`)}`, 1],
    ["201 names", `resource=a&${times(200, (i) => `x${i}=1`)}`, "more than 200 parameters"],
    ["201 empty names", `resource=a&${times(200, (i) => `x${i}`)}`, "more than 200 parameters"],
  ])("has a bound of parameters: %s", async (_name, body, expected) => {
    const form = await parse(body);
    expect(typeof form === "string" ? form : form.all("resource").length).toBe(expected);
  });

  it("has no query, though an empty one", async () =>
    expect(await parse("a=b", undefined, `${ORIGIN}/oauth/token?`)).toBe(
      "parameters belong in the body, not in the query",
    ));
});
