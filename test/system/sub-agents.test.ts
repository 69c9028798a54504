// Sub-agents from outside: made with portcullis/agent as an agent's developer does it, and seen by platform, admin and CLI.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runCommand } from "../../scripts/cli/commands.ts";
import { createIo } from "../../scripts/cli/terminal.ts";
import { humans } from "../../scripts/local/humans.ts";
import {
  createAgentFetch,
  createEnrolmentProof,
  createHeldGrant,
  createInstanceKey,
  delegate,
  type GrantTokens,
  type HeldGrant,
  type InstanceKey,
  requestSubAgentGrant,
  thumbprintOf,
} from "../../src/agent/agent-fetch.ts";
import { DETAILS, type Harness, startHarness } from "./harness.ts";

interface Agent {
  readonly id: string;
  readonly grant: GrantTokens;
  readonly held: HeldGrant;
  readonly status: () => Promise<number>;
}

let h: Harness;
let lead: Agent;
let child: Agent;
let leaf: Agent;

async function agentWith(key: InstanceKey, grant: GrantTokens): Promise<Agent> {
  const options = { gate: h.origin, key, grant };
  const send = createAgentFetch(options);
  return {
    id: await thumbprintOf(key),
    grant,
    held: createHeldGrant(options),
    // Nobody listens at the upstream: what the gate lets pass fails there.
    status: async () => (await send(`${h.origin}/github/repos/acme/widgets/issues`)).status,
  };
}

async function subAgentOf(parent: Agent, taskLimits: object): Promise<Agent> {
  const key = await createInstanceKey();
  const delegated = await delegate(parent.held, await thumbprintOf(key));
  const request = {
    agent: "summariser",
    agentVersion: "2.0.0",
    purpose: "Sum the issues up",
    authorizationDetails: DETAILS,
    taskLimits,
  };
  return agentWith(key, await requestSubAgentGrant({ gate: h.origin, key, delegated, request }));
}

beforeAll(async () => {
  h = await startHarness();
  const key = await createInstanceKey();
  const root = await h.exchange({ headers: { DPoP: await createEnrolmentProof(h.origin, key) } });
  lead = await agentWith(key, root.json as unknown as GrantTokens);
  child = await subAgentOf(lead, { concurrency: 4, burst: 20, calls: 500 });
  leaf = await subAgentOf(child, { concurrency: 2, burst: 9, calls: 100 });
});
afterAll(() => h.close());

async function cli(...args: string[]): Promise<string> {
  const said: string[] = [];
  const { sub, email, groups } = humans.oscar;
  const token = h.idToken({ sub, email, groups, aud: "portcullis-admin" });
  const stream = { isTTY: false, write: (text: string) => said.push(text) };
  const io = createIo(stream, stream, { PORTCULLIS_GATE: h.origin, PORTCULLIS_TOKEN: token });
  await runCommand(args, io);
  return said.join("");
}

describe("a sub-agent", () => {
  it("passes the gate with what it was given", async () => {
    expect([await lead.status(), await child.status(), await leaf.status()]).toEqual([502, 502, 502]);
  });

  it("is introspected by the platform of its root with the whole chain, the current actor outermost", async () => {
    const { json } = await h.introspect(leaf.grant.access_token);
    const client_id = "build-platform";
    expect(json).toMatchObject({
      active: true,
      client_id,
      agent: "summariser",
      parent: child.id,
      task: "build-platform_t-1",
      act: { sub: leaf.id, client_id, act: { sub: child.id, client_id, act: { sub: lead.id, client_id } } },
    });
    expect((await h.introspect(lead.grant.access_token)).json).not.toHaveProperty("parent");
    expect((await h.introspect(leaf.grant.access_token, "other-platform")).json).toEqual({ active: false });
  });

  it("is listed with its parent: by the API, by ps, and in the story of its transcript and its parent's", async () => {
    const { instances } = (await h.asAdmin("/admin/v1/instances")).json as { instances: Record<string, unknown>[] };
    const parents = Object.fromEntries(instances.map(({ instance, parent }) => [instance, parent]));
    expect(parents).toEqual({ [lead.id]: null, [child.id]: lead.id, [leaf.id]: child.id });
    expect(instances.find(({ instance }) => instance === leaf.id)).toMatchObject({
      ancestors: [lead.id, child.id],
      agentsAbove: ["triage-bot@1.4.0", "summariser@2.0.0"],
    });
    const lines = (await cli("ps")).split("\n");
    expect(lines.find((line) => line.startsWith(child.id))).toMatch(new RegExp(`  ${lead.id}$`));
    const [above, below] = [await cli("show", lead.id), await cli("show", child.id)];
    expect(above).toContain(`DELEGATED to summariser ${child.id}: Sum the issues up`);
    expect(below).toContain("triage-bot (build-platform) > summariser (build-platform)");
    expect(below).toMatch(new RegExp(`^parent {4}${lead.id}$`, "m"));
  });

  it("can be revoked by that platform alone, and what it has below ends with it", async () => {
    const by = (client: "build-platform" | "other-platform", token: string) =>
      h.post("/oauth/revoke", { ...h.clientForm(client), token });
    expect((await by("other-platform", child.grant.access_token)).status).toBe(400);
    expect(await child.status()).toBe(502);
    expect((await by("build-platform", child.grant.access_token)).status).toBe(200);
    expect(await child.status()).toBe(401);
    await expect.poll(leaf.status, { timeout: 10_000 }).toBe(401);
    expect((await h.introspect(leaf.grant.access_token)).json).toEqual({ active: false });
    expect(await lead.status()).toBe(502);
  });

  it("that is refused stands in the journal of those without a client, with its parent", async () => {
    const key = await createInstanceKey();
    const delegated = await delegate(lead.held, await thumbprintOf(key));
    const request = { agent: "triage-bot", agentVersion: "1.4.0", purpose: "p", authorizationDetails: DETAILS };
    await expect(requestSubAgentGrant({ gate: h.origin, key, delegated, request })).rejects.toThrow(
      "invalid_request: agent: not one that the parent may provision",
    );
    const [record] = await h.journal("authority-refused", ({ parent }) => parent === lead.id);
    expect(record).toMatchObject({ client: null, instance: await thumbprintOf(key), parent: lead.id });
  });
});
