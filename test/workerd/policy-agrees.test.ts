// What `policy explain` says of a call, against what the running gate does with it and puts on record.

import { afterEach, describe, expect, it, vi } from "vitest";
import { parseScope, readCall, type Who, type WrittenCall, whoOf } from "../../scripts/policy/asked.ts";
import { type CallExplanation, explainCall } from "../../scripts/policy/explain-call.ts";
import { upstream as upstreamShape } from "../../src/config/upstream.ts";
import { emailDigest } from "../../src/identity/email-digest.ts";
import type { Enrolment } from "../../src/instance/contract.ts";
import type { Json } from "../../src/scope/call.ts";
import config, { ORIGIN } from "./config.ts";
import { enrolFor, world } from "./credential-rig.ts";
import { type Agent, enrolAgent, recordsOf, SCOPE, upstream } from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

const upstreamSource = {
  baseUrl: "https://github.test",
  credential: { kind: "header", header: "Authorization", secret: "GITHUB_TOKEN" },
};
const COMMENTS = "POST /github/repos/acme/widgets/issues/7/comments";
const JSON_TYPE = { "content-type": "application/json" };

const CALLS: readonly WrittenCall[] = [
  { call: "GET /github/repos/acme/widgets/issues" },
  { call: "HEAD /github/repos/acme/widgets/issues" },
  { call: "GET /github/repos/evil/widgets/issues" },
  { call: "DELETE /github/repos/acme/widgets/issues" },
  { call: "GET /github/repos/acme/a%2Fb/issues" },
  { call: "GET /github/repos/acme/%252e%252e/issues" },
  { call: "GET /github/repos//widgets/issues" },
  { call: "GET /github/repos/acme/widgets/issues?a=1;b=2" },
  { call: "GET /github/repos/acme/widgets/issues?_method=DELETE" },
  { call: "GET /github/repos/acme/widgets/issues", headers: { "x-http-method-override": "DELETE" } },
  { call: "GET /nowhere/repos" },
  { call: "GET /github" },
  { call: COMMENTS, body: { body: "hello" } },
  { call: COMMENTS, body: '{"_method":"DELETE"}', headers: JSON_TYPE },
  { call: COMMENTS, body: "_method=DELETE", headers: { "content-type": "application/x-www-form-urlencoded" } },
  {
    call: "PUT /github/repos/acme/widgets/contents/a/b",
    body: "x".repeat(1_048_577),
    headers: { "content-type": "text/plain" },
  },
  {
    call: "PUT /github/repos/acme/widgets/contents/a/b",
    body: `a=${"x".repeat(1_048_577)}`,
    headers: { "content-type": "application/x-www-form-urlencoded" },
  },
];

const VAULT = "PUT /github/repos/acme/vault/contents/a";
const text = (body: string): Partial<WrittenCall> => ({ body, headers: { "content-type": "text/plain" } });

/** Of these a person is asked, or nobody can be. */
const HELD: readonly WrittenCall[] = [
  { call: VAULT, ...text("one") },
  { call: "GET /github/repos/acme/vault/issues" },
  { call: "HEAD /github/repos/acme/vault/issues" },
  { call: "PUT /github/repos/acme/Vault/contents/a", ...text("in another case") },
  { call: "PUT /github/repos/acme/vault;v=1/contents/a", ...text("with a parameter") },
  { call: "PUT /github/repos/acme/vaults/contents/a", ...text("another") },
  { call: VAULT, ...text("x".repeat(262_144)) },
  { call: VAULT, ...text("x".repeat(262_145)) },
  { call: VAULT, ...text("x".repeat(1_048_577)) },
];

type Ask = (path: string, init?: RequestInit) => Promise<Response>;

/** What the gate decided, as it is on record. */
async function decidedOf(agent: Agent, { call, headers, body }: WrittenCall, ask: Ask = agent.call): Promise<Decided> {
  const [method = "", path = ""] = call.split(" ");
  const { head, body: bytes } = readCall({ call, headers, body }, ORIGIN);
  const seen = (await recordsOf(agent)).length;
  const sent = Object.fromEntries(head.headers) as Record<string, string>;
  const init = { method, headers: sent, ...(bytes === null ? {} : { body: bytes as Uint8Array<ArrayBuffer> }) };
  await (await ask(path, init)).arrayBuffer();
  const TYPES = ["call", "refused", "approval"];
  const line = (await recordsOf(agent)).slice(seen).find(({ type }) => TYPES.includes(type))!;
  if (line.type === "approval") return { allowed: "approval", entries: line["entries"] as Json };
  return line["decision"] as Decided;
}
type Decided = { readonly [field: string]: Json };

/** By those who stand behind an instance, and its own scope. */
function explained(written: WrittenCall, who: Partial<Who>, scope: readonly Json[] | null = SCOPE): CallExplanation {
  const asked = whoOf(config, { groups: ["engineering"], agent: "triage-bot", ...who });
  return explainCall(config, readCall(written, ORIGIN), asked, scope === null ? null : parseScope(scope, "scope"));
}

function expectSame(explanation: CallExplanation, decision: Decided): void {
  const { verdict, layer, layers } = explanation;
  if (decision["allowed"] === "approval") {
    expect(verdict).toBe("approval");
    expect(decision["entries"]).toEqual([layers.find((one) => one.layer === layer)?.at]);
    return;
  }
  expect(verdict).toBe(decision["allowed"] === true ? "allowed" : "refused");
  if (decision["allowed"] !== true) {
    expect(layer).toBe(decision["layer"]);
    const { reason } = layers.find((one) => one.layer === layer)!;
    if (reason !== undefined) expect(reason).toBe(decision["reason"]);
    return;
  }
  const by = layers.filter(({ at }) => at !== undefined);
  const grant = by.find((one) => one.layer === "grant");
  expect([grant?.at, grant?.operation]).toEqual([`authorization_details[${decision["entry"]}]`, decision["operation"]]);
  expect(
    by.filter((one) => one.layer !== "grant").map(({ layer, at, operation }) => ({ layer, at, operation })),
  ).toEqual(decision["ceilings"]);
}

const named = (calls: readonly WrittenCall[]) =>
  calls.map((call) => [`${call.call}, ${String(call.body ?? "").length} bytes`, call] as const);

describe("policy explain and the gate say the same", () => {
  it.each(named([...CALLS, ...HELD]))("%s", async (_name, written) => {
    const agent = await enrolAgent();
    upstream(() => new Response(null, { status: 204 }));
    expectSame(explained(written, {}), await decidedOf(agent, written));
  });

  const READ = "GET /github/repos/acme/widgets/issues";
  const narrower = (change: object) => [{ ...SCOPE[0]!, ...change }];
  it.each<[string, Partial<Enrolment>, Partial<Who>, WrittenCall]>([
    ["a human by an address", { groups: [] }, { groups: [], human: "named@acme.example" }, { call: READ }],
    ["no entitlement", { groups: [] }, { groups: [], human: "other@acme.example" }, { call: READ }],
    ["a group that may read", { groups: ["readers"] }, { groups: ["readers"] }, { call: READ }],
    ["a group that may not write", { groups: ["readers"] }, { groups: ["readers"] }, { call: VAULT, ...text("x") }],
  ])("of %s", async (_name, change, who, written) => {
    const address = who.human === undefined ? {} : { emailDigest: emailDigest(who.human) };
    const agent = await enrolAgent({ ...change, ...address });
    upstream(() => new Response(null, { status: 204 }));
    expectSame(explained(written, who), await decidedOf(agent, written));
  });

  it.each<[string, readonly Json[], WrittenCall]>([
    ["holds it", narrower({ where: { owner: ["acme"], repo: ["widgets"] } }) as readonly Json[], { call: READ }],
    ["does not", narrower({ where: { owner: ["acme"], repo: ["gadgets"] } }) as readonly Json[], { call: READ }],
    [
      "does not hold what asks",
      narrower({ where: { owner: ["acme"], repo: ["widgets"] } }) as readonly Json[],
      HELD[0]!,
    ],
    ["holds what asks", narrower({ where: { owner: ["acme"], repo: ["vault"] } }) as readonly Json[], HELD[0]!],
  ])("where a parent's scope %s", async (_name, parentScope, written) => {
    const agent = await enrolAgent({ parentScope });
    upstream(() => new Response(null, { status: 204 }));
    expectSame(explained(written, { parentScope }), await decidedOf(agent, written));
  });

  it.each<[string, readonly string[], WrittenCall]>([
    ["holds it", ["chief"], { call: READ }],
    ["does not", ["chief"], { call: COMMENTS, body: { body: "x" } }],
  ])("where the ceiling of an agent above %s", async (_name, above, written) => {
    const actorOf = (agent: string) => ({ client: "build-platform", agent, agentVersion: "1.0.0", instance: agent });
    const agent = await enrolAgent({ agent: "lead", parentScope: SCOPE, chain: [...above, "lead"].map(actorOf) });
    upstream(() => new Response(null, { status: 204 }));
    const who = { agent: "lead", agentsAbove: above, parentScope: SCOPE };
    expectSame(explained(written, who), await decidedOf(agent, written));
  });

  const OPEN = { type: "http", upstream: "keyed", operations: ["GET /{+path}", "POST /{+path}"] };
  const app = (operations: readonly string[], where: Json) => [{ type: "http", upstream: "app", operations, where }];
  const WIDGETS = app(["GET /repos/{owner}/{repo}/issues", "GET /repos/{owner}/{repo}/labels"], {
    owner: ["acme"],
    repo: ["widgets"],
  });
  const form = { "content-type": "application/x-www-form-urlencoded" };
  it.each<[string, readonly Json[], WrittenCall]>([
    ["a key in the query", [OPEN], { call: "GET /keyed/x?q=1" }],
    ["a second key", [OPEN], { call: "GET /keyed/x?key=mine" }],
    ["a second key in another spelling", [OPEN], { call: "GET /keyed/x?KEY[]=mine" }],
    ["a second key in a form", [OPEN], { call: "POST /keyed/x", body: "key=mine", headers: form }],
    ["a token of its repository", WIDGETS, { call: "GET /app/repos/acme/widgets/issues" }],
    ["a token without the permission", WIDGETS, { call: "GET /app/repos/acme/widgets/labels" }],
    [
      "a token that no repository narrows",
      app(["GET /repos/{owner}/{repo}/issues"], { owner: ["acme"] }),
      { call: "GET /app/repos/acme/widgets/issues" },
    ],
  ])("of credentials: %s", async (_name, scope, written) => {
    const agent = await enrolFor(scope as readonly object[]);
    world({});
    const all = [OPEN, ...(scope[0] === OPEN ? [] : scope)] as readonly Json[];
    const decision = await decidedOf(agent, written, agent.ask);
    const explanation = explained(written, {}, all);
    // The rig's own scope has other places.
    if (decision["allowed"] === true) expect(explanation.verdict).toBe("allowed");
    else expectSame(explanation, decision);
    // What no grant could make right is told without one; what another grant could is not.
    const { verdict, layer, layers } = explained(written, {}, null);
    const isOfAll = decision["allowed"] !== true && !/can't be narrowed/.test(String(decision["reason"]));
    const reason = layers.find((one) => one.layer === layer)?.reason;
    expect([verdict, reason]).toEqual(isOfAll ? ["refused", decision["reason"]] : ["allowed", undefined]);
  });

  it("of what can't be redacted, and of what nobody could see to approve it", () => {
    const redact = [{ name: "secrets", in: "request", fields: ["/secret"] }];
    const source = { ...upstreamSource, redact } as Parameters<typeof upstreamShape.parse>[0];
    const redacting = { ...config, upstreams: { ...config.upstreams, github: upstreamShape.parse(source) } };
    const who = whoOf(config, { groups: ["engineering"], agent: "triage-bot" });
    const reasonOf = (written: WrittenCall) => {
      const { verdict, layer, layers } = explainCall(redacting, readCall(written, ORIGIN), who, parseScope(SCOPE, "s"));
      return [verdict, layer, layers.at(-1)!.reason];
    };
    expect(reasonOf({ call: COMMENTS, body: { secret: 1 } })[0]).toBe("allowed");
    expect(reasonOf({ call: COMMENTS, ...text("secret") })).toEqual([
      "refused",
      "describe",
      expect.stringMatching(/^redaction by secrets: /),
    ]);
    expect(reasonOf({ call: VAULT, body: { open: 1 } })[0]).toBe("approval");
    expect(reasonOf({ call: VAULT, body: { secret: 1 } })).toEqual([
      "refused",
      "describe",
      "a call of which something is redacted can't be approved",
    ]);
  });
});
