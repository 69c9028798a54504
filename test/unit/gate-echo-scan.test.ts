import fc from "fast-check";
import { describe, expect, it, vi } from "vitest";
import { type Echoed, EchoScan } from "../../src/gate/echo-scan.ts";
import { Needles } from "../../src/upstream/needles.ts";
import { needlesOf as keptNeedlesOf } from "../../src/upstream/placing.ts";
import { Secret } from "../../src/upstream/secret.ts";
import { spellingsOf } from "../../src/upstream/spellings.ts";

const TOKEN = "ghs_16C7e42F292c6912E7710c838347Ae178B4a";
/** With every character that some spelling writes otherwise. */
const AWKWARD = `p&ss/w+rd="x"<y>'z~1`;
/** Of which base64 has `+` and `/`, whatever stands before it. */
const SIGNS = "~?~?>>>???~~~>?>?>";
const needlesOf = (text: string) => new Needles(spellingsOf(text, 16));
const utf8 = new TextEncoder();
const passedBy = (scan: EchoScan, run: Uint8Array): string | Echoed => {
  const clean = scan.pass(run);
  return typeof clean === "string" ? clean : latin1(clean);
};
const latin1 = (bytes: Uint8Array): string => [...bytes].map((byte) => String.fromCharCode(byte)).join("");

const scanOf = (needles: Needles) => new EchoScan([{ what: "credential", needles }]);

/** What went on, and whether it was found. */
function scanned(needles: Needles, runs: readonly Uint8Array[]): { readonly passed: string; readonly found: boolean } {
  const scan = scanOf(needles);
  let passed = "";
  for (const run of runs) {
    const clean = scan.pass(run);
    if (typeof clean === "string") return { passed, found: true };
    passed += latin1(clean);
  }
  return { passed: passed + latin1(scan.end()), found: false };
}
const cutAt = (bytes: Uint8Array, at: readonly number[]): Uint8Array[] => {
  const places = [0, ...at.map((one) => one % (bytes.length + 1)).sort((a, b) => a - b), bytes.length];
  return places.slice(1).map((end, i) => bytes.slice(places[i], end));
};

const percentAll = (text: string) => [...text].map((c) => `%${c.charCodeAt(0).toString(16)}`).join("");
const unicode = (text: string, chars: RegExp, isUpper = false) =>
  text.replace(chars, (c) => {
    const code = c.charCodeAt(0).toString(16);
    return `\\u00${isUpper ? code.toUpperCase() : code}`;
  });
const entities = (text: string, named: Readonly<Record<string, string>>) =>
  text.replace(/[&<>"'`=+/]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", ...named })[c] ?? c);
const unicodeAll = (text: string) => [...text].map((c) => `\\u00${c.charCodeAt(0).toString(16)}`).join("");
const SPELLINGS: readonly [string, (text: string) => string][] = [
  ["as it is", (text) => text],
  ["within a header's value", (text) => `Bearer ${text}`],
  ["in base64", (text) => btoa(text)],
  ["in base64url without padding", (text) => btoa(text).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "")],
  ["in base64 as a user's password", (text) => btoa(`x-access-token:${text}`)],
  ["in base64 as another user's password", (text) => btoa(`ab:${text}`)],
  ["in base64 as a user", (text) => btoa(`${text}:`)],
  ["in base64 of a JSON text", (text) => btoa(JSON.stringify({ t: text }))],
  ["in a URL", (text) => encodeURIComponent(text)],
  ["in a URL, in lower case", (text) => encodeURIComponent(text).replace(/%../g, (code) => code.toLowerCase())],
  ["in a form", (text) => new URLSearchParams({ t: text }).toString()],
  ["percent-encoded, each character", percentAll],
  ["in a URL within a URL", (text) => encodeURIComponent(encodeURIComponent(text))],
  ["in JSON", (text) => JSON.stringify({ t: text })],
  ["in JSON, as PHP writes it", (text) => JSON.stringify({ t: text }).replaceAll("/", "\\/")],
  ["in JSON within JSON", (text) => JSON.stringify({ t: JSON.stringify({ t: text }) })],
  ["in JSON, each character escaped", unicodeAll],
  [
    "in HTML",
    (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;"),
  ],
  ["in JSON, as Gson writes it", (text) => unicode(JSON.stringify({ t: text }), /[<>&'=]/g)],
  [
    "in JSON, as .NET writes it",
    (text) => unicode(JSON.stringify({ t: text }).replaceAll('\\"', "\\u0022"), /[<>&'+`]/g, true),
  ],
  [
    "in JSON, as PHP writes it for HTML",
    (text) => unicode(JSON.stringify({ t: text }).replaceAll('\\"', "\\u0022"), /[<>&']/g, true).replaceAll("/", "\\/"),
  ],
  ["in JSON, each character escaped in upper case", (text) => unicode(text, /./g, true)],
  ["in HTML, as PHP writes it", (text) => entities(text, { '"': "&quot;", "'": "&#039;" })],
  ["in HTML, as Jinja writes it", (text) => entities(text, { '"': "&#34;", "'": "&#39;" })],
  ["in HTML, as Go's templates write it", (text) => entities(text, { '"': "&#34;", "'": "&#39;", "+": "&#43;" })],
  ["in HTML, as .NET writes it", (text) => entities(text, { '"': "&quot;", "'": "&#x27;", "+": "&#x2B;" })],
  [
    "in HTML, as Handlebars writes it",
    (text) => entities(text, { '"': "&quot;", "'": "&#x27;", "`": "&#x60;", "=": "&#x3D;" }),
  ],
  [
    "in HTML, as Mustache writes it",
    (text) => entities(text, { '"': "&quot;", "'": "&#39;", "`": "&#x60;", "=": "&#x3D;", "/": "&#x2F;" }),
  ],
  ["in base64 within a URL", (text) => encodeURIComponent(btoa(`x-access-token:${text}`))],
  [
    "in base64 within a URL, in lower case",
    (text) => encodeURIComponent(btoa(`ab:${text}`)).replace(/%../g, (code) => code.toLowerCase()),
  ],
  ["in base64 within JSON, as .NET writes it", (text) => btoa(`ab:${text}`).replaceAll("+", "\\u002B")],
  ["in base64 within JSON, as PHP writes it", (text) => btoa(`x-access-token:${text}`).replaceAll("/", "\\/")],
  ["in hexadecimal, in upper case", (text) => Buffer.from(text).toString("hex").toUpperCase()],
  ["in hexadecimal", (text) => [...text].map((c) => c.charCodeAt(0).toString(16)).join("")],
];

describe("an answer that holds the credential", () => {
  for (const [what, secret] of [
    ["a token", TOKEN],
    ["an awkward password", AWKWARD],
    ["a password whose base64 is awkward", SIGNS],
  ] as const)
    it.each(SPELLINGS)(`${what} %s is found, wherever it is cut`, (_how, spell) => {
      const needles = needlesOf(secret);
      const body = utf8.encode(`{"before": 1, "it": "${spell(secret)}", "after": 2}`);
      fc.assert(
        fc.property(fc.array(fc.nat(), { maxLength: 12 }), (cuts) => {
          const { found, passed } = scanned(needles, cutAt(body, cuts));
          return found && '{"before": 1, "it": "'.startsWith(passed.slice(0, 21)) && passed.length < body.length - 10;
        }),
        { numRuns: 40 },
      );
    });

  it("lets no more than three characters of it pass, byte by byte", () => {
    const body = utf8.encode(`xx ${TOKEN} yy`);
    expect(scanned(needlesOf(TOKEN), cutAt(body, [...body.keys()]))).toEqual({ passed: "xx ghs", found: true });
  });

  it("is found by the password of what Basic encodes, and by both halves together", () => {
    const basic = needlesOf(btoa(`deploy:${AWKWARD}`));
    expect(scanned(basic, [utf8.encode(`no such password: ${AWKWARD}`)]).found).toBe(true);
    expect(scanned(basic, [utf8.encode(`deploy:${AWKWARD}`)]).found).toBe(true);
    // Nothing of it passes, not even what is the user's name.
    const cut = [
      utf8.encode(`xx ${btoa(`deploy:${AWKWARD}`).slice(0, 9)}`),
      utf8.encode(btoa(`deploy:${AWKWARD}`).slice(9)),
    ];
    expect(scanned(basic, cut)).toEqual({ passed: "xx ", found: true });
    // The user alone is no secret.
    expect(scanned(basic, [utf8.encode("deploy, and a long text that is nothing of it")]).found).toBe(false);
  });
});

describe("an answer to which two things went out", () => {
  const SIGNED = `eyJ0eXAiOiJ4In0.${"Zm9v".repeat(100)}.${"c2ln".repeat(20)}`;
  const both = () =>
    new EchoScan([
      { what: "credential", needles: needlesOf(TOKEN) },
      { what: "signed delegation", needles: new Needles([SIGNED]) },
    ]);
  const endOf = (text: string, cuts: readonly number[]) => {
    const scan = both();
    let passed = "";
    for (const run of cutAt(utf8.encode(text), cuts)) {
      const clean = scan.pass(run);
      if (typeof clean === "string") return { passed, found: clean };
      passed += latin1(clean);
    }
    return { passed: passed + latin1(scan.end()), found: null };
  };

  it("says which of both is in it, wherever it is cut", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(), { maxLength: 8 }), fc.boolean(), (cuts, isToken) => {
        const { passed, found } = endOf(`a ghs_16 eyJ0eXAi ${isToken ? TOKEN : SIGNED} b`, cuts);
        return (
          found === (isToken ? "credential" : "signed delegation") && passed.length <= "a ghs_16 eyJ0eXAi xxx".length
        );
      }),
    );
  });

  it("passes with the beginnings of both, as it came", () => {
    const text = `${TOKEN.slice(0, -1)}${SIGNED.slice(0, -1)}${TOKEN.slice(0, 8)}${SIGNED.slice(0, 8)}`;
    fc.assert(
      fc.property(fc.array(fc.nat(), { maxLength: 12 }), (cuts) => {
        const { passed, found } = endOf(text, cuts);
        return found === null && passed === text;
      }),
    );
  });
});

describe("an answer that does not", () => {
  it("passes as it came, whatever its bytes and wherever it is cut", () => {
    const needles = needlesOf(TOKEN);
    // Made of pieces of the credential, so that its beginning is met again and again.
    const piece = fc.oneof(
      fc.integer({ min: 1, max: TOKEN.length - 1 }).map((length) => utf8.encode(TOKEN.slice(0, length))),
      fc.integer({ min: 1, max: 20 }).map((from) => utf8.encode(TOKEN.slice(from))),
      fc.uint8Array({ maxLength: 40 }),
    );
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 12 }), fc.array(fc.nat(), { maxLength: 8 }), (pieces, cuts) => {
        const body = Uint8Array.from(pieces.flatMap((one) => [...one]));
        const text = latin1(body);
        const { passed, found } = scanned(needles, cutAt(body, cuts));
        return text.includes(TOKEN) ? found : !found && passed === text;
      }),
      { numRuns: 500 },
    );
  });

  it("is held back by no more than what may be a beginning", () => {
    const scan = scanOf(needlesOf(TOKEN));
    expect(passedBy(scan, utf8.encode("event: x\n\n"))).toBe("event: x\n\n");
    expect(passedBy(scan, utf8.encode("data: ghs_16C7"))).toBe("data: ");
    expect(scan.pass(utf8.encode("e42F292c6912E7710c838347Ae178B4"))).toHaveLength(0);
    expect(passedBy(scan, utf8.encode("\n"))).toBe("ghs_16C7e42F292c6912E7710c838347Ae178B4\n");
    expect(scan.end()).toHaveLength(0);
  });

  it("is not looked at where no credential was sent", () => {
    const scan = new EchoScan([]);
    const run = utf8.encode(TOKEN);
    expect(scan.pass(run)).toBe(run);
    expect(scan.findInHeaders([["x", TOKEN]])).toBeNull();
  });
});

describe("headers", () => {
  it("are looked through, names and values", () => {
    const scan = scanOf(needlesOf(TOKEN));
    expect(scan.findInHeaders([["x-debug", `auth=${btoa(`u:${TOKEN}`)}`]])).toBe("credential");
    expect(scan.findInHeaders([["x-debug", TOKEN.slice(1)]])).toBeNull();
  });
});

describe("what is made of a secret", () => {
  it("is kept for the secrets that were used last, and for no more than a hundred", () => {
    const secrets = Array.from({ length: 101 }, (_, i) => new Secret(`a-secret-of-one-of-many-${i}`));
    const first = keptNeedlesOf(secrets[0]!);
    const second = keptNeedlesOf(secrets[1]!);
    for (const secret of secrets.slice(2, 100)) keptNeedlesOf(secret);
    expect(keptNeedlesOf(secrets[0]!)).toBe(first);
    keptNeedlesOf(secrets[100]!);
    expect(keptNeedlesOf(secrets[0]!)).toBe(first);
    expect(keptNeedlesOf(secrets[1]!)).not.toBe(second);
  });

  it("is not led astray by bytes that are no ASCII", () => {
    const bytes = utf8.encode(TOKEN).map((byte) => byte | 0x80);
    expect(scanned(needlesOf(TOKEN), [bytes])).toEqual({ passed: latin1(bytes), found: false });
  });
});

describe("a credential that repeats itself", () => {
  const naive = (texts: readonly string[], body: string) => texts.some((one) => body.includes(one));
  const word = fc.string({ unit: fc.constantFrom("a", "b"), minLength: 16, maxLength: 48 });

  it("is found in bytes that nearly hold it as a plain search would find it, and all else passes", () => {
    const piece = (text: string) =>
      fc.oneof(
        fc.tuple(fc.nat(text.length), fc.nat(text.length)).map(([a, b]) => text.slice(Math.min(a, b), Math.max(a, b))),
        fc.string({ unit: fc.constantFrom("a", "b"), maxLength: 20 }),
      );
    const cases = fc
      .tuple(word, word)
      .chain(([one, other]) =>
        fc.tuple(
          fc.constant([one, other]),
          fc.array(fc.oneof(piece(one), piece(other)), { maxLength: 8 }),
          fc.array(fc.nat(), { maxLength: 10 }),
        ),
      );
    fc.assert(
      fc.property(cases, ([texts, pieces, cuts]) => {
        const body = pieces.join("");
        const { found, passed } = scanned(new Needles(texts), cutAt(utf8.encode(body), cuts));
        return naive(texts, body) ? found && body.startsWith(passed) : !found && passed === body;
      }),
      { numRuns: 3_000 },
    );
  });

  it("costs a bounded number of comparisons a byte, however long it is", () => {
    const compared = (length: number): number => {
      const needles = new Needles(["a".repeat(length)]);
      const pattern = needles.patterns[0]!;
      const spy = vi.spyOn(pattern, "next");
      const body = utf8.encode(`${"a".repeat(length - 1)}b`.repeat(Math.ceil(131_072 / length)));
      for (const bytes of [4_096, 64]) {
        const runs = Array.from({ length: Math.floor(body.length / bytes) }, (_, i) =>
          body.subarray(i * bytes, (i + 1) * bytes),
        );
        expect(scanned(needles, runs).found).toBe(false);
      }
      return spy.mock.calls.length;
    };
    // Twice the bytes, and each of them once.
    for (const length of [16, 512, 8_192]) expect(compared(length)).toBeLessThan(2 * 1.1 * 131_072 + 2 * length);
  });
});

describe("spellings", () => {
  it("are few where nothing in a token is written otherwise", () => {
    // As it is, escaped as a whole, in base64 of three beginnings and in hexadecimal, each in two ways at most.
    expect(spellingsOf("ghp_16C7e42F292c6912E7710c838347Ae178B4a", 16).length).toBeLessThan(16);
    expect(spellingsOf(AWKWARD, 16).length).toBeLessThan(100);
  });

  it("are none shorter than the shortest secret that is scanned for", () => {
    for (const secret of [TOKEN, AWKWARD, "0123456789abcdef"])
      for (const one of spellingsOf(secret, 16)) expect(one.length).toBeGreaterThanOrEqual(16);
  });

  it("of a token of 8 KiB are found as well", () => {
    const long = "aB3-".repeat(2_048);
    expect(scanned(needlesOf(long), [utf8.encode("x"), utf8.encode(btoa(`:${long}`))]).found).toBe(true);
    expect(scanned(needlesOf(long), [utf8.encode(long.slice(4))]).found).toBe(false);
  });
});
