// Who may call: each way in which credentials can be wrong, and that the answer depends on them alone, never on the path.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type GateRig, type Instance, type Sent, startGateRig } from "./gate-rig.ts";
import { encodePart, makeKey, nowSeconds, type Part, sha256, signCompact } from "./harness.ts";

let rig: GateRig;
let who: Instance;
let other: Instance;

beforeAll(async () => {
  rig = await startGateRig({ limits: { refusalsRecordedPerMinute: 10_000, concurrency: 100 } });
  who = await rig.provision();
  other = await rig.provision();
});
afterAll(() => rig.close());

/** Granted, granted but not there, configured but not granted, nowhere, and the root. */
const PATHS = ["/hostile/known", "/hostile/a//b", "/strict/nothing", "/ungranted/x", "/nowhere/x", "/hostile", "/"];

const challenge = (code: string | null): string =>
  `DPoP${code === null ? "" : ` error="${code}",`} algs="ES256 Ed25519", resource_metadata="${rig.origin}/.well-known/oauth-protected-resource"`;

/** The same bytes on every path, with exactly this challenge; nothing reaches the upstream. */
async function expectRefusal(code: string | null, sent: (path: string) => Sent): Promise<void> {
  const before = rig.upstream.requests().length;
  const faces = new Set<string>();
  for (const path of PATHS) {
    const heard = await rig.call(who, path, sent(path));
    expect([heard.status, heard.headers["www-authenticate"]], path).toEqual([401, challenge(code)]);
    faces.add(heard.face);
  }
  expect([...faces]).toHaveLength(1);
  expect(rig.upstream.requests()).toHaveLength(before);
}

it("a right proof passes", async () => {
  expect((await rig.call(who, "/hostile/known")).status).toBe(200);
  const { host } = new URL(rig.origin);
  const port = host.split(":")[1];
  for (const htu of [
    `${rig.origin}/hostile/known?a=1#b`,
    `HTTP://127.0.0.1:${port}/hostile/known`,
    `${rig.origin}/hostile/%6bnown`,
  ])
    expect((await rig.call(who, "/hostile/known", { proof: rig.proofFor(who, "GET", "", { htu }) })).status, htu).toBe(
      200,
    );
  expect(
    (await rig.call(who, "/hostile/known?q=1", { headers: { "x-a": "b" }, authorization: `dpop ${who.access}` }))
      .status,
  ).toBe(200);
});

describe("credentials that are not there or not of this kind", () => {
  it.each<[string, string | null, (path: string) => Sent]>([
    ["none", null, () => ({ authorization: null, proof: null })],
    ["a proof alone", null, () => ({ authorization: null })],
    ["Bearer", "invalid_token", () => ({ authorization: `Bearer ${who.access}` })],
    ["Bearer without a proof", "invalid_token", () => ({ authorization: `Bearer ${who.access}`, proof: null })],
    ["Basic", "invalid_token", () => ({ authorization: "Basic eDp5" })],
    ["a token without a scheme", "invalid_request", () => ({ authorization: who.access })],
    ["a comma", "invalid_request", () => ({ authorization: "," })],
    ["a scheme alone", "invalid_request", () => ({ authorization: "DPoP" })],
    ["a second token", "invalid_token", () => ({ authorization: `DPoP ${who.access}, DPoP ${who.access}` })],
    ["a token of 16385 characters", "invalid_token", () => ({ authorization: `DPoP ${"a".repeat(16_385)}` })],
  ])("%s", (_name, code, sent) => expectRefusal(code, sent));

  it("a token in the query or the body is none", async () => {
    const inQuery = await rig.call(who, `/hostile/known?access_token=${who.access}`, { authorization: null });
    const form = { "content-type": "application/x-www-form-urlencoded" };
    const body = `access_token=${who.access}`;
    const inBody = await rig.call(who, "/hostile/known", { method: "POST", authorization: null, headers: form, body });
    for (const heard of [inQuery, inBody])
      expect([heard.status, heard.headers["www-authenticate"]]).toEqual([401, challenge(null)]);
  });
});

describe("a proof (RFC 9449 §4.3)", () => {
  const claims = (over: Record<string, unknown>) => (path: string) => ({ proof: rig.proofFor(who, "GET", path, over) });
  const header = (over: Record<string, unknown>) => (path: string) => ({
    proof: rig.proofFor(who, "GET", path, {}, over),
  });
  /** Signed right, of any text. */
  const spelt = (head: Part | ((right: string) => string), body?: (right: string) => string) => (path: string) => {
    const right = { htm: "GET", htu: rig.origin + path, ath: sha256(who.access), jti: rig.jti(), iat: nowSeconds() };
    const rightHead = JSON.stringify({ typ: "dpop+jwt", alg: who.key.alg, jwk: who.key.publicJwk });
    return {
      proof: signCompact(
        who.key,
        typeof head === "function" ? head(rightHead) : head,
        body === undefined ? right : body(JSON.stringify(right)),
      ),
    };
  };
  const text = (change: (right: string) => string) => (path: string) => ({
    proof: change(rig.proofFor(who, "GET", path)),
  });
  const far = makeKey();

  it.each<[string, (path: string) => Sent]>([
    ["1: none", () => ({ proof: null })],
    ["2: two headers", (path) => ({ proof: [rig.proofFor(who, "GET", path), rig.proofFor(who, "GET", path)] })],
    ["2: two in one", (path) => ({ proof: `${rig.proofFor(who, "GET", path)}, ${rig.proofFor(who, "GET", path)}` })],
    ["3: not a JWS", () => ({ proof: "proof" })],
    ["3: two parts", text((right) => right.split(".").slice(0, 2).join("."))],
    ["3: five parts", text((right) => `${right}.a.b`)],
    ["3: no signature", text((right) => `${right.split(".").slice(0, 2).join(".")}.`)],
    ["4: no typ", header({ typ: undefined })],
    ["4: typ JWT", header({ typ: "JWT" })],
    ["4: typ at+jwt", header({ typ: "at+jwt" })],
    ["5: alg none", header({ alg: "none" })],
    ["5: alg HS256", header({ alg: "HS256" })],
    ["5: alg RS256", header({ alg: "RS256" })],
    ["5: alg EdDSA", header({ alg: "EdDSA" })],
    ["5: alg of another key", header({ alg: "Ed25519" })],
    ["6: no jwk", header({ jwk: undefined })],
    ["6: a kid only", header({ jwk: undefined, kid: "k" })],
    ["6: x5c beside", header({ x5c: ["MII="] })],
    ["6: jku beside", header({ jku: "https://evil.test/" })],
    ["6: a private jwk", (path) => header({ jwk: who.key.privateJwk })(path)],
    ["6: a secret jwk", header({ jwk: { kty: "oct", k: "c2VjcmV0" } })],
    ["8: no jti", claims({ jti: undefined })],
    ["8: no htm", claims({ htm: undefined })],
    ["8: no htu", claims({ htu: undefined })],
    ["8: no iat", claims({ iat: undefined })],
    ["8: jti a number", claims({ jti: 1 })],
    ["8: jti empty", claims({ jti: "" })],
    ["9: htm POST", claims({ htm: "POST" })],
    ["9: htm in lower case", claims({ htm: "get" })],
    ["10: htu of another path", claims({ htu: "http://127.0.0.1/other" })],
    ["10: htu of another host", (path) => claims({ htu: `http://127.0.0.2:${rig.port}${path}` })(path)],
    ["10: htu of another port", (path) => claims({ htu: `http://127.0.0.1:1${path}` })(path)],
    ["10: htu of another scheme", (path) => claims({ htu: `https://127.0.0.1:${rig.port}${path}` })(path)],
    ["10: htu with a user", (path) => claims({ htu: `http://a@127.0.0.1:${rig.port}${path}` })(path)],
    ["10: htu relative", (path) => claims({ htu: path })(path)],
    ["10: htu of the upstream", (path) => claims({ htu: `${rig.upstream.baseUrl}${path.slice(8)}` })(path)],
    ["10: htu with a slash more", (path) => claims({ htu: `${rig.origin}${path}/` })(path)],
    ["11: iat too old", (path) => claims({ iat: nowSeconds() - 121 })(path)],
    ["11: iat ahead", (path) => claims({ iat: nowSeconds() + 60 })(path)],
    ["11: iat a string", (path) => claims({ iat: String(nowSeconds()) })(path)],
    ["11: iat a fraction", (path) => claims({ iat: nowSeconds() + 0.5 })(path)],
    [
      "11: iat 1e400",
      spelt(
        (right) => right,
        (right) => right.replace(/"iat":\d+/, '"iat":1e400'),
      ),
    ],
    ["11: iat null", claims({ iat: null })],
    ["13: no ath", claims({ ath: undefined })],
    ["13: ath of another token", (path) => claims({ ath: sha256(other.access) })(path)],
    ["18: over 8 KiB", claims({ more: "x".repeat(8_192) })],
    [
      "18: deep JSON",
      spelt(
        (right) => right,
        (right) => right.replace("{", `{"d":${"[".repeat(40)}${"]".repeat(40)},`),
      ),
    ],
    ["18: a long jti", claims({ jti: "j".repeat(129) })],
    ["19: made for the token endpoint", () => ({ proof: rig.h.proof(who.key) })],
    ["21: crit", header({ crit: ["exp"] })],
    ["21: b64", header({ b64: false })],
    [
      "22: a key twice in the claims",
      spelt(
        (right) => right,
        (right) => right.replace("{", '{"htm":"POST",'),
      ),
    ],
    ["22: a key twice in the header", spelt((right) => right.replace("{", '{"typ":"JWT",'))],
    ["not canonical: padding", text((right) => `${right}==`)],
    [
      "not canonical: another alphabet",
      text((right) => right.replaceAll("-", "+").replaceAll("_", "/").replace(/$/, "+")),
    ],
    ["not canonical: a space", text((right) => `${right.slice(0, -5)} ${right.slice(-5)}`)],
    ["not canonical: trailing bits", text(flipTrailingBit)],
  ])("%s", (_name, sent) => expectRefusal("invalid_dpop_proof", sent));

  // A key that is nobody's is first of all not the grant's; bound to one, it still verifies nothing.
  it("6: off the curve", async () => {
    const key = { ...who.key, publicJwk: { ...who.key.publicJwk, y: far.publicJwk["x"] as string } };
    await expectRefusal("invalid_token", (path) => ({ proof: rig.proofFor({ ...who, key }, "GET", path) }));
    const { crv, kty, x, y } = key.publicJwk as Record<string, string>;
    const access = rig.h.grant(key, { cnf: { jkt: sha256(JSON.stringify({ crv, kty, x, y })) } });
    await expectRefusal("invalid_dpop_proof", (path) => ({
      authorization: `DPoP ${access}`,
      proof: rig.proofFor({ ...who, key, access }, "GET", path),
    }));
  });

  it("7: signed by another key", () =>
    expectRefusal("invalid_dpop_proof", (path) => ({
      proof: signCompact(
        far,
        { typ: "dpop+jwt", alg: "ES256", jwk: who.key.publicJwk },
        { htm: "GET", htu: rig.origin + path, ath: sha256(who.access), jti: rig.jti(), iat: nowSeconds() },
      ),
    })));
});

/** Another text of the same bytes to whoever is lax. */
function flipTrailingBit(token: string): string {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const last = alphabet.indexOf(token.at(-1) ?? "");
  return token.slice(0, -1) + alphabet[last ^ 1];
}

describe("a grant (RFC 9068 §4)", () => {
  /** A token that the gate's own key signed, with a right proof for it. */
  const forged = (make: () => string) => (path: string) => {
    const access = make();
    return { authorization: `DPoP ${access}`, proof: rig.proofFor({ ...who, access }, "GET", path) };
  };
  const claims = (over: Record<string, unknown>) => forged(() => rig.h.grant(who.key, over));
  const header = (over: Record<string, unknown>) => forged(() => rig.h.grant(who.key, {}, over));
  const text = (change: (right: string) => string) => forged(() => change(rig.h.grant(who.key)));
  const hostileKey = makeKey("Ed25519");

  it.each<[string, (path: string) => Sent]>([
    ["typ missing", header({ typ: undefined })],
    ["typ JWT", header({ typ: "JWT" })],
    ["typ dpop+jwt", header({ typ: "dpop+jwt" })],
    ["typ oauth-id-jag+jwt", header({ typ: "oauth-id-jag+jwt" })],
    ["typ secevent+jwt", header({ typ: "secevent+jwt" })],
    ["alg none", header({ alg: "none" })],
    ["alg EdDSA", header({ alg: "EdDSA" })],
    ["alg HS256", header({ alg: "HS256" })],
    ["an unknown kid", header({ kid: "unknown" })],
    ["no kid", header({ kid: undefined })],
    ["crit", header({ crit: ["exp"] })],
    ["another signer", forged(() => rig.h.grant(who.key, {}, {}, hostileKey))],
    ["iss of another", claims({ iss: "https://evil.test" })],
    ["iss with a slash", (path) => claims({ iss: `${rig.origin}/` })(path)],
    ["aud a string", (path) => claims({ aud: `${rig.origin}/hostile` })(path)],
    ["expired", (path) => claims({ exp: nowSeconds() - 1 })(path)],
    ["exp a string", claims({ exp: "9999999999" })],
    ...["iss", "exp", "aud", "sub", "client_id", "iat", "jti", "cnf", "authorization_details"].map(
      (name): [string, (path: string) => Sent] => [`no ${name}`, claims({ [name]: undefined })],
    ),
    ["not bound (cnf without jkt)", claims({ cnf: {} })],
    ["bound to another key", (path) => claims({ cnf: { jkt: other.id } })(path)],
    ["of a key that never enrolled", forgedFor(makeKey())],
    ["a scope of another language", claims({ authorization_details: [{ type: "payment" }] })],
    ["duplicate keys", forged(() => reSign((payload) => payload.replace("{", '{"iss":"https://evil.test",')))],
    ["padding", text((right) => `${right}==`)],
    ["a space inside", text((right) => `${right.slice(0, -5)} ${right.slice(-5)}`)],
    ["trailing bits", text(flipTrailingBit)],
    ["another alphabet", text((right) => `${right.slice(0, -2)}+/`)],
    ["a cut signature", text((right) => right.slice(0, -4))],
  ])("%s", (_name, sent) => expectRefusal("invalid_token", sent));

  function forgedFor(key: ReturnType<typeof makeKey>) {
    return (path: string): Sent => {
      const access = rig.h.grant(key);
      return { authorization: `DPoP ${access}`, proof: rig.proofFor({ key, access, id: key.thumbprint }, "GET", path) };
    };
  }
  /** The gate's own signature over a text that no object makes. */
  function reSign(change: (payload: string) => string): string {
    const [head = "", payload = ""] = rig.h.grant(who.key).split(".");
    const input = `${head}.${encodePart(change(Buffer.from(payload, "base64url").toString()))}`;
    return `${input}.${rig.h.grantKey.sign(input).toString("base64url")}`;
  }
});

describe("replay", () => {
  it("is refused on every path, whatever the first one came to", async () => {
    for (const first of ["/hostile/known", "/nowhere/x", "/hostile/a//b"]) {
      // One proof fits one path; so the same `jti` in another proof is what is tried on other paths.
      const jti = rig.jti();
      await rig.call(who, first, { proof: rig.proofFor(who, "GET", first, { jti }) });
      await expectRefusal("invalid_dpop_proof", (path) => ({ proof: rig.proofFor(who, "GET", path, { jti }) }));
    }
  });

  it("of twenty at once exactly one passes", async () => {
    const proof = rig.proofFor(who, "GET", "/hostile/race");
    const heard = await Promise.all(Array.from({ length: 20 }, () => rig.call(who, "/hostile/race", { proof })));
    expect(heard.filter(({ status }) => status === 200)).toHaveLength(1);
    expect(new Set(heard.filter(({ status }) => status !== 200).map(({ face }) => face)).size).toBe(1);
    expect(heard.filter(({ status }) => status === 401)).toHaveLength(19);
    expect(rig.upstream.requests("/race")).toHaveLength(1);
    expect((await rig.refused(who, "/hostile/race"))["decision"]).toMatchObject({ reason: "replay" });
  });
});

describe("the order of the steps: of two that fail, the first is told", () => {
  const killed = async () => {
    const doomed = await rig.provision();
    expect((await rig.h.kill(doomed.id)).status).toBe(201);
    return doomed;
  };

  it.each<[string, string | null, (path: string) => Sent]>([
    ["no Authorization before no proof", null, () => ({ authorization: null, proof: null })],
    ["shape of Authorization before its scheme", "invalid_request", () => ({ authorization: "Bearer", proof: null })],
    ["scheme before the proof", "invalid_token", () => ({ authorization: "Bearer x", proof: null })],
    [
      "the token's length before the proof",
      "invalid_token",
      () => ({ authorization: `DPoP ${"a".repeat(16_385)}`, proof: null }),
    ],
    ["the proof's shape before the grant", "invalid_dpop_proof", () => ({ authorization: "DPoP x", proof: "x" })],
    [
      "the grant's signature before the proof's",
      "invalid_token",
      (path) => ({
        authorization: `DPoP ${who.access.slice(0, -8)}AAAAAAAA`,
        proof: `${rig.proofFor(who, "GET", path).slice(0, -8)}AAAAAAAA`,
      }),
    ],
    [
      "whose key before the proof's claims",
      "invalid_token",
      (path) => ({ authorization: `DPoP ${other.access}`, proof: rig.proofFor(who, "GET", path, { htm: "POST" }) }),
    ],
  ])("%s", (_name, code, sent) => expectRefusal(code, sent));

  it("a replay before a switch, a switch before the scope", async () => {
    const doomed = await rig.provision();
    const jti = rig.jti();
    expect(
      (await rig.call(doomed, "/hostile/known", { proof: rig.proofFor(doomed, "GET", "/hostile/known", { jti }) }))
        .status,
    ).toBe(200);
    await rig.h.kill(doomed.id);
    for (const path of PATHS) {
      const replayed = await rig.call(doomed, path, { proof: rig.proofFor(doomed, "GET", path, { jti }) });
      expect(replayed.headers["www-authenticate"]).toBe(challenge("invalid_dpop_proof"));
      const switched = await rig.call(doomed, path);
      expect(switched.headers["www-authenticate"]).toBe(challenge("invalid_token"));
    }
  });

  it("after a kill a fresh proof is refused alike on every path, and each attempt is on record", async () => {
    const doomed = await killed();
    const faces = new Set<string>();
    for (const path of PATHS) faces.add((await rig.call(doomed, path)).face);
    expect(faces.size).toBe(1);
    expect([...faces][0]).toContain("invalid_token");
    for (const path of PATHS)
      expect((await rig.refused(doomed, path))["decision"]).toMatchObject({
        kind: "unauthenticated",
        reason: "switched",
      });
  });
});
