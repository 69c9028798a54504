import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { gunzipSync } from "node:zlib";
import { afterEach, describe, expect, it, vi } from "vitest";
import { type Erasure, ErasureBook } from "../../durable-objects/erasure-book.ts";
import { HeldError } from "../../durable-objects/erasure-guard.ts";
import { ErasureRun } from "../../durable-objects/erasure-run.ts";
import { HoldBook } from "../../durable-objects/hold-book.ts";

import type { Deployment, Env } from "../../src/deployment.ts";
import type { LeaseCalls } from "../../src/instance/contract.ts";
import { instanceOf, retentionOf } from "../../src/objects.ts";
import type { ErasureRequest, ErasureState, HeldSubject } from "../../src/retention/contract.ts";
import { NOBODY } from "../../src/retention/cover.ts";
import { sha256Hex } from "../../src/transcript/envelope.ts";
import { readErasureLine } from "../../src/transcript/erasure.ts";
import { instancePartition, rawBodyKey } from "../../src/transcript/layout.ts";
import {
  type Agent,
  deployment,
  enrolAgent,
  instanceStub,
  journalLines,
  type Line,
  retentionStub,
  settlement,
} from "./kit.ts";

vi.setConfig({ testTimeout: 30_000 });
afterEach(() => vi.restoreAllMocks());

const bucket = (env as unknown as Env).TRANSCRIPTS;
/** A stub does not outlive a reset of its object. */
const retention = () => retentionOf(deployment);
const utf8 = new TextEncoder();
/** Nobody shares a human with another test. */
const somebody = () => `h-${crypto.randomUUID()}`;
const eraseRequest = (change: Partial<ErasureRequest> & { human: string }): ErasureRequest => ({
  task: null,
  reason: "asked to be forgotten",
  by: "operator-1",
  email: null,
  idempotencyKey: null,
  ...change,
});
const holdOn = (subject: HeldSubject) =>
  retention().hold({ subject, reason: "a lawsuit", by: "auditor-1", email: null });
const releaseBy = (id: string, by: string) => retention().release(id, { by, email: null, reason: "it is over" });
async function release(id: string): Promise<void> {
  await releaseBy(id, "auditor-1");
  expect(await releaseBy(id, "auditor-2")).toMatchObject({ kind: "released" });
}

async function erase(change: Partial<ErasureRequest> & { human: string }): Promise<ErasureState> {
  const answer = await retention().erase(eraseRequest(change));
  if (answer.kind !== "accepted") throw new Error(`not accepted: ${answer.kind}`);
  return answer.erasure;
}
const ended = (id: string): Promise<ErasureState> =>
  vi.waitFor(
    async () => {
      const state = await retention().erasure(id);
      if (state === null || state.status === "running") throw new Error(`still running: ${JSON.stringify(state)}`);
      return state;
    },
    { timeout: 20_000, interval: 50 },
  );
const eraseAll = async (change: Partial<ErasureRequest> & { human: string }) => ended((await erase(change)).id);

const keysOf = async (prefix: string): Promise<string[]> => {
  const keys: string[] = [];
  for (let after: string | undefined; ; ) {
    const { objects, truncated } = await bucket.list({ prefix, ...(after === undefined ? {} : { startAfter: after }) });
    keys.push(...objects.map(({ key }) => key));
    if (!truncated) return keys;
    after = keys.at(-1);
  }
};
const put = (keys: readonly string[], content = "some bytes") =>
  Promise.all(keys.map((key) => bucket.put(key, content)));
/** Of an instance that is not there any more. */
const planted = (human: string, count: number, task = "t-1", instance = "i-1") =>
  Array.from({ length: count }, (_, i) => rawBodyKey(instancePartition({ human, task, instance }), i, "answer", 0));

async function call(agent: Agent, body: string, answer: string | null): Promise<void> {
  const request = { method: "POST", target: "/github/x", headers: [], body: utf8.encode(body), bodyFollows: false };
  const admission = await instanceOf(deployment, agent.id).admit(agent.admission({ request }));
  if (!admission.admitted) throw new Error("not admitted");
  if (answer !== null) await admission.lease.settle(settlement({ tail: utf8.encode(answer) }));
}
/** As at the end of its patience: what it holds goes to the bucket. */
async function flush(agent: Agent, lease?: LeaseCalls): Promise<void> {
  const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 61_000);
  await lease?.beat();
  await runDurableObjectAlarm(instanceStub(agent.id));
  clock.mockRestore();
}
const linesIn = async (prefix: string): Promise<Line[]> => {
  const lines: Line[] = [];
  for (const key of await keysOf(prefix)) {
    const text = gunzipSync(new Uint8Array(await (await bucket.get(key))!.arrayBuffer())).toString();
    lines.push(
      ...text
        .trimEnd()
        .split("\n")
        .map((line) => JSON.parse(line) as Line),
    );
  }
  return lines;
};
const partitionOf = ({ id, enrolment: { human, task } }: Agent) =>
  instancePartition({ human, task: task.id, instance: id });
/** Bodies that the instance itself still holds. */
const heldBodies = (agent: Agent): Promise<string[]> =>
  runInDurableObject(instanceStub(agent.id), (_instance, { storage: { sql } }) =>
    sql
      .exec<{ name: string }>("SELECT name FROM sqlite_master WHERE name LIKE 'log_%'")
      .toArray()
      .flatMap(({ name }) =>
        sql.exec<{ body: ArrayBuffer }>(`SELECT body FROM ${name} WHERE body IS NOT NULL`).toArray(),
      )
      .map(({ body }) => new TextDecoder().decode(body)),
  );
const actsOf = async (id: string): Promise<Line[]> =>
  vi.waitFor(async () => {
    const acts = (await journalLines("admin")).filter((line) => line["erasure"] === id || line["hold"] === id);
    if (acts.length === 0) throw new Error("nothing in the journal yet");
    return acts;
  });

describe("an erasure", () => {
  it("takes a human's bodies, in the bucket and in instances, and nothing else; what stays is the chain", async () => {
    const human = somebody();
    const agent = await enrolAgent({ human });
    const other = await enrolAgent({ human: somebody() });
    await call(agent, "first secret", "first answer");
    await call(other, "not theirs", "nor this");
    await flush(agent);
    await flush(other);
    await call(agent, "second secret", "second answer");
    const partition = partitionOf(agent);
    const [transcripts, others] = [
      await keysOf(`transcripts/${partition}/`),
      await keysOf(`bodies/${partitionOf(other)}/`),
    ];
    expect([transcripts.length, (await keysOf(`bodies/${partition}/`)).length, others.length]).toEqual([1, 1, 1]);
    const before = await bucket.get(transcripts[0]!).then((object) => object!.arrayBuffer());
    const foreign = [`bodies/human=${human}x/task=t/instance=i/0000000000.jsonl.gz`, `bodies/human=${human}-2/a`];
    await put(foreign);

    const erasure = await eraseAll({ human });
    expect(erasure).toMatchObject({
      status: "done",
      objects: 1,
      instances: 1,
      leftCount: 0,
      left: [],
      stoppedBy: null,
    });
    expect(erasure.bytes).toBeGreaterThan(0);
    // Claims and the first call, whose table waits for its proof's window, and the second one.
    expect(erasure.blanked).toBe(5);
    expect(await heldBodies(agent)).toEqual([]);
    expect(await keysOf(`bodies/human=${human}/`)).toEqual([]);
    expect(await keysOf(`bodies/${partitionOf(other)}/`)).toEqual(others);
    expect((await heldBodies(other)).length).toBe(3);
    for (const key of foreign) expect(await bucket.head(key)).not.toBeNull();
    const after = await bucket.get(transcripts[0]!).then((object) => object!.arrayBuffer());
    expect(sha256Hex(new Uint8Array(after))).toBe(sha256Hex(new Uint8Array(before)));

    // What comes later is another matter, and chains on.
    await call(agent, "third", "third answer");
    await flush(agent);
    const lines = await linesIn(`transcripts/${partition}/`);
    expect(lines.filter(({ type }) => type !== "seal").map(({ seq }) => seq)).toEqual([0, 1, 2, 3, 4, 5, 6]);
    const bodies = await linesIn(`bodies/${partition}/`);
    expect(bodies.map((line) => [line.seq, line["part"], line["text"]])).toEqual([
      [5, "request", "third"],
      [5, "answer", "third answer"],
    ]);
    expect(await eraseAll({ human })).toMatchObject({ status: "done", objects: 1, blanked: 2 });
  });

  it("is stated in a signed certificate, which stands before the first object goes, and in the journal", async () => {
    const human = somebody();
    await put(planted(human, 2));
    const { id, beforeMs, certificate } = await eraseAll({ human, reason: "Art. 17" });
    const text = await bucket.get(certificate).then((object) => object!.text());
    const { sealKeys } = deployment;
    const read = readErasureLine(text.trimEnd(), sealKeys);
    expect(certificate).toBe(`erasures/human=${human}/${id}.json`);
    expect(read).toMatchObject({
      ok: true,
      value: {
        iss: "https://gate.test",
        id,
        human,
        by: "operator-1",
        reason: "Art. 17",
        at: beforeMs,
        before: beforeMs,
      },
    });
    await vi.waitFor(async () =>
      expect((await actsOf(id)).map(({ deed, status, objects }) => [deed, status, objects])).toEqual([
        ["erase", undefined, undefined],
        ["erased", "done", 2],
      ]),
    );
  });

  it("leaves the bodies of a running call, says so, and takes them when it is over", async () => {
    const human = somebody();
    const agent = await enrolAgent({ human });
    await call(agent, "over", "done");
    const request = { method: "POST", target: "/github/x", headers: [], body: utf8.encode("runs"), bodyFollows: false };
    const admission = await instanceOf(deployment, agent.id).admit(agent.admission({ request }));
    if (!admission.admitted) throw new Error("not admitted");
    await flush(agent, admission.lease);
    await admission.lease.append(utf8.encode("half of "));
    const erasure = await eraseAll({ human });
    expect(erasure).toMatchObject({ status: "incomplete", objects: 0, rewritten: 1, leftCount: 1 });
    expect(erasure.left).toEqual([
      { what: `calls ${admission.seq} of instance ${agent.id}`, why: expect.stringMatching(/^they were running/) },
    ]);
    await admission.lease.settle(settlement({ tail: utf8.encode("it") }));
    await flush(agent);
    const bodies = await linesIn(`bodies/${partitionOf(agent)}/`);
    expect(bodies.map((line) => [line.seq, line["part"], line["index"], line["text"]])).toEqual([
      [admission.seq, "request", 0, "runs"],
      [admission.seq, "answer", 0, "half of "],
      [admission.seq, "answer", 1, "it"],
    ]);
    const answer = (await linesIn(`transcripts/${partitionOf(agent)}/`)).find((line) => line["call"] === admission.seq);
    const salted = Buffer.concat([Buffer.from(String(bodies[1]!["salt"]), "hex"), Buffer.from("half of it")]);
    expect(answer?.["body"]).toMatchObject({ digest: sha256Hex(salted) });
    expect(await eraseAll({ human })).toMatchObject({ status: "done" });
    expect(await keysOf(`bodies/human=${human}/`)).toEqual([]);
    expect(await heldBodies(agent)).toEqual([]);
  });

  it("takes large bodies, too, once what is over of them has left", async () => {
    const human = somebody();
    const agent = await enrolAgent({ human });
    const request = {
      method: "POST",
      target: "/github/x",
      headers: [],
      body: utf8.encode("short"),
      bodyFollows: false,
    };
    const admission = await instanceOf(deployment, agent.id).admit(agent.admission({ request }));
    if (!admission.admitted) throw new Error("not admitted");
    for (let i = 0; i < 3; i++) await admission.lease.append(new Uint8Array(1_048_576).fill(65 + i));
    await admission.lease.settle(settlement({ tail: utf8.encode("end") }));
    const { status, left, blanked } = await eraseAll({ human });
    expect([status, left]).toEqual(["done", []]);
    expect(blanked).toBeGreaterThan(0);
    await flush(agent);
    expect(await keysOf(`bodies/human=${human}/`)).toEqual([]);
    expect(await heldBodies(agent)).toEqual([]);
  });

  it("of one task leaves the others", async () => {
    const human = somebody();
    const [mine, kept] = [planted(human, 3, "t-1", "i-1"), planted(human, 3, "t-2", "i-2")];
    await put([...mine, ...kept]);
    expect(await eraseAll({ human, task: "t-1" })).toMatchObject({ status: "done", objects: 3, task: "t-1" });
    expect(await keysOf(`bodies/human=${human}/`)).toEqual(kept);
  });

  it("goes through more than a page, counts each once, and takes raw bodies and what is not the gate's", async () => {
    const human = somebody();
    const raw = planted(human, 1_100);
    await put([...raw, `bodies/human=${human}/stray`, `bodies/human=${human}/task=t/instance=i/notes.txt`], "12345");
    const erasure = await eraseAll({ human });
    expect(erasure).toMatchObject({ status: "done", objects: 1_102, bytes: 1_102 * 5 });
    expect(await keysOf(`bodies/human=${human}/`)).toEqual([]);
  });

  it("with the same key by the same one is the same erasure; with another body it is none", async () => {
    const human = somebody();
    const request = eraseRequest({ human, idempotencyKey: "k-1" });
    const first = await retention().erase(request);
    if (first.kind !== "accepted") throw new Error(first.kind);
    await ended(first.erasure.id);
    expect(await retention().erase(request)).toMatchObject({
      isRepeated: true,
      erasure: { id: first.erasure.id, status: "done" },
    });
    expect(await retention().erase({ ...request, reason: "another" })).toEqual({ kind: "key-used" });
    const others = await retention().erase({ ...request, by: "operator-2" });
    if (others.kind !== "accepted") throw new Error(others.kind);
    expect(others.isRepeated).toBe(false);
    await ended(others.erasure.id);
    expect(await keysOf(`erasures/human=${human}/`)).toHaveLength(2);
  });
});

/** An erasure's own run in an object of its own, with a bucket that the test spoils. */
async function inRun<T>(
  human: string,
  work: (rig: {
    book: ErasureBook;
    holds: HoldBook;
    /** Methods of the bucket that are spoilt. */
    spoilt: Record<PropertyKey, unknown>;
    /** Steps until it is over, or until `count` are through. A new run each: nothing is kept in memory. */
    steps: (count?: number) => Promise<string>;
    erasure: Erasure;
    /** Of this run alone. */
    deployment: Deployment;
  }) => Promise<T>,
): Promise<T> {
  const stub = env.RETENTION.get(env.RETENTION.newUniqueId());
  return runInDurableObject(stub, async (_object: unknown, { storage }: DurableObjectState) => {
    const book = new ErasureBook(storage.sql);
    const holds = new HoldBook(storage.sql);
    const spoilt: Record<PropertyKey, unknown> = {};
    const wrapped = new Proxy(bucket, {
      get: (target, name) => spoilt[name] ?? (Reflect.get(target, name) as () => unknown).bind(target),
    });
    const own: Deployment = { ...deployment, env: { ...deployment.env } };
    const id = crypto.randomUUID();
    const nowMs = Date.now();
    const request = eraseRequest({ human });
    const erasure: Erasure = {
      ...request,
      id,
      atMs: nowMs,
      beforeMs: nowMs,
      certificate: `erasures/human=${human}/${id}.json`,
    };
    book.add(erasure, request);
    const steps = async (count = 100): Promise<string> => {
      for (let i = 0; i < count; i++) {
        const running = book.running();
        if (running === undefined) return "none";
        const run = new ErasureRun({ book, holds, bucket: () => wrapped, deployment: () => own });
        if ((await run.step(running)) === "over") return "over";
      }
      return "on";
    };
    return work({ book, holds, spoilt, steps, erasure, deployment: own });
  });
}

describe("what comes back when an erasure is over", () => {
  const MINUTES_15 = 15 * 60_000;
  /** A quarter of an hour later, until it has nothing to do. */
  async function later(): Promise<void> {
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + MINUTES_15 + 1_000);
    for (let i = 0; i < 20; i++) await runDurableObjectAlarm(retentionStub());
    clock.mockRestore();
  }
  /** A bucket whose first put of bodies is carried out when the test says so, long after it was given up. */
  async function withLatePut(agent: Agent, work: () => Promise<void>): Promise<() => Promise<void>> {
    const late = Promise.withResolvers<void>();
    const given: Promise<unknown>[] = [];
    const spoilt = new Proxy(bucket, {
      get: (target, name) => {
        if (name !== "put" || given.length > 0) return (Reflect.get(target, name) as () => unknown).bind(target);
        return (...args: Parameters<R2Bucket["put"]>) => {
          given.push(late.promise.then(() => bucket.put(...args)));
          return given[0];
        };
      },
    });
    const setBucket = (to: R2Bucket) =>
      runInDurableObject(instanceStub(agent.id), (instance) => {
        const patched = instance as unknown as { env: object };
        patched.env = { ...patched.env, TRANSCRIPTS: to };
      });
    await setBucket(spoilt);
    vi.spyOn(console, "error").mockImplementation(() => {});
    const { setTimeout: real } = globalThis;
    const hurried = ((run: () => void, ms = 0) => real(run, ms >= 30_000 ? 20 : ms)) as typeof setTimeout;
    const timers = vi.spyOn(globalThis, "setTimeout").mockImplementation(hurried);
    await work();
    timers.mockRestore();
    await setBucket(bucket);
    expect(given).toHaveLength(1);
    return async () => {
      late.resolve();
      await given[0];
    };
  }

  it("by a put that R2 carries out late is taken again, and that is on record", async () => {
    const human = somebody();
    const agent = await enrolAgent({ human });
    await call(agent, "a secret", "its answer");
    const store = await withLatePut(agent, () => flush(agent));
    await flush(agent);
    const keys = await keysOf(`bodies/human=${human}/`);
    expect(keys).toHaveLength(1);
    const erasure = await eraseAll({ human });
    expect(erasure).toMatchObject({ status: "done", objects: 1, instances: 1 });
    expect(await keysOf(`bodies/human=${human}/`)).toEqual([]);
    await store();
    // What this is about: it is there again, with all that was erased.
    expect(await keysOf(`bodies/human=${human}/`)).toEqual(keys);
    expect((await linesIn(`bodies/human=${human}/`)).map((line) => line["text"])).toContain("a secret");
    // And what was written since is nobody's to take.
    await call(agent, "written since", "so is this");
    await flush(agent);
    await later();
    expect((await linesIn(`bodies/human=${human}/`)).map((line) => line["text"])).toEqual([
      "written since",
      "so is this",
    ]);
    expect(await retention().erasure(erasure.id)).toMatchObject({
      status: "done",
      objects: 2,
      instances: 1,
      leftCount: 0,
    });
    await vi.waitFor(async () =>
      expect((await actsOf(erasure.id)).map((act) => [act["deed"], act["status"], act["objects"]])).toContainEqual([
        "erased",
        "late",
        1,
      ]),
    );
    // Once, and no more.
    await store();
    await bucket.put(keys[0]!, "x");
    await later();
    expect(await bucket.head(keys[0]!)).not.toBeNull();
  });

  it("of an instance that was not there is asked for, and stays where it is of later", async () => {
    const human = somebody();
    const erasure = await eraseAll({ human });
    const agent = await enrolAgent({ human });
    await call(agent, "later", "than that");
    await flush(agent);
    const planted_ = planted(human, 2);
    await put(planted_);
    await later();
    expect((await linesIn(`bodies/${partitionOf(agent)}/`)).map((line) => line["text"])).toContain("later");
    for (const key of planted_) expect(await bucket.head(key)).toBeNull();
    expect(await retention().erasure(erasure.id)).toMatchObject({ status: "done", objects: 2, left: [] });
  });

  it("is not taken for what an instance wrote that enrolled while the erasure ran", async () => {
    const human = somebody();
    await inRun(human, async ({ book, steps, erasure, holds, deployment: own }) => {
      expect(await steps()).toBe("over");
      const agent = await enrolAgent({ human });
      // It was asked when it stood on the roster, and was not there yet.
      book.setExtent(erasure.id, agent.id, agent.enrolment.task.id, NOBODY, 0);
      book.end(erasure.id, "done", null, Date.now(), Date.now());
      await call(agent, "later", "than that");
      await flush(agent);
      const before = await linesIn(`bodies/human=${human}/`);
      expect(before.length).toBeGreaterThan(1);
      const run = new ErasureRun({ book, holds, bucket: () => bucket, deployment: () => own });
      let state = "on";
      for (let i = 0; state !== "over" && i < 20; i++) state = await run.step(book.sweeping(Date.now())!);
      expect([state, book.endSweep(erasure.id)]).toEqual(["over", { objects: 0, bytes: 0, rewritten: 0 }]);
      expect(await linesIn(`bodies/human=${human}/`)).toEqual(before);
      expect([book.sweepAtMs, book.sweeping(Date.now())]).toEqual([null, undefined]);
    });
  });

  it("is kept where a hold has come since", async () => {
    const human = somebody();
    const erasure = await eraseAll({ human });
    const keys = planted(human, 2);
    await put(keys);
    const { id } = await holdOn({ kind: "human", id: human });
    await later();
    expect(await keysOf(`bodies/human=${human}/`)).toEqual(keys);
    expect(await retention().erasure(erasure.id)).toMatchObject({
      status: "done",
      objects: 0,
      left: [],
      stoppedBy: null,
    });
    await release(id);
    await later();
    expect(await keysOf(`bodies/human=${human}/`)).toEqual(keys);
  });
});

describe("an erasure that is interrupted", () => {
  it("at every step and at every answer of the bucket ends the same, counted once", async () => {
    for (const name of ["put", "list", "delete"] as const)
      for (const fault of ["before", "after"] as const) {
        const human = somebody();
        const keys = planted(human, 7);
        await put(keys, "1234567890");
        await inRun(human, async ({ book, spoilt, steps, erasure }) => {
          const real = (bucket[name] as (...args: unknown[]) => Promise<unknown>).bind(bucket);
          let calls = 0;
          spoilt[name] = async (...args: unknown[]) => {
            calls++;
            if (calls > 2) return real(...args);
            if (fault === "after") await real(...args);
            throw new Error("out of reach");
          };
          // Each failure is where the process may have died: what goes on knows the book alone.
          let state = "on";
          for (let tries = 0; state !== "over" && tries < 20; tries++) state = await steps().catch(() => "failed");
          expect([name, fault, state]).toEqual([name, fault, "over"]);
          expect(calls).toBeGreaterThan(0);
          const { objects, bytes, leftCount } = book.state(erasure.id)!;
          expect([name, fault, objects, bytes, leftCount]).toEqual([name, fault, 7, 70, 0]);
          expect(await keysOf(`erasures/human=${human}/`)).toHaveLength(1);
        });
        expect(await keysOf(`bodies/human=${human}/`)).toEqual([]);
      }
  });

  it("begins no deletion before its certificate stands", async () => {
    const human = somebody();
    await put(planted(human, 1));
    await inRun(human, async ({ spoilt, steps }) => {
      spoilt["put"] = async () => {
        throw new Error("out of reach");
      };
      await expect(steps()).rejects.toThrow("out of reach");
      expect(await keysOf(`bodies/human=${human}/`)).toHaveLength(1);
    });
  });

  it("goes on after a reset of its object, from the book", async () => {
    const human = somebody();
    await put(planted(human, 30));
    const { id } = await erase({ human });
    for (let i = 0; i < 3; i++)
      await runInDurableObject(retentionStub(), (_o, state) => state.abort("reset by a test")).catch(() => {});
    expect(await ended(id)).toMatchObject({ status: "done", objects: 30 });
  });

  it("asks an instance again that does not answer, and after ten times leaves what it may still hold, and says so", async () => {
    const human = somebody();
    const agent = await enrolAgent({ human });
    await put(planted(human, 2, agent.enrolment.task.id, agent.id));
    await inRun(human, async ({ book, steps, erasure, deployment: own }) => {
      let asked = 0;
      const get = () => ({
        erase: async () => {
          asked++;
          throw new Error("out of reach");
        },
      });
      const { AGENT_INSTANCE } = own.env;
      const idFromName = (name: string) => AGENT_INSTANCE.idFromName(name);
      (own.env as { AGENT_INSTANCE: unknown }).AGENT_INSTANCE = { idFromName, get };
      expect(await steps(200)).toBe("over");
      expect(asked).toBe(10);
      expect(book.state(erasure.id)).toMatchObject({ objects: 0, leftCount: 3, blanked: 0 });
      expect(book.state(erasure.id)?.left).toContainEqual({
        what: `instance ${agent.id}`,
        why: "it could not be asked for what it still holds",
      });
    });
    expect((await heldBodies(agent)).length).toBe(1);
  });

  it("says what a lock refuses, key by key, and takes the rest", async () => {
    const human = somebody();
    const keys = planted(human, 40);
    const locked = new Set([keys[0]!, keys[17]!, keys[18]!, keys[39]!]);
    await put(keys);
    await inRun(human, async ({ book, spoilt, steps, erasure }) => {
      spoilt["delete"] = async (asked: string | string[]) => {
        if ([asked].flat().some((key) => locked.has(key)))
          throw new Error("The object is locked by a bucket lock rule (10069)");
        await bucket.delete(asked);
      };
      // And in the middle of the page the bucket is out of reach: what is counted by then is not counted again.
      let heads = 0;
      spoilt["head"] = async (key: string) => {
        heads++;
        if (heads === 2 || heads === 3) throw new Error("out of reach");
        return bucket.head(key);
      };
      for (let failed = 0; failed < 2; failed++) await expect(steps(200)).rejects.toThrow("out of reach");
      expect(book.state(erasure.id)?.objects).toBeGreaterThan(0);
      expect(await steps(200)).toBe("over");
      const state = book.state(erasure.id)!;
      expect([state.objects, state.leftCount]).toEqual([36, 4]);
      expect(state.left.map(({ what }) => what)).toEqual([...locked]);
      expect(state.left[0]?.why).toBe("the bucket refused: The object is locked by a bucket lock rule (10069)");
    });
    expect(await keysOf(`bodies/human=${human}/`)).toEqual([...locked]);
  });
});

describe("a hold", () => {
  it.each([
    "human",
    "task",
    "everything",
  ] as const)("of a %s forbids what it covers, and that is said", async (kind) => {
    const human = somebody();
    const keys = planted(human, 2, `t-${human}`);
    await put(keys);
    const subject: HeldSubject =
      kind === "everything" ? { kind } : { kind, id: kind === "human" ? human : `t-${human}` };
    const held = await holdOn(subject);
    expect(await retention().erase(eraseRequest({ human, task: `t-${human}` }))).toMatchObject({
      kind: "held",
      hold: { id: held.id },
    });
    const elsewhere = await retention().erase(eraseRequest({ human: somebody(), task: "t-9" }));
    expect(elsewhere.kind).toBe(kind === "everything" ? "held" : "accepted");
    await release(held.id);
    expect(await eraseAll({ human })).toMatchObject({ status: "done", objects: 2 });
  });

  it("of one task keeps it from an erasure of the human, which says so", async () => {
    const human = somebody();
    const [kept, gone] = [planted(human, 3, "t-kept", "i-1"), planted(human, 3, "t-gone", "i-2")];
    await put([...kept, ...gone]);
    const held = await holdOn({ kind: "task", id: "t-kept" });
    expect(await eraseAll({ human })).toMatchObject({
      status: "incomplete",
      objects: 3,
      left: [{ what: "task t-kept", why: `hold ${held.id}` }],
    });
    expect(await keysOf(`bodies/human=${human}/`)).toEqual(kept);
    await release(held.id);
  });

  it("that comes in the middle stops it: what had gone is said, the rest stays", async () => {
    const human = somebody();
    await put(planted(human, 1_010));
    await inRun(human, async ({ book, holds, steps, erasure }) => {
      // Certificate, roster, a page decided and a page deleted.
      for (let at = 0; at === 0; at = book.state(erasure.id)!.objects) await steps(1);
      expect(book.state(erasure.id)?.objects).toBe(1_000);
      await steps(1); // The next page is decided.
      const hold = { id: "hold-1", subject: { kind: "human", id: human }, reason: "r", by: "a", atMs: 1 } as const;
      holds.add(hold);
      const stopped = await steps().catch((error: unknown) => error);
      expect(stopped).toBeInstanceOf(HeldError);
      expect((stopped as HeldError).hold).toBe("hold-1");
    });
    expect(await keysOf(`bodies/human=${human}/`)).toHaveLength(10);
  });

  it("that comes between two deletions of one page lets no other begin", async () => {
    const human = somebody();
    const keys = planted(human, 8);
    await put(keys);
    await inRun(human, async ({ holds, spoilt, steps }) => {
      const deleted: string[] = [];
      spoilt["delete"] = async (asked: string | string[]) => {
        if ([asked].flat().length > 2) throw new Error("too many at once, says the test");
        deleted.push(...[asked].flat());
        const hold = { id: "hold-2", subject: { kind: "human", id: human }, reason: "r", by: "a", atMs: 1 } as const;
        holds.add(hold);
        await bucket.delete(asked);
      };
      await expect(steps()).rejects.toThrow("hold hold-2");
      expect(deleted).toEqual(keys.slice(0, 2));
    });
    expect(await keysOf(`bodies/human=${human}/`)).toEqual(keys.slice(2));
  });

  it("that races with an erasure: once it is answered, nothing goes any more", async () => {
    for (let round = 0; round < 5; round++) {
      const human = somebody();
      await put(planted(human, 60));
      const [{ id }, held] = await Promise.all([
        erase({ human }),
        new Promise((resolve) => setTimeout(resolve, round * 15)).then(() => holdOn({ kind: "human", id: human })),
      ]).catch(() => [{ id: "" }, null] as const);
      if (held === null) continue;
      const left = await keysOf(`bodies/human=${human}/`);
      const state = await ended(id);
      expect(await keysOf(`bodies/human=${human}/`)).toEqual(left);
      expect(state.objects).toBe(60 - left.length);
      expect(state.status).toBe(left.length === 0 && state.stoppedBy === null ? "done" : "stopped");
      await release(held.id);
    }
  });

  it("takes two people within an hour to release", async () => {
    const { id } = await holdOn({ kind: "human", id: somebody() });
    const nowMs = Date.now();
    expect((await releaseBy(id, "one")).kind).toBe("second-person");
    expect((await releaseBy(id, "one")).kind).toBe("second-person");
    const clock = vi.spyOn(Date, "now").mockReturnValue(nowMs + 3_700_000);
    expect(await releaseBy(id, "two")).toMatchObject({ kind: "second-person", hold: { releaseAskedBy: ["two"] } });
    clock.mockReturnValue(nowMs + 3_700_001);
    expect(await releaseBy(id, "three")).toMatchObject({
      kind: "released",
      hold: { released: { by: ["two", "three"] } },
    });
    clock.mockRestore();
    expect(await releaseBy(id, "four")).toEqual({ kind: "released-already" });
    expect(await releaseBy(crypto.randomUUID(), "four")).toEqual({ kind: "unknown" });
    const [listed] = await retention()
      .holds(null, 500)
      .then((holds) => holds.filter((hold) => hold.id === id));
    expect(listed).toMatchObject({ id, released: { reason: "it is over" }, releaseAskedBy: [] });
    await vi.waitFor(async () =>
      // Journals of two days have no order between them.
      expect((await actsOf(id)).map(({ deed }) => deed).sort()).toEqual([
        ...Array(3).fill("ask to release"),
        "hold",
        "release",
      ]),
    );
  });
});
