// The documented commands, run as they stand in docs/storage.md on what a gate wrote; and the same once more by code that shares
// nothing with the verifier.

import { execFile, execFileSync } from "node:child_process";
import { createHash, createPublicKey, verify } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { pullBucket } from "../../scripts/local/verify-folder.ts";
import { newRing, writerOf } from "../unit/transcript-kit.ts";
import { type GateRig, startGateRig } from "./gate-rig.ts";

interface Copy {
  readonly transcript: string;
  readonly bodies: string;
  readonly keys: string;
  readonly alg: "ES256" | "Ed25519";
  readonly segment: string;
  readonly call: number;
}

/** The section's blocks, without the first, which names the files. */
const blocks = [
  .../## Verifying by hand\n([\s\S]*)/
    .exec(await readFile(new URL("../../docs/storage.md", import.meta.url), "utf8"))![1]!
    .matchAll(/```sh\n([\s\S]*?)```/g),
].map(([, block]) => block!);
const [names, ...steps] = blocks as [string, ...string[]];

const has = (command: string): boolean => {
  try {
    execFileSync("sh", ["-c", `command -v ${command}`], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
};
/** What each block needs and not every machine has, what it says, and whose seals it is for (of either, if it does not say). */
const BLOCKS: readonly { readonly needs: readonly string[]; readonly says: string; readonly alg?: Copy["alg"] }[] = [
  { needs: [], says: "the chain holds" },
  { needs: [], says: "the seal is of these records" },
  { needs: ["jq", "jose"], says: "the signature is of that key", alg: "ES256" },
  { needs: ["jq", "openssl"], says: "Signature Verified Successfully", alg: "Ed25519" },
  { needs: ["jq", "basenc"], says: "the body is the recorded one" },
];
const missing = ["gunzip", "sha256sum", "sed", "awk", "basenc", "jq", "jose", "openssl"].filter((one) => !has(one));
const hasBasics = missing.every((one) => BLOCKS.some(({ needs }) => needs.includes(one)));
const runnable = BLOCKS.flatMap((block, at) =>
  hasBasics && !block.needs.some((one) => missing.includes(one)) ? [{ ...block, text: steps[at]! }] : [],
);
const runnableOn = (copy: Copy) => runnable.filter(({ alg = copy.alg }) => alg === copy.alg);
/** Nothing that concerns it goes unseen by hand here. */
const isWhole = (copy: Copy): boolean => runnableOn(copy).length === BLOCKS.length - 1;

let rig: GateRig;
let folder: string;
let gates: Copy;
let large: Copy;

beforeAll(async () => {
  [rig, folder] = await Promise.all([startGateRig(), mkdtemp(join(tmpdir(), "by-hand-"))]);
  gates = await writeByGate();
  large = await writeLarge();
});
afterAll(async () => {
  await rig.close();
  await rm(folder, { recursive: true, force: true });
});

async function writeByGate(): Promise<Copy> {
  const who = await rig.provision();
  rig.upstream.on("/bytes", (_request, answer) => {
    answer.writeHead(200, { "content-type": "application/octet-stream" });
    answer.end(Buffer.from([0, 255, 254, 10, 13, 92, 34, 0xc3, 0xa9]));
  });
  await rig.call(who, "/hostile/bytes", { method: "POST", body: '{"title":"é \\" \\\\ prev"}' });
  const { call } = await rig.recorded(who, "/hostile/bytes");
  await pullBucket(await rig.bucket(), folder);
  const keys = join(folder, "seal-keys.json");
  await writeFile(keys, JSON.stringify({ keys: rig.h.secrets.sealKeys.keys.map(({ d: _, ...key }) => key) }));
  const transcript = await findInstance(join(folder, "transcripts"), who.id);
  const segments = (await readdir(transcript)).sort();
  // The segment with the call's record.
  const segment = segments.filter((name) => Number(name.slice(0, 10)) <= call.seq).at(-1)!;
  return {
    transcript,
    bodies: transcript.replace("/transcripts/", "/bodies/"),
    keys,
    alg: "ES256",
    segment,
    call: call.seq,
  };
}

async function findInstance(root: string, id: string): Promise<string> {
  const found = (await readdir(root, { recursive: true })).find((path) => path.endsWith(`instance=${id}`));
  if (found === undefined) throw new Error("the instance is not in the bucket");
  return join(root, found);
}

/** Raw objects behind a run, by the formats' writers: no gate needs to pass megabytes for it. */
async function writeLarge(): Promise<Copy> {
  const ring = await newRing("k");
  const writer = writerOf({ human: "h", task: "t", instance: "large" }, ring);
  writer.record("enrolled", { claims: writer.body(0, "claims", { runs: ["{}"] }) });
  writer.record("call", { body: null });
  const raw = [1, 2, 3].map((fill) => new Uint8Array(70_000).fill(fill));
  writer.record("answer", { call: 1, body: writer.body(1, "answer", { runs: ["once\n", "upon\u0000"], raw }) });
  writer.seal();
  for (const [key, bytes] of writer.objects) {
    await mkdir(dirname(join(folder, key)), { recursive: true });
    await writeFile(join(folder, key), bytes);
  }
  const keys = join(folder, "large-keys.json");
  await writeFile(keys, JSON.stringify(ring.jwks));
  const transcript = await findInstance(join(folder, "transcripts"), "large");
  const bodies = transcript.replace("/transcripts/", "/bodies/");
  return { transcript, bodies, keys, alg: "Ed25519", segment: "0000000000.jsonl.gz", call: 1 };
}

/** Gives what the commands said, and how the last one of each block ended. */
async function byHand(copy: Copy): Promise<{ code: number; out: string }> {
  const { transcript, bodies, keys, segment, call } = copy;
  const cwd = await mkdtemp(join(folder, "cwd-"));
  const set = `TRANSCRIPT='${transcript}'\nBODIES='${bodies}'\nKEYS='${keys}'\nSEGMENT=${segment}\nCALL=${call}\n`;
  const script = `set -eu\n${set}${runnableOn(copy)
    .map(({ text }) => `${text.trimEnd()} || exit 9\n`)
    .join("")}`;
  return new Promise((resolve) =>
    execFile("sh", ["-c", script], { cwd }, (error, out, err) =>
      resolve({ code: error === null ? 0 : Number(error.code), out: out + err }),
    ),
  );
}

/** The same in another language, from the text of docs/storage.md alone. */
async function byCode({ transcript, bodies, keys, segment, call }: Copy): Promise<string[]> {
  const linesIn = async (path: string) =>
    String(gunzipSync(await readFile(path)))
      .split("\n")
      .slice(0, -1);
  const all = async (path: string) =>
    (
      await Promise.all(
        (
          await readdir(path)
        )
          .filter((name) => name.endsWith(".gz"))
          .sort()
          .map((name) => linesIn(join(path, name))),
      )
    )
      .flat()
      .map((line) => JSON.parse(line));
  const sha256 = (text: string) => createHash("sha256").update(text).digest("hex");
  const problems: string[] = [];
  const lines = await linesIn(join(transcript, segment));
  const records = lines.slice(0, -1);
  for (const [index, line] of records.entries())
    if (index > 0 && JSON.parse(line).prev !== sha256(records[index - 1]!)) problems.push(`prev of line ${index + 1}`);
  const [header, payload, signature] = (JSON.parse(lines.at(-1)!).jws as string).split(".") as [string, string, string];
  const decode = (part: string) => JSON.parse(String(Buffer.from(part, "base64url")));
  if (decode(payload).head !== sha256(records.at(-1)!)) problems.push("head");
  if (decode(payload).prev !== JSON.parse(records[0]!).prev) problems.push("first prev");
  const jwk = JSON.parse(await readFile(keys, "utf8")).keys.find(
    ({ kid }: { kid: string }) => kid === decode(header).kid,
  );
  const key = createPublicKey({ key: jwk, format: "jwk" });
  const signed = Buffer.from(`${header}.${payload}`);
  if (decode(header).alg !== jwk.alg) problems.push("alg");
  const digest = jwk.alg === "ES256" ? "sha256" : null;
  const asJws = { key, dsaEncoding: "ieee-p1363" } as const;
  if (!verify(digest, signed, asJws, Buffer.from(signature, "base64url"))) problems.push("signature");
  const hash = createHash("sha256");
  const runs = (await all(bodies)).filter(({ seq, part }) => seq === call && part === "answer");
  for (const { salt = "", text = "", base64 = "", raw } of runs.sort((a, b) => a.index - b.index)) {
    hash.update(salt, "hex").update(text).update(base64, "base64");
    for (const name of raw === undefined ? [] : (await readdir(bodies)).sort())
      if (name.startsWith(`${raw}.`)) hash.update(await readFile(join(bodies, name)));
  }
  const answer = (await all(transcript)).find((record) => record.type === "answer" && record.call === call);
  if (answer.body.digest !== hash.digest("hex")) problems.push("body");
  return problems;
}

describe("verifying by hand", () => {
  it(`runs the documented commands (${runnable.length} of ${BLOCKS.length} blocks here${missing.length > 0 ? `, without ${missing.join(", ")}` : ""})`, async () => {
    expect(names).toContain("TRANSCRIPT=");
    expect(steps).toHaveLength(BLOCKS.length);
    for (const copy of [gates, large]) {
      const { code, out } = await byHand(copy);
      expect({ code, said: BLOCKS.map(({ says }) => says).filter((one) => out.includes(one)) }, out).toEqual({
        code: 0,
        said: runnableOn(copy).map(({ says }) => says),
      });
    }
  });

  it("and finds the same by code of its own", async () => {
    expect(await byCode(gates)).toEqual([]);
    expect(await byCode(large)).toEqual([]);
  });

  const spoils: [what: string, from: RegExp, to: string, by: string][] = [
    ["a record", /"at":(\d)/, '"at":9$1', "head"],
    ["a signature", /\.([A-Za-z0-9_-]{20})[A-Za-z0-9_-]{4}([A-Za-z0-9_-]{62})"/, '.$1AAAA$2"', "signature"],
  ];
  it.each(spoils)("and neither believes %s that was changed", async (_what, from, to, by) => {
    for (const copy of [gates, large]) {
      const path = join(copy.transcript, copy.segment);
      const bytes = await readFile(path);
      const lines = String(gunzipSync(bytes)).split("\n");
      const at = by === "head" ? lines.length - 3 : lines.length - 2;
      await writeFile(path, gzipSync(lines.with(at, lines[at]!.replace(from, to)).join("\n")));
      expect(await byCode(copy)).toContain(by);
      if (by === "head" || isWhole(copy)) expect((await byHand(copy)).code).not.toBe(0);
      await writeFile(path, bytes);
    }
  });

  it("and neither believes a body that was changed", async () => {
    const path = join(large.bodies, "0000000001-answer.0001");
    const bytes = await readFile(path);
    await writeFile(path, bytes.with(7, 9));
    expect(await byCode(large)).toEqual(["body"]);
    if (isWhole(large)) expect((await byHand(large)).code).not.toBe(0);
    await writeFile(path, bytes);
  });
});
