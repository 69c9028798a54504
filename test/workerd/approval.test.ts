// A call that a person must approve: what an approval covers, who can use it, and how often.

import { createExecutionContext, runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import { InstanceControl } from "../../durable-objects/instance-control.ts";
import { gate } from "../../src/gate/gate.ts";
import type { Ticket } from "../../src/instance/contract.ts";
import { instanceOf } from "../../src/objects.ts";
import {
  actsOf,
  decide,
  decision,
  desk,
  fileIn,
  heard,
  put,
  reasonOf,
  requestsOf,
  reset,
  ring,
  storyOf,
  until,
  VAULT,
} from "./approval-kit.ts";
import { ORIGIN } from "./config.ts";
import {
  type Agent,
  deployment,
  enrolAgent,
  flip,
  instanceStub,
  recordsOf,
  settlement,
  switchOf,
  upstream,
} from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

/** What came to the upstream. */
function watched() {
  const calls: string[] = [];
  upstream(async (request) => {
    if (request.url.startsWith("https://hooks.test")) return new Response(null, { status: 503 });
    calls.push(`${request.method} ${request.url} ${await request.text()}`);
    return Response.json({});
  });
  return calls;
}
const ONE = "PUT https://github.test/repos/acme/vault/contents/a.txt one";

async function approved(change: object = {}, agentChange: object = {}): Promise<{ agent: Agent; calls: string[] }> {
  const agent = await enrolAgent(agentChange);
  const calls = watched();
  expect((await put(agent)).status).toBe(503);
  expect(await decide(agent, change)).toMatchObject({ kind: "decided", isRepeated: false });
  return { agent, calls };
}
const later = (ms: number) => {
  const now = Date.now() + ms;
  return vi.spyOn(Date, "now").mockImplementation(() => now);
};

describe("a call that nobody has approved", () => {
  it("is pending, and comes nowhere: 503, Retry-After, a problem of its own, and no word of who or why", async () => {
    const agent = await enrolAgent();
    const calls = watched();
    const answer = await put(agent);
    expect([answer.status, answer.headers.get("retry-after"), answer.headers.get("content-type")]).toEqual([
      503,
      "5",
      "application/problem+json",
    ]);
    expect(await answer.json()).toEqual({
      type: `${ORIGIN}/problems/approval-pending`,
      title: "Service Unavailable",
      status: 503,
    });
    expect(calls).toEqual([]);
    const [asked] = (await recordsOf(agent)).filter(({ type }) => type === "approval");
    expect(asked).toMatchObject({
      state: "asked",
      upstream: "github",
      method: "PUT",
      target: VAULT,
      body: { bytes: 3, complete: true },
      entries: ["boundaries[1]"],
      grant: "grant-1",
    });
    const [request] = await heard(agent);
    expect(request).toMatchObject({ id: asked?.["approval"], state: "asked", purpose: "test" });
    expect((await desk().read(request!.id))?.seq).toBe(asked?.seq);
  });

  it("looks the same whatever it waits for: asked, joined, too many open, and after a reset", async () => {
    const agent = await enrolAgent();
    watched();
    const faces = new Set<string>();
    const face = async (answer: Response) =>
      faces.add(JSON.stringify([answer.status, [...answer.headers], await answer.text()]));
    await face(await put(agent));
    await face(await put(agent));
    for (let i = 0; i < 12; i++) await face(await put(agent, `number ${i}`));
    await reset(agent);
    await face(await put(agent));
    expect(faces.size).toBe(1);
    // Ten at most, whatever it does.
    await heard(agent, 10);
    expect((await storyOf(agent)).filter((line) => line === "approval asked")).toHaveLength(10);
    const reasons = (await recordsOf(agent)).filter(({ type }) => type === "refused").map(reasonOf);
    expect(reasons).toContainEqual(expect.stringContaining("10 requests for approval are open"));
  });

  it("is asked for once, however often it comes", async () => {
    const agent = await enrolAgent();
    watched();
    await Promise.all(Array.from({ length: 20 }, () => put(agent)));
    await heard(agent, 1);
    expect((await storyOf(agent)).filter((line) => line.startsWith("approval"))).toEqual(["approval asked"]);
    // Nothing of what rules count.
    expect((await recordsOf(agent)).find(({ type }) => type === "refused")).toMatchObject({
      decision: { layer: "boundaries", kind: "pending" },
    });
  });

  it("a replayed proof asks nothing and joins nothing", async () => {
    const agent = await enrolAgent();
    watched();
    const proof = await agent.prove("PUT", VAULT);
    const once = () =>
      agent.call(VAULT, { method: "PUT", body: "one", headers: { "content-type": "text/plain" }, proof });
    expect((await once()).status).toBe(503);
    await reset(agent);
    expect((await once()).status).toBe(401);
    expect(reasonOf((await recordsOf(agent)).at(-1))).toBe("replay");
  });

  it("asks nobody where another layer refuses it, or its budget is spent", async () => {
    const limits = { ...deployment.config.agents["triage-bot"]!.limits, calls: 1 };
    const stranger = await enrolAgent({ groups: ["nobody"] });
    const spent = await enrolAgent({ limits });
    watched();
    expect((await put(stranger)).status).toBe(404);
    expect((await put(spent, "one", fileIn("widgets"))).status).toBe(200);
    expect((await put(spent)).status).toBe(429);
    for (const agent of [stranger, spent]) expect(await storyOf(agent)).not.toContain("approval asked");
  });

  it.each([
    ["longer than a person reads", "x".repeat(262_145)],
    ["longer than its first run", "x".repeat(1_048_577)],
  ])("with a body %s, can't be approved", async (_, body) => {
    const agent = await enrolAgent();
    const calls = watched();
    expect((await put(agent, body)).status).toBe(404);
    expect((await recordsOf(agent)).at(-1)).toMatchObject({
      decision: { layer: "describe", reason: "a body of more than 262144 bytes can't be approved" },
    });
    expect(calls).toEqual([]);
  });
});

describe("an approved call", () => {
  it("passes once, and its record says by whose approval", async () => {
    const { agent, calls } = await approved();
    expect((await put(agent)).status).toBe(200);
    expect(calls).toEqual([ONE]);
    const call = (await recordsOf(agent)).find(({ type }) => type === "call");
    const [request] = await requestsOf(agent);
    expect(call).toMatchObject({ approval: request?.id, approver: "olga" });
    // Replayed: it is asked for anew.
    expect((await put(agent)).status).toBe(503);
    expect(calls).toEqual([ONE]);
    expect(await storyOf(agent)).toEqual(["approval asked", "approval approved", "call", "approval asked"]);
    const [first, second] = await heard(agent, 2);
    expect([first?.state, first?.call, second?.state]).toEqual(["used", call?.seq, "asked"]);
    expect(second?.id).not.toBe(first?.id);
  });

  it.each<[string, (agent: Agent) => Promise<Response>]>([
    ["one byte of its body swapped", (agent) => put(agent, "two")],
    ["its body longer", (agent) => put(agent, "one ")],
    ["another file", (agent) => put(agent, "one", fileIn("vault", "b.txt"))],
    ["another spelling of the path", (agent) => put(agent, "one", fileIn("vault", "%61.txt"))],
    ["a query", (agent) => put(agent, "one", `${VAULT}?x=1`)],
    ["another media type", (agent) => put(agent, "one", VAULT, { headers: { "content-type": "text/html" } })],
    [
      "another language",
      (agent) => put(agent, "one", VAULT, { headers: { "content-type": "text/plain", "accept-language": "de" } }),
    ],
    [
      "a condition",
      (agent) => put(agent, "one", VAULT, { headers: { "content-type": "text/plain", "if-match": "x" } }),
    ],
  ])("does not pass with %s", async (_, other) => {
    const { agent, calls } = await approved();
    expect((await other(agent)).status).toBe(503);
    expect(calls).toEqual([]);
    // And the right one still does.
    expect((await put(agent)).status).toBe(200);
  });

  it("does not pass as the same JSON in other bytes, nor in another order of the query", async () => {
    const agent = await enrolAgent();
    const calls = watched();
    await put(agent, '{"a":1,"b":2}', `${VAULT}?x=1&y=2`);
    await decide(agent);
    expect((await put(agent, '{"b":2,"a":1}', `${VAULT}?x=1&y=2`)).status).toBe(503);
    expect((await put(agent, '{"a":1,"b":2}', `${VAULT}?y=2&x=1`)).status).toBe(503);
    expect(calls).toEqual([]);
    expect((await put(agent, '{"a":1,"b":2}', `${VAULT}?x=1&y=2`)).status).toBe(200);
  });

  it("is nothing for another instance", async () => {
    const { calls } = await approved();
    expect((await put(await enrolAgent())).status).toBe(503);
    expect(calls).toEqual([]);
  });

  it("of 50 identical ones exactly one passes", async () => {
    const { agent, calls } = await approved();
    const statuses = await Promise.all(Array.from({ length: 50 }, async () => (await put(agent)).status));
    expect(statuses.filter((status) => status === 200)).toHaveLength(1);
    expect(statuses.filter((status) => status === 503)).toHaveLength(49);
    expect(calls).toEqual([ONE]);
  });

  it("does not pass when its time is over", async () => {
    const agent = await enrolAgent();
    const calls = watched();
    await put(agent, "one", fileIn("vault-short"));
    await decide(agent);
    const clock = later(31_000);
    expect((await put(agent, "one", fileIn("vault-short"))).status).toBe(404);
    clock.mockRestore();
    expect(calls).toEqual([]);
    expect(await storyOf(agent)).toEqual(["approval asked", "approval approved", "approval expired", "refused"]);
  });

  it("survives a reset before its use, and is not there again after one", async () => {
    const { agent, calls } = await approved();
    await reset(agent);
    const passed = await put(agent);
    expect(passed.status).toBe(200);
    await reset(agent);
    expect((await put(agent)).status).toBe(503);
    // Its Worker took it up again.
    expect(await passed.text()).not.toBe("");
    await reset(agent);
    expect((await put(agent)).status).toBe(503);
    expect(calls).toEqual([ONE]);
  });

  it("is not spent where the call's record could not be written", async () => {
    const { agent, calls } = await approved();
    await runInDurableObject(instanceStub(agent.id), (_i, { storage }) => {
      const exec = storage.sql.exec.bind(storage.sql);
      vi.spyOn(storage.sql, "exec").mockImplementation(((query: string, ...bindings: unknown[]) => {
        if (bindings.some((one) => typeof one === "string" && one.includes('"type":"call"'))) throw new Error("disk");
        return exec(query, ...bindings);
      }) as typeof storage.sql.exec);
    });
    expect((await put(agent)).status).toBe(503);
    vi.restoreAllMocks();
    const after = watched();
    expect((await put(agent)).status).toBe(200);
    expect([calls, after]).toEqual([[], [ONE]]);
  });

  it.each([
    ["another group must decide", { groups: ["treasury"] }],
    ["whom the agent acts for may not", { notDelegator: true }],
  ])("is none by the rules of a later deployment: %s", async (_, change) => {
    const agent = await enrolAgent();
    const path = fileIn("vault-own");
    const calls = watched();
    await put(agent, "one", path);
    expect(await decide(agent)).toMatchObject({ kind: "decided" });
    const entry = deployment.config.boundaries.find(({ source }) => JSON.stringify(source).includes('"vault-own"'))!;
    const before = { ...entry.approval };
    Object.assign(entry.approval!, change);
    try {
      expect((await put(agent, "one", path)).status).toBe(503);
      expect(await storyOf(agent)).toEqual(["approval asked", "approval approved", "approval asked"]);
    } finally {
      for (const name of Object.keys(change)) delete (entry.approval as Record<string, unknown>)[name];
      Object.assign(entry.approval!, before);
    }
    expect(calls).toEqual([]);
    // By those of before it is there.
    expect((await put(agent, "one", path)).status).toBe(200);
  });

  it("is held to every other rule as any call", async () => {
    const limits = { ...deployment.config.agents["triage-bot"]!.limits, calls: 1 };
    const { agent, calls } = await approved({}, { limits });
    expect((await put(agent, "x", fileIn("widgets"))).status).toBe(200);
    expect((await put(agent)).status).toBe(429);
    expect(calls).toHaveLength(1);
  });
});

describe("an approval", () => {
  it("says to nobody that it can be given, or used, beyond the task", async () => {
    const deadlineMs = Date.now() + 100_000;
    const agent = await enrolAgent({ task: { id: "build-platform_short", purpose: "test", deadlineMs } });
    watched();
    await put(agent);
    expect((await heard(agent))[0]?.expiresAtMs).toBe(deadlineMs);
    expect(await decide(agent)).toMatchObject({ kind: "decided", approval: { validUntilMs: deadlineMs } });
  });

  it("is cancelled where its body is erased, and nothing of the body stays", async () => {
    const { agent, calls } = await approved();
    const erased = await instanceOf(deployment, agent.id).erase(Date.now());
    expect(erased).toMatchObject({ blanked: 2 });
    expect((await put(agent)).status).toBe(503);
    expect(calls).toEqual([]);
    expect(await storyOf(agent)).toEqual([
      "approval asked",
      "approval approved",
      "approval cancelled",
      "approval asked",
    ]);
  });

  it("of facts of a body, nothing stays where it is over", async () => {
    const agent = await enrolAgent();
    watched();
    const call = { ...agent.admission().call!, method: "PUT", segments: ["repos", "acme", "vault", "contents", "a"] };
    const request = { method: "PUT", target: VAULT, headers: [], body: new Uint8Array(1), bodyFollows: false };
    const body = { kind: "json" as const, value: "FACT" };
    await instanceOf(deployment, agent.id).admit(agent.admission({ call: { ...call, body }, request }));
    const kept = () =>
      runInDurableObject(instanceStub(agent.id), (_i, { storage }) =>
        storage.sql.exec<{ json: string }>("SELECT json FROM kept WHERE kind = 'approval'").toArray(),
      );
    expect(JSON.stringify(await kept())).toContain("FACT");
    await decide(agent, { verdict: "denied" });
    expect(JSON.stringify(await kept())).not.toContain("FACT");
  });
});

describe("a call that was denied, or not decided in time", () => {
  it("does not exist, and is not asked for again until it could not have been decided any more", async () => {
    const agent = await enrolAgent();
    const calls = watched();
    await put(agent, "one", fileIn("vault-short"));
    await decide(agent, { verdict: "denied", reason: "no" });
    for (let i = 0; i < 3; i++) expect((await put(agent, "one", fileIn("vault-short"))).status).toBe(404);
    const lines = await recordsOf(agent);
    expect(lines.find(({ state }) => state === "denied")).toMatchObject({ by: "olga", reason: "no" });
    expect(lines.at(-1)).toMatchObject({ decision: { layer: "boundaries", kind: "absent" } });
    await until(async () => expect((await requestsOf(agent))[0]?.state).toBe("denied"));
    const clock = later(61_000);
    expect((await put(agent, "one", fileIn("vault-short"))).status).toBe(503);
    clock.mockRestore();
    expect(calls).toEqual([]);
  });

  it("expires by the alarm, on record, at the desk and in the journal", async () => {
    const agent = await enrolAgent();
    watched();
    await put(agent, "one", fileIn("vault-short"));
    await heard(agent);
    const clock = later(61_000);
    await ring(agent);
    const [request] = await until(async () => {
      const found = await requestsOf(agent);
      expect(found[0]?.state).toBe("expired");
      return found;
    });
    expect(request).toMatchObject({ cause: "nobody decided in time" });
    expect((await put(agent, "one", fileIn("vault-short"))).status).toBe(404);
    expect(await desk().decide(request!.id, decision())).toMatchObject({ kind: "over" });
    clock.mockRestore();
    await until(async () =>
      expect(await actsOf(request!.id)).toMatchObject([{ deed: "approval expired", reason: "nobody decided in time" }]),
    );
  });
});

describe("a call that waits", () => {
  const WAITS = fileIn("vault-waits");
  it("passes when it is approved meanwhile, and stands there once", async () => {
    const agent = await enrolAgent();
    const calls = watched();
    const waiting = put(agent, "one", WAITS);
    await decide(agent);
    expect((await waiting).status).toBe(200);
    expect(calls).toHaveLength(1);
    expect(await storyOf(agent)).toEqual(["approval asked", "approval approved", "call"]);
  });

  it("is answered as not existing when it is denied", async () => {
    const agent = await enrolAgent();
    const calls = watched();
    const waiting = put(agent, "one", WAITS);
    await decide(agent, { verdict: "denied" });
    expect((await waiting).status).toBe(404);
    expect(calls).toEqual([]);
  });

  it("of many that wait for one approval exactly one passes, and no more than ten wait", async () => {
    const agent = await enrolAgent();
    const calls = watched();
    let early = 0;
    const all = Array.from({ length: 14 }, async () => {
      const answer = await put(agent, "one", WAITS);
      if (calls.length === 0) early++;
      return answer.status;
    });
    await until(() => expect(early).toBe(4));
    await decide(agent);
    const statuses = await Promise.all(all);
    expect(statuses.filter((status) => status === 200)).toHaveLength(1);
    expect(statuses.filter((status) => status === 503)).toHaveLength(13);
    expect(calls).toHaveLength(1);
  });

  it("holds no place among the running ones, and has spent nothing", async () => {
    const limits = { ...deployment.config.agents["triage-bot"]!.limits, concurrency: 1 };
    const agent = await enrolAgent({ limits });
    watched();
    const waiting = put(agent, "one", WAITS);
    await heard(agent);
    const other = await put(agent, "x", fileIn("widgets"));
    expect([other.status, await other.text()]).toEqual([200, "{}"]);
    await decide(agent);
    expect((await waiting).status).toBe(200);
  });

  it("is answered before the switch that stops it is on record", async () => {
    const agent = await enrolAgent();
    watched();
    const keep = vi.spyOn(InstanceControl.prototype, "keep").mockImplementation(() => {});
    const waiting = put(agent, "one", WAITS);
    await heard(agent);
    await instanceOf(deployment, agent.id).close(switchOf({ reach: "instance", target: { instance: agent.id } }));
    expect((await waiting).status).toBe(401);
    keep.mockRestore();
  });

  /** As a Worker waits for it. */
  async function ticketOf(agent: Agent): Promise<Ticket> {
    const target = fileIn("vault-waits");
    const segments = ["repos", "acme", "vault-waits", "contents", "a.txt"];
    const call = { upstream: "github", method: "PUT", segments, query: [], body: { kind: "opaque" } } as const;
    const request = { method: "PUT", target, headers: [], body: new Uint8Array([1]), bodyFollows: false };
    const pending = await instanceOf(deployment, agent.id).admit(agent.admission({ call, request }));
    if (pending.admitted || pending.ticket === undefined) throw new Error("no ticket");
    await decide(agent);
    expect(await pending.ticket.decided()).toBe(true);
    return pending.ticket;
  }

  it("is claimed once: its proof was held against replay when it came, and is good for no second call", async () => {
    const agent = await enrolAgent();
    const ticket = await ticketOf(agent);
    const first = await ticket.claim();
    if (!first.admitted) throw new Error("not admitted");
    const second = await ticket.claim();
    expect(second).toMatchObject({ admitted: false, denial: { reason: "claimed twice" } });
    await first.lease.settle(settlement());
    expect(await storyOf(agent)).toEqual(["approval asked", "approval approved", "call"]);
  });

  it("is claimed by a grant that still lives", async () => {
    const agent = await enrolAgent();
    const ticket = await ticketOf(agent);
    // Approved, in time to be used, and its grant has run out.
    later(agent.grant.expiresAtMs - Date.now() + 1);
    const claimed = await ticket.claim();
    expect(claimed).toMatchObject({ admitted: false, denial: { reason: "expired" } });
    expect((await storyOf(agent)).filter((line) => line === "call")).toEqual([]);
  });

  it("claims nothing for an agent that went away", async () => {
    const agent = await enrolAgent();
    const calls = watched();
    const gone = new AbortController();
    const headers = {
      "content-type": "text/plain",
      authorization: `DPoP ${agent.token}`,
      dpop: await agent.prove("PUT", WAITS),
    };
    const request = new Request(ORIGIN + WAITS, { method: "PUT", body: "one", headers, signal: gone.signal });
    const answering = gate(request, deployment, createExecutionContext());
    await heard(agent);
    gone.abort();
    await decide(agent);
    expect((await answering).status).toBe(503);
    expect(calls).toEqual([]);
    expect((await put(agent, "one", WAITS)).status).toBe(200);
  });

  it("loses nothing with a reset of the object: the decision counts for who comes again", async () => {
    const agent = await enrolAgent();
    const calls = watched();
    const waiting = put(agent, "one", WAITS);
    await heard(agent);
    await reset(agent);
    const answer = await waiting;
    expect([answer.status, (await answer.json()) as object]).toEqual([
      503,
      expect.objectContaining({ type: "about:blank" }),
    ]);
    await decide(agent);
    expect((await put(agent, "one", WAITS)).status).toBe(200);
    expect(calls).toHaveLength(1);
  });

  it("is over with the task, as any call after that", async () => {
    const task = { id: "build-platform_t1", purpose: "test", deadlineMs: Date.now() + 3_000 };
    const agent = await enrolAgent({ task });
    const calls = watched();
    expect((await put(agent, "one", WAITS)).status).toBe(401);
    expect(calls).toEqual([]);
  });

  it.each<[string, (agent: Agent) => Promise<unknown>]>([
    [
      "a kill",
      (agent) =>
        instanceOf(deployment, agent.id).close(switchOf({ reach: "instance", target: { instance: agent.id } })),
    ],
    ["a kill by the switchboard", (agent) => flip({ reach: "instance", target: { instance: agent.id } })],
    ["a revocation", (agent) => instanceOf(deployment, agent.id).revoke("the platform", "test")],
  ])("is answered at once as one of a stopped instance by %s, and the desk hears of it", async (_, stop) => {
    const agent = await enrolAgent();
    const calls = watched();
    const waiting = put(agent, "one", WAITS);
    const [request] = await heard(agent);
    await stop(agent);
    expect((await waiting).status).toBe(401);
    await until(async () => expect((await requestsOf(agent))[0]?.state).toBe("cancelled"));
    expect(await desk().decide(request!.id, decision())).toMatchObject({
      kind: "over",
      approval: { state: "cancelled" },
    });
    const story = await storyOf(agent);
    expect(story.indexOf("approval cancelled")).toBeGreaterThan(story.indexOf("switched"));
    expect(calls).toEqual([]);
  });

  it("a switch of its upstream cancels it, and the one of another does not", async () => {
    const agent = await enrolAgent({ groups: ["engineering"] });
    const calls = watched();
    const waiting = put(agent, "one", WAITS);
    await heard(agent);
    const of = (upstream: string) => switchOf({ reach: "upstream", target: { upstream }, act: "pause" });
    await instanceOf(deployment, agent.id).close(of("slack"));
    expect((await requestsOf(agent))[0]?.state).toBe("asked");
    const pause = of("github");
    await instanceOf(deployment, agent.id).close(pause);
    expect((await waiting).status).toBe(404);
    await until(async () => expect((await requestsOf(agent))[0]?.state).toBe("cancelled"));
    // What was cancelled by a pause can be asked for anew when it is over.
    await instanceOf(deployment, agent.id).reopen(pause.id, null);
    watched();
    const again = put(agent, "one", WAITS);
    await heard(agent, 2);
    await decide(agent);
    expect((await again).status).toBe(200);
    expect(calls).toEqual([]);
  });

  it("a human who loses the group that allowed it: it is cancelled, and does not exist any more", async () => {
    const agent = await enrolAgent();
    const calls = watched();
    const waiting = put(agent, "one", WAITS);
    const [request] = await heard(agent);
    const target = { human: agent.enrolment.human };
    const narrow = {
      act: "narrow" as const,
      reach: "human" as const,
      target,
      groups: [],
      eventAtMs: Date.now() + 1_000,
    };
    await instanceOf(deployment, agent.id).close(switchOf(narrow));
    expect((await waiting).status).toBe(404);
    await until(async () => expect((await requestsOf(agent))[0]?.state).toBe("cancelled"));
    expect(await desk().decide(request!.id, decision())).toMatchObject({
      kind: "over",
      approval: { cause: "not within the ceilings" },
    });
    expect(calls).toEqual([]);
  });

  it("is over with the deadline, and the end of the transcript cancels what nobody decided", async () => {
    const agent = await enrolAgent();
    watched();
    await put(agent);
    await heard(agent);
    const clock = later(3_700_000);
    await runInDurableObject(instanceStub(agent.id), (instance) => instance.alarm());
    const [request] = await until(async () => {
      const found = await requestsOf(agent);
      expect(found[0]?.state).toBe("expired");
      return found;
    });
    expect(await desk().decide(request!.id, decision())).toMatchObject({ kind: "over" });
    clock.mockRestore();
  });
});

describe("an approval that races with a kill", () => {
  it("whichever comes first, nothing passes after the kill", async () => {
    for (const order of ["kill first", "approve first", "both"] as const) {
      const agent = await enrolAgent();
      const calls = watched();
      await put(agent);
      const [request] = await heard(agent);
      const kill = () =>
        instanceOf(deployment, agent.id).close(switchOf({ reach: "instance", target: { instance: agent.id } }));
      const approve = () => desk().decide(request!.id, decision());
      if (order === "kill first") {
        await kill();
        expect(await approve()).toMatchObject({ kind: "over" });
      } else if (order === "approve first") {
        expect(await approve()).toMatchObject({ kind: "decided" });
        await kill();
      } else await Promise.all([approve(), kill()]);
      expect((await put(agent)).status).toBe(401);
      expect(calls).toEqual([]);
      await until(async () => expect((await requestsOf(agent))[0]?.state).toBe("cancelled"));
    }
  });

  it("in one turn of the object: a switch that is not on record yet already stops a decision", async () => {
    const agent = await enrolAgent();
    watched();
    await put(agent);
    const [request] = await heard(agent);
    await runInDurableObject(instanceStub(agent.id), async (instance) => {
      const closing = instance.close(switchOf({ reach: "instance", target: { instance: agent.id } }));
      expect(await instance.decideApproval(request!.id, decision())).toMatchObject({
        kind: "over",
        approval: { state: "cancelled", cause: "switched" },
      });
      await closing;
    });
    expect(await storyOf(agent)).toEqual(["approval asked", "switched", "approval cancelled"]);
  });
});
