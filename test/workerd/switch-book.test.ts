// What the switchboard keeps, what it forgets, and what it looks at with every alarm.

import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import { SwitchBook } from "../../durable-objects/switch-book.ts";
import { longestReachMs } from "../../src/control/narrowing.ts";
import { rosterOf, switchboardOf } from "../../src/objects.ts";
import { boardStub, deployment, enrolAgent, flip, flipRequest, operator, rosterStub, switchOf } from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

const board = switchboardOf(deployment);
const somebody = () => `human-${crypto.randomUUID()}`;
/** The longest task, or the oldest identity token that is taken. */
const REACH_MS = longestReachMs(deployment.config);
const WEEK_MS = 604_800_000;
const pauseOf = (human: string) => ({ act: "pause", reach: "human", target: { human } }) as const;

/** In the tables of the switchboard itself. */
const rows = (query: string, ...bindings: string[]) =>
  runInDurableObject(boardStub(), (_board, { storage }) => storage.sql.exec(query, ...bindings).toArray());
const ringAt = async (ms: number) => {
  const clock = vi.spyOn(Date, "now").mockReturnValue(ms);
  await runInDurableObject(boardStub(), (object) => object.alarm());
  clock.mockRestore();
};

describe("the book", () => {
  it("forgets what is through and was opened a week and the longest reach ago, with all that hangs on it", async () => {
    const agent = await enrolAgent({ human: somebody() });
    const idempotencyKey = crypto.randomUUID();
    const { switch: sw, status } = await flip({ ...pauseOf(agent.enrolment.human), idempotencyKey });
    expect(status).toBe("done");
    const kept = await flip({ reach: "human", target: { human: somebody() } });
    await board.resume(sw, operator());
    const openedAtMs = (await board.read(sw.id))!.opened!.atMs;
    await ringAt(openedAtMs + REACH_MS + WEEK_MS - 1);
    expect((await board.read(sw.id))?.switch.id).toBe(sw.id);
    expect(await rows("SELECT 1 FROM outcomes WHERE switch = ?", sw.id)).toHaveLength(1);
    await ringAt(openedAtMs + REACH_MS + WEEK_MS);
    expect(await board.read(sw.id)).toBeNull();
    expect(await rows("SELECT 1 FROM outcomes WHERE switch = ?", sw.id)).toEqual([]);
    expect(await rows("SELECT 1 FROM idempotency WHERE switch = ?", sw.id)).toEqual([]);
    // What is closed stays, however old.
    expect((await board.read(kept.switch.id))?.opened).toBeNull();
    expect(await rows("SELECT 1 FROM outcomes WHERE switch = ?", kept.switch.id)).not.toEqual([]);
  });

  it("keeps what some shard has not heard is open, and a kill that is not through, whatever their age", async () => {
    await runInDurableObject(boardStub(), (_board, { storage }) => {
      const book = new SwitchBook(storage.sql);
      const opening = { atMs: 1, by: "operator-1", reason: "r" };
      const ids = Array.from({ length: 3 }, () => {
        const sw = switchOf({ reach: "human", target: { human: somebody() } });
        book.add(sw, flipRequest({ id: sw.id }));
        book.open(sw.id, opening);
        return sw.id;
      }) as [string, string, string];
      book.setDone(ids[0]);
      book.setOpenDone(ids[1]);
      book.setDone(ids[2]);
      book.setOpenDone(ids[2]);
      book.forget(2);
      expect(ids.map((id) => book.get(id) !== undefined)).toEqual([true, true, false]);
      const known = book.standing(2).map(({ sw }) => sw.id);
      expect(ids.map((id) => known.includes(id))).toEqual([true, true, false]);
      for (const id of ids) storage.sql.exec("DELETE FROM switches WHERE id = ?", id);
    });
  });

  it("tells a shard that comes up nothing that was opened before the oldest task began and the oldest identity token was issued, and all that is closed", async () => {
    const { switch: old } = await flip(pauseOf(somebody()));
    await board.resume(old, operator());
    const { switch: closed } = await flip({ reach: "human", target: { human: somebody() } });
    const idsOf = async () => (await board.join(0)).map(({ switch: { id } }) => id);
    await vi.waitFor(async () =>
      expect(await rows("SELECT 1 FROM switches WHERE id = ? AND open_done = 1", old.id)).toHaveLength(1),
    );
    expect(await idsOf()).toEqual(expect.arrayContaining([old.id, closed.id]));
    const clock = vi.spyOn(Date, "now").mockReturnValue((await board.read(old.id))!.opened!.atMs + REACH_MS);
    const ids = await idsOf();
    clock.mockRestore();
    expect([ids.includes(old.id), ids.includes(closed.id)]).toEqual([false, true]);
  });

  it("reads with an alarm what there is to do, and not what ever was", async () => {
    await runInDurableObject(boardStub(), async (object, { storage }) => {
      const before = await storage.getAlarm();
      if (before !== null) await object.alarm();
      for (let i = 0; i < 500; i++) {
        const sw = switchOf({ reach: "human", target: { human: `many-${i}` } });
        storage.sql.exec(
          "INSERT INTO switches (id, json, done, opened, open_done) VALUES (?, ?, 1, ?, 1)",
          sw.id,
          JSON.stringify(sw),
          i % 2 === 0 ? null : JSON.stringify({ atMs: Date.now(), by: "x", reason: "r" }),
        );
      }
      const exec = storage.sql.exec.bind(storage.sql);
      const cursors: { readonly query: string; readonly cursor: SqlStorageCursor<Record<string, SqlStorageValue>> }[] =
        [];
      const spy = vi.spyOn(storage.sql, "exec").mockImplementation(((query: string, ...bindings: unknown[]) => {
        const cursor = exec(query, ...bindings);
        cursors.push({ query, cursor });
        return cursor;
      }) as typeof storage.sql.exec);
      await object.alarm();
      spy.mockRestore();
      const read = cursors.reduce((sum, { cursor }) => sum + cursor.rowsRead, 0);
      expect(cursors.length).toBeGreaterThan(0);
      expect(read).toBeLessThan(50);
      storage.sql.exec("DELETE FROM switches WHERE json_extract(json, '$.target.human') LIKE 'many-%'");
    });
  });
});

describe("a pause that is resumed before all have stopped", () => {
  it("is not said to be done, is carried on no more, and stays so though all acknowledge later", async () => {
    const agent = await enrolAgent({ human: somebody() });
    const apply = await runInDurableObject(rosterStub(agent.enrolment.rosterShard), (roster) =>
      vi.spyOn(Object.getPrototypeOf(roster) as typeof roster, "apply").mockResolvedValue({
        pushed: [{ instance: agent.id, answer: null, stoppedInMs: 60_000 }],
        isRunning: false,
        idle: 0,
      }),
    );
    const { switch: sw, status } = await flip(pauseOf(agent.enrolment.human));
    expect(status).toBe("pending");
    await board.resume(sw, operator());
    apply.mockClear();
    await runDurableObjectAlarm(boardStub());
    expect(await board.read(sw.id)).toMatchObject({ status: "resumed", opened: { by: "operator-1" } });
    await ringAt(Date.now() + 200_000);
    expect(apply.mock.calls.filter(([{ id }]) => id === sw.id)).toEqual([]);
    expect((await board.progress(sw.id))?.status).toBe("resumed");
  });

  it("was done, where all had: that stays true of the time before", async () => {
    const agent = await enrolAgent({ human: somebody() });
    const { switch: sw, status } = await flip(pauseOf(agent.enrolment.human));
    await board.resume(sw, operator());
    await runDurableObjectAlarm(boardStub());
    expect([status, (await board.read(sw.id))?.status]).toEqual(["done", "done"]);
    expect(await rosterOf(deployment, agent.enrolment.rosterShard).confirm(agent.id)).toMatchObject({
      confirmed: true,
    });
  });
});
