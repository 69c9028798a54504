// `portcullis show`: an incident as a story, from the gate and from a copy.

import { createHash } from "node:crypto";
import { cp, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { runCommand } from "../../scripts/cli/commands.ts";
import { createIo } from "../../scripts/cli/terminal.ts";
import { humans } from "../../scripts/local/humans.ts";
import { pullBucket } from "../../scripts/local/verify-folder.ts";
import { makeKey } from "./harness.ts";
import { ESCAPES, type Incident, LEAKED, startIncident } from "./incident-rig.ts";

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
  readonly bytes: Buffer;
}

let incident: Incident;
let copy: string;
let origin: string;
let whileItRan: Ended;
let following: Promise<Ended>;
const followed: string[] = [];
const toldSoFar = () =>
  followed
    .join("")
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as { seq: number; outcome?: string });
const WAITING = { timeout: 20_000 };

/** @param out grows while it runs */
async function run(args: readonly string[], token: string | null, isTTY = false, out: string[] = []): Promise<Ended> {
  const [err, bytes]: [string[], Uint8Array[]] = [[], []];
  const env = token === null ? {} : { PORTCULLIS_GATE: origin, PORTCULLIS_TOKEN: token };
  const io = createIo(
    { isTTY, write: (text) => out.push(text) },
    { write: (text) => err.push(text) },
    { XDG_CONFIG_HOME: tmpdir(), ...env },
    async (run) => void bytes.push(run),
  );
  const code = await runCommand(["show", ...args], io);
  return { code, out: out.join(""), err: err.join(""), bytes: Buffer.concat(bytes) };
}
const { sub, email, groups } = humans.oscar;
let token: string;
const oscar = (...args: string[]) => run(args, token);
const copied = (...args: string[]) => run([...args, "--dir", copy], null);

beforeAll(async () => {
  incident = await startIncident(async (rig, { id }) => {
    origin = rig.origin;
    token = rig.h.idToken({ sub, email, groups, aud: "portcullis-admin" });
    // A stream is recorded about once a second.
    do whileItRan = await oscar(id.slice(0, 20), "--bodies");
    while (!whileItRan.out.includes("on and on"));
    following = run([id, "--follow", "--interval", "0.1", "--json"], token, false, followed);
    // It has told of the stream as running before the kill comes.
    await vi.waitFor(() => expect(toldSoFar().map(({ outcome }) => outcome)).toContain("running"), WAITING);
  });
  copy = await mkdtemp(join(tmpdir(), "portcullis-show-"));
  const bucket = await incident.rig.bucket();
  await pullBucket(bucket, copy);
  const keys = incident.rig.h.secrets.sealKeys.keys.map(({ d: _, ...key }) => key);
  await writeFile(join(copy, "seal-keys.json"), JSON.stringify({ keys }));
});
afterAll(async () => {
  // Its last grant runs for minutes: whoever still follows learns that the gate is gone.
  await incident?.close();
  await rm(copy, { recursive: true, force: true });
  await following;
});

const lineWith = (text: string, part: string): string => text.split("\n").find((line) => line.includes(part)) ?? "";

describe("show", () => {
  it("tells who sent whom, and then call by call", async () => {
    const { killed, receipt } = incident;
    const { code, out, err } = await oscar(killed.id);
    expect([code, err]).toEqual([0, ""]);
    const [, ...head] =
      /^instance {2}(\S+)\nagent {5}(.*)\nfor {7}(.*)\nsent by {3}(.*)\nchain {5}(.*)\ntask {6}(.*)\npurpose {3}(.*)\nfrom {6}(.*)\nuntil {5}(.*)\nmay {7}(.*)\n/.exec(
        out,
      ) ?? [];
    expect(head).toEqual([
      killed.id,
      expect.stringMatching(/^triage-bot 1\.4\.0, model \S+, prompt sha256:/),
      `human ${incident.lines[0]!["human"]}`,
      "build-platform",
      "triage-bot (build-platform)",
      "build-platform_t-1",
      "to test",
      expect.stringMatching(/Z$/),
      expect.stringMatching(/Z$/),
      "github: GET /repos/{owner}/{repo}/issues where owner acme, repo widgets",
    ]);
    const line = (part: string) =>
      lineWith(out, part)
        .replace(/\d+ ms/, "N ms")
        .slice(32);
    expect(line("/payroll")).toBe(
      "GET /hostile/repos/acme/payroll  hostile  [GET /{+path}]  200 complete  N ms  0 B up, 43 B down",
    );
    expect(line("POST /hostile")).toMatch(
      /^POST \/hostile\/comments\?page=2 {2}.* {2}200 complete {2}N ms {2}31 B up, 11 B down$/,
    );
    expect(line("/ungranted")).toBe("REFUSED GET /ungranted/repos/acme/secret  route: not in the grant's aud");
    expect(line("/large")).toContain("0 B up, 3.0 MiB down");
    expect(line("/endless")).toMatch(
      new RegExp(`200 cut \\(switched, switch ${receipt.switch.id}, what the upstream did is unknown\\)  N ms`),
    );
    expect(line("SWITCHED")).toBe(
      `SWITCHED: kill of instance by ${receipt.switch.by}: It reads the payroll  switch ${receipt.switch.id}`,
    );
    expect(line("/after-the-kill")).toBe(
      "REFUSED GET /hostile/after-the-kill  hostile  credentials: invalid_token, switched",
    );
    // A call and its answer are one line, in the order of the calls.
    expect(out.split("\n").filter((one) => one.includes("/large"))).toHaveLength(1);
    const seqs = [...out.matchAll(/^\d{4}-\S+ \S+Z +(\d+) /gm)].map(([, seq]) => Number(seq));
    expect(seqs).toEqual(seqs.toSorted((a, b) => a - b));
  });

  it("is the same from a copy, whatever is asked for", async () => {
    const { id } = incident.killed;
    for (const options of [[], ["--json"], ["--bodies"], ["--bodies", "--json"]]) {
      const live = await oscar(id, ...options);
      expect(await copied(id.slice(0, 25), ...options)).toEqual({ ...live, code: 0, err: "" });
      expect(live.out.length).toBeGreaterThan(1_000);
    }
  });

  it("names what runs as running, with as much of its body as there is", () => {
    const { out, code } = whileItRan;
    expect(code).toBe(0);
    expect(lineWith(out, "/endless")).toMatch(/\[GET \/\{\+path\}\] {2}running$/);
    expect(out.slice(out.indexOf("/endless"))).toMatch(/\n {8}answer: no media type, .*\n {10}data: on and on\n/);
  });

  it("--follow goes on: the running call is told again when it is cut, and nothing else twice", async () => {
    const { id } = incident.killed;
    const all = JSON.parse(`[${(await oscar(id, "--json")).out.trimEnd().replaceAll("\n", ",")}]`);
    await expect.poll(() => toldSoFar().length, WAITING).toBeGreaterThan(all.length);
    await incident.rig.h.gate.close();
    const { out, code, err } = await following;
    expect([code, err]).toEqual([4, expect.stringContaining("could not be reached")]);
    const told = JSON.parse(`[${out.trimEnd().replaceAll("\n", ",")}]`) as { seq: number; outcome?: string }[];
    const endless = told.filter(({ seq }) => seq === incident.seqOf("/hostile/endless"));
    expect(endless.map(({ outcome }) => outcome)).toEqual(["running", "cut"]);
    expect(told.filter(({ outcome }) => outcome !== "running").toSorted((a, b) => a.seq - b.seq)).toEqual(all);
  });
});

describe("bodies", () => {
  it("are shown as what they are, and command no terminal", async () => {
    const { out } = await copied(incident.killed.id, "--bodies");
    expect(out).toContain(
      `        answer: application/json, 43 B\n          {\n            "key": "${LEAKED}",\n            "rows": [\n`,
    );
    expect(out).toContain(`        request: application/json, 31 B\n          {\n            "note": "${LEAKED}"\n`);
    const digest = createHash("sha256").update(incident.large).digest("hex");
    expect(out).toContain(`        answer: application/zip, 3.0 MiB, binary, SHA-256 ${digest}\n`);
    expect(out).toMatch(/ answer: application\/x-thing, \d+ B, binary, SHA-256 [0-9a-f]{64}\n/);
    expect(out).toContain("          \\u{1b}[2J\\u{1b}]0;owned\\u{7}  red vvvv\n          second line\n");
    expect(out).toContain("        claims: application/json");
    // biome-ignore lint/suspicious/noControlCharactersInRegex: it is they that must not be there
    expect(out).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/);
  });

  it("--body gives the exact bytes", async () => {
    const { killed, large, seqOf } = incident;
    const whole = await copied(killed.id, "--body", String(seqOf("/hostile/large")));
    expect([whole.code, whole.out, whole.err]).toEqual([0, "", ""]);
    expect(Buffer.compare(whole.bytes, large)).toBe(0);
    const escapes = await copied(killed.id, "--body", String(seqOf("/hostile/escapes")), "answer");
    expect(escapes.bytes.toString()).toBe(`${ESCAPES}\tred vvvv\r\nsecond line`);
    const sent = await copied(killed.id, "--body", String(seqOf("/hostile/comments?page=2")), "request");
    expect(sent.bytes.toString()).toBe(`{"note":"${LEAKED}"}`);
    expect((await copied(killed.id, "--body", "0")).bytes.toString()).toContain(humans.ada.email);
    const tty = await run([killed.id, "--body", "0", "--dir", copy], null, true);
    expect([tty.code, tty.bytes.length, tty.err]).toEqual([2, 0, expect.stringContaining("command this terminal")]);
  });

  it("that are not there are said to be so", async () => {
    const { killed } = incident;
    const none = await copied(killed.id, "--body", "9999");
    expect([none.code, none.bytes.length, none.err]).toEqual([
      1,
      0,
      "Record 9999, answer: no record 9999 with a body of the part answer\n",
    ]);
    const partition = `human=${incident.lines[0]!["human"]}/task=build-platform_t-1/instance=${killed.id}`;
    const raw = String(incident.seqOf("/hostile/large")).padStart(10, "0");
    await rm(join(copy, "bodies", partition, `${raw}-answer.0000`));
    const gone = await copied(killed.id, "--body", String(incident.seqOf("/hostile/large")));
    expect([gone.code, gone.bytes.length, gone.err]).toEqual([1, 0, expect.stringContaining("not in this copy")]);
    expect((await copied(killed.id, "--bodies")).out).toContain("        answer: not in this copy\n");
  });

  it("a copy that somebody has damaged: which object, and no fall", async () => {
    const { killed } = incident;
    const partition = `human=${incident.lines[0]!["human"]}/task=build-platform_t-1/instance=${killed.id}`;
    const wrong = await mkdtemp(join(tmpdir(), "portcullis-show-damaged-"));
    await cp(copy, wrong, { recursive: true });
    const damaged = (...args: string[]) => run([killed.id, ...args, "--dir", wrong], null);
    for (const name of await readdir(join(wrong, "bodies", partition)))
      if (name.endsWith(".gz")) await writeFile(join(wrong, "bodies", partition, name), "no gzip");
    expect(await damaged("--body", "0")).toMatchObject({
      code: 1,
      err: expect.stringMatching(/^the body of record 0 can't be read: .*: portcullis verify\n$/),
    });
    const segment = `transcripts/${partition}/0000000000.jsonl.gz`;
    for (const bytes of ["no gzip", gzipSync("no JSON\n")]) {
      await writeFile(join(wrong, segment), bytes);
      for (const args of [[], ["--body", "1"]]) expect((await damaged(...args)).code).not.toBe(0);
    }
    await writeFile(join(wrong, segment), "no gzip");
    expect((await damaged()).err).toContain(`${segment} can't be read: `);
    await rm(wrong, { recursive: true });
  });

  it.each([
    [["x", "y"], "show what?"],
    [[], "show what?"],
    [["x", "--body", "y"], "--body y: not the number of a record"],
    [["x", "sideways", "--body", "1"], "sideways: not request, answer or claims"],
    [["x", "--body", "1", "--bodies"], "--body: with neither --bodies nor --follow"],
    [["x", "--follow"], "No instance in"],
    [[makeKey().thumbprint], "No instance in"],
    [["a", "..", "b"], "No transcript with these ids"],
    [["a", "t", "b"], "No transcript with these ids"],
  ])("wrong words: %j", async (args, said) => {
    const { code, out, err } = await copied(...args);
    expect([code, out]).toEqual([said.startsWith("No ") ? 1 : 2, ""]);
    expect(err).toContain(said);
  });
});
