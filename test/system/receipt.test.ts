// A real kill of a real stream, and what its receipt is worth to who has only a copy of the bucket and the public keys.

import { execFile } from "node:child_process";
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { pullBucket, SEAL_KEYS_FILE } from "../../scripts/local/verify-folder.ts";
import { type GateRig, type Instance, startGateRig } from "./gate-rig.ts";
import { pause } from "./hostile-upstream.ts";

const script = new URL("../../scripts/cli/main.ts", import.meta.url).pathname;

let rig: GateRig;
let work: string;
/** The copy of the bucket. */
let folder: string;
let killed: Instance;
let other: Instance;
/** What the admin API answered. */
let receipt: Record<string, unknown>;
/** Of a pause of one upstream that was resumed. */
let pauseReceipt: Record<string, unknown>;

const run = (at: string, ...args: string[]): Promise<{ code: number; out: string; err: string }> =>
  new Promise((resolve) =>
    execFile(process.execPath, [script, "verify", at, ...args], (error, out, err) =>
      resolve({ code: error === null ? 0 : Number(error.code), out, err }),
    ),
  );

const answered = (name = "receipt.json"): string => join(work, name);

/** A copy of the copy with the killed one's segments changed, lines and all. */
async function spoiled(change: (lines: string[]) => string[]): Promise<string> {
  const copy = await mkdtemp(join(work, "spoiled-"));
  await cp(folder, copy, { recursive: true });
  const names = await readdir(join(copy, "transcripts"), { recursive: true });
  for (const name of names.filter((one) => one.includes(killed.id) && one.endsWith(".gz"))) {
    const path = join(copy, "transcripts", name);
    const lines = gunzipSync(await readFile(path))
      .toString()
      .split("\n")
      .slice(0, -1);
    await writeFile(path, gzipSync(`${change(lines).join("\n")}\n`));
  }
  return copy;
}

/** A stream of which some has come. */
async function startStream(who: Instance) {
  let runs = 0;
  const isStreaming = Promise.withResolvers<void>();
  const onData = () => {
    if (++runs === 5) isStreaming.resolve();
  };
  const end = rig.call(who, "/hostile/slow", { onData });
  await isStreaming.promise;
  return { end };
}

beforeAll(async () => {
  rig = await startGateRig();
  work = await mkdtemp(join(tmpdir(), "receipt-"));
  folder = join(work, "copy");
  rig.upstream.on("/slow", async (request, answer) => {
    request.resume();
    answer.writeHead(200, { "content-type": "text/event-stream" });
    for (let i = 0; i < 2_000 && !answer.destroyed; i++) {
      answer.write(`data: ${i}\n\n`);
      await pause(20);
    }
    answer.end();
  });
  [killed, other] = await Promise.all([rig.provision(), rig.provision()]);
  await rig.call(killed, "/hostile/before");
  await rig.recorded(killed, "/hostile/before");
  const streaming = await startStream(killed);
  const body = { reach: "instance", target: { instance: killed.id }, act: "kill", reason: "a test" };
  const answer = await rig.h.asAdmin("/admin/v1/switches", { body });
  expect([answer.status, answer.text]).toEqual([201, expect.stringContaining('"status":"done"')]);
  receipt = answer.json;
  expect((await streaming.end).isWhole).toBe(false);
  const paused = await startStream(other);
  const pausing = { reach: "agent-upstream", target: { agent: "triage-bot", upstream: "hostile" }, reason: "a test" };
  const { json, status } = await rig.h.asAdmin("/admin/v1/switches", { body: { ...pausing, act: "pause" } });
  expect([status, json["cut"]]).toEqual([201, 1]);
  expect((await paused.end).isWhole).toBe(false);
  expect((await rig.call(other, "/hostile/closed")).status).toBe(404);
  expect((await rig.h.asAdmin("/admin/v1/switches", { body: { ...pausing, act: "resume" } })).status).toBe(200);
  const callsAgain = async () => expect((await rig.call(other, "/hostile/after")).status).toBe(200);
  await vi.waitFor(callsAgain, { timeout: 10_000, interval: 100 });
  const { id } = json["switch"] as { readonly id: string };
  pauseReceipt = (await rig.h.asAdmin(`/admin/v1/switches/${id}`)).json;
  await rig.recorded(killed, "/hostile/slow");
  await rig.recorded(other, "/hostile/after");
  await pullBucket((await rig.bucket()) as never, folder);
  await writeFile(join(folder, SEAL_KEYS_FILE), (await rig.h.send("/.well-known/portcullis-seal-keys.json", {})).text);
  await writeFile(answered(), JSON.stringify(receipt));
});
afterAll(async () => {
  await rig.close();
  await rm(work, { recursive: true, force: true });
});

describe("portcullis verify --receipt", () => {
  it("a real kill: verified, from the answer and from its JWS alone", async () => {
    const { code, out, err } = await run(folder, "--receipt", answered(), "--issuer", rig.origin);
    // The folder was not made by pull.
    expect([code, err]).toEqual([0, expect.stringMatching(/^No pull has left a pulled\.json here: [^\n]*\n$/)]);
    const { id } = receipt["switch"] as { id: string };
    expect(out).toContain(`ok   receipt ${id}: kill of instance, done: 1 reached, 1 cut, 0 unconfirmed, 0 idle`);
    expect(out).toContain("held to 1 transcript; 0 of its instances are not at hand");
    await writeFile(answered("receipt.jws"), `${receipt["jws"]}\n`);
    const alone = await run(folder, "--receipt", answered("receipt.jws"), "--json");
    expect(alone.code).toBe(0);
    expect(JSON.parse(alone.out)).toMatchObject({
      ok: true,
      receipt: { ok: true, verified: [killed.id], findings: [] },
    });
  });

  it("a real pause of one upstream, and calls again after it was resumed: verified", async () => {
    await writeFile(answered("pause.json"), JSON.stringify(pauseReceipt));
    const { code, out } = await run(folder, "--receipt", answered("pause.json"));
    expect([code, out]).toEqual([
      0,
      expect.stringMatching(/pause of agent-upstream, done: [12] reached, 1 cut, 0 unconfirmed/),
    ]);
    expect(pauseReceipt["opened"]).toMatchObject({ reason: "a test" });
  });

  it("an answer whose figures are not those that were signed", async () => {
    await writeFile(answered("spoiled.json"), JSON.stringify({ ...receipt, cut: 0 }));
    const { code, out } = await run(folder, "--receipt", answered("spoiled.json"));
    expect([code, out]).toEqual([1, expect.stringContaining("its cut is not the one that was signed")]);
  });

  it("a changed signature", async () => {
    const jws = String(receipt["jws"]);
    await writeFile(
      answered("forged.jws"),
      jws.replace(/\.(.)/, (_, first) => `.${first === "A" ? "B" : "A"}`),
    );
    const { code, out } = await run(folder, "--receipt", answered("forged.jws"));
    expect([code, out]).toEqual([1, expect.stringContaining("FAIL receipt: not one that can be believed")]);
  });

  it("a transcript without its tail: a finding that only the receipt allows", async () => {
    const copy = await spoiled((lines) => lines);
    const names = await readdir(join(copy, "transcripts"), { recursive: true });
    const segments = names.filter((one) => one.includes(killed.id) && one.endsWith(".gz")).sort();
    const isOfSwitch = await Promise.all(
      segments.map(async (one) =>
        gunzipSync(await readFile(join(copy, "transcripts", one))).includes('"type":"switched"'),
      ),
    );
    const from = isOfSwitch.indexOf(true);
    expect(from).toBeGreaterThan(0);
    for (const one of segments.slice(from)) {
      await rm(join(copy, "transcripts", one));
      await rm(join(copy, "bodies", one), { force: true });
    }
    // By itself it looks like one that is not as far yet.
    expect((await run(copy)).code).toBe(0);
    const { code, out } = await run(copy, "--receipt", answered());
    expect(code).toBe(1);
    expect(out).toContain("its tail is missing, the copy is older than the receipt");
  });

  it("a record that says otherwise", async () => {
    const copy = await spoiled((lines) => lines.map((line) => line.replace('"reason":"a test"', '"reason":"b test"')));
    const { code, out } = await run(copy, "--receipt", answered());
    expect([code, out]).toEqual([1, expect.stringContaining("altered: its bytes are not those that")]);
  });

  it("a file that is no receipt, or is not there: could not be verified", async () => {
    await writeFile(answered("other.json"), '{"status":"done"}');
    expect(await run(folder, "--receipt", answered("other.json"))).toMatchObject({
      code: 2,
      err: "not verified: the receipt's file has no member jws\n",
    });
    expect((await run(folder, "--receipt", answered("nowhere"))).code).toBe(2);
  });
});
