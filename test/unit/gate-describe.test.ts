import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type Described, describe as describeCall, describePath, describeQuery } from "../../src/gate/describe.ts";
import { parseTarget } from "../../src/gate/target.ts";

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const OPTIONS = { upstream: "x", encodedSlash: "data", bodyFacts: false } as const;
const request = (over: Partial<Described> & { url?: string; with?: Record<string, string> } = {}): Described => ({
  target: parseTarget(over.url ?? "https://gate.test/x/a"),
  method: over.method ?? "GET",
  headers: new Headers(over.with ?? over.headers ?? {}),
  body: over.body === undefined ? new Uint8Array(0) : over.body,
});

describe("describePath", () => {
  const CHARACTER = "a character in the path that is ambiguous or not allowed";
  const DOTS = "a dot segment";
  const UTF8 = "a path that is not UTF-8";
  const CONTROL = "a control character in the path";
  const BACKSLASH = "a backslash in the path";
  const EMPTY = "an empty path segment";

  it.each([
    ["", CHARACTER],
    ["a", CHARACTER],
    ["/.", DOTS],
    ["/..", DOTS],
    ["/a/../b", DOTS],
    ["/a/./b", DOTS],
    ["/../", DOTS],
    ["/%2e", DOTS],
    ["/%2E%2e/a", DOTS],
    ["/.%2e/a", DOTS],
    ["/%2e./a", DOTS],
    ["/%252e%252e/a", DOTS],
    ["/%252E", DOTS],
    ["/%25252e", DOTS],
    ["/%2525252e", DOTS],
    ["/%25252525252525252e", DOTS],
    ["/..;x/a", DOTS],
    ["/..;/a", DOTS],
    ["/.;x", DOTS],
    ["/%2e%2e;x", DOTS],
    ["/%2e%2e%3bx", DOTS],
    ["/a%2f..%2fb", DOTS],
    ["/a%2F%2e%2e", DOTS],
    ["/..%2fa", DOTS],
    ["/a%252f..%252fb", DOTS],
    ["/a%255c..%255cb", DOTS],
    ["/a\\..\\b", CHARACTER],
    ["/a\\b", CHARACTER],
    ["/a%5cb", BACKSLASH],
    ["/a%5C..%5Cb", BACKSLASH],
    ["//", EMPTY],
    ["//a", EMPTY],
    ["/a//b", EMPTY],
    ["/a//", EMPTY],
    ["/%00", CONTROL],
    ["/a%0ab", CONTROL],
    ["/%0d%0a", CONTROL],
    ["/%7f", CONTROL],
    ["/%C2%85", CONTROL],
    ["/\u0000", CHARACTER],
    ["/a b", CHARACTER],
    ["/a\tb", CHARACTER],
    ["/ü", CHARACTER],
    ["/a?b", CHARACTER],
    ["/a#b", CHARACTER],
    ["/a|b", CHARACTER],
    ["/{a}", CHARACTER],
    ["/a^b", CHARACTER],
    ["/a`b", CHARACTER],
    ['/"a"', CHARACTER],
    ["/<a>", CHARACTER],
    ["/[a]", CHARACTER],
    ["/%", CHARACTER],
    ["/%2", CHARACTER],
    ["/%zz", CHARACTER],
    ["/%u002e", CHARACTER],
    ["/%C0%AE", UTF8],
    ["/%C0%AE%C0%AE/a", UTF8],
    ["/%E0%80%AE", UTF8],
    ["/%ED%A0%80", UTF8],
    ["/%FF", UTF8],
    ["/%C3", UTF8],
    ["/%F4%90%80%80", UTF8],
  ])("refuses %j", (path, error) => {
    expect(describePath(path, "data")).toEqual({ ok: false, error });
  });

  it.each([
    ["/", [""]],
    ["/a", ["a"]],
    ["/a/", ["a", ""]],
    ["/a/b", ["a", "b"]],
    ["/a%2Fb", ["a/b"]],
    ["/a%2fb/c", ["a/b", "c"]],
    ["/a+b", ["a+b"]],
    ["/a%20b", ["a b"]],
    ["/%C3%BC", ["ü"]],
    ["/%F0%9F%98%80", ["😀"]],
    ["/...", ["..."]],
    ["/a..b", ["a..b"]],
    ["/.a", [".a"]],
    ["/..a", ["..a"]],
    ["/a;v=1", ["a;v=1"]],
    ["/a:b@c!$&'()*,=~_-", ["a:b@c!$&'()*,=~_-"]],
    ["/100%25", ["100%"]],
    ["/%2541", ["%41"]],
    ["/%41", ["A"]],
  ])("reads %j", (path, segments) => {
    expect(describePath(path, "data")).toEqual({ ok: true, value: segments });
  });

  it("refuses %2F where the upstream decodes it before it routes", () => {
    expect(describePath("/a%2Fb", "refuse")).toEqual({ ok: false, error: "an encoded slash" });
    expect(describePath("/a/b", "refuse").ok).toBe(true);
  });

  it("what it accepts is read alike by a URL parser, and by one that decodes again", () => {
    const piece = fc.oneof(
      fc.constantFrom(
        "a",
        "b",
        ".",
        "..",
        "...",
        "%2e",
        "%2E",
        "%252e",
        "%25",
        "%2f",
        "%2F",
        "%5c",
        "\\",
        ";",
        "/",
        "//",
        "+",
        "%20",
        "%C3%BC",
        "%C0%AE",
        "%00",
        "?",
        "#",
        "|",
        "%3b",
        "%",
        "2e",
        "%7e",
        "~",
        "@",
        ":",
      ),
      fc.string({ unit: "binary-ascii", maxLength: 2 }),
    );
    const path = fc.array(piece, { maxLength: 8 }).map((pieces) => `/${pieces.join("")}`);
    fc.assert(
      fc.property(path, (raw) => {
        const read = describePath(raw, "data");
        if (!read.ok) return;
        const url = new URL(`https://upstream.test${raw}`);
        expect(url.pathname).toBe(raw);
        expect([url.search, url.hash, url.host]).toEqual(["", "", "upstream.test"]);
        expect(url.pathname.slice(1).split("/").map(decodeURIComponent)).toEqual(read.value);
        // Whoever decodes before it parses climbs nowhere either: the same number of steps down, or more.
        const decoded = new URL(`https://upstream.test/base${url.pathname.replaceAll("%25", "%")}`).pathname;
        expect(decoded.startsWith("/base/")).toBe(true);
      }),
      { numRuns: 20_000 },
    );
  });
});

describe("describeQuery", () => {
  const CHARACTER = "a character in the query that is not allowed";
  it.each([
    ["?a=1;b=2", "a semicolon in the query"],
    ["?a;b", "a semicolon in the query"],
    ["?a=\u0000", CHARACTER],
    ["?a=b c", CHARACTER],
    ["?ü=1", CHARACTER],
    ["?a=%C0%AE", "a query that is not UTF-8"],
    ["?%FF=1", "a query that is not UTF-8"],
    ["?a=%zz", "a query that is not UTF-8"],
    ["?a%00=1", "a control character in a query parameter's name"],
    ["?a%0a=1", "a control character in a query parameter's name"],
  ])("refuses %j", (query, error) => {
    expect(describeQuery(query)).toEqual({ ok: false, error });
  });

  it.each<[string, [string, string][]]>([
    ["", []],
    [
      "?a=1&b=2&a=3",
      [
        ["a", "1"],
        ["b", "2"],
        ["a", "3"],
      ],
    ],
    ["?a", [["a", ""]]],
    ["?a=", [["a", ""]]],
    ["?=b", [["", "b"]]],
    ["?&&a=1&", [["a", "1"]]],
    ["?a=b=c", [["a", "b=c"]]],
    ["?a+b=c+d%20e", [["a b", "c d e"]]],
    ["?a=%3B%26%3D", [["a", ";&="]]],
    ["?q=%0a", [["q", "\n"]]],
    ["?u=https://x.test/?a", [["u", "https://x.test/?a"]]],
    ["?a%5B%5D=1", [["a[]", "1"]]],
  ])("reads %j", (query, pairs) => {
    expect(describeQuery(query)).toEqual({ ok: true, value: pairs });
  });

  it("reads what URLSearchParams reads", () => {
    const text = fc.string({
      unit: fc.constantFrom("a", "=", "&", "+", "%20", "%C3%BC", "%3D", "%26", "[", "]", "?", "/"),
      maxLength: 12,
    });
    fc.assert(
      fc.property(text, (query) => {
        const read = describeQuery(`?${query}`);
        expect(read).toEqual({ ok: true, value: [...new URLSearchParams(`?${query}`)] });
      }),
    );
  });
});

describe("describe", () => {
  it("nothing of a rule asked: the body is opaque, whatever it is", () => {
    expect(describeCall(request({ method: "POST", body: utf8("{") }), OPTIONS)).toMatchObject({
      value: { body: { kind: "opaque" } },
    });
    expect(describeCall(request({ method: "POST", body: null }), OPTIONS)).toMatchObject({
      value: { body: { kind: "opaque" } },
    });
    expect(describeCall(request({ method: "POST" }), OPTIONS)).toMatchObject({ value: { body: { kind: "none" } } });
  });

  it.each(["get", "Get", "", "M-SEARCH", "GET ", "GÊT", "G3T"])("refuses the method %j", (method) => {
    expect(describeCall(request({ method }), OPTIONS)).toEqual({
      ok: false,
      error: "a method that is not upper-case letters",
    });
  });

  it.each(["GET", "HEAD"])("refuses a body with %s", (method) => {
    const error = "a body with a method that has none";
    expect(describeCall(request({ method, body: utf8("x") }), OPTIONS)).toEqual({ ok: false, error });
    expect(describeCall(request({ method, body: null }), OPTIONS)).toEqual({ ok: false, error });
  });

  it.each([
    "X-HTTP-Method-Override",
    "x-http-method",
    "X-Method-Override",
    "X-Original-URL",
    "X-Rewrite-URL",
  ])("refuses the header %s, even empty", (name) => {
    expect(describeCall(request({ with: { [name]: "" } }), OPTIONS)).toEqual({
      ok: false,
      error: `the header ${name.toLowerCase()}`,
    });
  });

  it.each(["?_method=DELETE", "?a=1&_METHOD=", "?%5Fmethod=PUT", "?_method"])("refuses %s", (query) => {
    const url = `https://gate.test/x/a${query}`;
    expect(describeCall(request({ method: "POST", url }), OPTIONS)).toEqual({
      ok: false,
      error: "a method override in the query",
    });
  });

  describe("where a rule needs the body", () => {
    const facts = { ...OPTIONS, bodyFacts: true };
    const JSON_TYPE = { "content-type": "application/json" };
    const TYPE = "a body that is not declared as JSON where a rule needs its facts";
    const CODED = "a coded body where a rule needs its facts";
    const ask = (body: Uint8Array | null, headers: Record<string, string>) =>
      describeCall(request({ method: "POST", body, with: headers }), facts);

    it.each<[string, Uint8Array | null, Record<string, string>, string]>([
      ["longer than the first run", null, JSON_TYPE, "a body too long to be read for its rule"],
      ["without a type", utf8("{}"), {}, TYPE],
      ["text/plain", utf8("{}"), { "content-type": "text/plain" }, TYPE],
      ["a form", utf8("a=1"), { "content-type": "application/x-www-form-urlencoded" }, TYPE],
      ["two types", utf8("{}"), { "content-type": "application/json, text/plain" }, TYPE],
      ["latin1", utf8("{}"), { "content-type": "application/json; charset=iso-8859-1" }, TYPE],
      ["utf-16", utf8("{}"), { "content-type": "application/json; charset=utf-16" }, TYPE],
      ["a list of JSON", utf8("{}"), { "content-type": "application/jsonl" }, TYPE],
      ["gzip", utf8("{}"), { ...JSON_TYPE, "content-encoding": "gzip" }, CODED],
      ["identity, gzip", utf8("{}"), { ...JSON_TYPE, "content-encoding": "identity, gzip" }, CODED],
      ["a key twice", utf8('{"a":1,"a":2}'), JSON_TYPE, "the body: duplicate key at offset 7"],
      ["a key twice by escape", utf8('{"a":1,"\\u0061":2}'), JSON_TYPE, "the body: duplicate key at offset 7"],
      ["a byte order mark", utf8("\ufeff{}"), JSON_TYPE, "the body: not JSON"],
      ["no UTF-8", Uint8Array.of(0x22, 0xff, 0x22), JSON_TYPE, "the body: not UTF-8"],
      ["two values", utf8("{}{}"), JSON_TYPE, "the body: not JSON"],
      ["a space alone", utf8(" "), JSON_TYPE, "the body: not JSON"],
    ])("refuses %s", (_name, body, headers, error) => {
      expect(ask(body, headers)).toEqual({ ok: false, error });
    });

    it.each([
      "application/json",
      "APPLICATION/JSON",
      "application/json; charset=utf-8",
      'application/json;charset="UTF-8"',
      "application/vnd.api+json",
    ])("reads %s", (type) => {
      expect(ask(utf8('{"a":[1]}'), { "content-type": type })).toMatchObject({
        value: { body: { kind: "json", value: { a: [1] } } },
      });
    });

    it("identity is no coding, and no body is none", () => {
      expect(ask(utf8("1"), { ...JSON_TYPE, "content-encoding": "identity" })).toMatchObject({ ok: true });
      expect(ask(new Uint8Array(0), {})).toMatchObject({ value: { body: { kind: "none" } } });
    });
  });
});

describe("parseTarget", () => {
  it.each([
    ["https://g", { upstream: "", rawPath: "/", rawRest: "", rawQuery: "" }],
    ["https://g/", { upstream: "", rawPath: "/", rawRest: "", rawQuery: "" }],
    ["https://g/x", { upstream: "x", rawPath: "/x", rawRest: "", rawQuery: "" }],
    ["https://g/x/", { upstream: "x", rawPath: "/x/", rawRest: "/", rawQuery: "" }],
    ["https://g/x?y/z", { upstream: "x", rawPath: "/x", rawRest: "", rawQuery: "?y/z" }],
    ["https://g/x/../y?a#b", { upstream: "x", rawPath: "/x/../y", rawRest: "/../y", rawQuery: "?a" }],
    ["https://g//x/y", { upstream: "", rawPath: "//x/y", rawRest: "/x/y", rawQuery: "" }],
    ["https://g/x/a?", { upstream: "x", rawPath: "/x/a", rawRest: "/a", rawQuery: "" }],
    ["https://g/%78/a", { upstream: "%78", rawPath: "/%78/a", rawRest: "/a", rawQuery: "" }],
    ["https://g:8/x/a%2Fb?c=%2e", { upstream: "x", rawPath: "/x/a%2Fb", rawRest: "/a%2Fb", rawQuery: "?c=%2e" }],
  ])("%s", (url, target) => {
    expect(parseTarget(url)).toEqual(target);
  });
});
