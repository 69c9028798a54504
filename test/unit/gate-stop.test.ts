import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Stop, type StopReason } from "../../src/gate/stop.ts";

const GONE: StopReason = { kind: "client-gone" };
const IDLE: StopReason = { kind: "timeout", what: "idle" };
const FIRST: StopReason = { kind: "timeout", what: "first byte" };
const TOTAL: StopReason = { kind: "timeout", what: "total" };

let armed: ReturnType<typeof vi.spyOn>;
beforeEach(() => {
  vi.useFakeTimers();
  armed = vi.spyOn(globalThis, "setTimeout");
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.useRealTimers();
});

describe("Stop", () => {
  it("given nothing, never stops, and keeps no timer", () => {
    const stop = new Stop();
    vi.advanceTimersByTime(1e9);
    expect([stop.reason, stop.signal.aborted, armed.mock.calls.length]).toEqual([null, false, 0]);
  });

  it("the first reason counts, closes the connection, and tells everyone", async () => {
    const stop = new Stop();
    const waiting = stop.stopped();
    stop.stop(GONE);
    stop.stop(IDLE);
    await waiting;
    await stop.stopped();
    expect([stop.reason, stop.signal.aborted]).toEqual([GONE, true]);
  });

  it("a phase ends the one before, and its own time counts from its beginning", () => {
    const stop = new Stop();
    stop.allow(100, FIRST);
    vi.advanceTimersByTime(99);
    stop.allow(100, IDLE);
    vi.advanceTimersByTime(99);
    expect(stop.reason).toBeNull();
    vi.advanceTimersByTime(1);
    expect(stop.reason).toEqual(IDLE);
  });

  it("a shorter phase after a longer one is not waited out", () => {
    const stop = new Stop();
    stop.allow(10_000, FIRST);
    stop.allow(10, IDLE);
    vi.advanceTimersByTime(10);
    expect(stop.reason).toEqual(IDLE);
  });

  it("the total holds whatever the phases", () => {
    const stop = new Stop();
    stop.allowTotal(Date.now() + 250);
    for (let i = 0; i < 25; i++) {
      stop.allow(100, IDLE);
      vi.advanceTimersByTime(10);
    }
    expect(stop.reason).toEqual(TOTAL);
  });

  it("many phases share one timer", () => {
    const stop = new Stop();
    for (let i = 0; i < 1_000; i++) stop.allow(60_000, IDLE);
    expect(armed.mock.calls.length).toBe(1);
    expect(vi.getTimerCount()).toBe(1);
  });

  it("wakes once, in order, and not after the end", () => {
    const stop = new Stop();
    const woken: string[] = [];
    stop.wakeAfter(20, () => woken.push("b"));
    stop.wakeAfter(10, () => woken.push("a"));
    stop.wakeAfter(30, () => woken.push("c"));
    vi.advanceTimersByTime(25);
    expect(woken).toEqual(["a", "b"]);
    stop.end();
    vi.advanceTimersByTime(100);
    expect([woken, vi.getTimerCount(), stop.reason]).toEqual([["a", "b"], 0, null]);
  });

  it("what wakes may stop it, or wake again", () => {
    const stop = new Stop();
    let beats = 0;
    const beat = () => {
      beats++;
      if (beats === 3) stop.stop(GONE);
      else stop.wakeAfter(10, beat);
    };
    stop.wakeAfter(10, beat);
    vi.advanceTimersByTime(1_000);
    expect([beats, stop.reason, vi.getTimerCount()]).toEqual([3, GONE, 0]);
  });

  it("stopped or released, it keeps no timer", () => {
    const stopped = new Stop();
    stopped.allow(100, IDLE);
    stopped.stop(GONE);
    stopped.allow(100, FIRST);
    stopped.wakeAfter(1, () => {});
    const released = new Stop();
    released.allow(100, IDLE);
    released.release();
    expect([vi.getTimerCount(), released.reason, released.signal.aborted]).toEqual([0, null, true]);
  });

  it("orStopped gives what comes first", async () => {
    const stop = new Stop();
    const late = Promise.withResolvers<string>();
    expect(await stop.orStopped(Promise.resolve("work"))).toBe("work");
    await expect(stop.orStopped(Promise.reject(new Error("broke")))).rejects.toThrow("broke");
    const racing = stop.orStopped(late.promise);
    stop.stop(GONE);
    expect(await racing).toBeUndefined();
    expect(await stop.orStopped(new Promise(() => {}))).toBeUndefined();
    // What comes too late is nobody's unhandled rejection.
    late.reject(new Error("late"));
    await Promise.resolve();
  });
});
