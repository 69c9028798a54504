// A transcript that is read while it grows, and while its segments are sealed, stored and dropped, at every place between two steps of
// the reader: what was read is, byte for byte, the beginning of what stands in R2 at last.

import { runDurableObjectAlarm } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import { readTranscript } from "../../src/admin/transcripts.ts";
import type { Deployment } from "../../src/deployment.ts";
import { instancePartition } from "../../src/transcript/layout.ts";
import { Random } from "../random.ts";
import { type Agent, deployment, enrolAgent, instanceStub, verdictOf } from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

const partitionOf = (agent: Agent) => ({ human: "human-1", task: "build-platform_t1", instance: agent.id });

/** Seals and stores what there is. @param drops so late that its rows go as well */
async function flush(agent: Agent, drops: boolean): Promise<void> {
  const laterMs = Date.now() + (drops ? 400_000 : 61_000);
  const clock = vi.spyOn(Date, "now").mockReturnValue(laterMs);
  await runDurableObjectAlarm(instanceStub(agent.id));
  clock.mockRestore();
}

/** The deployment, with `between` called before and after each step of who reads by it, and few lines at once. */
function disturbed(between: () => Promise<void>, linesAtOnce: number): Deployment {
  const bucket = deployment.env.TRANSCRIPTS;
  const around =
    <A extends unknown[], R>(step: (...args: A) => Promise<R>) =>
    async (...args: A): Promise<R> => {
      await between();
      const result = await step(...args);
      await between();
      return result;
    };
  const TRANSCRIPTS = { list: around(bucket.list.bind(bucket)), get: around((key: string) => bucket.get(key)) };
  const namespace = deployment.env.AGENT_INSTANCE;
  const AGENT_INSTANCE = {
    idFromName: (name: string) => namespace.idFromName(name),
    get: (id: DurableObjectId) => {
      const stub = namespace.get(id) as unknown as { read(from: number, max: number): Promise<unknown> };
      return { read: around((from: number, max: number) => stub.read(from, Math.min(max, linesAtOnce))) };
    },
  };
  return { ...deployment, env: { ...deployment.env, TRANSCRIPTS, AGENT_INSTANCE } as unknown as Deployment["env"] };
}

const textOf = async (by: Deployment, agent: Agent): Promise<string> =>
  new Response(await readTranscript(by, partitionOf(agent))).text();

describe("a transcript that is read while it is written", () => {
  it.each([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])("has all lines, each once, seals among them (%i)", async (seed) => {
    const random = new Random(seed);
    const failed = vi.spyOn(console, "error");
    const agent = await enrolAgent();
    for (let calls = Math.floor(random.next() * 4); calls > 0; calls--) await verdictOf(agent);
    if (random.next() < 0.5) await flush(agent, random.next() < 0.5);
    let left = 30;
    const between = async () => {
      if (left-- <= 0) return;
      const dice = random.next();
      if (dice < 0.35) await verdictOf(agent);
      if (dice > 0.2 && dice < 0.6) await flush(agent, random.next() < 0.5);
    };
    const read = await textOf(disturbed(between, 2 + Math.floor(random.next() * 3)), agent);
    expect(left).toBeLessThan(30);
    await verdictOf(agent);
    await flush(agent, true);
    const truth = await textOf(deployment, agent);
    expect(truth.slice(0, read.length)).toBe(read);
    // A reader that stopped in the middle of a table hinders no flush.
    expect(failed).not.toHaveBeenCalled();
    expect(read).toMatch(/^\{"v":1,"type":"enrolled","seq":0,[\s\S]*\n$/);
  });

  it("of more lines than are asked for at once goes on in the middle of a segment that has left", async () => {
    const agent = await enrolAgent();
    for (let calls = 0; calls < 5; calls++) await verdictOf(agent);
    let steps = 0;
    // After the first lines are told, all of it goes into the bucket, and its rows go; more is written behind it.
    const between = async () => {
      if (++steps !== 7) return;
      await flush(agent, true);
      await verdictOf(agent);
    };
    const read = await textOf(disturbed(between, 4), agent);
    expect(steps).toBeGreaterThan(8);
    const types = read
      .trimEnd()
      .split("\n")
      .map((line) => (JSON.parse(line) as { type: string }).type);
    expect(types.join(" ")).toBe(`enrolled ${"call answer ".repeat(5)}seal call answer`);
  });

  it("is streamed: a reader that goes away stops it, and nothing more is fetched", async () => {
    const agent = await enrolAgent();
    for (let segments = 0; segments < 6; segments++) {
      await verdictOf(agent);
      await flush(agent, true);
    }
    let steps = 0;
    const stream = await readTranscript(
      disturbed(async () => void steps++, 500),
      partitionOf(agent),
    );
    const reader = stream!.getReader();
    expect(new TextDecoder().decode((await reader.read()).value)).toContain('"seq":0');
    const soFar = steps;
    // One segment is read ahead at most: not what there is.
    expect(soFar).toBeLessThan(8);
    await reader.cancel();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(steps).toBeLessThanOrEqual(soFar + 2);
  });

  it("with a segment that somebody has deleted shows the gap, and goes on behind it", async () => {
    const agent = await enrolAgent();
    await flush(agent, true);
    await verdictOf(agent);
    await flush(agent, true);
    await verdictOf(agent);
    await deployment.env.TRANSCRIPTS.delete(`transcripts/${instancePartition(partitionOf(agent))}/0000000001.jsonl.gz`);
    const seqs = (await textOf(deployment, agent))
      .trimEnd()
      .split("\n")
      .map((line) => (JSON.parse(line) as { seq?: number }).seq);
    expect(seqs).toEqual([0, undefined, 3, 4]);
  });
});
