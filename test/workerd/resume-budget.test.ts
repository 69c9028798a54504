import { runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { Limits } from "../../src/config/define.ts";
import type { Admission, Resumption } from "../../src/instance/contract.ts";
import { instanceOf } from "../../src/objects.ts";
import { type Agent, deployment, enrolAgent, instanceStub, settlement } from "./kit.ts";
import { abortInstance, ask, bytesLeft } from "./quota-kit.ts";
import { giveUpOrphans } from "./resume-kit.ts";

vi.setConfig({ testTimeout: 20_000 });
afterEach(() => vi.restoreAllMocks());

const LEAD = deployment.config.transcripts.streamLeadBytes;
const NO_TAIL = settlement({ tail: new Uint8Array(0), heldBytes: 0 });

const agentWith = (limits: Partial<Limits>): Promise<Agent> =>
  enrolAgent({ limits: { ...deployment.config.agents["triage-bot"]!.limits, ...limits } });

async function admitted(agent: Agent): Promise<Extract<Admission, { readonly admitted: true }>> {
  const admission = await ask(agent);
  if (!admission.admitted) throw new Error(JSON.stringify(admission.denial));
  return admission;
}
async function again(agent: Agent, seq: number): Promise<Extract<Resumption, { readonly kind: "resumed" }>> {
  const resumed = await instanceOf(deployment, agent.id).resume({ seq, call: agent.admission().call!, tickets: [] });
  if (resumed.kind !== "resumed") throw new Error(resumed.kind);
  return resumed;
}

describe("what a call holds of the budget ahead of the count", () => {
  it("is the same after every reset: none of them takes any of the budget", async () => {
    const agent = await agentWith({ bytes: 4 * LEAD, concurrency: 2 });
    const { seq, lease } = await admitted(agent);
    const other = await admitted(agent);
    expect(await lease.append(new Uint8Array(1_000))).toBe(LEAD);
    for (let life = 0; life < 5; life++) {
      await abortInstance(agent);
      const resumed = await again(agent, seq);
      expect([resumed.aheadBytes, resumed.answerBytes, resumed.cause]).toEqual([LEAD, 1_000 + life, null]);
      expect(await resumed.lease.append(new Uint8Array(1))).toBe(LEAD);
    }
    await abortInstance(agent);
    expect(await (await again(agent, seq)).lease.settle(NO_TAIL)).toBe(true);
    expect(await (await again(agent, other.seq)).lease.settle(NO_TAIL)).toBe(true);
    expect(await bytesLeft(agent)).toBe(4 * LEAD - 1_005);
  });

  it("is never more than what is charged where nobody hears of it again", async () => {
    const agent = await agentWith({ bytes: 1_000, concurrency: 2 });
    const first = await admitted(agent);
    const second = await admitted(agent);
    expect(await second.lease.append(new Uint8Array(500))).toBe(0);
    // Of the budget's other half nothing was used.
    expect(await first.lease.settle(NO_TAIL)).toBe(true);
    await abortInstance(agent);
    const { aheadBytes } = await again(agent, second.seq);
    // It passes that, and its object and its Worker die before anything of it is on record.
    await abortInstance(agent);
    await giveUpOrphans(agent);
    expect(await bytesLeft(agent)).toBeLessThanOrEqual(500 - aheadBytes);
  });

  it("does not cover what was appended beyond it when the object died before it could say so: the call is cut by the budget", async () => {
    const agent = await agentWith({ bytes: 1_000, concurrency: 1 });
    const { seq, lease } = await admitted(agent);
    // Its Worker does not hear of it.
    expect(await lease.append(new Uint8Array(1_500))).toBeNull();
    await abortInstance(agent);
    const resumed = await again(agent, seq);
    expect(resumed).toMatchObject({ answerBytes: 1_500, cause: "budget" });
    expect(await resumed.lease.settle(settlement({ outcome: "cut", tail: new Uint8Array(0), heldBytes: 0 }))).toBe(
      "budget",
    );
    expect(await bytesLeft(agent)).toBe(0);
  });

  it("is charged where it does not stand on record whose it is", async () => {
    const agent = await agentWith({ bytes: 4 * LEAD, concurrency: 2 });
    const { seq } = await admitted(agent);
    await runInDurableObject(instanceStub(agent.id), (_instance, { storage: { sql } }) => {
      sql.exec("UPDATE log_0 SET state = json_remove(state, '$.ahead') WHERE state IS NOT NULL");
    });
    await abortInstance(agent);
    const { lease, aheadBytes } = await again(agent, seq);
    expect(aheadBytes).toBe(0);
    expect(await lease.append(new Uint8Array(10))).toBe(0);
    expect(await lease.settle(NO_TAIL)).toBe(true);
    expect(await bytesLeft(agent)).toBe(3 * LEAD - 10);
  });

  it("of one that is lost is charged with its record, and nobody else has it before", async () => {
    const agent = await agentWith({ bytes: 1_000, concurrency: 2 });
    const { aheadBytes } = await admitted(agent);
    expect(aheadBytes).toBe(500);
    await abortInstance(agent);
    const beside = await admitted(agent);
    expect(beside.aheadBytes).toBeLessThanOrEqual(500);
    expect(await beside.lease.append(new Uint8Array(501))).toBeNull();
    await beside.lease.settle(settlement({ outcome: "cut", tail: new Uint8Array(0) }));
    await giveUpOrphans(agent);
    expect(await bytesLeft(agent)).toBe(0);
  });
});
