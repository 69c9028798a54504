import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";
import { INSTANCE_SHAPES } from "../../durable-objects/instance-shapes.ts";
import { Kept } from "../../durable-objects/kept.ts";
import { RawBodies } from "../../durable-objects/raw-bodies.ts";
import { type RawPart, rawBodyKey } from "../../src/transcript/layout.ts";
import { hang, isSame, MIB, noise, OBJECT, R2_DOWN, runsOf, shortenTimer, watchBucket } from "./raw-kit.ts";

/** What keeps raw bytes until they stand in R2, by itself: every way in which a put can go wrong. */
vi.setConfig({ testTimeout: 30_000 });
afterEach(() => vi.restoreAllMocks());

const bucket = env.TRANSCRIPTS;

interface Bench {
  readonly raw: RawBodies;
  readonly partition: string;
  /** As an object that starts anew would see it. */
  again(): RawBodies;
  fill(of: number, part: RawPart, bytes: Uint8Array): void;
  store(raw?: RawBodies): Promise<void>;
  key(of: number, part: RawPart, no: number): string;
  stored(of: number, part: RawPart): Promise<Uint8Array[]>;
  left(): string[];
}

/** On storage of its own. */
const bench = (story: (bench: Bench) => Promise<void>): Promise<void> => {
  const partition = `human=h/task=t/instance=${crypto.randomUUID()}`;
  const namespace = env.AGENT_INSTANCE;
  return runInDurableObject(namespace.get(namespace.newUniqueId()) as DurableObjectStub, (_: unknown, { storage }) => {
    const { sql } = storage;
    const again = () => new RawBodies(sql, new Kept(sql, "AgentInstance", INSTANCE_SHAPES));
    const raw = again();
    const key = (of: number, part: RawPart, no: number) => rawBodyKey(partition, of, part, no);
    return story({
      raw,
      partition,
      again,
      key,
      fill: (of, part, bytes) => {
        for (const run of runsOf(bytes)) raw.append(of, part, run);
      },
      store: (from = raw) => from.store(bucket, partition),
      stored: async (of, part) => {
        const found: Uint8Array[] = [];
        for (let no = 0; ; no++) {
          const object = await bucket.get(key(of, part, no));
          if (object === null) return found;
          expect(object.httpMetadata?.contentType).toBe("application/octet-stream");
          found.push(await object.bytes());
        }
      },
      left: () => {
        const query = "SELECT name FROM sqlite_master WHERE name LIKE 'raw!_%' ESCAPE '!' ORDER BY name";
        return sql
          .exec<{ name: string }>(query)
          .toArray()
          .map(({ name }) => name);
      },
    });
  });
};

const read = async (contents: AsyncGenerator<Uint8Array | null>): Promise<Uint8Array> => {
  const runs: Uint8Array[] = [];
  for await (const run of contents) runs.push(run ?? Buffer.from("[gone]"));
  return Buffer.concat(runs);
};

describe("the bound of an object", () => {
  it.each([
    [1, [1]],
    [OBJECT - 1, [OBJECT - 1]],
    [OBJECT, [OBJECT]],
    [OBJECT + 1, [OBJECT, 1]],
    [2 * OBJECT, [OBJECT, OBJECT]],
  ])("%i bytes", (length, lengths) =>
    bench(async ({ raw, fill, store, stored, left }) => {
      const bytes = noise(length);
      fill(3, "answer", bytes);
      expect(raw.heldBytes).toBe(length);
      raw.close(3);
      await store();
      const objects = await stored(3, "answer");
      expect(objects.map((object) => object.length)).toEqual(lengths);
      expect(isSame(Buffer.concat(objects), bytes)).toBe(true);
      expect([left(), raw.heldBytes, raw.hasFull, raw.has(3, "answer")]).toEqual([[], 0, false, false]);
    }));

  it("a run that spans two objects is cut where the first is full", () =>
    bench(async ({ raw, fill, store, stored }) => {
      const bytes = noise(OBJECT + 5);
      fill(3, "request", bytes.slice(0, OBJECT - 7));
      raw.append(3, "request", bytes.slice(OBJECT - 7));
      raw.close(3);
      await store();
      expect((await stored(3, "request")).map((object) => object.length)).toEqual([OBJECT, 5]);
      expect(isSame(Buffer.concat(await stored(3, "request")), bytes)).toBe(true);
    }));
});

describe("while a body still grows", () => {
  it("full objects leave, and the one that fills does not", () =>
    bench(async ({ raw, fill, store, stored, left }) => {
      fill(3, "answer", noise(OBJECT + MIB));
      await store();
      expect((await stored(3, "answer")).map((object) => object.length)).toEqual([OBJECT]);
      expect([left(), raw.heldBytes, raw.hasFull]).toEqual([["raw_3_answer_1"], MIB, false]);
      expect(isSame(await read(raw.contents(bucket, "", 9, "answer")), noise(0))).toBe(true);
    }));

  it("a restart finds what is here and what is in R2, in order, and closes what was filled", () =>
    bench(async ({ fill, store, again, partition, left, stored }) => {
      const bytes = noise(2 * OBJECT + MIB);
      fill(3, "answer", bytes.slice(0, OBJECT + MIB));
      await store();
      fill(3, "answer", bytes.slice(OBJECT + MIB));
      const next = again();
      expect([next.heldBytes, [...next.openCalls]]).toEqual([OBJECT + MIB, [3]]);
      expect(isSame(await read(next.contents(bucket, partition, 3, "answer")), bytes)).toBe(true);
      await store(next);
      expect([left(), next.heldBytes]).toEqual([[], 0]);
      expect(isSame(Buffer.concat(await stored(3, "answer")), bytes)).toBe(true);
      // Its record is not written: what it needs for that stays known, here and after one more restart.
      expect(isSame(await read(again().contents(bucket, partition, 3, "answer")), bytes)).toBe(true);
      next.close(3);
      expect([...again().openCalls]).toEqual([]);
    }));

  it("what is read for a record stays the same when it leaves for R2 meanwhile", () =>
    bench(async ({ fill, store, again, partition }) => {
      const bytes = noise(OBJECT + 2 * MIB);
      fill(3, "answer", bytes);
      const next = again();
      const reading = next.contents(bucket, partition, 3, "answer");
      const runs = [(await reading.next()).value as Uint8Array];
      await store(next);
      for await (const run of reading) runs.push(run as Uint8Array);
      expect(isSame(Buffer.concat(runs), bytes)).toBe(true);
    }));
});

describe("a put", () => {
  it.each([
    ["fails before anything is stored", "before", R2_DOWN],
    ["fails after it was stored", "after", R2_DOWN],
    ["does not answer, and stores nothing", "before", hang],
    ["does not answer, and stores it", "after", hang],
  ] as const)("that %s is tried again, and nothing is written twice", (_name, when, failure) =>
    bench(async ({ raw, fill, store, stored, left }) => {
      const watched = watchBucket();
      shortenTimer(30_000, 300);
      const bytes = noise(OBJECT);
      fill(3, "answer", bytes);
      raw.close(3);
      watched[when] = failure;
      await expect(store()).rejects.toThrow(failure === hang ? "the put did not answer" : "R2 is down");
      expect([left(), raw.heldBytes, raw.hasFull]).toEqual([["raw_3_answer_0"], OBJECT, true]);
      watched[when] = () => {};
      await store();
      expect([left(), raw.heldBytes, raw.hasFull]).toEqual([[], 0, false]);
      expect(isSame(Buffer.concat(await stored(3, "answer")), bytes)).toBe(true);
      expect(watched.stored).toHaveLength(1);
    }));

  it("is compared within a bound of time, too", () =>
    bench(async ({ raw, fill, store, key, left }) => {
      const watched = watchBucket();
      shortenTimer(30_000, 50);
      fill(3, "answer", noise(OBJECT));
      await bucket.put(key(3, "answer", 0), noise(OBJECT));
      watched.beforeGet = hang;
      await expect(store()).rejects.toThrow(`${key(3, "answer", 0)}: `);
      watched.beforeGet = () => {};
      await store();
      expect([left(), raw.heldBytes]).toEqual([[], 0]);
    }));

  it("that has stored an object and died finds it equal", () =>
    bench(async ({ fill, store, again, left }) => {
      const watched = watchBucket();
      fill(3, "answer", noise(OBJECT + MIB));
      const isThere = Promise.withResolvers<void>();
      watched.after = () => {
        isThere.resolve();
        return hang();
      };
      void store();
      await isThere.promise;
      watched.after = () => {};
      const next = again();
      await store(next);
      expect([left(), next.heldBytes]).toEqual([[], 0]);
      expect(watched.stored).toHaveLength(2);
    }));

  it.each([
    ["of the same length", noise(OBJECT, 2)],
    ["that is shorter", noise(7, 2)],
    ["that is longer", noise(OBJECT + 1, 2)],
  ])("never overwrites a foreign object %s, and holds back no other", (_name, foreign) =>
    bench(async ({ raw, fill, store, stored, key, left }) => {
      await bucket.put(key(3, "answer", 1), foreign, {
        httpMetadata: { contentType: "application/octet-stream" },
      });
      const bytes = noise(3 * OBJECT);
      fill(3, "answer", bytes);
      fill(4, "answer", noise(3 * OBJECT, 4));
      for (let i = 0; i < 2; i++)
        await expect(store()).rejects.toThrow(`${key(3, "answer", 1)}: another object stands there`);
      expect(isSame((await stored(3, "answer"))[1]!, foreign)).toBe(true);
      expect([left(), raw.heldBytes, raw.hasFull]).toEqual([["raw_3_answer_1"], OBJECT, true]);
      await bucket.delete(key(3, "answer", 1));
      await store();
      expect(isSame(Buffer.concat(await stored(3, "answer")), bytes)).toBe(true);
    }));

  it("that fails with all beside it is not followed by others", () =>
    bench(async ({ fill, store, raw }) => {
      const watched = watchBucket();
      const keys: string[] = [];
      watched.before = (key) => {
        keys.push(key);
        return R2_DOWN();
      };
      fill(3, "answer", noise(5 * OBJECT));
      await expect(store()).rejects.toThrow("R2 is down");
      expect(keys).toHaveLength(3);
      expect(raw.heldBytes).toBe(5 * OBJECT);
    }));

  it("of what became full while others were under way is waited for, too", () =>
    bench(async ({ fill, store, raw }) => {
      const watched = watchBucket();
      watched.before = () => new Promise((resolve) => setTimeout(resolve, 20));
      fill(3, "answer", noise(OBJECT));
      const first = store();
      fill(4, "answer", noise(OBJECT));
      await store();
      expect([raw.hasFull, raw.heldBytes]).toEqual([false, 0]);
      await first;
    }));

  it("is made once, whoever asks at the same time", () =>
    bench(async ({ fill, store }) => {
      const watched = watchBucket();
      const keys: string[] = [];
      watched.before = (key) => keys.push(key);
      fill(3, "answer", noise(4 * OBJECT));
      await Promise.all([store(), store(), store()]);
      expect(keys).toHaveLength(4);
      expect(new Set(keys).size).toBe(4);
    }));

  it("ends in time, though a body goes on and on", () =>
    bench(async ({ fill, store, raw }) => {
      const watched = watchBucket();
      let more = 12;
      // Whenever one object is stored the next is full already.
      watched.after = () => {
        if (more-- > 0) fill(3, "answer", noise(OBJECT));
      };
      fill(3, "answer", noise(OBJECT));
      await store();
      expect(watched.stored.length).toBeLessThan(3);
      expect(raw.hasFull).toBe(true);
    }));
});
