import { afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { encodeBase64url } from "../../src/grant/base64url.ts";
import { parsePublicKey } from "../../src/grant/jwk.ts";
import { isFresh, isSameTarget, PROOF_MAX_CHARS, parseProof, verifyProof } from "../../src/grant/proof.ts";

const utf8 = new TextEncoder();
const part = (value: object) => encodeBase64url(utf8.encode(JSON.stringify(value)));
type Members = Readonly<Record<string, unknown>>;

interface Key {
  readonly alg: "ES256" | "Ed25519";
  readonly jwk: Record<string, string>;
  readonly privateKey: CryptoKey;
}
async function makeKey(alg: "ES256" | "Ed25519"): Promise<Key> {
  const how = alg === "ES256" ? { name: "ECDSA", namedCurve: "P-256" } : { name: "Ed25519" };
  const pair = (await crypto.subtle.generateKey(how, true, ["sign", "verify"])) as CryptoKeyPair;
  const { kty, crv, x, y } = (await crypto.subtle.exportKey("jwk", pair.publicKey)) as unknown as Record<
    string,
    string
  >;
  const jwk = alg === "ES256" ? { kty, crv, x, y } : { kty, crv, x };
  return { alg, jwk: jwk as Record<string, string>, privateKey: pair.privateKey };
}
async function sign(key: Key, header: Members, payload: Members): Promise<string> {
  const input = `${part(header)}.${part(payload)}`;
  const how = key.alg === "ES256" ? { name: "ECDSA", hash: "SHA-256" } : { name: "Ed25519" };
  return `${input}.${encodeBase64url(new Uint8Array(await crypto.subtle.sign(how, key.privateKey, utf8.encode(input))))}`;
}

const NOW_MS = 1_900_000_000_000;
const NOW = NOW_MS / 1000;
const URL_ = "https://gate.test/github/repos";
let es256: Key;
let ed25519: Key;
beforeAll(async () => {
  [es256, ed25519] = await Promise.all([makeKey("ES256"), makeKey("Ed25519")]);
});

const proofOf = (key: Key, claims: Members = {}, header: Members = {}) =>
  sign(
    key,
    { typ: "dpop+jwt", alg: key.alg, jwk: key.jwk, ...header },
    { jti: "j-1", htm: "GET", htu: URL_, iat: NOW, ath: "digest", ...claims },
  );
async function verify(text: string, expected: { tokenDigest?: string | undefined } = { tokenDigest: "digest" }) {
  const parsed = parseProof(text);
  if (!parsed.ok) return parsed.error;
  const tokenDigest = expected.tokenDigest;
  const proof = await verifyProof(parsed.value, { method: "GET", url: URL_, tokenDigest, nowMs: NOW_MS });
  return proof.ok ? proof.value : proof.error;
}

describe("a proof", () => {
  it("is refused when it is nothing at all", async () => expect(await verify("")).toBe("not a JWS in compact form"));

  it("is verified with either algorithm", async () => {
    for (const key of [es256, ed25519]) {
      const thumbprint = parsePublicKey(key.alg, key.jwk)?.thumbprint;
      expect(await verify(await proofOf(key))).toEqual({ jti: "j-1", issuedAtMs: NOW_MS, thumbprint });
    }
  });

  it("has a bound", async () => {
    const long = await proofOf(es256, { more: "m".repeat(PROOF_MAX_CHARS) });
    expect(await verify(long)).toBe("the token is too long");
  });

  const cases: [name: string, claims: Members, header: Members, reason: string][] = [
    ["no typ", {}, { typ: undefined }, 'typ is not "dpop+jwt"'],
    ["typ at+jwt", {}, { typ: "at+jwt" }, 'typ is not "dpop+jwt"'],
    ["alg none", {}, { alg: "none" }, "alg is not one of ES256, Ed25519"],
    ["alg EdDSA", {}, { alg: "EdDSA" }, "alg is not one of ES256, Ed25519"],
    ["alg es256", {}, { alg: "es256" }, "alg is not one of ES256, Ed25519"],
    ["alg constructor", {}, { alg: "constructor" }, "alg is not one of ES256, Ed25519"],
    ["no jwk", {}, { jwk: undefined }, "no jwk in the header"],
    ["jwk a text", {}, { jwk: "key" }, "no jwk in the header"],
    ["jwk null", {}, { jwk: null }, "no jwk in the header"],
    ["jwk a list", {}, { jwk: [] }, "no jwk in the header"],
    ["x5u besides", {}, { x5u: "https://a.test" }, "a key besides jwk"],
    ["no ath", { ath: undefined }, {}, "ath is of another token"],
    ["another ath", { ath: "other" }, {}, "ath is of another token"],
    ["ath a list", { ath: ["digest"] }, {}, "ath is of another token"],
    ["no jti", { jti: undefined }, {}, "jti"],
    ["htm in small letters", { htm: "get" }, {}, "htm is another method"],
    ["htm a list", { htm: ["GET"] }, {}, "htm is another method"],
    ["htu a list", { htu: [URL_] }, {}, "htu is another URL"],
    ["iat null", { iat: null }, {}, "iat"],
  ];
  it.each(cases)("is refused: %s", async (_name, claims, header, reason) =>
    expect(await verify(await proofOf(es256, claims, header))).toBe(reason));

  it("needs no ath where no token comes along", async () =>
    expect(await verify(await proofOf(es256, { ath: undefined }), {})).toMatchObject({ jti: "j-1" }));

  it("is refused with a signature of another key, of another text, of no length", async () => {
    const other = await makeKey("ES256");
    expect(await verify(await proofOf(other, {}, { jwk: es256.jwk }))).toBe("the signature does not verify");
    const [head, , mac] = (await proofOf(es256)).split(".");
    const [, payload] = (await proofOf(es256, { jti: "j-2" })).split(".");
    expect(await verify(`${head}.${payload}.${mac}`)).toBe("the signature does not verify");
    expect(await verify(`${head}.${payload}.AAAA`)).toBe("the signature does not verify");
  });
});

describe("what is remembered of proofs", () => {
  afterEach(() => vi.restoreAllMocks());

  /** How often a second look at the same header had to read its key, and import it. */
  async function secondLook(first: string, second: string, expected: { tokenDigest?: string | undefined }) {
    await verify(first, expected);
    const thumbprints = vi.spyOn(JSON, "stringify");
    const imports = vi.spyOn(crypto.subtle, "importKey");
    const outcome = await verify(second, expected);
    const count = { read: thumbprints.mock.calls.length, imported: imports.mock.calls.length };
    vi.restoreAllMocks();
    return { ...count, verified: typeof outcome === "object" };
  }
  const holder = { tokenDigest: "digest" };
  const spoilt = async (key: Key) => `${(await proofOf(key)).slice(0, -2)}AA`;

  it("is the key of who proved it beside a grant", async () => {
    for (const alg of ["ES256", "Ed25519"] as const) {
      const key = await makeKey(alg);
      const [first, second] = [await proofOf(key), await proofOf(key)];
      expect(await secondLook(first, second, holder)).toEqual({ read: 0, imported: 0, verified: true });
    }
  });

  it.each<[name: string, first: (key: Key) => Promise<string>, expected: { tokenDigest?: string }]>([
    ["a proof whose end can't be read", async (key) => `${await spoilt(key)}A`, holder],
    ["a signature that does not verify", spoilt, holder],
    ["a key that anyone made, without a grant", (key) => proofOf(key), {}],
  ])("is nothing of %s", async (_name, first, expected) => {
    const key = await makeKey("ES256");
    const looked = await secondLook(await first(key), await proofOf(key), expected);
    expect(looked).toEqual({ read: 1, imported: 1, verified: true });
  });

  it("is no claim that failed, and no header longer than 512 characters", async () => {
    const key = await makeKey("ES256");
    const failed = await secondLook(await proofOf(key, { htm: "PUT" }), await proofOf(key), holder);
    expect(failed.read).toBe(1);
    const padded = (length: number) => proofOf(key, {}, { kid: "k".repeat(length) });
    const lengthOf = async (pad: number) => (await padded(pad)).indexOf(".");
    let pad = 1;
    while ((await lengthOf(pad + 1)) <= 512) pad++;
    expect((await secondLook(await padded(pad), await padded(pad), holder)).read).toBe(0);
    expect((await secondLook(await padded(pad + 1), await padded(pad + 1), holder)).read).toBe(1);
  });
});

describe("the key that a proof shows", () => {
  const b64 = (bytes: number, fill = 1) => encodeBase64url(new Uint8Array(bytes).fill(fill));
  const ec = { kty: "EC", crv: "P-256", x: b64(32), y: b64(32) };
  const okp = { kty: "OKP", crv: "Ed25519", x: b64(32) };

  it.each<[string, "ES256" | "Ed25519", Members]>([
    ["nothing", "ES256", {}],
    ["a secret", "ES256", { kty: "oct", k: "AAAA" }],
    ["RSA", "ES256", { kty: "RSA", n: "AAAA", e: "AQAB" }],
    ["another curve", "ES256", { ...ec, crv: "P-384" }],
    ["secp256k1", "ES256", { ...ec, crv: "secp256k1" }],
    ["Ed448", "Ed25519", { ...okp, crv: "Ed448" }],
    ["X25519", "Ed25519", { ...okp, crv: "X25519" }],
    ["the other algorithm's", "Ed25519", ec],
    ["the other algorithm's, again", "ES256", okp],
    ["its private half, too", "ES256", { ...ec, d: b64(32) }],
    ["its private half, though null", "ES256", { ...ec, d: null }],
    ["a symmetric half, too", "Ed25519", { ...okp, k: "AAAA" }],
    ["no y", "ES256", { ...ec, y: undefined }],
    ["x a byte short", "ES256", { ...ec, x: b64(31) }],
    ["x a byte long", "ES256", { ...ec, x: b64(33) }],
    ["x padded", "Ed25519", { ...okp, x: `${b64(32)}=` }],
    ["x in another spelling", "Ed25519", { ...okp, x: `${b64(32).slice(0, -1)}F` }],
    ["x a number", "Ed25519", { ...okp, x: 1 }],
    ["another alg of its own", "ES256", { ...ec, alg: "ES384" }],
    ["for encryption", "ES256", { ...ec, use: "enc" }],
  ])("is refused: %s", (_name, alg, jwk) => expect(parsePublicKey(alg, jwk as Record<string, string>)).toBeUndefined());

  it.each([
    `01${"00".repeat(31)}`,
    `01${"00".repeat(30)}80`,
    "00".repeat(32),
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    `ec${"ff".repeat(30)}7f`,
    `ed${"ff".repeat(31)}`,
    `ee${"ff".repeat(30)}7f`,
  ])("is refused where one signature verifies any text: %s", (hex) => {
    const x = encodeBase64url(Uint8Array.from(hex.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16)));
    expect(parsePublicKey("Ed25519", { ...okp, x })).toBeUndefined();
  });

  it("has the thumbprint of RFC 7638 and RFC 8037, whatever else it states", () => {
    // RFC 8037, appendix A.3.
    const x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
    const key = parsePublicKey("Ed25519", { use: "sig", x, kid: "k", crv: "Ed25519", kty: "OKP", alg: "Ed25519" });
    expect(key?.thumbprint).toBe("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    expect(key?.jwk).toEqual({ crv: "Ed25519", kty: "OKP", x });
  });
});

describe("the target", () => {
  const TARGET = "https://gate.test/a/b%2Fc";
  it.each<[string, boolean]>([
    ["https://gate.test/a/b%2Fc", true],
    ["https://gate.test/a/b%2fc", true],
    ["https://gate.test:443/a/b%2Fc", true],
    ["HTTPS://GATE.test/a/b%2Fc", true],
    ["https://gate.test/a/b%2Fc?q=1", true],
    ["https://gate.test/a/b%2Fc#f", true],
    ["https://gate.test/%61/b%2Fc", true],
    ["https://gate.test/a/b/c", false],
    ["https://gate.test/a/b%252Fc", false],
    ["https://gate.test/A/b%2Fc", false],
    ["https://gate.test/a/b%2Fc/", false],
    ["https://gate.test//a/b%2Fc", false],
    ["https://gate.test/x/../a/b%2Fc", false],
    ["https://gate.test/./a/b%2Fc", false],
    ["https://gate.test/a;x/b%2Fc", false],
    ["http://gate.test/a/b%2Fc", false],
    ["https://gate.test:8443/a/b%2Fc", false],
    ["https://gate.test:80/a/b%2Fc", false],
    ["https://gate.test./a/b%2Fc", false],
    ["https://evil.test/a/b%2Fc", false],
    ["https://gate.test@evil.test/a/b%2Fc", false],
    ["https://u:p@gate.test/a/b%2Fc", false],
    ["https://gate.test\\@evil.test/a/b%2Fc", false],
    ["https:/gate.test/a/b%2Fc", false],
    ["//gate.test/a/b%2Fc", false],
    ["/a/b%2Fc", false],
    [" https://gate.test/a/b%2Fc", false],
    ["ftp://gate.test/a/b%2Fc", false],
    ["", false],
  ])("%s is it: %s", (htu, expected) => expect(isSameTarget(htu, TARGET)).toBe(expected));

  it("is the root with and without a slash", () => {
    expect(isSameTarget("https://gate.test", "https://gate.test/")).toBe(true);
    expect(isSameTarget("https://gate.test?q", "https://gate.test/")).toBe(true);
  });
});

describe("the window", () => {
  it.each<[string, number, boolean]>([
    ["now", 0, true],
    ["just not two minutes old", -119_999, true],
    ["two minutes old", -120_000, false],
    ["just not thirty seconds ahead", 29_999, true],
    ["thirty seconds ahead", 30_000, false],
  ])("%s", (_name, offsetMs, expected) => expect(isFresh(NOW_MS + offsetMs, NOW_MS)).toBe(expected));
});
