import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import type { Roster } from "../../durable-objects/roster.ts";
import { type CloseAnswer, type Pushed, SILENT_WORKER_CUT_MS } from "../../src/control/acknowledgement.ts";
import type { FlipState, ShardProgress } from "../../src/control/contract.ts";
import { switchboardOf } from "../../src/objects.ts";
import { type Agent, boardStub, deployment, enrolAgent, flipRequest, rosterStub } from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

let first: Agent;
/** From then on the switchboard knows of one shard. */
beforeAll(async () => {
  first = await enrolAgent();
});

/** What the rosters say from now on. */
const rosterAnswers = (apply: () => Promise<ShardProgress>) =>
  runInDurableObject(rosterStub(first.enrolment.rosterShard), (roster) => {
    // On the class: what an object itself holds is not to be called over RPC.
    vi.spyOn(Object.getPrototypeOf(roster) as Roster, "apply").mockImplementation(apply);
  });
const flip = async (instance: string): Promise<FlipState> => {
  const answer = await switchboardOf(deployment).flip(flipRequest({ reach: "instance", target: { instance } }));
  if (!answer.flipped) throw new Error("not flipped");
  return answer.state;
};
const listed = async (instance: string) =>
  (await switchboardOf(deployment).list(null, 500))
    .filter((one) => one.switch.target.instance === instance)
    .map(({ status }) => status);

const progress = (...pushed: Pushed[]): ShardProgress => ({ pushed, isRunning: false, idle: 0 });
const answer = (change: Partial<CloseAnswer> = {}): CloseAnswer => ({
  cut: 1,
  unconfirmed: 0,
  acknowledgedAgeMs: 0,
  lastByteAgeMs: null,
  ...change,
});
const one = (said: CloseAnswer | null, stoppedInMs: number): Pushed => ({ instance: "i", answer: said, stoppedInMs });

describe("a flip", () => {
  it.each<[name: string, pushed: Pushed[], status: string, overAfterMs: number]>([
    ["nobody in reach", [], "done", 0],
    ["confirmed", [one(answer(), 60_000)], "done", 0],
    ["unreached", [one(null, 60_000)], "pending", 60_000 + SILENT_WORKER_CUT_MS],
    ["unreached, and surely over", [one(null, -SILENT_WORKER_CUT_MS)], "done", 0],
    ["unconfirmed", [one(answer({ unconfirmed: 1 }), 60_000)], "pending", SILENT_WORKER_CUT_MS],
  ])("is done when nobody in reach can act any more: %s", async (target, pushed, status, overAfterMs) => {
    await rosterAnswers(async () => progress(...pushed));
    const { reached, status: said } = await flip(target);
    expect(said).toBe(status);
    expect(reached.map(({ answer }) => answer?.cut ?? null)).toEqual(pushed.map(({ answer }) => answer?.cut ?? null));
    expect(await listed(target)).toEqual([status]);
    // As long as it is asked it says the same, and that is no longer news.
    await rosterAnswers(async () => progress());
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + overAfterMs + 100);
    await runDurableObjectAlarm(boardStub());
    clock.mockRestore();
    expect(await listed(target)).toEqual(["done"]);
  });

  it("is done once the Worker that was silent has confirmed, with the cuts that it had", async () => {
    await rosterAnswers(async () => progress(one(answer({ cut: 2, unconfirmed: 1 }), 0)));
    const { switch: sw, status } = await flip("late");
    expect(status).toBe("pending");
    await rosterAnswers(async () => progress(one(answer({ cut: 0, unconfirmed: 0 }), 0)));
    await runDurableObjectAlarm(boardStub());
    expect(await switchboardOf(deployment).read(sw.id)).toMatchObject({
      status: "done",
      reached: [{ answer: { cut: 2, unconfirmed: 0 } }],
    });
  });

  it("stands, though the roster never answers", async () => {
    await rosterAnswers(() => new Promise(() => {}));
    expect(await flip("hung")).toMatchObject({
      switch: { target: { instance: "hung" } },
      status: "accepted",
      reached: [],
    });
    expect(await listed("hung")).toEqual(["accepted"]);
    await rosterAnswers(async () => progress());
    await vi.waitFor(
      async () => {
        await runDurableObjectAlarm(boardStub());
        expect(await listed("hung")).toEqual(["done"]);
      },
      { timeout: 10_000, interval: 200 },
    );
  }, 30_000);

  it("really reaches an instance", async () => {
    const agent = await enrolAgent();
    expect(await flip(agent.id)).toMatchObject({ status: "done", reached: [{ instance: agent.id }] });
  });
});

describe("a switchboard that lost its alarm with a flip pending", () => {
  it("arms it again when it starts, and carries the flip on", async () => {
    await rosterAnswers(() => Promise.reject(new Error("out of reach")));
    expect(await flip("rearmed")).toMatchObject({ status: "accepted", reached: [] });
    await runInDurableObject(boardStub(), (_board, state) => state.storage.deleteAlarm());
    vi.restoreAllMocks();
    await runInDurableObject(boardStub(), (_board, state) => state.abort("reset by a test")).catch(() => {});
    // Nobody flips again: that somebody looks is enough to start it.
    await vi.waitFor(async () => expect(await listed("rearmed")).toEqual(["done"]), { interval: 50 });
  });
});
