import { runDurableObjectAlarm } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { Admission, Resumption } from "../../src/instance/contract.ts";
import { instanceOf } from "../../src/objects.ts";
import { type Agent, deployment, enrolAgent, recordsOf, settlement } from "./kit.ts";
import { abortInstance, ask, ofTask, quotaStub, readQuota, team, verdict } from "./quota-kit.ts";

vi.setConfig({ testTimeout: 30_000 });
afterEach(() => vi.restoreAllMocks());

type Admitted = Extract<Admission, { readonly admitted: true }>;
type Resumed = Extract<Resumption, { readonly kind: "resumed" }>;

const MODEL_CALL = {
  upstream: "model",
  method: "POST",
  segments: ["v1", "chat"],
  query: [],
  body: { kind: "none" },
} as const;
const NO_TAIL = settlement({ tail: new Uint8Array(0), heldBytes: 0 });

async function admitted(asked: Promise<Admission>): Promise<Admitted> {
  const admission = await asked;
  if (!admission.admitted) throw new Error(JSON.stringify(admission.denial));
  return admission;
}
/** As its Worker would, of an admission that the object's last life gave it. */
async function again(agent: Agent, { seq, tickets = [] }: Admitted, call = agent.admission().call!): Promise<Resumed> {
  const resumed = await instanceOf(deployment, agent.id).resume({ seq, call, tickets });
  if (resumed.kind !== "resumed") throw new Error(resumed.kind);
  return resumed;
}
const inTime = (work: () => Promise<void>): Promise<void> => vi.waitFor(work, { timeout: 10_000, interval: 250 });

describe("shared limits of calls that are taken up again", () => {
  it("places: held without a gap, and given back once", async () => {
    const { members, task } = await team("places-bot", 2);
    const [first, second] = members as [Agent, Agent];
    const name = `places.${task}`;
    const running = await Promise.all([admitted(ask(first)), admitted(ask(first))]);
    await abortInstance(first);
    const resumed = [await again(first, running[0]!), await again(first, running[1]!)];
    const others = [await admitted(ask(second))];
    expect(await verdict(ask(second))).toBe("limited by places");
    expect(await verdict(ask(first))).toBe("limited by places");
    // When what was lost would have been free, they still run.
    let nowMs = Date.now() + 31_000;
    const clock = vi.spyOn(Date, "now").mockImplementation(() => nowMs);
    await Promise.all([...resumed, ...others].map(({ lease }) => lease.beat()));
    /** Whoever waits asks again, and the quota asks whoever may have something left. */
    const tryAgain = async (agent: Agent): Promise<string> => {
      nowMs += 1_000;
      await runDurableObjectAlarm(quotaStub(name));
      return verdict(ask(agent));
    };
    for (let i = 0; i < 3; i++) expect(await tryAgain(second)).toBe("limited by places");
    for (const { lease } of resumed) expect(await lease.settle(NO_TAIL)).toBe(true);
    // Two are free now, and no third.
    const words: string[] = [];
    for (let i = 0; i < 8; i++) words.push(await tryAgain(second));
    expect(words.filter((word) => word === "admitted")).toHaveLength(2);
    expect(words.at(-1)).toBe("limited by places");
    clock.mockRestore();
  });

  it("bytes: what passed in both lives, and no byte twice", async () => {
    const { members, task } = await team("bytes-bot", 1);
    const [agent] = members as [Agent];
    const name = `mebibytes.${task}`;
    const call = await admitted(ask(agent));
    for (let i = 0; i < 3; i++) expect(await call.lease.append(new Uint8Array(100_000))).not.toBeNull();
    await abortInstance(agent);
    const { lease, answerBytes } = await again(agent, call);
    expect(answerBytes).toBe(300_000);
    expect(await lease.append(new Uint8Array(50_000))).not.toBeNull();
    await abortInstance(agent);
    const third = await again(agent, call);
    expect(third.answerBytes).toBe(350_000);
    expect(await third.lease.settle(settlement({ tail: new Uint8Array(10_000) }))).toBe(true);
    // What it says where the quota asks it.
    expect(await instanceOf(deployment, agent.id).recall(name)).toMatchObject({ used: { bytes: 360_000 }, running: 0 });
    expect((await recordsOf(agent)).find(({ type }) => type === "answer")).toMatchObject({
      outcome: "complete",
      body: { bytes: 360_000, complete: true },
    });
  });

  it("units: reserved once, and settled with what the answer says", async () => {
    const change = ofTask("paying-bot");
    const agent = await enrolAgent({ ...change, limits: { ...change.limits!, units: { usd: 0.1 } } });
    const asked = () => instanceOf(deployment, agent.id).admit(agent.admission({ call: MODEL_CALL }));
    const call = await admitted(asked());
    await abortInstance(agent);
    const { lease } = await again(agent, call, MODEL_CALL);
    expect(await asked()).toMatchObject({ admitted: false, denial: { kind: "exhausted", budget: "units.usd" } });
    expect(await lease.settle(settlement({ units: { usd: 0.01 } }))).toBe(true);
    expect((await recordsOf(agent)).findLast(({ type }) => type === "answer")).toMatchObject({
      outcome: "complete",
      units: { usd: { charged: 0.01, by: "answer" } },
    });
    // 0.1 less 0.01, less the next one's reserve: of its own, and of the quota, whose cents are the same.
    let next: Admission | null = null;
    await inTime(async () => {
      next = await asked();
      expect(next).toMatchObject({ admitted: true, limits: { units: { usd: 0.027 } } });
    });
    await (next! as Admitted).lease.settle(settlement({ units: { usd: 0 } }));
    await inTime(async () => {
      await runDurableObjectAlarm(quotaStub(`money.${agent.enrolment.task.id}`));
      const state = await readQuota(`money.${agent.enrolment.task.id}`);
      expect(state!.dimensions.find(({ dimension }) => dimension === "units.usd")!.spent).toBe(0.01);
    });
  });
});

describe("an instance's own places", () => {
  it("are held by calls that wait, and by those that were taken up, each once", async () => {
    const limits = { ...deployment.config.agents["triage-bot"]!.limits, concurrency: 3 };
    const agent = await enrolAgent({ limits });
    const calls = [await admitted(ask(agent)), await admitted(ask(agent))];
    await abortInstance(agent);
    const one = await again(agent, calls[0]!);
    const third = await admitted(ask(agent));
    expect([third.limits.concurrency, await verdict(ask(agent))]).toEqual([0, "limited"]);
    // Another reset: what is on record of the places must count none twice.
    await abortInstance(agent);
    const resumed = [await again(agent, calls[0]!), await again(agent, calls[1]!), await again(agent, third)];
    expect(await verdict(ask(agent))).toBe("limited");
    expect(await one.lease.settle(NO_TAIL).catch(() => "gone")).toBe("gone");
    for (const { lease } of resumed) expect(await lease.settle(NO_TAIL)).toBe(true);
    expect((await admitted(ask(agent))).limits.concurrency).toBe(2);
  });
});
