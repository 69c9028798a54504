// The admin's door: who gets in, what is refused and with which words; and that every act and refusal stands in the journal.

import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { parseStrictJson } from "../../src/json/strict-json.ts";
import { type Answer, DETAILS, type Harness, type Members, makeKey, nowSeconds, startHarness } from "./harness.ts";

let h: Harness;
beforeAll(async () => {
  h = await startHarness({ addresses: { flushAfterMs: 100 } });
});
afterAll(() => h.close());

const said = ({ status, headers, json }: Answer): string => {
  expect(headers.get("cache-control")).toBe("no-store");
  if (status < 400) return String(status);
  expect(headers.get("content-type")).toBe("application/problem+json");
  expect(json["status"]).toBe(status);
  return json["detail"] === undefined ? String(status) : `${status} ${json["detail"]}`;
};
const admin = { sub: "00u3zr9oscar", groups: ["security-oncall"], aud: "portcullis-admin" };
const flip = (over: object = {}) => ({
  reach: "instance",
  target: { instance: "i-1" },
  act: "kill",
  reason: "why not",
  ...over,
});
const paths = ["/admin/v1/switches", "/admin/v1/instances", "/admin/v1/transcripts/a/b/c", "/admin/v1/never-built"];

/** Of who is nobody, five refusals a second go on record one by one. */
const untilNextSecond = () => new Promise((resolve) => setTimeout(resolve, 1_050));

describe("who is nobody", () => {
  beforeEach(untilNextSecond);

  const tokens: [name: string, header: () => string | undefined | Promise<string>, reason: string][] = [
    ["no token", () => undefined, "no bearer token"],
    ["another scheme", () => "Basic YTpi", "no bearer token"],
    ["a text", () => "Bearer hello", "not a JWS in compact form"],
    [
      "a human's token for a platform",
      async () => `Bearer ${await h.idp.signIn("oscar", "build-platform-app")}`,
      "aud is another client",
    ],
    [
      "a token for both",
      () => `Bearer ${h.idToken({ ...admin, aud: ["portcullis-admin", "build-platform-app"] })}`,
      "aud is another client",
    ],
    ["an expired token", () => `Bearer ${h.idToken({ ...admin, exp: nowSeconds() - 61 })}`, "expired"],
    ["a token not valid yet", () => `Bearer ${h.idToken({ ...admin, nbf: nowSeconds() + 120 })}`, "not valid yet"],
    [
      "a token of another issuer",
      () => `Bearer ${h.idToken({ ...admin, iss: "https://idp.example" })}`,
      "iss is not the configured provider",
    ],
    [
      "a token that another key signed",
      () => `Bearer ${h.idToken(admin, {}, makeKey())}`,
      "the signature: ERR_JWS_SIGNATURE_VERIFICATION_FAILED",
    ],
    ["alg none", () => `Bearer ${h.idToken(admin, { alg: "none" })}`, "alg is not allowed"],
    ["a logout token", () => `Bearer ${h.idToken(admin, { typ: "logout+jwt" })}`, "typ is of another kind of token"],
    ["an instance's grant", async () => `Bearer ${(await h.provision()).access}`, "typ is of another kind of token"],
    ["an instance's grant under its scheme", async () => `DPoP ${(await h.provision()).access}`, "no bearer token"],
    ["a client assertion", () => `Bearer ${h.clientAssertion()}`, "iss is not the configured provider"],
  ];
  it.each(tokens)("is told the same on every path, and the journal why: %s", async (name, header, reason) => {
    const authorization = await header();
    const init = { headers: { "user-agent": name, ...(authorization === undefined ? {} : { authorization }) } };
    const answers = await Promise.all(paths.map((path) => h.send(path, init)));
    for (const answer of answers) {
      expect(said(answer)).toBe("401");
      expect(answer.text).toBe('{"type":"about:blank","title":"Unauthorized","status":401}');
      expect(answer.headers.get("www-authenticate")).toBe("Bearer");
    }
    const refused = (record: Members) => record["type"] === "refused" && record["reason"] === reason;
    const recorded = await h.journal("admin-refused", refused, paths.length);
    expect(new Set(recorded.map(({ path }) => path))).toEqual(new Set(paths));
  });

  it("has the answer that others have in a flood, and is counted", async () => {
    const answers = await Promise.all(Array.from({ length: 60 }, () => h.send("/admin/v1/switches", {})));
    expect(new Set(answers.map(said))).toEqual(new Set(["401"]));
    await untilNextSecond();
    await h.send("/admin/v1/switches", {});
    await h.journal("admin-refused", ({ suppressed }) => Number(suppressed) > 0);
  });

  it("has nothing in the journal of acts", async () => {
    await h.asAdmin("/admin/v1/switches", { body: "marker" });
    const all = await h.journal("admin", () => true);
    expect(all.filter(({ type, by }) => type === "refused" && by === undefined)).toEqual([]);
  });

  it("cannot fill the journal with a long path", async () => {
    const path = `/admin/${"p".repeat(8_000)}`;
    expect((await h.send(path, {})).status).toBe(401);
    const [record] = await h.journal("admin-refused", (one) => String(one["path"]).startsWith("/admin/ppp"));
    expect(record?.["path"]).toHaveLength(256);
  });
});

describe("who holds no role", () => {
  it.each([
    ["POST", "/admin/v1/switches", "operator or break-glass"],
    ["GET", "/admin/v1/switches", "viewer or operator or auditor"],
    ["GET", "/admin/v1/instances", "viewer or operator or auditor"],
    ["GET", "/admin/v1/transcripts/a/b/c", "auditor"],
  ])("is refused, on record: %s %s", async (method, path, roles) => {
    const body = method === "POST" ? { body: flip() } : {};
    const reason = `this needs the role ${roles}`;
    expect(said(await h.asAdmin(path, { method, human: "ada", ...body }))).toBe(`403 ${reason}`);
    const fits = (record: Members) =>
      record["type"] === "refused" && record["path"] === path && record["reason"] === reason;
    const [record] = await h.journal("admin", fits);
    expect(record?.["by"]).toMatch(/^[A-Za-z0-9_-]{43}$/);
  });
});

describe("an admin", () => {
  it("gets in with a token from a real sign-in", async () => {
    const token = await h.idp.signIn("oscar", "portcullis-admin");
    expect(said(await h.asAdmin("/admin/v1/instances", { token }))).toBe("200");
    expect(said(await h.asAdmin("/admin/v1/never-built", { token }))).toBe("404");
    expect(said(await h.asAdmin("/admin/v1/switches", { token, method: "DELETE" }))).toBe("404");
  });

  const bad: [name: string, body: unknown, detail: RegExp][] = [
    ["no JSON", "kill", /^400 body: not JSON$/],
    ["nothing", "", /^400 body: not JSON$/],
    ["a list", [], /^400 body: /],
    ["no reason", flip({ reason: undefined }), /^400 reason: /],
    ["an empty reason", flip({ reason: "" }), /^400 reason: /],
    ["a blank reason", flip({ reason: " \n" }), /^400 reason: /],
    ["a reason of 1001 characters", flip({ reason: "r".repeat(1_001) }), /^400 reason: /],
    ["a reason that is no text", flip({ reason: 1 }), /^400 reason: /],
    ["an unknown act", flip({ act: "pardon" }), /^400 act: /],
    ["no act", flip({ act: undefined }), /^400 act: /],
    ["an unknown reach", flip({ reach: "universe" }), /^400 reach: /],
    ["the reach constructor", flip({ reach: "constructor" }), /^400 reach: /],
    ["no target", flip({ target: undefined }), /^400 target: /],
    ["a target that is a text", flip({ target: "i-1" }), /^400 target: /],
    ["a target that is no id", flip({ target: { instance: "../x" } }), /^400 target.instance: an id/],
    ["a target of another reach", flip({ target: { task: "t" } }), /^400 target: exactly instance for instance$/],
    ["a target that names more", flip({ target: { instance: "i", task: "t" } }), /^400 target: exactly instance/],
    ["a target with an unknown member", flip({ target: { instance: "i", x: "y" } }), /^400 target: .*"x"/],
    ["everything, but for", flip({ reach: "everything" }), /^400 target: {} for everything$/],
    ["half of a version", flip({ reach: "agent-version", target: { agent: "a" } }), /^400 target: exactly agent and/],
    [
      "an agent that is not there",
      flip({ reach: "agent", target: { agent: "triage-bto" } }),
      /^400 target.agent: no agent "triage-bto" in the configuration$/,
    ],
    [
      "an upstream that is not there",
      flip({ reach: "upstream", target: { upstream: "githbu" } }),
      /^400 target.upstream: no upstream "githbu" in the configuration$/,
    ],
    ["a past end", flip({ untilMs: 1 }), /^400 untilMs: it is over already$/],
    ["a resume with an end", flip({ act: "resume", untilMs: 4_000_000_000_000 }), /^400 untilMs: not with resume$/],
    ["an unknown field", flip({ by: "somebody else" }), /^400 body: .*"by"/],
    ["two mistakes", flip({ act: "x", reason: "" }), /^400 act: .*; reason: /],
    [
      "a key twice",
      '{"reach":"instance","target":{"instance":"a"},"target":{},"act":"kill","reason":"r"}',
      /^400 body: duplicate key/,
    ],
    ["17 kB", flip({ reason: "r".repeat(17_000) }), /^400 body: longer than 16384 bytes, or not UTF-8$/],
  ];
  it.each(bad)("is told the path of what is wrong: %s", async (_name, body, detail) => {
    const answer = await h.asAdmin("/admin/v1/switches", { body });
    expect(said(answer)).toMatch(detail);
  });

  it("has each mistake on record, and no switch of it", async () => {
    await h.journal("admin", ({ type, reason }) => type === "refused" && /^act: .*; reason: /.test(String(reason)));
    const { switches } = (await h.asAdmin("/admin/v1/switches")).json;
    expect(switches).toEqual([]);
  });

  it("kills an instance, and the deed stands in the journal with who and why", async () => {
    const { key, access } = await h.provision();
    const instance = key.thumbprint;
    expect((await h.introspect(access)).json["active"]).toBe(true);
    const killed = await h.kill(instance, "it went too far");
    expect(said(killed)).toBe("201");
    expect(killed.json).toMatchObject({
      switch: { target: { instance } },
      status: "done",
      reached: 1,
      cut: 0,
      unreached: [],
    });
    expect((await h.introspect(access)).text).toBe('{"active":false}');
    expect((await h.call(key, access)).status).toBe(401);
    const [record] = await h.journal(
      "admin",
      ({ type, switchTarget }) => type === "act" && (switchTarget as Members)["instance"] === instance,
    );
    expect(record).toMatchObject({
      deed: "flip",
      act: "kill",
      reach: "instance",
      reason: "it went too far",
      by: expect.stringMatching(/^[A-Za-z0-9_-]{43}$/),
      email: "oscar@acme.example",
    });
    const { instances } = (await h.asAdmin("/admin/v1/instances")).json as { instances: Record<string, unknown>[] };
    expect(instances.find((one) => one["instance"] === instance)).toMatchObject({ state: "killed" });
  });

  it("may kill who has not come yet: nobody is reached, and the key never enrols", async () => {
    const key = makeKey();
    const killed = await h.kill(key.thumbprint);
    expect(said(killed)).toBe("201");
    expect(killed.json).toMatchObject({ status: "done", reached: 0, cut: 0, unconfirmed: 0, unreached: [] });
    const refused = await h.exchange({ key });
    expect(refused.json["error_description"]).toBe("closed by a switch");
  });

  it("reads a transcript, which is itself on record, and hears of none that is not there", async () => {
    const { key, access } = await h.provision({ form: { task: "t-read" } });
    const { human } = (await h.introspect(access)).json;
    const path = `/admin/v1/transcripts/${human}/build-platform_t-read/${key.thumbprint}`;
    const read = await h.asAdmin(path);
    expect(said(read)).toBe("200");
    expect(JSON.parse(read.text.split("\n")[0] ?? "")).toMatchObject({ type: "enrolled", seq: 0, human });
    await h.journal("admin", ({ type, instance }) => type === "read" && instance === key.thumbprint);
    for (const other of [
      `/admin/v1/transcripts/${human}/build-platform_t-other/${key.thumbprint}`,
      `/admin/v1/transcripts/${human}/build-platform_t-read/${makeKey().thumbprint}`,
      `/admin/v1/transcripts/${human}/build-platform_t-read/..%2f..%2fx`,
    ])
      expect(said(await h.asAdmin(other))).toBe("404 no transcript with these ids");
    // What is no id is not on record. What was asked after it is, so it would be by then.
    const later = makeKey().thumbprint;
    await h.asAdmin(`/admin/v1/transcripts/${human}/build-platform_t-read/${later}`);
    const asked = await h.journal("admin", ({ instance }) => instance === later || instance === "../../x");
    expect(asked.map(({ instance }) => instance)).toEqual([later]);
  });
});

describe("the journal of the authority", () => {
  const human = expect.stringMatching(/^[A-Za-z0-9_-]{43}$/);
  const refused = (reason: string) => h.journal("authority", (record) => record["reason"] === reason);
  /** Of who is no platform, though perhaps the holder of some key. */
  const refusedUnknown = (reason: string) => h.journal("authority-refused", (record) => record["reason"] === reason);

  it("says who was refused, as far as it was verified, and who they said to be", async () => {
    const key = makeKey();
    await h.exchange({ key, human: "grace", form: { task: "t-9" } });
    const [beyond] = await refused(
      'authorization_details[0]: "GET /repos/{owner}/{repo}/issues" exceeds the human\'s entitlement',
    );
    expect(beyond).toMatchObject({
      type: "refused",
      journal: expect.stringMatching(/^authority\.\d{4}-\d\d-\d\d$/),
      endpoint: "token",
      error: "invalid_authorization_details",
      client: "build-platform",
      claimedClient: "build-platform",
      instance: key.thumbprint,
      human,
      task: "t-9",
      grantType: "urn:ietf:params:oauth:grant-type:token-exchange",
    });

    await h.exchange({ form: { client_assertion: h.clientAssertion({ exp: 1 }), client_id: undefined } });
    const [client] = await refusedUnknown("expired");
    expect(client).toMatchObject({
      error: "invalid_client",
      client: null,
      claimedClient: "build-platform",
      human: null,
    });

    await h.exchange({ headers: { DPoP: undefined } });
    const [proof] = await refused("a DPoP proof by the instance's key is required");
    expect(proof).toMatchObject({ client: "build-platform", instance: null, human: null });

    const { refresh } = await h.provision();
    const thief = makeKey();
    await h.renew(thief, refresh);
    const [renewal] = await refusedUnknown("the refresh token is not valid");
    expect(renewal).toMatchObject({ error: "invalid_grant", client: null, instance: thief.thumbprint });

    await h.post("/oauth/revoke", { token: refresh, ...h.clientForm("other-platform") });
    const [foreign] = await refused("the token was issued to another client");
    expect(foreign).toMatchObject({ endpoint: "revoke", client: "other-platform" });

    await h.post("/oauth/introspect", { token: refresh });
    const [nobody] = await refusedUnknown("client_assertion_type");
    expect(nobody).toMatchObject({ endpoint: "introspect", client: null, claimedClient: null });

    await h.post("/oauth/token?x=y", {});
    const [form] = await refusedUnknown("parameters belong in the body, not in the query");
    expect(form).toMatchObject({ client: null, task: null });
  });

  it("holds what its verifier can read, wherever a text was cut: at each door, of whoever sent it", async () => {
    await untilNextSecond();
    const cutInHalf = (length: number) => `${"x".repeat(length - 1)}\u{1f600}`;
    const names = { client_id: cutInHalf(64), task: cutInHalf(64), grant_type: cutInHalf(100) };
    await h.post("/oauth/token", names);
    await h.send(`/admin/${"x".repeat(248)}%F0%9F%98%80`, {});
    const operations = [`GET /${cutInHalf(195)}`];
    await h.exchange({ form: { authorization_details: JSON.stringify([{ ...DETAILS[0], operations, where: {} }]) } });
    const cut = (record: Members) => JSON.stringify(record).includes("xxxx");
    const records = [
      ...(await h.journal("authority-refused", cut)),
      ...(await h.journal("admin-refused", cut)),
      ...(await h.journal("authority", cut)),
    ];
    for (const record of records) expect(parseStrictJson(JSON.stringify(record))).toEqual({ ok: true, value: record });
    expect(records[0]).toMatchObject({ claimedClient: `${"x".repeat(63)}\ufffd`, task: `${"x".repeat(63)}\ufffd` });
  });

  it("holds no token, assertion or proof", async () => {
    const secret = h.idToken({ sub: "spy" });
    await h.exchange({ form: { subject_token: secret, task: "../spy", grant_type: "password" } });
    const [record] = await refusedUnknown("grant_type");
    expect(JSON.stringify(record)).not.toContain(secret.slice(0, 40));
  });
});
