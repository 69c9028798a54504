// The command line against the running gate, as a process of its own: what it prints, and how it ends.

import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { parseArguments } from "../../scripts/cli/arguments.ts";
import { runCommand } from "../../scripts/cli/commands.ts";
import { createIo } from "../../scripts/cli/terminal.ts";
import { type ServedBucket, startBucketDoor } from "../../scripts/local/bucket-door.ts";
import { humans } from "../../scripts/local/humans.ts";
import { closeServer, listenOnLoopback } from "../../scripts/local/ports.ts";
import { claimFolder } from "../../scripts/local/run-file.ts";
import { confirmDevice } from "./device-browser.ts";
import { type Harness, makeKey, NOWHERE, nowSeconds, startHarness } from "./harness.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const main = join(root, "scripts/cli/main.ts");
const launcher = join(root, "bin/portcullis.mjs");

let h: Harness;
let dir: string;
beforeAll(async () => {
  h = await startHarness({ addresses: { flushAfterMs: 100, otherAgent: "review-bot" } });
  dir = await mkdtemp(join(tmpdir(), "portcullis-cli-"));
});
afterAll(async () => {
  await h.close();
  await rm(dir, { recursive: true, force: true });
});

let config: string;
beforeEach(async () => {
  config = await mkdtemp(join(dir, "config-"));
});

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}
type Env = Readonly<Record<string, string | undefined>>;

/** The rest of the environment that matters here: what Node compiled before it need not compile again. */
const { PATH, NODE_COMPILE_CACHE } = process.env;

/** In an empty folder, with nothing in the environment but what is said. `onOut` hears each line as it comes. */
function run(args: readonly string[], env: Env = {}, onOut?: (line: string) => void, command = main): Promise<Ended> {
  const child = spawn(process.execPath, [command, ...args], {
    cwd: config,
    env: { PATH, NODE_COMPILE_CACHE, HOME: config, XDG_CONFIG_HOME: config, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [out, err, heard] = ["", "", 0];
  child.stdout.setEncoding("utf8").on("data", (chunk: string) => {
    out += chunk;
    const lines = out.split("\n");
    for (; heard < lines.length - 1; heard += 1) onOut?.(lines[heard]!);
  });
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => {
    err += chunk;
  });
  return new Promise((resolve) => child.on("close", (code) => resolve({ code, out, err })));
}

async function readAll(chunks: AsyncIterable<Uint8Array>): Promise<Uint8Array<ArrayBuffer>> {
  const all: Uint8Array[] = [];
  for await (const chunk of chunks) all.push(chunk);
  return new Uint8Array(Buffer.concat(all));
}

/** The same within this process: quicker, and as good where neither folder nor signals matter. */
async function runHere(args: readonly string[], env: Env = {}): Promise<Ended> {
  const [out, err]: [string[], string[]] = [[], []];
  const io = createIo(
    { write: (text) => out.push(text) },
    { write: (text) => err.push(text) },
    { XDG_CONFIG_HOME: config, ...env },
  );
  const code = await runCommand(args, io);
  return { code, out: out.join(""), err: err.join("") };
}

/** An admin's token, as the identity provider might have given it. */
const tokenOf = (human: keyof typeof humans, claims: Record<string, unknown> = {}) => {
  const { sub, email, groups } = humans[human];
  return h.idToken({ sub, email, groups, aud: "portcullis-admin", ...claims });
};
const asOscar = (): Env => ({ PORTCULLIS_GATE: h.origin, PORTCULLIS_TOKEN: tokenOf("oscar") });
const oscar = (...args: string[]) => runHere(args, asOscar());
const json = async <T>(...args: string[]): Promise<T & { code: number | null }> => {
  const { code, out } = await oscar(...args, "--json");
  expect(out.trimEnd()).not.toContain("\n");
  return { code, ...(JSON.parse(out) as T) };
};
interface Receipt {
  readonly status: string;
  readonly reached: number;
  readonly jws: string;
  readonly switch: { readonly id: string; readonly target: object; readonly untilMs: number | null };
}

describe("every command", () => {
  const commands = [
    "kill",
    "pause",
    "resume",
    "lift",
    "narrow",
    "ps",
    "quota",
    "switches",
    "switch",
    "tail",
    "show",
    "pull",
    "verify",
    "erase",
    "erasure",
    "hold",
    "holds",
  ];

  it("says its usage on --help, and the table says all of them", async () => {
    const all = await runHere(["--help"]);
    expect(all).toMatchObject({ code: 0, err: "" });
    expect(all.out).toMatch(/^ {2}agent /m);
    expect(await runHere(["agent", "--help"])).toMatchObject({
      code: 0,
      out: expect.stringContaining("portcullis agent"),
    });
    const behind = await runHere(["kill", "--reason", "r", "--", "--help"]);
    expect(behind).toMatchObject({ code: 2, err: expect.stringContaining("--help: no such reach") });
    for (const name of [...commands, "login", "logout"]) {
      expect(all.out).toMatch(new RegExp(`^ {2}${name} `, "m"));
      expect(await runHere([name, "--help"])).toMatchObject({
        code: 0,
        out: expect.stringContaining(`portcullis ${name}`),
      });
    }
  });

  it.each([
    [[], "portcullis <command>"],
    [["red"], "red: no such command"],
    [["constructor"], "constructor: no such command"],
    [["kill"], "which reach?"],
    [["kill", "galaxy", "x", "--reason", "r"], "galaxy: no such reach"],
    [["kill", "toString", "--reason", "r"], "toString: no such reach"],
    [["kill", "task", "--reason", "r"], "task needs its target: <task>"],
    [["kill", "everything", "x", "--reason", "r", "--yes"], "everything has no target"],
    [["kill", "agent-version", "triage-bot", "--reason", "r"], "needs its target: <agent>@<version>"],
    [["kill", "agent-upstream", "triage-bot", "--reason", "r"], "needs its target: <agent> <upstream>"],
    [["kill", "task", "t"], "it needs its reason"],
    [["kill", "task", "t", "--reason", "  "], "it needs its reason"],
    [["kill", "task", "t", "--reason", "r", "--until", "soon"], "--until soon: not a time"],
    [["kill", "task", "t", "--reason", "r", "--until", "1"], "--until 1: not a time"],
    [["kill", "task", "t", "--reason", "r", "--until", "2020-01-01"], "it is over already"],
    [["kill", "task", "t", "--reason", "r", "--force"], "'--force'"],
    [["kill", "everything", "--reason", "r"], "kill everything needs --yes"],
    [["pause", "everything", "--reason", "r"], "pause everything needs --yes"],
    [["resume", "task", "t"], "it needs its reason"],
    [["lift", "--reason", "r"], "give one switch id"],
    [["switch"], "give one switch id"],
    [["erase", "task", "t", "--reason", "r"], "erase what?"],
    [["erase", "human", "h", "--yes"], "it needs its reason"],
    [["erase", "human", "h", "--reason", "r"], "erase needs --yes"],
    [["erasure"], "give one erasure id"],
    [["hold", "agent", "a", "--reason", "r"], "hold what?"],
    [["hold", "human", "--reason", "r"], "hold what?"],
    [["hold", "release", "x"], "it needs its reason"],
    [["holds", "x"], "unexpected: x"],
    [["ps", "x"], "unexpected: x"],
    [["ps", "--state", "dead"], "--state dead: not one of"],
    [["quota", "posts-a-day"], "quota which?"],
    [["switches", "--limit", "0"], "--limit 0: not a number"],
    [["tail"], "tail what?"],
    [["tail", "a", "b"], "tail what?"],
    [["tail", "a", "--interval", "0"], "--interval 0"],
    [["pull"], "give one folder"],
    [["ps", "--gate", "http://gate.example"], "--gate http://gate.example: not an https URL"],
    [["ps", "--gate", "https://gate.example/admin"], "an origin has no path"],
    [["ps", "--gate", "https://u:p@gate.example"], "no credentials"],
    [["ps", "--gate", "https://gate.example", "--dir", "x"], "say one of them"],
    [["ps", "--as", "oscar"], "--as: only at the stack of npm start"],
    [["ps", "--token", "a\nb"], "--token: not a token"],
    [["ps", "--token-file", "nowhere"], "--token-file: ENOENT"],
  ])("wrong words are a usage error: %j", async (args, said) => {
    const { code, out, err } = await runHere(args, asOscar());
    expect([code, out]).toEqual([2, ""]);
    expect(err).toContain(said);
    expect(err).toContain("portcullis ");
    // The whole of it would hide what was wrong; without any word there is nothing to hide.
    if (args.length > 0) expect(err).toMatch(/npx portcullis (\w+ )?--help\n$/);
    if (args.length > 0) expect(err).not.toContain("Exit: ");
  });

  it("lists have headings where a person reads them, and a program gets lines that are all alike", async () => {
    await h.provision({ form: { task: "headed" } });
    await oscar("kill", "task", "headed", "--reason", "r");
    for (const [command, headings] of [
      ["ps", /^INSTANCE +STATE +AGENT +TASK +HUMAN +UPSTREAMS +DEADLINE +PARENT\n/],
      ["switches", /^SWITCH +AT +STATE +ACT +TARGET +BY, AND WHY\n/],
    ] as const) {
      const out: string[] = [];
      const stdout = { isTTY: true, write: (text: string) => out.push(text) };
      const io = createIo(stdout, { write: () => true }, { XDG_CONFIG_HOME: config, ...asOscar() });
      expect(await runCommand([command], io)).toBe(0);
      expect(out.join("")).toMatch(headings);
      expect((await oscar(command)).out).not.toMatch(headings);
    }
  });

  it("verify says what of a copy is not there", async () => {
    const nowhere = join(config, "nowhere");
    expect(await runHere(["verify", nowhere])).toMatchObject({
      code: 2,
      err: `not verified: ${nowhere}: no such folder\n`,
    });
    const keys = join(config, "seal-keys.json");
    expect(await runHere(["verify", config])).toMatchObject({
      code: 2,
      err: expect.stringContaining(`not verified: ${keys}: no such file. It needs the public seal keys`),
    });
  });

  it("what is said to a person can't command a terminal", async () => {
    const { code, out, err } = await run(["\u001b[31m\u202ered"]);
    expect([code, out]).toEqual([2, ""]);
    expect(err).toMatch(/^\\u\{1b\}\[31m\\u\{202e\}red: no such command\. All of them: npx portcullis --help\n$/);
  });

  it("without a gate: which?", async () => {
    expect(await run(["ps"])).toMatchObject({ code: 2, err: expect.stringContaining("which gate?") });
    const stack = await run(["ps", "--dir", config]);
    expect(stack).toMatchObject({ code: 4, err: expect.stringContaining("Nothing runs from") });
  });

  it("a gate that is not there, is none, or leads elsewhere is unreachable", async () => {
    const away = await runHere(["ps"], { ...asOscar(), PORTCULLIS_GATE: NOWHERE });
    expect(away).toMatchObject({ code: 4, out: "", err: expect.stringContaining("could not be reached: ") });
    let heard = 0;
    const other = createServer((request, response) => {
      heard += 1;
      if (request.url?.includes("switches")) response.writeHead(307, { location: `${h.origin}${request.url}` }).end();
      else response.end("<html>");
    });
    const gate = `http://127.0.0.1:${await listenOnLoopback(other, 0)}`;
    const page = await runHere(["ps", "--gate", gate], asOscar());
    expect(page).toMatchObject({ code: 4, err: expect.stringContaining("not as a gate of this version does") });
    const kill = await runHere(["kill", "task", "elsewhere", "--reason", "r", "--gate", gate], asOscar());
    expect(kill).toMatchObject({ code: 4, out: "", err: expect.stringContaining("can't answer: 307") });
    expect(heard).toBe(2);
    await closeServer(other);
    expect((await oscar("switches")).out).not.toContain("elsewhere");
  });
});

describe("kill", () => {
  it("by the beginning of an id, also one that looks like an option; prints and saves the receipt", async () => {
    // One id in 64 begins so.
    let key = makeKey();
    while (!/^-[A-Za-z0-9]/.test(key.thumbprint)) key = makeKey();
    const { access } = await h.provision({ key, form: { task: "dash" } });
    const id = key.thumbprint;
    const receiptFile = join(config, "receipt.jws");
    const killed = await oscar(
      "kill",
      "instance",
      id.slice(0, 8),
      "--reason",
      "\u001b[2Jenough",
      "--save",
      receiptFile,
    );
    expect(killed).toMatchObject({ code: 0, err: "" });
    expect(killed.out).toMatch(new RegExp(`^Killed: instance ${id}\n  switch [0-9a-f-]{36} at ${h.origin}, `));
    expect(killed.out).toContain(": \\u{1b}[2Jenough\n");
    expect(killed.out).toMatch(/ {2}reached 1 instance, cut 0 running calls\n {2}acknowledged after \d+ ms\n/);
    expect((await h.call(key, access)).status).toBe(401);
    const { jws } = await json<Receipt>("switch", /switch (\S+)/.exec(killed.out)![1]!);
    // Signed anew each time it is asked for, over the same words.
    const words = (token: string): string[] => token.trim().split(".").slice(0, 2);
    expect(words(await readFile(receiptFile, "utf8"))).toEqual(words(jws!));
    const whole = await oscar("kill", "instance", id, "--reason", "again");
    expect(whole).toMatchObject({ code: 0, out: expect.stringContaining(`Killed: instance ${id}`) });
  });

  it("of a beginning that is nobody's, or of several: nothing is done", async () => {
    await Promise.all([1, 2, 3].map(() => h.provision({ form: { task: "several" } })));
    const nobody = await oscar("kill", "instance", "~", "--reason", "r");
    expect(nobody).toMatchObject({
      code: 1,
      out: "",
      err: expect.stringContaining("No instance that is enrolled now begins with ~"),
    });
    const all = await oscar("kill", "instance", "", "--reason", "r");
    expect(all).toMatchObject({ code: 2, out: "" });
    const { instances } = await json<{ instances: { state: string }[] }>("ps", "--task", "build-platform_several");
    expect(instances.map(({ state }) => state)).toEqual(["live", "live", "live"]);
  });

  it("at each reach, with the target that the gate names; warns where nobody is in reach", async () => {
    for (const [words, target] of [
      [["task", "t-x"], { task: "t-x" }],
      [["human", "nobody@acme.example"], { human: expect.stringMatching(/^[A-Za-z0-9_-]{43}$/) }],
      [["agent", "review-bot"], { agent: "review-bot" }],
      [["agent-version", "triage-bot@0.0"], { agent: "triage-bot", agentVersion: "0.0" }],
      [["upstream", "slack"], { upstream: "slack" }],
      [["agent-upstream", "review-bot", "github"], { agent: "review-bot", upstream: "github" }],
      [["human-upstream", "h-x", "github"], { human: "h-x", upstream: "github" }],
    ] as const) {
      const { code, out, err } = await oscar("kill", ...words, "--reason", "r", "--json");
      const receipt = JSON.parse(out) as { switch: object };
      expect(receipt).toMatchObject({ status: "done", reached: 0, switch: { reach: words[0], act: "kill" } });
      expect((receipt.switch as { target: object }).target).toEqual(target);
      expect([code, err]).toEqual([0, expect.stringContaining("Nobody was in reach")]);
    }
  });

  it("until a time; followed with --wait, the answer is the same receipt", async () => {
    const before = Date.now();
    const { out, code } = await oscar("kill", "task", "t-y", "--reason", "r", "--until", "2h", "--wait", "--json");
    const receipt = JSON.parse(out) as { jws: string; status: string; switch: { untilMs: number } };
    expect([code, receipt.status, receipt.jws.split(".").length]).toEqual([0, "done", 3]);
    expect(receipt.switch.untilMs).toBeGreaterThanOrEqual(before + 7_200_000);
    expect(receipt.switch.untilMs).toBeLessThan(Date.now() + 7_200_000 + 1);
  });

  it("that is refused by the gate says why", async () => {
    const bad = await oscar("kill", "agent", "no bot", "--reason", "r");
    expect(bad).toMatchObject({ code: 2, out: "", err: expect.stringContaining("target.agent: a name") });
    const misspelt = await oscar("kill", "upstream", "githbu", "--reason", "r");
    expect(misspelt).toMatchObject({ code: 2, out: "", err: expect.stringContaining('no upstream "githbu"') });
  });

  it("is asked for again with one key where the gate did not answer, so that it is one switch", async () => {
    const keys: unknown[] = [];
    const flaky = createServer((request, response) => {
      keys.push(request.headers["idempotency-key"]);
      if (keys.length === 1) return void request.socket.destroy();
      if (keys.length === 2) return void response.writeHead(503).end();
      const headers = { authorization: request.headers.authorization!, "idempotency-key": String(keys[0]) };
      void (async () => {
        const body = await readAll(request);
        const answer = await fetch(`${h.origin}${request.url}`, { method: "POST", headers, body });
        response.writeHead(answer.status).end(await answer.text());
      })();
    });
    const gate = `http://127.0.0.1:${await listenOnLoopback(flaky, 0)}`;
    const killed = await runHere(["kill", "task", "flaky", "--reason", "r", "--gate", gate], asOscar());
    await closeServer(flaky);
    expect(killed).toMatchObject({ code: 0, out: expect.stringContaining("Killed: task flaky") });
    expect([keys.length, new Set(keys).size, keys[0]]).toEqual([3, 1, expect.stringMatching(/^[0-9a-f-]{36}$/)]);
  });

  it("whose stream breaks off is asked for again, under the same key", async () => {
    const keys: unknown[] = [];
    const breaking = createServer((request, response) => {
      keys.push([request.headers["idempotency-key"], request.headers.accept]);
      const headers = {
        authorization: request.headers.authorization!,
        "idempotency-key": String(request.headers["idempotency-key"]),
      };
      void (async () => {
        const body = await readAll(request);
        const answer = await fetch(`${h.origin}${request.url}`, { method: "POST", headers, body });
        if (request.headers.accept !== "text/event-stream")
          return void response.writeHead(answer.status).end(await answer.text());
        response.writeHead(200, { "content-type": "text/event-stream" }).write("event: progress\ndata: {");
        setTimeout(() => request.socket.destroy(), 50);
      })();
    });
    const gate = `http://127.0.0.1:${await listenOnLoopback(breaking, 0)}`;
    const killed = await runHere(["kill", "task", "broken", "--reason", "r", "--wait", "--gate", gate], asOscar());
    await closeServer(breaking);
    expect(killed).toMatchObject({ code: 0, out: expect.stringContaining("Killed: task broken") });
    const [[first], [second]] = keys as [string[], string[]];
    expect([keys.length, second]).toEqual([2, first]);
    expect((await oscar("switches")).out.match(/kill {2}task broken/g)).toHaveLength(1);
  });

  it("that is not through yet ends with 1, and names who was not reached", async () => {
    const receipt = await json<Receipt>("kill", "task", "slow", "--reason", "r");
    const unreached = [{ instance: "lost", stoppedByMs: Date.now() + 60_000 }];
    const slow = createServer((_request, response) =>
      response
        .writeHead(202, { "content-type": "application/json" })
        .end(JSON.stringify({ ...receipt, status: "pending", missing: 1, unreached, jws: "a.b.c" })),
    );
    const gate = `http://127.0.0.1:${await listenOnLoopback(slow, 0)}`;
    const killed = await runHere(["kill", "task", "slow", "--reason", "r", "--gate", gate], asOscar());
    await closeServer(slow);
    expect(killed).toMatchObject({ code: 1, out: expect.stringContaining("not through yet (pending): task slow") });
    expect(killed.out).toMatch(/ {2}not reached: lost, admits nothing from \d{4}-.* on\n/);
  });
});

describe("what a receipt says", () => {
  it("of idle instances is no failure, and of no call that was cut nothing", async () => {
    const receipt = await json<Receipt>("kill", "task", "idle", "--reason", "r");
    const said = async (numbers: object) => {
      const idle = createServer((_request, response) => response.end(JSON.stringify({ ...receipt, ...numbers })));
      const gate = `http://127.0.0.1:${await listenOnLoopback(idle, 0)}`;
      const { code, out } = await runHere(["switch", receipt.switch.id, "--gate", gate], asOscar());
      await closeServer(idle);
      expect(code).toBe(0);
      return out.split("\n").slice(3, 5);
    };
    const [later, nothing] = ["2 idle instances learn of it before the next call", "  nothing to acknowledge"];
    expect(await said({ idle: 2 })).toEqual([`  nobody was at work; ${later}`, nothing]);
    expect(await said({ reached: 1, idle: 2 })).toEqual([
      `  reached 1 instance, cut 0 running calls; ${later}`,
      nothing,
    ]);
    expect(await said({ idle: 2, missing: 1 })).toEqual([
      `  reached 0 instances, cut 0 running calls; ${later}`,
      nothing,
    ]);
    expect((await said({ reached: 1, cut: 1 }))[1]).toContain("no byte of a cut call passed");
  });
});

describe("pause, resume, lift", () => {
  it("pause and resume one task, and what is not paused can't be resumed", async () => {
    const { key, access } = await h.provision({ form: { task: "pausing" } });
    const task = "build-platform_pausing";
    expect(await oscar("pause", "task", task, "--reason", "hm")).toMatchObject({
      code: 0,
      out: expect.stringContaining(`Paused: task ${task}`),
    });
    expect((await oscar("ps", "--state", "paused")).out).toContain(key.thumbprint);
    const live = await oscar("ps", "--state", "live", "--task", task);
    expect(live.out).toBe(`No such instance at ${h.origin}.\n`);
    expect((await h.call(key, access)).status).not.toBe(200);
    expect(await oscar("resume", "task", task, "--reason", "fine")).toEqual({
      code: 0,
      out: `Resumed: task ${task}, 1 pause opened.\n`,
      err: "",
    });
    const again = await oscar("resume", "task", task, "--reason", "fine");
    expect(again).toMatchObject({ code: 1, err: expect.stringContaining("no pause of exactly this reach") });
  });

  it("lift opens a kill for newcomers, once; of an upstream it takes two", async () => {
    const { switch: sw } = await json<Receipt>("kill", "task", "lifted", "--reason", "r");
    expect((await oscar("switch", sw.id)).out).toContain(
      `\n  closed: whoever is new in its reach is refused. To open it: npx portcullis lift ${sw.id} …\n`,
    );
    const lifted = await oscar("lift", sw.id, "--reason", "a mistake");
    expect(lifted).toEqual({ code: 0, out: "Lifted: kill of task lifted.\n", err: "" });
    const opened = (await oscar("switch", sw.id)).out;
    expect(opened).toMatch(/\n {2}opened \d{4}-.* by .*: a mistake\n$/);
    expect(opened).not.toContain("closed");
    const again = await oscar("lift", sw.id, "--reason", "a mistake");
    expect(again).toMatchObject({ code: 1, err: expect.stringContaining("open already") });
    const unknown = await oscar("lift", crypto.randomUUID(), "--reason", "r");
    expect(unknown).toMatchObject({ code: 1, err: expect.stringContaining("no such switch") });

    const killed = JSON.parse((await oscar("kill", "upstream", "model", "--reason", "r", "--json")).out);
    const first = await oscar("lift", killed.switch.id, "--reason", "r", "--json");
    expect([first.code, JSON.parse(first.out)]).toEqual([1, expect.objectContaining({ awaiting: expect.any(String) })]);
    expect((await oscar("switches")).out).toMatch(new RegExp(`${killed.switch.id} .* lift asked .* upstream model`));
  });
});

describe("words of a command line", () => {
  it.each([
    "-abc",
    "--Zq",
    "--a_b",
    "--9",
    `--${"a".repeat(41)}`,
    `-${"-".repeat(42)}`,
  ])("%s is an id or its beginning", (word) => {
    expect(parseArguments(["tail", word, "--as", word], { as: { type: "string" } })).toEqual({
      operands: ["tail", word],
      options: { as: word },
    });
  });

  it("an option may have a figure", () => {
    expect(
      parseArguments(["--s3", "--no-s3"], { s3: { type: "boolean" }, "no-s3": { type: "boolean" } }),
    ).toMatchObject({
      operands: [],
      options: { s3: true },
    });
  });

  it.each(["--asx", "--no-such", "--as-of=X1"])("%s is an option that there isn't", (word) => {
    expect(() => parseArguments([word], { as: { type: "string" } })).toThrow(word.split("=")[0]);
  });
});

describe("ps, switches, tail, pull", () => {
  interface Listed {
    readonly gate: string;
    readonly instances: readonly Readonly<Record<string, unknown>>[];
  }

  it("quota says what of a shared limit is spent and leased", async () => {
    const { out, code } = await oscar("quota", "posts-a-day", "somebody");
    expect([code, out.split("\n").slice(1)]).toEqual([0, [expect.stringMatching(/^calls\s+1000\s+0\s+0$/), ""]]);
    expect(out).toMatch(/^posts-a-day of somebody, from .* until .*; leased by 0 instances\n/);
    expect(await json("quota", "posts-a-day", "somebody")).toMatchObject({
      code: 0,
      quota: "posts-a-day",
      instances: 0,
    });
    const refusal = async (...of: string[]) => {
      const { code, err } = await oscar("quota", ...of);
      return [code, err];
    };
    expect(await refusal("nothing", "all")).toEqual([1, 'Refused: no quota "nothing" in the configuration\n']);
    const noKey = "Refused: no such key: the quota is per human, by id as in records\n";
    expect(await refusal("posts-a-day", "ada@acme.example")).toEqual([1, noKey]);
    expect(await refusal("posts-a-day", "somebody.triage-bot")).toEqual([1, noKey]);
  });

  it("ps lists by human, task, agent and state", async () => {
    const { key } = await h.provision({ form: { task: "listed" } });
    const listed = await json<Listed>("ps", "--task", "build-platform_listed");
    expect(listed.gate).toBe(h.origin);
    expect(listed.instances).toEqual([
      expect.objectContaining({ instance: key.thumbprint, agent: "triage-bot", agentVersion: "1.4.0", state: "live" }),
    ]);
    const human = listed.instances[0]!["human"] as string;
    for (const filter of [
      ["--human", human],
      ["--human", "Ada@acme.example"],
      ["--agent", "triage-bot@1.4.0"],
      ["--agent", "triage-bot"],
    ])
      expect((await oscar("ps", ...filter, "--task", "build-platform_listed")).out).toMatch(
        new RegExp(`^${key.thumbprint}  live  triage-bot 1.4.0  build-platform_listed  ${human}  github  until .*Z\n$`),
      );
    for (const filter of [
      ["--human", "grace@acme.example"],
      ["--agent", "triage-bot@1.4.1"],
    ])
      expect((await json<Listed>("ps", ...filter, "--task", "build-platform_listed")).instances).toEqual([]);
  });

  it("switches are newest first, as many as asked for", async () => {
    for (const task of ["s-1", "s-2"]) await oscar("pause", "task", task, "--reason", "r");
    const { switches } = await json<{ switches: { target: object }[] }>("switches", "--limit", "2");
    expect(switches.map(({ target }) => target)).toEqual([{ task: "s-2" }, { task: "s-1" }]);
    const once = await oscar("tail", "switches", "--once", "--json");
    const lines = once.out.trimEnd().split("\n");
    expect(JSON.parse(lines.at(-1)!)).toMatchObject({ target: { task: "s-2" } });
  });

  it("tail follows a transcript to its end; --json gives the exact lines", async () => {
    const { key, access } = await h.provision({ form: { task: "tailed", deadline: String(nowSeconds() + 6) } });
    const following = oscar("tail", key.thumbprint.slice(0, 20), "--interval", "0.2");
    await h.call(key, access);
    const { out, code, err } = await following;
    expect({ code, err }).toEqual({ code: 0, err: "" });
    const types = out
      .trimEnd()
      .split("\n")
      .map((line) => line.split(/ +/)[3]);
    expect(types).toEqual(["enrolled", "call", "answer", "ended"]);
    expect(out).toMatch(/Z {5}1 call {5}GET \/github\/repos\/acme\/widgets\/issues\n/);

    const { human, task } = JSON.parse((await oscar("ps", "--json")).out).instances[0];
    const raw = await oscar("tail", human, "build-platform_tailed", key.thumbprint, "--json");
    expect([raw.code, task]).toEqual([0, expect.any(String)]);
    const path = `/admin/v1/transcripts/${human}/build-platform_tailed/${key.thumbprint}`;
    expect(raw.out).toBe((await h.asAdmin(path)).text);
    const nobody = await oscar("tail", human, "no-task", key.thumbprint);
    expect(nobody).toMatchObject({ code: 1, err: expect.stringContaining("no transcript with these ids") });
  });

  it("pull by the admin API brings sealed segments that verify", async () => {
    const { key } = await h.provision({ form: { task: "pulled" } });
    await expect
      .poll(async () => (await oscar("tail", key.thumbprint, "--once", "--json")).out, { timeout: 10_000 })
      .toContain('"type":"seal"');
    const [folder, receipt] = [join(config, "copy"), join(config, "receipt.jws")];
    expect((await oscar("kill", "instance", key.thumbprint, "--reason", "r", "--save", receipt)).code).toBe(0);
    await expect
      .poll(async () => (await oscar("tail", key.thumbprint, "--once", "--json")).out, { timeout: 10_000 })
      .toMatch(/"type":"switched"[\s\S]*"type":"seal"/);
    const { code, gate, objects } = await json<{ gate: string; objects: number }>("pull", folder);
    expect([code, gate, objects]).toEqual([0, h.origin, expect.any(Number)]);
    const verified = await run(["verify", folder, "--no-bodies", "--issuer", h.origin, "--receipt", receipt]);
    expect(verified.out).toContain("ok   receipt ");
    expect(verified.out).toContain("held to 1 transcript;");
    expect(verified.out).toMatch(
      new RegExp(`^ok   human=.*/task=build-platform_pulled/instance=${key.thumbprint}`, "m"),
    );
    expect(verified).toMatchObject({ code: 0, err: "" });
    await expectForOwnerAlone(folder);
    // Pulled again, whatever mode it had.
    await chmod(join(folder, "seal-keys.json"), 0o644);
    expect((await oscar("pull", folder)).code).toBe(0);
    await expectForOwnerAlone(folder);
  });

  it.each([
    "{",
    "[]",
    '{"objects":[{"key":"a"}],"folders":[],"next":null}',
  ])("pull says where an answer is broken: %s", async (broken) => {
    const gate = createServer((_request, response) => response.end(broken));
    const origin = `http://127.0.0.1:${await listenOnLoopback(gate, 0)}`;
    const { code, out, err } = await runHere(["pull", join(config, "copy"), "--gate", origin], asOscar());
    await closeServer(gate);
    expect([code, out]).toEqual([4, ""]);
    expect(err).toBe(`${origin} answered, but not as a gate of this version does\n`);
  });
});

async function expectForOwnerAlone(folder: string): Promise<void> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  expect(entries.some((entry) => entry.name === "seal-keys.json" && entry.isFile())).toBe(true);
  const paths = [folder, ...entries.map(({ parentPath, name }) => join(parentPath, name))];
  for (const path of paths) {
    const { mode } = await stat(path);
    expect([path, (mode & 0o777).toString(8)]).toEqual([path, mode & 0o40000 ? "700" : "600"]);
  }
}

describe("who asks", () => {
  const gate = () => ["--gate", h.origin];

  it("by device flow: confirmed in a browser, kept for its owner alone, forgotten at logout", async () => {
    const login = [...["login", ...gate(), "--issuer", h.idp.issuer, "--client-id", "portcullis-admin"]];
    let page: Promise<string> | undefined;
    const signedIn = await run([...login, "--json"], {}, (line) => {
      page ??= confirmDevice(JSON.parse(line).verificationUriComplete, "oscar");
    });
    expect(await page).toContain("Go back to your terminal");
    expect(signedIn).toMatchObject({ code: 0, err: "" });
    const [where, done] = signedIn.out
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(where).toEqual({
      verificationUri: `${h.idp.issuer}/device`,
      verificationUriComplete: expect.stringContaining(where.userCode),
      userCode: expect.any(String),
    });
    expect(done).toEqual({ gate: h.origin, issuer: h.idp.issuer, expiresAtMs: expect.any(Number) });

    const file = join(config, "portcullis", "logins.json");
    expect([(await stat(file)).mode & 0o777, (await stat(join(config, "portcullis"))).mode & 0o777]).toEqual([
      0o600, 0o700,
    ]);
    const { token } = JSON.parse(await readFile(file, "utf8")).gates[h.origin];
    expect(signedIn.out).not.toContain(token);
    expect(await run(["ps"])).toMatchObject({ code: 0, err: "" });
    // What was got for one gate is for no other.
    const elsewhere = await run(["ps", "--gate", "https://other.example"]);
    expect(elsewhere).toMatchObject({
      code: 3,
      err: expect.stringContaining("Not signed in at https://other.example"),
    });

    expect(await run(["logout"])).toMatchObject({ code: 0, out: expect.stringContaining(`Signed out at ${h.origin}`) });
    expect(await readFile(file, "utf8")).not.toContain(token);
    expect(await run(["ps"])).toMatchObject({ code: 3, err: expect.stringContaining("Not signed in at") });
    expect(await run(["logout"])).toMatchObject({ code: 1 });

    // Where to sign in is still known.
    let again: Promise<string> | undefined;
    const second = await run(["login"], {}, (line) => {
      const [, address] = /^Open (\S+)/.exec(line) ?? [];
      if (address !== undefined) again = confirmDevice(address, "ada");
    });
    await again;
    expect(second).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^Open .*\nand confirm the code .*\nSigned in at/),
    });
    // Ada is nobody's admin.
    expect(await run(["ps"])).toMatchObject({
      code: 3,
      err: expect.stringContaining("Not allowed: this needs the role"),
    });
  });

  it("not, where the person says no, or the client may not", async () => {
    const login = ["login", ...gate(), "--issuer", h.idp.issuer, "--client-id"];
    let page: Promise<string> | undefined;
    const refused = await run([...login, "portcullis-admin", "--json"], {}, (line) => {
      page ??= confirmDevice(JSON.parse(line).verificationUriComplete, "oscar", true);
    });
    await page;
    expect(refused).toMatchObject({ code: 3, err: expect.stringContaining("access_denied") });
    const other = await run([...login, "other-app"]);
    expect(other).toMatchObject({ code: 3, out: "", err: expect.stringContaining("does not sign in: ") });
    const nowhere = await run(["login", ...gate(), "--issuer", NOWHERE, "--client-id", "x"]);
    expect(nowhere).toMatchObject({ code: 4, err: expect.stringContaining(`No sign-in at ${NOWHERE}`) });
    // It is no identity provider.
    const gateItself = await run(["login", ...gate(), "--issuer", h.origin, "--client-id", "x"]);
    expect(gateItself).toMatchObject({ code: 4, err: expect.stringContaining('"as.device_authorization_endpoint"') });
    expect(await run(["login", ...gate()])).toMatchObject({ code: 2, err: expect.stringContaining("--issuer <URL>") });
    const clear = await run(["login", ...gate(), "--issuer", "http://idp.example", "--client-id", "x"]);
    expect(clear).toMatchObject({ code: 2, err: expect.stringContaining("not an https URL") });
  });

  it("by a token from the environment, a file or an option; what was said outright goes first", async () => {
    const file = join(config, "token");
    await writeFile(file, `${tokenOf("oscar")}\n`);
    expect(await run(["ps", ...gate(), "--token-file", file])).toMatchObject({ code: 0 });
    const grace = { PORTCULLIS_TOKEN: tokenOf("grace") };
    expect(await run(["ps", ...gate()], grace)).toMatchObject({ code: 3 });
    expect(await run(["ps", ...gate(), "--token", tokenOf("oscar")], grace)).toMatchObject({ code: 0 });
  });

  it.each([
    ["expired", () => tokenOf("oscar", { exp: nowSeconds() - 10 }), "The token of PORTCULLIS_TOKEN has run out"],
    ["of another client", () => tokenOf("oscar", { aud: "other-app" }), "does not accept this token"],
    ["by nobody", () => "a.b.c", "does not accept this token"],
    ["without a role", () => tokenOf("ada"), "Not allowed: this needs the role viewer or operator or auditor"],
  ])("a token that is %s: 3, and a clear sentence without it", async (_name, token, said) => {
    const text = token();
    const { code, out, err } = await runHere(["ps", ...gate()], { PORTCULLIS_TOKEN: text });
    expect([code, out]).toEqual([3, ""]);
    expect(err).toContain(said);
    expect(err).not.toContain(text);
  });

  it("not by a file of sign-ins that is none", async () => {
    await mkdir(join(config, "portcullis"));
    await writeFile(join(config, "portcullis", "logins.json"), "{");
    expect(await run(["ps", ...gate()])).toMatchObject({
      code: 3,
      err: expect.stringContaining("no file of sign-ins"),
    });
  });

  it("at the stack of npm start, as who is on call there; its whole bucket is pulled", async () => {
    const stack = join(config, ".portcullis");
    const claimed = await claimFolder(stack);
    const bucket = (await h.gate.miniflare.getR2Bucket("TRANSCRIPTS", "portcullis")) as unknown as ServedBucket;
    const door = await startBucketDoor(bucket);
    await claimed.publish({
      gate: h.origin,
      issuer: h.idp.issuer,
      bucket: door.url,
      github: NOWHERE,
      slack: NOWHERE,
      model: NOWHERE,
    });
    for (const args of [[], ["--dir", stack], gate()]) expect(await run(["ps", ...args])).toMatchObject({ code: 0 });
    const pulled = await run(["pull", "copy"]);
    expect(pulled).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^\d+ objects of .*npx portcullis verify copy/),
    });
    await expectForOwnerAlone(join(config, "copy"));
    expect(await run(["verify", "copy"])).toMatchObject({ code: 0, out: expect.stringContaining("journal=admin") });
    let page: Promise<string> | undefined;
    const signedIn = await run(["login", "--json"], {}, (line) => {
      page ??= confirmDevice(JSON.parse(line).verificationUriComplete, "ada");
    });
    await page;
    expect(signedIn.code).toBe(0);
    expect((await run(["ps"])).code).toBe(3);
    // Which stack, and who there, was said outright: a sign-in that was kept for its address is not meant.
    expect((await run(["ps", "--dir", stack])).code).toBe(0);
    expect((await run(["ps", "--as", "oscar"])).code).toBe(0);
    expect(await run(["ps", "--dir", stack, "--as", "grace"])).toMatchObject({
      code: 3,
      err: expect.stringContaining("Not allowed: this needs the role"),
    });
    const killed = await run(["kill", "upstream", "slack", "--reason", "r", "--dir", stack]);
    const id = /switch (\S+) at/.exec(killed.out)![1]!;
    const lift = ["lift", id, "--reason", "r", "--dir", stack];
    for (const [as, code] of [
      ["oscar", 1],
      ["oscar", 1],
      ["olga", 0],
    ] as const)
      expect([as, (await run([...lift, "--as", as])).code]).toEqual([as, code]);
    expect(await run(["ps", "--as", "mallory"])).toMatchObject({
      code: 2,
      err: expect.stringContaining("--as mallory"),
    });
    const planted = { gate: "https://other.example", issuer: h.idp.issuer, bucket: door.url };
    await claimed.publish({ ...planted, github: NOWHERE, slack: NOWHERE, model: NOWHERE });
    const led = await run(["ps"], { PORTCULLIS_TOKEN: tokenOf("oscar") });
    expect(led).toMatchObject({ code: 2, err: expect.stringContaining("https://other.example: not on this machine") });
    const misled = { ...planted, gate: h.origin, issuer: "https://other.example" };
    await claimed.publish({ ...misled, github: NOWHERE, slack: NOWHERE, model: NOWHERE });
    expect(await run(["login"])).toMatchObject({
      code: 2,
      err: expect.stringContaining("https://other.example: not on this machine"),
    });
    await door.close();
    claimed.release();
  });

  it("a credential goes to a gate that was named, and to none that a folder or an earlier sign-in names", async () => {
    const heard: (string | undefined)[] = [];
    const listener = createServer((request, response) => {
      heard.push(request.headers.authorization);
      response.writeHead(404).end();
    });
    const origin = `http://127.0.0.1:${await listenOnLoopback(listener, 0)}`;
    const [file, folder] = [join(config, "token"), join(config, ".portcullis")];
    await writeFile(file, tokenOf("oscar"));
    const addresses = { gate: origin, issuer: origin, bucket: origin, github: origin, slack: origin, model: origin };
    const key = { PORTCULLIS_BREAK_GLASS: h.secrets.breakGlassKey };
    const token = { PORTCULLIS_TOKEN: tokenOf("oscar") };
    const credentials: [args: string[], env: Env, from: string][] = [
      [[], key, "PORTCULLIS_BREAK_GLASS"],
      [[], token, "PORTCULLIS_TOKEN"],
      [["--token", tokenOf("oscar")], {}, "--token"],
      [["--token-file", file], {}, file],
    ];
    const kill = ["kill", "task", "t", "--reason", "r"];
    const expectKept = async (command: readonly string[]) => {
      for (const [args, env, from] of credentials)
        expect(await run([...command, ...args], env)).toMatchObject({
          code: 2,
          out: "",
          err: expect.stringContaining(`${from} is sent to no gate that was merely found (${origin})`),
        });
    };
    await mkdir(folder);
    // As a checkout may bring it: a process that always lives.
    await writeFile(join(folder, "run.json"), JSON.stringify({ pid: 1, addresses }));
    for (const command of [kill, ["ps"], ["pull", "copy"]]) await expectKept(command);
    expect(heard).toEqual([]);
    for (const named of [
      ["--gate", origin],
      ["--dir", folder],
    ])
      for (const [args, env] of credentials) expect((await run([...kill, ...args, ...named], env)).code).toBe(1);
    expect((await run(kill, { ...key, PORTCULLIS_GATE: origin })).code).toBe(1);
    expect(heard.map((sent) => sent?.slice(0, 11))).toEqual([
      ...["Bearer pbg_", "Bearer eyJh", "Bearer eyJh", "Bearer eyJh"],
      ...["Bearer pbg_", "Bearer eyJh", "Bearer eyJh", "Bearer eyJh"],
      "Bearer pbg_",
    ]);
    await rm(folder, { recursive: true });
    await mkdir(join(config, "portcullis"));
    const logins = { version: 1, current: origin, gates: { [origin]: { issuer: origin, clientId: "x", token: null } } };
    await writeFile(join(config, "portcullis", "logins.json"), JSON.stringify(logins));
    await expectKept(["ps"]);
    await closeServer(listener);
  });
});

describe("the launcher", () => {
  // It would install anew, under the feet of all tests.
  beforeAll(async () => {
    const [lock, stamp] = await Promise.all(
      ["package-lock.json", "node_modules/.portcullis-lock"].map((name) => readFile(join(root, name), "utf8")),
    );
    const digest = createHash("sha256").update(lock!).digest("hex");
    expect(stamp, "node_modules is not of this package-lock.json: run node scripts/setup.mjs").toBe(digest);
  });

  it("hands on words, output and exit code", async () => {
    const { code, out } = await run(["ps", "--json"], asOscar(), undefined, launcher);
    expect([code, Array.isArray(JSON.parse(out).instances)]).toEqual([0, true]);
    expect((await run(["ps"], { PORTCULLIS_GATE: h.origin }, undefined, launcher)).code).toBe(3);
  });

  it.each([
    ["SIGTERM", 143],
    ["SIGQUIT", 131],
    ["SIGUSR2", 140],
  ] as const)("hands on %s, and ends as a shell would say", async (signal, code) => {
    const child = spawn(process.execPath, [launcher, "tail", "switches", "--json"], {
      env: { PATH, NODE_COMPILE_CACHE, XDG_CONFIG_HOME: config, ...asOscar() },
      stdio: ["ignore", "pipe", "inherit"],
    });
    const ended = new Promise((resolve) => child.on("close", resolve));
    await new Promise((resolve) => child.stdout.once("data", resolve));
    child.kill(signal);
    expect(await ended).toBe(code);
  });
});

describe("a break-glass key", () => {
  const withKey = (key = h.secrets.breakGlassKey): Env => ({ PORTCULLIS_GATE: h.origin, PORTCULLIS_BREAK_GLASS: key });

  it("that is not known, or none", async () => {
    const wrong = `pbg_${randomBytes(32).toString("base64url")}`;
    const unknown = await runHere(["kill", "task", "x", "--reason", "r"], withKey(wrong));
    expect(unknown).toMatchObject({
      code: 3,
      out: "",
      err: expect.stringContaining("does not know this break-glass key"),
    });
    const none = await runHere(["kill", "task", "x", "--reason", "r"], withKey("pbg_short"));
    expect(none).toMatchObject({ code: 2, err: expect.stringContaining("not a break-glass key") });
    expect(unknown.err + none.err).not.toMatch(new RegExp(`${wrong}|pbg_short`));
  });

  it("kills while nobody can sign in, and does nothing else", async () => {
    const { key, access } = await h.provision({ form: { task: "glass" } });
    const id = key.thumbprint;
    await h.idp.close();
    const signIn = await runHere([
      "login",
      "--gate",
      h.origin,
      "--issuer",
      h.idp.issuer,
      "--client-id",
      "portcullis-admin",
    ]);
    expect(signIn).toMatchObject({ code: 4 });

    const begun = await runHere(["kill", "instance", id.slice(0, 10), "--reason", "r"], withKey());
    expect(begun).toMatchObject({ code: 2, err: expect.stringContaining("give the whole id") });
    const killed = await runHere(["kill", "instance", id, "--reason", "r", "--wait"], withKey());
    expect(killed).toMatchObject({ code: 0, out: expect.stringContaining("by break-glass:oncall: r") });
    expect((await h.call(key, access)).status).toBe(401);

    const sw = /switch (\S+) at/.exec(killed.out)![1]!;
    for (const args of [
      ["lift", sw, "--reason", "r"],
      ["pause", "task", "x", "--reason", "r"],
      ["resume", "task", "x", "--reason", "r"],
      ["ps"],
      ["switches"],
      ["switch", sw],
      ["tail", "switches"],
      ["tail", "h", "t", id],
      ["pull", "copy"],
    ]) {
      const { code, out, err } = await runHere(args, withKey());
      expect([args, code, out]).toEqual([args, 3, ""]);
      expect(err).toContain("Not allowed: a break-glass key kills, and does nothing else: this needs the role");
    }
  });
});
