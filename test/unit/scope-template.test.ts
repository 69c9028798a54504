import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  bindOperation,
  coversMethod,
  MAX_TEMPLATE_LENGTH,
  type Operation,
  parseOperation,
} from "../../src/scope/template.ts";

const operation = (text: string): Operation => {
  const result = parseOperation(text);
  if (!result.ok) throw new Error(`${text}: ${result.error}`);
  return result.value;
};

describe("parseOperation", () => {
  it("refuses nothing at all", () => {
    expect(parseOperation("").ok).toBe(false);
  });

  const METHOD = "must be a method in upper case, a space and a path";
  const SLASH = "the path must begin with /";
  const EMPTY = "an empty segment in the path";
  const PLAIN = "a segment is neither plain text nor {name} nor {+name}";
  const DOTS = "a dot segment in the path";
  const WILDCARD = "* and :name are no wildcards here: {name} is one segment, {+name} is all that follow";
  it.each([
    ["POST /payments/*", WILDCARD],
    ["POST /*/payments", WILDCARD],
    ["GET /a/**", WILDCARD],
    ["GET /repos/:owner/x", WILDCARD],
    ["GET /repos/:rest*", WILDCARD],
    ["GET", METHOD],
    ["/a", METHOD],
    [" /a", METHOD],
    ["get /a", METHOD],
    ["* /a", METHOD],
    ["GET|POST /a", METHOD],
    ["M-SEARCH /a", METHOD],
    ["GET\t/a", METHOD],
    ["GET ", SLASH],
    ["GET a", SLASH],
    ["GET  /a", SLASH],
    ["GET https://x/a", SLASH],
    ["GET //", EMPTY],
    ["GET //a", EMPTY],
    ["GET /a//b", EMPTY],
    ["GET /a//", EMPTY],
    ["GET /.", DOTS],
    ["GET /a/../b", DOTS],
    ["GET /a/./", DOTS],
    ["GET /..;x/a", DOTS],
    ["GET /a?b=c", PLAIN],
    ["GET /a#b", PLAIN],
    ["GET /a%20b", PLAIN],
    ["GET /a\\b", PLAIN],
    ["GET /a\u0000", PLAIN],
    ["GET /a\u007f", PLAIN],
    ["GET /a\u0085", PLAIN],
    ["GET /a\u200bb", PLAIN],
    ["GET /a\u00a0b", PLAIN],
    ["GET /a\ud800", PLAIN],
    ["GET /a ", PLAIN],
    ["GET / a", PLAIN],
    ["GET /a  b", PLAIN],
    ["GET /a\n", PLAIN],
    ["GET /{}", PLAIN],
    ["GET /{+}", PLAIN],
    ["GET /{1a}", PLAIN],
    ["GET /{a-b}", PLAIN],
    ["GET /{a}b", PLAIN],
    ["GET /a{b}", PLAIN],
    ["GET /{a}{b}", PLAIN],
    ["GET /{a", PLAIN],
    ["GET /a}", PLAIN],
    ["GET /{*a}", PLAIN],
    ["GET /{a\n}", PLAIN],
    ["GET /{+a}/b", "{+name} must be the last segment"],
    ["GET /{+a}/", "{+name} must be the last segment"],
    ["GET /{a}/{a}", "a parameter is named twice"],
    ["GET /{a}/b/{+a}", "a parameter is named twice"],
  ])("refuses %j", (text, error) => {
    expect(parseOperation(text)).toEqual({ ok: false, error });
  });

  it.each(["GET /v1/messages:send", "GET /a*b", "GET /v1/:", "POST /:8080"])("takes %j as text", (text) => {
    expect(parseOperation(text).ok).toBe(true);
  });

  it("refuses one character past the bound", () => {
    const longest = `GET /${"a".repeat(MAX_TEMPLATE_LENGTH - "GET /".length)}`;
    expect(parseOperation(longest).ok).toBe(true);
    expect(parseOperation(`${longest}a`)).toEqual({ ok: false, error: `longer than ${MAX_TEMPLATE_LENGTH}` });
  });

  it("reads the parts, and keeps the text", () => {
    const text = "PATCH /v0/{base}/Ordres à faire/{+rest}";
    expect(operation(text)).toEqual({
      method: "PATCH",
      text,
      parts: [
        { kind: "literal", text: "v0" },
        { kind: "segment", name: "base" },
        { kind: "literal", text: "Ordres à faire" },
        { kind: "rest", name: "rest" },
      ],
    });
    expect(operation("GET /").parts).toEqual([{ kind: "literal", text: "" }]);
    expect(operation("GET /a/").parts).toEqual([
      { kind: "literal", text: "a" },
      { kind: "literal", text: "" },
    ]);
  });
});

describe("bindOperation", () => {
  it("binds nothing to nothing", () => {
    expect(bindOperation(operation("GET /"), "", [])).toBeUndefined();
    expect(bindOperation(operation("GET /{+a}"), "GET", [])).toBeUndefined();
    expect(bindOperation({ method: "GET", parts: [], text: "" }, "GET", ["a"])).toBeUndefined();
  });

  it.each<[string, string, string[], Record<string, string> | undefined]>([
    ["GET /", "GET", [""], {}],
    ["GET /", "GET", ["a"], undefined],
    ["GET /a", "GET", ["a"], {}],
    ["GET /a", "GET", ["A"], undefined],
    ["GET /a", "GET", ["a", ""], undefined],
    ["GET /a/", "GET", ["a"], undefined],
    ["GET /a/", "GET", ["a", ""], {}],
    ["GET /a/", "GET", ["a", "", ""], undefined],
    ["GET /a", "HEAD", ["a"], {}],
    ["HEAD /a", "GET", ["a"], undefined],
    ["GET /a", "POST", ["a"], undefined],
    ["POST /a", "HEAD", ["a"], undefined],
    ["GET /a", "get", ["a"], undefined],
    ["GET /a/b", "GET", ["a/b"], undefined],
    ["GET /{x}", "GET", ["a"], { x: "a" }],
    ["GET /{x}", "GET", [""], undefined],
    ["GET /{x}", "GET", ["a", "b"], undefined],
    ["GET /{x}", "GET", ["a/b"], { x: "a/b" }],
    ["GET /{x}", "GET", ["."], undefined],
    ["GET /{x}", "GET", [".."], undefined],
    ["GET /{x}", "GET", ["..."], { x: "..." }],
    ["GET /{x}", "GET", ["a/../b"], undefined],
    ["GET /{x}", "GET", ["a\\..\\b"], undefined],
    ["GET /{x}", "GET", ["..;v=1"], undefined],
    ["GET /{x}", "GET", ["a..b"], { x: "a..b" }],
    ["GET /{x}/{y}", "GET", ["a", "b"], { x: "a", y: "b" }],
    ["GET /{x}/b", "GET", ["a", "c"], undefined],
    ["GET /a/{+r}", "GET", ["a"], undefined],
    ["GET /a/{+r}", "GET", ["a", ""], undefined],
    ["GET /a/{+r}", "GET", ["a", "b"], { r: "b" }],
    ["GET /a/{+r}", "GET", ["a", "b", "c/d"], { r: "b/c/d" }],
    ["GET /a/{+r}", "GET", ["a", "b", ""], undefined],
    ["GET /a/{+r}", "GET", ["a", "", "b"], undefined],
    ["GET /a/{+r}", "GET", ["a", "b", ".."], undefined],
    ["GET /a/{+r}", "GET", ["b", "c"], undefined],
    ["GET /{constructor}/{__proto__}", "GET", ["toString", "__proto__"], undefined],
  ])("%s against %s %j", (text, method, segments, facts) => {
    const bound = bindOperation(operation(text), method, segments);
    if (text.includes("__proto__")) {
      expect([...(bound ?? [])]).toEqual([
        ["constructor", "toString"],
        ["__proto__", "__proto__"],
      ]);
    } else {
      expect(bound && Object.fromEntries(bound)).toEqual(facts);
    }
  });

  it("binds each parameter to the segment that was put in its place", () => {
    const name = fc.constantFrom("a", "b", "constructor", "__proto__", "toString", "hasOwnProperty");
    const value = fc
      .oneof(fc.string({ unit: "grapheme", minLength: 1 }), fc.constantFrom("__proto__", "a/b", "{a}"))
      .filter((text) => !text.includes("."));
    const literal = fc.constantFrom("v0", "x y", "toString", "__proto__");
    const parts = fc
      .uniqueArray(fc.tuple(name, value), { selector: ([id]) => id, maxLength: 4 })
      .chain((params) =>
        fc.tuple(
          fc.constant(params),
          fc.array(literal, { minLength: params.length + 1, maxLength: params.length + 1 }),
          fc.option(fc.array(value, { minLength: 1, maxLength: 3 }), { nil: undefined }),
        ),
      );
    fc.assert(
      fc.property(parts, ([params, literals, rest]) => {
        const template = literals.flatMap((text, i) => (i === 0 ? [text] : [`{${params[i - 1]![0]}}`, text]));
        const segments = literals.flatMap((text, i) => (i === 0 ? [text] : [params[i - 1]![1], text]));
        const expected = new Map<string, string>(params);
        if (rest !== undefined) {
          template.push("{+rest}");
          segments.push(...rest);
          expected.set("rest", rest.join("/"));
        }
        const parsed = operation(`GET /${template.join("/")}`);
        expect(bindOperation(parsed, "GET", segments)).toEqual(expected);
        expect(bindOperation(parsed, "GET", [...segments, ""])).toBeUndefined();
        expect(bindOperation(parsed, "GET", segments.slice(0, literals.length + params.length - 1))).toBeUndefined();
      }),
    );
  });
});

describe("coversMethod", () => {
  it.each([
    ["", "GET", false],
    ["GET", "GET", true],
    ["GET", "HEAD", true],
    ["HEAD", "GET", false],
    ["POST", "HEAD", false],
    ["POST", "GET", false],
  ])("%s covers %s: %s", (wider, narrower, expected) => {
    expect(coversMethod(wider, narrower)).toBe(expected);
  });
});
