import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import { AgentInstance } from "../../durable-objects/agent-instance.ts";
import { Journal } from "../../durable-objects/journal.ts";
import { Roster } from "../../durable-objects/roster.ts";
import { receiptOf } from "../../src/control/receipt.ts";
import { switchboardOf } from "../../src/objects.ts";
import { type Agent, boardStub, deployment, enrolAgent, flipRequest, operator, verdictOf } from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

// Roster shards that are out of the switchboard's reach, while others are not.
const board = switchboardOf(deployment);
const ring = () => runDurableObjectAlarm(boardStub()).catch(() => false);
const shardOf = (roster: Roster) => (roster as unknown as { readonly ctx: DurableObjectState }).ctx.id.name;
const receipt = async (id: string) => receiptOf((await board.read(id))!, "x");

/** One agent on each of four shards, of one human. */
async function four(first: number): Promise<{ readonly human: string; readonly agents: readonly Agent[] }> {
  const human = `human-${crypto.randomUUID()}`;
  const agents = await Promise.all([0, 1, 2, 3].map((i) => enrolAgent({ human, rosterShard: first + i })));
  return { human, agents };
}

/** What this shard does instead of taking a switch, as long as it is not undefined. */
function faulty(shard: number, fault: () => Promise<never> | undefined) {
  const { apply } = Roster.prototype;
  return vi.spyOn(Roster.prototype, "apply").mockImplementation(async function (this: Roster, sw, waitMs) {
    const failing = shardOf(this) === String(shard) ? fault() : undefined;
    return failing ?? apply.call(this, sw, waitMs);
  });
}

describe("a shard that does not answer", () => {
  it("keeps nobody of the other shards from being told again", async () => {
    const { human, agents } = await four(140);
    const applied = faulty(140, () => new Promise<never>(() => {}));
    const { close } = AgentInstance.prototype;
    let lost = 0;
    const closing = vi.spyOn(AgentInstance.prototype, "close").mockImplementation(async function (
      this: AgentInstance,
      sw,
    ) {
      // Each of the three others is not reached at first.
      if (++lost <= 3) throw new Error("lost");
      return close.call(this, sw);
    });
    const request = flipRequest({ reach: "human", target: { human } });
    const flipping = board.flip(request);
    await vi.waitFor(() => expect(closing).toHaveBeenCalledTimes(3));
    await vi.waitFor(
      async () => {
        void ring();
        expect((await receipt(request.id)).reached).toBe(3);
      },
      { interval: 500 },
    );
    expect(await receipt(request.id)).toMatchObject({ status: "pending", missing: 0, unheardShards: 1 });
    applied.mockRestore();
    await flipping;
    await vi.waitFor(
      async () => {
        await ring();
        expect(await receipt(request.id)).toMatchObject({ status: "done", reached: 4 });
      },
      { timeout: 15_000, interval: 200 },
    );
    expect("unheardShards" in (await receipt(request.id))).toBe(false);
    expect(await Promise.all(agents.map(verdictOf))).toEqual(agents.map(() => "switched"));
  }, 30_000);

  it("is never passed over: nothing is done while its members may act, and a lift makes it no less", async () => {
    const { human, agents } = await four(144);
    let isDown = true;
    faulty(144, () => (isDown ? Promise.reject(new Error("down")) : undefined));
    const { id } = flipRequest();
    const flipped = await board.flip(flipRequest({ id, reach: "human", target: { human } }));
    expect(flipped).toMatchObject({ flipped: true, state: { status: "pending" } });
    expect(await receipt(id)).toMatchObject({ reached: 3, missing: 0, unheardShards: 1 });
    await ring();
    await board.lift(id, operator());
    await ring();
    expect(await receipt(id)).toMatchObject({ status: "pending", unheardShards: 1 });
    isDown = false;
    await ring();
    expect(await receipt(id)).toMatchObject({ status: "done", reached: 4 });
    expect(await Promise.all(agents.map(verdictOf))).toEqual(agents.map(() => "switched"));
  });

  it("for a moment, as one that is reset, is asked again at once, and the flip is done with its answer", async () => {
    const { human } = await four(148);
    let failures = 1;
    faulty(148, () => (failures-- > 0 ? Promise.reject(new Error("reset")) : undefined));
    const { id } = flipRequest();
    await board.flip(flipRequest({ id, reach: "human", target: { human } }));
    expect(await receipt(id)).toMatchObject({ status: "done", reached: 4 });
  });
});

it("a journal that is slow keeps no alarm from the next, which asks the shards again", async () => {
  const { human } = await four(152);
  const appended = vi.spyOn(Journal.prototype, "append").mockImplementation(async () => {
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    return true;
  });
  for (let i = 0; i < 4; i++) await board.flip(flipRequest({ act: "pause", reach: "human", target: { human } }));
  await runInDurableObject(boardStub(), (object) => object.alarm());
  // Told one after the other, and not waited for.
  expect(appended.mock.calls.length).toBeLessThan(4);
  await vi.waitFor(() => expect(appended.mock.calls.length).toBeGreaterThanOrEqual(4), { timeout: 10_000 });
});
