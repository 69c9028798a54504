import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { promisify } from "node:util";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { runCommand } from "../../scripts/cli/commands.ts";
import { createIo } from "../../scripts/cli/terminal.ts";
import { type CopiedBucket, pullBucket, SEAL_KEYS_FILE } from "../../scripts/local/verify-folder.ts";
import { writeErasureLine } from "../../src/transcript/erasure.ts";
import { bodiesKey, erasureKey, RAW_OBJECT_MAX_BYTES, rawBodyKey } from "../../src/transcript/layout.ts";
import { END_GRACE_MS } from "../../src/transcript/verify.ts";
import { type BodyShape, ISSUER, newRing, writerOf } from "../unit/transcript-kit.ts";

const PARTITION = "human=h/task=t/instance=i";
const SEGMENT = `transcripts/${PARTITION}/0000000000.jsonl.gz`;
const BODIES = `bodies/${PARTITION}/0000000000.jsonl.gz`;
const DEADLINE_MS = Date.parse("2100-01-01T00:00:00Z");
/** These copies were made by none of pull. */
const UNKNOWN_SCOPE =
  "No pull has left a pulled.json here: a transcript that is gone as a whole does not show. For a copy of everything say --whole.\n";
const script = new URL("../../scripts/cli/main.ts", import.meta.url).pathname;

const ring = await newRing("k");

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "verify-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** An instance that enrolled, and no more. */
function bucketObjects(): Map<string, Uint8Array> {
  const writer = writerOf({ human: "h", task: "t", instance: "i" }, ring);
  writer.nowMs = 0;
  writer.record("enrolled", { deadline: DEADLINE_MS, claims: writer.body(0, "claims", { runs: ["{}"] }) });
  writer.seal();
  return writer.objects;
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

async function run(...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const [out, err]: [string[], string[]] = [[], []];
  const io = createIo({ write: (text) => out.push(text) }, { write: (text) => err.push(text) }, {});
  const code = await runCommand(["verify", ...args], io);
  return { code, out: out.join(""), err: err.join("") };
}

async function pull(objects = bucketObjects()): Promise<void> {
  await pullBucket(bucketOf(objects), folder);
  await writeFile(join(folder, SEAL_KEYS_FILE), JSON.stringify(ring.jwks));
}

describe("portcullis verify", () => {
  it("without a folder: usage", async () => {
    const wrong = [
      [],
      ["a", "b"],
      ["a", "--what"],
      ["a", "--now", "soon"],
      ["a", "--bodies-kept-days", "x"],
      ["a", "--no-bodies", "--bodies-kept-days", "1"],
    ];
    for (const args of wrong) {
      const { code, out, err } = await run(...args);
      expect([code, out]).toEqual([2, ""]);
      expect(err).toContain("portcullis verify <folder>");
    }
  });

  it("without keys, or with a folder that is not there: not verified", async () => {
    expect(await run(folder)).toMatchObject({ code: 2, out: "" });
    await writeFile(join(folder, SEAL_KEYS_FILE), '{"keys":[]}');
    expect((await run(folder)).err).toBe(
      `not verified: ${join(folder, SEAL_KEYS_FILE)}: not a JWK set of Ed25519 or ES256 keys\n`,
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
      err: UNKNOWN_SCOPE,
    });
    const { out } = await run(folder, "--json");
    expect(JSON.parse(out)).toMatchObject({ ok: true, transcripts: [{ partition: PARTITION, status: "open" }] });
  });

  it("tells bodies that are lost, erased, expired, or not asked for", async () => {
    await pull();
    await rm(join(folder, BODIES));
    const place = `${SEGMENT} line 1 (seq 0)`;
    expect(await run(folder)).toMatchObject({
      code: 1,
      out: expect.stringContaining(`${place}: its claims body is absent, and nothing accounts for that\n`),
    });
    expect(await run(folder, "--no-bodies")).toMatchObject({
      code: 0,
      out: expect.stringMatching(/open\nverified: 1 transcript, envelopes only: no body was looked at\n$/),
    });
    // Record 0 is of 1970.
    expect(await run(folder, "--bodies-kept-days", "30")).toMatchObject({
      code: 0,
      out: expect.stringContaining("open, 1 body expired\n"),
    });
    expect((await run(folder, "--bodies-kept-days", "1", "--now", "86400000")).code).toBe(1);

    const erasure = { iss: ISSUER, id: "e1", human: "h", by: "o", reason: "asked for", at: 1, before: 1 };
    const path = join(folder, erasureKey("h", "e1"));
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, `${writeErasureLine(ring, erasure)}\n`);
    expect(await run(folder)).toMatchObject({ code: 0, out: expect.stringContaining("open, 1 body erased (e1)\n") });
    expect(await run(folder, "--issuer", "https://other.test")).toMatchObject({
      code: 1,
      out: expect.stringContaining(`${erasureKey("h", "e1")}: the certificate is of issuer ${ISSUER}`),
    });
  });

  it("takes nothing but plain files under exact names for objects", async () => {
    await pull();
    const elsewhere = join(folder, "elsewhere");
    await rename(join(folder, SEGMENT), elsewhere);
    await symlink(elsewhere, join(folder, SEGMENT));
    await symlink(folder, join(folder, "transcripts", "human=h", "loop"));
    await rename(
      join(folder, BODIES),
      join(folder, BODIES.toUpperCase().replace("BODIES", "bodies")).replace(/HUMAN.*\//, `${PARTITION}/`),
    );
    await promisify(execFile)("mkfifo", [join(folder, bodiesKey(PARTITION, 0, 1))]);
    await writeFile(join(folder, `${SEGMENT}~`), "");
    await mkdir(join(folder, "Erasures"));
    await writeFile(join(folder, "Erasures", "x.json"), "");
    await writeFile(join(folder, "Bodies"), "");
    const { code, out } = await run(folder);
    expect(code).toBe(1);
    expect(
      out
        .split("\n")
        .filter((line) => line.startsWith("     "))
        .map((line) => line.trim())
        .sort(),
    ).toEqual(
      [
        `Bodies: not the name of a segment or of its bodies`,
        `Erasures/x.json: not the name of an erasure certificate`,
        `bodies/${PARTITION}/0000000000.JSONL.GZ: not the name of a segment or of its bodies`,
        `${bodiesKey(PARTITION, 0, 1)}: not a plain file`,
        `${SEGMENT}: not a plain file`,
        `${SEGMENT}~: not the name of a segment or of its bodies`,
        `transcripts/human=h/loop: not the name of a segment or of its bodies`,
      ].sort(),
    );
  });

  it("streams raw objects: 200 MB of a body take no more memory than none", async () => {
    const part = Buffer.alloc(RAW_OBJECT_MAX_BYTES, "portcullis");
    const raw = Array.from({ length: 25 }, () => part);
    const peakOf = async (shape: BodyShape) => {
      const writer = writerOf({ human: "h", task: "t", instance: "i" }, ring);
      writer.record("enrolled", { deadline: DEADLINE_MS, claims: writer.body(0, "claims", { runs: ["{}"] }) });
      writer.record("call", { body: null });
      writer.record("answer", { call: 1, body: writer.body(1, "answer", shape) });
      writer.seal();
      await rm(folder, { recursive: true });
      await pull(writer.objects);
      // The process says its own peak as it ends.
      const peak = "process.on('exit',()=>process.stderr.write(String(process.resourceUsage().maxRSS)))";
      const { stdout, stderr } = await promisify(execFile)(process.execPath, [
        "--import",
        `data:text/javascript,${encodeURIComponent(peak)}`,
        script,
        "verify",
        folder,
      ]);
      expect(stdout).toContain("verified: 1 transcript\n");
      return Number(stderr.trim().split("\n").at(-1)) * 1024;
    };
    const none = await peakOf({ runs: ["x"] });
    const large = await peakOf({ runs: ["x"], raw });
    // Chunks that nobody has collected yet; the body itself would be more.
    expect(large - none).toBeLessThan(part.length * 15);
    // Not held, and not skipped either.
    const last = join(folder, rawBodyKey(PARTITION, 1, "answer", 24));
    await writeFile(last, part.fill("x", part.length - 1));
    expect(await run(folder)).toMatchObject({
      code: 1,
      out: expect.stringContaining("altered in one of its 1 runs or 25"),
    });
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
      err: UNKNOWN_SCOPE,
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
