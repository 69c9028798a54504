import { runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import { Orphans } from "../../durable-objects/orphans.ts";
import { instanceOf } from "../../src/objects.ts";
import { type Agent, deployment, enrolAgent, instanceStub, recordsOf } from "./kit.ts";
import { abortInstance, ask, bytesLeft, team } from "./quota-kit.ts";
import { answer, begin, flush, isRaw, MIB, noise, OBJECT, verified, watchBucket } from "./raw-kit.ts";

vi.setConfig({ testTimeout: 30_000 });
afterEach(() => vi.restoreAllMocks());

/** Of a running call that no quota has been told of. */
const UNTOLD = deployment.config.transcripts.streamLeadBytes + 65_536;
const LIMIT = 12 * MIB;

const agentWithin = (bytes: number): Promise<Agent> =>
  enrolAgent({ limits: { ...deployment.config.agents["triage-bot"]!.limits, bytes } });

describe("a long body that was lost, before R2 has been read for its record", () => {
  it("is counted: what came of it is not passed once more beside it", async () => {
    const agent = await agentWithin(LIMIT);
    const watched = watchBucket(agent);
    const lost = await begin(agent);
    expect(await answer(lost.lease, noise(OBJECT + MIB))).toBe(true);
    await vi.waitFor(() => expect(watched.stored).toHaveLength(1));
    watched.beforeGet = (key) => (isRaw(key) ? Promise.reject(new Error("a read that fails")) : undefined);
    vi.spyOn(console, "error").mockImplementation(() => {});
    await abortInstance(agent);
    await runInDurableObject(instanceStub(agent.id), (instance) => instance.alarm());
    expect(await bytesLeft(agent)).toBe(LIMIT - OBJECT - MIB);
    const next = await begin(agent);
    let passed = 0;
    while ((await next.lease.append(noise(MIB))) !== null) passed += MIB;
    expect(passed).toBeLessThanOrEqual(LIMIT - OBJECT - MIB);
    expect((await recordsOf(agent)).filter(({ type }) => type === "answer").map(({ call }) => call)).not.toContain(
      lost.seq,
    );
  });

  it("is what the instance says to a quota that asks for the rest", async () => {
    const { members, task } = await team("bytes-bot", 1);
    const [agent] = members as [Agent];
    const name = `mebibytes.${task}`;
    const admission = await ask(agent);
    if (!admission.admitted) throw new Error(JSON.stringify(admission.denial));
    // Of so much that it does not lie in lines.
    for (let i = 0; i < 3; i++) expect(await admission.lease.append(new Uint8Array(100_000), 2 * MIB)).not.toBeNull();
    vi.spyOn(Orphans.prototype, "recordLarge").mockResolvedValue();
    await abortInstance(agent);
    expect(await instanceOf(deployment, agent.id).recall(name)).toMatchObject({ used: { bytes: 300_000 + UNTOLD } });
  });

  it("counts no less after another reset, where only its last object says how long it is, and the end says so", async () => {
    const agent = await agentWithin(64 * MIB);
    const watched = watchBucket(agent);
    const { lease } = await begin(agent);
    expect(await answer(lease, noise(OBJECT + 2 * MIB))).toBe(true);
    await vi.waitFor(() => expect(watched.stored).toHaveLength(1));
    // Its last object leaves for R2 with a life of the object that can't read the others.
    watched.beforeGet = (key) => (isRaw(key) ? Promise.reject(new Error("a read that fails")) : undefined);
    vi.spyOn(console, "error").mockImplementation(() => {});
    await abortInstance(agent);
    await vi.waitFor(async () => {
      await runInDurableObject(instanceStub(agent.id), (instance) => instance.alarm());
      expect(watched.stored.filter(isRaw)).toHaveLength(2);
    });
    await abortInstance(agent);
    const left = await bytesLeft(agent);
    expect(left).toBeLessThan(64 * MIB - OBJECT - 2 * MIB);
    expect(left).toBeGreaterThan(64 * MIB - 2 * OBJECT - 2 * MIB);
    watched.beforeGet = () => {};
    vi.spyOn(Date, "now").mockReturnValue(agent.enrolment.task.deadlineMs + 1);
    await runInDurableObject(instanceStub(agent.id), (instance) => instance.alarm());
    await flush(agent);
    expect(await verified(agent)).toMatchObject({ status: "ended", openCalls: [] });
  });
});
