import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { type Erasure, ErasureBook } from "../../durable-objects/erasure-book.ts";
import { ErasureGuard } from "../../durable-objects/erasure-guard.ts";
import { ErasureRun } from "../../durable-objects/erasure-run.ts";
import { HoldBook } from "../../durable-objects/hold-book.ts";
import type { HeldSubject } from "../../src/retention/contract.ts";
import { bodiesKey, instancePartition } from "../../src/transcript/layout.ts";
import { deployment } from "./kit.ts";

/** Between a hold and what an erasure is just about to do. */
const bucket = env.TRANSCRIPTS as R2Bucket;

const onStorage = <T>(work: (sql: SqlStorage) => Promise<T>): Promise<T> => {
  const stub = env.RETENTION.get(env.RETENTION.newUniqueId());
  return runInDurableObject(stub, (_object: unknown, { storage }: DurableObjectState) => work(storage.sql));
};

describe("a volume that is written anew", () => {
  it.each(["human", "task"] as const)("stays as it is where a hold of its %s came while it was read", (kind) =>
    onStorage(async (sql) => {
      const human = `h-${crypto.randomUUID()}`;
      const key = bodiesKey(instancePartition({ human, task: "t-1", instance: "i-1" }), 0, 0);
      const lines = [1, 3].map((seq) => `${JSON.stringify({ v: 1, seq, part: "request", index: 0, text: "x" })}\n`);
      const { etag } = (await bucket.put(key, gzipSync(new TextEncoder().encode(lines.join("")))))!;
      const book = new ErasureBook(sql);
      const holds = new HoldBook(sql);
      const nowMs = Date.now() + 1;
      const asked = { human, task: null, reason: "r", by: "o", email: null };
      const erasure: Erasure = {
        ...asked,
        id: crypto.randomUUID(),
        atMs: nowMs,
        beforeMs: nowMs,
        certificate: `erasures/human=${human}/c.json`,
      };
      book.add(erasure, { ...asked, idempotencyKey: null });
      book.setExtent(erasure.id, "i-1", "t-1", { fromSeq: 5, running: [3], isExact: true }, 0);
      book.goTo(erasure.id, "objects", "");
      let gets = 0;
      const get = async (name: string) => {
        const there = await bucket.get(name);
        const subject = { kind, id: kind === "human" ? human : "t-1" } as HeldSubject;
        // The first look only counts.
        if (++gets === 2) holds.add({ id: "hold-1", subject, reason: "a lawsuit", by: "a", atMs: 1 });
        return there;
      };
      const spoilt = new Proxy(bucket, {
        get: (target, name) => (name === "get" ? get : (Reflect.get(target, name) as () => unknown).bind(target)),
      });
      const run = new ErasureRun({ book, holds, bucket: () => spoilt, deployment: () => deployment });
      const steps = async () => {
        for (let i = 0; i < 10; i++) if ((await run.step(book.running()!)) === "over") return "over";
        return "on";
      };
      if (kind === "human") await expect(steps()).rejects.toThrow("hold hold-1");
      else {
        expect(await steps()).toBe("over");
        expect(book.state(erasure.id)?.left).toContainEqual({ what: "task t-1", why: "hold hold-1" });
      }
      expect(gets).toBe(2);
      expect((await bucket.head(key))?.etag).toBe(etag);
      expect(book.state(erasure.id)?.rewritten).toBe(0);
    }));
});

describe("deletions on their way", () => {
  it("leave nothing behind when they are through", () =>
    onStorage(async (sql) => {
      const guard = new ErasureGuard(new ErasureBook(sql), new HoldBook(sql));
      for (let i = 0; i < 3; i++) await guard.track(Promise.resolve("what it came to"));
      expect(await guard.deleting).toBeUndefined();
      await guard.track(Promise.reject(new Error("refused"))).catch(() => {});
      expect(await guard.deleting).toBeUndefined();
    }));
});
