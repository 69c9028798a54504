// A bucket's objects, written line by line with the formats' own writers: what the verifier must find true, for tests to
// spoil. Pure, so that it serves inside of workerd and outside.

import { createHash } from "node:crypto";
import { gunzipSync, gzipSync } from "node:zlib";
import { KeyRing, SEAL_ALGORITHMS } from "../../src/grant/keys.ts";
import { ok } from "../../src/result.ts";
import { writeBodyLine, writeRawLine } from "../../src/transcript/body-line.ts";
import { FIRST_PREV, type Fields, type RecordType, sha256Hex, writeEnvelope } from "../../src/transcript/envelope.ts";
import {
  bodiesKey,
  type InstancePartition,
  instancePartition,
  type RawPart,
  rawBodyKey,
  segmentKey,
} from "../../src/transcript/layout.ts";
import { type Seal, writeSealLine } from "../../src/transcript/seal.ts";
import type { Finding } from "../../src/transcript/verify-findings.ts";
import { parseSealKeys, type SealKeys } from "../../src/transcript/verify-keys.ts";
import type { TranscriptObjects } from "../../src/transcript/verify-objects.ts";
import type { VerifyReport } from "../../src/transcript/verify-report.ts";
import { SoundRecords } from "./sound-records.ts";

const utf8 = new TextEncoder();
const gzip = (lines: readonly string[]): Uint8Array => gzipSync(utf8.encode(lines.join("\n")));

export type Objects = Map<string, Uint8Array>;

export const ISSUER = "https://gate.test";
export const START_MS = Date.parse("2026-05-01T12:00:00Z");
export const DEADLINE_MS = START_MS + 3_600_000;

const GENERATED = { Ed25519: { name: "Ed25519" }, ES256: { name: "ECDSA", namedCurve: "P-256" } };

/** Private, as a secret holds it. */
export async function newJwk(kid: string, alg: keyof typeof GENERATED = "Ed25519"): Promise<Record<string, string>> {
  const pair = (await crypto.subtle.generateKey(GENERATED[alg], true, ["sign", "verify"])) as CryptoKeyPair;
  const jwk = await crypto.subtle.exportKey("jwk", pair.privateKey);
  return { ...(jwk as unknown as Record<string, string>), kid, alg };
}

/** The first signs. */
export const ringOf = (...keys: readonly object[]): KeyRing =>
  new KeyRing(JSON.stringify({ keys }), "SEAL_KEYS", SEAL_ALGORITHMS);

export const newRing = async (kid: string, alg?: keyof typeof GENERATED): Promise<KeyRing> =>
  ringOf(await newJwk(kid, alg));

export function keysOf(ring: KeyRing): SealKeys {
  const keys = parseSealKeys(ring.jwks);
  if (!keys.ok) throw new Error(keys.error);
  return keys.value;
}

/** What a body is made of, in order: runs, and behind them raw objects. */
export interface BodyShape {
  readonly runs: readonly string[];
  readonly raw?: readonly Uint8Array[];
}

/** Writes a log as the gate does: segments of records, and bodies beside them. */
export class TranscriptWriter {
  readonly objects: Objects = new Map();
  readonly #ring: KeyRing;
  readonly #log: string;
  readonly #partition: string;
  readonly #ids: Fields;
  /** Null: of a journal. */
  readonly #sound: SoundRecords | null;
  readonly #issuer: string;
  #lines: string[] = [];
  #bodyLines: string[] = [];
  #firstSeq = 0;
  #prev: string = FIRST_PREV;
  #sealedPrev: string = FIRST_PREV;
  #salts = 0;
  seq = 0;
  nowMs = START_MS;

  constructor(of: { partition: string; log: string; ids: Fields }, ring: KeyRing, issuer = ISSUER) {
    ({ partition: this.#partition, log: this.#log, ids: this.#ids } = of);
    this.#sound = this.#ids["instance"] === undefined ? null : new SoundRecords(this.#ids);
    this.#ring = ring;
    this.#issuer = issuer;
  }

  /** What a test does not say is as a gate writes it. */
  record(type: RecordType, said: Fields = {}): number {
    if (type === "ended" && this.#sound !== null) this.nowMs = this.#sound.endsAt(this.nowMs);
    const frame = { v: 1 as const, type, seq: this.seq, at: this.nowMs++, prev: this.#prev };
    const line = writeEnvelope(frame, this.#sound?.fill(type, this.seq, said) ?? { ...this.#ids, ...said });
    this.#lines.push(line);
    this.#prev = sha256Hex(line);
    return this.seq++;
  }

  /** Writes a body beside the segment that is open, and gives the reference to it. */
  body(seq: number, part: RawPart | "claims", { runs, raw = [] }: BodyShape): Fields {
    const salt = new Uint8Array(16).fill(++this.#salts);
    const salted = (index: number) =>
      index === 0 ? { salt: salt.reduce((hex, byte) => hex + byte.toString(16).padStart(2, "0"), "") } : {};
    const hash = createHash("sha256").update(salt);
    let bytes = 0;
    const add = (chunk: Uint8Array): void => {
      hash.update(chunk);
      bytes += chunk.length;
    };
    for (const [index, run] of runs.entries()) {
      this.#bodyLines.push(writeBodyLine({ seq, part, index, ...salted(index) }, utf8.encode(run)));
      add(utf8.encode(run));
    }
    if (raw.length > 0 && part !== "claims")
      this.#bodyLines.push(writeRawLine({ seq, part, index: runs.length, ...salted(runs.length) }));
    for (const [no, chunk] of raw.entries()) {
      this.objects.set(rawBodyKey(this.#partition, seq, part as RawPart, no), chunk);
      add(chunk);
    }
    return { digest: hash.digest("hex"), bytes, mediaType: null, coding: "identity", complete: true };
  }

  seal(final = false, change: Partial<Seal> = {}): void {
    const range = { first: this.#firstSeq, last: this.seq - 1, prev: this.#sealedPrev, head: this.#prev };
    const seal = { iss: this.#issuer, log: this.#log, ...range, at: this.nowMs, final, ...change };
    const lines = [...this.#lines, writeSealLine(this.#ring, seal), ""];
    this.objects.set(segmentKey(this.#partition, this.#firstSeq), gzip(lines));
    if (this.#bodyLines.length > 0)
      this.objects.set(bodiesKey(this.#partition, this.#firstSeq, 0), gzip([...this.#bodyLines, ""]));
    [this.#lines, this.#bodyLines, this.#firstSeq, this.#sealedPrev] = [[], [], this.seq, this.#prev];
  }
}

export const writerOf = (ids: InstancePartition, ring: KeyRing, issuer?: string): TranscriptWriter =>
  new TranscriptWriter({ partition: instancePartition(ids), log: ids.instance, ids: { ...ids } }, ring, issuer);

/** Gives each object in small chunks, as a disk or a network would. */
export const objectsOf = (objects: Objects): TranscriptObjects => ({
  keys: (prefix) => [...objects.keys()].filter((key) => key.startsWith(prefix)),
  open: async (key) => ok(chunksOf(objects.get(key)!)),
});

async function* chunksOf(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 1_000) yield bytes.slice(at, at + 1_000);
}

export const linesOf = (objects: Objects, key: string): string[] =>
  new TextDecoder().decode(gunzipSync(objects.get(key)!)).split("\n");

/** What an attacker does who can write to the bucket: open, change, close again. */
export const rewrite = (objects: Objects, key: string, change: (lines: string[]) => readonly string[]): void =>
  void objects.set(key, gzip(change(linesOf(objects, key))));

export const findingsOf = ({ findings, transcripts }: VerifyReport): Finding[] => [
  ...findings,
  ...transcripts.flatMap((transcript) => transcript.findings),
];
