import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import { attributesOf } from "../../durable-objects/instance-fields.ts";
import { Journal } from "../../durable-objects/journal.ts";
import { rosterOf, switchboardOf } from "../../src/objects.ts";
import config from "./config.ts";
import {
  boardStub,
  deployment,
  enrolAgent,
  enrolIdle,
  flip,
  flipRequest,
  journalLines,
  operator,
  rosterStub,
  switchOf,
  verdictOf,
} from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

const board = switchboardOf(deployment);
/** Nobody shares a human with another test. */
const somebody = () => `human-${crypto.randomUUID()}`;
const killHuman = (human: string) => flip({ reach: "human", target: { human } });

describe("a kill that was lifted", () => {
  it("stays final for who was there, awake or idle, and is nothing to a newcomer", async () => {
    const human = somebody();
    const awake = await enrolAgent({ human });
    const idle = await enrolIdle({ human });
    const { switch: sw, reached, idle: idleCount } = await killHuman(human);
    expect([reached.map(({ instance }) => instance), idleCount]).toEqual([[awake.id], 1]);
    await expect(enrolAgent({ human })).rejects.toThrow("not enrolled: switched");
    expect(await board.lift(sw.id, operator())).toMatchObject({
      kind: "opened",
      state: { opened: { by: "operator-1" } },
    });
    const newcomer = await enrolAgent({ human });
    expect(await Promise.all([awake, idle, newcomer].map(verdictOf))).toEqual(["switched", "switched", "admitted"]);
    expect(await rosterOf(deployment, newcomer.enrolment.rosterShard).confirm(newcomer.id)).toMatchObject({
      confirmed: true,
      closed: [],
    });
    expect(await board.lift(sw.id, operator())).toMatchObject({ kind: "open-already" });
    expect(await board.lift(crypto.randomUUID(), operator())).toEqual({ kind: "unknown" });
  });

  it("is nothing to the first one of a shard that comes up later", async () => {
    const human = somebody();
    await enrolAgent();
    const { switch: sw } = await killHuman(human);
    await board.lift(sw.id, operator());
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now());
    const newcomer = await enrolAgent({ human, rosterShard: 77 });
    clock.mockRestore();
    expect(await rosterOf(deployment, 77).confirm(newcomer.id)).toMatchObject({ confirmed: true, closed: [] });
    expect(await rosterOf(deployment, 77).list("", 1_000)).toMatchObject([{ instance: newcomer.id, state: "live" }]);
  });

  it("tells before from after though the clock stands still, or steps back", async () => {
    const human = somebody();
    const rosterShard = 78;
    const nowMs = Date.now();
    const clock = vi.spyOn(Date, "now").mockReturnValue(nowMs);
    const before = await enrolAgent({ human, rosterShard });
    const { switch: sw } = await killHuman(human);
    clock.mockReturnValue(nowMs - 5_000);
    await board.lift(sw.id, operator());
    const after = await enrolAgent({ human, rosterShard });
    clock.mockRestore();
    const roster = rosterOf(deployment, rosterShard);
    expect(await roster.confirm(before.id)).toMatchObject({ confirmed: false, closed: [{ id: sw.id }] });
    expect(await roster.confirm(after.id)).toMatchObject({ confirmed: true, closed: [] });
  });

  it("is final for a key whose enrolment broke off before it: it is not let in for a minute, and then dead", async () => {
    const human = somebody();
    const { enrolment } = await enrolAgent();
    const roster = rosterOf(deployment, 79);
    const attributes = { ...attributesOf(enrolment), instance: crypto.randomUUID(), human };
    expect(await roster.enlist(attributes)).toMatchObject({ enlisted: true });
    const { switch: sw } = await killHuman(human);
    await board.lift(sw.id, operator());
    expect(await roster.enlist(attributes)).toMatchObject({ enlisted: false, closed: [{ id: sw.id }] });
  });

  it.each(["everything", "upstream"] as const)("took two operators within an hour: %s", async (reach) => {
    const { switch: sw } = await flip({ reach, target: reach === "upstream" ? { upstream: "none" } : {} });
    const nowMs = Date.now();
    expect((await board.lift(sw.id, operator("one"))).kind).toBe("second-operator");
    expect((await board.lift(sw.id, operator("one"))).kind).toBe("second-operator");
    expect(await board.read(sw.id)).toMatchObject({ opened: null, liftAskedBy: ["one"] });
    const clock = vi.spyOn(Date, "now").mockReturnValue(nowMs + 3_600_000 + 60_000);
    expect((await board.lift(sw.id, operator("two"))).kind).toBe("second-operator");
    clock.mockReturnValue(nowMs + 3_600_000 + 60_001);
    expect(await board.lift(sw.id, operator("three"))).toMatchObject({
      kind: "opened",
      state: { opened: { by: "three" }, liftAskedBy: [] },
    });
  });

  it("opens by itself when its time is over, and that is on record", async () => {
    const human = somebody();
    const { switch: sw } = await flip({ reach: "human", target: { human }, untilMs: Date.now() + 2_500 });
    await expect(enrolAgent({ human })).rejects.toThrow("not enrolled: switched");
    await vi.waitFor(async () => expect(await board.read(sw.id)).toMatchObject({ opened: { by: "expiry" } }), {
      interval: 100,
    });
    await vi.waitFor(() => enrolAgent({ human }), { interval: 100 });
  });
});

const knownAt = (shard: number): Promise<string[]> =>
  runInDurableObject(rosterStub(shard), (_, { storage: { sql } }) =>
    sql
      .exec<{ id: string }>("SELECT id FROM switches")
      .toArray()
      .map(({ id }) => id),
  );

describe("sessions that the provider has ended", () => {
  const cause = { kind: "set", issuer: "https://idp.test", jti: "j", event: "session-revoked" } as const;
  const ended = async (change: Parameters<typeof flip>[0]) => {
    const human = somebody();
    const { switch: sw } = await flip({ reach: "human", target: { human }, untilMs: Date.now() + 300, ...change });
    const opened = async () => expect((await board.read(sw.id))?.opened).not.toBeNull();
    return { human, sw, opened: () => vi.waitFor(opened, { interval: 100 }) };
  };

  it("stay so for ID tokens from before when the block is over, also at a shard that comes up after it", async () => {
    const { human, sw, opened } = await ended({ cause });
    await opened();
    // Its clock may be a minute ahead.
    for (const groupsAtMs of [sw.atMs - 3_600_000, sw.atMs, sw.atMs + 60_000])
      for (const shard of [{}, { rosterShard: 81 }])
        await expect(enrolAgent({ human, groupsAtMs, ...shard })).rejects.toThrow("not enrolled: switched");
    expect(await verdictOf(await enrolAgent({ human, groupsAtMs: sw.atMs + 60_001 }))).toBe("admitted");
  });

  it("stay so as long as an ID token from before is taken, longer than any task: at a shard that comes up then, and at one that forgets", async () => {
    const provider = config.identityProviders["corp"] as { maxTokenAgeSeconds: number };
    const { maxTokenAgeSeconds } = provider;
    provider.maxTokenAgeSeconds = 30 * 86_400;
    const { human, sw, opened } = await ended({ cause });
    await opened();
    const before = { human, groupsAtMs: sw.atMs - 1_000 };
    const refused = (rosterShard: number) =>
      expect(enrolAgent({ ...before, rosterShard })).rejects.toThrow("not enrolled: switched");
    await refused(83);
    const clock = vi.spyOn(Date, "now").mockReturnValue(sw.atMs + 20 * 86_400_000);
    await runDurableObjectAlarm(boardStub());
    await refused(84);
    await enrolAgent({ rosterShard: 83 });
    await runDurableObjectAlarm(rosterStub(83));
    await refused(83);
    // No such token is taken any more, and nobody needs to know.
    provider.maxTokenAgeSeconds = maxTokenAgeSeconds;
    await runDurableObjectAlarm(rosterStub(83));
    expect(await knownAt(83)).not.toContain(sw.id);
    clock.mockRestore();
  });

  it("are open to all where an operator has lifted it, and where an operator had closed it", async () => {
    const lifted = await ended({ cause, untilMs: Date.now() + 3_600_000 });
    await board.lift(lifted.sw.id, operator());
    const operators = await ended({});
    await operators.opened();
    // The book is open first, and the shards are told a moment later.
    for (const { human, sw } of [lifted, operators])
      await vi.waitFor(() => enrolAgent({ human, groupsAtMs: sw.atMs - 1_000 }), { interval: 100 });
  });
});

describe("sessions that the provider has ended, and an operator has let in again", () => {
  it("are open at a shard that comes up when the block would be over, too", async () => {
    const cause = { kind: "set", issuer: "https://idp.test", jti: "k", event: "session-revoked" } as const;
    const human = somebody();
    const untilMs = Date.now() + 3_600_000;
    const { switch: sw } = await flip({ reach: "human", target: { human }, untilMs, cause });
    await board.lift(sw.id, operator());
    const clock = vi.spyOn(Date, "now").mockReturnValue(untilMs + 1_000);
    const late = await enrolAgent({ human, groupsAtMs: sw.atMs - 1_000, rosterShard: 86 });
    expect(await rosterOf(deployment, 86).confirm(late.id)).toMatchObject({ confirmed: true, closed: [] });
    clock.mockRestore();
  });
});

describe("a shard whose clock, or whose word of an opening, is late", () => {
  const cause = { kind: "set", issuer: "https://idp.test", jti: "l", event: "session-revoked" } as const;
  const closedAt = async (rosterShard: number) => {
    const human = somebody();
    const roster = rosterOf(deployment, rosterShard);
    const { enrolment } = await enrolAgent({ rosterShard });
    const untilMs = Date.now() + 300_000;
    const sw = switchOf({ reach: "human", target: { human }, untilMs, cause });
    await roster.apply(sw, 0);
    const before = { ...attributesOf(enrolment), human, groupsAtMs: sw.atMs - 1_000 };
    const enlist = () => roster.enlist({ ...before, instance: crypto.randomUUID() });
    const open = async (by: string, atMs: number, shardsMs: number) => {
      const clock = vi.spyOn(Date, "now").mockReturnValue(shardsMs);
      await roster.open(sw, { atMs, by, reason: "r" });
      clock.mockRestore();
    };
    return { sw, untilMs, enlist, open };
  };

  it("keeps ended sessions ended when the block is over by the switchboard's clock, and not yet by its own", async () => {
    const { sw, untilMs, enlist, open } = await closedAt(188);
    await open("expiry", untilMs, untilMs - 5);
    expect(await enlist()).toMatchObject({ enlisted: false, closed: [{ id: sw.id }] });
  });

  it("lets in who an operator has let in, though it hears of it when the block would be over", async () => {
    const { untilMs, enlist, open } = await closedAt(189);
    await open("operator-1", untilMs - 60_000, untilMs + 1_000);
    expect(await enlist()).toMatchObject({ enlisted: true, closed: [] });
  });

  it("holds who was there before such a kill as dead as ever", async () => {
    const { enrolment } = await enrolAgent({ rosterShard: 190, human: somebody() });
    const roster = rosterOf(deployment, 190);
    const untilMs = Date.now() + 300_000;
    const sw = switchOf({ reach: "human", target: { human: enrolment.human }, untilMs, cause });
    await roster.apply(sw, 0);
    await roster.open(sw, { atMs: Date.now(), by: "operator-1", reason: "r" });
    expect(await roster.confirm(attributesOf(enrolment).instance)).toMatchObject({ closed: [{ id: sw.id }] });
  });
});

describe("a flip that is asked for again", () => {
  it("with the same key by the same one is the same switch; with another body it is none", async () => {
    const target = { human: somebody() };
    const body = { reach: "human", target, idempotencyKey: "k-1" } as const;
    const first = await flip(body);
    const again = await board.flip(flipRequest(body));
    expect(again).toMatchObject({ flipped: true, isRepeated: true, state: { switch: { id: first.switch.id } } });
    expect(await board.flip(flipRequest({ ...body, reason: "another" }))).toEqual({ flipped: false });
    expect(await board.flip(flipRequest({ ...body, untilMs: 4_000_000_000_000 }))).toEqual({ flipped: false });
    expect((await flip({ ...body, by: "somebody else" })).switch.id).not.toBe(first.switch.id);
    const listed = (await board.list(null, 500)).filter(({ switch: { target: one } }) => one.human === target.human);
    expect(listed).toHaveLength(2);
  });

  it("under the same id, without a key, is the same switch; another's or another body is refused, and nothing breaks", async () => {
    const body = { id: crypto.randomUUID(), reach: "human", target: { human: somebody() } } as const;
    await flip(body);
    const again = await board.flip(flipRequest(body));
    expect(again).toMatchObject({ flipped: true, isRepeated: true, state: { switch: { id: body.id } } });
    expect(await board.flip(flipRequest({ ...body, reason: "another" }))).toEqual({ flipped: false });
    expect(await board.flip(flipRequest({ ...body, by: "somebody else" }))).toEqual({ flipped: false });
  });

  it("at the same time is one", async () => {
    const body = { reach: "human", target: { human: somebody() }, idempotencyKey: "k-2" } as const;
    const states = await Promise.all(Array.from({ length: 10 }, () => flip(body)));
    expect(new Set(states.map(({ switch: { id } }) => id)).size).toBe(1);
  });
});

describe("the list of switches", () => {
  it("is read in pages, newest first, and misses none", async () => {
    const made: string[] = [];
    for (let i = 0; i < 5; i++) made.unshift((await killHuman(somebody())).switch.id);
    const pages: string[] = [];
    for (let before: string | null = null; pages.length < 5; before = pages.at(-1)!)
      pages.push(...(await board.list(before, 2)).map(({ switch: { id } }) => id));
    expect(pages.slice(0, 5)).toEqual(made);
  });
});

describe("a journal out of reach", () => {
  it("hinders no kill and no lift, and hears of each act once, in order, when it is back", async () => {
    const down = vi.spyOn(Journal.prototype, "append").mockRejectedValue(new Error("out of reach"));
    const human = somebody();
    const agent = await enrolAgent({ human });
    const { switch: sw, status } = await killHuman(human);
    expect(status).toBe("done");
    expect(await verdictOf(agent)).toBe("switched");
    expect((await board.lift(sw.id, operator())).kind).toBe("opened");
    const { switch: all } = await flip({ reach: "upstream", target: { upstream: "none" } });
    expect(down).toHaveBeenCalled();
    down.mockRestore();
    // What is through is tried again by what wants to be told alone.
    await vi.waitFor(async () => {
      await runDurableObjectAlarm(boardStub());
      expect([await untold(), await alarmOf()]).toEqual([0, null]);
    });
    const again = vi.spyOn(Journal.prototype, "append").mockRejectedValue(new Error("out of reach"));
    await board.lift(all.id, operator());
    await vi.waitFor(() => expect(again).toHaveBeenCalled());
    expect(await untold()).toBe(1);
    expect(await alarmOf()).not.toBeNull();
    again.mockRestore();
    await vi.waitFor(async () => {
      await runDurableObjectAlarm(boardStub());
      expect(await untold()).toBe(0);
    });
    const mine = (await journalled()).filter(({ switch: id }) => id === sw.id || id === all.id);
    expect(mine.map(({ deed }) => deed)).toEqual(["flip", "lift", "flip", "ask to lift"]);
  });
});

const alarmOf = () => runInDurableObject(boardStub(), (_board, { storage }) => storage.getAlarm());
const untold = () =>
  runInDurableObject(boardStub(), (_board, { storage }) => storage.sql.exec("SELECT 1 FROM acts").toArray().length);

const journalled = () => journalLines("admin");
