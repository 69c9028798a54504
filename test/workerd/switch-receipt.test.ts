import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { verify } from "node:crypto";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { Roster } from "../../durable-objects/roster.ts";
import type { Pushed } from "../../src/control/acknowledgement.ts";
import type { FlipState, ShardProgress } from "../../src/control/contract.ts";
import { RECEIPT_INSTANCES_MAX, RECEIPT_TYPE, receiptOf, signReceipt } from "../../src/control/receipt.ts";
import { verifyReceipt } from "../../src/control/verify-receipt.ts";
import { decodeBase64url, encodeBase64url } from "../../src/grant/base64url.ts";
import { instanceOf, switchboardOf } from "../../src/objects.ts";
import { parseSealKeys } from "../../src/transcript/verify-keys.ts";
import { ORIGIN } from "./config.ts";
import {
  boardStub,
  deployment,
  enrolAgent,
  enrolIdle,
  flip,
  instanceStub,
  rosterStub,
  settlement,
  switchOf,
  watchRecords,
} from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

const board = switchboardOf(deployment);
const somebody = () => `human-${crypto.randomUUID()}`;
const later = (ms: number) => vi.spyOn(Date, "now").mockReturnValue(Date.now() + ms);
describe("a receipt", () => {
  const state = (times: readonly number[], change: Partial<FlipState> = {}): FlipState => ({
    switch: switchOf({ atMs: 1_000 }),
    status: "done",
    reached: times.map((at, i) => ({
      instance: `i-${i}`,
      answer: { cut: i % 2, unconfirmed: 0, acknowledgedAtMs: at, lastByteAtMs: i % 2 === 1 ? at - 3 : null },
      stoppedByMs: 99_999,
    })),
    idle: 4,
    opened: null,
    liftAskedBy: [],
    unheardShards: 0,
    ...change,
  });
  const hundred = Array.from({ length: 100 }, (_, i) => 1_001 + ((i * 37) % 100));

  it("of nobody has no time but that of its acceptance", () =>
    expect(receiptOf(state([]), ORIGIN)).toMatchObject({
      reached: 0,
      idle: 4,
      cut: 0,
      acceptedAtMs: 1_000,
      firstAcknowledgedAtMs: null,
      p50AcknowledgedAtMs: null,
      p99AcknowledgedAtMs: null,
      lastAcknowledgedAtMs: null,
      lastByteAtMs: null,
      instances: [],
      missing: 0,
      lastStoppedByMs: null,
      unreached: [],
    }));

  it.each<[string, readonly number[], readonly (number | null)[]]>([
    ["one", [1_007], [1_007, 1_007, 1_007, 1_007]],
    ["two", [1_009, 1_007], [1_007, 1_007, 1_009, 1_009]],
    ["a hundred, in no order", hundred, [1_001, 1_050, 1_099, 1_100]],
    ["a hundred and one", [...hundred, 9_000], [1_001, 1_051, 1_100, 9_000]],
  ])("has figures that were measured: %s", (_name, times, expected) => {
    const { firstAcknowledgedAtMs, p50AcknowledgedAtMs, p99AcknowledgedAtMs, lastAcknowledgedAtMs, ...rest } =
      receiptOf(state(times), ORIGIN);
    expect([firstAcknowledgedAtMs, p50AcknowledgedAtMs, p99AcknowledgedAtMs, lastAcknowledgedAtMs]).toEqual(expected);
    expect([rest.reached, rest.cut]).toEqual([times.length, Math.floor(times.length / 2)]);
  });

  it("names who was not reached, by when it has stopped, and never counts it", () => {
    const one = state([1_005]);
    const missed = { instance: "far", answer: null, stoppedByMs: 61_000 };
    expect(receiptOf({ ...one, reached: [...one.reached, missed] }, ORIGIN)).toMatchObject({
      reached: 1,
      instances: [{ instance: "i-0" }],
      missing: 1,
      lastStoppedByMs: 61_000,
      unreached: [{ instance: "far", stoppedByMs: 61_000 }],
    });
  });

  it("names at most 10,000 of those that were not reached, and says of more how many, and by when the last has stopped", () => {
    const name = (i: number) => `${i}`.padStart(43, "i");
    const missed = Array.from({ length: RECEIPT_INSTANCES_MAX + 1 }, (_, i) => ({
      instance: name(i),
      answer: null,
      stoppedByMs: 1_795_351_594_474 + ((i * 37) % 101),
    }));
    const all = receiptOf(state([], { reached: missed }), ORIGIN);
    expect(all).toMatchObject({ missing: 10_001, lastStoppedByMs: 1_795_351_594_574, unreached: null });
    const reached = Array.from({ length: RECEIPT_INSTANCES_MAX }, (_, i) => ({
      instance: name(100_000 + i),
      answer: { cut: 9_999, unconfirmed: 9_999, acknowledgedAtMs: 1_795_351_594_474, lastByteAtMs: null },
      stoppedByMs: 1_795_351_594_474,
    }));
    // The longest that is named whole is still read.
    const longest = receiptOf(
      state([], { reached: [...missed.slice(1), ...reached], switch: switchOf({ atMs: 1_795_351_594_000 }) }),
      deployment.config.origin,
    );
    expect([longest.unreached?.length, longest.instances?.length]).toEqual([10_000, 10_000]);
    const keys = parseSealKeys(deployment.sealKeys.jwks);
    if (!keys.ok) throw new Error(keys.error);
    for (const receipt of [longest, all]) {
      const jws = signReceipt(deployment.sealKeys, receipt);
      expect(verifyReceipt(jws, { keys: keys.value, issuer: ORIGIN, place: "r" }, []).findings).toEqual([]);
    }
    expect(signReceipt(deployment.sealKeys, longest).length).toBeLessThan(5_000_000);
  });

  it("is signed with the key of the seals, and no byte of it can change", () => {
    const receipt = receiptOf(state(hundred), ORIGIN);
    const jws = signReceipt(deployment.sealKeys, receipt);
    const [header, payload, signature] = jws.split(".") as [string, string, string];
    const read = (part: string) => JSON.parse(new TextDecoder().decode(decodeBase64url(part)!)) as unknown;
    expect(read(header)).toMatchObject({ typ: RECEIPT_TYPE, alg: "Ed25519" });
    expect(read(payload)).toEqual(JSON.parse(JSON.stringify(receipt)));
    expect(verifies(header, payload, signature)).toBe(true);
    const forged = encodeBase64url(new TextEncoder().encode(JSON.stringify({ ...receipt, cut: receipt.cut + 1 })));
    expect(verifies(header, forged, signature)).toBe(false);
    for (const part of [0, 1, 2])
      for (let at = 0; at < [header, payload, signature][part]!.length; at += 97) {
        const parts: [string, string, string] = [header, payload, signature];
        const char = parts[part]![at] === "B" ? "C" : "B";
        parts[part] = parts[part]!.slice(0, at) + char + parts[part]!.slice(at + 1);
        expect(verifies(...parts)).toBe(false);
      }
  });
});

describe("who is counted", () => {
  it("a push goes to those alone that may act without asking; the others are idle, and refused when they wake", async () => {
    const human = somebody();
    const awake = await enrolAgent({ human });
    const idle = await enrolIdle({ human });
    const close = await runInDurableObject(instanceStub(idle.id), (instance) =>
      vi.spyOn(Object.getPrototypeOf(instance) as typeof instance, "close"),
    );
    const state = await flip({ reach: "human", target: { human } });
    expect(close).toHaveBeenCalledOnce();
    expect(receiptOf(state, ORIGIN)).toMatchObject({ reached: 1, idle: 1, instances: [{ instance: awake.id }] });
    // Its transcript comes to its end without a call of it.
    const stub = instanceStub(idle.id);
    const types: string[] = [];
    await runInDurableObject(stub, async (instance, { storage }) => {
      watchRecords(storage.sql, types);
      const clock = vi.spyOn(Date, "now").mockReturnValue(idle.enrolment.task.deadlineMs + 1);
      await instance.alarm();
      clock.mockRestore();
    });
    expect(types).toEqual(["switched", "ended", "seal"]);
  });

  it("idle are those who were so when it came, however often a shard is asked", async () => {
    const agent = await enrolAgent();
    const progress = (idle: number, pushed: readonly Pushed[] = []): ShardProgress => ({
      pushed,
      isRunning: false,
      idle,
    });
    const missed: Pushed = { instance: agent.id, answer: null, stoppedInMs: 60_000 };
    const apply = await runInDurableObject(rosterStub(agent.enrolment.rosterShard), (roster) =>
      vi.spyOn(Object.getPrototypeOf(roster) as Roster, "apply").mockResolvedValue(progress(0)),
    );
    apply.mockResolvedValueOnce(progress(3, [missed]));
    const { switch: sw, idle, status } = await flip({ reach: "human", target: { human: somebody() } });
    expect([idle, status]).toEqual([3, "pending"]);
    // A shard that began anew holds for idle whoever has been reached since.
    apply.mockResolvedValue(progress(4));
    await runDurableObjectAlarm(boardStub());
    expect((await board.read(sw.id))?.idle).toBe(3);
  });

  it("who was not reached is never counted as reached before, and its confirmation closes it", async () => {
    const agent = await enrolAgent();
    const lost = await runInDurableObject(instanceStub(agent.id), (instance) =>
      vi.spyOn(Object.getPrototypeOf(instance) as typeof instance, "close").mockRejectedValue(new Error("lost")),
    );
    const beforeMs = Date.now();
    const state = await flip({ reach: "instance", target: { instance: agent.id } });
    const receipt = receiptOf(state, ORIGIN);
    expect(receipt).toMatchObject({ status: "pending", reached: 0, instances: [], lastAcknowledgedAtMs: null });
    const [missed] = receipt.unreached ?? [];
    expect(missed?.instance).toBe(agent.id);
    expect(missed!.stoppedByMs).toBeGreaterThan(beforeMs + 30_000);
    // Told by its roster at the next question, the calls it ran are cut, too.
    const clock = later(61_000);
    expect(await instanceOf(deployment, agent.id).admit(agent.admission())).toMatchObject({
      denial: { reason: "switched" },
    });
    clock.mockRestore();
    lost.mockRestore();
    await vi.waitFor(async () => {
      await runDurableObjectAlarm(boardStub());
      expect(receiptOf((await board.read(state.switch.id))!, ORIGIN)).toMatchObject({ status: "done", reached: 1 });
    });
    const now = receiptOf((await board.read(state.switch.id))!, ORIGIN);
    expect(now.unreached).toEqual([]);
    expect(now.firstAcknowledgedAtMs).toBeGreaterThanOrEqual(receipt.acceptedAtMs);
  });
});

describe("an instance that is reset while its calls are cut", () => {
  const reset = async (id: string) => {
    await runInDurableObject(instanceStub(id), (_instance, state) => state.abort("reset by a test")).catch(() => {});
  };

  it("counts each cut once, and does not call lost ones confirmed, however often it is reset", async () => {
    const agent = await enrolAgent();
    const instance = instanceOf(deployment, agent.id);
    const [one, two] = await Promise.all([1, 2].map(() => instance.admit(agent.admission())));
    if (!one?.admitted || !two?.admitted) throw new Error("refused");
    const sw = switchOf({ reach: "instance", target: { instance: agent.id } });
    const closing = instance.close(sw).catch(() => null);
    expect(await one.lease.broken()).toBe("switched");
    await one.lease.settle(settlement({ outcome: "cut" }));
    await reset(agent.id);
    await closing;
    for (let i = 0; i < 3; i++) {
      expect(await instanceOf(deployment, agent.id).close(sw)).toMatchObject({ cut: 1, unconfirmed: 1 });
      await reset(agent.id);
    }
    // Its Worker hears nothing of its lease, and has cut by itself by then, not when this object began anew.
    const clock = later(40_000);
    const silent = await instanceOf(deployment, agent.id).close(sw);
    clock.mockRestore();
    expect(silent).toMatchObject({ cut: 1, unconfirmed: 0 });
    expect(silent.acknowledgedAgeMs).toBeLessThan(25_000);
    expect(silent.acknowledgedAgeMs).toBeGreaterThanOrEqual(0);
  });
});

describe("the last byte, of an instance that is reset after its Worker has confirmed", () => {
  it("is never said to be earlier than it was: who has forgotten it says when it knew of the cut", async () => {
    const agent = await enrolAgent();
    const instance = instanceOf(deployment, agent.id);
    const admission = await instance.admit(agent.admission());
    if (!admission.admitted) throw new Error("refused");
    const sw = switchOf({ reach: "instance", target: { instance: agent.id } });
    const closing = instance.close(sw).catch(() => null);
    await admission.lease.broken();
    const passedAtMs = Date.now();
    const timing = {
      startedAtMs: passedAtMs,
      firstByteAtMs: passedAtMs,
      lastByteAtMs: passedAtMs,
      endedAtMs: Date.now(),
    };
    await admission.lease.settle(settlement({ outcome: "cut", timing }));
    expect(await closing).toMatchObject({ cut: 1, lastByteAgeMs: expect.any(Number) });
    await runInDurableObject(instanceStub(agent.id), (_i, state) => state.abort("reset by a test")).catch(() => {});
    const { cut, lastByteAgeMs, acknowledgedAgeMs } = await instanceOf(deployment, agent.id).close(sw);
    expect([cut, lastByteAgeMs]).toEqual([1, acknowledgedAgeMs]);
    expect(Date.now() - acknowledgedAgeMs).toBeGreaterThanOrEqual(passedAtMs);
  });
});

/** By the public half, as anybody would. */
function verifies(header: string, payload: string, signature: string): boolean {
  const [jwk] = deployment.sealKeys.jwks.keys;
  const key = { key: jwk!, format: "jwk", dsaEncoding: "ieee-p1363" } as const;
  const bytes = decodeBase64url(signature);
  return bytes !== undefined && verify(null, new TextEncoder().encode(`${header}.${payload}`), key, bytes);
}
