// `npm run deploy` with a wrangler that only keeps what it is told. What it prints has the form of wrangler 4.155.0's own lists
// (`tableFromBucketLockRulesResponse`, `tableFromLifecycleRulesResponse`, `formatLabelledValues`). No account was ever asked.

import { spawn } from "node:child_process";
import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { checkRetention, type Found, planBucket, type Wanted } from "../../scripts/deploy/plan.ts";
import { isAbsentBucket, isAbsentWorker, parseLifecycle, parseLocks } from "../../scripts/deploy/wrangler.ts";

const script = fileURLToPath(new URL("../../scripts/deploy.ts", import.meta.url));
const BANNER = "\n ⛅️ wrangler 4.155.0\n────────────────────\n";

const FAKE = `#!${process.execPath}
const { readFileSync, writeFileSync, appendFileSync } = require("node:fs");
const dir = __dirname;
const state = JSON.parse(readFileSync(dir + "/state.json", "utf8"));
const args = process.argv.slice(2);
appendFileSync(dir + "/asked", JSON.stringify(args) + "\\n");
const save = () => writeFileSync(dir + "/state.json", JSON.stringify(state));
const say = (text) => console.log(text);
const fail = (text) => { console.error("\\u2718 [ERROR] " + text); process.exit(1); };
const [a, b, c, d, bucket, name, prefix] = args;
const option = (flag) => args[args.indexOf(flag) + 1];
if (state.signedOut) fail("In a non-interactive environment, it's necessary to set a CLOUDFLARE_API_TOKEN environment variable for wrangler to work.");
if (a === "secret") {
  if (state.secrets === null) fail('Worker "portcullis" not found.\\n\\nIf this is a new Worker, run \`wrangler deploy\` first to create it.');
  say(JSON.stringify(state.secrets.map((name) => ({ name, type: "secret_text" })), null, "  "));
} else if (a === "deploy") { if (state.failing) fail("no"); say("Deployed"); }
else {
  say(${JSON.stringify(BANNER)});
  if (c === "create") { state.bucket = true; save(); say("Created"); }
  else if (!state.bucket) fail("A request to the Cloudflare API (/accounts/x/r2/buckets/" + bucket + "/lock) failed.\\n\\n  The specified bucket does not exist. [code: 10006]");
  else if (d === "add") {
    const rule = c === "lock"
      ? { name, enabled: "Yes", prefix, condition: "after " + option("--retention-days") + " days" }
      : { name, enabled: "Yes", prefix, action: "Expire objects after " + option("--expire-days") + " days" };
    state[c].push(rule); save(); say("Added " + c + " rule");
  } else {
    say("Listing " + c + " rules for bucket '" + bucket + "'...");
    const rows = state[c].map((rule) => Object.entries(rule).map(([k, v]) => (k + ":").padEnd(12) + v).join("\\n"));
    say(rows.length === 0 ? "There are no " + c + " rules for bucket '" + bucket + "'." : rows.join("\\n\\n"));
  }
}
`;

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "portcullis-deploy-"));
  await writeFile(join(dir, "wrangler"), FAKE);
  await chmod(join(dir, "wrangler"), 0o755);
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const SECRETS = ["GRANT_KEYS", "SEAL_KEYS", "GITHUB_TOKEN"];
const setState = (state: object) =>
  writeFile(join(dir, "state.json"), JSON.stringify({ lock: [], lifecycle: [], ...state }));
beforeEach(() => writeFile(join(dir, "asked"), ""));
const asked = async () =>
  (await readFile(join(dir, "asked"), "utf8"))
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as string[]);
/** What would change something. */
const acts = async () =>
  (await asked())
    .filter(([a, , c, d]) => a === "deploy" || c === "create" || d === "add")
    .map((args) => args.join(" "));

function run(...args: string[]): Promise<{ code: number | null; out: string; err: string }> {
  const child = spawn(process.execPath, [script, ...args], {
    env: { PATH: dir, HOME: dir },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [out, err] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    out += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    err += text;
  });
  return new Promise((resolve) => child.on("close", (code) => resolve({ code, out, err })));
}

const CREATE = "r2 bucket create portcullis-transcripts --update-config=false";
const lockOf = (name: string, days = 183) =>
  `r2 bucket lock add portcullis-transcripts portcullis-${name}-${days}d ${name}/ --retention-days ${days}`;

describe("npm run deploy", () => {
  it("makes what is missing, bucket and locks before the Worker, and the second time only the Worker", async () => {
    await setState({ bucket: false, secrets: SECRETS });
    const first = await run("--bodies-days", "365");
    expect([first.code, first.err]).toEqual([0, ""]);
    const bodies = "r2 bucket lifecycle add portcullis-transcripts portcullis-bodies-365d bodies/ --expire-days 365";
    expect(await acts()).toEqual([CREATE, lockOf("transcripts"), lockOf("erasures"), bodies, "deploy"]);
    await writeFile(join(dir, "asked"), "");
    expect((await run("--bodies-days", "365")).code).toBe(0);
    expect(await acts()).toEqual(["deploy"]);
  });

  it("without a sign-in says that it takes one, for --dry-run as well", async () => {
    await setState({ signedOut: true });
    const { code, out, err } = await run("--dry-run");
    expect([code, out]).toEqual([1, ""]);
    expect(err).toMatch(/^wrangler is not signed in, .*npm exec -- wrangler login, or CLOUDFLARE_API_TOKEN\n$/);
  });

  it("--dry-run prints the plan as commands, changes nothing, and says what secret is missing", async () => {
    await setState({ bucket: false, secrets: null });
    const { code, out, err } = await run("--dry-run");
    expect(code).toBe(1);
    const commands = [CREATE, lockOf("transcripts"), lockOf("erasures"), "deploy"];
    expect(out).toBe(commands.map((command) => `npm exec -- wrangler ${command}\n`).join(""));
    expect(err).toContain("missing: secret SEAL_KEYS: npm exec -- wrangler secret put SEAL_KEYS\n");
    expect(await acts()).toEqual([]);
  });

  it("refuses to begin without a secret that the configuration names, and a lock of less than six months without its flag", async () => {
    await setState({ bucket: true, secrets: ["GRANT_KEYS", "GITHUB_TOKEN"] });
    const missing = await run();
    expect([missing.code, missing.err]).toEqual([
      1,
      "secrets that the configuration names are not set:\n  npm exec -- wrangler secret put SEAL_KEYS\n",
    ]);
    const short = await run("--lock-days", "182");
    expect(short.code).toBe(1);
    expect(short.err).toMatch(/182 is less than six months .* say --keep-records-less-than-six-months\n$/);
    expect(await acts()).toEqual([]);
  });

  it("stops where wrangler fails", async () => {
    await setState({ bucket: true, secrets: SECRETS, failing: true });
    const { code, err } = await run("--lock-days", "30", "--keep-records-less-than-six-months");
    expect([code, err]).toEqual([1, expect.stringContaining("npm exec -- wrangler deploy ended with 1.")]);
    expect(await acts()).toEqual([lockOf("transcripts", 30), lockOf("erasures", 30), "deploy"]);
  });
});

describe("the plan", () => {
  const wanted: Wanted = {
    bucket: { name: "b", jurisdiction: "eu" },
    retention: { lockDays: 183, bodiesDays: null },
    location: "weur",
  };
  const lock = (prefix: string, days: number, isEnabled = true, name = "own") => ({ name, isEnabled, prefix, days });
  const commandsFor = (found: Found, change: Partial<Wanted> = {}): string[] => {
    const plan = planBucket({ ...wanted, ...change }, found);
    if (!plan.ok) throw new Error(plan.error);
    return plan.value.commands.map((args) => args.slice(2).join(" "));
  };
  const warningsFor = (found: Found) => {
    const plan = planBucket(wanted, found);
    return plan.ok ? plan.value.warnings : [plan.error];
  };
  const both = [
    "lock add b portcullis-transcripts-183d transcripts/ --retention-days 183 --jurisdiction eu",
    "lock add b portcullis-erasures-183d erasures/ --retention-days 183 --jurisdiction eu",
  ];

  it.each<[name: string, locks: ReturnType<typeof lock>[], missing: number]>([
    ["no lock", [], 2],
    ["locks that keep longer", [lock("transcripts/", 400), lock("erasures/", Number.POSITIVE_INFINITY)], 0],
    ["one of everything", [lock("", 183)], 0],
    ["of a beginning", [lock("transcripts", 183), lock("erasures/", 183)], 0],
    ["of a part only", [lock("transcripts/human=a", 400), lock("erasures/human=a", 400)], 2],
    ["that are disabled", [lock("", 400, false)], 2],
    ["that keep less", [lock("", 182)], 2],
    ["until a date", [lock("", 0)], 2],
  ])("%s", (_name, locks, missing) => {
    expect(commandsFor({ locks, lifecycle: [] })).toEqual(both.slice(0, missing));
  });

  it("makes the bucket in its jurisdiction, or by the hint where there is none", () => {
    expect(commandsFor(null)[0]).toBe("create b --jurisdiction eu --update-config=false");
    expect(commandsFor(null, { bucket: { name: "b", jurisdiction: undefined } })[0]).toBe(
      "create b --location weur --update-config=false",
    );
  });

  it("never takes another rule's name, and warns of what hinders an erasure or deletes too soon", () => {
    expect(
      planBucket(wanted, { locks: [lock("", 400, false, "portcullis-transcripts-183d")], lifecycle: [] }),
    ).toMatchObject({
      ok: false,
      error: expect.stringMatching(/^the lock rule portcullis-transcripts-183d is there, and does not keep/),
    });
    expect(warningsFor({ locks: [lock("", 400)], lifecycle: [{ ...lock("", 30), days: 30 }] })).toEqual([
      "the lock rule own keeps everything for 400 days: an erasure is refused there",
      "the lifecycle rule own deletes transcripts/ after 30 days, or when its lock is over",
      "the lifecycle rule own deletes erasures/ after 30 days, or when its lock is over",
      "the lifecycle rule own deletes bodies after 30 days; transcripts.retention.bodiesDays says never",
    ]);
  });

  it("lets bodies go when the configuration says so, and not sooner by another rule", () => {
    const locks = [lock("transcripts/", 183), lock("erasures/", 183)];
    const change = { retention: { lockDays: 183, bodiesDays: 90 } };
    const add = "lifecycle add b portcullis-bodies-90d bodies/ --expire-days 90 --jurisdiction eu";
    expect(commandsFor({ locks, lifecycle: [] }, change)).toEqual([add]);
    expect(commandsFor({ locks, lifecycle: [{ ...lock("bodies/", 90), days: null }] }, change)).toEqual([add]);
    expect(commandsFor({ locks, lifecycle: [lock("bodies/", 365)] }, change)).toEqual([add]);
    expect(commandsFor({ locks, lifecycle: [lock("bodies/", 90)] }, change)).toEqual([]);
  });

  it("of fewer than 183 days takes a flag that says so", () => {
    const short = { lockDays: 182, bodiesDays: null };
    expect(checkRetention(short, false)).toMatchObject({ ok: false });
    expect(checkRetention(short, true)).toMatchObject({ ok: true });
    expect(checkRetention({ ...short, lockDays: 183 }, false)).toMatchObject({ ok: true });
  });
});

describe("what wrangler prints", () => {
  const of = (text: string) => `${BANNER}\nListing lock rules for bucket 'b'...\n${text}\n`;
  it("is read back, rule by rule", () => {
    const text = of(
      "name:       a\nenabled:    Yes\nprefix:     transcripts/\ncondition:  after 183 days\n\nname:       b\nenabled:    No\nprefix:     (all prefixes)\ncondition:  indefinitely\n\nname:       c\nenabled:    Yes\nprefix:     x\ncondition:  on 2027-01-01\n\nname:       d\nenabled:    Yes\nprefix:     y\ncondition:  after 1 day",
    );
    expect(parseLocks(text)).toEqual([
      { name: "a", isEnabled: true, prefix: "transcripts/", days: 183 },
      { name: "b", isEnabled: false, prefix: "", days: Number.POSITIVE_INFINITY },
      { name: "c", isEnabled: true, prefix: "x", days: 0 },
      { name: "d", isEnabled: true, prefix: "y", days: 1 },
    ]);
    const lifecycle =
      "name:     Default Multipart Abort Rule\nenabled:  Yes\nprefix:   (all prefixes)\naction:   Abort incomplete multipart uploads after 7 days\n\nname:     e\nenabled:  Yes\nprefix:   bodies/\naction:   Expire objects after 90 days, Abort incomplete multipart uploads after 7 days";
    expect(parseLifecycle(of(lifecycle)).map(({ name, days }) => [name, days])).toEqual([
      ["Default Multipart Abort Rule", null],
      ["e", 90],
    ]);
    expect(parseLocks(of("There are no lock rules for bucket 'b'."))).toEqual([]);
  });

  it("is not guessed at: another form is an error, and so is another failure than that nothing is there", () => {
    expect(() => parseLocks(of("ID a, 183 days"))).toThrow("can't be read");
    expect(() => parseLocks(of("name:       a\nenabled:    Yes\nprefix:     t"))).toThrow('no "condition"');
    expect(() => parseLocks(of("name:  a\nenabled:  Yes\nprefix:  t\ncondition:  soon"))).toThrow(
      '"soon" is no condition',
    );
    expect(isAbsentBucket({ code: 1, out: "Authentication error [code: 10000]" })).toBe(false);
    expect(isAbsentWorker({ code: 1, out: "Authentication error [code: 10000]" })).toBe(false);
  });
});
