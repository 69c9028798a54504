import { beforeAll, describe, expect, it, vi } from "vitest";
import { encodeBase64url } from "../../src/grant/base64url.ts";
import {
  fitsGrant,
  GRANT_MAX_CHARS,
  type GrantClaims,
  issueGrant,
  parseGrant,
  resourceOf,
  verifyGrant,
} from "../../src/grant/claims.ts";
import { GRANT_ALGORITHMS, KeyRing } from "../../src/grant/keys.ts";

const ISSUER = "https://gate.test";
const NOW_MS = 1_900_000_000_000;
const NOW = NOW_MS / 1000;
const utf8 = new TextEncoder();

const makeJwk = async (kid: string) => {
  const pair = (await crypto.subtle.generateKey({ name: "Ed25519" }, true, ["sign", "verify"])) as CryptoKeyPair;
  const { kty, crv, x, d } = (await crypto.subtle.exportKey("jwk", pair.privateKey)) as unknown as Record<
    string,
    string
  >;
  return { kty, crv, x, d, kid };
};
let a: Record<string, string | undefined>;
let b: Record<string, string | undefined>;
const ring = (...keys: object[]) => new KeyRing(JSON.stringify({ keys }), "GRANT_KEYS", GRANT_ALGORITHMS);
beforeAll(async () => {
  [a, b] = await Promise.all([makeJwk("a"), makeJwk("b")]);
});

const claims = (over: object = {}): GrantClaims =>
  ({
    iss: ISSUER,
    sub: "opaque",
    aud: [resourceOf(ISSUER, "github")],
    client_id: "build-platform",
    jti: "g-1",
    iat: NOW,
    exp: NOW + 300,
    cnf: { jkt: "thumbprint" },
    authorization_details: [{ type: "http", upstream: "github", operations: ["GET /user"] }],
    ...over,
  }) as GrantClaims;
const verify = (token: string, by = ring(a), nowMs = NOW_MS) => {
  const grant = verifyGrant(token, by, ISSUER, nowMs);
  return grant.ok ? "verified" : grant.error;
};
const signed = (over: object) => ring(a).signCompact("at+jwt", claims(over));

describe("a grant", () => {
  it("is refused when it is nothing at all", () => expect(verify("")).toBe("not a JWS in compact form"));

  it("states what it was issued with", () => {
    const by = ring(a);
    const token = issueGrant(by, claims());
    expect(verifyGrant(token, by, ISSUER, NOW_MS)).toMatchObject({
      ok: true,
      value: { jti: "g-1", instance: "thumbprint", audiences: [`${ISSUER}/github`], expiresAtMs: NOW_MS + 300_000 },
    });
  });

  const unsigned = (header: object, payload: object = claims()) => {
    const part = (value: object) => encodeBase64url(utf8.encode(JSON.stringify(value)));
    return `${part(header)}.${part(payload)}.${"A".repeat(86)}`;
  };
  it.each<[string, () => string, string]>([
    ["alg none", () => unsigned({ typ: "at+jwt", alg: "none" }), "alg is not Ed25519"],
    ["alg EdDSA", () => unsigned({ typ: "at+jwt", alg: "EdDSA" }), "alg is not Ed25519"],
    ["alg HS256", () => unsigned({ typ: "at+jwt", alg: "HS256" }), "alg is not Ed25519"],
    ["no alg", () => unsigned({ typ: "at+jwt" }), "alg is not Ed25519"],
    ["no typ", () => unsigned({ alg: "Ed25519" }), 'typ is not "at+jwt"'],
    ["typ JWT", () => unsigned({ typ: "JWT", alg: "Ed25519" }), 'typ is not "at+jwt"'],
    ...["oauth-id-jag+jwt", "logout+jwt", "dpop+jwt", "txntoken+jwt", "secevent+jwt", "portcullis-refresh+jwt"].map(
      (typ): [string, () => string, string] => [
        `typ ${typ}`,
        () => unsigned({ typ, alg: "Ed25519" }),
        'typ is not "at+jwt"',
      ],
    ),
    [
      "no signature that verifies",
      () => unsigned({ typ: "at+jwt", alg: "Ed25519", kid: "a" }),
      "the signature does not verify",
    ],
    ["no kid", () => unsigned({ typ: "at+jwt", alg: "Ed25519" }), "the signature does not verify"],
    ["kid a number", () => unsigned({ typ: "at+jwt", alg: "Ed25519", kid: 1 }), "the signature does not verify"],
    [
      "the signature before the claims",
      () => unsigned({ typ: "at+jwt", alg: "Ed25519", kid: "a" }, {}),
      "the signature does not verify",
    ],
    ["another issuer", () => signed({ iss: "https://evil.test" }), "iss is not this gate"],
    ["the issuer with a slash", () => signed({ iss: `${ISSUER}/` }), "iss is not this gate"],
    ["no issuer", () => signed({ iss: undefined }), "iss is not this gate"],
    ["no sub", () => signed({ sub: undefined }), "a claim is missing"],
    ["no client_id", () => signed({ client_id: undefined }), "a claim is missing"],
    ["no jti", () => signed({ jti: undefined }), "a claim is missing"],
    ["jti a number", () => signed({ jti: 1 }), "a claim is missing"],
    ["no aud", () => signed({ aud: undefined }), "aud"],
    ["aud a text", () => signed({ aud: `${ISSUER}/github` }), "aud"],
    ["aud of a number", () => signed({ aud: [1] }), "aud"],
    ["no iat", () => signed({ iat: undefined }), "iat or exp"],
    ["no exp", () => signed({ exp: undefined }), "iat or exp"],
    ["exp a text", () => signed({ exp: String(NOW + 300) }), "iat or exp"],
    ["exp in milliseconds", () => signed({ exp: NOW_MS + 300 }), "iat or exp"],
    ["no cnf", () => signed({ cnf: undefined }), "not bound to a key (cnf.jkt)"],
    ["cnf null", () => signed({ cnf: null }), "not bound to a key (cnf.jkt)"],
    ["cnf a list", () => signed({ cnf: [] }), "not bound to a key (cnf.jkt)"],
    ["cnf without jkt", () => signed({ cnf: { "x5t#S256": "a" } }), "not bound to a key (cnf.jkt)"],
    ["no scope", () => signed({ authorization_details: undefined }), "authorization_details: must be an array"],
    [
      "an unknown scope",
      () => signed({ authorization_details: [{ type: "ftp" }] }),
      "authorization_details[0].type: must be a known type",
    ],
    ["expired", () => signed({ exp: NOW }), "expired"],
    ["one character over the cap", () => `${signed({})}${"A".repeat(GRANT_MAX_CHARS)}`, "the token is too long"],
  ])("is refused: %s", (_name, token, reason) => expect(verify(token())).toBe(reason));

  it("that was verified before is looked at anew: time, and the ring", () => {
    const by = ring(a);
    const token = issueGrant(by, claims());
    expect(verify(token, by)).toBe("verified");
    expect(verify(token, by)).toBe("verified");
    expect(verify(token, by, NOW_MS + 299_999)).toBe("verified");
    expect(verify(token, by, NOW_MS + 300_000)).toBe("expired");
    // The same kid, another key.
    expect(verify(token, ring({ ...b, kid: "a" }))).toBe("the signature does not verify");
  });

  it("is remembered within a bound of characters, whatever their number", () => {
    const by = ring(a);
    const long = (n: number) => {
      const where = { "query.q": [`${n}-${"x".repeat(10_000)}`] };
      const entry = { type: "http", upstream: "github", operations: ["GET /user"], where };
      return issueGrant(by, claims({ jti: `long-${n}`, authorization_details: [entry] }));
    };
    const looks = vi.spyOn(by, "verify");
    const looked = (token: string) => {
      looks.mockClear();
      expect(verify(token, by)).toBe("verified");
      return looks.mock.calls.length;
    };
    const first = long(0);
    expect([looked(first), looked(first)]).toEqual([1, 0]);
    const kept = Math.floor(4_194_304 / first.length);
    for (let n = 1; n < kept - 1; n++) looked(long(n));
    expect(looked(first)).toBe(0);
    for (let n = kept - 1; n <= kept + 1; n++) looked(long(n));
    expect([looked(long(kept + 1)), looked(first)]).toEqual([0, 1]);
  });

  it("may be issued exactly where it can be read", () => {
    const withNote = (length: number) =>
      claims({
        authorization_details: [
          { type: "http", upstream: "github", operations: ["GET /user"], where: { "query.q": ["x".repeat(length)] } },
        ],
      });
    let longest = 0;
    for (let length = 1; length < GRANT_MAX_CHARS; length += 37) {
      if (!fitsGrant(withNote(length))) break;
      longest = length;
    }
    expect(longest).toBeGreaterThan(10_000);
    for (const kid of ["k", "k".repeat(64)]) {
      const by = ring({ ...a, kid });
      expect(parseGrant(issueGrant(by, withNote(longest))).ok).toBe(true);
    }
    expect(fitsGrant(claims({ sub: "é".repeat(7_000) }))).toBe(false);
  });
});

describe("a key ring", () => {
  it("signs with the first and verifies with all, by kid", () => {
    const [old, rotated, after] = [ring(a), ring(b, a), ring(b)];
    const before = issueGrant(old, claims());
    const since = issueGrant(rotated, claims());
    expect([verify(before, old), verify(before, rotated), verify(before, after)]).toEqual([
      "verified",
      "verified",
      "the signature does not verify",
    ]);
    expect([verify(since, old), verify(since, rotated), verify(since, after)]).toEqual([
      "the signature does not verify",
      "verified",
      "verified",
    ]);
  });

  it("publishes public halves alone", () => {
    const { keys } = ring(b, a).jwks;
    expect(keys.map(({ kid }) => kid)).toEqual(["b", "a"]);
    for (const key of keys) expect(Object.keys(key).sort()).toEqual(["alg", "crv", "kid", "kty", "use", "x"]);
  });

  it.each<[string, () => string]>([
    ["nothing", () => ""],
    ["no JSON", () => "secret-text"],
    ["no keys", () => '{"keys":[]}'],
    ["a public key", () => JSON.stringify({ keys: [{ ...a, d: undefined }] })],
    ["a key without kid", () => JSON.stringify({ keys: [{ ...a, kid: undefined }] })],
    ["another kind of key", () => JSON.stringify({ keys: [{ ...a, kty: "EC", crv: "P-256" }] })],
    ["a kid twice", () => JSON.stringify({ keys: [a, { ...b, kid: "a" }] })],
  ])("is not made of %s, and the error repeats none of it", (_name, secret) => {
    const make = () => new KeyRing(secret(), "GRANT_KEYS", GRANT_ALGORITHMS);
    expect(make).toThrow(/^secret GRANT_KEYS (is not a JWK set of private Ed25519 keys|has the same kid twice)$/);
  });
});
