import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { describeBody, describeHead, describePath, describeQuery, type RequestHead } from "../../src/gate/describe.ts";
import { forwardedHeaders } from "../../src/gate/headers.ts";
import { parseTarget } from "../../src/gate/target.ts";

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const OPTIONS = { upstream: "x", encodedSlash: "data" } as const;
const NO_RULES = { query: false, body: false } as const;
const head = (over: { url?: string; method?: string; with?: Record<string, string> } = {}): RequestHead => ({
  target: parseTarget(over.url ?? "https://gate.test/x/a"),
  method: over.method ?? "GET",
  headers: new Headers(over.with ?? {}),
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
    // As one decodes that leaves what is no encoding.
    ["/%252e%252e%252fa%25", DOTS],
    ["/a%252f%25252e%25252e%252f%25ff%25zz", DOTS],
    ["/%252e%252e%252fa%25ff", DOTS],
    ["/%25ff%252f%252e%252e", DOTS],
    ["/a%25zz%252f..", DOTS],
    ["/a\\..\\b", CHARACTER],
    ["/a\\b", CHARACTER],
    ["/a%5cb", BACKSLASH],
    ["/a%5C..%5Cb", BACKSLASH],
    ["//", EMPTY],
    ["//a", EMPTY],
    ["/a//b", EMPTY],
    ["/a//", EMPTY],
    // Tomcat and its like read `/;x` as `/`: the collection, where one of its items was meant.
    ["/a/;", EMPTY],
    ["/a/;v=1", EMPTY],
    ["/a/%3Bv=1", EMPTY],
    ["/;/a", EMPTY],
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
    ["/%25ff", ["%ff"]],
    ["/100%25%20of%20a.b", ["100% of a.b"]],
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

describe("describeHead", () => {
  it("says what is asked for, and nothing of a body", () => {
    expect(describeHead(head({ url: "https://gate.test/x/a/b%20c?d=1", method: "POST" }), OPTIONS)).toEqual({
      ok: true,
      value: { upstream: "x", method: "POST", segments: ["a", "b c"], query: [["d", "1"]] },
    });
  });

  it.each(["get", "Get", "", "M-SEARCH", "GET ", "GÊT", "G3T"])("refuses the method %j", (method) => {
    expect(describeHead(head({ method }), OPTIONS)).toEqual({
      ok: false,
      error: "a method that is not upper-case letters",
    });
  });

  it.each([
    "X-HTTP-Method-Override",
    "x-http-method",
    "X-Method-Override",
    "X-Original-URL",
    "X-Rewrite-URL",
  ])("refuses the header %s, even empty", (name) => {
    expect(describeHead(head({ with: { [name]: "" } }), OPTIONS)).toEqual({
      ok: false,
      error: `the header ${name.toLowerCase()}`,
    });
  });

  it.each([
    "?_method=DELETE",
    "?a=1&_METHOD=",
    "?%5Fmethod=PUT",
    "?_method",
    "?[_method]=DELETE",
    "?_method[]=DELETE",
    "?[_method=DELETE",
    "?.method=DELETE",
    "?+_method=DELETE",
    "?_method.x=DELETE",
    // Salesforce's, and the header's name where a server takes headers from the query.
    "?_HttpMethod=DELETE",
    "?_http_method=DELETE",
    "?X-HTTP-Method-Override=DELETE",
    "?x_http_method=DELETE",
  ])("refuses %s", (query) => {
    const url = `https://gate.test/x/a${query}`;
    expect(describeHead(head({ method: "POST", url }), OPTIONS)).toEqual({
      ok: false,
      error: "a method override in the query",
    });
  });

  it.each([
    "?method=a",
    "?payment_method=card",
    "?_methods=1",
    "?a=_method",
    "?http_method=GET",
    "?_https_method=1",
  ])("takes %s", (query) => {
    expect(describeHead(head({ url: `https://gate.test/x/a${query}` }), OPTIONS).ok).toBe(true);
  });
});

// RFC 9110 §7.6.1: what `Connection` names goes no further, and Rack takes a POST without a type for a form.
describe("a Connection that would drop what says how the body is read", () => {
  it.each(["Content-Type", "close, content-type", "x,CONTENT-ENCODING ,y", "content-language"])("%s", (connection) => {
    const request = head({ method: "POST", with: { connection, "content-type": "text/plain" } });
    expect(forwardedHeaders([...request.headers], []).has("connection")).toBe(false);
    expect(describeHead(request, OPTIONS)).toEqual({
      ok: false,
      error: "a Connection header that would drop a header of the body",
    });
  });
  it.each(["close", "keep-alive, TE", "x-content-type, prefer"])("is not %s", (connection) => {
    expect(describeHead(head({ method: "POST", with: { connection } }), OPTIONS).ok).toBe(true);
  });
});

describe("describeBody", () => {
  const CHARSET = "a JSON body in a charset that is not looked into";
  const FORM = "application/x-www-form-urlencoded";
  const OVERRIDE = "a method override in the body";
  const post = (
    type: string | null,
    body: Uint8Array | string | null,
    rules = NO_RULES as { query: boolean; body: boolean },
    more = {},
  ) =>
    describeBody(
      head({ method: "POST", with: { ...(type === null ? {} : { "content-type": type }), ...more } }),
      typeof body === "string" ? utf8(body) : body,
      rules,
    );

  it("nothing of a rule asked: the body is opaque, whatever it is", () => {
    expect(post("application/json", "{")).toEqual({ ok: true, value: { kind: "opaque" } });
    expect(post("application/json", null)).toEqual({ ok: true, value: { kind: "opaque" } });
    expect(post("application/octet-stream", null)).toEqual({ ok: true, value: { kind: "opaque" } });
    expect(post("application/json", "")).toEqual({ ok: true, value: { kind: "none" } });
    expect(describeBody(head(), new Uint8Array(0), NO_RULES)).toEqual({ ok: true, value: { kind: "none" } });
  });

  it.each(["GET", "HEAD"])("refuses a body with %s", (method) => {
    const error = "a body with a method that has none";
    expect(describeBody(head({ method }), utf8("x"), NO_RULES)).toEqual({ ok: false, error });
    expect(describeBody(head({ method }), null, NO_RULES)).toEqual({ ok: false, error });
  });

  it.each<[type: string | null, body: string]>([
    [FORM, "_method=DELETE"],
    [FORM, "a=1&_method=DELETE"],
    [FORM, "a=1&_METHOD"],
    [FORM, "a=1;_method=DELETE"],
    [FORM, "%5fmethod=DELETE"],
    [FORM, "%5F%6Dethod=DELETE"],
    [FORM, "[_method]=DELETE"],
    [FORM, "_method[]=DELETE"],
    [FORM, "_method%00x=DELETE"],
    [FORM, ".method=DELETE"],
    [FORM, "+_method=DELETE"],
    [FORM, "\r\n_method=DELETE"],
    [FORM, "a=%zz&_method=DELETE"],
    [FORM.toUpperCase(), "_method=DELETE"],
    [`${FORM}; charset=UTF-8`, "_method=DELETE"],
    [`text/plain, ${FORM}`, "_method=DELETE"],
    [`${FORM},text/plain`, "_method=DELETE"],
    [null, "_method=DELETE"],
    ["", "_method=DELETE"],
    ["multipart/form-data; boundary=b", '--b\r\nContent-Disposition: form-data; name="_method"\r\n\r\nDELETE\r\n--b--'],
    ["multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=_method\r\n\r\nDELETE\r\n--b--"],
    ["multipart/form-data; boundary=b", "content-disposition:form-data;NAME = '_Method'"],
    ["multipart/form-data; boundary=b", 'form-data; name="[_method]"'],
    ["multipart/form-data; boundary=b", 'form-data; name="\\_met\\hod"'],
    ["multipart/form-data; boundary=b", 'form-data; name="%5Fmethod"'],
    ["multipart/form-data; boundary=b", 'form-data; name=\r\n "_method"'],
    ["multipart/mixed", 'form-data; name="_method"'],
    ["application/json", '{"_method":"DELETE"}'],
    ["application/json", '{"a":1,"_METHOD" : "DELETE"}'],
    ["application/json", '{"\\u005fmethod":"DELETE"}'],
    ["application/json", '{"_m\\u0065tho\\u0064":"DELETE"}'],
    ["application/vnd.api+json; charset=utf-8", '{"_method":"DELETE"}'],
    ["text/json", '{"_method":"DELETE"}'],
    // In UTF-16 and UTF-32, which some readers tell by the zeros.
    ["application/json", [...'{"_method":"DELETE"}'].join("\0")],
    ["application/json", [...'{"\\u005fmethod":"DELETE"}'].join("\0\0\0")],
  ])("%s: %j is refused", (type, body) => {
    expect(post(type, body)).toEqual({ ok: false, error: OVERRIDE });
  });

  it.each<[type: string | null, body: string]>([
    [FORM, "a=_method&payment_method=card&method=x"],
    [FORM, "a=%zz&%ff=1"],
    [null, "a body"],
    ["text/plain", "_method=DELETE"],
    ["application/octet-stream", "_method=DELETE"],
    [
      "multipart/form-data; boundary=b",
      '--b\r\nContent-Disposition: form-data; name="f"; filename="_method"\r\n\r\n_method\r\n--b--',
    ],
    ["multipart/form-data; boundary=b", "form-data; name=f; filename*=utf-8''_method"],
    ["application/json", '{"a":"_method"}'],
    ["application/json", '{"a":"\\"_method\\": no"}'],
    ["application/json", '{"payment_method":"card"}'],
  ])("%s: %j passes", (type, body) => {
    expect(post(type, body)).toEqual({ ok: true, value: { kind: "opaque" } });
  });

  it("what has no type is a form with POST alone, as Rack has it", () => {
    expect(describeBody(head({ method: "PUT" }), utf8("_method=DELETE"), NO_RULES).ok).toBe(true);
  });

  it.each<[string, string | null, string | null, Record<string, string>, string]>([
    ["longer than the first run", FORM, null, {}, "a form too long to be read"],
    ["longer than the first run, of parts", "multipart/form-data; boundary=b", null, {}, "a form too long to be read"],
    ["longer than the first run, without a type", null, null, {}, "a form too long to be read"],
    ["gzip", FORM, "a=1", { "content-encoding": "gzip" }, "a form that is coded"],
    ["utf-16", `${FORM}; charset=utf-16`, "a=1", {}, "a form that is coded"],
    ["utf-7 after utf-8", `${FORM}; charset=utf-8; charset="utf-7"`, "a=1", {}, "a form that is coded"],
    ["a coded name", "multipart/form-data", "form-data; name*=utf-8''a", {}, "a form with a part whose name is coded"],
    [
      "a name in pieces",
      "multipart/form-data",
      "form-data; name*0=_me; name*1=thod",
      {},
      "a form with a part whose name is coded",
    ],
    [
      "an encoded word",
      "multipart/form-data",
      'form-data; name="=?utf-8?Q?=5Fmethod?="',
      {},
      "a form with a part whose name is coded",
    ],
  ])("refuses a form that can't be looked into: %s", (_name, type, body, more, error) => {
    expect(post(type, body, NO_RULES, more)).toEqual({ ok: false, error });
  });

  it.each([
    "utf-7",
    "utf-16",
    '"UTF-16LE"',
    "ibm037",
  ])("refuses JSON in %s, where a name has other bytes", (charset) => {
    expect(post(`application/json; charset=${charset}`, '{"+AF8-method":"DELETE"}')).toEqual({
      ok: false,
      error: CHARSET,
    });
    expect(post("application/json; charset=utf-8", "{}").ok).toBe(true);
  });

  it("refuses a form where a rule speaks of the query, which servers merge with it", () => {
    const rules = { query: true, body: false };
    for (const type of [FORM, "multipart/form-data; boundary=b", null])
      expect(post(type, "a=1", rules)).toEqual({ ok: false, error: "a form where a rule speaks of the query" });
    expect(post("application/json", "{}", rules)).toEqual({ ok: true, value: { kind: "opaque" } });
    expect(post(FORM, "", rules)).toEqual({ ok: true, value: { kind: "none" } });
  });

  it("takes no longer than the body's length", () => {
    const unit = ["name", "name*", "name=", 'name="', "&", "%5f", "\\u005f", '"_method" ', "[", " ", "name \t"];
    for (const type of [FORM, "multipart/form-data", "application/json"])
      for (const text of unit) {
        const tookMs = () => {
          const startedAtMs = performance.now();
          post(type, text.repeat(1_000_000 / text.length));
          return performance.now() - startedAtMs;
        };
        // A busy machine may take its time once, and not always.
        expect(Math.min(tookMs(), tookMs()), `${type} ${text}`).toBeLessThan(1_500);
      }
  });

  describe("where a rule needs the body", () => {
    const facts = { query: false, body: true };
    const JSON_TYPE = { "content-type": "application/json" };
    const TYPE = "a body that is not declared as JSON where a rule needs its facts";
    const CODED = "a coded body where a rule needs its facts";
    const ask = (body: Uint8Array | null, headers: Record<string, string>) =>
      describeBody(head({ method: "PATCH", with: headers }), body, facts);

    it.each<[string, Uint8Array | null, Record<string, string>, string]>([
      ["longer than the first run", null, JSON_TYPE, "a body too long to be read for its rule"],
      ["without a type", utf8("{}"), {}, TYPE],
      ["text/plain", utf8("{}"), { "content-type": "text/plain" }, TYPE],
      ["a form", utf8("a=1"), { "content-type": "application/x-www-form-urlencoded" }, TYPE],
      ["two types", utf8("{}"), { "content-type": "application/json, text/plain" }, TYPE],
      ["latin1", utf8("{}"), { "content-type": "application/json; charset=iso-8859-1" }, TYPE],
      ["utf-16", utf8("{}"), { "content-type": "application/json; charset=utf-16" }, CHARSET],
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
        value: { kind: "json", value: { a: [1] } },
      });
    });

    it("identity is no coding, and no body is none", () => {
      expect(ask(utf8("1"), { ...JSON_TYPE, "content-encoding": "identity" })).toMatchObject({ ok: true });
      expect(ask(new Uint8Array(0), {})).toMatchObject({ value: { kind: "none" } });
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
