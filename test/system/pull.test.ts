// pull by the admin API and by the S3 API, from the bucket that a running gate has filled; and what verify makes of the folder.

import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer, request as forward } from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { runCommand } from "../../scripts/cli/commands.ts";
import { parseListing } from "../../scripts/cli/s3-source.ts";
import { createIo } from "../../scripts/cli/terminal.ts";
import { BUCKET } from "../../scripts/local/gate.ts";
import { humans } from "../../scripts/local/humans.ts";
import { closeServer, listenOnLoopback } from "../../scripts/local/ports.ts";
import { DETAILS, type Harness, type HumanName, startHarness } from "./harness.ts";

const main = fileURLToPath(new URL("../../scripts/cli/main.ts", import.meta.url));
const S3 = { accessKeyId: "AKIDEXAMPLE", secretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY" };
/** As large as a raw body object, which nothing writes yet. */
const RAW_BYTES = 3_000_000;

interface Ran {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}
interface Pulled {
  readonly objects: number;
  readonly bytes: number;
  readonly fetched: number;
  readonly fetchedBytes: number;
  readonly oddKeys: readonly string[];
}
interface Partition {
  readonly human: string;
  readonly task: string;
  readonly instance: string;
  readonly path: string;
}

let h: Harness;
let dir: string;
let endpoint: string;
let ada: Partition;
let grace: Partition;
let [betweenMs, beforeMs] = [0, 0];

type Bucket = Awaited<ReturnType<Harness["gate"]["miniflare"]["getR2Bucket"]>>;
const bucket = (): Promise<Bucket> => h.gate.miniflare.getR2Bucket("TRANSCRIPTS", "portcullis");
const keysOf = async (prefix: string): Promise<string[]> =>
  (await (await bucket()).list({ prefix })).objects.map(({ key }) => key);

beforeAll(async () => {
  h = await startHarness({ addresses: { flushAfterMs: 100, indexFlushAfterMs: 200 }, s3: S3 });
  dir = await mkdtemp(join(tmpdir(), "portcullis-pull-"));
  endpoint = new URL("/cdn-cgi/local/r2/s3", await h.gate.miniflare.ready).href;
  beforeMs = Date.now();
  ada = await enrol("ada", "one");
  betweenMs = Date.now();
  grace = await enrol("grace", "two");
  const names = [ada, grace].map(({ instance }) => [instance, true]);
  await vi.waitFor(async () => expect(await indexed()).toEqual(names), { timeout: 15_000, interval: 50 });
});
afterAll(async () => {
  await h.close();
  await rm(dir, { recursive: true, force: true });
});

let folder: string;
beforeEach(async () => {
  folder = join(await mkdtemp(join(dir, "run-")), "copy");
});

/** Whether the index names them, and stands in the bucket. */
async function indexed(): Promise<[instance: string, is: boolean][]> {
  const store = await bucket();
  const objects = await Promise.all((await keysOf("transcripts/journal=segments/")).map((key) => store.get(key)));
  const texts = await Promise.all(objects.map(async (object) => gunzipSync(await object!.arrayBuffer()).toString()));
  return [ada, grace].map(({ instance }) => [instance, texts.join("").includes(instance)]);
}

/** An instance with one segment in R2. */
async function enrol(human: HumanName, task: string): Promise<Partition> {
  const repo = human === "grace" ? "helpdesk" : "widgets";
  const scope = [{ ...DETAILS[0], where: { owner: ["acme"], repo: [repo] } }];
  const { key: agent } = await h.provision({ human, form: { task, authorization_details: JSON.stringify(scope) } });
  const [, path, humanId, taskId, instance] = await vi.waitFor(
    async () => {
      const key = (await keysOf("transcripts/human=")).find((one) => one.includes(agent.thumbprint));
      return (
        /^transcripts\/(human=(.*)\/task=(.*)\/instance=(.*))\//.exec(key ?? "") ??
        Promise.reject(new Error("not in R2"))
      );
    },
    { timeout: 10_000, interval: 50 },
  );
  return { human: humanId!, task: taskId!, instance: instance!, path: path! };
}

async function run(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ran> {
  const [out, err]: [string[], string[]] = [[], []];
  const write = (to: string[]) => ({ write: (text: string) => to.push(text) });
  const code = await runCommand(args, createIo(write(out), write(err), { XDG_CONFIG_HOME: dir, ...env }));
  return { code, out: out.join(""), err: err.join("") };
}

type Way = "admin" | "s3";
const WAYS: readonly Way[] = ["admin", "s3"];
const signed = { AWS_ACCESS_KEY_ID: S3.accessKeyId, AWS_SECRET_ACCESS_KEY: S3.secretAccessKey };
const auditor = () => {
  const { sub, email, groups } = humans.oscar;
  return { PORTCULLIS_TOKEN: h.idToken({ sub, email, groups, aud: "portcullis-admin" }) };
};
const pull = (way: Way, args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ran> =>
  way === "admin"
    ? run(["pull", ...args, "--gate", h.origin], { ...auditor(), ...env })
    : run(["pull", ...args, "--gate", h.origin, "--s3", endpoint, "--bucket", BUCKET], { ...signed, ...env });
const verify = (...args: string[]): Promise<Ran> => run(["verify", ...args]);

async function pullAll(way: Way, folder: string, ...args: string[]) {
  const { code, out, err } = await pull(way, [folder, "--json", ...args]);
  expect([code, err]).toEqual([0, ""]);
  return { ...(JSON.parse(out) as Pulled), files: await filesOf(folder) };
}
async function filesOf(folder: string): Promise<string[]> {
  const names = await readdir(folder, { recursive: true, withFileTypes: true });
  return names
    .filter((name) => name.isFile())
    .map((name) => join(name.parentPath, name.name).slice(folder.length + 1))
    .sort();
}
const partitionsIn = (files: readonly string[]): string[] => [
  ...new Set(files.flatMap((file) => /^transcripts\/(human=.*)\/\d/.exec(file)?.[1] ?? [])),
];

describe.each(WAYS)("pull by %s", (way) => {
  it("brings everything, for its owner alone, that verifies; and nothing twice", async () => {
    const first = await pullAll(way, folder);
    expect(first.objects).toBe(first.fetched);
    expect(partitionsIn(first.files).sort()).toEqual([ada.path, grace.path].sort());
    for (const file of first.files) expect((await stat(join(folder, file))).mode & 0o777, file).toBe(0o600);
    for (const key of await keysOf("bodies/")) expect(first.files).toContain(key);
    expect(first.files.some((file) => file.startsWith("transcripts/journal=segments/day="))).toBe(true);
    const verified = await verify(folder, "--issuer", h.origin);
    expect(verified).toMatchObject({ code: 0, err: "" });
    expect(verified.out).toMatch(/^ok {3}journal=segments\/day=.*\/hour=\d\d\/shard=00\d: /m);
    const again = await pullAll(way, folder, "--all");
    expect(again.objects).toBeGreaterThanOrEqual(first.objects);
    expect(again.fetched).toBe(again.objects - first.objects);
  });

  it.each<[name: string, args: () => string[]]>([
    ["a human", () => ["--human", ada.human]],
    ["a task", () => ["--task", ada.task]],
    ["an instance", () => ["--instance", ada.instance]],
    ["a human's instance", () => ["--human", ada.human, "--instance", ada.instance]],
    ["a span", () => ["--from", String(beforeMs), "--to", String(betweenMs - 1)]],
    ["a task in a span", () => ["--task", ada.task, "--from", new Date(beforeMs).toISOString()]],
    ["a human in a span of days", () => ["--human", ada.human, "--from", String(beforeMs - 3 * 86_400_000)]],
  ])("of %s, and the index of then", async (_name, args) => {
    const { files } = await pullAll(way, folder, ...args());
    expect(partitionsIn(files)).toEqual([ada.path]);
    expect(files).toContain(`bodies/${ada.path}/0000000000.jsonl.gz`);
    expect(files.some((file) => file.startsWith("transcripts/journal=segments/"))).toBe(true);
    expect(await verify(folder)).toMatchObject({ code: 0 });
  });

  it("without bodies, and of nobody", async () => {
    const { files } = await pullAll(way, folder, "--no-bodies");
    expect(files.filter((file) => file.startsWith("bodies/"))).toEqual([]);
    expect(await verify(folder, "--no-bodies")).toMatchObject({ code: 0, err: "" });
    const nobody = await pull(way, [`${folder}-2`, "--human", "nobody"]);
    expect(nobody).toMatchObject({ code: 1, err: "Nothing in the bucket is of nobody.\n" });
  });

  it("goes on with a part by range, keeps what is whole, and brings certificates of erasures", async () => {
    const erasure = `erasures/human=${ada.human}/e-1.json`;
    await (await bucket()).put(erasure, "{}");
    const key = `bodies/${ada.path}/0000000009-answer.0000`;
    const bytes = Buffer.alloc(RAW_BYTES, "0123456789");
    await (await bucket()).put(key, bytes);
    const path = join(folder, key);
    await mkdir(dirname(path), { recursive: true });
    // What is there is not asked for again: a mark in it stays.
    await writeFile(`${path}.part`, Buffer.concat([Buffer.from("!"), bytes.subarray(1, 1_000_000)]));
    const { files } = await pullAll(way, folder, "--instance", ada.instance);
    await (await bucket()).delete([key, erasure]);
    expect(files).toContain(erasure);
    expect(files.filter((file) => file.endsWith(".part"))).toEqual([]);
    const pulled = await readFile(path);
    expect([pulled.length, pulled.subarray(0, 1).toString()]).toEqual([RAW_BYTES, "!"]);
    expect(pulled.subarray(1).equals(bytes.subarray(1))).toBe(true);
  });

  it("leaves out a key that leads elsewhere, names it, and brings the rest", async () => {
    const odd = ["transcripts/../../out", "bodies/./a\u001b", "transcripts//x", "bodies/a\\..\\b", "bodies/half.part"];
    for (const key of odd) await (await bucket()).put(key, "x");
    const { code, out, err } = await pull(way, [folder]);
    for (const key of odd) await (await bucket()).delete(key);
    expect([code, out]).toEqual([1, expect.stringMatching(/^\d+ objects of /)]);
    for (const key of odd) expect(err).toContain(`a key that can't be a path: ${JSON.stringify(key)}`);
    expect(partitionsIn(await filesOf(folder)).sort()).toEqual([ada.path, grace.path].sort());
    expect(await readdir(dirname(folder))).toEqual(["copy"]);
  });
});

describe("pull", () => {
  it("killed in the middle leaves a part, and the next one asks for the rest alone", async () => {
    const key = `bodies/${ada.path}/0000000009-answer.0000`;
    const bytes = Buffer.alloc(RAW_BYTES, "0123456789");
    await (await bucket()).put(key, bytes);
    let isSlow = true;
    const ranges: (string | undefined)[] = [];
    // The gate, and a line that goes dead in the middle of this object.
    const line = createServer((asked, answer) => {
      const isIt = asked.url?.includes("0000000009-answer") === true && asked.url.includes("/object?");
      if (isIt) ranges.push(asked.headers.range);
      const { hostname, port } = new URL(h.origin);
      forward({ hostname, port, path: asked.url, method: asked.method, headers: asked.headers }, (given) => {
        answer.writeHead(given.statusCode ?? 500, given.headers);
        let passed = 0;
        given.on("data", (run: Buffer) => {
          passed += run.length;
          if (!(isIt && isSlow && passed > 1_000_000)) answer.write(run);
        });
        given.on("end", () => {
          if (!(isIt && isSlow)) answer.end();
        });
      }).end();
    });
    const origin = `http://127.0.0.1:${await listenOnLoopback(line, 0)}`;
    const args = ["pull", folder, "--instance", ada.instance, "--gate", origin];
    const env = { PATH: process.env["PATH"], XDG_CONFIG_HOME: dir, ...auditor() };
    const child = spawn(process.execPath, [main, ...args], { env, stdio: "ignore" });
    const part = `${join(folder, key)}.part`;
    const size = async () => (await stat(part).catch(() => null))?.size ?? 0;
    await expect.poll(size, { timeout: 20_000 }).toBeGreaterThan(500_000);
    const dead = new Promise((resolve) => child.once("close", resolve));
    child.kill("SIGKILL");
    await dead;
    const reached = await size();
    expect(reached).toBeLessThan(RAW_BYTES);
    expect((await verify(folder)).out).toContain(`${key}.part: not the name of a segment`);
    isSlow = false;
    expect(await run(args, auditor())).toMatchObject({ code: 0, err: "" });
    await closeServer(line);
    await (await bucket()).delete(key);
    expect(ranges).toEqual([undefined, `bytes=${reached}-`]);
    expect((await readFile(join(folder, key))).equals(bytes)).toBe(true);
  });

  it("by S3 reads page after page, asks again where a line breaks off, and takes the whole from who knows no ranges", async () => {
    const bytes = Buffer.alloc(400_000, "0123456789");
    const ranges: (string | undefined)[] = [];
    const list = `<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>bodies/a/b</Key><Size>${bytes.length}</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents></ListBucketResult>`;
    const first =
      "<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>a b+/=&amp;</NextContinuationToken></ListBucketResult>";
    const cursors: (string | null)[] = [];
    const none = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    const store = createServer((asked, answer) => {
      const { searchParams } = new URL(asked.url ?? "", "http://s3");
      if (searchParams.has("list-type")) {
        if (searchParams.get("prefix") !== "bodies/") return answer.end(none);
        cursors.push(searchParams.get("continuation-token"));
        return answer.end(cursors.length % 2 === 1 ? first : list);
      }
      ranges.push(asked.headers.range);
      answer.writeHead(200, { "content-length": bytes.length });
      if (ranges.length > 1) return answer.end(bytes);
      answer.write(bytes.subarray(0, 100_000));
      return setTimeout(() => answer.destroy(), 100);
    });
    const at = `http://127.0.0.1:${await listenOnLoopback(store, 0)}`;
    const ran = await run(["pull", folder, "--s3", at, "--bucket", "b-1"], signed);
    await closeServer(store);
    expect(ran).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^1 object of bucket b-1 at http:/),
      err: "Without --gate the public seal keys are not here: verify needs them by --keys.\n",
    });
    expect(cursors).toEqual([null, "a b+/=&", null, "a b+/=&"]);
    expect(ranges).toEqual([undefined, expect.stringMatching(/^bytes=[1-9]\d*-$/)]);
    expect((await readFile(join(folder, "bodies/a/b"))).equals(bytes)).toBe(true);
  });

  it("by S3 takes nothing but what it asked for: a bucket that names other files writes none of them", async () => {
    const listed = (keys: readonly string[]) =>
      `<ListBucketResult><IsTruncated>false</IsTruncated>${keys.map((key) => `<Contents><Key>${key}</Key><Size>5</Size><LastModified>2026-01-01T00:00:00Z</LastModified></Contents>`).join("")}</ListBucketResult>`;
    const keys = ["seal-keys.json"];
    const store = createServer((asked, answer) => {
      const { searchParams } = new URL(asked.url ?? "", "http://s3");
      if (!searchParams.has("list-type")) return answer.end("12345");
      return answer.end(listed(searchParams.get("prefix") === "transcripts/" ? keys : []));
    });
    const at = `http://127.0.0.1:${await listenOnLoopback(store, 0)}`;
    const { code, err } = await run(["pull", folder, "--s3", at, "--bucket", "b-1", "--gate", h.origin], signed);
    await closeServer(store);
    expect(JSON.parse(await readFile(join(folder, "seal-keys.json"), "utf8"))).toHaveProperty("keys");
    expect([code, err]).toEqual([
      4,
      expect.stringContaining('with a key that is not under transcripts/: "seal-keys.json"'),
    ]);
  });

  it("an object in the place of a folder, or under one of a file, costs neither the copy nor the rest", async () => {
    const segment = `transcripts/${ada.path}/0000000000.jsonl.gz`;
    await pullAll("s3", folder);
    const store = await bucket();
    const odd = [
      `transcripts/human=${ada.human}`,
      `${segment}/x`,
      `${segment}.part/x`,
      `bodies/${"\u00e9".repeat(200)}`,
    ];
    for (const key of odd) await store.put(key, "x");
    const again = await pull("s3", [folder]);
    const anew = await pull("s3", [`${folder}-2`]);
    for (const key of odd) await store.delete(key);
    for (const { code, err } of [again, anew]) {
      expect(code).toBe(1);
      for (const key of odd) expect(err).toContain(`Not copied, a key that can't be a path: ${JSON.stringify(key)}`);
    }
    for (const copy of [folder, `${folder}-2`]) expect(await verify(copy)).toMatchObject({ code: 0 });
  });

  it.each<[name: string, env: Record<string, string>, code: number, said: string]>([
    [
      "a wrong secret",
      { AWS_SECRET_ACCESS_KEY: "wrong-secret" },
      3,
      "refuses (SignatureDoesNotMatch): AWS_ACCESS_KEY_ID and",
    ],
    ["an unknown key", { AWS_ACCESS_KEY_ID: "AKIDNOBODY" }, 3, "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are wrong"],
    ["no secret", { AWS_SECRET_ACCESS_KEY: "" }, 2, "--s3 needs AWS_SECRET_ACCESS_KEY in the environment"],
  ])("by S3 with %s says so, without it, and makes no folder", async (_name, env, code, said) => {
    const ran = await pull("s3", [folder], env);
    expect([ran.code, ran.out]).toEqual([code, ""]);
    expect(ran.err).toContain(said);
    for (const secret of [S3.secretAccessKey, "wrong-secret"]) expect(ran.err).not.toContain(secret);
    expect(await stat(folder).catch(() => null)).toBeNull();
  });

  it("by S3 says which bucket, which address and which option it was", async () => {
    const s3 = (...args: string[]) => run(["pull", folder, ...args], signed);
    expect(await s3("--s3", endpoint, "--bucket", "no-such")).toMatchObject({
      code: expect.toSatisfy((code: number) => code === 1 || code === 3),
      err: expect.stringContaining("no-such"),
    });
    expect(await s3("--s3", "http://127.0.0.1:9", "--bucket", "b-1")).toMatchObject({
      code: 4,
      err: expect.stringContaining("bucket b-1 at http://127.0.0.1:9 could not be reached"),
    });
    for (const [args, said] of [
      [["--s3", "http://s3.example"], "--s3 http://s3.example: not an https URL"],
      [["--s3", endpoint], "--s3 needs --bucket <name>"],
      [["--bucket", "b"], "--bucket is of --s3"],
      [["--s3", endpoint, "--bucket", "../b"], "--bucket ../b: not the name of a bucket"],
      [["--human", "../h"], "--human ../h: not an id"],
      [["--to", "2026-01-01"], "--to needs --from"],
      [["--from", "yesterday"], "--from yesterday: not a time"],
      [["--from", "2026-01-02", "--to", "2026-01-01"], "--to is before --from"],
      [["--all", "--task", "t"], "--all, and what it is of"],
    ] as const)
      expect(await s3(...args)).toMatchObject({ code: 2, err: expect.stringContaining(said) });
  });

  it("by the admin API needs an auditor", async () => {
    const { sub, email, groups } = humans.ada;
    const token = h.idToken({ sub, email, groups, aud: "portcullis-admin" });
    expect(await pull("admin", [folder], { PORTCULLIS_TOKEN: token })).toMatchObject({
      code: 3,
      err: "Not allowed: this needs the role auditor\n",
    });
  });

  it("of a human by address, as long as the gate knows an instance of theirs", async () => {
    const { files } = await pullAll("admin", folder, "--human", humans.ada.email);
    expect(partitionsIn(files)).toEqual([ada.path]);
    expect(await pull("admin", [folder, "--human", "nobody@acme.example"])).toMatchObject({
      code: 1,
      err: expect.stringContaining("no instance of that address"),
    });
  });
});

describe("verify holds a folder to the index", () => {
  const segment = ({ path }: Partition): string => `transcripts/${path}/0000000000.jsonl.gz`;
  const findings = async (...args: string[]) => {
    const { code, out } = await verify(folder, ...args);
    return { code, lines: out.split("\n").filter((line) => line.startsWith("     ")) };
  };

  it("a transcript that was deleted in the bucket shows, in a copy of all and in one of its human", async () => {
    const store = await bucket();
    const objects = [segment(grace), `bodies/${grace.path}/0000000000.jsonl.gz`];
    const kept = await Promise.all(
      objects.map(async (key) => [key, await (await store.get(key))!.arrayBuffer()] as const),
    );
    for (const key of objects) await store.delete(key);
    await pullAll("s3", folder);
    const { code, lines } = await findings();
    expect([code, lines]).toEqual([1, [expect.stringContaining(`${segment(grace)}: a whole transcript is missing`)]]);
    expect(lines[0]).toMatch(/the index names it \(transcripts\/journal=segments\/day=.* line \d+ \(seq \d+\)\)/);

    await rm(folder, { recursive: true });
    const span = ["--human", grace.human, "--from", String(beforeMs)];
    await pull("admin", [folder, ...span]);
    expect((await findings()).lines).toEqual([
      expect.stringContaining(`${segment(grace)}: a whole transcript is missing`),
    ]);
    // Who is not in the scope is not missed.
    await rm(folder, { recursive: true });
    await pullAll("admin", folder, "--human", ada.human);
    expect(await findings()).toEqual({ code: 0, lines: [] });
    expect((await findings("--whole")).lines.sort()).toEqual([
      expect.stringContaining(`${segment(grace)}: a whole transcript is missing`),
      expect.stringMatching(/journal=admin\/day=[-\d]+\/0000000000\.jsonl\.gz: a whole journal is missing/),
    ]);
    for (const [key, bytes] of kept) await store.put(key, bytes);
  });

  it("a copy that lost one, and a copy of two scopes", async () => {
    await pullAll("s3", folder, "--human", ada.human);
    await pullAll("s3", folder, "--human", grace.human);
    expect(await findings()).toEqual({ code: 0, lines: [] });
    await rm(join(folder, segment(ada)));
    await rm(join(folder, `bodies/${ada.path}`), { recursive: true });
    expect((await findings()).lines).toEqual([
      expect.stringContaining(`${segment(ada)}: a whole transcript is missing`),
    ]);
  });

  it("says what it was held to, where that is not everything: who narrows it, or deletes it, is seen", async () => {
    await pullAll("s3", folder);
    await rm(join(folder, segment(grace)));
    await rm(join(folder, `bodies/${grace.path}`), { recursive: true });
    expect((await verify(folder)).code).toBe(1);
    const file = join(folder, "pulled.json");
    const pulled = JSON.parse(await readFile(file, "utf8")) as { scopes: object[] };
    await writeFile(file, JSON.stringify({ ...pulled, scopes: [{ ...pulled.scopes[0], human: ada.human }] }));
    expect(await verify(folder)).toMatchObject({
      code: 0,
      err: `Held to the index of segments as pulled.json says: human ${ada.human}. For a copy of everything say --whole.\n`,
    });
    await writeFile(file, JSON.stringify({ ...pulled, scopes: [{ atMs: 0 }], isCurrent: false }));
    expect((await verify(folder)).err).toContain("everything, as of 1970-01-01 00:00:00.000Z. For");
    await rm(file);
    expect(await verify(folder)).toMatchObject({
      code: 0,
      err: "No pull has left a pulled.json here: a transcript that is gone as a whole does not show. For a copy of everything say --whole.\n",
    });
    expect(await verify(folder, "--whole")).toMatchObject({ code: 1, err: "" });
  });

  it("says what is wrong with the file that says what was pulled", async () => {
    await pullAll("s3", folder, "--human", ada.human);
    await writeFile(join(folder, "pulled.json"), "{}");
    expect(await verify(folder)).toMatchObject({ code: 2, err: expect.stringContaining("not a file that pull wrote") });
    expect(await pull("s3", [folder])).toMatchObject({
      code: 1,
      err: expect.stringContaining("not a file that pull wrote"),
    });
  });
});

describe("verify --s3 reads the bucket itself", () => {
  const S3_ARGS = () => ["--s3", endpoint, "--bucket", BUCKET];
  const verifyBucket = (args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ran> =>
    run(["verify", ...args], { ...signed, ...env });

  it("as it is, and with an object gone", async () => {
    const args = [...S3_ARGS(), "--gate", h.origin, "--issuer", h.origin];
    const { code, out, err } = await verifyBucket(args);
    expect([code, err]).toEqual([0, ""]);
    for (const { path } of [ada, grace]) expect(out).toContain(`ok   ${path}: `);
    expect(out).toMatch(/^ok {3}journal=segments\/day=/m);

    const store = await bucket();
    const [body, segment] = ["bodies", "transcripts"].map((half) => `${half}/${grace.path}/0000000000.jsonl.gz`) as [
      string,
      string,
    ];
    const kept = await Promise.all(
      [body, segment].map(async (key) => [key, await (await store.get(key))!.arrayBuffer()] as const),
    );
    await store.delete(body);
    expect(await verifyBucket(args)).toMatchObject({
      code: 1,
      out: expect.stringContaining(`${segment} line 1 (seq 0): its claims body is absent, and nothing accounts`),
    });
    expect(await verifyBucket([...args, "--no-bodies"])).toMatchObject({ code: 0 });
    await store.delete(segment);
    expect(await verifyBucket(args)).toMatchObject({
      code: 1,
      out: expect.stringContaining(`${segment}: a whole transcript is missing: the index names it`),
    });
    for (const [key, bytes] of kept) await store.put(key, bytes);
  });

  it("goes on where a line breaks off, and never takes that for an alteration", async () => {
    const origin = new URL(endpoint);
    let breaks = 1;
    const ranges: (string | undefined)[] = [];
    const line = createServer((asked, answer) => {
      const isIt = asked.url?.includes(`transcripts/${encodeURIComponent(ada.path).replaceAll("%2F", "/")}/`) === true;
      if (isIt) ranges.push(asked.headers.range);
      const { hostname, port } = origin;
      forward({ hostname, port, path: asked.url, method: asked.method, headers: asked.headers }, async (given) => {
        const chunks: Buffer[] = [];
        for await (const chunk of given) chunks.push(chunk as Buffer);
        const whole = Buffer.concat(chunks);
        answer.writeHead(given.statusCode ?? 500, { ...given.headers, "content-length": whole.length });
        if (!isIt || breaks-- <= 0) return answer.end(whole);
        answer.write(whole.subarray(0, whole.length / 2));
        return setTimeout(() => answer.destroy(), 50);
      }).end();
    });
    const at = `http://127.0.0.1:${await listenOnLoopback(line, 0)}${origin.pathname}`;
    const args = ["--s3", at, "--bucket", BUCKET, "--gate", h.origin];
    const once = await verifyBucket(args);
    breaks = 100;
    const always = await verifyBucket(args);
    await closeServer(line);
    expect(once).toMatchObject({ code: 0, err: "" });
    expect(ranges.slice(0, 2)).toEqual([undefined, expect.stringMatching(/^bytes=[1-9]\d*-$/)]);
    expect([always.code, always.out]).toEqual([4, ""]);
    expect(always.err).toContain(`broke off in the middle of transcripts/${ada.path}/`);
  });

  it.each<[name: string, args: () => string[], env: Record<string, string>, code: number, said: string]>([
    ["a wrong secret", S3_ARGS, { AWS_SECRET_ACCESS_KEY: "wrong-secret" }, 3, "refuses (SignatureDoesNotMatch): AWS_"],
    ["no secret", S3_ARGS, { AWS_SECRET_ACCESS_KEY: "" }, 2, "--s3 needs AWS_SECRET_ACCESS_KEY in the environment"],
    ["nobody there", () => ["--s3", "http://127.0.0.1:9", "--bucket", BUCKET], {}, 4, "could not be reached"],
    ["no bucket named", () => ["--s3", endpoint], {}, 2, "--s3 needs --bucket <name>"],
    ["a folder too", () => ["copy", ...S3_ARGS()], {}, 2, "unexpected: copy"],
    ["a folder in a bucket", () => ["copy", "--bucket", BUCKET], {}, 2, "--bucket is of --s3"],
  ])("with %s says so", async (_name, args, env, code, said) => {
    const ran = await verifyBucket([...args(), "--gate", h.origin], env);
    expect([ran.code, ran.out]).toEqual([code, ""]);
    expect(ran.err).toContain(said);
    for (const secret of [S3.secretAccessKey, "wrong-secret"]) expect(ran.err).not.toContain(secret);
  });

  it("takes no keys from the bucket", async () => {
    expect(await verifyBucket(S3_ARGS())).toMatchObject({
      code: 2,
      err: expect.stringContaining("--s3 needs the public seal keys: --keys <file> or --gate <origin>"),
    });
    expect(await verifyBucket([...S3_ARGS(), "--gate", "http://127.0.0.1:9"])).toMatchObject({
      code: 4,
      err: "not verified: http://127.0.0.1:9 does not say its seal keys\n",
    });
  });
});

describe("the admin API", () => {
  const object = (key: string, headers: Record<string, string> = {}) =>
    h.send(`/admin/v1/object?${new URLSearchParams({ key })}`, {
      headers: { authorization: `Bearer ${auditor().PORTCULLIS_TOKEN}`, ...headers },
    });

  it("gives an object by ranges, and none by an odd key; each read is on record", async () => {
    const key = `bodies/${ada.path}/0000000000.jsonl.gz`;
    const whole = Buffer.from(await (await (await bucket()).get(key))!.arrayBuffer());
    const of = async (range: string) => {
      const { status, headers } = await object(key, { range });
      return [status, headers.get("content-range"), headers.get("content-length")];
    };
    const { length } = whole;
    expect(await of("bytes=0-0")).toEqual([206, `bytes 0-0/${length}`, "1"]);
    expect(await of("bytes=5-")).toEqual([206, `bytes 5-${length - 1}/${length}`, String(length - 5)]);
    expect(await of("bytes=5-99999999")).toEqual([206, `bytes 5-${length - 1}/${length}`, String(length - 5)]);
    expect(await of(`bytes=${length}-`)).toEqual([416, `bytes */${length}`, expect.anything()]);
    for (const ignored of ["bytes=-5", "bytes=0-1,3-4", "lines=0-1"])
      expect(await of(ignored)).toEqual([200, null, String(length)]);
    for (const odd of [
      "",
      "seal-keys.json",
      "transcripts",
      "transcripts/",
      "transcripts/../bodies/x",
      "transcripts/./x",
      "/transcripts/x",
      "erasures",
      "transcripts//x",
      "bodies/a%2Fb",
      "bodies/a\\b",
      "bodies/a\u0000",
      `bodies/${"x".repeat(600)}`,
    ])
      expect((await object(odd)).status, odd).toBe(400);
    expect((await object("transcripts/x")).status).toBe(404);
    const read = await h.journal("admin", (line) => line["type"] === "read" && line["object"] === key);
    expect(read[0]).toMatchObject({ email: humans.oscar.email });
  });

  it("gives entries that are not in the bucket yet, and a pull of their span finds them", async () => {
    const other = await startHarness({ addresses: { flushAfterMs: 100, indexFlushAfterMs: 600_000 } });
    const { key } = await other.provision();
    const path = `/admin/v1/segments?from=${beforeMs}&to=${Date.now() + 60_000}`;
    await expect.poll(async () => (await other.asAdmin(path)).text, { timeout: 10_000 }).toContain(key.thumbprint);
    const store = await other.gate.miniflare.getR2Bucket("TRANSCRIPTS", "portcullis");
    expect((await store.list({ prefix: "transcripts/journal=segments/" })).objects).toEqual([]);
    const { sub, email, groups } = humans.oscar;
    const env = { PORTCULLIS_TOKEN: other.idToken({ sub, email, groups, aud: "portcullis-admin" }) };
    const args = ["pull", folder, "--from", String(beforeMs), "--gate", other.origin];
    expect(await run(args, env)).toMatchObject({ code: 0 });
    expect(partitionsIn(await filesOf(folder))).toEqual([expect.stringContaining(key.thumbprint)]);
    await other.close();
  });

  it("gives the index of a span", async () => {
    const index = async (query: Record<string, string>) =>
      h.asAdmin(`/admin/v1/segments?${new URLSearchParams(query)}`);
    const span = { from: String(beforeMs), to: new Date(Date.now() + 60_000).toISOString() };
    const names = async (query: Record<string, string>) =>
      (await index({ ...span, ...query })).text
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => (JSON.parse(line) as { partition: string }).partition);
    const partitions = (await names({})).filter((path) => !path.startsWith("journal=admin/"));
    expect(new Set(partitions)).toEqual(new Set([ada.path, grace.path]));
    expect(await names({ human: grace.human })).toEqual([grace.path]);
    expect(await names({ task: ada.task, instance: grace.instance })).toEqual([]);
    expect(await names({ from: String(beforeMs - 7_200_000), to: String(beforeMs - 3_700_000) })).toEqual([]);
    for (const [query, said] of [
      [{ to: "1" }, "to is before from"],
      [{ from: "0" }, "at most 48 hours at once"],
      [{ from: "yesterday" }, "from: milliseconds since 1970, or ISO 8601"],
      [{ human: "../h" }, "human: an id"],
      [{ more: "1" }, '"more"'],
    ] as const)
      expect((await index({ ...span, ...query })).json["detail"]).toContain(said);
    expect((await index({ ...span })).headers.get("content-type")).toBe("application/x-ndjson");
    const read = await h.journal("admin", (line) => line["index"] === "segments" && line["human"] === grace.human);
    expect(read[0]).toMatchObject({ type: "read", fromMs: beforeMs, task: null });
  });
});

describe("an answer to ListObjectsV2", () => {
  const list = (inner: string) =>
    `<?xml version="1.0"?><ListBucketResult xmlns="http://x/">${inner}</ListBucketResult>`;
  const one = (key: string) =>
    `<Contents><Key>${key}</Key><Size>1</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>`;
  const whole = "<IsTruncated>false</IsTruncated>";
  const keys = (document: string) => {
    const parsed = parseListing(document);
    return parsed.ok ? parsed.value.objects.map(({ key }) => key) : parsed.error;
  };

  it.each<[name: string, document: string, expected: readonly string[] | string]>([
    ["one object", list(`${whole}${one("a/b")}`), ["a/b"]],
    ["entities", list(`${whole}${one("a&amp;&lt;&#x41;&#66;")}`), ["a&<AB"]],
    ["encoded keys", list(`${whole}<EncodingType>url</EncodingType>${one("a%2F%2E%2E+b%2B")}`), ["a/.. b+"]],
    ["a key that is not encoded, and looks so", list(`${whole}${one("a%2Fb")}`), ["a%2Fb"]],
    ["no end that is told", list(one("a")), "a list that does not say whether it is whole"],
    [
      "more, nobody knows where",
      list("<IsTruncated>true</IsTruncated>"),
      "a list that goes on, and does not say where",
    ],
    ["no size", list(`${whole}<Contents><Key>a</Key></Contents>`), "an object without its key, size or time"],
    [
      "an entity of its own",
      list(`${whole}${one("&x;")}`),
      expect.stringContaining("an entity that is not known") as never,
    ],
    ["a DTD", `<!DOCTYPE x [<!ENTITY x "y">]>${list(whole)}`, expect.stringContaining("not XML") as never],
    ["CDATA", list(`${whole}<![CDATA[x]]>`), expect.stringContaining("not XML") as never],
    ["half", list(whole).slice(0, -5), expect.stringContaining("not XML") as never],
    ["another", "<Error><Code>x</Code></Error>", "Error, not a list"],
    ["a page", "<html><body>x</body></html>", "html, not a list"],
    ["nothing", "", "not one whole element"],
  ])("%s", (_name, document, expected) => {
    expect(keys(document)).toEqual(expected);
  });
});
