import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { AgentInstance } from "../../durable-objects/agent-instance.ts";
import type { Admission } from "../../src/instance/contract.ts";
import { instanceOf } from "../../src/objects.ts";
import {
  type Agent,
  deployment,
  enrolAgent,
  ISSUES,
  type Line,
  recordsOf,
  settlement,
  switchOf,
  typesOf,
  upstream,
} from "./kit.ts";
import { refuseResumptions } from "./resume-kit.ts";

const stubOf = (agent: Agent) =>
  env.AGENT_INSTANCE.get(env.AGENT_INSTANCE.idFromName(agent.id)) as DurableObjectStub<AgentInstance>;

async function admitted(agent: Agent): Promise<Extract<Admission, { admitted: true }>> {
  const admission = await instanceOf(deployment, agent.id).admit(agent.admission());
  if (!admission.admitted) throw new Error(JSON.stringify(admission.denial));
  return admission;
}

/** Counts what is billed as rows written while `work` runs. */
async function rowsWritten(agent: Agent, work: () => Promise<unknown>): Promise<number> {
  let rows = 0;
  const restore = await runInDurableObject(stubOf(agent), (_instance, state) => {
    const { sql } = state.storage;
    const exec = sql.exec.bind(sql);
    const setAlarm = state.storage.setAlarm.bind(state.storage);
    const counting = vi.spyOn(sql, "exec").mockImplementation(((query: string, ...bindings: unknown[]) => {
      const cursor = exec(query, ...bindings);
      if (/^\s*(insert|update|delete|create|drop)/i.test(query)) rows += cursor.rowsWritten;
      return cursor;
    }) as typeof sql.exec);
    const arming = vi.spyOn(state.storage, "setAlarm").mockImplementation((at) => {
      rows++;
      return setAlarm(at);
    });
    return () => {
      counting.mockRestore();
      arming.mockRestore();
    };
  }).catch(() => undefined);
  if (restore === undefined) throw new Error("the object's storage can't be watched");
  await work();
  return rows;
}

afterEach(() => vi.restoreAllMocks());

describe("work per call", () => {
  it("an ordinary call writes two rows", async () => {
    const agent = await enrolAgent();
    upstream(() => Response.json([{ number: 1 }]));
    await (await agent.call(ISSUES)).text();
    const rows = await rowsWritten(agent, async () => (await agent.call(ISSUES)).text());
    expect(rows).toBe(2);
    expect(typesOf(await recordsOf(agent))).toBe("enrolled call answer call answer");
  });
});

describe("admission", () => {
  it("refuses who never enrolled", async () => {
    const agent = await enrolAgent();
    const admission = await instanceOf(deployment, "nobody").admit(agent.admission());
    expect(admission).toEqual({
      admitted: false,
      denial: { kind: "unauthenticated", code: "invalid_token", reason: "no such instance" },
    });
  });

  it("lets exactly one of many with one proof pass", async () => {
    const agent = await enrolAgent();
    const same = agent.admission();
    const all = await Promise.all(Array.from({ length: 20 }, () => instanceOf(deployment, agent.id).admit(same)));
    expect(all.filter(({ admitted }) => admitted)).toHaveLength(1);
    for (const one of all)
      if (!one.admitted) expect(one.denial).toMatchObject({ code: "invalid_dpop_proof", reason: "replay" });
  });

  it("refuses a grant that ran out on the way, and what nobody described", async () => {
    const agent = await enrolAgent();
    const ask = (change: Parameters<typeof agent.admission>[0]) =>
      instanceOf(deployment, agent.id).admit(agent.admission(change));
    expect(await ask({ grant: { ...agent.grant, expiresAtMs: Date.now() } })).toMatchObject({
      denial: { kind: "unauthenticated", reason: "expired" },
    });
    expect(await ask({ call: null, denial: null })).toMatchObject({ denial: { kind: "absent", reason: "no call" } });
  });

  it("refuses a replay after an eviction, and after the flush of the record that knew it", async () => {
    const agent = await enrolAgent();
    const first = agent.admission();
    const admission = await instanceOf(deployment, agent.id).admit(first);
    if (!admission.admitted) throw new Error("refused");
    await admission.lease.settle(settlement());
    admission.lease[Symbol.dispose]?.();
    await evictDurableObject(stubOf(agent));
    expect(await instanceOf(deployment, agent.id).admit(first)).toMatchObject({ denial: { reason: "replay" } });
    await flush(agent);
    expect(await recordsOf(agent)).toEqual([]);
    await evictDurableObject(stubOf(agent));
    expect(await instanceOf(deployment, agent.id).admit(first)).toMatchObject({ denial: { reason: "replay" } });
  });

  it("gives the last unit of a budget to exactly one", async () => {
    const limits = { ...deployment.config.agents["triage-bot"]!.limits, calls: 10 };
    const agent = await enrolAgent({ limits });
    const all = await Promise.all(
      Array.from({ length: 50 }, () => instanceOf(deployment, agent.id).admit(agent.admission())),
    );
    expect(all.filter(({ admitted }) => admitted)).toHaveLength(10);
  });

  it("counts refusals beyond the limit in one record", async () => {
    const agent = await enrolAgent();
    const denial = { kind: "absent", layer: "grant", reason: "test" } as const;
    for (let i = 0; i < 12; i++) await instanceOf(deployment, agent.id).admit(agent.admission({ denial }));
    const refused = (await recordsOf(agent)).filter(({ type }) => type === "refused");
    expect(refused).toHaveLength(5);
    await runInDurableObject(stubOf(agent), async (_i, state) => {
      expect(await state.storage.getAlarm()).not.toBeNull();
    });
  });

  it("names the ceiling that a call exceeds", async () => {
    const agent = await enrolAgent({ groups: ["nobody"] });
    expect(await instanceOf(deployment, agent.id).admit(agent.admission())).toMatchObject({
      denial: { kind: "absent", layer: "entitlement" },
    });
    const [, refused] = await recordsOf(agent);
    expect(refused).toMatchObject({ type: "refused", decision: { allowed: false, layer: "entitlement" } });
  });
});

describe("leases", () => {
  it("a call whose object was reset and that is not taken up again gets no more bytes, and is recorded as lost", async () => {
    const agent = await enrolAgent();
    const refused = refuseResumptions();
    let source: ReadableByteStreamController | undefined;
    upstream(
      () =>
        new Response(
          new ReadableStream({
            type: "bytes",
            start(controller: ReadableByteStreamController) {
              source = controller;
              controller.enqueue(new TextEncoder().encode("data: 1\n\n"));
            },
          } as UnderlyingByteSource),
          { headers: { "content-type": "text/event-stream" } },
        ),
    );
    const response = await agent.call(ISSUES);
    const reader = response.body!.getReader();
    expect(new TextDecoder().decode((await reader.read()).value)).toBe("data: 1\n\n");
    await new Promise((resolve) => setTimeout(resolve, 50));
    await runInDurableObject(stubOf(agent), (_i, state) => state.abort("reset by a test")).catch(() => {});
    await expect(
      (async () => {
        source?.enqueue(new TextEncoder().encode("data: 2\n\n"));
        for (;;) if ((await reader.read()).done) return "ended";
      })(),
    ).rejects.toThrow();
    expect(refused).toHaveBeenCalled();
    // Its Worker says that it has stopped: nobody waits for it any more.
    await vi.waitFor(async () =>
      expect((await recordsOf(agent)).at(-1)).toMatchObject({
        type: "answer",
        outcome: "lost",
        body: { complete: false },
      }),
    );
  });

  it("an answer that settles after the switch is recorded as cut, and not released", async () => {
    const agent = await enrolAgent();
    const { lease } = await admitted(agent);
    const closing = instanceOf(deployment, agent.id).close(killOf(agent));
    expect(await lease.broken()).toBe("switched");
    expect(await lease.settle(settlement())).toBe("switched");
    expect(await closing).toMatchObject({ cut: 1, unconfirmed: 0 });
    expect((await recordsOf(agent)).at(-1)).toMatchObject({ type: "answer", outcome: "cut", cause: "switched" });
  });
});

const killOf = (agent: Agent) => switchOf({ reach: "instance", target: { instance: agent.id } });

describe("switches", () => {
  it("a kill races with 50 admissions: none is admitted after it has answered, and every running one is cut", async () => {
    const agent = await enrolAgent();
    const admissions = Array.from({ length: 50 }, () => instanceOf(deployment, agent.id).admit(agent.admission()));
    const closing = instanceOf(deployment, agent.id).close(killOf(agent));
    const after = closing.then(() => instanceOf(deployment, agent.id).admit(agent.admission()));
    const passed = (await Promise.all(admissions)).filter((admission) => admission.admitted);
    for (const { lease } of passed) {
      await lease.broken();
      await lease.settle(settlement({ outcome: "cut" }));
    }
    expect(await closing).toMatchObject({ cut: passed.length, unconfirmed: 0 });
    expect(await after).toMatchObject({ admitted: false, denial: { code: "invalid_token", reason: "switched" } });
  });

  it("is known after an eviction, and pushed twice stands once", async () => {
    const agent = await enrolAgent();
    const kill = killOf(agent);
    await instanceOf(deployment, agent.id).close(kill);
    await evictDurableObject(stubOf(agent));
    await instanceOf(deployment, agent.id).close(kill);
    // On record a moment after it counts.
    await vi.waitFor(async () => expect(typesOf(await recordsOf(agent))).toBe("enrolled switched"));
    await evictDurableObject(stubOf(agent));
    await instanceOf(deployment, agent.id).close(kill);
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(typesOf(await recordsOf(agent))).toBe("enrolled switched");
    expect(await instanceOf(deployment, agent.id).admit(agent.admission())).toMatchObject({
      denial: { reason: "switched" },
    });
  });

  it("waits for a key that has not enrolled yet", async () => {
    const agent = await enrolAgent();
    const enrolment = { ...agent.enrolment, instance: "not-yet" };
    await instanceOf(deployment, "not-yet").close(killOf(agent));
    const request = { enrolment, humanClaims: {}, proof: { jti: "a", issuedAtMs: Date.now() }, deployment: "test" };
    expect(await instanceOf(deployment, "not-yet").enrol(request)).toEqual({ enrolled: false, reason: "switched" });
  });

  it("a revocation is the end of it, once", async () => {
    const agent = await enrolAgent();
    await instanceOf(deployment, agent.id).revoke("build-platform", "test");
    await instanceOf(deployment, agent.id).revoke("build-platform", "test");
    expect(typesOf(await recordsOf(agent))).toBe("enrolled switched");
    expect(await instanceOf(deployment, agent.id).introspect()).toMatchObject({ state: "inactive" });
    expect(await instanceOf(deployment, agent.id).admit(agent.admission())).toMatchObject({
      denial: { reason: "revoked" },
    });
  });
});

describe("a switch that is taken, and not on record yet", () => {
  it("goes before the call that comes next, whose body and answer name that call", async () => {
    const agent = await enrolAgent();
    const instance = instanceOf(deployment, agent.id);
    await instance.close(switchOf({ reach: "upstream", target: { upstream: "another" } }));
    const body = new TextEncoder().encode("{}");
    const sent = { method: "GET", target: ISSUES, headers: [], body, bodyFollows: false };
    const admission = await instance.admit(agent.admission({ request: sent }));
    if (!admission.admitted) throw new Error("refused");
    await admission.lease.settle(settlement());
    const lines = await recordsOf(agent);
    expect(typesOf(lines)).toBe("enrolled switched call answer");
    expect([admission.seq, lines[2]?.seq, lines[3]?.["call"]]).toEqual([2, 2, 2]);
    expect((await instance.readBody(2, "request"))?.runs.length).toBe(1);
  });

  it("goes before the refusal that comes next, which has its body", async () => {
    const agent = await enrolAgent();
    const instance = instanceOf(deployment, agent.id);
    await instance.close(switchOf({ reach: "instance", target: { instance: agent.id } }));
    const body = new TextEncoder().encode("{}");
    const sent = { method: "GET", target: ISSUES, headers: [], body, bodyFollows: false };
    expect(await instance.admit(agent.admission({ request: sent }))).toMatchObject({ admitted: false });
    expect(typesOf(await recordsOf(agent))).toBe("enrolled switched refused");
    expect((await instance.readBody(2, "request"))?.runs.length).toBe(1);
  });
});

describe("enrolment", () => {
  it("binds a key once, however many race for it", async () => {
    const agent = await enrolAgent();
    const race = Array.from({ length: 8 }, (_, i) =>
      instanceOf(deployment, "raced-key").enrol({
        enrolment: { ...agent.enrolment, instance: "raced-key", human: `human-${i}` },
        humanClaims: {},
        proof: { jti: `jti-${i}`, issuedAtMs: Date.now() },
        deployment: "test",
      }),
    );
    const answers = await Promise.all(race);
    expect(answers.filter(({ enrolled }) => enrolled)).toHaveLength(1);
  });
});

/** Makes everything due, and lets the alarm write it to R2. */
async function flush(agent: Agent, bucket?: R2Bucket): Promise<void> {
  const { flushAfterMs } = deployment.config.transcripts;
  const later = Date.now() + flushAfterMs + 1;
  await runInDurableObject(stubOf(agent), async (instance) => {
    const clock = vi.spyOn(Date, "now").mockReturnValue(later);
    const patched = instance as unknown as { env: object };
    const { env: before } = patched;
    if (bucket !== undefined) patched.env = { ...before, TRANSCRIPTS: bucket };
    try {
      await instance.alarm();
    } finally {
      patched.env = before;
      clock.mockRestore();
    }
  });
}

describe("segments", () => {
  const keysOf = async (agent: Agent): Promise<string[]> => {
    const { objects } = await env.TRANSCRIPTS.list();
    return objects.map(({ key }) => key).filter((key) => key.includes(`instance=${agent.id}/`));
  };

  it("leave with their bodies beside them, and what has left is no longer in the log", async () => {
    const agent = await enrolAgent();
    upstream(() => Response.json([{ number: 1 }]));
    await (await agent.call(ISSUES)).text();
    await flush(agent);
    const at = `human=human-1/task=build-platform_t1/instance=${agent.id}/0000000000.jsonl.gz`;
    expect(await keysOf(agent)).toEqual([`bodies/${at}`, `transcripts/${at}`]);
    expect(await recordsOf(agent)).toEqual([]);
    await (await agent.call(ISSUES)).text();
    expect((await recordsOf(agent)).map(({ seq }) => seq)).toEqual([3, 4]);
  });

  const faults: [string, (real: R2Bucket) => Partial<R2Bucket>][] = [
    ["fails", () => ({ put: () => Promise.reject(new Error("R2 is down")) })],
    [
      "fails after having stored",
      (real) => ({
        put: (async (key: string, value: Uint8Array, options: R2PutOptions) => {
          await real.put(key, value, options);
          throw new Error("the answer was lost");
        }) as R2Bucket["put"],
      }),
    ],
  ];
  for (const [what, fault] of faults)
    it(`a put that ${what} loses nothing and writes nothing twice`, async () => {
      const agent = await enrolAgent();
      upstream(() => Response.json([{ number: 1 }]));
      await (await agent.call(ISSUES)).text();
      const log = vi.spyOn(console, "error").mockImplementation(() => {});
      const real = env.TRANSCRIPTS;
      const faulty = { get: real.get.bind(real), ...fault(real) } as unknown as R2Bucket;
      await flush(agent, faulty);
      expect(log).toHaveBeenCalledOnce();
      // Sealed, and still here.
      expect(typesOf(await recordsOf(agent))).toBe("enrolled call answer");
      await flush(agent);
      expect(await recordsOf(agent)).toEqual([]);
      expect(await keysOf(agent)).toHaveLength(2);
    });

  it("never overwrite what somebody else put in their place", async () => {
    const agent = await enrolAgent();
    const key = `transcripts/human=human-1/task=build-platform_t1/instance=${agent.id}/0000000000.jsonl.gz`;
    const { gzipSync } = await import("node:zlib");
    await env.TRANSCRIPTS.put(key, gzipSync(new TextEncoder().encode("foreign")));
    const log = vi.spyOn(console, "error").mockImplementation(() => {});
    await flush(agent);
    expect(log.mock.calls[0]?.[1]).toContain("another object stands there");
    expect(typesOf(await recordsOf(agent))).toBe("enrolled");
  });

  it("end, sealed, at the deadline; and after it nothing is admitted", async () => {
    const agent = await enrolAgent();
    vi.spyOn(Date, "now").mockReturnValue(agent.enrolment.task.deadlineMs + 1);
    await runDurableObjectAlarm(stubOf(agent));
    expect(await recordsOf(agent)).toEqual([]);
    expect(await instanceOf(deployment, agent.id).admit(agent.admission())).toMatchObject({
      denial: { code: "invalid_token" },
    });
    await evictDurableObject(stubOf(agent));
    expect(await instanceOf(deployment, agent.id).admit(agent.admission())).toMatchObject({
      denial: { reason: "the transcript has ended" },
    });
    expect(await keysOf(agent)).toHaveLength(2);
  });
});

describe("on record first", () => {
  it("the upstream hears of a call only when its record stands", async () => {
    const agent = await enrolAgent();
    let atUpstream = "";
    upstream(async () => {
      atUpstream = typesOf(await recordsOf(agent));
      return Response.json({});
    });
    await (await agent.call(ISSUES)).text();
    expect(atUpstream).toBe("enrolled call");
  });
});

describe("a reset in the middle of a long upload", () => {
  it("leaves the digest of what was durable of the request", async () => {
    const agent = await enrolAgent();
    const request = {
      ...agent.admission().request,
      method: "PUT",
      body: new Uint8Array(10).fill(65),
      bodyFollows: true,
    };
    const admission = await instanceOf(deployment, agent.id).admit(agent.admission({ request }));
    if (!admission.admitted) throw new Error("refused");
    expect(await admission.lease.appendRequest(new Uint8Array(10).fill(66), false)).toBe(true);
    await runInDurableObject(stubOf(agent), (_i, state) => state.abort("reset by a test")).catch(() => {});
    // Some of it may be in R2 by now, and is read from there: with the alarm, which the object that starts anew arms.
    await vi.waitFor(async () => expect(typesOf(await recordsOf(agent))).toBe("enrolled call answer"));
    const last = (await recordsOf(agent)).at(-1);
    expect(last).toMatchObject({
      outcome: "lost",
      requestBody: { bytes: 20, complete: false, digest: expect.stringMatching(/^[0-9a-f]{64}$/) },
    });
  });
});

describe("a Worker that died without a word", () => {
  it("holds no place in the concurrency, and its call is recorded as lost", async () => {
    const limits = { ...deployment.config.agents["triage-bot"]!.limits, concurrency: 1 };
    const agent = await enrolAgent({ limits });
    const silent = await admitted(agent);
    const busy = await instanceOf(deployment, agent.id).admit(agent.admission());
    expect(busy).toMatchObject({ denial: { kind: "limited", limit: "concurrency" } });
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 20_001);
    const next = await instanceOf(deployment, agent.id).admit(agent.admission());
    clock.mockRestore();
    expect(next.admitted).toBe(true);
    expect(await silent.lease.append(new Uint8Array(1))).toBeNull();
    expect(typesOf(await recordsOf(agent))).toBe("enrolled call refused answer call");
  });
});

describe("an alarm that was lost", () => {
  it("is armed again when the object starts with work left", async () => {
    const agent = await enrolAgent();
    await instanceOf(deployment, agent.id).close(killOf(agent));
    await vi.waitFor(async () => expect(await recordsOf(agent)).toHaveLength(2));
    await runInDurableObject(stubOf(agent), (_i, state) => state.storage.deleteAlarm());
    await evictDurableObject(stubOf(agent));
    expect(await recordsOf(agent)).toHaveLength(2);
    const alarm = await runInDurableObject(stubOf(agent), (_i, state) => state.storage.getAlarm());
    expect(alarm).not.toBeNull();
  });
});

describe("a body that its text would make longer", () => {
  it("goes as base64, so that no one can make a segment that does not fit into memory", async () => {
    const { writeBodyLine, readBodyBytes } = await import("../../src/transcript/body-line.ts");
    const hostile = new Uint8Array(1_048_576);
    hostile.set(new TextEncoder().encode("\u4e2d"));
    const line = writeBodyLine({ seq: 1, part: "request", index: 0 }, hostile);
    expect(line.length).toBeLessThan((hostile.length * 4) / 3 + 256);
    // Not `toEqual`: it takes seconds for a million of elements.
    const read = readBodyBytes(JSON.parse(line));
    expect(read?.length).toBe(hostile.length);
    expect(hostile.every((byte, i) => read?.[i] === byte)).toBe(true);
    const honest = new TextEncoder().encode(JSON.stringify({ text: "plain" }));
    expect(JSON.parse(writeBodyLine({ seq: 1, part: "request", index: 0 }, honest))).toMatchObject({
      text: '{"text":"plain"}',
    });
  });
});

describe("the tail of a transcript", () => {
  it("is read in pages, with each seal after its segment's last line", async () => {
    const agent = await enrolAgent();
    const denial = { kind: "absent", layer: "grant", reason: "test" } as const;
    for (let i = 0; i < 3; i++) await instanceOf(deployment, agent.id).admit(agent.admission({ denial }));
    vi.spyOn(console, "error").mockImplementation(() => {});
    await flush(agent, { put: () => Promise.reject(new Error("R2 is down")) } as unknown as R2Bucket);
    await instanceOf(deployment, agent.id).admit(agent.admission({ denial }));
    const pages: string[] = [];
    for (let from = 0; from < 5; ) {
      const lines = (await instanceOf(deployment, agent.id).read(from, 3))!.lines.map(
        (line) => JSON.parse(line) as Line,
      );
      pages.push(lines.map(({ type, seq }) => (type === "seal" ? "seal" : String(seq))).join(" "));
      from = Math.max(...lines.map(({ seq }) => seq ?? -1)) + 1;
    }
    expect(pages).toEqual(["0 1 2", "3 seal 4"]);
  });
});

describe("a record that can't be written", () => {
  it("denies the call, and leaves no trace of it in what the object counts", async () => {
    const limits = { ...deployment.config.agents["triage-bot"]!.limits, concurrency: 1 };
    const agent = await enrolAgent({ limits });
    upstream(() => Response.json([]));
    await runInDurableObject(stubOf(agent), (_i, state) => {
      const { sql } = state.storage;
      const exec = sql.exec.bind(sql);
      vi.spyOn(sql, "exec").mockImplementation(((query: string, ...bindings: unknown[]) => {
        if (query.startsWith("INSERT INTO log_")) throw new Error("SQLITE_FULL");
        return exec(query, ...bindings);
      }) as typeof sql.exec);
    });
    expect((await agent.call(ISSUES)).status).toBe(503);
    vi.restoreAllMocks();
    const sent = upstream(() => Response.json([]));
    const next = await agent.call(ISSUES);
    expect([next.status, await next.text()]).toEqual([200, "[]"]);
    expect(sent).toHaveBeenCalledOnce();
    expect(typesOf(await recordsOf(agent))).toBe("enrolled call answer");
  });
});
