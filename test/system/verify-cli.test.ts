import { execFile } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type CopiedBucket, pullBucket, SEAL_KEYS_FILE } from "../../scripts/local/verify-folder.ts";
import { KeyRing } from "../../src/grant/keys.ts";
import { writeBodyLine } from "../../src/transcript/body-line.ts";
import { FIRST_PREV, sha256Hex, writeEnvelope } from "../../src/transcript/envelope.ts";
import { writeSealLine } from "../../src/transcript/seal.ts";
import { END_GRACE_MS } from "../../src/transcript/verify.ts";

const PARTITION = "human=h/task=t/instance=i";
const SEGMENT = `transcripts/${PARTITION}/0000000000.jsonl.gz`;
const BODIES = `bodies/${PARTITION}/0000000000.jsonl.gz`;
const DEADLINE_MS = Date.parse("2100-01-01T00:00:00Z");
const ISSUER = "https://gate.test";
const script = new URL("../../scripts/cli/main.ts", import.meta.url).pathname;

const jwk = generateKeyPairSync("ed25519").privateKey.export({ format: "jwk" });
const ring = new KeyRing(JSON.stringify({ keys: [{ ...jwk, kid: "k" }] }), "test");

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "verify-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** An instance that enrolled, and no more. */
function bucketObjects(): Map<string, Uint8Array> {
  const [salt, claims] = [new Uint8Array(16), new TextEncoder().encode("{}")];
  const reference = { digest: sha256Hex(salt, claims), bytes: 2, mediaType: null, coding: "identity", complete: true };
  const record = writeEnvelope(
    { v: 1, type: "enrolled", seq: 0, at: 0, prev: FIRST_PREV },
    { human: "h", task: "t", instance: "i", deadline: DEADLINE_MS, claims: reference },
  );
  const head = sha256Hex(record);
  const seal = { iss: ISSUER, log: "i", first: 0, last: 0, prev: FIRST_PREV, head, at: 0, final: false };
  const body = writeBodyLine({ seq: 0, part: "claims", index: 0, salt: "00".repeat(16) }, claims);
  return new Map([
    [BODIES, gzipSync(`${body}\n`)],
    [SEGMENT, gzipSync(`${record}\n${writeSealLine(ring, seal)}\n`)],
  ]);
}

/** Lists one key a page, as a bucket with very many would. `appear` comes in after the first page. */
function bucketOf(objects: Map<string, Uint8Array>, appear: [string, Uint8Array][] = []): CopiedBucket {
  return {
    list: async ({ prefix = "", cursor = "" }) => {
      const [key, ...more] = [...objects.keys()].filter((one) => one.startsWith(prefix) && one > cursor).sort();
      for (const [late, bytes] of cursor === "" ? appear : []) objects.set(late, bytes);
      if (key === undefined) return { objects: [], truncated: false };
      return { objects: [{ key }], truncated: more.length > 0 || appear.length > 0, cursor: key };
    },
    get: async (key) => {
      const bytes = objects.get(key);
      return bytes === undefined ? null : { arrayBuffer: async () => Uint8Array.from(bytes).buffer };
    },
  };
}

const run = (...args: string[]): Promise<{ code: number; out: string; err: string }> =>
  new Promise((resolve) =>
    execFile(process.execPath, [script, "verify", ...args], (error, out, err) =>
      resolve({ code: error === null ? 0 : Number(error.code), out, err }),
    ),
  );

async function pull(objects = bucketObjects()): Promise<void> {
  await pullBucket(bucketOf(objects), folder);
  await writeFile(join(folder, SEAL_KEYS_FILE), JSON.stringify(ring.jwks));
}

describe("portcullis verify", () => {
  it("without a folder: usage", async () => {
    for (const args of [[], ["a", "b"], ["a", "--what"], ["a", "--now", "soon"]]) {
      const { code, out, err } = await run(...args);
      expect([code, out]).toEqual([2, ""]);
      expect(err).toContain("portcullis verify <folder>");
    }
  });

  it("without keys, or with a folder that is not there: not verified", async () => {
    expect(await run(folder)).toMatchObject({ code: 2, out: "" });
    await writeFile(join(folder, SEAL_KEYS_FILE), '{"keys":[]}');
    expect((await run(folder)).err).toBe(
      `not verified: ${join(folder, SEAL_KEYS_FILE)}: not a JWK set of Ed25519 keys\n`,
    );
    expect((await run(join(folder, "nowhere"), "--keys", join(folder, SEAL_KEYS_FILE))).code).toBe(2);
  });

  it("an empty folder: not ok", async () => {
    await pull(new Map());
    expect(await run(folder)).toMatchObject({ code: 1, out: expect.stringContaining("transcripts/: no transcripts") });
  });

  it("a copy of a bucket: ok", async () => {
    await pull();
    expect(await run(folder, "--issuer", ISSUER)).toEqual({
      code: 0,
      out: `ok   ${PARTITION}: 1 record, 1 segment, open\nverified: 1 transcript\n`,
      err: "",
    });
    const { out } = await run(folder, "--json");
    expect(JSON.parse(out)).toMatchObject({ ok: true, transcripts: [{ partition: PARTITION, status: "open" }] });
  });

  it("says what was erased, and is ok", async () => {
    await pull();
    await rm(join(folder, BODIES));
    expect(await run(folder)).toMatchObject({ code: 0, out: expect.stringContaining("open, 1 body erased\n") });
  });

  it("names the place of each finding", async () => {
    await pull();
    const path = join(folder, SEGMENT);
    await writeFile(
      path,
      gzipSync(
        gunzipSync(await readFile(path))
          .toString()
          .replace('"at":0', '"at":1'),
      ),
    );
    await writeFile(join(folder, "transcripts", "\u001b[31mred"), "");
    const problem = "altered: its bytes are not those that the seal names";
    expect(await run(folder)).toEqual({
      code: 1,
      out: [
        `FAIL ${PARTITION}: 0 records, 1 segment, open`,
        `     ${SEGMENT} line 1 (seq 0): ${problem}`,
        "FAIL what belongs to no transcript",
        "     transcripts/\\u{1b}[31mred: not the name of a segment or of its bodies",
        "NOT verified: 2 findings\n",
      ].join("\n"),
      err: "",
    });
  });

  it("verifies at another time, and for another issuer", async () => {
    await pull();
    for (const now of [String(DEADLINE_MS + END_GRACE_MS + 1), "2100-01-01T00:10:01Z"]) {
      const late = await run(folder, "--now", now);
      expect([late.code, late.out]).toEqual([1, expect.stringContaining("cut tail: no sealed end")]);
    }
    expect(await run(folder, "--issuer", "https://other.test")).toMatchObject({ code: 1 });
  });
});

describe("pullBucket", () => {
  it("brings the bodies of a segment that comes while it lists", async () => {
    const objects = bucketObjects();
    const later = [BODIES, SEGMENT].map((key): [string, Uint8Array] => [key, objects.get(key)!]);
    const earlier = new Map([["bodies/zzz", new Uint8Array(0)]]);
    expect(await pullBucket(bucketOf(earlier, later), folder)).toBe(3);
    expect(await readdir(join(folder, "bodies", PARTITION))).toEqual(["0000000000.jsonl.gz"]);
  });

  it.each(["../out", "transcripts/../../out", "/etc/out", "a//b", "a\\..\\b"])("refuses the key %s", async (key) => {
    await expect(pullBucket(bucketOf(new Map([[key, new Uint8Array(0)]])), folder)).rejects.toThrow("can't be a path");
  });
});
