import { compactVerify, generateKeyPair, SignJWT } from "jose";
import { beforeAll, describe, expect, it } from "vitest";
import { decodeBase64url, encodeBase64url } from "../../src/grant/base64url.ts";
import { hasType, isSeconds, parseCompact } from "../../src/grant/compact.ts";

const utf8 = new TextEncoder();
const part = (text: string) => encodeBase64url(utf8.encode(text));
const compact = (header: string, payload: string, signature = "c2ln") =>
  `${part(header)}.${part(payload)}.${signature}`;
const parse = (token: string, maxChars = 1_000) => {
  const jws = parseCompact(token, maxChars);
  return jws.ok ? "taken apart" : jws.error;
};

describe("base64url", () => {
  it("is read back as it was written, and as others write it", () => {
    for (let length = 0; length < 70; length++) {
      const bytes = crypto.getRandomValues(new Uint8Array(length));
      const text = encodeBase64url(bytes);
      expect(text).toBe(
        btoa(String.fromCharCode(...bytes))
          .replaceAll("+", "-")
          .replaceAll("/", "_")
          .replace(/=+$/, ""),
      );
      expect(decodeBase64url(text)).toEqual(bytes);
    }
  });

  it.each([
    ["one character", "A"],
    ["a length of 4n+1", "AAAAA"],
    ["padding", "AA=="],
    ["unused bits of two characters", "AB"],
    ["unused bits of three characters", "AAB"],
    ["the standard alphabet", "+/+/"],
    ["a space", "AA A"],
    ["a space behind", "AAAA "],
    ["a newline", "AAAA\n"],
    ["a null", "AAA\u0000"],
    ["a letter beyond ASCII", "AAAé"],
    ["a letter that looks alike", "AAAА"],
    ["half a pair", "AAA\ud83d"],
    ["a dot", "AA.A"],
  ])("has one spelling, and not: %s", (_name, text) => expect(decodeBase64url(text)).toBeUndefined());

  it("has exactly one spelling for each two and three characters", () => {
    const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const count = (lead: string) => [...alphabet].filter((last) => decodeBase64url(lead + last) !== undefined).length;
    expect(count("A")).toBe(4);
    expect(count("AA")).toBe(16);
    expect(count("AAA")).toBe(64);
  });
});

describe("parseCompact", () => {
  it("refuses nothing at all", () => expect(parse("")).toBe("not a JWS in compact form"));
  it("takes a right one apart", () => expect(parse(compact('{"alg":"x"}', "{}"))).toBe("taken apart"));

  it.each([
    ["two parts", "e30.e30", "not a JWS in compact form"],
    ["four parts", "e30.e30.e30.e30", "not a JWS in compact form"],
    ["no header", ".e30.c2ln", "an empty part"],
    ["no payload", "e30..c2ln", "an empty part"],
    ["no signature", "e30.e30.", "an empty part"],
    ["a header that is no JSON", compact("{", "{}"), "header: not JSON"],
    ["a payload that is no JSON", compact("{}", "hello"), "payload: not JSON"],
    ["a header that is a list", compact("[]", "{}"), "header and payload must be objects"],
    ["a payload that is null", compact("{}", "null"), "header and payload must be objects"],
    ["a payload that is a text", compact("{}", '"a"'), "header and payload must be objects"],
    ["a key twice in the header", compact('{"alg":"a","alg":"b"}', "{}"), "header: duplicate key at offset 11"],
    ["a key twice in the payload", compact("{}", '{"a":1,"\\u0061":2}'), "payload: duplicate key at offset 7"],
    ["__proto__", compact("{}", '{"__proto__":{}}'), "payload: forbidden key at offset 1"],
    [
      "bytes that are not UTF-8",
      `e30.${encodeBase64url(new Uint8Array([0x7b, 0xff, 0x7d]))}.c2ln`,
      "payload: not UTF-8",
    ],
    ["a byte order mark", compact("{}", "\ufeff{}"), "payload: not JSON"],
    ["crit", compact('{"crit":["x"]}', "{}"), "an extension that is not understood (crit)"],
    ["an empty crit", compact('{"crit":[]}', "{}"), "an extension that is not understood (crit)"],
    ["b64", compact('{"b64":true}', "{}"), "an extension that is not understood (crit)"],
    ["depth", compact("{}", `{"a":${"[".repeat(16)}${"]".repeat(16)}}`), "payload: nested deeper than 16"],
    ["a header with padding", `e30=.e30.c2ln`, "not canonical base64url"],
  ])("refuses %s", (_name, token, reason) => expect(parse(token)).toBe(reason));

  it("has its bound where it is stated", () => {
    const token = compact("{}", "{}");
    expect(parse(token, token.length)).toBe("taken apart");
    expect(parse(token, token.length - 1)).toBe("the token is too long");
  });
});

/** RFC 8725bis: one token has one text. The library beneath takes these for the same token; the gate must not. */
describe("other spellings of a token that verifies", () => {
  let token: string;
  let key: CryptoKey;
  beforeAll(async () => {
    const pair = await generateKeyPair("ES256");
    key = pair.publicKey as CryptoKey;
    token = await new SignJWT({ sub: "s" }).setProtectedHeader({ alg: "ES256" }).sign(pair.privateKey);
  });

  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const inPart = (which: number, change: (text: string) => string) =>
    token
      .split(".")
      .map((text, i) => (i === which ? change(text) : text))
      .join(".");
  const spellings: [name: string, spell: () => string][] = [
    [
      "flipped unused bits of the signature",
      () => token.slice(0, -1) + alphabet[alphabet.indexOf(token.at(-1) ?? "") + 1],
    ],
    ["padding of the signature", () => `${token}==`],
    ["a space inside of the signature", () => inPart(2, (text) => `${text.slice(0, 9)} ${text.slice(9)}`)],
    ["a newline inside of the signature", () => inPart(2, (text) => `${text.slice(0, 9)}\n${text.slice(9)}`)],
    ["a tab behind the signature", () => `${token}\t`],
  ];
  it.each(spellings)("are refused: %s", async (_name, spell) => {
    expect(parse(token)).toBe("taken apart");
    const respelled = spell();
    expect(parse(respelled)).toBe("not canonical base64url");
    // The reason for all this. Should it begin to throw, the library has caught up.
    await expect(compactVerify(respelled, key)).resolves.toBeDefined();
  });

  it.each([0, 1])("are refused: a space in part %i, which was signed as it was", (which) => {
    expect(parse(inPart(which, (text) => `${text.slice(0, 4)} ${text.slice(4)}`))).toBe("not canonical base64url");
    expect(parse(inPart(which, (text) => `${text}=`))).toBe("not canonical base64url");
  });
});

describe("hasType", () => {
  it.each<[unknown, boolean]>([
    ["at+jwt", true],
    ["AT+JWT", true],
    ["application/at+jwt", true],
    ["Application/At+Jwt", true],
    ["application/application/at+jwt", false],
    ["text/at+jwt", false],
    ["at+jwt ", false],
    ["xat+jwt", false],
    ["jwt", false],
    ["", false],
    [undefined, false],
    [null, false],
    [["at+jwt"], false],
  ])("of %j", (typ, expected) => expect(hasType({ typ: typ as string }, "at+jwt")).toBe(expected));
});

describe("isSeconds", () => {
  it.each<[unknown, boolean]>([
    [0, true],
    [1_900_000_000, true],
    [99_999_999_999, true],
    [100_000_000_000, false],
    [1_900_000_000_000, false],
    [-1, false],
    [0.5, false],
    [Number.NaN, false],
    [Number.POSITIVE_INFINITY, false],
    ["1900000000", false],
    [null, false],
    [undefined, false],
    [[1], false],
  ])("of %j", (value, expected) => expect(isSeconds(value as number)).toBe(expected));
});
