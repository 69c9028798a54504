// Every byte of a small bucket, one after the other, is changed: it is found, or is one of those that say nothing.

import { gunzipSync, gzipSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { writeErasureLine } from "../../src/transcript/erasure.ts";
import { erasureKey, journalPartition } from "../../src/transcript/layout.ts";
import { verifyTranscripts } from "../../src/transcript/verify.ts";
import {
  DEADLINE_MS,
  findingsOf,
  ISSUER,
  keysOf,
  newRing,
  type Objects,
  objectsOf,
  START_MS,
  TranscriptWriter,
  writerOf,
} from "./transcript-kit.ts";

const ring = await newRing("k");

/** Two segments, bodies inline and raw, a journal, an erased body and its certificate. */
function writeBucket(): Objects {
  const writer = writerOf({ human: "h", task: "t", instance: "i" }, ring);
  writer.record("enrolled", { deadline: DEADLINE_MS, claims: writer.body(0, "claims", { runs: ["{}"] }) });
  writer.record("call", { body: writer.body(1, "request", { runs: ["é\u0000"] }) });
  writer.seal();
  const answer = writer.body(1, "answer", { runs: ["begun "], raw: [Uint8Array.of(0, 1, 2), Uint8Array.of(3)] });
  writer.record("answer", { call: 1, body: answer });
  writer.record("ended");
  writer.seal(true);

  const erased = writerOf({ human: "erased", task: "t", instance: "j" }, ring);
  erased.record("enrolled", { deadline: DEADLINE_MS, claims: erased.body(0, "claims", { runs: ["{}"] }) });
  erased.seal();
  const left = [...erased.objects].filter(([key]) => !key.startsWith("bodies/"));
  const erasure = { iss: ISSUER, id: "e", human: "erased", by: "o", reason: "", at: START_MS, before: START_MS };
  const certificate = new TextEncoder().encode(`${writeErasureLine(ring, erasure)}\n`);

  const log = "admin.2026-05-01";
  const partition = journalPartition("admin", "2026-05-01");
  const journal = new TranscriptWriter({ partition, log, ids: { journal: log } }, ring);
  journal.record("act", { deed: "flip" });
  journal.seal();
  return new Map([...writer.objects, ...left, [erasureKey("erased", "e"), certificate], ...journal.objects]);
}

const keys = keysOf(ring);
const verify = (objects: Objects) => verifyTranscripts(objectsOf(objects), { keys, issuer: ISSUER, nowMs: START_MS });

const objects = writeBucket();
const segmentsAndVolumes = [...objects.keys()].filter((key) => key.endsWith(".gz"));

/** Another bit at each place, and all of them within eight. */
const flip = (bytes: Uint8Array, at: number): Uint8Array => bytes.with(at, bytes[at]! ^ (1 << (at % 8)));

/** Of a raw object the finding stands at its body's first line: there is one digest for all that holds the body. */
const isOf = (place: string, key: string): boolean =>
  place.startsWith(key) || (key.includes("-answer.") && place.endsWith("(seq 1, answer)"));

/** Of the same human or journal: the others have no say in it. */
const beside = (key: string): Objects => {
  const [, of] = key.split("/");
  return new Map([...objects].filter(([other]) => other.split("/")[1] === of));
};

/** Whether verification points to the object, or null: it finds nothing. */
async function isFound(key: string, bytes: Uint8Array): Promise<boolean | null> {
  const report = await verify(beside(key).set(key, bytes));
  return report.ok ? null : findingsOf(report).some(({ place }) => isOf(place, key));
}

describe("every byte counts", { timeout: 60_000 }, () => {
  it("in a bucket that is true", async () => {
    expect(await verify(objects)).toMatchObject({ ok: true, transcripts: [{}, {}, {}] });
    expect(objects.size).toBe(9);
  });

  it.each([...objects.keys()])("of %s", async (key) => {
    const bytes = objects.get(key)!;
    for (let at = 0; at < bytes.length; at++) {
      const changed = flip(bytes, at);
      const found = await isFound(key, changed);
      if (found === null) expect(harmless(changed, bytes, at), `byte ${at}`).toEqual(expect.any(String));
      else expect(found, `byte ${at}`).toBe(true);
    }
  });

  it.each(segmentsAndVolumes)("of what %s holds, packed again", async (key) => {
    const plain = gunzipSync(objects.get(key)!);
    for (let at = 0; at < plain.length; at++)
      expect(await isFound(key, gzipSync(flip(plain, at))), `byte ${at}`).toBe(true);
  });
});

/** Why a change of a gzip object need not be found: what is signed is its content, and that is the same. */
function harmless(changed: Uint8Array, bytes: Uint8Array, at: number): string | null {
  let isSame = false;
  try {
    isSame = String(gunzipSync(changed)) === String(gunzipSync(bytes));
  } catch {}
  if (!isSame) return null;
  return at >= 4 && at <= 9 ? "MTIME, XFL or OS of the header (RFC 1952 §2.3.1)" : "other bits of DEFLATE (RFC 1951)";
}
