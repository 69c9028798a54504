import { describe, expect, it } from "vitest";
import { APPROVABLE_MAX_BYTES, boundDigest, shownHeaders, whyNotApprovable } from "../../src/approval/bound.ts";
import { askingEntries, demandOf, otherAccountsOf, whyNotBy } from "../../src/approval/policy.ts";
import { parseWebhookSecret, webhookBody, webhookHeaders, webhookPauseMs } from "../../src/approval/webhook.ts";
import { boundaries } from "../../src/config/layers.ts";
import { forwardedHeaders } from "../../src/gate/headers.ts";
import type { RecordedRequest } from "../../src/instance/contract.ts";
import type { Call, Json } from "../../src/scope/call.ts";
import { coveredBy } from "../../src/scope/decide.ts";
import { parseEntries } from "../../src/scope/entry.ts";
import { readingsOf } from "../../src/scope/readings.ts";

const entry = (change: object = {}) => ({ type: "http", upstream: "github", operations: ["PUT /a/{x}"], ...change });
const parse = (...entries: object[]) => boundaries.safeParse(entries);
const call: Call = { upstream: "github", method: "PUT", segments: ["a", "1"], query: [], body: { kind: "none" } };
const demand = (...entries: object[]) => demandOf(askingEntries(parse(...entries).data!), call);

describe("who asks for approval", () => {
  it("nobody, by default", () => {
    expect(demand()).toBeNull();
    expect(demand(entry(), entry({ effect: "allow" }))).toBeNull();
  });

  it("one entry is enough, whatever else allows the call, and whatever stands first", () => {
    expect(demand(entry(), entry({ effect: "approve" }))?.at).toEqual(["boundaries[1]"]);
    expect(demand(entry({ effect: "approve" }), entry())?.at).toEqual(["boundaries[0]"]);
    expect(demand(entry({ effect: "approve", where: { x: ["2"] } }), entry())).toBeNull();
  });

  const asks = (where: object, of: Partial<Call>): boolean => {
    const { data } = parse(entry({ operations: ["PUT /a/{+p}"] }), entry({ effect: "approve", where }));
    return demandOf(askingEntries(data!), { ...call, ...of }) !== null;
  };
  const json = (value: Json): Partial<Call> => ({ body: { kind: "json", value } });
  const LARGE = { "body./amount": { min: 1_000 } };
  it.each<[string, object, Partial<Call>]>([
    ["a number as the rule has it", LARGE, json({ amount: 5_000 })],
    ["in another spelling of numbers", LARGE, json({ amount: "5e3" })],
    ["with white space", LARGE, json({ amount: " 5000" })],
    ["in a list", LARGE, json({ amount: [5_000] })],
    ["under a key that Go takes for it", LARGE, json({ Amount: 5_000 })],
    ["under the other name of a field", { "body./maxAmount": { min: 1_000 } }, json({ max_amount: 5_000 })],
    ["in a batch", LARGE, json([{ amount: 5_000 }])],
    ["in a body that can't be read", LARGE, { body: { kind: "opaque" } }],
    ["a word in another case", { "body./to": ["abroad"] }, json({ to: "Abroad" })],
    ["a word in another form", { "body./to": ["abroad"] }, json({ to: "\uff41broad " })],
    ["a number as text", { "body./n": [7] }, json({ n: "7" })],
    [
      "a parameter that is there twice",
      { "query.force": ["1"] },
      {
        query: [
          ["force", "0"],
          ["force", "1"],
        ],
      },
    ],
    ["in brackets", { "query.force": ["1"] }, { query: [["force[]", "1"]] }],
    ["a prefix in another case", { "query.ref": { prefix: "release/" } }, { query: [["ref", "Release/1"]] }],
    ["null for what is absent", { "body./limit": { absent: true } }, json({ limit: null })],
    ["a path in another case", { x: ["vault"] }, { segments: ["A", "Vault"] }],
    ["a path with a slash at its end", { x: ["vault"] }, { segments: ["a", "vault", ""] }],
    ["a path with parameters", { x: ["vault"] }, { segments: ["a", "vault;v=1"] }],
    ["a path that is encoded twice", { x: ["vault"] }, { segments: ["%61", "vaul%74"] }],
    ["a path that is encoded four times, in another case", { x: ["vault"] }, { segments: ["a", "vaul%252554"] }],
    [
      "a path that is encoded twice, beside a percent sign that encodes nothing",
      { x: ["vault"] },
      { segments: ["a", "vaul%74;%"] },
    ],
    ["two encoded slashes", { x: ["vault"] }, { segments: ["a//vault"] }],
    ["an encoded slash beside one", { x: ["vault"] }, { segments: ["a/", "vault/", ""] }],
    ["a segment of parameters alone", { x: ["vault"] }, { segments: ["a", ";v=1", "vault"] }],
    ["a slash that is encoded twice", { x: ["vault"] }, { segments: ["a%2Fvault"] }],
    ["an encoded slash", { x: ["vault"] }, { segments: ["a/vault"] }],
  ])("doubt asks: %s", (_, where, of) => {
    expect(asks(where, of)).toBe(true);
  });
  it("what a path may be read as is found out once, whatever number of operations it is held against", () => {
    const segments = ["a", "vaul%2574"];
    expect(readingsOf(segments)).toBe(readingsOf(segments));
    expect(readingsOf(segments)).toContainEqual(["a", "vault"]);
  });
  it.each<[string, object, Partial<Call>]>([
    ["a number out of the range", LARGE, json({ amount: 999 })],
    ["the same as text", LARGE, json({ amount: "999" })],
    ["what is not there", LARGE, json({})],
    ["another word", { "body./to": ["abroad"] }, json({ to: "home" })],
    ["another prefix", { "query.ref": { prefix: "release/" } }, { query: [["ref", "main"]] }],
    ["something where nothing is asked for", { "body./limit": { absent: true } }, json({ limit: 1 })],
    ["another path", { x: ["vault"] }, { segments: ["a", "vaults"] }],
    ["a path with a percent sign", { x: ["vault"] }, { segments: ["a", "vault%"] }],
    ["another upstream", {}, { upstream: "slack" }],
    ["another method", {}, { method: "POST" }],
  ])("certainty does not: %s", (_, where, of) => {
    expect(asks(where, of)).toBe(false);
  });

  it("of two the stricter counts, in each respect", () => {
    const loose = { waitSeconds: 60, validSeconds: 900, expireSeconds: 9_000, notDelegator: false, groups: ["a", "b"] };
    const strict = { waitSeconds: 1, validSeconds: 9, expireSeconds: 90, groups: ["c"] };
    const both = [loose, strict].map((approval) => entry({ effect: "approve", approval }));
    const found = { waitMs: 1_000, validMs: 9_000, expireMs: 90_000, notDelegator: true, groups: [["a", "b"], ["c"]] };
    expect(demand(...both)).toEqual({ at: ["boundaries[0]", "boundaries[1]"], ...found });
    expect(demand(...both.toReversed())).toMatchObject({ waitMs: 1_000, validMs: 9_000, notDelegator: true });
  });

  it("an entry that asks covers a grant's entry like one that allows", () => {
    const [narrow] = parse(entry()).data!;
    expect(coveredBy(parse(entry({ effect: "approve" })).data!, narrow!)).toBe(true);
  });
});

describe("the configuration", () => {
  it.each([
    [{ effect: "deny" }, "effect"],
    [{ approval: {} }, "approval"],
    [{ effect: "allow", approval: { waitSeconds: 1 } }, "approval"],
    [{ effect: "approve", approval: { waitSeconds: 61 } }, "approval.waitSeconds"],
    [{ effect: "approve", approval: { validSeconds: 0 } }, "approval.validSeconds"],
    [{ effect: "approve", approval: { groups: [] } }, "approval.groups"],
    [{ effect: "approve", approval: { notDelegator: null } }, "approval.notDelegator"],
    [{ effect: "approve", approval: { anyone: true } }, "approval"],
    [{ effects: "approve" }, null],
  ])("%j is refused", (change, path) => {
    const parsed = parse(entry(), entry(change));
    expect(parsed.success).toBe(false);
    const paths = parsed.error!.issues.map((issue) => issue.path.join("."));
    expect(paths).toContain(path === null ? "" : ["1", path].filter((part) => part !== "").join("."));
  });

  it("a condition hidden in a prototype is refused here as anywhere", () => {
    const hidden = Object.assign(Object.create({ where: { x: ["1"] } }), entry({ effect: "approve" }));
    expect(parse(hidden).success).toBe(false);
  });

  it.each(["effect", "approval"])("in a scope, a ceiling, an entitlement %s is an unknown field", (field) => {
    expect(parseEntries([entry({ [field]: "allow" })], "scope")).toEqual({
      ok: false,
      error: { path: `scope[0].${field}`, message: "unknown field" },
    });
  });
});

describe("who may decide", () => {
  const rule = { notDelegator: true, groups: [] };
  const ada = { human: "ada", emailDigest: "a@" };
  const olga = { human: "olga", emailDigest: "o@", groups: [] };
  it.each([
    ["another", rule, ada, olga, null],
    ["the delegator", rule, ada, { ...ada, groups: [] }, /another must decide/],
    ["the delegator by another id", rule, ada, { ...ada, human: "ada-2", groups: [] }, /another must decide/],
    ["one who can't be told from the delegator", rule, ada, { ...olga, emailDigest: null }, /no e-mail address/],
    [
      "where addresses are unknown, ids decide",
      rule,
      { ...ada, emailDigest: null },
      { ...olga, emailDigest: null },
      null,
    ],
    ["the delegator where that is allowed", { ...rule, notDelegator: false }, ada, { ...ada, groups: [] }, null],
    ["one without the group", { ...rule, groups: [["x", "y"]] }, ada, olga, /x or y/],
    ["one in one group of one", { ...rule, groups: [["x", "y"]] }, ada, { ...olga, groups: ["y"] }, null],
    ["one in one group of two", { ...rule, groups: [["x"], ["y"]] }, ada, { ...olga, groups: ["y"] }, /group x/],
  ])("%s", (_, policy, delegator, approver, refused) => {
    const why = whyNotBy(policy, delegator, approver, []);
    if (refused === null) expect(why).toBeNull();
    else expect(why).toMatch(refused);
  });

  it.each([
    ["by address", [["a@", "o@"]], ada, olga, /another must decide/],
    ["by id", [["olga", "x", "ada"]], ada, olga, /another must decide/],
    ["by id, where no address is known", [["olga", "ada"]], { ...ada, emailDigest: null }, olga, /another must decide/],
    ["by one of each", [["ada", "o@"]], ada, olga, /another must decide/],
    [
      "not as somebody of another list",
      [
        ["ada", "x"],
        ["olga", "y"],
      ],
      ada,
      olga,
      null,
    ],
    ["not where neither is known", [["x", "y"]], ada, olga, null],
  ])("who is known to be the delegator %s may not", (_, samePerson, delegator, approver, refused) => {
    const accounts = otherAccountsOf(samePerson, delegator);
    const why = whyNotBy(rule, delegator, approver, accounts);
    if (refused === null) expect(why).toBeNull();
    else expect(why).toMatch(refused);
    expect(whyNotBy({ ...rule, notDelegator: false }, delegator, approver, accounts)).toBeNull();
  });
});

const utf8 = new TextEncoder();
const request = (change: Partial<RecordedRequest> = {}): RecordedRequest => ({
  method: "PUT",
  target: "/github/a/1?x=1&y=2",
  headers: [["content-type", "application/json"]],
  body: utf8.encode('{"a":1,"b":2}'),
  bodyFollows: false,
  ...change,
});
const TO = { upstream: "github", baseUrl: "https://github.test", forwardHeaders: ["x-account"], takesRanges: true };

describe("one call", () => {
  const digest = boundDigest(TO, request());
  const with_ = (...headers: [string, string][]) => request({ headers: [...request().headers, ...headers] });
  it.each<[string, RecordedRequest]>([
    ["one byte of the body", request({ body: utf8.encode('{"a":1,"b":3}') })],
    ["the same JSON in other bytes", request({ body: utf8.encode('{"b":2,"a":1}') })],
    ["the same JSON with a space", request({ body: utf8.encode('{"a":1, "b":2}') })],
    ["no body", request({ body: new Uint8Array(0) })],
    ["another order of the query", request({ target: "/github/a/1?y=2&x=1" })],
    ["another spelling of the path", request({ target: "/github/a/%31?x=1&y=2" })],
    ["another method", request({ method: "POST" })],
    ["another media type", request({ headers: [["content-type", "text/plain"]] })],
    ["a coding", with_(["content-encoding", "gzip"])],
    // Frameworks read "1.000" in a form by it: as one, or as a thousand.
    ["another language", with_(["accept-language", "de"])],
    ["a condition", with_(["if-match", '"1"'])],
    ["a header that the configuration lets pass", with_(["x-account", "2"])],
    ["one that does not go on", with_(["connection", "keep-alive, Content-Type"])],
  ])("%s is another", (_, other) => {
    expect(boundDigest(TO, other)).not.toBe(digest);
  });

  it("at another upstream, or another place of it, is another", () => {
    expect(boundDigest({ ...TO, upstream: "slack" }, request())).not.toBe(digest);
    expect(boundDigest({ ...TO, baseUrl: "https://elsewhere.test" }, request())).not.toBe(digest);
  });

  it("with a part that the upstream is not asked for is the same, and shows none", () => {
    const whole = { ...TO, takesRanges: false };
    const part = with_(["range", "bytes=0-9"], ["if-range", '"1"']);
    expect(boundDigest(TO, part)).not.toBe(digest);
    expect(boundDigest(whole, part)).toBe(digest);
    expect(shownHeaders(TO, part.headers)).toBe(part.headers);
    expect(shownHeaders(whole, part.headers)).toEqual(request().headers);
  });

  it("is the same in another attempt, with another trace, in another order of headers", () => {
    const again: [string, string][] = [
      ["x-stainless-retry-count", "1"],
      ["traceparent", "00-1"],
      ["cf-ray", "2"],
      ["content-length", "13"],
    ];
    expect(boundDigest(TO, request({ headers: [...again, ...request().headers] }))).toBe(digest);
  });

  it("every header that goes to an upstream is part of it, or one of those that say nothing of what is done", () => {
    const names = [
      ..."accept accept-charset accept-language content-digest content-disposition content-encoding content-language content-md5 content-type digest repr-digest user-agent if-match if-modified-since if-none-match if-range if-unmodified-since range cache-control idempotency-key pragma prefer baggage traceparent tracestate x-correlation-id x-request-id anthropic-beta anthropic-version notion-version openai-beta stripe-version x-github-api-version x-github-media-type x-stainless-lang".split(
        " ",
      ),
    ];
    const passed = [
      ...forwardedHeaders(
        names.map((name) => [name, "v"] as const),
        [],
      ).keys(),
    ];
    const free = passed.filter(
      (name) =>
        boundDigest(TO, request({ headers: [[name, "1"]] })) === boundDigest(TO, request({ headers: [[name, "2"]] })),
    );
    expect(free.toSorted()).toEqual(
      "accept-encoding baggage cache-control idempotency-key pragma traceparent tracestate user-agent x-correlation-id x-request-id x-stainless-lang".split(
        " ",
      ),
    );
  });

  it("can't be approved where its body follows, is too long, or where a rule took something out", () => {
    expect(whyNotApprovable(request())).toBeNull();
    expect(whyNotApprovable(request({ body: new Uint8Array(APPROVABLE_MAX_BYTES) }))).toBeNull();
    expect(whyNotApprovable(request({ body: new Uint8Array(APPROVABLE_MAX_BYTES + 1) }))).toMatch(/262144 bytes/);
    expect(whyNotApprovable(request({ bodyFollows: true }))).toMatch(/262144 bytes/);
    const nothing = { applied: ["rule"], values: [], body: null, salt: new Uint8Array(16) };
    const value = { rule: "rule", at: "query:x", digest: null, bytes: null };
    expect(whyNotApprovable(request({ redaction: nothing }))).toBeNull();
    expect(whyNotApprovable(request({ redaction: { ...nothing, values: [value] } }))).toMatch(/redacted/);
    const body = { trueBytes: null, withheld: true };
    expect(whyNotApprovable(request({ redaction: { ...nothing, body } }))).toMatch(/redacted/);
  });
});

describe("the webhook", () => {
  it("is signed as Standard Webhooks has it", () => {
    // The example of the specification's own libraries.
    const key = parseWebhookSecret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    if (!key.ok) throw new Error(key.error);
    const headers = webhookHeaders(
      "msg_p5jXN8AQM9LWM0D4loKWxJek",
      '{"test": 2432232314}',
      key.value,
      1_614_265_330_000,
    );
    expect(headers["webhook-signature"]).toBe("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    expect(headers["webhook-timestamp"]).toBe("1614265330");
  });

  it("is signed by both secrets while a receiver goes from one to the other", () => {
    const [old, new_] = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", `whsec_${btoa("k".repeat(32))}`];
    const signaturesBy = (secret: string): string => {
      const keys = parseWebhookSecret(secret);
      if (!keys.ok) throw new Error(keys.error);
      return webhookHeaders("msg_1", "{}", keys.value, 1_614_265_330_000)["webhook-signature"]!;
    };
    const [first, second] = [signaturesBy(old), signaturesBy(new_)];
    expect(first).not.toBe(second);
    expect(signaturesBy(`${new_} ${old}`)).toBe(`${second} ${first}`);
  });

  it.each([
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw ",
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw guess",
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw  whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    Array(3).fill("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").join(" "),
    "",
    "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "whsec_c2hvcnQ=",
    "whsec_not base64 at all, and long enough",
  ])("%j is no secret", (text) => {
    const parsed = parseWebhookSecret(text);
    expect(parsed.ok).toBe(false);
    if (!parsed.ok && text !== "") expect(parsed.error).not.toContain(text);
  });

  it("says neither query nor body nor headers", () => {
    const approval = {
      id: "i",
      instance: "n",
      human: "h",
      agent: "a",
      agentVersion: "1",
      task: "t",
      purpose: "p",
      upstream: "github",
      method: "PUT",
      url: "https://github.test/a?token=SECRET",
      headers: [["x", "SECRET"]] as const,
      body: { digest: "SECRET" },
      seq: 1,
      entries: [],
      groups: [],
      notDelegator: true,
      askedAtMs: 0,
      expiresAtMs: 1_000,
      state: "asked" as const,
      decision: null,
      validUntilMs: null,
      endedAtMs: null,
      cause: null,
      call: null,
    };
    const body = webhookBody(approval, "https://gate.test");
    expect(body).not.toContain("SECRET");
    expect(JSON.parse(body)).toMatchObject({
      type: "approval.requested",
      timestamp: "1970-01-01T00:00:00.000Z",
      data: { url: "https://github.test/a", hasQuery: true, link: "https://gate.test/admin/v1/approvals/i" },
    });
  });

  it("is sent again ever later, and not without end", () => {
    const pauses = Array.from({ length: 12 }, (_, i) => webhookPauseMs(i + 1));
    expect(pauses.slice(0, 4)).toEqual([2_000, 6_000, 18_000, 54_000]);
    expect(Math.max(...pauses.map((ms) => ms ?? 0))).toBe(900_000);
    expect(pauses.at(-1)).toBeNull();
  });
});
