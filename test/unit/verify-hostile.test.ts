// What somebody puts into a bucket to blind the verifier: it must come to its end in bounded time and memory, and name what it found
// in every transcript.

import { gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { bodiesKey, instancePartition, segmentKey } from "../../src/transcript/layout.ts";
import { END_GRACE_MS, verifyTranscripts } from "../../src/transcript/verify.ts";
import { Sums } from "../../src/transcript/verify-amounts.ts";
import { ChildrenReader } from "../../src/transcript/verify-children.ts";
import { LINE_MAX_BYTES } from "../../src/transcript/verify-lines.ts";
import type { ReadRecord } from "../../src/transcript/verify-segment.ts";
import type { Enrolled } from "../../src/transcript/verify-shapes.ts";
import { StopReader } from "../../src/transcript/verify-stops.ts";
import {
  DEADLINE_MS,
  findingsOf,
  ISSUER,
  keysOf,
  newRing,
  type Objects,
  objectsOf,
  type TranscriptWriter,
  writerOf,
} from "./transcript-kit.ts";

const IDS = { human: "h", task: "t", instance: "i" };
const ring = await newRing("k");

const verify = (objects: Objects) =>
  verifyTranscripts(objectsOf(objects), { keys: keysOf(ring), issuer: ISSUER, nowMs: DEADLINE_MS + END_GRACE_MS + 1 });
const problemsOf = async (objects: Objects) => findingsOf(await verify(objects)).map(({ problem }) => problem);

function enrolled(ids = IDS, said = {}): TranscriptWriter {
  const writer = writerOf(ids, ring);
  const claims = writer.body(0, "claims", { runs: ["{}"] });
  writer.record("enrolled", { deadline: DEADLINE_MS, claims, ...said });
  return writer;
}

describe("an object that is small, and takes all memory when it is read:", { timeout: 20_000 }, () => {
  const segment = segmentKey(instancePartition(IDS), 1);
  const bodies = bodiesKey(instancePartition(IDS), 0, 0);
  const BOMB_BYTES = 16_777_216;
  const tooMany = `more lines than were ever written of ${BOMB_BYTES} bytes`;
  const tooLong = `a line of more than ${LINE_MAX_BYTES} bytes`;
  const bombs: readonly (readonly [name: string, text: () => Uint8Array, problem: string])[] = [
    ["lines of nothing", () => Buffer.alloc(BOMB_BYTES, "\n"), tooMany],
    ["lines of a number", () => Buffer.alloc(BOMB_BYTES, "1\n"), tooMany],
    ["arrays in arrays", () => Buffer.alloc(BOMB_BYTES, "["), tooLong],
    ["objects in a list", () => Buffer.concat([Buffer.from("["), Buffer.alloc(LINE_MAX_BYTES, "{},")]), tooLong],
  ];
  for (const [name, text, problem] of bombs)
    it(name, async () => {
      const { objects } = sealed(enrolled());
      const zipped = gzipSync(text());
      expect(zipped.length).toBeLessThan(200_000);
      const atSegment = new Map([...objects, [segment, zipped]]);
      expect(await verify(atSegment)).toMatchObject({
        ok: false,
        transcripts: [{ findings: [{ place: segment, problem }] }],
      });
      const atBodies = new Map([...objects, [bodies, zipped]]);
      expect(findingsOf(await verify(atBodies))).toContainEqual({ place: bodies, problem });
    });

  it("a few short lines, and as long a line as is written, are told one by one", async () => {
    const { objects } = sealed(enrolled());
    const lines = gzipSync(Buffer.alloc(900, "\n"));
    expect(await problemsOf(new Map([...objects, [bodies, lines]]))).toContain("not strict JSON: not JSON");
    const line = gzipSync(Buffer.concat([Buffer.alloc(LINE_MAX_BYTES, "0"), Buffer.from("\n")]));
    expect(await problemsOf(new Map([...objects, [bodies, line]]))).toContain("not strict JSON: not JSON");
  });
});

function sealed(writer: TranscriptWriter, final = false): TranscriptWriter {
  writer.seal(final);
  return writer;
}

const CHILD = { human: "h", task: "t", instance: "j" };
const LIMITS = {
  callsPerSecond: 1,
  burst: 1,
  concurrency: 1,
  calls: 1,
  bytes: 1,
  refusalsRecordedPerMinute: 1,
  units: {},
};
const SCOPE = [{ type: "http", upstream: "up", operations: ["GET /{+path}"] }];
const birth = (child = "j") => ({
  act: "delegate",
  child,
  childAgent: "bot",
  childAgentVersion: "1",
  childGrant: "grant-1",
  purpose: "test",
  deadline: DEADLINE_MS,
  scope: SCOPE,
  limits: LIMITS,
});

describe("a record that is not what its neighbours must be", () => {
  for (const chain of [5, null, "chain", {}])
    it(`a sub-agent's chain that is ${JSON.stringify(chain)}: found, and so is what is wrong elsewhere`, async () => {
      const parent = enrolled();
      parent.record("delegated", birth());
      const child = enrolled(CHILD, { parent: "i", scope: SCOPE, limits: LIMITS, chain });
      const other = enrolled({ human: "z", task: "t", instance: "z" });
      other.record("ended", { cause: "revoked" });
      const objects = new Map([parent, child, other].flatMap((one) => [...sealed(one).objects]));
      const problems = await problemsOf(objects);
      expect(problems).toContain("its chain does not end with itself");
      expect(problems).toContain("the end, and the seal is not final");
    });

  it("layers whose names together are those of three: found", async () => {
    const writer = enrolled();
    const operation = "GET /{+path}";
    const ceilings = [
      { layer: "entitlement,agent", at: "entitlements.groups.all[0]", operation },
      { layer: "boundaries", at: "agents.bot.ceiling[0]", operation },
    ];
    writer.record("call", { body: null, decision: { allowed: true, entry: 0, operation, ceilings } });
    expect(await problemsOf(sealed(writer).objects)).toContainEqual(
      expect.stringContaining("was allowed by the layers entitlement,agent, boundaries, and is bounded by"),
    );
  });

  for (const unit of ["tokens", "constructor"])
    it(`what a sub-agent has spent of the unit ${unit}, and its parent does not say: found`, async () => {
      const units = { [unit]: 5 };
      const limits = { ...LIMITS, calls: 10, bytes: 10, units };
      const parent = enrolled();
      parent.record("delegated", { ...birth(), limits });
      parent.record("delegated", { act: "return", child: "j", spent: { calls: 1, bytes: 0, units: {} } });
      const chain = ["i", "j"].map((instance) => ({ client: "platform", agent: "bot", agentVersion: "1", instance }));
      const child = enrolled(CHILD, { parent: "i", scope: SCOPE, limits, chain });
      const layers = [
        ["parent", "parent[0]"],
        ["entitlement", "entitlements.groups.all[0]"],
        ["agent", "agents.bot.ceiling[0]"],
        ["boundaries", "boundaries[0]"],
      ];
      const operation = "GET /{+path}";
      const ceilings = layers.map(([layer, at]) => ({ layer: layer!, at: at!, operation }));
      const decision = { allowed: true, entry: 0, operation, ceilings };
      child.record("call", { chain, body: null, reserved: units, decision });
      child.record("answer", { chain, call: 1, body: null, units: { [unit]: { charged: 5, by: "answer" } } });
      child.record("ended", { chain, units });
      const objects = new Map([...sealed(parent).objects, ...sealed(child, true).objects]);
      expect(await problemsOf(objects)).toContain(`takes back j with 0 ${unit} spent, and its transcript says 5`);
    });
});

describe("records that are many, and are held against each other:", { timeout: 20_000 }, () => {
  const MANY = 100_000;

  it("sub-agents that never came back, and calls", () => {
    const children = new ChildrenReader();
    const limits = { ...LIMITS, calls: 3 * MANY, bytes: 1e12, concurrency: 1e9, burst: 1e9, callsPerSecond: 1e9 };
    const parent = { limits, deadline: DEADLINE_MS } as unknown as Enrolled;
    const used = { calls: 0, bytes: 0, units: new Sums() };
    const delegation = { ...birth(), scope: [], limits: { ...LIMITS, units: { tokens: 1 } } };
    for (let i = 0; i < MANY; i++)
      children.delegate({ ...delegation, act: "delegate", child: String(i) }, parent, null, used);
    for (let i = 0; i < MANY; i++) children.left(limits, "calls");
    expect(children.left(limits, "calls")).toBe(2 * MANY);
    expect(children.leftOfUnit({ ...limits, units: { tokens: MANY + 5 } }, "tokens")).toBe(5_000_000);
    for (let i = 0; i < MANY; i += 2)
      children.giveBack({ act: "return", child: String(i), spent: { calls: 0, bytes: 0, units: {} } });
    expect(children.left(limits, "calls")).toBe(2.5 * MANY);
  });

  it("switches of other upstreams, and calls", () => {
    const stops = new StopReader();
    const said = { reach: "upstream", reason: "r", by: "b", causedBy: null, accepted: 0, until: null };
    const record = (seq: number): ReadRecord => ({ place: `p${seq}`, type: "call", seq, at: 0, envelope: {} });
    const close = (act: "kill" | "pause" | "resume", id: number) =>
      stops.read(record(id), { ...said, act, switch: String(id), switchTarget: { upstream: `u${id}` } });
    const all = [...Array(MANY).keys()];
    expect(all.filter((i) => close(i % 2 === 0 ? "pause" : "kill", i) !== null)).toEqual([]);
    expect(all.filter((i) => stops.readDeed(record(i), "other") !== null)).toEqual([]);
    expect(stops.readDeed(record(0), "u6")).toBe("stands after the pause of p6");
    expect(close("resume", 6)).toBeNull();
    expect(stops.readDeed(record(0), "u6")).toBeNull();
    expect(close("resume", 7)).toBe("resumes the pause 7, which does not hold");
    expect(stops.readDeed(record(0), "u7")).toBe("stands after the kill of p7");
  });
});
