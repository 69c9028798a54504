import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { HeldLease } from "../../src/gate/held-lease.ts";
import { Stop } from "../../src/gate/stop.ts";
import type { Cause, LeaseCalls, Resumption, Settlement } from "../../src/instance/contract.ts";

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const text = (run: Uint8Array): string => new TextDecoder().decode(run);
const gone = (): Promise<never> => Promise.reject(new Error("reset"));

/** A lease as the object gives it: what it was told, and what it says. */
function leaseWith(answers: Partial<LeaseCalls> = {}) {
  const said: string[] = [];
  const broken = Promise.withResolvers<Cause>();
  const lease: LeaseCalls = {
    broken: () => broken.promise,
    beat: async () => true,
    appendRequest: async () => true,
    ...answers,
    append: (run, declared) => {
      said.push(text(run));
      return answers.append?.(run, declared) ?? Promise.resolve(100);
    },
    settle: (settlement) => {
      said.push(`${settlement.outcome}: ${text(settlement.tail)}`);
      return answers.settle?.(settlement) ?? Promise.resolve(true);
    },
  };
  return { lease, said, broken };
}
const again = (lease: LeaseCalls, answerBytes: number, cause: Cause | null = null): Resumption => ({
  kind: "resumed",
  lease,
  aheadBytes: 50,
  answerBytes,
  cause,
});
const settlement: Settlement = {
  outcome: "complete",
  head: null,
  tail: bytes("tail"),
  passedBytes: 0,
  heldBytes: 0,
  forwardedBytes: 0,
  timing: { startedAtMs: 0, firstByteAtMs: null, lastByteAtMs: null, endedAtMs: 0 },
  reason: null,
};
function heldWith(lease: LeaseCalls, ...resumptions: readonly (Resumption | (() => Promise<Resumption>))[]) {
  const stop = new Stop();
  const left = [...resumptions];
  const resume = vi.fn(async (): Promise<Resumption> => {
    const next = left.shift() ?? { kind: "refused" as const };
    return typeof next === "function" ? next() : next;
  });
  return { held: new HeldLease(lease, 100, stop, resume), stop, resume };
}

describe("a lease that is gone", () => {
  it("is not held from then on, and what comes meanwhile is appended to the next one in order", async () => {
    const first = leaseWith({ append: gone });
    const second = leaseWith();
    const asked = Promise.withResolvers<Resumption>();
    const { held, stop } = heldWith(first.lease, () => asked.promise);
    const one = held.append(bytes("one"), null);
    expect(held.isHeld).toBe(true);
    await vi.advanceTimersByTimeAsync(0);
    expect(held.isHeld).toBe(false);
    const two = held.append(bytes("two"), null);
    const settling = held.settle(settlement);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(first.said).toEqual(["one"]);
    asked.resolve(again(second.lease, 0));
    expect([await one, await two, await settling]).toEqual([100, 100, true]);
    expect(second.said).toEqual(["one", "two", "complete: tail"]);
    expect([held.isHeld, stop.reason]).toEqual([true, null]);
  });

  it.each([
    [0, ["abc", "defg"]],
    [2, ["c", "defg"]],
    [3, ["defg"]],
    [5, ["fg"]],
    [7, []],
  ])("of which %i bytes are durable: the rest alone is appended again", async (durable, rest) => {
    const first = leaseWith({ append: gone });
    const second = leaseWith();
    const { held } = heldWith(first.lease, again(second.lease, durable));
    const kept = Promise.all([held.append(bytes("abc"), null), held.append(bytes("defg"), null)]);
    await vi.advanceTimersByTimeAsync(0);
    expect(await kept).toEqual(rest.length === 0 ? [50, 50] : expect.arrayContaining([100]));
    expect(second.said).toEqual(rest);
  });

  it.each([
    ["less than was durable", 2],
    ["more than was sent", 8],
  ])("of which %s is on record: the call is cut, says so, and adds nothing", async (_what, durable) => {
    const broken = Promise.withResolvers<Cause>();
    const first = leaseWith({ broken: () => broken.promise });
    const second = leaseWith();
    const { held, stop } = heldWith(first.lease, again(second.lease, durable));
    held.listen();
    expect(await held.append(bytes("abcdefg".slice(0, 3)), null)).toBe(100);
    broken.reject(new Error("reset"));
    await vi.advanceTimersByTimeAsync(0);
    expect(stop.reason).toEqual({ kind: "misfit" });
    expect(await held.append(bytes("more"), null)).toBeNull();
    expect(await held.settle(settlement)).toBe(true);
    expect(second.said).toEqual(["cut: "]);
  });

  it("goes again while that is appended: the one after it gets what is missing then", async () => {
    const first = leaseWith({ append: gone });
    const second = leaseWith({ append: gone });
    const third = leaseWith();
    const { held } = heldWith(first.lease, again(second.lease, 1), again(third.lease, 2));
    const kept = held.append(bytes("abc"), null);
    await vi.advanceTimersByTimeAsync(0);
    expect(await kept).toBe(100);
    expect([first.said, second.said, third.said]).toEqual([["abc"], ["bc"], ["c"]]);
  });

  it("is asked for again while the object can't be reached, and no longer than five seconds", async () => {
    const { held, stop, resume } = heldWith(leaseWith({ append: gone }).lease, ...Array<typeof gone>(1_000).fill(gone));
    const kept = held.append(bytes("abc"), null);
    await vi.advanceTimersByTimeAsync(4_900);
    expect([held.isHeld, stop.reason, resume.mock.calls.length > 10]).toEqual([false, null, true]);
    await vi.advanceTimersByTimeAsync(200);
    expect([await kept, stop.reason, held.isHeld]).toEqual([undefined, { kind: "lease-lost" }, false]);
    expect(await held.settle(settlement)).toBeUndefined();
    const asked = resume.mock.calls.length;
    await vi.advanceTimersByTimeAsync(20_000);
    expect(resume.mock.calls.length).toBe(asked);
  });

  it("that nobody answers for is not waited for longer, either", async () => {
    const { held, stop } = heldWith(leaseWith({ append: gone }).lease, () => new Promise<never>(() => {}));
    void held.append(bytes("abc"), null);
    await vi.advanceTimersByTimeAsync(5_001);
    expect(stop.reason).toEqual({ kind: "lease-lost" });
  });

  it("for the fourth time is not asked for", async () => {
    const leases = Array.from({ length: 4 }, () => leaseWith({ append: gone }));
    const { held, stop, resume } = heldWith(leases[0]!.lease, ...leases.slice(1).map(({ lease }) => again(lease, 0)));
    expect(await held.append(bytes("abc"), null)).toBeUndefined();
    expect([resume.mock.calls.length, stop.reason]).toEqual([3, { kind: "lease-lost" }]);
  });

  it("after an append that nobody answered: the next one gets that, and the record has no gap", async () => {
    const first = leaseWith({ append: () => new Promise<never>(() => {}), settle: gone });
    const second = leaseWith();
    const { held } = heldWith(first.lease, again(second.lease, 2));
    const kept = held.append(bytes("abc"), null);
    await vi.advanceTimersByTimeAsync(5_000);
    expect(await kept).toBeUndefined();
    expect(await held.settle({ ...settlement, outcome: "cut" })).toBe(true);
    expect(second.said).toEqual(["c", "cut: tail"]);
  });

  /** So many turns of the microtask queue later. */
  const turns = async (count: number): Promise<void> => {
    for (let i = 0; i < count; i++) await null;
  };

  it("in any turn in which another one begins to hold: the one after it is asked for", async () => {
    for (let count = 0; count < 12; count++) {
      const broken = Promise.withResolvers<Cause>();
      const second = leaseWith({
        broken: () => broken.promise,
        append: async () => {
          void turns(count).then(() => broken.reject(new Error("reset")));
          return 100;
        },
      });
      const third = leaseWith();
      const { held, resume } = heldWith(
        leaseWith({ append: gone }).lease,
        again(second.lease, 0),
        again(third.lease, 3),
      );
      held.listen();
      await held.append(bytes("abc"), null);
      await vi.advanceTimersByTimeAsync(0);
      expect([count, resume.mock.calls.length, held.isHeld]).toEqual([count, 2, true]);
      held[Symbol.dispose]();
    }
  });

  it("and what is appended in any turn in which another one begins to hold reaches it", async () => {
    for (let count = 0; count < 12; count++) {
      const answered: (number | null | undefined)[] = [];
      const later = (): void => void held.append(bytes("later"), null).then((kept) => answered.push(kept));
      const append = vi
        .fn(async () => 100)
        .mockImplementationOnce(async () => {
          void turns(count).then(later);
          return 100;
        });
      const second = leaseWith({ append });
      const { held } = heldWith(leaseWith({ append: gone }).lease, again(second.lease, 0));
      await held.append(bytes("abc"), null);
      await vi.advanceTimersByTimeAsync(0);
      expect([count, answered, second.said]).toEqual([count, [100], ["abc", "later"]]);
    }
  });

  it("of a long request is not asked for at all", async () => {
    const stop = new Stop();
    const held = new HeldLease(leaseWith({ appendRequest: gone }).lease, 100, stop, null);
    expect(await held.appendRequest(bytes("abc"), false)).toBe(false);
    expect([stop.reason, held.isHeld]).toEqual([{ kind: "lease-lost" }, false]);
  });

  it("and the next one broken already: stopped at once, and settled on it", async () => {
    const second = leaseWith({ append: async () => null, settle: async () => "switched" });
    const { held, stop } = heldWith(leaseWith({ append: gone }).lease, again(second.lease, 0, "switched"));
    const kept = held.append(bytes("abc"), null);
    await vi.advanceTimersByTimeAsync(0);
    expect([await kept, stop.reason]).toEqual([null, { kind: "cut", cause: "switched" }]);
    expect(await held.settle({ ...settlement, outcome: "cut" })).toBe("switched");
    expect(second.said).toEqual(["abc", "cut: tail"]);
  });

  it("is noticed by its beat, and by its word that it broke", async () => {
    for (const answers of [{ beat: gone }, { broken: gone }]) {
      const { held, resume } = heldWith(leaseWith(answers).lease, again(leaseWith().lease, 0));
      held.listen();
      await vi.advanceTimersByTimeAsync(5_100);
      expect([resume.mock.calls.length, held.isHeld]).toEqual([1, true]);
      held[Symbol.dispose]();
    }
  });

  it("when the call is over is nobody's business", async () => {
    const { lease, broken } = leaseWith();
    const { held, resume, stop } = heldWith(lease);
    held.listen();
    await held.settle(settlement);
    held[Symbol.dispose]();
    broken.reject(new Error("disposed"));
    await vi.advanceTimersByTimeAsync(10_000);
    expect([resume.mock.calls.length, stop.reason]).toEqual([0, null]);
  });
});

describe("a settlement whose answer is lost", () => {
  const over = (outcome: "complete" | "cut" | "lost", cause: Cause | null = null): Resumption => ({
    kind: "over",
    outcome,
    cause,
  });

  it.each<[Resumption, boolean | Cause | undefined]>([
    [over("complete"), true],
    [over("cut", "switched"), "switched"],
    [over("lost"), undefined],
    [{ kind: "refused" }, undefined],
  ])("and found to be %j comes to %s", async (found, expected) => {
    const { held } = heldWith(leaseWith({ settle: gone }).lease, found);
    expect(await held.settle(settlement)).toBe(expected);
  });

  it("when another one holds already is said again on that", async () => {
    const { lease, broken } = leaseWith({
      settle: () => new Promise((_resolve, reject) => setTimeout(() => reject(new Error("reset")), 50)),
    });
    const second = leaseWith();
    const { held } = heldWith(lease, again(second.lease, 0));
    held.listen();
    const settling = held.settle(settlement);
    broken.reject(new Error("reset"));
    await vi.advanceTimersByTimeAsync(100);
    expect([await settling, second.said]).toEqual([true, ["complete: tail"]]);
    held[Symbol.dispose]();
  });

  it("of a call that had not been settled by its own Worker is none", async () => {
    const { held, stop } = heldWith(leaseWith({ append: gone }).lease, over("complete"));
    expect(await held.append(bytes("abc"), null)).toBeUndefined();
    expect([stop.reason, await held.settle(settlement)]).toEqual([{ kind: "lease-lost" }, undefined]);
  });
});
