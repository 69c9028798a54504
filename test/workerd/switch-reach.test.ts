import { runInDurableObject } from "cloudflare:test";
import fc from "fast-check";
import { afterEach, describe, expect, it, vi } from "vitest";
import { type Booked, BookedSwitches } from "../../durable-objects/booked-switches.ts";
import { Members } from "../../durable-objects/members.ts";
import { type Attributes, isInReach, REACHES, type Reach, type Target } from "../../src/control/switch.ts";
import { emailDigest } from "../../src/identity/email-digest.ts";
import type { Enrolment } from "../../src/instance/contract.ts";
import { type Agent, enrolAgent, flip, ISSUES, recordsOf, rosterStub, switchOf, upstream, verdictOf } from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

const GITHUB_AND_SLACK = [
  { type: "http", upstream: "github", operations: ["GET /repos/{owner}/{repo}/issues"], where: { owner: ["acme"] } },
  { type: "http", upstream: "slack", operations: ["GET /a"] },
];
const task = (id: string): Enrolment["task"] => ({ id, purpose: "test", deadlineMs: Date.now() + 3_600_000 });
const uuid = () => crypto.randomUUID();

describe("each reach, in the running objects", () => {
  /** What the one in reach has, which switch it is, and how it differs from the one out of reach. */
  const cases: [
    Reach,
    string,
    () => { in: Partial<Enrolment>; out: Partial<Enrolment>; target: (inside: Agent) => Target },
  ][] = [
    ["instance", "itself", () => ({ in: {}, out: {}, target: ({ id }) => ({ instance: id }) })],
    [
      "instance",
      "a descendant",
      () => {
        const parent = uuid();
        return {
          in: { ancestors: ["root", parent] },
          out: { ancestors: ["root"] },
          target: () => ({ instance: parent }),
        };
      },
    ],
    [
      "task",
      "its task",
      () => {
        const [one, other] = [uuid(), uuid()];
        return { in: { task: task(one) }, out: { task: task(other) }, target: () => ({ task: one }) };
      },
    ],
    [
      "human",
      "by id",
      () => {
        const human = uuid();
        return { in: { human }, out: { human: uuid() }, target: () => ({ human }) };
      },
    ],
    [
      "human",
      "by the digest of an address",
      () => {
        const digest = emailDigest(`${uuid()}@acme.example`);
        return {
          in: { human: uuid(), emailDigest: digest },
          out: { human: uuid(), emailDigest: emailDigest("other@acme.example") },
          target: () => ({ human: digest }),
        };
      },
    ],
    [
      "agent-version",
      "one version",
      () => {
        const version = uuid();
        return {
          in: { agentVersion: version },
          out: { agentVersion: uuid() },
          target: () => ({ agent: "triage-bot", agentVersion: version }),
        };
      },
    ],
    [
      "agent-version",
      "of another agent: nobody",
      () => {
        const version = uuid();
        return {
          in: { agentVersion: "unaffected" },
          out: { agentVersion: version },
          target: ({ id }) => ({ agent: id.slice(0, 8), agentVersion: version }),
        };
      },
    ],
  ];
  it.each(cases)("%s: %s", async (reach, name, make) => {
    const { in: within, out, target } = make();
    const [inside, outside] = await Promise.all([enrolAgent(within), enrolAgent(out)]);
    const { reached } = await flip({ reach, target: target(inside) });
    const isNobody = name.endsWith("nobody");
    expect(reached.map(({ instance }) => instance)).toEqual(isNobody ? [] : [inside.id]);
    expect(await Promise.all([inside, outside].map(verdictOf))).toEqual([
      isNobody ? "admitted" : "switched",
      "admitted",
    ]);
  });

  it("exactly one of a hundred instances dies, and it is the one that was meant", async () => {
    const agents: Agent[] = [];
    for (let i = 0; i < 100; i += 20)
      agents.push(...(await Promise.all(Array.from({ length: 20 }, () => enrolAgent()))));
    const victim = agents[61]!;
    const { reached, idle, status } = await flip({ reach: "instance", target: { instance: victim.id } });
    expect([reached.map(({ instance }) => instance), idle, status]).toEqual([[victim.id], 0, "done"]);
    const verdicts = await Promise.all(agents.map(verdictOf));
    expect(verdicts).toEqual(agents.map((agent) => (agent === victim ? "switched" : "admitted")));
  }, 30_000);

  it("of an upstream blocks and cuts its calls alone, for whom else it means", async () => {
    const human = uuid();
    const [hers, others] = await Promise.all([enrolAgent({ human, scope: GITHUB_AND_SLACK }), enrolAgent()]);
    upstream(
      () =>
        new Response(
          new ReadableStream({
            type: "bytes",
            start: (controller: ReadableByteStreamController) =>
              controller.enqueue(new TextEncoder().encode("data: 1\n\n")),
          } as UnderlyingByteSource),
          { headers: { "content-type": "text/event-stream" } },
        ),
    );
    const readers = await Promise.all(
      [hers, others].map(async (agent) => (await agent.call(ISSUES)).body!.getReader()),
    );
    for (const reader of readers) await reader.read();
    const slack = await flip({ reach: "human-upstream", target: { human, upstream: "slack" } });
    expect(slack.reached).toMatchObject([{ instance: hers.id, answer: { cut: 0, unconfirmed: 0 } }]);
    const github = await flip({ reach: "human-upstream", target: { human, upstream: "github" } });
    expect(github).toMatchObject({
      status: "done",
      reached: [{ instance: hers.id, answer: { cut: 1, unconfirmed: 0 } }],
    });
    await expect(readers[0]!.read()).rejects.toThrow();
    expect(await Promise.all([hers, others].map(verdictOf))).toEqual(["a switch of this upstream", "admitted"]);
    expect((await hers.call(ISSUES)).status).toBe(404);
    const records = await recordsOf(hers);
    expect(records.find(({ type }) => type === "answer")).toMatchObject({
      outcome: "cut",
      cause: "upstream-switched",
      switch: github.switch.id,
    });
    expect(records.at(-1)).toMatchObject({ type: "refused", decision: { allowed: false, layer: "switch" } });
    await readers[1]!.cancel();
    // Of everybody it means the agent, too: the last test here, since it stands.
    await flip({ reach: "agent-upstream", target: { agent: "nobody", upstream: "github" } });
    expect(await verdictOf(others)).toBe("admitted");
    await flip({ reach: "agent-upstream", target: { agent: "triage-bot", upstream: "github" } });
    expect(await verdictOf(others)).toBe("a switch of this upstream");
    await flip({ reach: "agent", target: { agent: "triage-bot" } });
    expect(await Promise.all([hers, others].map(verdictOf))).toEqual(["switched", "switched"]);
    await expect(enrolAgent()).rejects.toThrow("not enrolled: switched");
  });
});

describe("the table of members", () => {
  const name = fc.constantFrom("a", "b", "c", "ab", "a_b", "a-b", "a%");
  const member: fc.Arbitrary<Attributes> = fc.record({
    instance: name,
    human: name,
    emailDigest: fc.option(name),
    groupsAtMs: fc.constantFrom(1, 2, 3),
    task: name,
    agent: name,
    agentVersion: name,
    client: name,
    upstreams: fc.uniqueArray(name, { maxLength: 3 }),
    ancestors: fc.uniqueArray(name, { maxLength: 3 }),
    mandate: fc.option(name, { nil: null }),
    deadlineMs: fc.constant(1),
  });
  const aim = fc.constantFrom(...(Object.keys(REACHES) as Reach[])).chain((reach) =>
    fc.record({
      reach: fc.constant(reach),
      target: fc.record(Object.fromEntries(REACHES[reach].map((one) => [one, name]))) as fc.Arbitrary<Target>,
    }),
  );

  it("finds who is in reach, and no one else", async () => {
    await runInDurableObject(rosterStub(200), (_roster, { storage }) => {
      const members = new Members(storage.sql);
      fc.assert(
        fc.property(
          fc.uniqueArray(fc.tuple(member, fc.boolean()), { maxLength: 6, selector: ([one]) => one.instance }),
          aim,
          fc.option(fc.constantFrom(1, 2, 3, 4), { nil: undefined }),
          (all, { reach, target }, eventAtMs) => {
            storage.sql.exec("DELETE FROM members");
            for (const [one, isIdle] of all) members.put(one, 1, isIdle ? 10 : 11);
            const sw = switchOf({ reach, target, ...(eventAtMs === undefined ? {} : { act: "narrow", eventAtMs }) });
            const expected = all.filter(([one, isIdle]) => isIdle && isInReach(sw, one)).length;
            expect(members.countIdle(sw, 10)).toBe(expected);
            for (const [one] of all) expect(isInReach(sw, members.get(one.instance)!)).toBe(isInReach(sw, one));
          },
        ),
        { numRuns: 500 },
      );
    });
  });

  it("misses none, where the book is asked for those that can concern somebody", () => {
    const switches = fc.array(
      fc
        .tuple(aim, fc.boolean())
        .map(([{ reach, target }, isNarrow]) =>
          switchOf({ reach, target, ...(isNarrow ? { act: "narrow", eventAtMs: 3 } : {}) }),
        ),
      { maxLength: 8 },
    );
    fc.assert(
      fc.property(switches, member, fc.nat(7), (all, one, at) => {
        const book = new BookedSwitches();
        for (const sw of all) book.set(sw.id, { sw, openedAtMs: null });
        for (const sw of all.slice(0, 2)) book.set(sw.id, { sw, openedAtMs: 5 });
        const gone = all[at];
        if (gone !== undefined) book.delete(gone.id);
        const inReach = (booked: Iterable<Booked>) =>
          [...booked].filter(({ sw }) => isInReach(sw, one)).map(({ sw, openedAtMs }) => `${sw.id} ${openedAtMs}`);
        expect(inReach(book.concerning(one)).sort()).toEqual(inReach(book.values()).sort());
        expect(book.size).toBe(all.length - (gone === undefined ? 0 : 1));
      }),
      { numRuns: 500 },
    );
  });

  it("holds for all who are named by something that nobody knows", () => {
    const attributes = { ...fc.sample(member, 1)[0]!, human: "h" };
    expect(isInReach({ reach: "galaxy" as Reach, target: { human: "x" } }, attributes)).toBe(true);
    expect(isInReach({ reach: "constructor" as Reach, target: {} }, attributes)).toBe(true);
    expect(isInReach({ reach: "human", target: {} }, attributes)).toBe(true);
    expect(isInReach({ reach: "human", target: { human: "x" } }, attributes)).toBe(attributes.emailDigest === "x");
  });
});
