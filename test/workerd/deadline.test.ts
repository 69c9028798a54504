import { afterEach, describe, expect, it, vi } from "vitest";
import { enrolAgent, settlement } from "./kit.ts";
import { begin } from "./raw-kit.ts";

afterEach(() => vi.restoreAllMocks());

describe("a call that runs when its task is over", () => {
  it("is cut with its next beat, though the alarm is late", async () => {
    const agent = await enrolAgent();
    const { lease } = await begin(agent);
    expect(await lease.beat()).toBe(true);
    const clock = vi.spyOn(Date, "now").mockReturnValue(agent.enrolment.task.deadlineMs);
    expect(await lease.beat()).toBe(false);
    expect(await lease.broken()).toBe("expired");
    expect(await lease.settle(settlement())).toBe("expired");
    clock.mockRestore();
  });
});
