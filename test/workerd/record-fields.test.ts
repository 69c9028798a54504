// Every record of an instance stands alone: from its line one can name who, for whom, by which grant, under which
// deployment, and what was decided by what. Each type is here, so that a new one can't forget it.

import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";
import { absent, type Denial, unauthenticated, unavailable } from "../../src/denial.ts";
import { instanceOf } from "../../src/objects.ts";
import { RECORD_TYPES, type RecordType, sha256Hex } from "../../src/transcript/envelope.ts";
import {
  type Agent,
  deployment,
  enrolAgent,
  ISSUES,
  instanceStub,
  type Line,
  recordsOf,
  SCOPE,
  settlement,
  switchOf,
  upstream,
} from "./kit.ts";
import { giveUpOrphans } from "./resume-kit.ts";

afterEach(() => vi.restoreAllMocks());

/** What each type says besides who. Those of journals have their tests with the doors that write them. */
const SAYS: Readonly<Record<RecordType, readonly string[] | "journal">> = {
  enrolled: ["manifest", "purpose", "deadline", "scope", "limits", "claims", "parent"],
  renewed: ["issued", "expires"],
  call: ["upstream", "method", "target", "headers", "body", "decision"],
  answer: ["call", "outcome", "status", "headers", "body", "passedBytes", "forwardedBytes", "timing"],
  refused: ["upstream", "method", "target", "headers", "body", "decision"],
  switched: ["act", "reach", "reason", "by", "causedBy"],
  signal: ["rule", "signal", "value", "threshold", "mode", "act", "reach"],
  delegated: ["act", "child"],
  approval: ["approval", "state"],
  ended: ["cause", "calls", "bytes"],
  act: "journal",
  read: "journal",
  stored: "journal",
};

const PROBE = absent("route", "no such upstream");
/** The grant that calls come with is not always the one of the enrolment. */
const LATER = { id: "grant-2", expiresAtMs: Date.now() + 300_000 };
const ask = (agent: Agent, change: object = {}) =>
  instanceOf(deployment, agent.id).admit(agent.admission({ grant: LATER, ...change }));

async function lifeOf(agent: Agent): Promise<readonly Line[]> {
  const instance = instanceOf(deployment, agent.id);
  await instance.renew({
    refreshDigest: "digest-1",
    grant: LATER.id,
    expiresAtMs: LATER.expiresAtMs,
    proof: { jti: crypto.randomUUID(), issuedAtMs: Date.now() },
    deployment: "test",
  });
  const admission = await ask(agent, { permit: { entry: 0, operation: "GET /repos/{owner}/{repo}/issues" } });
  if (!admission.admitted) throw new Error("refused");
  await admission.lease.settle(settlement());
  const delegated = await instance.delegate({
    proof: { jti: crypto.randomUUID(), issuedAtMs: Date.now() },
    grant: agent.grant,
    child: {
      instance: "child-1",
      agent: "summariser",
      agentVersion: "2.0.0",
      grant: "grant-c",
      purpose: "test",
      deadlineMs: agent.enrolment.task.deadlineMs,
      scope: SCOPE,
    },
    ceiling: deployment.config.agents["summariser"]!.limits,
    asked: {},
    deployment: "test",
  });
  if (!delegated.delegated) throw new Error(delegated.refusal.kind);
  const call = { ...agent.admission().call, segments: ["repos", "acme", "vault", "issues"] };
  const target = ISSUES.replace("widgets", "vault");
  await ask(agent, { call, request: { ...agent.admission().request, target } });
  for (let i = 0; i < 3; i++) await ask(agent, { call: null, denial: PROBE });
  await instance.close(switchOf({ reach: "instance", target: { instance: agent.id } }));
  await runInDurableObject(instanceStub(agent.id), async (object) => {
    const clock = vi.spyOn(Date, "now").mockReturnValue(agent.enrolment.task.deadlineMs + 1);
    await object.alarm();
    clock.mockRestore();
  });
  const stored: Line[] = [];
  for (const { key } of (await env.TRANSCRIPTS.list({ prefix: "transcripts/" })).objects) {
    if (!key.includes(agent.id)) continue;
    const body = (await env.TRANSCRIPTS.get(key))!.body.pipeThrough(new DecompressionStream("gzip"));
    const lines = (await new Response(body).text()).trim().split("\n");
    stored.push(...lines.map((line) => JSON.parse(line) as Line));
  }
  return stored.filter(({ type }) => type !== "seal");
}

describe("each record", () => {
  it("of every type names instance, agent and manifest, task, chain, human, grant and deployment", async () => {
    const agent = await enrolAgent({ agent: "observed" });
    const { enrolment } = agent;
    const lines = await lifeOf(agent);
    const manifest = lines[0]?.["manifest"];
    const who = {
      v: 1,
      instance: agent.id,
      agent: "observed",
      agentVersion: "1.0.0",
      manifestDigest: sha256Hex(JSON.stringify(manifest)),
      task: enrolment.task.id,
      human: "human-1",
      client: "build-platform",
      chain: [{ client: "build-platform", agent: "observed", agentVersion: "1.0.0", instance: agent.id }],
    };
    expect(manifest).toEqual(enrolment.manifest);
    for (const type of RECORD_TYPES) {
      const says = SAYS[type];
      const ofType = lines.filter((line) => line.type === type);
      expect([type, ofType.length > 0]).toEqual([type, says !== "journal"]);
      for (const line of ofType) {
        expect(line).toMatchObject(who);
        expect([type, typeof line["at"], typeof line["deployment"]]).toEqual([type, "number", "string"]);
        const ofCall = ["call", "answer", "refused", "approval"].includes(type);
        expect([type, line["grant"]]).toEqual([type, ofCall ? LATER.id : "grant-1"]);
        expect(Object.keys(line), type).toEqual(expect.arrayContaining([...says]));
      }
    }
    const call = lines.find(({ type }) => type === "call");
    expect(call?.["decision"]).toMatchObject({
      allowed: true,
      entry: 0,
      operation: "GET /repos/{owner}/{repo}/issues",
    });
  });

  it.each<[string, Denial]>([
    ["credentials", unauthenticated("invalid_token", "expired")],
    ["describe", absent("describe", "a dot segment")],
    ["describe", { kind: "too-large", reason: "the request's body" }],
    ["limits", { kind: "limited", limit: "rate", retryAfterSeconds: 1 }],
    ["limits", { kind: "exhausted", budget: "calls" }],
    ["gate", unavailable("the request's body did not arrive")],
  ])("of a refusal names the layer, %s, and a reason: %o", async (layer, denial) => {
    const agent = await enrolAgent();
    await ask(agent, { call: null, denial });
    const { decision } = (await recordsOf(agent)).at(-1) as Line & { decision: Record<string, unknown> };
    expect(decision).toMatchObject({ allowed: false, layer, ...denial });
    expect(decision["reason"]).toEqual(expect.stringMatching(/\S/));
  });

  it("of a call that died with its object names the call's grant", async () => {
    const agent = await enrolAgent();
    await ask(agent);
    await runInDurableObject(instanceStub(agent.id), (_i, state) => state.abort("reset by a test")).catch(() => {});
    await giveUpOrphans(agent);
    expect((await recordsOf(agent)).at(-1)).toMatchObject({ type: "answer", outcome: "lost", grant: LATER.id });
  });

  it("of a call names the entry of its own grant and of each ceiling that allowed it, and its operation", async () => {
    const agent = await enrolAgent();
    upstream(() => Response.json([]));
    await (await agent.call(ISSUES)).text();
    const [, call] = await recordsOf(agent);
    const operation = "GET /repos/{owner}/{repo}/issues";
    expect(call?.["decision"]).toEqual({
      allowed: true,
      entry: 0,
      operation,
      ceilings: [
        { layer: "entitlement", at: "entitlements.groups.engineering[0]", operation },
        { layer: "agent", at: "agents.triage-bot.ceiling[0]", operation },
        { layer: "boundaries", at: "boundaries[0]", operation },
      ],
    });
  });
});

describe("a refused body", () => {
  it("that was longer than what was read is not called complete", async () => {
    const agent = await enrolAgent({ groups: ["nobody"] });
    const request = { ...agent.admission().request, body: new Uint8Array(10), bodyFollows: true };
    await ask(agent, { request });
    expect((await recordsOf(agent)).at(-1)).toMatchObject({ type: "refused", body: { bytes: 10, complete: false } });
  });
});
