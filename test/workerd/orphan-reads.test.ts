import { runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import { instanceOf } from "../../src/objects.ts";
import { deployment, enrolAgent, instanceStub, settlement } from "./kit.ts";
import {
  answer,
  begin,
  flush,
  isRaw,
  MIB,
  noise,
  OBJECT,
  reset,
  storedAnswer,
  storedLines,
  verified,
  watchBucket,
} from "./raw-kit.ts";

vi.setConfig({ testTimeout: 30_000 });
afterEach(() => vi.restoreAllMocks());

describe("a lost body that R2 does not give back", () => {
  it("keeps no other record from R2, nor who is due from leaving; when it can be read, the transcript ends", async () => {
    const agent = await enrolAgent();
    const watched = watchBucket(agent);
    vi.spyOn(console, "error").mockImplementation(() => {});
    const { seq, lease } = await begin(agent);
    await answer(lease, noise(OBJECT + 2 * MIB));
    await vi.waitFor(() => expect(watched.stored).toHaveLength(1));
    /** Reads of the test itself go through. */
    const flushUnread = async (): Promise<void> => {
      watched.beforeGet = (key) => (isRaw(key) ? Promise.reject(new Error("a read that fails")) : undefined);
      await flush(agent);
      watched.beforeGet = () => {};
    };
    await reset(agent);

    const next = await begin(agent);
    await next.lease.settle(settlement());
    await flushUnread();
    expect(await storedAnswer(agent, next.seq)).toMatchObject({ outcome: "complete" });

    const clock = vi.spyOn(Date, "now").mockReturnValue(agent.enrolment.task.deadlineMs + 1);
    await flushUnread();
    // Nothing may end before it is on record.
    expect((await storedLines(agent, "transcripts")).map(({ type }) => type)).not.toContain("ended");
    expect(await instanceOf(deployment, agent.id).admit(agent.admission())).toMatchObject({ admitted: false });
    await runInDurableObject(instanceStub(agent.id), (instance) => instance.alarm());
    clock.mockRestore();
    expect(await storedAnswer(agent, seq)).toMatchObject({ outcome: "lost", body: { bytes: OBJECT + 2 * MIB } });
    expect(await verified(agent)).toMatchObject({ status: "ended", openCalls: [] });
  });
});
