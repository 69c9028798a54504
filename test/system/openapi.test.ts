// The document that the admin's door gives of itself, held to what the door really does: every answer here is one of those that the
// document names, of the shape that it names. A route or a status that nobody exercised fails the last test.

import { randomUUID } from "node:crypto";
import { Validator } from "@seriousme/openapi-schema-validator";
import { Ajv2020 } from "ajv/dist/2020.js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { KeyRing, SEAL_ALGORITHMS } from "../../src/grant/keys.ts";
import { emailDigest } from "../../src/identity/email-digest.ts";
import { writeErasureLine } from "../../src/transcript/erasure.ts";
import { erasureKey } from "../../src/transcript/layout.ts";
import { type Answer, DETAILS, type Harness, NOWHERE, sha256, startHarness } from "./harness.ts";

type Schema = Readonly<Record<string, unknown>>;
interface Media {
  readonly schema: Schema;
  readonly "x-events"?: Readonly<Record<string, Schema>>;
}
interface Operation {
  readonly requestBody?: { readonly content: Readonly<Record<string, Media>> };
  readonly responses: Readonly<Record<string, { readonly content?: Readonly<Record<string, Media>> }>>;
}
interface Document {
  readonly openapi: string;
  readonly info: { readonly version: string };
  readonly servers: readonly { readonly url: string }[];
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, Schema>> };
}

const PATH = "/admin/v1/openapi.json";
const SWITCHES = "/admin/v1/switches";
const READS = ["/admin/v1/segments", "/admin/v1/objects", "/admin/v1/object"];
const HOLDS = "/admin/v1/holds";
const ERASURES = "/admin/v1/erasures";
const MANDATES = "/admin/v1/mandates";
const APPROVALS = "/admin/v1/approvals";

let h: Harness;
let document: Document;
/** `POST /admin/v1/switches 201`, and so on: what was seen, and verified. */
const seen = new Set<string>();

const ajv = new Ajv2020({ strict: false, validateFormats: false, allErrors: true });
/** Null: it fits. */
function misfit(schema: Schema, value: unknown): string | null {
  const validate = ajv.compile({ ...schema, components: document.components });
  return validate(value) ? null : ajv.errorsText(validate.errors);
}

const operationOf = (method: string, path: string): [template: string, operation: Operation] => {
  const fits = (template: string) => new RegExp(`^${template.replaceAll(/\{\w+\}/g, "[^/]+")}$`).test(path);
  const templates = Object.keys(document.paths).filter(fits).sort();
  const template = templates.find((one) => !one.includes("{")) ?? templates[0] ?? "";
  const operation = document.paths[template]?.[method.toLowerCase()];
  if (operation === undefined) throw new Error(`${method} ${path} is not in the document`);
  return [template, operation];
};

interface Asked {
  readonly method?: string;
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  /** Instead of an operator's. */
  readonly token?: string | null;
}

const admin = (claims: Schema = {}): string =>
  h.idToken({ sub: "op-1", groups: ["security-oncall"], aud: "portcullis-admin", ...claims });

/** Asks, and holds the answer to the document. */
async function ask(path: string, { body, token = admin(), headers, ...more }: Asked = {}): Promise<Answer> {
  const method = more.method ?? (body === undefined ? "GET" : "POST");
  const answer = await h.send(path, {
    method,
    headers: { ...(token === null ? {} : { authorization: `Bearer ${token}` }), ...headers },
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  const [template, { responses }] = operationOf(method, path.split("?")[0] ?? "");
  const named = `${method} ${template} ${answer.status}`;
  const media = responses[answer.status];
  expect(media, `${named} is not in the document: ${answer.text}`).toBeDefined();
  const type = answer.headers.get("content-type")?.split(";")[0] ?? "";
  const content = media?.content?.[type];
  expect(content, `${named}: ${type} is not in the document`).toBeDefined();
  if (/[/+]json$/.test(type)) expect(misfit(content!.schema, answer.json), `${named}: ${answer.text}`).toBeNull();
  if (type === "text/event-stream")
    for (const { event, data } of eventsOf(answer.text)) {
      const schema = content?.["x-events"]?.[event];
      expect(schema, `${named}: the event ${event} is not in the document`).toBeDefined();
      expect(misfit(schema!, data), `${named}: ${event}`).toBeNull();
    }
  seen.add(named);
  return answer;
}

const eventsOf = (text: string): { readonly event: string; readonly data: unknown }[] =>
  text
    .split("\n\n")
    .filter((part) => part !== "")
    .map((part) => {
      const [, event = "", data = ""] = /^event: (\w+)\ndata: (.*)$/.exec(part) ?? [];
      return { event, data: JSON.parse(data) as unknown };
    });

const flip = (change: Schema = {}) => ({
  act: "kill",
  reach: "instance",
  target: { instance: randomUUID() },
  reason: "a test",
  ...change,
});
const idOf = ({ json }: Answer): string => (json["switch"] as { readonly id: string }).id;

beforeAll(async () => {
  const hostile = { baseUrl: NOWHERE, approve: { operations: ["PUT /held/{x}"] } };
  h = await startHarness({ addresses: { flushAfterMs: 100, mandates: { audience: "portcullis-mandates" }, hostile } });
  const { status, json } = await h.send(PATH, { headers: { authorization: `Bearer ${admin()}` } });
  expect(status).toBe(200);
  document = json as unknown as Document;
});
afterAll(() => h.close());

describe("the document", () => {
  it("is OpenAPI 3.1, by its own meta-schema", async () => {
    const validator = new Validator();
    const { valid, errors } = await validator.validate(structuredClone(document) as never);
    expect(errors).toBeUndefined();
    expect([valid, validator.version, document.info.version]).toEqual([true, "3.1", "1"]);
    expect(document.servers).toEqual([{ url: h.origin }]);
    const broken = { ...structuredClone(document), paths: { "no-slash": { get: { responses: 1 } } } };
    expect((await new Validator().validate(broken as never)).valid).toBe(false);
  });

  it("refers to nothing that it lacks, and holds nothing that nobody refers to", () => {
    const text = JSON.stringify(document);
    const named = [...text.matchAll(/"\$ref":"#\/components\/schemas\/(\w+)"/g)].map(([, name]) => name);
    const events = new Set(named);
    expect([...events].sort()).toEqual(Object.keys(document.components.schemas).sort());
    expect(text.match(/"\$ref":"/g)?.length).toBe(named.length);
  });
});

describe("every answer is one that the document names", () => {
  it("to who may not read it", async () => {
    for (const path of [
      PATH,
      SWITCHES,
      `${SWITCHES}/x`,
      HOLDS,
      APPROVALS,
      `${APPROVALS}/x`,
      `${APPROVALS}/x/body`,
      `${ERASURES}/x`,
      "/admin/v1/instances",
      "/admin/v1/instances/x",
      "/admin/v1/quotas/posts-a-day/x",
      "/admin/v1/transcripts/a/b/c",
      "/admin/v1/transcripts/a/b/c/bodies/1/answer",
      ...READS,
      MANDATES,
    ]) {
      await ask(path, { token: null });
      await ask(path, { token: admin({ groups: ["engineering"] }) });
    }
    for (const token of [null, admin({ groups: [] })])
      for (const path of [HOLDS, MANDATES]) await ask(`${path}/x`, { method: "DELETE", body: {}, token });
    const decisions = [`${APPROVALS}/x/approve`, `${APPROVALS}/x/deny`];
    for (const path of [SWITCHES, `${SWITCHES}/x/lift`, HOLDS, ERASURES, ...decisions]) {
      await ask(path, { body: {}, token: null });
      await ask(path, { body: {}, token: admin({ groups: [] }) });
    }
    expect((await ask(PATH, { token: admin({ groups: [] }) })).json["detail"]).toBe(
      "this needs the role viewer or operator or auditor",
    );
  });

  it("of a kill with somebody in reach, and what can be read of it", async () => {
    const { key } = await h.provision();
    const body = flip({ target: { instance: key.thumbprint } });
    const headers = { "Idempotency-Key": "k-1" };
    const killed = await ask(SWITCHES, { body, headers });
    expect([killed.status, killed.json["reached"]]).toEqual([201, 1]);
    expect((await ask(SWITCHES, { body, headers })).status).toBe(200);
    expect((await ask(SWITCHES, { body: { ...body, reason: "b" }, headers })).status).toBe(422);
    expect((await ask(SWITCHES, { body, headers: { "Idempotency-Key": "x".repeat(256) } })).status).toBe(400);
    expect((await ask(SWITCHES, { body: "{" })).status).toBe(400);
    const path = `${SWITCHES}/${idOf(killed)}`;
    await ask(path);
    expect((await ask(`${SWITCHES}/nobody`)).status).toBe(404);
    await ask(`${SWITCHES}?limit=1`);
    expect((await ask(`${SWITCHES}?limit=0`)).status).toBe(400);
    const { instances } = (await ask("/admin/v1/instances?limit=1")).json as { instances: Record<string, string>[] };
    const [member] = instances;
    expect(member).toMatchObject({ instance: key.thumbprint, state: "killed" });
    expect((await ask("/admin/v1/instances?after=x")).status).toBe(400);
    for (const list of ["instances", "switches"]) {
      const unknown = await ask(`/admin/v1/${list}?page=2`);
      expect([unknown.status, unknown.json]).toEqual([
        400,
        expect.objectContaining({ detail: expect.stringMatching(/^query: .*"page"/) }),
      ]);
    }
    const lines = await ask(`/admin/v1/transcripts/${member?.["human"]}/${member?.["task"]}/${key.thumbprint}`);
    expect(lines.text).toContain('"type":"switched"');
    expect((await ask("/admin/v1/transcripts/a/b/c")).status).toBe(404);
    const found = await ask(`/admin/v1/instances/${key.thumbprint}`);
    expect(found.json).toEqual({ instance: key.thumbprint, human: member?.["human"], task: member?.["task"] });
    expect((await ask("/admin/v1/instances/nobody")).status).toBe(404);
    const quota = await ask(`/admin/v1/quotas/posts-a-day/${member?.["human"]}`);
    expect(quota.json).toMatchObject({ quota: "posts-a-day", dimensions: [{ dimension: "calls", limit: 1_000 }] });
    for (const unknown of ["nothing/all", "posts-a-day/a.b", "posts-a-day/%20"])
      expect((await ask(`/admin/v1/quotas/${unknown}`)).status).toBe(404);
    expect((await ask(`${path}/lift`, { body: { reason: "over" } })).status).toBe(200);
    expect((await ask(`${path}/lift`, { body: { reason: "over" } })).status).toBe(409);
    expect((await ask(`${path}/lift`, { body: {} })).status).toBe(400);
    expect((await ask(`${SWITCHES}/nobody/lift`, { body: { reason: "over" } })).status).toBe(404);
    await ask(path);
  });

  it("of the index, and of the bucket", async () => {
    const [segments, objects, object] = READS as [string, string, string];
    expect((await ask(segments)).status).toBe(400);
    const entries = async () => (await ask(`${segments}?from=${Date.now() - 60_000}&to=${Date.now()}`)).text;
    await expect.poll(entries, { timeout: 10_000 }).toContain('"type":"stored"');
    expect((await ask(objects)).status).toBe(400);
    const folders = await ask(`${objects}?prefix=transcripts/&folders=true`);
    expect(folders.json["folders"]).toContain("transcripts/journal=admin/");
    const page = await ask(`${objects}?prefix=transcripts/journal=admin/&limit=1`);
    const [{ key }] = page.json["objects"] as [{ key: string }];
    expect((await ask(`${object}?key=${key}`)).status).toBe(200);
    expect((await ask(`${object}?key=${key}`, { headers: { range: "bytes=0-9" } })).status).toBe(206);
    expect((await ask(`${object}?key=${key}`, { headers: { range: "bytes=999999999-" } })).status).toBe(416);
    expect((await ask(`${object}?key=../x`)).status).toBe(400);
    expect((await ask(`${object}?key=transcripts/x`)).status).toBe(404);
  });

  let approval = "";
  it("of a call that a person must approve", async () => {
    const operations = ["PUT /held/{x}"];
    const details = JSON.stringify([{ type: "http", upstream: "hostile", operations }]);
    const { key, access } = await h.provision({ form: { task: "held", authorization_details: details } });
    const token = admin({ email: "olga@acme.example" });
    const asked = async (x: number): Promise<string> => {
      const path = `/hostile/held/${x}`;
      const proof = h.proof(key, { htm: "PUT", htu: h.origin + path, ath: sha256(access) });
      const headers = { authorization: `DPoP ${access}`, DPoP: proof };
      expect((await h.send(path, { method: "PUT", body: "held", headers })).status).toBe(503);
      let id = "";
      const newest = async () => {
        const { approvals } = (await ask(`${APPROVALS}?limit=1`, { token })).json as {
          approvals: { id: string; url: string }[];
        };
        id = approvals[0]?.url.endsWith(`/${x}`) ? approvals[0].id : "";
        return id;
      };
      await expect.poll(newest, { timeout: 10_000 }).not.toBe("");
      return `${APPROVALS}/${id}`;
    };
    approval = await asked(1);
    expect((await ask(`${APPROVALS}?state=asked`, { token })).status).toBe(400);
    expect((await ask(approval, { token })).json["method"]).toBe("PUT");
    expect((await ask(`${approval}/body`, { token })).text).toBe("held");
    for (const path of [`${APPROVALS}/x`, `${APPROVALS}/x/body`]) expect((await ask(path, { token })).status).toBe(404);
    const other = await asked(2);
    const body = { reason: "looked at it" };
    for (const [path, verb, wrong] of [
      [approval, "approve", "deny"],
      [other, "deny", "approve"],
    ]) {
      expect((await ask(`${path}/${verb}`, { body: {}, token })).status).toBe(400);
      // By address it is whom the agent acts for.
      expect((await ask(`${path}/${verb}`, { body })).json["detail"]).toBe(
        "the agent acts for you: another must decide",
      );
      expect((await ask(`${path}/${verb}`, { body, token })).status).toBe(200);
      expect((await ask(`${path}/${wrong}`, { body, token })).status).toBe(409);
      expect((await ask(`${APPROVALS}/${randomUUID()}/${verb}`, { body, token })).status).toBe(404);
    }
  });

  it("of a body: as it was recorded, and when it was erased", async () => {
    const { key } = await h.provision({ form: { task: "of-a-body" } });
    const { human, task } = (await ask(`/admin/v1/instances/${key.thumbprint}`)).json as Record<string, string>;
    const transcript = `/admin/v1/transcripts/${human}/${task}/${key.thumbprint}`;
    const claims = `${transcript}/bodies/0/claims`;
    const here = await ask(claims);
    expect(here.text).toContain('"email":"ada@acme.example"');
    expect(here.headers.get("content-disposition")).toBe('attachment; filename="0-claims"');
    const none = ["0/answer", "0/constructor", "-1/claims", "1/request", "x/claims"];
    for (const name of none) expect((await ask(`${transcript}/bodies/${name}`)).status).toBe(404);
    expect((await ask(`${transcript.replace(human!, "..%2fx")}/bodies/0/claims`)).status).toBe(404);
    const read = (line: Schema) => line["instance"] === key.thumbprint && line["part"] === "claims";
    const [first] = await h.journal("admin", read);
    expect(first).toMatchObject({ type: "read", human, task, bodyOf: 0, email: "ada@acme.example" });

    const bucket = await h.gate.miniflare.getR2Bucket("TRANSCRIPTS");
    const nowMs = Date.now();
    const ring = new KeyRing(JSON.stringify(h.secrets.sealKeys), "SEAL_KEYS", SEAL_ALGORITHMS);
    const erasure = { iss: h.origin, id: "e-1", human: human!, by: "op-1", reason: "r", at: nowMs, before: nowMs };
    await bucket.put(erasureKey(human!, "e-1"), `${writeErasureLine(ring, erasure)}\n`);
    const gone = await ask(claims);
    expect([gone.status, gone.json["detail"]]).toEqual([410, "erased: by the certificate e-1"]);
    expect((await ask(`${approval}/body`)).status).toBe(410);
  });

  it("of a switch that is followed", async () => {
    const headers = { accept: "text/event-stream" };
    const followed = await ask(SWITCHES, { body: flip(), headers });
    const last = eventsOf(followed.text).at(-1);
    expect(last?.event).toBe("receipt");
    const { id } = (last?.data as { switch: { id: string } }).switch;
    expect(eventsOf((await ask(`${SWITCHES}/${id}`, { headers })).text).at(-1)?.event).toBe("receipt");
    const keyed = { ...headers, "Idempotency-Key": "k-2" };
    await ask(SWITCHES, { body: flip(), headers: keyed });
    expect(eventsOf((await ask(SWITCHES, { body: flip(), headers: keyed })).text).at(-1)?.event).toBe("error");
  });

  it("of a pause and its end, and of a kill that takes two to lift", async () => {
    const target = { agent: "triage-bot", upstream: "github" };
    const pause = flip({ act: "pause", reach: "agent-upstream", target, untilMs: Date.now() + 60_000 });
    expect((await ask(SWITCHES, { body: pause })).status).toBe(201);
    const resume = flip({ act: "resume", reach: "agent-upstream", target });
    expect((await ask(SWITCHES, { body: resume })).json["switches"]).toHaveLength(1);
    expect((await ask(SWITCHES, { body: resume })).status).toBe(404);
    const all = await ask(SWITCHES, { body: flip({ reach: "everything", target: {} }) });
    const path = `${SWITCHES}/${idOf(all)}/lift`;
    expect((await ask(path, { body: { reason: "over" } })).json["awaiting"]).toBeDefined();
    expect((await ask(path, { body: { reason: "over" } })).status).toBe(202);
    const second = await ask(path, { body: { reason: "over" }, token: admin({ sub: "op-2" }) });
    expect([second.status, second.json["opened"]]).toEqual([200, expect.objectContaining({ reason: "over" })]);
  });

  it("of mandates", async () => {
    const approved = await h.send("/mandates/v1/mandates", {
      method: "POST",
      headers: { authorization: `Bearer ${h.idToken({ aud: "portcullis-mandates" })}` },
      body: JSON.stringify({
        agent: "triage-bot",
        platform: "build-platform",
        authorization_details: DETAILS,
        purpose: "at night",
        schedule: { timeZone: "Europe/Vienna" },
        expiresAtMs: Date.now() + 60_000,
        taskSeconds: 60,
      }),
    });
    expect(approved.status, approved.text).toBe(201);
    const id = approved.json["id"] as string;
    const page = await ask(`${MANDATES}?limit=1`);
    expect(page.json["mandates"]).toEqual([expect.objectContaining({ id, revoked: null, uses: 0 })]);
    expect((await ask(`${MANDATES}?limit=0`)).status).toBe(400);
    const path = `${MANDATES}/${id}`;
    const auditor = admin({ groups: ["security-audit"] });
    const body = { reason: "a test" };
    expect((await ask(path, { method: "DELETE", body, token: auditor })).json["detail"]).toBe(
      "this needs the role operator",
    );
    expect((await ask(path, { method: "DELETE", body: {} })).status).toBe(400);
    expect((await ask(`${MANDATES}/${randomUUID()}`, { method: "DELETE", body })).status).toBe(404);
    const revoked = await ask(path, { method: "DELETE", body });
    const target = { mandate: id };
    const killed = await ask(SWITCHES, { body: { act: "kill", reach: "mandate", target, reason: "a test" } });
    expect(killed.json["switch"]).toMatchObject({ reach: "mandate", target });
    // Nobody had used it.
    expect(revoked.json["revoked"]).toMatchObject({ reason: "a test", switch: null });
    expect((await ask(path, { method: "DELETE", body })).json).toEqual(revoked.json);
  });

  it("of a hold, and of an erasure that it forbids, by the roles that may", async () => {
    const human = randomUUID();
    const auditor = admin({ groups: ["security-audit"] });
    const second = admin({ sub: "op-2", groups: ["security-audit"] });
    const oncall = admin({ groups: ["security-ops"] });
    const held = await ask(HOLDS, { body: { human, reason: "a lawsuit" }, token: auditor });
    expect([held.status, held.json["subject"]]).toEqual([201, { kind: "human", id: human }]);
    expect((await ask(HOLDS, { body: { human, reason: "r" }, token: oncall })).json["detail"]).toBe(
      "this needs the role auditor",
    );
    for (const body of [
      { reason: "r" },
      { human, task: "t", reason: "r" },
      { everything: false, reason: "r" },
      { human },
    ])
      expect((await ask(HOLDS, { body, token: auditor })).status).toBe(400);
    expect((await ask(HOLDS, { token: auditor })).json["holds"]).toEqual([held.json]);
    expect((await ask(`${HOLDS}?limit=0`, { token: auditor })).status).toBe(400);

    const erase = { human, reason: "asked to be forgotten" };
    const forbidden = await ask(ERASURES, { body: erase, token: oncall });
    expect([forbidden.status, forbidden.json["detail"]]).toEqual([409, `hold ${held.json["id"]} keeps human ${human}`]);
    expect((await ask(ERASURES, { body: erase, token: auditor })).json["detail"]).toBe("this needs the role operator");

    const path = `${HOLDS}/${held.json["id"]}`;
    const release = (token: string, at = path) => ask(at, { method: "DELETE", body: { reason: "settled" }, token });
    expect((await release(oncall)).status).toBe(403);
    expect((await ask(path, { method: "DELETE", body: {}, token: auditor })).status).toBe(400);
    expect([(await release(auditor)).status, (await release(auditor)).status]).toEqual([202, 202]);
    expect((await release(second)).status).toBe(200);
    expect((await release(second)).status).toBe(409);
    expect((await release(second, `${HOLDS}/nobody`)).status).toBe(404);

    const headers = { "Idempotency-Key": "e-1" };
    const begun = await ask(ERASURES, { body: erase, token: oncall, headers });
    expect([begun.status, begun.headers.get("location")]).toEqual([202, `${ERASURES}/${begun.json["id"]}`]);
    expect((await ask(ERASURES, { body: erase, token: oncall, headers })).status).toBe(200);
    expect((await ask(ERASURES, { body: { ...erase, task: "t" }, token: oncall, headers })).status).toBe(422);
    for (const body of [{ human: "a/b", reason: "r" }, { human }, { ...erase, reason: "x".repeat(1_001) }])
      expect((await ask(ERASURES, { body, token: oncall })).status).toBe(400);
    expect((await ask(`${ERASURES}/${begun.json["id"]}`, { token: auditor })).json["human"]).toBe(human);
    expect((await ask(`${ERASURES}/nobody`, { token: oncall })).status).toBe(404);
  });

  it("answers to a human's groups", async () => {
    const human = randomUUID();
    const path = `/admin/v1/humans/${human}/groups`;
    const body = { groups: ["support"], reason: "moved" };
    const headers = { "Idempotency-Key": "n-1" };
    const first = await ask(path, { body, headers });
    expect([first.status, first.headers.get("location")]).toEqual([201, `${SWITCHES}/${idOf(first)}`]);
    const again = await ask(path, { body, headers });
    expect([again.status, idOf(again)]).toEqual([200, idOf(first)]);
    expect((await ask(path, { body: { ...body, groups: [] }, headers })).status).toBe(422);
    const events = await ask(path, { body, headers: { accept: "text/event-stream" } });
    expect(eventsOf(events.text).at(-1)?.event).toBe("receipt");
    const wrong: [body: unknown, says: string][] = [
      [{ groups: ["suport"], reason: "r" }, 'groups.0: no group "suport" under entitlements.groups'],
      [{ groups: ["constructor"], reason: "r" }, 'groups.0: no group "constructor" under entitlements.groups'],
      [{ groups: "support", reason: "r" }, "groups: "],
      [{ groups: [], reason: " " }, "reason: "],
      [{ groups: [], reason: "r", act: "kill" }, "body: "],
    ];
    for (const [body, says] of wrong) {
      const refused = await ask(path, { body });
      expect([refused.status, String(refused.json["detail"]).startsWith(says)], refused.text).toEqual([400, true]);
    }
    expect((await ask("/admin/v1/humans/a%20b/groups", { body })).json["detail"]).toBe(
      "path: a human's id, or e-mail address",
    );
    expect((await ask(path, { body, token: null })).status).toBe(401);
    expect((await ask(path, { body, token: admin({ groups: ["security-audit"] }) })).status).toBe(403);
    // An address is kept as its digest, and stands in no record of a refusal.
    const named = await ask("/admin/v1/humans/bob%40acme.example/groups", { body });
    expect(named.json["switch"]).toMatchObject({ act: "narrow", target: { human: emailDigest("bob@acme.example") } });
    expect((await ask("/admin/v1/humans/bob%40acme.example/groups", { body: {} })).status).toBe(400);
    const [refused] = await h.journal("admin", (one) => String(one["path"]).startsWith("/admin/v1/humans/("));
    expect(refused?.["path"]).toBe("/admin/v1/humans/(address)/groups");
    expect((await ask("/admin/v1/humans/bob%2540acme.example/groups", { body })).status).toBe(400);
    await h.journal("admin", (one) => String(one["path"]) === "/admin/v1/humans/(address)/groups", 2);
    expect((await ask(`${SWITCHES}/${idOf(first)}/lift`, { body: { reason: "r" } })).json["detail"]).toMatch(
      /^a narrowing is not lifted/,
    );
  });

  it("each operation and status was seen, but for those that take a broken gate", () => {
    const all = Object.entries(document.paths).flatMap(([path, operations]) =>
      Object.entries(operations).flatMap(([method, { responses }]) =>
        Object.keys(responses).map((status) => `${method.toUpperCase()} ${path} ${status}`),
      ),
    );
    seen.add(`GET ${PATH} 200`);
    const broken = (one: string) => one.endsWith(" 503") || /^POST .*(switches|groups) 202$/.test(one);
    expect(all.filter((one) => !seen.has(one) && !broken(one))).toEqual([]);
  });
});

describe("a body that the document allows, the door takes, and no other", () => {
  const id = { instance: "i", task: "t", human: "h", agent: "triage-bot", agentVersion: "1.0", upstream: "github" };
  const pick = (...members: (keyof typeof id)[]) => Object.fromEntries(members.map((member) => [member, id[member]]));
  it.each<[name: string, body: unknown, isAllowed: boolean]>([
    ["instance", flip({ target: pick("instance") }), true],
    ["task", flip({ reach: "task", target: pick("task") }), true],
    ["human", flip({ reach: "human", target: pick("human") }), true],
    ["human by address", flip({ reach: "human", target: { human: "bob@acme.example" } }), true],
    ["agent", flip({ reach: "agent", target: pick("agent") }), true],
    ["agent-version", flip({ reach: "agent-version", target: pick("agent", "agentVersion") }), true],
    ["agent-upstream", flip({ reach: "agent-upstream", target: pick("agent", "upstream") }), true],
    ["human-upstream", flip({ reach: "human-upstream", target: pick("human", "upstream") }), true],
    ["upstream", flip({ reach: "upstream", target: { upstream: "slack" } }), true],
    ["pause with an end", flip({ act: "pause", untilMs: 4_000_000_000_000 }), true],
    ["nothing", {}, false],
    ["no target", { ...flip(), target: undefined }, false],
    ["a target's member too few", flip({ reach: "agent-version", target: pick("agent") }), false],
    ["a target's member too many", flip({ target: pick("instance", "task") }), false],
    ["everything with a target", flip({ reach: "everything", target: pick("human") }), false],
    ["a target of another reach", flip({ reach: "task", target: pick("instance") }), false],
    ["an unknown reach", flip({ reach: "constructor" }), false],
    ["an unknown act", flip({ act: "lift" }), false],
    ["a member too many", flip({ more: 1 }), false],
    ["no reason", flip({ reason: "" }), false],
    ["a long reason", flip({ reason: "x".repeat(1_001) }), false],
    ["a name that is none", flip({ reach: "agent", target: { agent: "a b" } }), false],
    ["half a millisecond", flip({ act: "pause", untilMs: 4_000_000_000_000.5 }), false],
    ["resume with an end", flip({ act: "resume", untilMs: 4_000_000_000_000 }), false],
  ])("%s", async (_name, body, isAllowed) => {
    const { requestBody } = operationOf("POST", SWITCHES)[1];
    const schema = requestBody!.content["application/json"]!.schema;
    expect(misfit(schema, JSON.parse(JSON.stringify(body))) === null).toBe(isAllowed);
    expect((await ask(SWITCHES, { body })).status).toBe(isAllowed ? 201 : 400);
  });
});
