// policy: what a configuration allows, before it is deployed. No gate is asked, and no secret is needed.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import type { Config } from "../../src/config/define.ts";
import { PolicyTestsError } from "../../src/config/policy-tests.ts";
import { parseStrictJson } from "../../src/json/strict-json.ts";
import type { Json } from "../../src/scope/call.ts";
import { PolicyError, parseScope, readCall, type WrittenCall, whoOf } from "../policy/asked.ts";
import { explainCall } from "../policy/explain-call.ts";
import { explainRequest } from "../policy/explain-request.ts";
import { type HeldTable, holdCases } from "../policy/hold-cases.ts";
import { CONFIG_FILE, configPath, findTable, loadConfig, loadTable } from "../policy/load.ts";
import { wordCall, wordRequest } from "../policy/wording.ts";
import { parseArguments } from "./arguments.ts";
import { type Command, EXIT, type Io, UsageError } from "./command.ts";
import { count } from "./printable.ts";

const OPTIONS = {
  config: { type: "string" },
  strict: { type: "boolean", default: false },
  human: { type: "string" },
  group: { type: "string", multiple: true },
  agent: { type: "string" },
  "agent-above": { type: "string", multiple: true },
  scope: { type: "string" },
  "parent-scope": { type: "string" },
  body: { type: "string" },
  header: { type: "string", multiple: true },
  json: { type: "boolean", default: false },
} as const;

type Options = ReturnType<typeof parseArguments<typeof OPTIONS>>["options"];

export const policy: Command = {
  summary: "what a configuration allows: hold it to its tests, or explain one call",
  usage: `portcullis policy test [<file>] [--strict] [--config <file>] [--json]
portcullis policy explain <METHOD> <path at the gate> --agent <name> [--human <e-mail or id>] [--group <name>]…
                          [--scope <file or JSON>] [--parent-scope <file or JSON>] [--agent-above <name>]…
                          [--body <file or JSON>] [--header "<name>: <value>"]… [--config <file>]
                          [--json]

test holds the configuration to a table of calls and of requests for grants, with what is expected of each
(default: portcullis.policy.ts or .json beside the configuration). Entries that no case exercises are noted.
explain says what would become of a call, layer by layer: by which entry it is allowed, or what came nearest.
Neither asks a gate, and neither needs a secret.

  --config        another configuration (default: ${CONFIG_FILE} of this clone)
  --strict        an entry that no case exercises is a failure
  --scope         authorization_details of the grant; without it the grant is not asked
  --parent-scope  those of the parent's, where a sub-agent calls
  --agent-above   and which agents stand above it, the root first: their ceilings hold as well
  --body          JSON as it is written; of a file that is not .json say its type with --header "Content-Type: …"

Exit: 0 allowed, or all as expected; 1 refused, awaits approval, or not as expected; 2 usage, or a file that can't be read.`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, OPTIONS);
    const [what, ...rest] = operands;
    try {
      if (what === "test") return await runTest(rest, options, io);
      if (what === "explain") return await runExplain(rest, options, io);
    } catch (cause) {
      // The words of a person, in a file or on the command line.
      if (!(cause instanceof PolicyError || cause instanceof PolicyTestsError)) throw cause;
      // A line for each mistake.
      for (const line of cause.message.split("\n")) io.note(line);
      return EXIT.usage;
    }
    throw new UsageError("policy what? test, or explain");
  },
};

async function runTest(operands: readonly string[], options: Options, io: Io): Promise<number> {
  if (operands.length > 1) throw new UsageError(`unexpected: ${operands.slice(1).join(" ")}`);
  const path = configPath(options.config);
  const table = operands[0] ?? findTable(path);
  if (table === undefined) throw new UsageError(`no portcullis.policy.ts or .json beside ${path}: which file?`);
  const config = await loadConfig(path);
  const cases = await loadTable(configPath(table));
  const held = holdCases(config, cases);
  const isOk = held.cases.every(({ ok }) => ok) && !(options.strict && held.unexercised.length > 0);
  if (options.json) io.json({ ok: isOk, ...held });
  else {
    sayHeld(held, options.strict, io);
    // Of a misspelt one everything is refused, as such a case may expect.
    noteUnknownGroups(
      config,
      cases.flatMap((one) => ("request" in one ? one.request : one).groups),
      io,
    );
  }
  return isOk ? EXIT.ok : EXIT.no;
}

function sayHeld({ cases, unexercised }: HeldTable, isStrict: boolean, io: Io): void {
  const width = Math.max(...cases.map(({ name }) => name.length));
  for (const { ok, name, expected, found, explanation } of cases) {
    io.say(`${ok ? "ok  " : "FAIL"}  ${name.padEnd(width)}  ${found}`);
    if (ok) continue;
    io.say(`        expected  ${expected}`);
    io.say(`        found     ${found}`);
    const lines = "layers" in explanation ? wordCall(explanation) : wordRequest(explanation);
    for (const line of lines) io.say(`          ${line}`);
  }
  for (const place of unexercised) io.say(`${isStrict ? "FAIL" : "note"}  ${place}: no case is allowed by it`);
  const failed = cases.filter(({ ok }) => !ok).length;
  io.say(
    `${count(cases.length, "case")}: ${failed === 0 ? "all as expected" : `${failed} not as expected`}${unexercised.length === 0 ? "" : `, ${count(unexercised.length, "entry", "entries")} not exercised`}`,
  );
}

async function runExplain(operands: readonly string[], options: Options, io: Io): Promise<number> {
  const [method, path, ...others] = operands;
  if (method === undefined || path === undefined || others.length > 0)
    throw new UsageError("give a method and a path at the gate: GET /github/repos/acme/widgets/issues");
  if (options.agent === undefined) throw new UsageError("which agent? --agent <name>");
  const config = await loadConfig(configPath(options.config));
  const details = await readDetails(options.scope, "--scope");
  const parentScope = await readDetails(options["parent-scope"], "--parent-scope");
  const groups = options.group ?? [];
  const { human, agent, "agent-above": agentsAbove } = options;
  const who = whoOf(config, { human, groups, agent, agentsAbove, parentScope });
  const scope = details === undefined ? null : parseScope(details, "--scope");
  const written = { call: `${method} ${path}`, ...(await readBody(options.body)), ...readHeaders(options.header) };
  const explanation = explainCall(config, readCall(withType(written), config.origin), who, scope);
  const request = details === undefined ? null : explainRequest(config, details, who);
  const { verdict, layer } = explanation;
  if (options.json) io.json({ call: written.call, ...explanation, request });
  else {
    io.say(
      `${verdict === "approval" ? "awaits approval" : verdict}${layer === null ? "" : ` by ${layer}`}: ${written.call}`,
    );
    for (const line of wordCall(explanation)) io.say(`  ${line}`);
    noteUnknownGroups(config, groups, io);
    if (request?.verdict === "refused") {
      io.note("The token endpoint would not grant this scope:");
      for (const line of wordRequest(request)) io.note(`  ${line}`);
    }
  }
  return verdict === "allowed" ? EXIT.ok : EXIT.no;
}

function noteUnknownGroups(config: Config, groups: readonly string[], io: Io): void {
  for (const group of new Set(groups))
    if (!Object.hasOwn(config.entitlements.groups, group)) io.note(`${group}: no such group under entitlements.groups`);
}

async function readDetails(given: string | undefined, option: string): Promise<readonly Json[] | undefined> {
  if (given === undefined) return undefined;
  const { text } = await readFileOrText(given);
  const json = parseStrictJson(text);
  if (!json.ok) throw new UsageError(`${option}: neither a file nor JSON: ${json.error}`);
  return Array.isArray(json.value) ? (json.value as readonly Json[]) : [json.value];
}

/** Its exact text: what two readers could read in two ways must be seen as it is. */
async function readBody(given: string | undefined): Promise<{ body?: string; isJson?: boolean }> {
  if (given === undefined) return {};
  const { text, file } = await readFileOrText(given);
  return { body: text, isJson: file === undefined || file.endsWith(".json") };
}

async function readFileOrText(given: string): Promise<{ text: string; file?: string }> {
  return existsSync(given) ? { text: await readFile(given, "utf8"), file: given } : { text: given };
}

function readHeaders(given: readonly string[] | undefined): { headers: Record<string, string> } {
  const headers: Record<string, string> = {};
  for (const line of given ?? []) {
    const [, name, value] = /^([^:]+):\s*(.*)$/.exec(line) ?? [];
    if (name === undefined || value === undefined) throw new UsageError('--header "<name>: <value>"');
    headers[name.toLowerCase()] = value;
  }
  return { headers };
}

function withType({
  isJson,
  headers,
  ...call
}: WrittenCall & { readonly isJson?: boolean; readonly headers: Record<string, string> }): WrittenCall {
  const isTyped = isJson !== true || Object.hasOwn(headers, "content-type");
  return { ...call, headers: isTyped ? headers : { ...headers, "content-type": "application/json" } };
}
