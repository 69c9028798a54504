import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type AnswerRewriting,
  answeredHeaders,
  declaredLength,
  forwardedHeaders,
  isDecodedByRuntime,
  recordedHeaders,
  toGate,
} from "../../src/gate/headers.ts";

const forwarded = (headers: Record<string, string>, also: readonly string[] = []) =>
  Object.fromEntries(forwardedHeaders(recordedHeaders(new Headers(headers)), also));

describe("forwardedHeaders", () => {
  it("of nothing: no coding is asked for", () => {
    expect(forwarded({})).toEqual({ "accept-encoding": "identity" });
  });

  it.each([
    "Authorization",
    "DPoP",
    "Cookie",
    "Host",
    "Content-Length",
    "Expect",
    "Connection",
    "Keep-Alive",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "Proxy-Connection",
    "Proxy-Authorization",
    "Proxy-Anything",
    "Forwarded",
    "Via",
    "X-Forwarded-For",
    "X-Forwarded-Anything",
    "X-Forwarded",
    "CF-Connecting-IP",
    "CF-Anything",
    "X-Real-IP",
    "True-Client-IP",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-HTTP-Method-Override",
    "X_HTTP_Method_Override",
    "X_Forwarded_For",
    "Txn-Token",
    "Signature",
    "Signature-Input",
    "X-Portcullis-Delegation",
    "X-Api-Key",
    "Private-Token",
    "X-Auth-Token",
    "Client-Cert",
    "Remote_User",
    "X-Envoy-Original-Path",
    "X-Amzn-Oidc-Identity",
    // What nobody has heard of.
    "X-Sudo",
    "X-Act-As",
    "GitHub-Sudo",
    "Stripe-Account",
    "OpenAI-Organization",
    "Api_Key",
    "X_GitHub_Api_Version",
    "Content_Type",
    "constructor",
  ])("never %s", (name) => {
    expect(forwarded({ [name]: "1", accept: "2" }, ["x-fine"])).toEqual({ accept: "2", "accept-encoding": "identity" });
  });

  it("drops what Connection names, in any case and spacing", () => {
    const sent = { connection: "Keep-Alive,  X-Drop ,,prefer", "x-drop": "1", Prefer: "2", accept: "3" };
    expect(forwarded(sent, ["x-drop"])).toEqual({ accept: "3", "accept-encoding": "identity" });
  });

  it("passes what the upstream's configuration names, in that spelling alone", () => {
    const sent = { "X-Custom": "1", X_Custom: "2", "X-Customs": "3" };
    expect(forwarded(sent)).toEqual({ "accept-encoding": "identity" });
    expect(forwarded(sent, ["x-custom"])).toEqual({ "x-custom": "1", "accept-encoding": "identity" });
  });

  it.each([
    "Accept-Language",
    "Idempotency-Key",
    "Traceparent",
    "X-GitHub-Api-Version",
    "Anthropic-Version",
    "OpenAI-Beta",
    "X-Stainless-Lang",
    "X-Request-Id",
  ])("passes %s", (name) => {
    expect(forwarded({ [name]: "1" })).toEqual({ [name.toLowerCase()]: "1", "accept-encoding": "identity" });
  });

  it("keeps words about content, and several values as they stand", () => {
    const kept = {
      accept: "a, b",
      "content-type": "application/json",
      "content-encoding": "gzip",
      "if-match": '"1"',
      range: "bytes=0-1",
      "user-agent": "u",
    };
    expect(forwarded({ ...kept, "accept-encoding": "gzip, br" })).toEqual({ ...kept, "accept-encoding": "identity" });
  });
});

const rewriting: AnswerRewriting = {
  origin: "https://gate.test",
  askedUrl: "https://api.example.com/v1/items?page=1",
  hiddenParameter: null,
  takesRanges: true,
  bases: () => [
    ["api", "https://api.example.com/v1"],
    ["other", "https://other.example.com"],
  ],
  decoded: false,
};
const answered = (headers: Record<string, string>, over: Partial<AnswerRewriting> = {}) =>
  Object.fromEntries(answeredHeaders(new Headers(headers), { ...rewriting, ...over }));

describe("answeredHeaders", () => {
  it.each([
    "Set-Cookie",
    "Set-Cookie2",
    "WWW-Authenticate",
    "Authentication-Info",
    "Proxy-Authenticate",
    "Connection",
    "Keep-Alive",
    "Transfer-Encoding",
    "TE",
    "Trailer",
    "Upgrade",
    "Content-Length",
    "Alt-Svc",
    "Clear-Site-Data",
    "Content-Location",
    "Refresh",
    "DPoP-Nonce",
    // Said of an origin, which is the gate's.
    "Strict-Transport-Security",
    "Public-Key-Pins",
    "Expect-CT",
    "NEL",
    "Report-To",
    "Reporting-Endpoints",
    "Accept-CH",
    "Critical-CH",
    // Obeyed by a proxy before the gate: the agent would get another body than the recorded one.
    "X-Accel-Redirect",
    "X-Accel-Expires",
    "X-Sendfile",
    "X-Lighttpd-Send-File",
    // RFC 9213, and what was before it.
    "CDN-Cache-Control",
    "Cloudflare-CDN-Cache-Control",
    "Surrogate-Control",
  ])("never %s", (name) => {
    expect(answered({ [name]: "1", etag: "2" })).toEqual({ etag: "2" });
  });

  it("says that no part can be asked for, where none is", () => {
    expect(answered({ "accept-ranges": "bytes" })).toEqual({ "accept-ranges": "bytes" });
    expect(answered({ "accept-ranges": "bytes" }, { takesRanges: false })).toEqual({ "accept-ranges": "none" });
  });

  it.each([
    ["public, max-age=60", "private, public, max-age=60"],
    ["S-MaxAge=60", "private, S-MaxAge=60"],
    ["max-age=60, must-revalidate", "private, max-age=60, must-revalidate"],
    ['proxy-revalidate, x="private, ', 'private, proxy-revalidate, x="private,'],
    ["private, max-age=60", "private, max-age=60"],
    ["no-store", "no-store"],
    ["max-age=60", "max-age=60"],
  ])("no cache that others share may keep an answer: %s", (said, shown) => {
    expect(answered({ "cache-control": said })).toEqual({ "cache-control": shown });
  });

  it("lets an event stream say that no proxy is to hold it back", () => {
    expect(answered({ "x-accel-buffering": "no" })).toEqual({ "x-accel-buffering": "no" });
  });

  it("drops what Connection names", () => {
    expect(answered({ connection: "x-hop", "x-hop": "1", "x-kept": "2" })).toEqual({ "x-kept": "2" });
  });

  it("says the coding where the body still has it", () => {
    expect(answered({ "content-encoding": "zstd" })).toEqual({ "content-encoding": "zstd" });
    expect(answered({ "content-encoding": "gzip" }, { decoded: true })).toEqual({});
  });

  it.each<[string, string | undefined]>([
    ["https://api.example.com/v1/items/2", "https://gate.test/api/items/2"],
    ["https://API.example.com:443/v1/a", "https://gate.test/api/a"],
    ["https://api.example.com/v1", "https://gate.test/api"],
    ["https://api.example.com/v1?a=b#c", "https://gate.test/api?a=b#c"],
    ["https://other.example.com/x", "https://gate.test/other/x"],
    ["/v1/next", "https://gate.test/api/next"],
    ["next", "https://gate.test/api/next"],
    ["?page=2", "https://gate.test/api/items?page=2"],
    ["", "https://gate.test/api/items?page=1"],
    ["/v2/next", undefined],
    ["/v1x/next", undefined],
    ["../up", undefined],
    ["/v1/../admin", undefined],
    ["/v1/%2e%2e/admin", undefined],
    ["https://api.example.com.evil/v1/a", undefined],
    ["https://api.example.com@evil.test/v1/a", undefined],
    ["https://user:pw@api.example.com/v1/a", undefined],
    ["https://api.example.com:444/v1/a", undefined],
    ["https://api.example.com\\@evil.test/v1", undefined],
    ["http://api.example.com/v1/a", undefined],
    ["//evil.test/v1", undefined],
    ["\\\\evil.test/v1", undefined],
    ["https://hidden.example.com/v1", undefined],
    ["javascript:alert(1)", undefined],
    ["data:text/html,x", undefined],
    ["https://", undefined],
    ["http://[", undefined],
  ])("Location %j", (location, expected) => {
    expect(answered({ location }).location).toBe(expected);
  });

  it.each<[string, string | undefined]>([
    ['<https://api.example.com/v1/a?page=2>; rel="next"', '<https://gate.test/api/a?page=2>; rel="next"'],
    [
      '<?page=2>; rel="next", <?page=9>; rel="last"',
      '<https://gate.test/api/items?page=2>; rel="next", <https://gate.test/api/items?page=9>; rel="last"',
    ],
    ['<https://evil.test/>; rel="a", </v1/b>; rel="b"', '<https://gate.test/api/b>; rel="b"'],
    ['</v1/a,b>; title="x, <y>; \\" z"; rel=next', '<https://gate.test/api/a,b>; title="x, <y>; \\" z"; rel=next'],
    ["</v1/a>", "<https://gate.test/api/a>"],
    ["</v1/a>;rel=next;", "<https://gate.test/api/a>;rel=next;"],
    ['</v1/a>; anchor="https://hidden.test/"; rel=x', undefined],
    ["/v1/a; rel=next", undefined],
    ["garbage, </v1/a>; rel=x", "<https://gate.test/api/a>; rel=x"],
    ["</v1/a", undefined],
    ["</v1/a>x, </v1/b>", "<https://gate.test/api/b>"],
    ['</v1/a>; rel="next', undefined],
    ["<<https://evil.test/>>; rel=x", undefined],
    [",,,", undefined],
    ["https://evil.test/", undefined],
  ])("Link %j", (link, expected) => {
    expect(answered({ link }).link).toBe(expected);
  });

  it("no link holds the parameter of the credential, in whatever spelling it was sent back", () => {
    const hidden = { ...rewriting, hiddenParameter: "api_key" };
    const page = "https://api.example.com/v1/next?a=%2F";
    for (const pair of ["api_key=s", "API_KEY=s", "api%5Fkey=s"])
      for (const url of [`${page}&${pair}`, `${page}&${pair}&b=2`])
        expect(toGate(url, hidden)).toBe(`https://gate.test/api/next?a=%2F${url.endsWith("b=2") ? "&b=2" : ""}`);
    expect(toGate(`${page}&api_keys=s`, hidden)).toBe(toGate(`${page}&api_keys=s`, rewriting));
  });

  it("a hostile Link header takes no longer than its length", () => {
    for (const unit of ["; a ", '"', '\\"', ",", "<", "<,", '; a="', "</v1/a>; x "]) {
      const link = `</v1/a>${unit.repeat(60_000 / unit.length)}<`;
      const tookMs = () => {
        const startedAtMs = performance.now();
        answered({ link });
        return performance.now() - startedAtMs;
      };
      // A busy machine may take its time once, and not always.
      expect(Math.min(tookMs(), tookMs(), tookMs()), unit).toBeLessThan(500);
    }
  });

  it("no reference leads anywhere but to the gate or nowhere", () => {
    const part = fc.constantFrom(
      "https:",
      "http:",
      "//",
      "/",
      "\\",
      "api.example.com",
      "/v1",
      "@",
      ":443",
      ".evil",
      "..",
      "?",
      "#",
      "a",
      "%2e",
      " ",
      "\t",
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 8 }), (parts) => {
        const reference = parts.join("");
        const target = toGate(reference, rewriting);
        if (target === undefined) return;
        const led = new URL(target);
        const meant = new URL(reference, rewriting.askedUrl);
        expect(led.origin).toBe("https://gate.test");
        expect([meant.origin, led.pathname + led.search]).toEqual([
          "https://api.example.com",
          `/api${meant.pathname.slice("/v1".length)}${meant.search}`,
        ]);
      }),
      { numRuns: 5_000 },
    );
  });
});

describe("declaredLength", () => {
  it.each<[string | null, number | null]>([
    [null, null],
    ["0", 0],
    ["12", 12],
    ["", null],
    ["-1", null],
    ["+1", null],
    ["1.0", null],
    ["0x10", null],
    ["1e3", null],
    ["1, 1", null],
    ["999999999999999", 999_999_999_999_999],
    ["9999999999999999", null],
  ])("%j is %j", (text, expected) => {
    expect(declaredLength(new Headers(text === null ? {} : { "content-length": text }))).toBe(expected);
  });
});

it("leaves out what the gate alone says, in any spelling, though the configuration named it", () => {
  const sent = recordedHeaders(new Headers({ "X-Who": "me", X_Who: "me", "X-Why": "because" }));
  const also = ["x-who", "x_who", "x-why"];
  expect([...forwardedHeaders(sent, also, "X-Who").keys()]).toEqual(["accept-encoding", "x-why"]);
  expect([...forwardedHeaders(sent, also, null).keys()]).toEqual(["accept-encoding", "x-who", "x-why", "x_who"]);
});

it("knows the codings that workerd decodes", () => {
  expect([null, "", "gzip", "br", "GZIP", "x-gzip", "gzip, br", "deflate", "zstd"].filter(isDecodedByRuntime)).toEqual([
    "gzip",
    "br",
  ]);
});

it("recordedHeaders leaves out what admits to the gate", () => {
  expect(recordedHeaders(new Headers({ Authorization: "DPoP x", DPoP: "y", Cookie: "c" }))).toEqual([["cookie", "c"]]);
});
