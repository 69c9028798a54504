// The door of shared signals: what is refused and with which words, and what a security event does to whom.

import { createHash, createPrivateKey, generateKeyPairSync, type KeyObject, randomUUID, sign } from "node:crypto";
import { createServer, type Server, type ServerResponse } from "node:http";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { humans } from "../../scripts/local/humans.ts";
import { closeServer, listenOnLoopback } from "../../scripts/local/ports.ts";
import {
  type Answer,
  encodePart,
  type Harness,
  type HumanName,
  type Members,
  makeKey,
  nowSeconds,
  type SigningKey,
  sha256,
  signCompact,
  startHarness,
} from "./harness.ts";

const CAEP = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC = "https://schemas.openid.net/secevent/risc/event-type/";
const SSF = "https://schemas.openid.net/secevent/ssf/event-type/";
const REVOKED = `${CAEP}session-revoked`;
const PATH = "/ssf/events/corp-signals";
const TOKEN = "a-bearer-token-that-only-the-transmitter-holds";
const AUDIENCE = "portcullis-signals";

const ecKey = makeKey();
const otherKey = makeKey();
const rsa = (bits: number) => generateKeyPairSync("rsa", { modulusLength: bits }).privateKey;
const rsaKey = rsa(2048);
const shortRsaKey = rsa(1024);
const publicRsa = (key: KeyObject, kid: string) => {
  const { kty, n, e } = key.export({ format: "jwk" });
  return { kty, n, e, kid, use: "sig" };
};

let h: Harness;
let server: Server;
let issuer: string;
/** Answers of the upstream that have begun. */
const streams = new Set<ServerResponse>();

beforeAll(async () => {
  const keys = [
    { ...ecKey.publicJwk, kid: "ec", alg: "ES256", use: "sig" },
    publicRsa(rsaKey, "rsa"),
    publicRsa(shortRsaKey, "short"),
  ];
  server = createServer((request, response) => {
    if (request.url === "/jwks") return void response.end(JSON.stringify({ keys }));
    // An upstream whose answers begin and never end.
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write("data: first\n\n");
    streams.add(response);
    const timer = setInterval(() => response.write("data: more\n\n"), 50);
    response.on("close", () => {
      clearInterval(timer);
      streams.delete(response);
    });
  });
  issuer = `http://127.0.0.1:${await listenOnLoopback(server, 0)}`;
  h = await startHarness({
    addresses: {
      flushAfterMs: 100,
      github: issuer,
      transmitter: { issuer, jwksUri: `${issuer}/jwks`, tokenDigest: createHash("sha256").update(TOKEN).digest("hex") },
    },
  });
});
afterAll(async () => {
  await h.close();
  await closeServer(server);
});

const subject = (human: HumanName) => ({ format: "iss_sub", iss: h.idp.issuer, sub: humans[human].sub });

/** About `ada`, and right unless it is spoiled. */
const claims = (over: Members = {}): Members => ({
  iss: issuer,
  aud: AUDIENCE,
  jti: randomUUID(),
  iat: nowSeconds(),
  sub_id: subject("ada"),
  events: { [REVOKED]: { event_timestamp: nowSeconds() } },
  ...over,
});
const makeSet = (over: Members = {}, header: Members = {}, by: SigningKey = ecKey): string =>
  signCompact(by, { alg: by.alg, typ: "secevent+jwt", kid: "ec", ...header }, claims(over));
const rsaSet = (key: KeyObject, kid: string): string => {
  const input = `${encodePart({ alg: "RS256", typ: "secevent+jwt", kid })}.${encodePart(claims({ events: verification() }))}`;
  return `${input}.${sign("sha256", Buffer.from(input), createPrivateKey(key.export({ format: "pem", type: "pkcs8" }))).toString("base64url")}`;
};
const verification = () => ({ [`${SSF}verification`]: { state: "abc" } });

const push = (set: string, over: { path?: string; headers?: Readonly<Record<string, string>>; method?: string } = {}) =>
  h.send(over.path ?? PATH, {
    method: over.method ?? "POST",
    headers: { authorization: `Bearer ${TOKEN}`, "content-type": "application/secevent+jwt", ...over.headers },
    ...(over.method === "GET" ? {} : { body: set }),
  });

/** The status, and the code with its words. */
const said = ({ status, headers, json, text }: Answer): string => {
  expect(headers.get("cache-control")).toBe("no-store");
  if (status === 202) {
    expect(text).toBe("");
    return "202";
  }
  if (json["err"] === undefined) return String(status);
  expect(headers.get("content-type")).toBe("application/json");
  expect(Object.keys(json)).toEqual(["err", "description"]);
  return `${status} ${json["err"]}: ${json["description"]}`;
};

/** Of who is nobody, five refusals a second go on record one by one. */
const untilNextSecond = () => new Promise((resolve) => setTimeout(resolve, 1_050));

const HELPDESK = JSON.stringify([
  {
    type: "http",
    upstream: "github",
    operations: ["GET /repos/{owner}/{repo}/issues"],
    where: { owner: ["acme"], repo: ["helpdesk"] },
  },
]);
const provision = (human: HumanName) =>
  h.provision({ human, ...(human === "grace" ? { form: { authorization_details: HELPDESK } } : {}) });
const issuesOf = (human: HumanName) => `/github/repos/acme/${human === "grace" ? "helpdesk" : "widgets"}/issues`;
type Provisioned = Awaited<ReturnType<typeof provision>>;

/** A call that runs: its status, and how it ended once it has. */
async function open({ key, access }: Provisioned, human: HumanName) {
  const path = issuesOf(human);
  const response = await fetch(`${h.origin}${path}`, {
    headers: {
      authorization: `DPoP ${access}`,
      DPoP: h.proof(key, { htm: "GET", htu: `${h.origin}${path}`, ath: sha256(access) }),
    },
  });
  const reader = response.body?.getReader();
  const end = (async () => {
    for (;;) if ((await reader?.read())?.done !== false) return "ended";
  })().catch(() => "cut");
  return { status: response.status, end, stop: () => reader?.cancel().catch(() => {}) };
}
const statusOf = async (who: Provisioned, human: HumanName): Promise<number> => {
  const { status, stop } = await open(who, human);
  await stop();
  return status;
};

interface Listed {
  readonly id: string;
  readonly act: string;
  readonly by: string;
  readonly reach: string;
  readonly reason: string;
  readonly target: Members;
  readonly untilMs: number | null;
  readonly cause: Readonly<Record<string, string>> | null;
  readonly opened: { readonly by: string } | null;
}
const switches = async (): Promise<readonly Listed[]> =>
  (await h.asAdmin("/admin/v1/switches?limit=500")).json["switches"] as Listed[];
const switchesOf = async (jti: string) => (await switches()).filter(({ cause }) => cause?.["jti"] === jti);
/** What one test closed keeps nobody out of the next. */
async function liftAll(): Promise<void> {
  for (const { id, opened } of await switches())
    if (opened === null) await h.asAdmin(`/admin/v1/switches/${id}/lift`, { body: { reason: "the next test" } });
}

describe("who is not the transmitter", () => {
  beforeEach(untilNextSecond);

  const DULL = "401 authentication_failed: authentication failed";
  it.each<[name: string, over: Parameters<typeof push>[1], answer: string, reason: string]>([
    ["no token", { headers: { authorization: "" } }, DULL, "no bearer token"],
    ["another scheme", { headers: { authorization: `Basic ${TOKEN}` } }, DULL, "no bearer token"],
    ["another token", { headers: { authorization: `Bearer ${TOKEN}x` } }, DULL, "the bearer token is another"],
    ["two tokens", { headers: { authorization: `Bearer ${TOKEN} ${TOKEN}` } }, DULL, "no bearer token"],
    ["an unknown name", { path: "/ssf/events/other" }, DULL, "a transmitter that is not known"],
    ["a name of every object", { path: "/ssf/events/constructor" }, DULL, "a transmitter that is not known"],
    [
      "another content type",
      { headers: { "content-type": "application/json" } },
      "400 invalid_request: Content-Type is not application/secevent+jwt",
      "Content-Type is not application/secevent+jwt",
    ],
  ])("is refused, and the journal says why: %s", async (_name, over, answer, reason) => {
    const jti = randomUUID();
    const refused = await push(makeSet({ jti }), over);
    expect(said(refused)).toBe(answer);
    expect(refused.headers.get("www-authenticate")).toBe(refused.status === 401 ? "Bearer" : null);
    const path = over?.path ?? PATH;
    await h.journal("signals-refused", (record) => record["reason"] === reason && record["path"] === path);
    expect(await switchesOf(jti)).toEqual([]);
  });

  it("hears of a length before its token is looked at, and of a token before a byte of the SET is", async () => {
    const stranger = { headers: { authorization: "Bearer x" } };
    expect(said(await push("x".repeat(32_769), stranger))).toBe("400 invalid_request: longer than 32768 bytes");
    expect(said(await push("not a SET", stranger))).toBe(DULL);
  });

  it("finds no other path and no other method", async () => {
    expect((await push("", { method: "GET" })).status).toBe(405);
    for (const path of ["/ssf/", "/ssf/events/", "/ssf/events/corp-signals/x", "/ssf/status"])
      expect((await push(makeSet(), { path })).status).toBe(404);
  });
});

describe("a SET that is refused", () => {
  const forged = () => {
    const [header, payload, signature] = makeSet().split(".") as [string, string, string];
    return { header, payload, signature };
  };
  const invalid = (reason: string) => `400 invalid_request: ${reason}`;
  const NO_MATCH = "400 invalid_key: the signature: ERR_JWKS_NO_MATCHING_KEY";
  const BAD_SIGNATURE = "400 invalid_key: the signature: ERR_JWS_SIGNATURE_VERIFICATION_FAILED";
  const SUBJECT = "not known here; iss_sub and email are, in the shape of RFC 9493";
  const ALG = "400 invalid_key: alg is not allowed";
  const TYP = invalid("typ is not secevent+jwt");
  const ISS = "400 invalid_issuer: iss is not the configured transmitter";
  const AUD = "400 invalid_audience: aud is not this receiver";
  it.each<[name: string, set: () => string, answer: string]>([
    ["an empty body", () => "", invalid("not a JWS in compact form")],
    ["no JWS", () => "{}", invalid("not a JWS in compact form")],
    ["a padded signature", () => `${makeSet()}=`, invalid("not canonical base64url")],
    ["white space at its end", () => `${makeSet()}\n`, invalid("not canonical base64url")],
    [
      "a claim twice",
      () => signCompact(ecKey, { alg: "ES256", typ: "secevent+jwt", kid: "ec" }, '{"jti":"a","jti":"b"}'),
      invalid("payload: duplicate key at offset 11"),
    ],
    ["crit", () => makeSet({}, { crit: ["x"], x: 1 }), invalid("an extension that is not understood (crit)")],
    ["no typ", () => makeSet({}, { typ: undefined }), TYP],
    ["typ JWT", () => makeSet({}, { typ: "JWT" }), TYP],
    ["typ of a logout token", () => makeSet({}, { typ: "logout+jwt" }), TYP],
    ["typ of an access token", () => makeSet({}, { typ: "at+jwt" }), TYP],
    [
      "alg none",
      () => `${encodePart({ alg: "none", typ: "secevent+jwt" })}.${encodePart(claims())}.`,
      invalid("an empty part"),
    ],
    ["alg none with a signature", () => makeSet({}, { alg: "none" }), ALG],
    ["alg HS256", () => makeSet({}, { alg: "HS256" }), ALG],
    ["an alg that is not configured", () => makeSet({}, {}, makeKey("Ed25519")), ALG],
    ["another key under the known kid", () => makeSet({}, {}, otherKey), BAD_SIGNATURE],
    ["an unknown kid", () => makeSet({}, { kid: "other" }, otherKey), NO_MATCH],
    ["its own key in the header", () => makeSet({}, { kid: "own", jwk: otherKey.publicJwk }, otherKey), NO_MATCH],
    ["an RSA key under an EC alg", () => makeSet({}, { kid: "rsa" }), NO_MATCH],
    ["an RSA key of 1024 bits", () => rsaSet(shortRsaKey, "short"), "400 invalid_key: the signature does not verify"],
    [
      "a payload of another SET",
      () => `${forged().header}.${encodePart(claims())}.${forged().signature}`,
      BAD_SIGNATURE,
    ],
    ["no iss", () => makeSet({ iss: undefined }), ISS],
    ["another iss", () => makeSet({ iss: `${issuer}/` }), ISS],
    ["the provider's iss", () => makeSet({ iss: h.idp.issuer }), ISS],
    ["no aud", () => makeSet({ aud: undefined }), AUD],
    ["another aud", () => makeSet({ aud: "somebody-else" }), AUD],
    ["others' aud", () => makeSet({ aud: ["somebody", "else"] }), AUD],
    ["an aud in an aud", () => makeSet({ aud: [[AUDIENCE]] }), AUD],
    ["no jti", () => makeSet({ jti: undefined }), invalid("jti: 1 to 255 characters")],
    ["an empty jti", () => makeSet({ jti: "" }), invalid("jti: 1 to 255 characters")],
    ["a long jti", () => makeSet({ jti: "j".repeat(256) }), invalid("jti: 1 to 255 characters")],
    ["no iat", () => makeSet({ iat: undefined }), invalid("iat is missing, or not a time in seconds")],
    ["an iat that is text", () => makeSet({ iat: "1" }), invalid("iat is missing, or not a time in seconds")],
    ["an iat to come", () => makeSet({ iat: nowSeconds() + 120 }), invalid("iat is in the future")],
    ["an iat of last week", () => makeSet({ iat: nowSeconds() - 604_860 }), invalid("iat is more than 7 days ago")],
    ["exp", () => makeSet({ exp: nowSeconds() + 60 }), invalid("exp: a security event does not expire")],
    ["sub", () => makeSet({ sub: "ada" }), invalid("sub: a security event names its subject in sub_id")],
    ["a txn that is none", () => makeSet({ txn: 1 }), invalid("txn: 1 to 255 characters")],
    ["no sub_id", () => makeSet({ sub_id: undefined }), invalid("sub_id is missing, or not an object")],
    ["no events", () => makeSet({ events: undefined }), invalid("events is missing, or not an object")],
    ["a list of events", () => makeSet({ events: [{}] }), invalid("events is missing, or not an object")],
    ["no event", () => makeSet({ events: {} }), invalid("events holds no event")],
    [
      "17 events",
      () => makeSet({ events: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`urn:e:${i}`, {}])) }),
      invalid("events holds more than 16"),
    ],
    [
      "an event without a URI",
      () => makeSet({ events: { revoked: {} } }),
      invalid("events: a name that is not the URI of an event"),
    ],
    [
      "an event that is a word",
      () => makeSet({ events: { [REVOKED]: "now" } }),
      invalid("events: an event that is not an object"),
    ],
    [
      "a change of an unknown type",
      () => makeSet({ events: { [`${CAEP}credential-change`]: {} } }),
      invalid("credential-change: change_type is missing, or not known"),
    ],
    [
      "an opaque subject",
      () => makeSet({ sub_id: { format: "opaque", id: humans.ada.sub } }),
      invalid(`sub_id: ${SUBJECT}`),
    ],
    [
      "a subject of another tenant",
      () => makeSet({ sub_id: { ...subject("ada"), iss: "https://idp.example" } }),
      "400 access_denied: sub_id.iss is not the provider that this transmitter speaks for",
    ],
    [
      "the transmitter's own iss as the subject's",
      () => makeSet({ sub_id: { ...subject("ada"), iss: issuer } }),
      "400 access_denied: sub_id.iss is not the provider that this transmitter speaks for",
    ],
    ["33 kB", () => makeSet({ filler: "f".repeat(33_000) }), invalid("longer than 32768 bytes")],
  ])("%s", async (_name, set, answer) => {
    const before = (await switches()).length;
    expect(said(await push(set()))).toBe(answer);
    expect(await switches()).toHaveLength(before);
  });

  it("stands in the admins' journal, with the transmitter and the reason", async () => {
    await push(makeSet({ aud: "somebody-else-again" }));
    const [record] = await h.journal("admin", ({ type, error }) => type === "refused" && error === "invalid_audience");
    expect(record).toMatchObject({
      door: "signals",
      by: "transmitter:corp-signals",
      reason: "aud is not this receiver",
    });
  });

  it("opens no other door", async () => {
    const set = makeSet({ aud: ["portcullis-admin", AUDIENCE, `${h.origin}/github`] });
    expect((await h.asAdmin("/admin/v1/switches", { token: set })).status).toBe(401);
    const key = makeKey();
    const call = await h.call(key, set);
    expect(call.status).toBe(401);
    expect(call.headers.get("www-authenticate")).toContain('error="invalid_token"');
    const exchanged = await h.exchange({ form: { subject_token: set } });
    expect(exchanged.json["error"]).toBe("invalid_request");
  });
});

describe("a SET that is accepted", () => {
  it.each<[name: string, set: () => string]>([
    [
      "the verification of the stream",
      () => makeSet({ sub_id: { format: "opaque", id: "stream" }, events: verification() }),
    ],
    [
      "an update of the stream",
      () =>
        makeSet({
          sub_id: { format: "opaque", id: "stream" },
          events: { [`${SSF}stream-updated`]: { status: "paused" } },
        }),
    ],
    ["by an RSA key", () => rsaSet(rsaKey, "rsa")],
    [
      "with its typ in full and among other audiences",
      () => makeSet({ aud: ["other", AUDIENCE], events: verification() }, { typ: "application/secevent+jwt" }),
    ],
    ["token-claims-change", () => makeSet({ events: { [`${CAEP}token-claims-change`]: { claims: { a: 1 } } } })],
    ["assurance-level-change", () => makeSet({ events: { [`${CAEP}assurance-level-change`]: {} } })],
    ["a new credential", () => makeSet({ events: { [`${CAEP}credential-change`]: { change_type: "create" } } })],
    ["a low risk", () => makeSet({ events: { [`${CAEP}risk-level-change`]: { current_level: "LOW" } } })],
    ["an unknown event", () => makeSet({ events: { "https://signals.example/unheard": {} } })],
    [
      "a critical member that is not understood",
      () => makeSet({ sub_id: { format: "complex", user: subject("ada"), clearance: { format: "opaque", id: "x" } } }),
    ],
  ])("does nothing, on record: %s", async (_name, set) => {
    const token = set();
    const { jti } = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString()) as { jti: string };
    expect(said(await push(token, { headers: { "content-type": "Application/SecEvent+JWT; charset=utf-8" } }))).toBe(
      "202",
    );
    const [record] = await h.journal("admin", ({ causedBy }) => (causedBy as Members | undefined)?.["jti"] === jti);
    expect(record).toMatchObject({ type: "act", by: "transmitter:corp-signals" });
    expect(record?.["deed"]).toMatch(/^(signal ignored|stream event)$/);
    expect(await switchesOf(jti)).toEqual([]);
  });
});

describe("a signal that acts", () => {
  beforeEach(liftAll);

  it("cuts that human's running call, and not another's", async () => {
    const [ada, grace] = await Promise.all([provision("ada"), provision("grace")]);
    const running = await open(ada, "ada");
    const others = await open(grace, "grace");
    expect([running.status, others.status]).toEqual([200, 200]);
    const jti = randomUUID();
    const iat = nowSeconds();
    const revoked = { [REVOKED]: { event_timestamp: iat, initiating_entity: "policy", reason_admin: { en: "left" } } };
    expect(said(await push(makeSet({ jti, iat, txn: "t-77", events: revoked })))).toBe("202");
    expect(await running.end).toBe("cut");
    expect((await h.introspect(ada.access)).text).toBe('{"active":false}');
    expect(await statusOf(ada, "ada")).toBe(401);
    expect((await h.introspect(grace.access)).json["active"]).toBe(true);
    expect(await Promise.race([others.end, new Promise((resolve) => setTimeout(resolve, 200, "runs"))])).toBe("runs");
    await others.stop();

    const [made] = await switchesOf(jti);
    const receipt = (await h.asAdmin(`/admin/v1/switches/${made?.id}`)).json;
    expect(receipt).toMatchObject({
      status: "done",
      cut: 1,
      unreached: [],
      switch: {
        reach: "human",
        act: "kill",
        by: "transmitter:corp-signals",
        reason: "security event session-revoked, initiated by policy",
        untilMs: (iat + 3_600) * 1000,
        cause: { kind: "set", issuer, jti, event: REVOKED, txn: "t-77" },
      },
    });
    const [record] = await h.journal("admin", ({ switch: id }) => id === made?.id);
    expect(record).toMatchObject({ type: "act", deed: "flip", email: null, causedBy: { jti, issuer } });
  });

  it("is one switch, however often it is pushed, and however many at once", async () => {
    const jti = randomUUID();
    const same = { jti, iat: nowSeconds(), events: { [REVOKED]: {} } };
    const set = makeSet(same);
    const answers = await Promise.all(Array.from({ length: 8 }, () => push(set)));
    expect(answers.map(said)).toEqual(Array(8).fill("202"));
    // The same again, some time later and signed anew: another text, and no other event.
    await untilNextSecond();
    expect(said(await push(makeSet(same)))).toBe("202");
    expect(await switchesOf(jti)).toHaveLength(1);
    // What was lifted meanwhile is not closed again by a replay.
    await liftAll();
    expect(said(await push(set))).toBe("202");
    expect(await switchesOf(jti)).toMatchObject([{ opened: { by: expect.stringMatching(/^[\w-]{43}$/) } }]);
  });

  it("is refused where its jti has been another's", async () => {
    const jti = randomUUID();
    expect(said(await push(makeSet({ jti })))).toBe("202");
    const reused = await push(makeSet({ jti, sub_id: subject("grace") }));
    expect(said(reused)).toBe("400 invalid_request: jti: used for another event");
    expect(await switchesOf(jti)).toHaveLength(1);
  });

  it("keeps newcomers of a disabled account out until the switch is lifted", async () => {
    const jti = randomUUID();
    expect(said(await push(makeSet({ jti, events: { [`${RISC}account-disabled`]: {} } })))).toBe("202");
    expect(await switchesOf(jti)).toMatchObject([{ act: "kill", untilMs: null }]);
    const refused = await h.exchange();
    expect(refused.json["error_description"]).toBe("closed by a switch");
    await liftAll();
    expect((await h.exchange()).status).toBe(200);
  });

  it("pauses at a high risk; a low one frees nobody, an operator does", async () => {
    const ada = await provision("ada");
    const risk = (level: string) =>
      push(makeSet({ events: { [`${CAEP}risk-level-change`]: { current_level: level, previous_level: "MEDIUM" } } }));
    expect(await statusOf(ada, "ada")).toBe(200);
    expect(said(await risk("HIGH"))).toBe("202");
    expect(await statusOf(ada, "ada")).toBe(401);
    expect(said(await risk("LOW"))).toBe("202");
    expect(await statusOf(ada, "ada")).toBe(401);
    const paused = (await switches()).filter(({ act, opened }) => act === "pause" && opened === null);
    expect(paused).toHaveLength(1);
    const target = paused[0]?.target;
    const resumed = await h.asAdmin("/admin/v1/switches", {
      body: { act: "resume", reach: "human", target, reason: "false alarm" },
    });
    expect(resumed.status).toBe(200);
    await expect.poll(() => statusOf(ada, "ada"), { timeout: 10_000, interval: 250 }).toBe(200);
  });

  it.each<[name: string, subId: () => Members]>([
    ["by address, in any case", () => ({ format: "email", email: "ADA@acme.example" })],
    [
      "in a complex subject, whatever narrows it",
      () => ({
        format: "complex",
        user: subject("ada"),
        session: { format: "opaque", id: "s" },
        tenant: { format: "opaque", id: "acme" },
      }),
    ],
  ])("names the human %s", async (_name, subId) => {
    const [ada, grace] = await Promise.all([provision("ada"), provision("grace")]);
    expect(said(await push(makeSet({ sub_id: subId() })))).toBe("202");
    expect((await h.introspect(ada.access)).json["active"]).toBe(false);
    expect((await h.introspect(grace.access)).json["active"]).toBe(true);
  });

  it("acts late, too: who runs is stopped, and newcomers are let in when the time is over", async () => {
    const ada = await provision("ada");
    expect(said(await push(makeSet({ iat: nowSeconds() - 7_200 })))).toBe("202");
    expect((await h.introspect(ada.access)).json["active"]).toBe(false);
    await expect.poll(async () => (await h.exchange()).status, { timeout: 10_000, interval: 250 }).toBe(200);
    expect((await h.introspect(ada.access)).json["active"]).toBe(false);
    // By an ID token from before the event there is still nothing to be had, however long it lives.
    const form = { subject_token: h.idToken({ iat: nowSeconds() - 7_300, exp: nowSeconds() + 3_600 }) };
    expect((await h.exchange({ form })).json["error_description"]).toBe("closed by a switch");
  });

  it("does what the configuration says instead", async () => {
    const [stolen, compliance] = [randomUUID(), randomUUID()];
    const iat = nowSeconds();
    await push(makeSet({ jti: stolen, iat, events: { "https://signals.example/event-type/laptop-stolen": {} } }));
    await push(makeSet({ jti: compliance, events: { [`${CAEP}device-compliance-change`]: {} } }));
    expect(await switchesOf(stolen)).toMatchObject([{ act: "kill", untilMs: (iat + 60) * 1000 }]);
    expect(await switchesOf(compliance)).toMatchObject([{ act: "pause", untilMs: null }]);
  });
});
