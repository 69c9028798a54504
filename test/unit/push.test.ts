import { describe, expect, it } from "vitest";
import { Push, ROUND_MAX } from "../../durable-objects/push.ts";
import type { CloseAnswer } from "../../src/control/acknowledgement.ts";

const ANSWER: CloseAnswer = { acknowledgedAgeMs: 0, lastByteAgeMs: null, cut: 0, unconfirmed: 0 };
const UNTIL_MS = Date.now() + 60_000;
const holder = (instance: string, isRunning: boolean) => ({ instance, confirmedUntilMs: UNTIL_MS, isRunning });
const holders = [
  holder("idle-1", false),
  holder("running-1", true),
  holder("idle-2", false),
  holder("running-2", true),
];

describe("a push", () => {
  it("cuts those that run calls before it tells the others", async () => {
    const told: string[] = [];
    const close = async (instance: string): Promise<CloseAnswer> => {
      told.push(instance);
      await new Promise((resolve) => setTimeout(resolve, 20));
      told.push(`${instance} acknowledged`);
      return ANSWER;
    };
    const push = new Push(
      close,
      holders,
      () => 0,
      () => {},
    );
    const { pushed, isRunning } = await push.progress(5_000, () => {});
    expect(isRunning).toBe(false);
    expect(pushed.every(({ answer }) => answer !== null)).toBe(true);
    expect(told.slice(0, 2)).toEqual(["running-1", "running-2"]);
    expect(told.indexOf("idle-1")).toBeGreaterThan(told.indexOf("running-2 acknowledged"));
  });

  it("lets nobody who hangs keep the others waiting for long", async () => {
    const told: string[] = [];
    const close = (instance: string): Promise<CloseAnswer> => {
      told.push(instance);
      return instance === "running-1" ? new Promise(() => {}) : Promise.resolve(ANSWER);
    };
    const push = new Push(
      close,
      holders,
      () => 0,
      () => {},
    );
    const { pushed, isRunning } = await push.progress(1_500, () => {});
    expect(isRunning).toBe(true);
    expect(told.sort()).toEqual(["idle-1", "idle-2", "running-1", "running-2"]);
    expect(pushed.filter(({ answer }) => answer === null).map(({ instance }) => instance)).toEqual(["running-1"]);
  });

  it("of a pause that is resumed meanwhile goes to nobody any more, and who was being told hears of the end last", async () => {
    const told: string[] = [];
    const held = Promise.withResolvers<void>();
    const close = async (instance: string): Promise<CloseAnswer> => {
      told.push(instance);
      await held.promise;
      told.push(`${instance} closed`);
      return ANSWER;
    };
    const push = new Push(
      close,
      holders,
      () => 0,
      () => {},
    );
    const running: Promise<unknown>[] = [];
    // Those that run calls have their head start.
    await push.progress(20, (work) => running.push(work));
    expect(told).toEqual(["running-1", "running-2"]);
    const telling = push.tellAll(async (instance) => void told.push(`${instance} reopened`));
    // Whose answer is late need not wait for the word.
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(told.filter((one) => one.endsWith("reopened"))).toHaveLength(4);
    held.resolve();
    await Promise.all([telling, ...running]);
    expect(told.filter((one) => one.startsWith("idle")).sort()).toEqual(["idle-1 reopened", "idle-2 reopened"]);
    expect(told.slice(-2).sort()).toEqual(["running-1 reopened", "running-2 reopened"]);
    // Whoever asks again starts nothing.
    await push.progress(20, (work) => running.push(work));
    expect(told).toHaveLength(10);
  });

  it("of more than a round goes on to the next, whoever hangs in the first, and never to more than a round at once", async () => {
    const told: string[] = [];
    const many = Array.from({ length: ROUND_MAX + 10 }, (_, i) => holder(`idle-${i}`, false));
    const push = new Push(
      async (instance) => {
        told.push(instance);
        return instance === "idle-0" ? new Promise<CloseAnswer>(() => {}) : ANSWER;
      },
      many,
      () => 0,
      () => {},
    );
    const first = await push.progress(500, () => {});
    expect([told.length, first.isRunning]).toEqual([ROUND_MAX, true]);
    const second = await push.progress(500, () => {});
    expect([told.length, second.isRunning]).toEqual([ROUND_MAX + 10, true]);
    expect(second.pushed.filter(({ answer }) => answer === null).map(({ instance }) => instance)).toEqual(["idle-0"]);
  });
});
