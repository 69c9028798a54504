import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { gunzipSync } from "node:zlib";
import { expect, vi } from "vitest";
import type { LeaseCalls, RecordedRequest } from "../../src/instance/contract.ts";
import { instanceOf } from "../../src/objects.ts";
import { ok } from "../../src/result.ts";
import { instancePartition, type RawPart, rawBodyKey, rawBodyName } from "../../src/transcript/layout.ts";
import { verifyTranscripts } from "../../src/transcript/verify.ts";
import { parseSealKeys } from "../../src/transcript/verify-keys.ts";
import type { TranscriptReport } from "../../src/transcript/verify-report.ts";
import { ORIGIN } from "./config.ts";
import { type Agent, deployment, ISSUES, instanceStub, type Line, settlement } from "./kit.ts";

/** Large bodies, passed by hand through a lease, and R2 with what a test does to it. */
export const MIB = 1_048_576;
export const OBJECT = 8 * MIB;

/** So many bytes that no two seeds share. */
export function noise(length: number, seed = 1): Uint8Array {
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = (seed * 2_654_435_761) >>> 0 || 1;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  return new Uint8Array(words.buffer, 0, length);
}

/** Of a copy of each run: what goes over RPC must not take a whole buffer along. */
export function* runsOf(bytes: Uint8Array, size = MIB): Generator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.slice(at, at + size);
}

export const isSame = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && crypto.subtle.timingSafeEqual(a, b);

export interface Begun {
  readonly seq: number;
  readonly lease: LeaseCalls;
}

/** An admitted call; its request body follows where there is one. */
export async function begin(agent: Agent, first: Uint8Array | null = null): Promise<Begun> {
  const request: RecordedRequest = {
    method: "GET",
    target: ISSUES,
    headers: [],
    body: first ?? new Uint8Array(0),
    bodyFollows: first !== null,
  };
  const admission = await instanceOf(deployment, agent.id).admit(agent.admission({ request }));
  if (!admission.admitted) throw new Error(JSON.stringify(admission.denial));
  return { seq: admission.seq, lease: admission.lease };
}

/** The answer in runs. Gives what the last append said. */
export async function answer(lease: LeaseCalls, bytes: Uint8Array, declared: number | null = null): Promise<boolean> {
  let kept = true;
  for (const run of runsOf(bytes)) {
    kept = (await lease.append(run, declared)) !== null;
    if (!kept) break;
  }
  return kept;
}

/** A call with a raw request body. */
export async function upload(agent: Agent, bytes: Uint8Array): Promise<Begun> {
  const [first, ...rest] = [...runsOf(bytes)];
  const begun = await begin(agent, first);
  for (const [i, run] of rest.entries()) expect(await begun.lease.appendRequest(run, i === rest.length - 1)).toBe(true);
  return begun;
}

// --- R2 ---------------------------------------------------------------------------------------------------------

export interface WatchedBucket {
  /** Keys of puts that have stored something, in order. */
  readonly stored: string[];
  /** Runs before and after each put; throws for it. */
  before: (key: string) => unknown;
  after: (key: string) => unknown;
  beforeGet: (key: string) => unknown;
}

/**
 * R2 as objects see it, until mocks are restored.
 * @param agent whose object alone: others that tests have left store what they have when their time comes
 */
export function watchBucket(agent?: Agent): WatchedBucket {
  const isIts = (key: string): boolean => agent === undefined || key.includes(`/${partitionOf(agent)}/`);
  const watched: WatchedBucket = { stored: [], before: () => {}, after: () => {}, beforeGet: () => {} };
  const prototype = Object.getPrototypeOf(env.TRANSCRIPTS) as R2Bucket;
  const { put, get } = prototype;
  vi.spyOn(prototype, "put").mockImplementation(async function (this: R2Bucket, ...args: Parameters<R2Bucket["put"]>) {
    if (!isIts(args[0])) return put.apply(this, args);
    await watched.before(args[0]);
    const done = await put.apply(this, args);
    if (done !== null) watched.stored.push(args[0]);
    await watched.after(args[0]);
    return done;
  } as R2Bucket["put"]);
  vi.spyOn(prototype, "get").mockImplementation(async function (this: R2Bucket, ...args: Parameters<R2Bucket["get"]>) {
    if (!isIts(args[0])) return get.apply(this, args);
    await watched.beforeGet(args[0]);
    return get.apply(this, args);
  } as R2Bucket["get"]);
  return watched;
}

export const isRaw = (key: string): boolean => /-(request|answer)\.\d{4}$/.test(key);
export const R2_DOWN = () => Promise.reject(new Error("R2 is down"));
export const hang = (): Promise<never> => new Promise(() => {});

/** Time-outs of this length, or a little less, run out at once. */
export function shortenTimer(ms: number, toMs = 5): void {
  const timer = globalThis.setTimeout;
  vi.spyOn(globalThis, "setTimeout").mockImplementation(((work: () => void, after?: number) =>
    timer(work, after !== undefined && after <= ms && after > ms - 100 ? toMs : after)) as typeof setTimeout);
}

export const partitionOf = ({ id, enrolment }: Agent): string =>
  instancePartition({ human: enrolment.human, task: enrolment.task.id, instance: id });
export const rawKey = (agent: Agent, seq: number, part: RawPart, no: number): string =>
  rawBodyKey(partitionOf(agent), seq, part, no);

export async function objectsOf(agent: Agent): Promise<Map<string, Uint8Array>> {
  const objects = new Map<string, Uint8Array>();
  for (const prefix of ["transcripts", "bodies"]) {
    const { objects: listed } = await env.TRANSCRIPTS.list({ prefix: `${prefix}/${partitionOf(agent)}/` });
    for (const { key } of listed) objects.set(key, await (await env.TRANSCRIPTS.get(key))!.bytes());
  }
  return objects;
}

/** There was no Worker: nobody has passed what these settlements bring. */
const NOT_PASSED = /^is complete, and passed 0 of /;

/** What the product's verifier says of the bucket; without a finding. */
export async function verified(agent: Agent, ignored = NOT_PASSED): Promise<TranscriptReport> {
  const objects = await objectsOf(agent);
  const keys = parseSealKeys(deployment.sealKeys.jwks);
  if (!keys.ok) throw new Error(keys.error);
  const bucket = {
    keys: (prefix: string) => [...objects.keys()].filter((key) => key.startsWith(prefix)),
    open: async (key: string) => ok(new Response(objects.get(key)).body as unknown as AsyncIterable<Uint8Array>),
  };
  const report = await verifyTranscripts(bucket, { keys: keys.value, issuer: ORIGIN, nowMs: Date.now() });
  const findings = [...report.findings, ...report.transcripts.flatMap((transcript) => transcript.findings)];
  expect(findings.filter(({ problem }) => !ignored.test(problem))).toEqual([]);
  expect(report.transcripts).toHaveLength(1);
  return report.transcripts[0]!;
}

const gunzipLines = (bytes: Uint8Array): Line[] =>
  new TextDecoder()
    .decode(gunzipSync(bytes))
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as Line);

/** Lines under a prefix in R2. */
export async function storedLines(agent: Agent, prefix: "transcripts" | "bodies"): Promise<Line[]> {
  const objects = [...(await objectsOf(agent))].filter(([key]) => key.startsWith(prefix) && key.endsWith(".gz"));
  return objects.flatMap(([, bytes]) => gunzipLines(bytes));
}

/** The record of a call's end, in R2. */
export async function storedAnswer(agent: Agent, seq: number) {
  const found = (await storedLines(agent, "transcripts")).find(({ type, call }) => type === "answer" && call === seq);
  if (found === undefined) throw new Error("no answer on record");
  return found as Line & { readonly body: Reference; readonly requestBody?: Reference };
}

export interface Reference {
  readonly digest: string | null;
  readonly bytes: number;
  readonly complete: boolean;
  readonly mayMiss?: number;
}

/** A body as it stands in R2. */
export async function storedBody(agent: Agent, seq: number, part: RawPart): Promise<Uint8Array> {
  const objects = await objectsOf(agent);
  const lines = (await storedLines(agent, "bodies")).filter((line) => line.seq === seq && line["part"] === part);
  lines.sort((a, b) => Number(a["index"]) - Number(b["index"]));
  const pieces = lines.flatMap(({ text, base64, raw }) => {
    if (raw === undefined)
      return [text === undefined ? Buffer.from(base64 as string, "base64") : Buffer.from(text as string)];
    expect(raw).toBe(rawBodyName(seq, part));
    const keys = [...objects.keys()].filter((key) => key.includes(`/${raw}.`)).sort();
    return keys.map((key) => objects.get(key)!);
  });
  return Buffer.concat(pieces);
}

// --- the object -------------------------------------------------------------------------------------------------

const FLUSH_AFTER_MS = deployment.config.transcripts.flushAfterMs;

/** The alarm; what waits to be sealed is due. */
export async function flush(agent: Agent): Promise<void> {
  await runInDurableObject(instanceStub(agent.id), async (instance) => {
    const transcripts = deployment.config.transcripts as { flushAfterMs: number };
    transcripts.flushAfterMs = 0;
    try {
      await instance.alarm();
    } finally {
      transcripts.flushAfterMs = FLUSH_AFTER_MS;
    }
  });
}

export const reset = (agent: Agent): Promise<unknown> =>
  runInDurableObject(instanceStub(agent.id), (_instance, state) => state.abort("reset by a test")).catch(() => {});

/** Tables of raw bytes and what is kept of them. */
export const leftOf = (agent: Agent): Promise<{ tables: string[]; kept: string[] }> =>
  runInDurableObject(instanceStub(agent.id), (_instance, { storage: { sql } }) => {
    const named = (query: string) =>
      sql
        .exec<{ name: string }>(query)
        .toArray()
        .map(({ name }) => name);
    return {
      tables: named("SELECT name FROM sqlite_master WHERE name LIKE 'raw!_%' ESCAPE '!' ORDER BY name"),
      kept: named("SELECT id AS name FROM kept WHERE kind = 'raw' ORDER BY id"),
    };
  });

export const NOTHING_LEFT = { tables: [], kept: [] };

/** With another bound of what may be held, for as long as `work` runs. */
export async function withMaxHeld<T>(bytes: number, work: () => Promise<T>): Promise<T> {
  const transcripts = deployment.config.transcripts as { maxHeldBytes: number };
  const before = transcripts.maxHeldBytes;
  transcripts.maxHeldBytes = bytes;
  try {
    return await work();
  } finally {
    transcripts.maxHeldBytes = before;
  }
}

/** All that it counts as held is in R2: a call is admitted though nothing may be held. */
export const holdsNothing = (agent: Agent): Promise<boolean> =>
  withMaxHeld(0, async () => {
    const admission = await instanceOf(deployment, agent.id).admit(agent.admission());
    if (admission.admitted) await admission.lease.settle(settlement());
    return admission.admitted;
  });
