// `portcullis policy` in plain Node: no Worker, no gate, no secret.

import { spawnSync } from "node:child_process";
import { cp, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import example from "../../portcullis.config.ts";
import { runCommand } from "../../scripts/cli/commands.ts";
import { createIo } from "../../scripts/cli/terminal.ts";
import { readCall, whoOf } from "../../scripts/policy/asked.ts";
import { explainCall } from "../../scripts/policy/explain-call.ts";
import { explainRequest } from "../../scripts/policy/explain-request.ts";
import { approvalPolicy } from "../../src/config/approval.ts";
import type { Json } from "../../src/scope/call.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "portcullis-policy-"));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function run(...args: readonly string[]): Promise<Ended> {
  const [out, err]: [string[], string[]] = [[], []];
  const io = createIo({ write: (text) => out.push(text) }, { write: (text) => err.push(text) }, {});
  const code = await runCommand(["policy", ...args], io);
  return { code, out: out.join(""), err: err.join("") };
}

let files = 0;
/** A table as JSON, in a file of its own. */
async function table(cases: Json | string): Promise<string> {
  const path = join(dir, `table-${++files}.json`);
  await writeFile(path, typeof cases === "string" ? cases : JSON.stringify(cases));
  return path;
}

const ENGINEER = { groups: ["engineering"], agent: "triage-bot" };
const READ = { name: "reads", call: "GET /github/repos/acme/widgets/issues", ...ENGINEER, expect: "allowed" };
const OTHER = { ...READ, name: "another's", call: "GET /github/repos/acme/payroll/issues", expect: "refused" };
const ISSUES = { type: "http", upstream: "github", operations: ["GET /repos/{owner}/{repo}/issues"] };
const OURS = { ...ISSUES, where: { owner: ["acme"], repo: ["widgets"] } };
const ALL = { ...ISSUES, where: { owner: ["acme"] } };
const asking = (details: Json) => ({ request: { ...ENGINEER, authorization_details: details } });

describe("policy test", () => {
  it("holds the example configuration to its own table, in which every entry is exercised", async () => {
    const { code, out, err } = await run("test", "--strict");
    expect([code, err]).toEqual([0, ""]);
    expect(out.trim().split("\n").at(-1)).toBe("10 cases: all as expected");
  });

  it("notes a group that the configuration does not name: of a misspelt one everything is refused", async () => {
    const cases = await table([{ ...READ, groups: ["enginering"], expect: "refused" }]);
    const { code, out, err } = await run("test", cases);
    expect([code, err]).toEqual([0, "enginering: no such group under entitlements.groups\n"]);
    expect(out).toMatch(/^ok {4}/);
  });

  it.each<[name: string, fault: object, expected: string, found: string]>([
    ["refused where it is allowed", { ...READ, expect: "refused" }, "refused", "allowed"],
    ["allowed where it is refused", { ...OTHER, expect: "allowed" }, "allowed", "refused by entitlement"],
    ["by another layer", { ...OTHER, layer: "boundaries" }, "refused by boundaries", "refused by entitlement"],
    ["after an approval that nothing demands", { ...READ, expect: "approval" }, "approval", "allowed"],
    [
      "by another operation",
      { ...READ, operation: "GET /repos/{owner}/{repo}/{+rest}" },
      "allowed, entitlement by GET /repos/{owner}/{repo}/{+rest}",
      "allowed, entitlement by GET /repos/{owner}/{repo}/issues of entitlements.groups.engineering[0]",
    ],
    [
      "by another entry",
      { ...READ, layer: "boundaries", entry: "boundaries[1]" },
      "allowed, boundaries by boundaries[1]",
      "allowed, boundaries by GET /repos/{owner}/{repo}/{+rest} of boundaries[0]",
    ],
    [
      "by a layer that is not there",
      { ...READ, layer: "parent", operation: "GET /x" },
      "allowed, parent by GET /x",
      "allowed, parent by nothing of nothing",
    ],
    [
      "a grant that is refused",
      { name: "g", ...asking([ALL]), expect: "granted" },
      "granted",
      "refused by entitlement, authorization_details[0]",
    ],
    ["no grant that is given", { name: "g", ...asking([OURS]), expect: "refused" }, "refused", "granted"],
    [
      "the other entry of a request",
      { name: "g", ...asking([OURS, ALL]), expect: "refused", entry: 0 },
      "refused, authorization_details[0]",
      "refused by entitlement, authorization_details[1]",
    ],
    [
      "a request that can't be read, for its layer",
      { name: "g", ...asking([OURS, { ...OURS, colour: "red" }]), expect: "refused", layer: "agent" },
      "refused by agent",
      "refused by authorization_details, authorization_details[1]",
    ],
  ])("fails, and says what it found: %s", async (_name, fault, expected, found) => {
    const { code, out } = await run("test", await table([fault as Json]));
    expect(code).toBe(1);
    expect(out).toContain(`        expected  ${expected}\n        found     ${found}\n`);
    expect(out).toContain("1 case: 1 not as expected");
  });

  it("notes entries that nothing exercises, and fails for them where it must be strict", async () => {
    const path = await table([OTHER]);
    const lax = await run("test", path);
    const note = "note  entitlements.groups.engineering[0]: no case is allowed by it";
    expect([lax.code, lax.out.match(/^note {2}.*$/gm)]).toEqual([0, [note]]);
    const strict = await run("test", path, "--strict");
    expect([strict.code, strict.out]).toEqual([1, expect.stringContaining("FAIL  entitlements.groups.engineering[0]")]);
  });

  it("is data for machines", async () => {
    const { code, out } = await run("test", await table([READ, OTHER]), "--json");
    expect([code, JSON.parse(out)]).toMatchObject([
      0,
      {
        ok: true,
        cases: [
          { name: "reads", ok: true, explanation: { verdict: "allowed" } },
          { name: "another's", explanation: { verdict: "refused", layer: "entitlement" } },
        ],
        unexercised: [],
      },
    ]);
  });

  it.each<[name: string, cases: Json | string, expected: RegExp]>([
    ["a table that is no list", { cases: [] }, /\(top\): must be an array/],
    ["a case with a slip", [{ ...READ, expects: "x" }], /\[0\]: Unrecognized key: "expects"/],
    [
      "an agent that is not there",
      [READ, { ...OTHER, agent: "nobody" }],
      /^\[1\] another's: no agent "nobody" under agents/,
    ],
    [
      "a scope that can't be read",
      [{ ...READ, scope: [{ ...OURS, type: "smtp" }] }],
      /^\[0\] reads: scope: authorization_details\[0\]\.type/,
    ],
    ["a header that can't be", [{ ...READ, headers: { "a b": "c" } }], /^\[0\] reads: headers: /],
    ["JSON with two readings", '[{"name":"a","name":"b"}]', /table-\d+\.json: /],
  ])("ends with 2 for what can't be read: %s", async (_name, cases, expected) => {
    const { code, err, out } = await run("test", await table(cases));
    expect([code, out]).toEqual([2, ""]);
    expect(err).toMatch(expected);
  });

  it("reports a configuration that does not parse by path", async () => {
    const path = join(dir, "broken.config.ts");
    await writeFile(
      path,
      `import { defineConfig } from ${JSON.stringify(join(root, "src/config/define.ts"))};\nexport default defineConfig({ origin: "nowhere" } as never);\n`,
    );
    const { code, err } = await run("test", await table([READ]), "--config", path);
    expect(code).toBe(2);
    expect(err).toMatch(/broken\.config\.ts: The configuration is not valid:\n {2}[\w.]+: [^\n]+\n/);
    expect(err).toMatch(/^ {2}origin: an origin, e\.g\. /m);
    expect((await run("test", join(dir, "none.ts"))).err).toMatch(/none\.ts: no such file/);
    expect((await run("test", "--config", path)).err).toMatch(/no portcullis\.policy\.ts or \.json beside/);
    expect((await run("hold")).err).toMatch(/policy what\? test, or explain/);
  });
});

const explainRead = (...args: readonly string[]) =>
  run(
    "explain",
    "GET",
    "/github/repos/acme/payroll/issues",
    "--agent",
    "triage-bot",
    "--group",
    "engineering",
    ...args,
  );

describe("policy explain", () => {
  it("names the layer that refuses, the nearest entry and the condition, and what the others say", async () => {
    const { code, out } = await explainRead();
    expect(code).toBe(1);
    expect(out).toMatch(/^refused by entitlement: GET \/github\/repos\/acme\/payroll\/issues\n/);
    expect(out).toContain(
      'entitlements.groups.engineering[0], GET /repos/{owner}/{repo}/issues\n                   repo must be one of "widgets"; it is "payroll"',
    );
    expect(out).toContain("agent        allows: agents.triage-bot.ceiling[0], GET /repos/{owner}/{repo}/issues");
    expect(out).toContain('facts        owner = "acme", repo = "payroll", no body');
  });

  it("asks the grant and the parent where they are given, and says which scope nobody would grant", async () => {
    const scope = await table([ALL]);
    const granted = await explainRead("--scope", scope, "--parent-scope", JSON.stringify([OURS]), "--json");
    expect(JSON.parse(granted.out)).toMatchObject({
      verdict: "refused",
      layer: "parent",
      layers: [
        { layer: "route" },
        { layer: "describe" },
        { layer: "grant", verdict: "allowed", at: "authorization_details[0]" },
        { layer: "parent", verdict: "refused", misses: [{ at: "parent[0]" }] },
        {},
        {},
        {},
      ],
      request: { verdict: "refused", layer: "parent", entry: 0 },
    });
    expect((await explainRead("--scope", scope)).err).toContain(
      "exceeds entitlement: GET /repos/{owner}/{repo}/issues: only entitlements.groups.engineering[0] but for repo",
    );
    const other = [{ ...OURS, upstream: "slack" }];
    const outside = await explainRead("--scope", JSON.stringify(other));
    expect(outside.out).toContain("route        refuses: not in the grant's aud");
  });

  it("says in words what describe refuses", async () => {
    const args = ["--agent", "triage-bot", "--group", "engineering"];
    const dots = await run("explain", "GET", "/github/repos/%2e%2e/x", ...args);
    expect([dots.code, dots.out]).toEqual([1, expect.stringContaining("describe     refuses: a dot segment")]);
    const body = ["--body", '{"_method":"DELETE"}'];
    const override = await run("explain", "POST", "/github/repos/acme/widgets/issues/7/comments", ...args, ...body);
    expect(override.out).toContain("describe     refuses: a method override in the body");
    const typed = await run(
      "explain",
      "POST",
      "/github/repos/acme/widgets/issues/7/comments",
      ...args,
      ...body,
      "--header",
      "Content-Type: text/plain",
    );
    expect([typed.code, typed.out]).toEqual([0, expect.stringMatching(/^allowed: /)]);
  });

  it.each<[args: readonly string[], expected: RegExp]>([
    [["GET"], /give a method and a path/],
    [["GET", "/github/x"], /which agent\?/],
    [["GET", "/github/x", "--agent", "constructor"], /no agent "constructor" under agents/],
    [["GET", "github/x", "--agent", "triage-bot"], /not a method, a space, and the path/],
    [["GET", "/github/x", "--agent", "triage-bot", "--scope", "{"], /--scope: neither a file nor JSON/],
    [
      ["GET", "/github/x", "--agent", "triage-bot", "--scope", "[]"],
      /--scope: authorization_details: must not be empty/,
    ],
    [
      ["GET", "/github/x", "--agent", "triage-bot", "--parent-scope", "[{}]"],
      /the parent's scope: authorization_details\[0\]\.type/,
    ],
    [["GET", "/github/x", "--agent", "triage-bot", "--header", "nothing"], /--header/],
    [["GET", "/github/x", "--agent", "triage-bot", "--agent-above", "nobody"], /no agent "nobody" under agents/],
    [
      ["GET", "/github/x", "--agent", "triage-bot", "--agent-above", "triage-bot"],
      /triage-bot may not provision triage-bot/,
    ],
  ])("ends with 2 for its words: %j", async (args, expected) => {
    const { code, err } = await run("explain", ...args);
    expect([code, err]).toEqual([2, expect.stringMatching(expected)]);
  });

  it("asks the ceiling of each agent above, of a call and of a request, and knows who may stand above whom", () => {
    const bot = example.agents["triage-bot"]!;
    const delegation = { ...bot.delegation, agents: ["triage-bot", "reader"] };
    const [entry] = bot.ceiling;
    const narrow = { ...entry!, operations: entry!.operations.filter(({ method }) => method === "POST") };
    const chief = { ...bot, ceiling: [narrow], delegation };
    const config = { ...example, agents: { ...example.agents, chief, reader: bot } };
    const who = { groups: ["engineering"], agent: "reader", agentsAbove: ["chief"] };
    const refused = { verdict: "refused", layer: "agent" };
    expect(explainCall(config, readCall(READ, config.origin), whoOf(config, who), null)).toMatchObject(refused);
    expect(explainRequest(config, [OURS], whoOf(config, who))).toMatchObject({ ...refused, entry: 0 });
    const own = whoOf(config, { ...who, agentsAbove: [] });
    expect(explainCall(config, readCall(READ, config.origin), own, null).verdict).toBe("allowed");
    expect(explainRequest(config, [OURS], own).verdict).toBe("granted");
    // The token endpoint comes to the agents above last.
    expect(explainRequest(config, [ALL], whoOf(config, who)).layer).toBe("entitlement");
    expect(() => whoOf(config, { ...who, agentsAbove: ["reader"] })).toThrow("reader may not provision reader");
    expect(() => whoOf(config, { ...who, agentsAbove: ["chief", "triage-bot"] })).toThrow(
      "2 levels below chief, whose delegation.depth is 1",
    );
  });

  it("tells an approval from a permission, whichever entry allows the call as well", () => {
    const first = example.boundaries[0]!;
    const config = { ...example, boundaries: [first, { ...first, approval: approvalPolicy.parse({}) }] };
    const who = whoOf(config, ENGINEER);
    expect(explainCall(config, readCall(READ, config.origin), who, null)).toMatchObject({
      verdict: "approval",
      layer: "boundaries",
      layers: [{}, {}, {}, {}, {}, { verdict: "approval", at: "boundaries[1]" }],
    });
    expect(explainCall(config, readCall(OTHER, config.origin), who, null)).toMatchObject({
      verdict: "refused",
      layer: "entitlement",
    });
  });
});

describe("npm run deploy", () => {
  it("stops before anything leaves where the configuration is not as its table expects", async () => {
    const copy = join(dir, "copy");
    await mkdir(copy);
    for (const part of ["scripts", "src", "portcullis.config.ts", "package.json", "wrangler.toml"])
      await cp(join(root, part), join(copy, part), { recursive: true });
    await symlink(join(root, "node_modules"), join(copy, "node_modules"));
    const own = await readFile(join(root, "portcullis.policy.ts"), "utf8");
    await writeFile(join(copy, "portcullis.policy.ts"), own.replace('layer: "route"', 'layer: "describe"'));
    const ran = spawnSync(process.execPath, [join(copy, "scripts/deploy.ts"), "--dry-run"], {
      encoding: "utf8",
      // No wrangler: who gets as far as that fails otherwise.
      env: { PATH: dir, HOME: dir },
    });
    expect(ran.status).toBe(1);
    expect(ran.stderr).toContain("an upstream that is not there: expected refused by describe, found refused by route");
    expect(ran.stdout).toBe("");
  });
});
