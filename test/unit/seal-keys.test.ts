// Keys that sign, and what is made of a header that says otherwise: of every token that a seal key signs.

import { beforeAll, describe, expect, it } from "vitest";
import { type Receipt, signReceipt } from "../../src/control/receipt.ts";
import { readReceipt } from "../../src/control/verify-receipt.ts";
import { decodeBase64url, encodeBase64url } from "../../src/grant/base64url.ts";
import { GRANT_ALGORITHMS, KeyRing } from "../../src/grant/keys.ts";
import { readErasureLine, writeErasureLine } from "../../src/transcript/erasure.ts";
import { readSealLine, writeSealLine } from "../../src/transcript/seal.ts";
import { parseSealKeys, type SealKeys } from "../../src/transcript/verify-keys.ts";
import { ISSUER, keysOf, newJwk, ringOf, START_MS } from "./transcript-kit.ts";

type Jwk = Record<string, string>;
const utf8 = new TextEncoder();
const ALGORITHMS = ["Ed25519", "ES256"] as const;
const KIDS = { Ed25519: "ed", ES256: "ec" };

let ed: Jwk;
let ec: Jwk;
/** The same two keys, each first in one. */
let rings: Record<(typeof ALGORITHMS)[number], KeyRing>;
let keys: SealKeys;
beforeAll(async () => {
  [ed, ec] = await Promise.all([newJwk("ed", "Ed25519"), newJwk("ec", "ES256")]);
  rings = { Ed25519: ringOf(ed, ec), ES256: ringOf(ec, ed) };
  keys = keysOf(rings.ES256);
});

const jwsLine = (type: string, jws: string) => JSON.stringify({ v: 1, type, jws });
const jwsOf = (line: string): string => (JSON.parse(line) as { jws: string }).jws;
const part = (value: object) => encodeBase64url(utf8.encode(JSON.stringify(value)));

interface Kind {
  readonly name: string;
  readonly typ: string;
  readonly by: (ring: KeyRing) => string;
  /** The error; null: it is believed. */
  readonly read: (jws: string, keys: SealKeys) => string | null;
  readonly whose: string;
}

const errorOf = (result: { ok: true } | { ok: false; error: string }) => (result.ok ? null : result.error);
const hash = "0".repeat(64);
const seal = { iss: ISSUER, log: "i", first: 0, last: 1, prev: hash, head: hash, at: START_MS, final: true };
const erasure = { iss: ISSUER, id: "e", human: "h", by: "op", reason: "r", at: START_MS, before: START_MS };
const KINDS: Kind[] = [
  {
    name: "a seal",
    typ: "portcullis-seal+jwt",
    by: (ring) => jwsOf(writeSealLine(ring, seal)),
    read: (jws, keys) => errorOf(readSealLine(jwsLine("seal", jws), keys)),
    whose: "the seal's",
  },
  {
    name: "a certificate",
    typ: "portcullis-erasure+jwt",
    by: (ring) => jwsOf(writeErasureLine(ring, erasure)),
    read: (jws, keys) => errorOf(readErasureLine(jwsLine("erasure", jws), keys)),
    whose: "the certificate's",
  },
  {
    name: "a receipt",
    typ: "portcullis-receipt+jwt",
    by: (ring) => signReceipt(ring, {} as Receipt),
    // Its shape comes after its signature, and has tests of its own.
    read: (jws, keys) => {
      const error = errorOf(readReceipt(jws, { keys, issuer: null, place: "" }));
      return error?.startsWith("not a receipt:") ? null : error;
    },
    whose: "its",
  },
];

describe.each(KINDS)("$name", ({ typ, by, read, whose }) => {
  const OTHER_ALG = `${whose} alg is not that of its key`;
  const NOT_VERIFIED = `${whose} signature does not verify`;

  it.each(ALGORITHMS)("by %s, and both kinds of key in one set", (alg) => {
    const jws = by(rings[alg]);
    expect(JSON.parse(atob(jws.split(".")[0]!))).toEqual({ alg, typ, kid: KIDS[alg] });
    expect(decodeBase64url(jws.split(".")[2]!)).toHaveLength(64);
    expect(read(jws, keys)).toBe(null);
    expect(read(jws, rings.Ed25519)).toBe(null);
  });

  const withHeader = (jws: string, header: object) => [part({ typ, ...header }), ...jws.split(".").slice(1)].join(".");
  it.each(ALGORITHMS)("by %s, with a header that names another algorithm", (alg) => {
    const kid = KIDS[alg];
    for (const said of ["Ed25519", "ES256", "EdDSA", "none", "HS256", "ES384", "es256", "", null, undefined, [alg]])
      if (said !== alg) expect(read(withHeader(by(rings[alg]), { alg: said, kid }), keys), `${said}`).toBe(OTHER_ALG);
  });

  it.each(ALGORITHMS)("by %s, signed under the name of the other's algorithm or key", (alg) => {
    const [other, kid] = alg === "ES256" ? [ed, KIDS.Ed25519] : [ec, KIDS.ES256];
    // As by a signer that writes what it likes into the header, and signs that.
    const lying = ringOf({ ...(alg === "ES256" ? ec : ed), kid });
    const jws = by(lying);
    expect(read(jws, keys)).toBe(OTHER_ALG);
    expect(read(withHeader(jws, { alg: other["alg"], kid }), keys)).toBe(NOT_VERIFIED);
  });

  it.each(ALGORITHMS)("by an HMAC with the public key of %s", async (alg) => {
    const jwk = rings[alg].jwks.keys[0]!;
    const input = `${part({ alg: "HS256", typ, kid: KIDS[alg] })}.${by(rings[alg]).split(".")[1]}`;
    const hmac = { name: "HMAC", hash: "SHA-256" };
    for (const secret of [utf8.encode(jwk.x), decodeBase64url(jwk.x)!, utf8.encode(JSON.stringify(jwk))]) {
      const key = await crypto.subtle.importKey("raw", secret, hmac, false, ["sign"]);
      const mac = new Uint8Array(await crypto.subtle.sign("HMAC", key, utf8.encode(input)));
      expect(read(`${input}.${encodeBase64url(mac)}`, keys)).toBe(OTHER_ALG);
    }
  });

  it("by nobody's key, or by none", () => {
    const unknown = `${NOT_VERIFIED}: no key with its kid is known`;
    for (const kid of ["stranger", undefined, null, 0, ["ec"], "__proto__"])
      expect(read(withHeader(by(rings.ES256), { alg: "ES256", kid }), keys)).toBe(unknown);
  });

  it("by ES256 with a signature that is not 64 bytes of r and s", () => {
    const [header, payload, signature] = by(rings.ES256).split(".");
    const bytes = decodeBase64url(signature!)!;
    const hex = (from: number) => [...bytes.slice(from, from + 32)];
    const integer = (from: number) => [
      0x02,
      hex(from)[0]! > 127 ? 33 : 32,
      ...(hex(from)[0]! > 127 ? [0] : []),
      ...hex(from),
    ];
    const der = [...integer(0), ...integer(32)];
    const wrong = [
      Uint8Array.from([0x30, der.length, ...der]),
      bytes.slice(0, 63),
      Uint8Array.from([...bytes, 0]),
      Uint8Array.from([0, ...hex(0), 0, ...hex(32)]),
      new Uint8Array(64),
      new Uint8Array(64).fill(255),
      // CVE-2022-21449: r of 0, or s of 0.
      Uint8Array.from([...new Uint8Array(32), ...hex(32)]),
      Uint8Array.from([...hex(0), ...new Uint8Array(32)]),
    ];
    for (const one of wrong) expect(read(`${header}.${payload}.${encodeBase64url(one)}`, keys)).toBe(NOT_VERIFIED);
  });

  it("by ES256 has a twin, which states the same: nothing goes by a signature's bytes", () => {
    const [header, payload, signature] = by(rings.ES256).split(".");
    const bytes = decodeBase64url(signature!)!;
    const order = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;
    const s = bytes.slice(32).reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
    const twin = bytes.map((byte, i) => (i < 32 ? byte : Number(((order - s) >> BigInt(8 * (63 - i))) & 255n)));
    expect(twin).not.toEqual(bytes);
    expect(read(`${header}.${payload}.${encodeBase64url(twin)}`, keys)).toBe(null);
  });
});

describe("a ring", () => {
  it("of both kinds publishes each with its algorithm, and nothing private", () => {
    const { x, y } = ec;
    expect(rings.ES256.jwks.keys).toEqual([
      { kty: "EC", crv: "P-256", kid: "ec", x, y, alg: "ES256", use: "sig" },
      { kty: "OKP", crv: "Ed25519", kid: "ed", x: ed["x"], alg: "Ed25519", use: "sig" },
    ]);
  });

  it("takes an Ed25519 key without alg, as older sets have it", () => {
    expect(ringOf({ ...ed, alg: undefined }).jwks.keys[0]!.alg).toBe("Ed25519");
  });

  it("of grants has no ES256", () => {
    const make = () => new KeyRing(JSON.stringify({ keys: [ed, ec] }), "GRANT_KEYS", GRANT_ALGORITHMS);
    expect(make).toThrow(/^secret GRANT_KEYS is not a JWK set of private Ed25519 keys$/);
  });

  const wrong: [name: string, keys: () => object[]][] = [
    ["without alg", () => [{ ...ec, alg: undefined }]],
    ["of another alg", () => [{ ...ec, alg: "ES384" }]],
    ["of the other's alg", () => [{ ...ec, alg: "Ed25519" }]],
    ["Ed25519 of the other's alg", () => [{ ...ed, alg: "ES256" }]],
    ["Ed25519 of alg EdDSA, which tells no curve", () => [{ ...ed, alg: "EdDSA" }]],
    ["without crv", () => [{ ...ec, crv: undefined }]],
    ["of another crv", () => [{ ...ec, crv: "P-384" }]],
    ["of secp256k1", () => [{ ...ec, crv: "secp256k1" }]],
    ["without y", () => [{ ...ec, y: undefined }]],
    ["of the other's kty", () => [{ ...ec, kty: "OKP" }]],
    ["behind a good one", () => [ed, { ...ec, crv: "P-521" }]],
    ["short by a byte", () => [{ ...ec, x: ec["x"]!.slice(0, 42) }]],
  ];
  it.each(wrong)("is not made of a key %s, nor is a verifier, and the error repeats nothing", (_name, bad) => {
    expect(() => ringOf(...bad())).toThrow(/^secret SEAL_KEYS is not a JWK set of private Ed25519 or ES256 keys$/);
    expect(parseSealKeys({ keys: bad() })).toEqual({ ok: false, error: "not a JWK set of Ed25519 or ES256 keys" });
  });

  it("is not made of a key without its private half", () => {
    const bad = [
      { ...ec, d: undefined },
      { ...ec, d: "" },
      { ...ec, d: "A".repeat(43) },
    ];
    for (const key of bad)
      expect(() => ringOf(key)).toThrow(/^secret SEAL_KEYS is not a JWK set of private Ed25519 or ES256 keys$/);
  });

  it("is not made of a point that is not on the curve, nor is a verifier", () => {
    for (const off of [{ y: ec["x"]! }, { x: "A".repeat(43), y: "A".repeat(43) }, { x: `${"_".repeat(42)}8` }]) {
      const bad = { ...ec, kid: "off", ...off };
      expect(() => ringOf(ed, bad)).toThrow(/^secret SEAL_KEYS has a key that is no point of its curve$/);
      expect(parseSealKeys({ keys: [bad] })).toEqual({ ok: false, error: "a key that is no point of its curve" });
    }
  });

  it("is not made of one kid for two kinds, nor is a verifier", () => {
    const bad = [ed, { ...ec, kid: "ed" }];
    expect(() => ringOf(...bad)).toThrow(/^secret SEAL_KEYS has the same kid twice$/);
    expect(parseSealKeys({ keys: bad })).toEqual({ ok: false, error: "the same kid twice" });
  });
});
