import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { gunzipSync } from "node:zlib";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { Journal } from "../../durable-objects/journal.ts";
import { shardOf } from "../../src/control/shard.ts";
import { indexOf, journalOf } from "../../src/objects.ts";
import {
  HOUR_MS,
  type IndexedLog,
  indexJournalName,
  parseIndexName,
  partitionOf,
} from "../../src/transcript/segment-index.ts";
import { type Agent, deployment, enrolAgent, instanceStub, type Line, verdictOf } from "./kit.ts";

const FLUSH_MS = 61_000;
const DAY_MS = 24 * HOUR_MS;
/** Each test has a day of its own: journals are found by their hour, and the bucket is shared. None is over: an alarm rings when its test says so. */
let day = Math.floor(Date.now() / DAY_MS) + 30;
const at = (hours: number, minutes = 0): number => day * DAY_MS + hours * HOUR_MS + minutes * 60_000;
const shard = (agent: Agent): number => shardOf(agent.id, deployment.config.roster.shards);
const journalStub = (agent: Agent, hourMs: number) =>
  env.JOURNAL.get(env.JOURNAL.idFromName(indexJournalName(hourMs, shard(agent)))) as DurableObjectStub<Journal>;

function clockAt(ms: number): void {
  vi.spyOn(Date, "now").mockReturnValue(ms);
}

/** On a day of its own, at that time. */
async function enrolAt(hours: number, minutes = 0): Promise<Agent> {
  day++;
  clockAt(at(hours, minutes));
  return enrolAgent({ task: { id: "build-platform_t1", purpose: "test", deadlineMs: at(hours) + 72 * HOUR_MS } });
}

/** Entries of one hour that have not left for R2. */
async function entries(agent: Agent, hourMs: number): Promise<Line[]> {
  const lines = await indexOf(deployment, hourMs, shard(agent)).read(0, 10_000);
  return lines.map((line) => JSON.parse(line) as Line).filter(({ log }) => log === agent.id);
}

const ring = (stub: DurableObjectStub) => runDurableObjectAlarm(stub);

/** What stands at a key, as lines. */
async function linesAt(key: string): Promise<Line[]> {
  const object = await env.TRANSCRIPTS.get(key);
  if (object === null) throw new Error(`nothing at ${key}`);
  const text = gunzipSync(new Uint8Array(await object.arrayBuffer())).toString();
  return text
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Line);
}

const keysOf = async (agent: Agent): Promise<string[]> =>
  (await env.TRANSCRIPTS.list({ prefix: "transcripts/human=" })).objects
    .map(({ key }) => key)
    .filter((key) => key.includes(agent.id));

afterEach(() => vi.restoreAllMocks());

describe("the index of segments", () => {
  it("names a segment once it stands in R2, in the hour of its last record", async () => {
    const agent = await enrolAt(14, 59);
    await verdictOf(agent);
    const fromMs = Date.now();
    clockAt(at(15));
    await verdictOf(agent);
    expect(await entries(agent, at(15))).toEqual([]);
    clockAt(at(15) + FLUSH_MS);
    await ring(instanceStub(agent.id));
    expect(await entries(agent, at(14))).toEqual([]);
    const [key] = await keysOf(agent);
    const lines = await linesAt(key!);
    const seal = JSON.parse(
      atob((lines.at(-1)!["jws"] as string).split(".")[1]!.replaceAll("-", "+").replaceAll("_", "/")),
    );
    const [entry, ...more] = await entries(agent, at(15));
    expect(more).toEqual([]);
    const partition = `human=human-1/task=build-platform_t1/instance=${agent.id}`;
    expect(key).toBe(`transcripts/${partition}/0000000000.jsonl.gz`);
    expect(entry).toEqual({
      v: 1,
      type: "stored",
      seq: 0,
      at: at(15) + FLUSH_MS,
      prev: "0".repeat(64),
      journal: indexJournalName(at(15), shard(agent)),
      deployment: deployment.version,
      log: agent.id,
      human: "human-1",
      task: "build-platform_t1",
      partition,
      first: 0,
      last: 4,
      head: seal.head,
      from: fromMs,
      to: at(15),
      final: false,
      bodies: 1,
    });
  });

  it("a last millisecond belongs to its own hour", async () => {
    const agent = await enrolAt(9, 30);
    clockAt(at(10) - 1);
    await verdictOf(agent);
    clockAt(at(10) + FLUSH_MS);
    await ring(instanceStub(agent.id));
    expect(await entries(agent, at(9))).toEqual([expect.objectContaining({ to: at(10) - 1 })]);
    expect(await entries(agent, at(10))).toEqual([]);
  });

  it("does not name what R2 did not take", async () => {
    const agent = await enrolAt(12);
    clockAt(at(12) + FLUSH_MS);
    const log = vi.spyOn(console, "error").mockImplementation(() => {});
    const down = { put: () => Promise.reject(new Error("R2 is down")) };
    await runInDurableObject(instanceStub(agent.id), async (instance) => {
      const patched = instance as unknown as { env: object };
      const before = patched.env;
      patched.env = { ...before, TRANSCRIPTS: down };
      await instance.alarm();
      patched.env = before;
    });
    expect(log).toHaveBeenCalledWith("flush failed", "R2 is down");
    expect(await entries(agent, at(12))).toEqual([]);
    await ring(instanceStub(agent.id));
    expect(await entries(agent, at(12))).toHaveLength(1);
  });

  it("keeps a segment that can't be named, lets the next one leave for R2, and puts none of them again", async () => {
    const agent = await enrolAt(12);
    const log = vi.spyOn(console, "error").mockImplementation(() => {});
    const puts: string[] = [];
    const real = env.TRANSCRIPTS;
    const counting = {
      get: real.get.bind(real),
      put: (key: string, value: Uint8Array, options: R2PutOptions) => {
        puts.push(key.split("/")[0]!);
        return real.put(key, value, options);
      },
    };
    await runInDurableObject(instanceStub(agent.id), async (instance) => {
      const patched = instance as unknown as { env: Record<string, unknown> };
      const before = patched.env;
      const away = { append: () => Promise.reject(new Error("out of reach")) };
      const get = vi.spyOn(before["JOURNAL"] as DurableObjectNamespace, "get").mockReturnValue(away as never);
      patched.env = { ...before, TRANSCRIPTS: counting };
      clockAt(at(12) + FLUSH_MS);
      await instance.alarm();
      await instance.revoke("test", "test");
      clockAt(at(12) + 2 * FLUSH_MS);
      await instance.alarm();
      expect(log).toHaveBeenLastCalledWith("flush failed", "out of reach");
      // Both are sealed, in R2, and still in the log.
      expect((await instance.read(0, 100))?.lines.filter((line) => line.includes('"type":"seal"'))).toHaveLength(2);
      expect(puts).toEqual(["bodies", "transcripts", "transcripts"]);
      get.mockRestore();
      await instance.alarm();
      patched.env = before;
      expect((await instance.read(0, 100))?.lines).toEqual([]);
    });
    expect(puts).toEqual(["bodies", "transcripts", "transcripts"]);
    expect((await entries(agent, at(12))).map(({ first, last, bodies }) => [first, last, bodies])).toEqual([
      [0, 0, 1],
      [1, 1, 0],
    ]);
  });

  it("an alarm that runs twice names it once; one that dies in between, twice the same", async () => {
    const agent = await enrolAt(12);
    clockAt(at(12) + FLUSH_MS);
    await runInDurableObject(instanceStub(agent.id), async (instance) => {
      await instance.alarm();
      await instance.alarm();
    });
    expect(await entries(agent, at(12))).toHaveLength(1);
    // As after a death between the entry and the mark.
    await runInDurableObject(instanceStub(agent.id), (_instance, { storage }) => {
      storage.sql.exec("UPDATE kept SET json = json_set(json, '$.stage', 0) WHERE kind = 'segment'");
    });
    await evictDurableObject(instanceStub(agent.id));
    await runInDurableObject(instanceStub(agent.id), (instance) => instance.alarm());
    const [first, second, ...more] = await entries(agent, at(12));
    expect(more).toEqual([]);
    const said = ({ seq: _, prev: __, at: ___, ...rest }: Line) => rest;
    expect(said(second!)).toEqual(said(first!));
  });

  it("takes entries until a day after its hour, then ends; who is later stands where it came, and says so", async () => {
    const agent = await enrolAt(1);
    clockAt(at(26) - 1);
    expect(
      await indexOf(deployment, at(1), shard(agent)).append({
        type: "stored",
        fields: { log: agent.id },
        deployment: "test",
      }),
    ).toBe(true);
    clockAt(at(26));
    await ring(instanceStub(agent.id));
    expect((await entries(agent, at(1))).map(({ late }) => late)).toEqual([undefined]);
    expect(await entries(agent, at(26))).toEqual([expect.objectContaining({ late: true, to: at(1), first: 0 })]);
    await ring(journalStub(agent, at(1)));
    const { path } = parseIndexName(indexJournalName(at(1), shard(agent)))!;
    const lines = await linesAt(`transcripts/${path}/0000000000.jsonl.gz`);
    expect(lines.map(({ type }) => type)).toEqual(["stored", "ended", "seal"]);
    expect(lines[1]).toMatchObject({ cause: "hour" });
    expect(
      await indexOf(deployment, at(1), shard(agent)).append({
        type: "stored",
        fields: { log: "x" },
        deployment: "test",
      }),
    ).toBe(false);
  });

  it("leaves for R2 after five minutes, not as soon as records do, or when it is full", async () => {
    const agent = await enrolAt(12);
    clockAt(at(12) + FLUSH_MS);
    await ring(instanceStub(agent.id));
    clockAt(at(12) + FLUSH_MS + 299_999);
    const stub = journalStub(agent, at(12));
    await runInDurableObject(stub, (journal) => journal.alarm());
    const { path } = parseIndexName(indexJournalName(at(12), shard(agent)))!;
    expect((await env.TRANSCRIPTS.list({ prefix: `transcripts/${path}/` })).objects).toEqual([]);
    clockAt(at(12) + FLUSH_MS + 300_000);
    await runInDurableObject(stub, (journal) => journal.alarm());
    expect((await linesAt(`transcripts/${path}/0000000000.jsonl.gz`)).map(({ type }) => type)).toEqual([
      "stored",
      "seal",
    ]);
    const large = { type: "stored", fields: { log: "x".repeat(1_000_000) }, deployment: "test" } as const;
    for (let bytes = 0; bytes < deployment.config.transcripts.flushAfterBytes; bytes += 1_000_000)
      await indexOf(deployment, at(12), shard(agent)).append(large);
    await runInDurableObject(stub, (journal) => journal.alarm());
    expect((await linesAt(`transcripts/${path}/0000000001.jsonl.gz`)).at(-1)).toMatchObject({ type: "seal" });
  });
});

describe("a journal of a day", () => {
  it("is named like a transcript, and the index itself is not", async () => {
    day++;
    clockAt(at(8));
    const name = `admin.${new Date(at(8)).toISOString().slice(0, 10)}`;
    expect(await journalOf(deployment, "admin", at(8)).append({ type: "act", fields: {}, deployment: "test" })).toBe(
      true,
    );
    clockAt(at(8) + FLUSH_MS);
    const stub = env.JOURNAL.get(env.JOURNAL.idFromName(name)) as DurableObjectStub<Journal>;
    await ring(stub);
    const ofShard = shardOf(name, deployment.config.roster.shards);
    const lines = (await indexOf(deployment, at(8), ofShard).read(0, 100)).map((line) => JSON.parse(line) as Line);
    const partition = `journal=admin/day=${name.slice("admin.".length)}`;
    expect(lines).toMatchObject([{ type: "stored", log: name, human: null, task: null, partition, first: 0, last: 0 }]);
    expect(partitionOf(lines[0] as unknown as IndexedLog)).toBe(partition);
    // The journal of the index leaves for R2, and is named nowhere.
    const index = env.JOURNAL.get(
      env.JOURNAL.idFromName(indexJournalName(at(8), ofShard)),
    ) as DurableObjectStub<Journal>;
    clockAt(at(8) + FLUSH_MS + HOUR_MS);
    await ring(index);
    for (const hourMs of [at(8), at(9)])
      for (let shardNo = 0; shardNo < deployment.config.roster.shards; shardNo++)
        for (const line of await indexOf(deployment, hourMs, shardNo).read(0, 100))
          expect(line).not.toContain('"log":"segments');
  });
});
