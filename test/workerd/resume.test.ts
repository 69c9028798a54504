import { runInDurableObject } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import { AgentInstance } from "../../durable-objects/agent-instance.ts";
import { Lease } from "../../durable-objects/lease.ts";
import { Roster } from "../../durable-objects/roster.ts";
import { instanceOf } from "../../src/objects.ts";
import {
  deployment,
  enrolAgent,
  flip,
  ISSUES,
  instanceStub,
  recordsOf,
  settlement,
  switchOf,
  typesOf,
  upstream,
} from "./kit.ts";
import { reset } from "./raw-kit.ts";
import { answerOf, expectRecorded, giveUpOrphans, noiseText, stream, until } from "./resume-kit.ts";

afterEach(() => vi.restoreAllMocks());

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const killOf = (instance: string) => switchOf({ reach: "instance", target: { instance } });

/** The state of the object in its present life, as its own methods have it. */
let living: DurableObjectState | null = null;
function watchLives(): { readonly resumed: () => number } {
  let resumed = 0;
  for (const method of ["admit", "resume"] as const) {
    const real = AgentInstance.prototype[method] as (...args: unknown[]) => Promise<never>;
    vi.spyOn(AgentInstance.prototype, method).mockImplementation(function (this: AgentInstance, ...args: unknown[]) {
      living = (this as unknown as { readonly ctx: DurableObjectState }).ctx;
      if (method === "resume") resumed++;
      return real.apply(this, args);
    });
  }
  return { resumed: () => resumed };
}

/** The object dies at such a call on the lease: before anything of it is done, or when all of it is durable and its answer on its way. */
function dieAround(method: "append" | "settle", when: "before" | "after", times = 1) {
  const lives = watchLives();
  const real = Lease.prototype[method] as (...args: unknown[]) => Promise<never>;
  let left = times;
  vi.spyOn(Lease.prototype, method).mockImplementation(async function (this: Lease, ...args: unknown[]) {
    if (left-- <= 0) return real.apply(this, args);
    if (when === "after") {
      await real.apply(this, args);
      await living!.storage.sync();
    }
    living!.abort("reset by a test");
    return null as never;
  });
  return lives;
}

describe("a stream whose object is reset", () => {
  it.each(["text/event-stream", "text/plain"])("of %s goes on, and its record is whole", async (type) => {
    const agent = await enrolAgent();
    const streaming = await stream(agent, type);
    const held = type === "text/plain" ? -1 : undefined;
    streaming.say("one ");
    await until(streaming, "one ".slice(0, held));
    await reset(agent);
    streaming.say("two ");
    await until(streaming, "one two ".slice(0, held));
    await reset(agent);
    await reset(agent);
    streaming.say("three");
    await until(streaming, "one two three".slice(0, held));
    streaming.end();
    expect(await streaming.over).toBe("whole");
    expect(streaming.got()).toBe("one two three");
    const { passedBytes } = await expectRecorded(agent, 1, "one two three");
    expect(passedBytes).toBe(13);
  });

  it("passes nothing before it is taken up, and then all of it", async () => {
    const agent = await enrolAgent();
    const streaming = await stream(agent);
    streaming.say("one ");
    await until(streaming, "one ");
    const answered = Promise.withResolvers<void>();
    const real = Roster.prototype.confirm;
    const asked = vi.spyOn(Roster.prototype, "confirm").mockImplementation(async function (this: Roster, ...args) {
      while (!(await Promise.race([answered.promise.then(() => true), pause(5).then(() => false)])));
      return real.apply(this, args);
    });
    await reset(agent);
    await vi.waitFor(() => expect(asked).toHaveBeenCalled());
    streaming.say("two ");
    await pause(150);
    expect([streaming.got(), streaming.isClosed()]).toEqual(["one ", false]);
    answered.resolve();
    await until(streaming, "one two ");
    streaming.end();
    expect(await streaming.over).toBe("whole");
    await expectRecorded(agent, 1, "one two ");
  });

  it.each([
    ["before", 1],
    ["after", 1],
    ["before", 2],
    ["after", 2],
  ] as const)("dies %s an append is durable, %i times: no gap, and no byte twice", async (when, times) => {
    const agent = await enrolAgent();
    const text = noiseText(600_000, times);
    const lives = dieAround("append", when, times);
    const streaming = await stream(agent);
    // More than may be ahead of the record: appends come by size.
    for (let at = 0; at < text.length; at += 50_000) streaming.say(text.slice(at, at + 50_000));
    streaming.end();
    expect(await streaming.over).toBe("whole");
    expect(streaming.got() === text).toBe(true);
    await expectRecorded(agent, 1, text);
    expect(lives.resumed()).toBe(times);
  });
});

describe("a short call whose object dies while it is settled", () => {
  it.each(["before", "after"] as const)("%s the record is durable: one answer, and it is released", async (when) => {
    const agent = await enrolAgent();
    let calls = 0;
    upstream(() => {
      calls++;
      return new Response("abcdef", { headers: { "content-length": "6" } });
    });
    dieAround("settle", when);
    const response = await agent.call(ISSUES);
    expect([response.status, await response.text(), calls]).toEqual([200, "abcdef", 1]);
    await expectRecorded(agent, 1, "abcdef");
    expect(typesOf(await recordsOf(agent))).toBe("");
  });

  it("which was cut by a switch is not released, though the record of that is durable", async () => {
    const agent = await enrolAgent();
    upstream(() => new Response("abcdef", { headers: { "content-length": "6" } }));
    watchLives();
    const real = Lease.prototype.settle;
    vi.spyOn(Lease.prototype, "settle").mockImplementationOnce(async function (this: Lease, ...args) {
      this.break("switched");
      await real.apply(this, args);
      await living!.storage.sync();
      living!.abort("reset by a test");
      return true;
    });
    const response = await agent.call(ISSUES);
    expect([response.status, await response.text()]).toEqual([401, expect.not.stringContaining("abc")]);
    expect(await answerOf(agent, 1)).toMatchObject({ outcome: "cut", cause: "switched", passedBytes: 0 });
  });
});

describe("a call that something stopped while its object was away", () => {
  it("by a kill that the object's former life had heard of: silence, one record, and the receipt counts it", async () => {
    const agent = await enrolAgent();
    const streaming = await stream(agent);
    streaming.say("one ");
    await until(streaming, "one ");
    const resume = AgentInstance.prototype.resume;
    const sw = killOf(agent.id);
    const seen: unknown[] = [];
    vi.spyOn(AgentInstance.prototype, "resume").mockImplementationOnce(async function (this: AgentInstance, request) {
      // Before the Worker comes: the call may still run, as far as anybody knows.
      seen.push(await this.close(sw));
      return resume.call(this, request);
    });
    await reset(agent);
    streaming.say("two ");
    expect(await streaming.over).toBe("cut");
    expect(streaming.got()).toBe("one ");
    expect(seen).toMatchObject([{ cut: 0, unconfirmed: 1 }]);
    await vi.waitFor(async () =>
      expect(await instanceOf(deployment, agent.id).close(sw)).toMatchObject({ cut: 1, unconfirmed: 0 }),
    );
    expect(streaming.isClosed()).toBe(true);
    const answer = await answerOf(agent, 1);
    expect(answer).toMatchObject({ outcome: "cut", cause: "switched", switch: sw.id, passedBytes: 4 });
    expect(answer?.["body"]).toMatchObject({ complete: false });
  });

  it("by a kill that only the roster knows: the fresh object asks it first", async () => {
    const agent = await enrolAgent({ human: crypto.randomUUID() });
    const streaming = await stream(agent);
    streaming.say("one ");
    await until(streaming, "one ");
    // Its push does not get through, nor does a resumption until it was tried.
    const pushed = vi.spyOn(AgentInstance.prototype, "close").mockRejectedValue(new Error("lost"));
    const resume = AgentInstance.prototype.resume;
    const killed = Promise.withResolvers<void>();
    vi.spyOn(AgentInstance.prototype, "resume").mockImplementation(async function (this: AgentInstance, request) {
      for (let isKilled = false; !isKilled; )
        isKilled = await Promise.race([killed.promise.then(() => true), pause(5).then(() => false)]);
      return resume.call(this, request);
    });
    await reset(agent);
    streaming.say("two ");
    await flip({ reach: "human", target: { human: agent.enrolment.human } });
    killed.resolve();
    expect(await streaming.over).toBe("cut");
    expect([streaming.got(), pushed.mock.calls.length > 0]).toEqual(["one ", true]);
    await vi.waitFor(async () => expect(await answerOf(agent, 1)).toMatchObject({ outcome: "cut", cause: "switched" }));
  });

  it.each([
    ["unconfirmed", () => vi.spyOn(Roster.prototype, "confirm").mockRejectedValue(new Error("out of reach"))],
  ] as const)("by nothing but that nobody confirms it (%s)", async (cause, happen) => {
    const agent = await enrolAgent();
    const streaming = await stream(agent);
    streaming.say("one ");
    await until(streaming, "one ");
    happen();
    await reset(agent);
    streaming.say("two ");
    expect([await streaming.over, streaming.got()]).toEqual(["cut", "one "]);
    await vi.waitFor(async () => expect(await answerOf(agent, 1)).toMatchObject({ outcome: "cut", cause }));
  });

  it("by a revocation", async () => {
    const agent = await enrolAgent();
    const streaming = await stream(agent);
    streaming.say("one ");
    await until(streaming, "one ");
    const resume = AgentInstance.prototype.resume;
    vi.spyOn(AgentInstance.prototype, "resume").mockImplementationOnce(async function (this: AgentInstance, request) {
      expect(await this.revoke("platform", "test")).toMatchObject({ unconfirmed: 1 });
      return resume.call(this, request);
    });
    await reset(agent);
    streaming.say("two ");
    expect([await streaming.over, streaming.got()]).toEqual(["cut", "one "]);
    await vi.waitFor(async () => expect(await answerOf(agent, 1)).toMatchObject({ outcome: "cut", cause: "ended" }));
  });

  it("by a switch of its upstream: the instance goes on", async () => {
    const agent = await enrolAgent();
    const streaming = await stream(agent);
    streaming.say("one ");
    await until(streaming, "one ");
    const resume = AgentInstance.prototype.resume;
    const sw = switchOf({ reach: "upstream", target: { upstream: "github" } });
    vi.spyOn(AgentInstance.prototype, "resume").mockImplementationOnce(async function (this: AgentInstance, request) {
      await this.close(sw);
      return resume.call(this, request);
    });
    await reset(agent);
    streaming.say("two ");
    expect([await streaming.over, streaming.got()]).toEqual(["cut", "one "]);
    await vi.waitFor(async () =>
      expect(await answerOf(agent, 1)).toMatchObject({ outcome: "cut", cause: "upstream-switched", switch: sw.id }),
    );
  });

  it("by a group that its human lost", async () => {
    const human = crypto.randomUUID();
    const agent = await enrolAgent({ human, groupsAtMs: Date.now() - 1_000 });
    const streaming = await stream(agent);
    streaming.say("one ");
    await until(streaming, "one ");
    const resume = AgentInstance.prototype.resume;
    const sw = switchOf({ act: "narrow", reach: "human", target: { human }, groups: [], eventAtMs: Date.now() });
    vi.spyOn(AgentInstance.prototype, "resume").mockImplementationOnce(async function (this: AgentInstance, request) {
      expect(await this.close(sw)).toMatchObject({ cut: 0, unconfirmed: 1 });
      return resume.call(this, request);
    });
    await reset(agent);
    streaming.say("two ");
    expect([await streaming.over, streaming.got()]).toEqual(["cut", "one "]);
    await vi.waitFor(async () =>
      expect(await instanceOf(deployment, agent.id).close(sw)).toMatchObject({ cut: 1, unconfirmed: 0 }),
    );
    expect(await answerOf(agent, 1)).toMatchObject({ outcome: "cut", cause: "narrowed", switch: sw.id });
  });

  it("by the end of its task", async () => {
    const agent = await enrolAgent();
    const streaming = await stream(agent);
    streaming.say("one ");
    await until(streaming, "one ");
    const resume = AgentInstance.prototype.resume;
    vi.spyOn(AgentInstance.prototype, "resume").mockImplementationOnce(async function (this: AgentInstance, request) {
      const clock = vi.spyOn(Date, "now").mockReturnValue(agent.enrolment.task.deadlineMs);
      const resumed = await resume.call(this, request);
      clock.mockRestore();
      return resumed;
    });
    await reset(agent);
    streaming.say("two ");
    expect([await streaming.over, streaming.got()]).toEqual(["cut", "one "]);
    await vi.waitFor(async () => expect(await answerOf(agent, 1)).toMatchObject({ outcome: "cut", cause: "expired" }));
  });

  it("by the loss of what was durable of it: the record says that it does not fit", async () => {
    const agent = await enrolAgent();
    const streaming = await stream(agent);
    const text = noiseText(300_000, 3);
    streaming.say(text);
    await vi.waitFor(() => expect(streaming.got()).toBe(text));
    const resume = AgentInstance.prototype.resume;
    vi.spyOn(AgentInstance.prototype, "resume").mockImplementationOnce(async function (this: AgentInstance, request) {
      const { storage } = (this as unknown as { readonly ctx: DurableObjectState }).ctx;
      storage.sql.exec("DELETE FROM log_0 WHERE body_of = 1");
      return resume.call(this, request);
    });
    await reset(agent);
    streaming.say("two ");
    expect([await streaming.over, streaming.got() === text]).toEqual(["cut", true]);
    await vi.waitFor(async () =>
      expect(await answerOf(agent, 1)).toMatchObject({
        outcome: "cut",
        reason: expect.stringContaining("did not fit"),
        passedBytes: 300_000,
      }),
    );
  });

  it("by its size: of what lies in R2 no digest goes on", async () => {
    const agent = await enrolAgent();
    const streaming = await stream(agent);
    const text = noiseText(1_300_000, 4);
    let appended = 0;
    const { append } = Lease.prototype;
    vi.spyOn(Lease.prototype, "append").mockImplementation(async function (this: Lease, ...args) {
      const kept = await append.apply(this, args);
      appended += args[0].byteLength;
      return kept;
    });
    for (let at = 0; at < text.length; at += 50_000) streaming.say(text.slice(at, at + 50_000));
    await vi.waitFor(() => expect(streaming.got().length).toBe(text.length), { timeout: 10_000 });
    await vi.waitFor(() => expect(appended).toBe(text.length));
    await runInDurableObject(instanceStub(agent.id), (_instance, { storage }) => storage.sync());
    await reset(agent);
    streaming.say("two ");
    expect([await streaming.over, streaming.got() === text]).toEqual(["cut", true]);
    await vi.waitFor(async () => expect(typesOf(await recordsOf(agent))).toBe("enrolled call answer"));
    const answer = await answerOf(agent, 1);
    expect(answer).toMatchObject({ outcome: "lost", body: { bytes: 1_300_000, complete: false } });
  });

  it("by an agent that went away", async () => {
    const agent = await enrolAgent();
    upstream(() => new Response("abcdef", { headers: { "content-length": "6" } }));
    const resume = AgentInstance.prototype.resume;
    const gone = new AbortController();
    vi.spyOn(AgentInstance.prototype, "resume").mockImplementationOnce(async function (this: AgentInstance, request) {
      gone.abort();
      await pause(20);
      return resume.call(this, request);
    });
    dieAround("settle", "before");
    await agent.call(ISSUES, { signal: gone.signal }).catch(() => null);
    await vi.waitFor(async () => expect(await answerOf(agent, 1)).toBeDefined());
    expect(typesOf(await recordsOf(agent))).toBe("enrolled call answer");
  });
});

describe("a resumption", () => {
  const begun = async (agent: Awaited<ReturnType<typeof enrolAgent>>) => {
    const admission = await instanceOf(deployment, agent.id).admit(agent.admission());
    if (!admission.admitted) throw new Error("refused");
    const { call } = agent.admission();
    return { ...admission, request: { seq: admission.seq, call: call!, tickets: [] } };
  };
  const resume = (agent: { readonly id: string }, request: Parameters<AgentInstance["resume"]>[0]) =>
    instanceOf(deployment, agent.id).resume(request);

  it("of a call that is held, that is unknown, or of another upstream is refused", async () => {
    const agent = await enrolAgent();
    const { request } = await begun(agent);
    expect(await resume(agent, request)).toEqual({ kind: "refused" });
    expect(await resume(agent, { ...request, seq: 0 })).toEqual({ kind: "refused" });
    expect(await resume(agent, { ...request, seq: 999 })).toEqual({ kind: "refused" });
    await reset(agent);
    const other = { ...request, call: { ...request.call, upstream: "stripe" } };
    expect(await resume(agent, other)).toEqual({ kind: "refused" });
    expect(await resume(agent, request)).toMatchObject({ kind: "resumed", answerBytes: 0, cause: null });
    // Once.
    expect(await resume(agent, request)).toEqual({ kind: "refused" });
  });

  it("that a switch denies is waited for by it, until its Worker has settled", async () => {
    const agent = await enrolAgent();
    const { request } = await begun(agent);
    await reset(agent);
    const sw = killOf(agent.id);
    const instance = () => instanceOf(deployment, agent.id);
    expect(await instance().close(sw)).toMatchObject({ cut: 0, unconfirmed: 1 });
    const resumed = await resume(agent, request);
    if (resumed.kind !== "resumed") throw new Error(resumed.kind);
    expect([resumed.cause, await resumed.lease.broken()]).toEqual(["switched", "switched"]);
    const closing = instance().close(sw);
    await pause(50);
    const nowMs = Date.now();
    const timing = { startedAtMs: nowMs - 2, firstByteAtMs: null, lastByteAtMs: nowMs - 1, endedAtMs: nowMs };
    expect(await resumed.lease.settle(settlement({ outcome: "cut", tail: new Uint8Array(0), timing }))).toBe(
      "switched",
    );
    expect(await closing).toMatchObject({ cut: 1, unconfirmed: 0, lastByteAgeMs: expect.any(Number) });
    expect(await answerOf(agent, 1)).toMatchObject({ outcome: "cut", cause: "switched", switch: sw.id });
  });

  it("of two at once is given to one", async () => {
    const agent = await enrolAgent();
    const { request } = await begun(agent);
    await reset(agent);
    const both = await Promise.all([resume(agent, request), resume(agent, request)]);
    expect(both.map(({ kind }) => kind).toSorted()).toEqual(["refused", "resumed"]);
  });

  it("that comes too late finds the call lost", async () => {
    const agent = await enrolAgent();
    const { request } = await begun(agent);
    await reset(agent);
    await giveUpOrphans(agent);
    expect(await resume(agent, request)).toEqual({ kind: "over", outcome: "lost", cause: null });
    expect(typesOf(await recordsOf(agent))).toBe("enrolled call answer");
  });

  it("does not begin the time anew with another reset", async () => {
    const agent = await enrolAgent();
    await begun(agent);
    await reset(agent);
    await runInDurableObject(instanceStub(agent.id), () => {});
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 5_000);
    await reset(agent);
    await runInDurableObject(instanceStub(agent.id), (instance) => instance.alarm());
    clock.mockRestore();
    expect((await recordsOf(agent)).at(-1)).toMatchObject({ type: "answer", outcome: "lost" });
  });

  it("whose Worker has said that it stopped is refused, and its end is on record at once", async () => {
    const agent = await enrolAgent();
    const { request } = await begun(agent);
    await reset(agent);
    await instanceOf(deployment, agent.id).callStopped(request.seq);
    expect(await resume(agent, request)).not.toMatchObject({ kind: "resumed" });
    await vi.waitFor(async () => expect(await answerOf(agent, 1)).toMatchObject({ outcome: "lost" }));
  });

  it("that its Worker never heard of is given up when that says that it stopped", async () => {
    const agent = await enrolAgent();
    const { request } = await begun(agent);
    await reset(agent);
    expect(await resume(agent, request)).toMatchObject({ kind: "resumed" });
    await instanceOf(deployment, agent.id).callStopped(request.seq);
    expect(await answerOf(agent, 1)).toMatchObject({ outcome: "lost" });
  });
});
