import { env, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { Roster } from "../../durable-objects/roster.ts";
import { type Reached, SILENT_WORKER_CUT_MS } from "../../src/control/switch.ts";
import { switchboardOf } from "../../src/objects.ts";
import { deployment, enrolAgent } from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

const rosterStub = () => env.ROSTER.get(env.ROSTER.idFromName("0")) as DurableObjectStub<Roster>;
const boardStub = () => env.SWITCHBOARD.get(env.SWITCHBOARD.idFromName("switchboard"));
/** What the roster says from now on. */
const rosterAnswers = (apply: () => Promise<readonly Reached[]>) =>
  runInDurableObject(rosterStub(), (roster) => {
    // On the class: what an object itself holds is not to be called over RPC.
    vi.spyOn(Object.getPrototypeOf(roster) as Roster, "apply").mockImplementation(apply);
  });
const flip = (target: string) =>
  switchboardOf(deployment).flip({ reach: "instance", target, act: "kill", reason: "test", by: "admin" });
const listed = async (target: string) =>
  (await switchboardOf(deployment).list()).filter((one) => one.target === target).map(({ status }) => status);

const one = (answer: Reached["answer"], stoppedByMs: number): Reached[] => [{ instance: "i", answer, stoppedByMs }];

describe("a flip", () => {
  it.each<[name: string, reached: (nowMs: number) => Reached[], status: string, overAfterMs: number]>([
    ["nobody in reach", () => [], "done", 0],
    ["confirmed", (now) => one({ cut: 1, unconfirmed: 0, acknowledgedAtMs: now }, now + 60_000), "done", 0],
    ["unreached", (now) => one(null, now + 60_000), "pending", 60_000 + SILENT_WORKER_CUT_MS],
    ["unreached, and surely over", (now) => one(null, now - SILENT_WORKER_CUT_MS), "done", 0],
    [
      "unconfirmed",
      (now) => one({ cut: 1, unconfirmed: 1, acknowledgedAtMs: now }, now + 60_000),
      "pending",
      SILENT_WORKER_CUT_MS,
    ],
  ])("is done when nobody in reach can act any more: %s", async (target, reached, status, overAfterMs) => {
    const answer = reached(Date.now());
    await rosterAnswers(async () => answer);
    expect(await flip(target)).toMatchObject({ status, reached: answer });
    expect(await listed(target)).toEqual([status]);
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + overAfterMs);
    await runDurableObjectAlarm(boardStub());
    clock.mockRestore();
    expect(await listed(target)).toEqual(["done"]);
  });

  it("is done once the Worker that was silent has confirmed, with the cuts that it had", async () => {
    const first = one({ cut: 2, unconfirmed: 1, acknowledgedAtMs: Date.now() }, 0);
    await rosterAnswers(async () => first);
    expect(await flip("late")).toMatchObject({ status: "pending" });
    await rosterAnswers(async () => one({ cut: 0, unconfirmed: 0, acknowledgedAtMs: Date.now() + 1 }, 0));
    await runDurableObjectAlarm(boardStub());
    const [late] = (await switchboardOf(deployment).list()).filter(({ target }) => target === "late");
    expect(late).toMatchObject({
      status: "done",
      outcome: [{ answer: { ...first[0]?.answer, unconfirmed: 0 } }],
    });
  });

  it("stands, though the roster never answers", async () => {
    await rosterAnswers(() => new Promise(() => {}));
    expect(await flip("hung")).toMatchObject({ switch: { target: "hung" }, reached: null });
    expect(await listed("hung")).toEqual(["accepted"]);
    await rosterAnswers(async () => []);
    await runDurableObjectAlarm(boardStub());
    expect(await listed("hung")).toEqual(["done"]);
  }, 20_000);

  it("really reaches an instance", async () => {
    const agent = await enrolAgent();
    expect(await flip(agent.id)).toMatchObject({ status: "done", reached: [{ instance: agent.id }] });
  });
});

describe("a switchboard that lost its alarm with a flip pending", () => {
  it("arms it again when it starts, and carries the flip on", async () => {
    await rosterAnswers(() => Promise.reject(new Error("out of reach")));
    expect(await flip("rearmed")).toMatchObject({ reached: null });
    await runInDurableObject(boardStub(), (_board, state) => state.storage.deleteAlarm());
    vi.restoreAllMocks();
    await runInDurableObject(boardStub(), (_board, state) => state.abort("reset by a test")).catch(() => {});
    // Nobody flips again: that somebody looks is enough to start it.
    await vi.waitFor(async () => expect(await listed("rearmed")).toEqual(["done"]), { timeout: 3_000, interval: 50 });
  });
});
