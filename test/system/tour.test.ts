// `npm start` as a person runs it: a process of its own, on a folder of its own, ended by Ctrl-C.

import { execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { listenOnLoopback } from "../../scripts/local/ports.ts";
import { claimFolder, findRunning } from "../../scripts/local/run-file.ts";
import { Narrator } from "../../scripts/tour/narrator.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const tourMs = 240_000;
let dir: string;
const runs: Run[] = [];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "portcullis-tour-"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

// A test that failed must not leave the folder taken for the next.
afterEach(async () => {
  for (const run of runs) run.interrupt("SIGTERM");
  await Promise.all(runs.map(({ exit }) => exit));
});

interface Run {
  readonly pid: number;
  output(): string;
  /** Resolves when the output holds it. */
  said(text: string): Promise<void>;
  interrupt(signal?: NodeJS.Signals): void;
  readonly exit: Promise<number | null>;
}

function start(...args: string[]): Run {
  const child = spawn(process.execPath, ["scripts/start.ts", "--dir", dir, ...args], {
    cwd: root,
    env: { ...process.env, NO_COLOR: "1", FORCE_COLOR: undefined },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  const heard = new Set<() => void>();
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (chunk: string) => {
      output += chunk;
      for (const listener of heard) listener();
    });
  }
  const exit = once(child, "close").then(([code]) => code as number | null);
  const run: Run = {
    pid: child.pid!,
    output: () => output,
    said: (text) =>
      new Promise((resolve, reject) => {
        const listener = () => {
          if (!output.includes(text)) return;
          heard.delete(listener);
          resolve();
        };
        heard.add(listener);
        exit.then(() => reject(new Error(`it ended without "${text}":\n${output}`)));
        listener();
      }),
    interrupt: (signal = "SIGINT") => void child.kill(signal),
    exit,
  };
  runs.push(run);
  return run;
}

/** Processes that live (a zombie waits only for its parent to look), with what they run. */
function processes(): { pid: number; parent: number; command: string }[] {
  const table = execFileSync("ps", ["-A", "-o", "pid=,ppid=,stat=,args="], { encoding: "utf8" });
  return table.split("\n").flatMap((line) => {
    const [, pid, parent, state, command] = /^\s*(\d+)\s+(\d+)\s+(\S+)\s+(.*)$/.exec(line) ?? [];
    if (pid === undefined || state?.startsWith("Z") !== false) return [];
    return [{ pid: Number(pid), parent: Number(parent), command: command ?? "" }];
  });
}

const childrenOf = (run: Run) => processes().filter(({ parent }) => parent === run.pid);
const alive = (pids: readonly number[]) => processes().filter(({ pid }) => pids.includes(pid));

async function expectNothingLeft(run: Run, children: readonly number[]): Promise<void> {
  expect(children).not.toEqual([]);
  await expect.poll(() => alive([run.pid, ...children]), { timeout: 10_000 }).toEqual([]);
}

describe("npm start", () => {
  it(
    "tells the tour, stays up, and prints commands that work as they stand; Ctrl-C leaves nothing behind",
    async () => {
      const run = start();
      await run.said("npx portcullis pull ");
      const output = run.output();
      expect(output.match(/^\d\. .*/gm)).toEqual([
        "1. A platform sets three agents to work for Ada",
        "2. An agent works, with the clients it knows",
        "3. The gate says no, and says little",
        "4. One of three is killed in the middle of its stream",
        "5. A person is asked, and Ada loses her group",
        "6. The whole story is in the bucket, and can't be retold",
      ]);
      expect(output).not.toContain("✗");
      for (const claim of [
        /✓ repository payroll.* "authorization_details\[1\]: 'GET [^']+' exceeds the human's entitlement"/,
        /✓ it reads docs\/guide\.md/,
        /✓ it pages through 75 issues on three pages/,
        /✓ all \d+ requests that arrived carry the organisation's credential/,
        /✓ nothing at all: 401/,
        /✓ a copied token, used with another key: 401/,
        /✓ a replayed proof: 401/,
        /✓ the expired grant of .*: 401/,
        /✓ .* one and the same neutral 404/,
        /✓ a burst of \d+ calls: .* 429 with Retry-After/,
        /✓ its stream broke off after \d+ of \d+ characters, \d+ ms after/,
        /✓ the other two run on to their last word/,
        /✓ the triager closes issue 1: 503, approval-pending/,
        /✓ Oscar approves.* passes, once/,
        /✓ its stream broke off .* Ada lost her group/,
        /✓ every hash and every seal holds/,
        /✓ one changed byte.* line \d+ \(seq \d+\)/,
        /✓ one missing record.* line \d+ \(seq \d+\)/,
        /✓ two swapped records.* line \d+ \(seq \d+\)/,
        /✓ a cut tail: the last record/,
        /✓ a cut tail: the last segment/,
      ])
        expect(output).toMatch(claim);
      const { grantKeys, githubToken, slackToken, modelKey } = JSON.parse(
        await readFile(join(dir, "secrets.json"), "utf8"),
      );
      const breakGlassKey = (await readFile(join(dir, "break-glass.key"), "utf8")).trim();
      for (const secret of [grantKeys.keys[0].d, githubToken, slackToken, modelKey, breakGlassKey])
        expect(output).not.toContain(secret);
      expect((await stat(join(dir, "run.json"))).mode & 0o777).toBe(0o600);

      await expectCommandsToWork(output);
      const second = start("--tour");
      expect([await second.exit, second.output()]).toEqual([
        1,
        expect.stringContaining("already runs from this folder"),
      ]);

      const children = childrenOf(run);
      expect(children.map(({ command }) => command).join("\n")).toContain("workerd");
      run.interrupt();
      expect(await run.exit).toBe(0);
      await expectNothingLeft(
        run,
        children.map(({ pid }) => pid),
      );
      expect(await readdir(dir)).not.toContain("run.json");
    },
    tourMs,
  );

  async function expectCommandsToWork(output: string): Promise<void> {
    const commands = output.match(/^ {2}npx portcullis .*/gm) ?? [];
    expect(commands).toHaveLength(3);
    const copy = join(dir, "transcripts-copy");
    const [list, kill, pull] = commands.map((command) => command.replace("transcripts-copy", copy)) as [
      string,
      string,
      string,
    ];
    const shell = async (command: string) => (await promisify(execFile)("sh", ["-c", command], { cwd: root })).stdout;
    const target = / kill instance ([A-Za-z0-9_-]{43})/.exec(kill)?.[1];
    expect(await shell(list)).toMatch(new RegExp(`^${target} {2}live`, "m"));
    const issue = `fetch(process.env.PORTCULLIS_URL + "/github/repos/acme/widgets/issues/2").then(({ status }) => console.log(status))`;
    expect((await stat(join(dir, "ada.json"))).mode & 0o777).toBe(0o600);
    expect(
      await shell(
        `npx portcullis agent --quiet --provision "${join(dir, "ada.json")}" -- "${process.execPath}" -e '${issue}'`,
      ),
    ).toBe("200\n");
    expect(await shell(kill)).toContain(`Killed: instance ${target}`);
    expect(await shell(list)).toMatch(new RegExp(`^${target} {2}killed`, "m"));
    expect(await shell(pull)).toMatch(/^\d+ objects of /);
    const verified = await promisify(execFile)(process.execPath, ["scripts/cli/main.ts", "verify", copy], {
      cwd: root,
    });
    expect(verified.stdout).toMatch(/^verified: \d+ transcripts$/m);
  }

  it(
    "comes up again on the same folder, on another port where its own is taken, and --tour ends with 0",
    async () => {
      const before = await countTranscripts();
      const squatter = createServer();
      const port = await listenOnLoopback(squatter, 0);
      try {
        const run = start("--tour", "--port", String(port));
        expect([await run.exit, run.output()]).toEqual([0, expect.stringMatching(/All \d+ checks held/)]);
        expect(run.output()).toMatch(new RegExp(`^Port ${port} is taken: the gate listens on \\d+ instead\\.$`, "m"));
      } finally {
        squatter.close();
      }
      // Four of this tour, and the one that was sent by hand after the first had copied the bucket.
      expect(await countTranscripts()).toBe(before + 5);
    },
    tourMs,
  );

  it(
    "leaves nothing behind when it is stopped in the middle of the tour, or of coming up",
    async () => {
      for (const [moment, signal] of [
        ["4. One of three", "SIGINT"],
        ["Up in", "SIGTERM"],
      ] as const) {
        const run = start("--tour");
        await run.said(moment);
        const children = childrenOf(run).map(({ pid }) => pid);
        run.interrupt(signal);
        expect(await run.exit).toBe(130);
        await expectNothingLeft(run, children);
        expect(await readdir(dir)).not.toContain("run.json");
      }
    },
    tourMs,
  );

  it(
    "ends the tour with 1 and the place when a stored transcript is not what was written",
    async () => {
      await spoilOneSegment();
      const run = start("--tour");
      expect(await run.exit).toBe(1);
      expect(run.output()).toMatch(/✗ every hash and every seal holds/);
      expect(run.output()).toMatch(/seen: .*"place":"(transcripts|bodies)\/[^"]+\.jsonl\.gz/);
      expect(run.output()).toContain("The tour failed");
    },
    tourMs,
  );

  const countTranscripts = async () =>
    (await readdir(join(dir, "tour", "pulled", "transcripts"), { recursive: true })).filter((path) =>
      /instance=[^/]*$/.test(path),
    ).length;

  /** In the bucket itself, as it lies on disk: the tour of this folder that comes next must see it. */
  async function spoilOneSegment(): Promise<void> {
    const blobs = (await readdir(join(dir, "state"), { recursive: true })).filter((path) => path.includes("/blobs/"));
    for (const path of blobs) {
      const file = join(dir, "state", path);
      if (!(await stat(file)).isFile()) continue;
      const bytes = await readFile(file);
      const at = Math.floor(bytes.length / 2);
      bytes[at] = bytes[at]! ^ 1;
      await writeFile(file, bytes);
      return;
    }
    throw new Error("no object lies in the bucket");
  }
});

describe("the tour's narrator", () => {
  const narrate = async (tell: (tour: Narrator) => Promise<void> | void) => {
    const lines: string[] = [];
    const tour = new Narrator((line) => void lines.push(line));
    await tell(tour);
    return { exitCode: tour.exitCode, text: lines.join("\n") };
  };

  it("ends with 1 when nothing was checked", async () => {
    expect((await narrate(() => {})).exitCode).toBe(1);
  });

  it("ends with 0 when all is as expected", async () => {
    const { exitCode, text } = await narrate((tour) => void tour.check("it holds", { a: [1] }, { a: [1] }));
    expect([exitCode, text]).toEqual([0, expect.stringContaining("✓")]);
  });

  it("ends with 1 after one failed check among good ones, and says what was expected and what was seen", async () => {
    const { exitCode, text } = await narrate((tour) => {
      tour.check("good", 1, 1);
      tour.check("bad", { status: 200 }, { status: 401 });
      tour.check("good", 1, 1);
    });
    expect(exitCode).toBe(1);
    expect(text).toMatch(/✗.* bad\n +expected: \{"status":401\}\n +seen: +\{"status":200\}/);
  });

  it("counts a step that breaks off as failed", async () => {
    const { exitCode, text } = await narrate(async (tour) => {
      tour.check("good", 1, 1);
      await expect(tour.step("a step", () => Promise.reject(new Error("the gate is gone")))).rejects.toThrow();
    });
    expect([exitCode, text]).toEqual([1, expect.stringContaining("the gate is gone")]);
  });
});

describe("the folder of a run", () => {
  it("belongs to one living process; what a dead one left is taken over", async () => {
    const folder = await mkdtemp(join(dir, "claim-"));
    const holder = spawn("sleep", ["60"]);
    await writeFile(join(folder, "run.json"), JSON.stringify({ pid: holder.pid }));
    await expect(claimFolder(folder)).rejects.toThrow(`as process ${holder.pid}`);
    await expect(findRunning(folder)).rejects.toThrow("Nothing runs");
    holder.kill("SIGKILL");
    await once(holder, "exit");
    const claimed = await claimFolder(folder);
    claimed.release();
    expect(await readdir(folder)).toEqual([]);
  });
});
