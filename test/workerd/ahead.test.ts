import { runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { State } from "../../durable-objects/ledger.ts";
import type { LeaseCalls } from "../../src/instance/contract.ts";
import { instanceOf } from "../../src/objects.ts";
import { chosen } from "../chosen.ts";
import type { Random } from "../random.ts";
import { type Agent, deployment, enrolAgent, instanceStub, settlement } from "./kit.ts";
import { abortInstance, ask } from "./quota-kit.ts";
import { giveUpOrphans } from "./resume-kit.ts";

vi.setConfig({ testTimeout: 30_000 });
afterEach(() => vi.restoreAllMocks());

/** With the newest record. */
const stored = (agent: Agent): Promise<State> =>
  runInDurableObject(instanceStub(agent.id), (_instance, { storage: { sql } }) => {
    const tables = sql.exec<{ name: string }>("SELECT name FROM sqlite_master WHERE name GLOB 'log_[0-9]*'").toArray();
    const states = tables.flatMap(({ name }) =>
      sql.exec<{ seq: number; state: string }>(`SELECT seq, state FROM ${name} WHERE state IS NOT NULL`).toArray(),
    );
    return JSON.parse(states.sort((a, b) => b.seq - a.seq)[0]!.state) as State;
  });

/** Of a budget that is soon at its end, of one that is not, and of one whose calls hold all that they would. */
const BUDGETS = [4_000, 100_000, 10_000_000];

describe("what calls hold of the byte budget", () => {
  it.each(BUDGETS)("of %i is each call's own, adds up, and is nobody's when they are over", async (bytes) => {
    const random = chosen();
    const { limits } = deployment.config.agents["triage-bot"]!;
    const many = { calls: 1_000, burst: 1_000, callsPerSecond: 1_000 };
    for (let life = 0; life < 3; life++) {
      const agent = await enrolAgent({ limits: { ...limits, ...many, bytes, concurrency: random.between(2, 4) } });
      await live(agent, bytes, random);
    }
  });
});

async function check(agent: Agent, limit: number): Promise<State> {
  const state = await stored(agent);
  const { open, usage, ahead = {} } = state;
  expect(Object.values(ahead).reduce((sum, one) => sum + one, 0)).toBe(usage.bytesAhead);
  expect(open.map(String)).toEqual(expect.arrayContaining(Object.keys(ahead)));
  expect(usage.bytes + usage.bytesAhead).toBeLessThanOrEqual(limit);
  return state;
}

async function live(agent: Agent, limit: number, random: Random): Promise<void> {
  const instance = () => instanceOf(deployment, agent.id);
  const running = new Map<number, LeaseCalls>();
  const dead = new Set<number>();
  const seqs = new Set<number>();
  const some = (): Uint8Array => new Uint8Array(random.between(0, Math.min(limit / 8, 20_000)));
  const steps = {
    ask: async () => {
      const admission = await ask(agent);
      if (!admission.admitted) return;
      running.set(admission.seq, admission.lease);
      seqs.add(admission.seq);
    },
    append: async () => {
      if (running.size > 0) await random.one([...running.values()]).append(some());
    },
    settle: async () => {
      if (running.size === 0) return;
      const [seq, lease] = random.one([...running]);
      const outcome = random.one(["complete", "cut", "not-sent"] as const);
      await lease.settle(settlement({ outcome, tail: outcome === "not-sent" ? new Uint8Array(0) : some() }));
      running.delete(seq);
    },
    reset: async () => {
      await abortInstance(agent);
      for (const seq of running.keys()) dead.add(seq);
      running.clear();
    },
    resume: async () => {
      if (dead.size === 0) return;
      const seq = random.one([...dead]);
      dead.delete(seq);
      const given = await instance().resume({ seq, call: agent.admission().call!, tickets: [] });
      if (given.kind === "resumed") running.set(seq, given.lease);
    },
    stopped: async () => {
      if (seqs.size > 0) await instance().callStopped(random.one([...seqs]));
    },
    // And their Workers say that they have stopped: they hold no places.
    giveUp: async () => {
      await giveUpOrphans(agent);
      for (const seq of dead) await instance().callStopped(seq);
      dead.clear();
    },
  };
  for (let i = 0; i < 30; i++) {
    await steps[random.pick({ ask: 6, append: 8, settle: 3, reset: 3, resume: 4, stopped: 1, giveUp: 1 })]();
    await check(agent, limit);
  }
  for (const lease of running.values()) await lease.settle(settlement({ outcome: "cut", tail: new Uint8Array(0) }));
  await abortInstance(agent);
  await giveUpOrphans(agent);
  // A record that says how it stands, be it a refusal.
  await ask(agent).then((admission) => admission.admitted && admission.lease.settle(settlement()));
  expect(await check(agent, limit)).toMatchObject({ open: [], usage: { bytesAhead: 0 } });
}
