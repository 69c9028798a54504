import { exportJWK, generateKeyPair, type JWTVerifyGetKey, SignJWT } from "jose";
import { afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { verifyIdToken } from "../../src/identity/id-token.ts";
import { keysAt } from "../../src/identity/jwks.ts";
import { verifySecurityEvent } from "../../src/identity/security-event.ts";

const NOW_MS = 1_900_000_000_000;
const SECOND = 1_000;
const MINUTE = 60_000;

let uri: string;
let count = 0;
let answers: (() => Response | Promise<Response>)[];
let asked: { url: string; init: RequestInit | undefined }[];
let key: Record<string, unknown>;
let privateKey: CryptoKey;

beforeAll(async () => {
  const pair = await generateKeyPair("ES256", { extractable: true });
  privateKey = pair.privateKey as CryptoKey;
  key = { ...(await exportJWK(pair.publicKey)), alg: "ES256" };
});
beforeEach(() => {
  // Keys are known by address, so every test has its own.
  uri = `https://idp.test/jwks/${count++}`;
  answers = [];
  asked = [];
  vi.spyOn(globalThis, "fetch").mockImplementation(async (input, init) => {
    asked.push({ url: String(input), init: init as RequestInit | undefined });
    const answer = answers.shift();
    if (answer === undefined) throw new TypeError("nobody there");
    return answer();
  });
});
afterEach(() => {
  vi.restoreAllMocks();
});

const json = (value: unknown) => () => new Response(typeof value === "string" ? value : JSON.stringify(value));
const set = (...kids: string[]) => json({ keys: kids.map((kid) => ({ ...key, kid })) });
/** Which of these `kid`s there is a key for. */
const holds = async (keys: JWTVerifyGetKey | undefined, kid: string) => {
  const token = { payload: "", signature: "" };
  try {
    await keys?.({ alg: "ES256", kid }, token);
    return keys !== undefined;
  } catch {
    return false;
  }
};

describe("the keys of an identity provider", () => {
  it("are not to be had from nobody", async () => {
    expect(await keysAt(uri, "a", NOW_MS)).toBeUndefined();
    expect(asked.map(({ url }) => url)).toEqual([uri]);
  });

  it("are asked for without following redirects, without a cache, and with an end in time", async () => {
    const timeout = vi.spyOn(AbortSignal, "timeout");
    answers = [set("a")];
    expect(await holds(await keysAt(uri, "a", NOW_MS), "a")).toBe(true);
    expect(asked[0]?.init).toMatchObject({ redirect: "manual", cache: "no-store" });
    expect(asked[0]?.init?.headers).toEqual({ accept: "application/json" });
    expect(timeout).toHaveBeenCalledWith(5_000);
    expect(asked[0]?.init?.signal).toBe(timeout.mock.results[0]?.value);
  });

  it.each<[string, () => () => Response | Promise<Response>]>([
    ["a redirect", () => () => new Response(null, { status: 302, headers: { location: "https://evil.test" } })],
    ["404", () => () => new Response(JSON.stringify({ keys: [key] }), { status: 404 })],
    ["201", () => () => new Response(JSON.stringify({ keys: [key] }), { status: 201 })],
    ["500", () => () => new Response("oh", { status: 500 })],
    ["no body", () => json("")],
    ["HTML", () => json("<html>")],
    ["a list", () => json([key])],
    ["no keys", () => json({})],
    ["keys that are no list", () => json({ keys: key })],
    ["a key that is none", () => json({ keys: ["key"] })],
    ["a key without kty", () => json({ keys: [{ kid: "a" }] })],
    ["101 keys", () => json({ keys: Array.from({ length: 101 }, () => key) })],
    ["keys twice", () => json('{"keys":[],"keys":[]}')],
    ["__proto__", () => json('{"keys":[{"kty":"EC","__proto__":{}}]}')],
    ["256 kB and one byte", () => json(JSON.stringify({ keys: [key] }).padEnd(262_145))],
    ["bytes that are not UTF-8", () => () => new Response(new Uint8Array([0x7b, 0xff]))],
    [
      "a body that breaks off",
      () => () => new Response(new ReadableStream({ pull: (c) => c.error(new Error("gone")) })),
    ],
    [
      "an endless body",
      () => () => new Response(new ReadableStream({ pull: (c) => c.enqueue(new Uint8Array(65_536)) })),
    ],
  ])("are not taken from %s", async (_name, answer) => {
    answers = [answer()];
    expect(await keysAt(uri, undefined, NOW_MS)).toBeUndefined();
  });

  it("are taken up to the bounds", async () => {
    answers = [json(JSON.stringify({ keys: Array(100).fill({ ...key, kid: "a" }) }).padEnd(262_144))];
    expect(await keysAt(uri, undefined, NOW_MS)).toBeDefined();
  });

  it("are asked for once, and again after ten minutes", async () => {
    answers = [set("a"), set("b")];
    for (const age of [0, 1, MINUTE, 10 * MINUTE - 1]) {
      expect(await holds(await keysAt(uri, "a", NOW_MS + age), "a")).toBe(true);
      expect(await keysAt(uri, undefined, NOW_MS + age)).toBeDefined();
    }
    expect(asked).toHaveLength(1);
    const fresh = await keysAt(uri, "a", NOW_MS + 10 * MINUTE);
    expect([await holds(fresh, "a"), await holds(fresh, "b")]).toEqual([false, true]);
    expect(asked).toHaveLength(2);
  });

  it.each<[name: string, typ: string, verify: (token: string, atMs: number) => Promise<{ readonly ok: boolean }>]>([
    [
      "an ID token",
      "JWT",
      (token, atMs) =>
        verifyIdToken(
          token,
          {
            issuer: "https://idp.test",
            jwksUri: uri,
            algorithms: ["ES256"],
            groupsClaim: "groups",
            maxTokenAgeSeconds: 600,
          },
          "app",
          atMs,
        ),
    ],
    [
      "a security event",
      "secevent+jwt",
      (token, atMs) =>
        verifySecurityEvent(
          token,
          { issuer: "https://idp.test", jwksUri: uri, algorithms: ["ES256"], audience: "app" } as never,
          atMs,
        ),
    ],
  ])("are asked for again where %s names one that came since", async (_name, typ, verify) => {
    answers = [set("a"), set("a", "b")];
    const laterMs = NOW_MS + 31 * SECOND;
    const iat = laterMs / SECOND;
    const claims = typ === "JWT" ? { sub: "ada", exp: iat + 60 } : { jti: "j", sub_id: {}, events: { "urn:x": {} } };
    const signed = (kid: string) =>
      new SignJWT({ iss: "https://idp.test", aud: "app", iat, ...claims })
        .setProtectedHeader({ alg: "ES256", typ, kid })
        .sign(privateKey);
    await keysAt(uri, "a", NOW_MS);
    expect(await verify(await signed("a"), laterMs)).toMatchObject({ ok: true });
    expect(asked).toHaveLength(1);
    expect(await verify(await signed("b"), laterMs)).toMatchObject({ ok: true });
    expect(asked).toHaveLength(2);
  });

  it("are asked for again for an unknown kid, at most every thirty seconds", async () => {
    answers = [set("a"), set("a"), set("a", "b")];
    await keysAt(uri, "a", NOW_MS);
    for (const age of [0, SECOND, 30 * SECOND - 1])
      expect(await holds(await keysAt(uri, "b", NOW_MS + age), "b")).toBe(false);
    expect(asked).toHaveLength(1);
    expect(await holds(await keysAt(uri, "b", NOW_MS + 30 * SECOND), "b")).toBe(false);
    for (const kid of ["c", "d", "e"]) await keysAt(uri, kid, NOW_MS + 31 * SECOND);
    expect(asked).toHaveLength(2);
    // Rotation: the new key is there, the old one stays good.
    const rotated = await keysAt(uri, "b", NOW_MS + 60 * SECOND);
    expect([await holds(rotated, "a"), await holds(rotated, "b")]).toEqual([true, true]);
    expect(asked).toHaveLength(3);
  });

  it("are asked for once by a flood that comes while they are fetched anew", async () => {
    answers = [set("a"), set("a")];
    await keysAt(uri, "a", NOW_MS);
    await Promise.all(Array.from({ length: 50 }, (_, i) => keysAt(uri, `unknown-${i}`, NOW_MS + MINUTE)));
    expect(asked).toHaveLength(2);
  });

  it("serve on for an hour while the provider fails, which is asked every thirty seconds", async () => {
    answers = [set("a")];
    await keysAt(uri, "a", NOW_MS);
    for (let age = 10 * MINUTE; age < 60 * MINUTE; age += SECOND * 10)
      expect(await holds(await keysAt(uri, "a", NOW_MS + age), "a")).toBe(true);
    expect(asked).toHaveLength(1 + 100);
    expect(await keysAt(uri, "a", NOW_MS + 60 * MINUTE)).toBeUndefined();
  });

  it("are left alone for a second after a failure when none is known", async () => {
    for (const age of [0, 1, 999]) expect(await keysAt(uri, "a", NOW_MS + age)).toBeUndefined();
    expect(asked).toHaveLength(1);
    answers = [set("a")];
    expect(await holds(await keysAt(uri, "a", NOW_MS + 1_000), "a")).toBe(true);
  });

  it("of one provider are not those of another", async () => {
    answers = [set("a"), set("b")];
    await keysAt(uri, "a", NOW_MS);
    expect(await holds(await keysAt(`${uri}/other`, "a", NOW_MS), "a")).toBe(false);
    expect(asked.map(({ url }) => url)).toEqual([uri, `${uri}/other`]);
  });
});
