import { env, evictDurableObject, runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { Roster } from "../../durable-objects/roster.ts";
import { instanceOf, rosterOf, switchboardOf } from "../../src/objects.ts";
import { type Agent, deployment, enrolAgent, ISSUES, recordsOf, typesOf, upstream } from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

const rosterStub = () => env.ROSTER.get(env.ROSTER.idFromName("0")) as DurableObjectStub<Roster>;
const instanceStub = (agent: Agent) => env.AGENT_INSTANCE.get(env.AGENT_INSTANCE.idFromName(agent.id));

const flip = (agent: Agent) =>
  switchboardOf(deployment).flip({ reach: "instance", target: agent.id, act: "kill", reason: "test", by: "admin" });

describe("the roster", () => {
  it("lists who enrolled, and no one else", async () => {
    const agent = await enrolAgent();
    const listed = (await rosterOf(deployment).list(1_000)).filter(({ instance }) => instance === agent.id);
    expect(listed).toMatchObject([{ human: "human-1", agent: "triage-bot", upstreams: ["github"], killed: false }]);
  });

  it("confirms no one whom it does not know", async () => {
    expect(await rosterOf(deployment).confirm("nobody")).toEqual({ confirmed: false, closed: [], validMs: 0 });
  });

  it("keeps a closed switch over an eviction, and confirms no one in its reach", async () => {
    const agent = await enrolAgent();
    await flip(agent);
    await evictDurableObject(rosterStub());
    expect(await rosterOf(deployment).confirm(agent.id)).toMatchObject({
      confirmed: false,
      closed: [{ target: agent.id }],
    });
  });
});

describe("a kill", () => {
  it("reaches exactly one of 30 instances", async () => {
    const agents = await Promise.all(Array.from({ length: 30 }, () => enrolAgent()));
    const victim = agents[17]!;
    expect(await flip(victim)).toMatchObject({
      reached: [{ instance: victim.id, answer: { cut: 0, unconfirmed: 0 } }],
    });
    upstream(() => Response.json([]));
    const statuses = await Promise.all(agents.map(async (agent) => (await agent.call(ISSUES)).status));
    expect(statuses).toEqual(agents.map((agent) => (agent === victim ? 401 : 200)));
  });

  it("whose push is lost is certain by time: the instance must ask again, and finds it", async () => {
    const agent = await enrolAgent();
    await runInDurableObject(rosterStub(), (_roster, state) => {
      const sw = { id: "unpushed", reach: "instance", target: agent.id, act: "kill", reason: "t", by: "a", atMs: 1 };
      state.storage.sql.exec("INSERT INTO switches (id, json) VALUES (?, ?)", sw.id, JSON.stringify(sw));
    });
    await evictDurableObject(rosterStub());
    upstream(() => Response.json([]));
    // Its confirmation still runs: that is the bound.
    const passed = await agent.call(ISSUES);
    expect([passed.status, await passed.text()]).toEqual([200, "[]"]);
    const { confirmationMs } = deployment.config.roster;
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + confirmationMs);
    expect(await instanceOf(deployment, agent.id).admit(agent.admission())).toMatchObject({
      admitted: false,
      denial: { kind: "unauthenticated", reason: "switched" },
    });
    clock.mockRestore();
    expect(typesOf(await recordsOf(agent))).toBe("enrolled call answer switched refused");
  });

  it("is found by an instance that starts anew, whatever became of the push", async () => {
    const agent = await enrolAgent();
    await runInDurableObject(rosterStub(), (_roster, state) => {
      const sw = {
        id: `u-${agent.id}`,
        reach: "instance",
        target: agent.id,
        act: "kill",
        reason: "t",
        by: "a",
        atMs: 1,
      };
      state.storage.sql.exec("INSERT INTO switches (id, json) VALUES (?, ?)", sw.id, JSON.stringify(sw));
    });
    await evictDurableObject(rosterStub());
    await evictDurableObject(instanceStub(agent));
    expect(await instanceOf(deployment, agent.id).admit(agent.admission())).toMatchObject({
      denial: { reason: "switched" },
    });
  });

  it("refuses the enrolment of whom it has in reach", async () => {
    await switchboardOf(deployment).flip({ reach: "instance", target: "doomed", act: "kill", reason: "t", by: "a" });
    const agent = await enrolAgent();
    const answer = await instanceOf(deployment, "doomed").enrol({
      enrolment: { ...agent.enrolment, instance: "doomed" },
      humanClaims: {},
      proof: { jti: "j", issuedAtMs: Date.now() },
      deployment: "test",
    });
    expect(answer).toEqual({ enrolled: false, reason: "switched" });
  });
});

describe("a roster that can't be asked", () => {
  it("denies: unknown means no", async () => {
    const agent = await enrolAgent();
    await evictDurableObject(instanceStub(agent));
    await runInDurableObject(rosterStub(), (roster) => {
      vi.spyOn(roster, "confirm").mockImplementation(() => new Promise(() => {}));
    });
    const asked = instanceOf(deployment, agent.id).admit(agent.admission());
    const answer = await Promise.race([
      asked,
      new Promise((resolve) => setTimeout(() => resolve("still waiting"), 6_000)),
    ]);
    expect(answer).toMatchObject({ admitted: false, denial: { kind: "unavailable" } });
    await evictDurableObject(rosterStub()).catch(() => {});
  }, 10_000);
});
