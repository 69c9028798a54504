import { evictDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { brokerOf } from "../../src/objects.ts";
import type { TokenAnswer, TokenRequest } from "../../src/upstream/broker-contract.ts";
import { NOT_NARROWED } from "../../src/upstream/credential-kind.ts";
import { json, tokenNo, tokens, world } from "./credential-rig.ts";
import { deployment } from "./kit.ts";

let name = "";
let logged: unknown[][] = [];
beforeEach(() => {
  // A broker of this test's own.
  name = crypto.randomUUID();
  logged = [];
  vi.spyOn(console, "error").mockImplementation((...said) => void logged.push(said));
});
afterEach(() => vi.restoreAllMocks());

const asks = (change: Partial<TokenRequest> = {}): Promise<TokenAnswer> =>
  brokerOf(deployment, name).token({
    upstream: "tokened",
    narrowing: NOT_NARROWED,
    delegation: null,
    rejected: null,
    ...change,
  });
const given = async (change: Partial<TokenRequest> = {}) => {
  const answer = await asks(change);
  if (!answer.given) throw new Error(answer.reason);
  return answer;
};
const startMs = Date.now();
const at = (ms: number) => vi.spyOn(Date, "now").mockReturnValue(startMs + ms);

describe("a broker", () => {
  it("makes one request for 200 who ask at once, by the client's own credentials", async () => {
    const { asked } = world({
      "as.test": async (request, nth) => {
        await new Promise((resolve) => setTimeout(resolve, 20));
        return tokens()(request, nth);
      },
    });
    const answers = await Promise.all(Array.from({ length: 200 }, () => given()));
    expect(new Set(answers.map(({ token }) => token))).toEqual(new Set([tokenNo(1)]));
    expect(asked).toHaveLength(1);
    const { request, body } = asked[0]!;
    expect(request.url).toBe("https://as.test/token");
    // RFC 6749 §2.3.1: form-urlencoded before they are joined.
    expect(request.headers.get("authorization")).toBe(`Basic ${btoa("gate%3A1:test+oauth%2Fsecret")}`);
    expect(Object.fromEntries(new URLSearchParams(body))).toEqual({
      grant_type: "client_credentials",
      scope: "read write",
      resource: "https://tokened.test/",
    });
  });

  it("hands a token out until a fifth of its life is left, and replaces it then", async () => {
    const { asked } = world({ "as.test": tokens(100) });
    at(0);
    expect(await given()).toMatchObject({ token: tokenNo(1), useForMs: 80_000 });
    at(79_999);
    expect(await given()).toMatchObject({ token: tokenNo(1), useForMs: 1 });
    at(80_000);
    expect(await given()).toMatchObject({ token: tokenNo(2), useForMs: 80_000 });
    expect(asked).toHaveLength(2);
  });

  it("replaces a long-lived token a minute before its end", async () => {
    world({ "as.test": tokens(3_600) });
    at(0);
    expect((await given()).useForMs).toBe(3_540_000);
  });

  it("lets a token serve while its successor can't be had, to just before its end and not longer", async () => {
    world({ "as.test": (request, nth) => (nth === 1 ? tokens(100)(request, nth) : json({}, 500)) });
    at(0);
    await given();
    at(90_000);
    expect(await given()).toMatchObject({ token: tokenNo(1), useForMs: 0 });
    at(95_000);
    expect(await asks()).toEqual({ given: false, reason: "the token endpoint answered 500" });
  });

  it("asks a failing endpoint once, and again after one second, two, four, and never more than a minute apart", async () => {
    const { asked } = world({ "as.test": () => json({ error: "invalid_client" }, 401) });
    const failed = { given: false, reason: "the token endpoint answered 401 (invalid_client)" };
    let ms = 0;
    for (const [i, pauseMs] of [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000].entries()) {
      at(ms);
      for (let n = 0; n < 5; n++) expect(await asks()).toEqual(failed);
      ms += pauseMs;
      at(ms - 1);
      expect(await asks()).toEqual(failed);
      expect(asked).toHaveLength(i + 1);
    }
  });

  it("begins with a second again after a success", async () => {
    const { asked } = world({
      "as.test": (request, nth) => (nth === 3 ? tokens(100)(request, nth) : json({}, 500)),
    });
    for (const ms of [0, 1_000, 3_000, 99_000, 99_999, 100_000]) {
      at(ms);
      await asks();
    }
    expect(asked).toHaveLength(5);
  });

  it("replaces a token that the upstream refused, once, and not one that came after it", async () => {
    const { asked } = world({ "as.test": tokens() });
    at(0);
    const first = await given();
    const second = await given({ rejected: first.id });
    expect(second.token).toBe(tokenNo(2));
    // Another Worker, that was given the first as well.
    expect(await given({ rejected: first.id })).toMatchObject({ id: second.id });
    expect(asked).toHaveLength(2);
  });

  it("lets a token that was refused serve on while its successor can't be had: one agent's 401 takes it from nobody", async () => {
    const { asked } = world({ "as.test": (request, nth) => (nth === 2 ? json({}, 500) : tokens()(request, nth)) });
    at(0);
    const first = await given();
    expect(await given({ rejected: first.id })).toMatchObject({ id: first.id, useForMs: 0 });
    expect(await given()).toMatchObject({ id: first.id, useForMs: 0 });
    expect(asked).toHaveLength(2);
    at(1_000);
    expect(await given({ rejected: first.id })).toMatchObject({ token: tokenNo(3) });
  });

  it("does not loop where every token is refused", async () => {
    const { asked } = world({ "as.test": tokens() });
    at(0);
    let { id } = await given();
    for (let n = 0; n < 50; n++) ({ id } = await given({ rejected: id }));
    expect(asked).toHaveLength(2);
    at(1_000);
    for (let n = 0; n < 50; n++) ({ id } = await given({ rejected: id }));
    expect(asked).toHaveLength(3);
    at(2_999);
    ({ id } = await given({ rejected: id }));
    expect(asked).toHaveLength(3);
    at(3_000);
    await given({ rejected: id });
    expect(asked).toHaveLength(4);
  });

  it("keeps nothing over an eviction", async () => {
    const { asked } = world({ "as.test": tokens() });
    const first = await given();
    await evictDurableObject(env.CREDENTIAL_BROKER.get(env.CREDENTIAL_BROKER.idFromName(name)));
    expect((await given()).id).not.toBe(first.id);
    expect(asked).toHaveLength(2);
  });

  it.each<[what: string, answer: () => Response | Promise<Response>, reason: string]>([
    ["is no JSON", () => new Response("<html>"), "the token endpoint's answer holds no bearer token"],
    ["has no token", () => json({ token_type: "Bearer" }), "the token endpoint's answer holds no bearer token"],
    [
      "is of another type",
      () => json({ access_token: tokenNo(1), token_type: "DPoP" }),
      "the token endpoint's answer holds no bearer token",
    ],
    [
      "is too short to be scanned for",
      () => json({ access_token: "0123456789abcde", token_type: "bearer" }),
      "the token endpoint's answer holds no bearer token",
    ],
    [
      "would break a header",
      () => json({ access_token: `${tokenNo(1)}\r\nx: y`, token_type: "bearer" }),
      "the token endpoint's answer holds no bearer token",
    ],
    [
      "has two tokens",
      () => new Response(`{"access_token":"${tokenNo(1)}","access_token":"${tokenNo(2)}","token_type":"bearer"}`),
      "the token endpoint's answer holds no bearer token",
    ],
    ...[-1, 0, "3600", null].map((life): [string, () => Response, string] => [
      `lives for ${JSON.stringify(life)}`,
      () => json({ access_token: tokenNo(1), token_type: "bearer", expires_in: life }),
      "the token endpoint's answer holds no bearer token",
    ]),
    [
      "is longer than 64 KiB",
      () => json({ access_token: tokenNo(1), token_type: "bearer", more: "x".repeat(65_536) }),
      "the token endpoint's answer holds no bearer token",
    ],
    ["is a redirect", () => Response.redirect("https://evil.test/", 307), "the token endpoint answered 307"],
    [
      "repeats our secret as an error",
      () => json({ error: "test oauth/secret" }, 400),
      "the token endpoint answered 400",
    ],
    ["does not come", () => Promise.reject(new Error("test oauth/secret")), "the token endpoint could not be reached"],
  ])("gives none where the answer %s, and says so without a word of it", async (_what, answer, reason) => {
    const { asked } = world({ "as.test": answer });
    const refused = await asks();
    expect(refused).toEqual({ given: false, reason: expect.stringContaining(reason) });
    expect(JSON.stringify([refused, logged])).not.toMatch(/oauth\/secret|0123456789abcde/);
    expect(logged).toEqual([["credential", "tokened", expect.stringContaining(reason)]]);
    expect(asked).toHaveLength(1);
  });

  it("keeps a token for a day at most, whatever its answer says", async () => {
    world({ "as.test": tokens(1e9) });
    at(0);
    expect((await given()).useForMs).toBe(86_340_000);
  });

  it("asks for nobody that the configuration does not name", async () => {
    const { asked } = world({});
    expect(await asks({ upstream: "nowhere" })).toEqual({ given: false, reason: "no such upstream" });
    name = crypto.randomUUID();
    expect(await asks({ upstream: "github" })).toEqual({ given: false, reason: "its credential is no token" });
    expect(asked).toHaveLength(0);
  });
});

describe("an installation token", () => {
  const narrowing = { repositories: ["widgets"], permissions: [["issues", "read"]] } as const;
  const whole = {
    token: "ghs_0123456789abcdef",
    expires_at: new Date(startMs + 3_600_000).toISOString(),
    permissions: { issues: "read", metadata: "read" },
    repository_selection: "selected",
    repositories: [{ name: "Widgets" }],
  };
  const asksApp = (change: object = {}) => {
    const { asked } = world({ "app.test": () => json({ ...whole, ...change }, 201) });
    return { asked, answer: asks({ upstream: "app", narrowing }) };
  };

  it("is asked for what the grant names, by the app's own statement", async () => {
    const { asked, answer } = asksApp();
    expect(await answer).toMatchObject({ given: true, token: "ghs_0123456789abcdef" });
    const { request, body } = asked[0]!;
    expect(request.url).toBe("https://app.test/app/installations/77/access_tokens");
    expect(JSON.parse(body)).toEqual({ repositories: ["widgets"], permissions: { issues: "read" } });
    const [header, claims] = request.headers
      .get("authorization")!
      .replace("Bearer ", "")
      .split(".")
      .map((part) => (part.length > 200 ? {} : JSON.parse(atob(part.replaceAll("-", "+").replaceAll("_", "/")))));
    expect(header).toEqual({ alg: "RS256", typ: "JWT" });
    expect(claims.iss).toBe("12345");
    expect(claims.exp - claims.iat).toBeLessThanOrEqual(600);
  });

  it("is taken for as many repositories as GitHub takes, each told of at length", async () => {
    const names = Array.from({ length: 500 }, (_, n) => `widgets-${n}`);
    const repositories = names.map((one) => ({ name: one, html_url: `https://github.com/acme/${"x".repeat(8_000)}` }));
    world({ "app.test": () => json({ ...whole, repositories }, 201) });
    expect(await asks({ upstream: "app", narrowing: { ...narrowing, repositories: names } })).toMatchObject({
      given: true,
    });
  });

  it.each<[what: string, change: object]>([
    ["all repositories", { repository_selection: "all", repositories: undefined }],
    ["another repository", { repositories: [{ name: "widgets" }, { name: "payroll" }] }],
    ["another permission", { permissions: { issues: "read", contents: "read" } }],
    ["more of a permission", { permissions: { issues: "write" } }],
    ["permissions that it does not say", { permissions: undefined }],
    // As of a server that knows no such parameter, and whose installation has selected repositories.
    ["repositories that it does not say", { repositories: undefined }],
  ])("that is for %s is not used", async (_what, change) => {
    expect(await asksApp(change).answer).toEqual({
      given: false,
      reason: "GitHub's token is wider than what was asked for",
    });
  });

  it("that is over already is none, and a server that gives such is asked no faster than one that fails", async () => {
    const { asked } = world({
      "app.test": () => json({ ...whole, expires_at: new Date(startMs - 1_000).toISOString() }, 201),
    });
    at(0);
    for (let n = 0; n < 5; n++)
      expect(await asks({ upstream: "app", narrowing })).toEqual({
        given: false,
        reason: "GitHub's token is over already, by the gate's clock",
      });
    expect(asked).toHaveLength(1);
  });

  it("that was refused is none", async () => {
    world({ "app.test": () => json({ message: "no" }, 422) });
    expect(await asks({ upstream: "app", narrowing })).toEqual({
      given: false,
      reason: "GitHub answered 422 to the request for an installation token",
    });
  });
});
