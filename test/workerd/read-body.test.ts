// One body by the admin's door: exact while it comes, when some of it is in R2, when all of it is, and what is said when it is gone.

import { runDurableObjectAlarm } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import { readBody } from "../../src/admin/bodies.ts";
import type { Admission } from "../../src/instance/contract.ts";
import { instanceOf } from "../../src/objects.ts";
import type { BodyPart } from "../../src/transcript/body-line.ts";
import { writeErasureLine } from "../../src/transcript/erasure.ts";
import { erasureKey, instancePartition, rawBodyKey } from "../../src/transcript/layout.ts";
import { ORIGIN } from "./config.ts";
import { type Agent, deployment, enrolAgent, instanceStub, settlement } from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

const MIB = 1_048_576;
const bucket = deployment.env.TRANSCRIPTS;
let humans = 0;
const newAgent = () => enrolAgent({ human: `human-body-${++humans}` });
const ids = (agent: Agent) => ({ human: agent.enrolment.human, task: "build-platform_t1", instance: agent.id });
const read = (agent: Agent, seq: number, part: BodyPart) => readBody(deployment, ids(agent), seq, part);

async function bytesOf(agent: Agent, seq: number, part: BodyPart): Promise<Uint8Array> {
  const response = await read(agent, seq, part);
  if (response.status !== 200) throw new Error(`${response.status} ${await response.text()}`);
  return response.bytes();
}
const detailOf = async (agent: Agent, seq: number, part: BodyPart): Promise<[number, string]> => {
  const response = await read(agent, seq, part);
  return [response.status, ((await response.json()) as { detail: string }).detail];
};

async function admitted(agent: Agent, body?: Uint8Array): Promise<Extract<Admission, { admitted: true }>> {
  const request = agent.admission().request;
  const change = body === undefined ? {} : { request: { ...request, body } };
  const admission = await instanceOf(deployment, agent.id).admit(agent.admission(change));
  if (!admission.admitted) throw new Error(JSON.stringify(admission.denial));
  return admission;
}

/** All of it into R2, and its rows away. */
async function flush(agent: Agent): Promise<void> {
  const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 400_000);
  await runDurableObjectAlarm(instanceStub(agent.id));
  await runDurableObjectAlarm(instanceStub(agent.id));
  clock.mockRestore();
}

/** Of bytes that tell where they stand. */
function pattern(bytes: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(bytes / 4));
  for (let at = 0; at < words.length; at++) words[at] = Math.imul(at, 2_654_435_761);
  return new Uint8Array(words.buffer, 0, bytes);
}

/** Not by `toEqual`, which takes its time over megabytes. */
const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

describe("a recorded body", () => {
  it("is exact, large and small, wherever it lies by now", async () => {
    const agent = await newAgent();
    const sent = pattern(70_001);
    const whole = pattern(10 * MIB + 17);
    const { lease, seq } = await admitted(agent, sent);
    for (let at = 0; at < whole.length; at += MIB / 2) {
      expect(await lease.append(whole.slice(at, at + MIB / 2))).not.toBeNull();
      // Inline, then in raw objects of which the first goes to R2 as soon as it is full.
      const reached = Math.min(at + MIB / 2, whole.length);
      if (at % (3 * MIB) === 0) expect(same(await bytesOf(agent, seq, "answer"), whole.slice(0, reached))).toBe(true);
    }
    expect(same(await bytesOf(agent, seq, "answer"), whole)).toBe(true);
    await lease.settle(settlement({ tail: new Uint8Array(0), passedBytes: whole.length, heldBytes: 0 }));
    const response = await read(agent, seq, "answer");
    expect(Object.fromEntries(response.headers)).toMatchObject({
      "content-type": "application/octet-stream",
      "content-disposition": `attachment; filename="${seq}-answer"`,
      "x-content-type-options": "nosniff",
      "cache-control": "no-store, no-transform",
    });
    expect(same(await response.bytes(), whole)).toBe(true);
    await flush(agent);
    expect((await bucket.list({ prefix: `bodies/${instancePartition(ids(agent))}/` })).objects.length).toBeGreaterThan(
      2,
    );
    expect(await instanceOf(deployment, agent.id).readBody(seq, "answer")).toMatchObject({ runs: [], objects: 0 });
    expect(same(await bytesOf(agent, seq, "answer"), whole)).toBe(true);
    expect(same(await bytesOf(agent, seq, "request"), sent)).toBe(true);
    expect(new TextDecoder().decode(await bytesOf(agent, 0, "claims"))).toBe('{"email":"ada@acme.example"}');
  });

  it("is that of this record among many of the same segments, and of nobody else", async () => {
    const [agent, other] = [await newAgent(), await newAgent()];
    const told = new Map<number, string>();
    for (let calls = 0; calls < 9; calls++) {
      const text = `{"call":${calls}}`;
      const { lease, seq } = await admitted(agent);
      await lease.settle(settlement({ tail: new TextEncoder().encode(text), heldBytes: text.length }));
      told.set(seq, text);
      if (calls % 3 === 2) await flush(agent);
    }
    for (const [seq, text] of told) expect(new TextDecoder().decode(await bytesOf(agent, seq, "answer"))).toBe(text);
    // Another's ids with this instance's: the object says whose it is.
    const strange = { ...ids(agent), human: other.enrolment.human };
    expect((await readBody(deployment, strange, 1, "answer")).status).toBe(404);
    expect(await detailOf(agent, 2, "answer")).toEqual([404, "no record 2 with a body of the part answer"]);
    expect(await detailOf(agent, 1, "request")).toEqual([404, "no record 1 with a body of the part request"]);
    expect(await detailOf(agent, 999, "answer")).toEqual([404, "no record 999 with a body of the part answer"]);
  });

  it("that is gone is said to be so; 410 only by a certificate that holds and covers it", async () => {
    const agent = await newAgent();
    const { lease, seq } = await admitted(agent);
    await lease.append(pattern(9 * MIB));
    await lease.settle(settlement({ tail: new Uint8Array(0), heldBytes: 0 }));
    await flush(agent);
    const { human, task } = ids(agent);
    const partition = instancePartition(ids(agent));
    // One raw object of two is enough: what is left is not the body.
    await bucket.delete(rawBodyKey(partition, seq, "answer", 1));
    const [status, detail] = await detailOf(agent, seq, "answer");
    expect([status, detail]).toEqual([404, expect.stringContaining("No erasure certificate covers it")]);
    const certify = (id: string, change: object) => {
      const nowMs = Date.now() + 1_000_000;
      const erasure = { iss: ORIGIN, id, human, by: "admin", reason: "r", at: nowMs, before: nowMs, task, ...change };
      return bucket.put(erasureKey(human, id), `${writeErasureLine(deployment.sealKeys, erasure)}\n`);
    };
    await certify("too-early", { before: 1 });
    await certify("other-task", { task: "build-platform_t2" });
    await certify("other-gate", { iss: "https://elsewhere.test" });
    await certify("other-human", { human: "human-x" });
    await bucket.put(erasureKey(human, "forged"), '{"v":1,"type":"erasure","jws":"a.b.c"}\n');
    expect((await detailOf(agent, seq, "answer"))[0]).toBe(404);
    await certify("the-one", {});
    expect(await detailOf(agent, seq, "answer")).toEqual([410, "erased: by the certificate the-one"]);
    // A copy that is still somewhere is not given, either; what came after is.
    expect((await read(agent, 0, "claims")).status).toBe(410);
    await bucket.delete(erasureKey(human, "the-one"));
    expect((await bytesOf(agent, 0, "claims")).length).toBeGreaterThan(0);
  });

  it("breaks off where an object goes while it is read", async () => {
    const agent = await newAgent();
    const { lease, seq } = await admitted(agent);
    await lease.append(pattern(9 * MIB));
    await lease.settle(settlement({ tail: new Uint8Array(0), heldBytes: 0 }));
    await flush(agent);
    const response = await read(agent, seq, "answer");
    await bucket.delete(rawBodyKey(instancePartition(ids(agent)), seq, "answer", 1));
    await expect(response.bytes()).rejects.toThrow("gone while it was read");
  });
});
