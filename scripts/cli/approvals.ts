// approvals, approve and deny: calls that wait for a person.

import { z } from "zod";
import { onlyOperand, parseArguments, parseReason } from "./arguments.ts";
import { type Command, EXIT, type Io, UsageError } from "./command.ts";
import { CONNECTION, CONNECTION_USAGE, type Connection, connect } from "./connection.ts";
import { ask, parseAnswer } from "./gate-client.ts";
import { table, utc } from "./printable.ts";

const decision = z.object({ verdict: z.string(), by: z.string(), reason: z.string() }).nullable();
const summary = z.looseObject({
  id: z.string(),
  state: z.string(),
  human: z.string(),
  agent: z.string(),
  agentVersion: z.string(),
  instance: z.string(),
  task: z.string(),
  purpose: z.string(),
  upstream: z.string(),
  method: z.string(),
  url: z.string(),
  entries: z.array(z.string()),
  askedAtMs: z.number(),
  expiresAtMs: z.number(),
  decision,
  validUntilMs: z.number().nullable(),
  cause: z.string().nullable(),
});
const whole = summary.extend({
  headers: z.array(z.tuple([z.string(), z.string()])),
  body: z.looseObject({ bytes: z.number().nullable(), mediaType: z.string().nullable() }).nullable(),
});
const page = z.object({ approvals: z.array(summary), next: z.string().nullable() });
type Summary = z.infer<typeof summary>;
type Whole = z.infer<typeof whole>;

export const approvals: Command = {
  summary: "the calls that wait for a person, or one of them",
  usage: `portcullis approvals [--all]
portcullis approvals <approval id>

With an id: the whole call, and its body as far as it is text. Who looks is on record.

  --all                those that are over, too
${CONNECTION_USAGE}`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, { ...CONNECTION, all: { type: "boolean", default: false } });
    const [id] = operands;
    if (operands.length > 1 || (id !== undefined && options.all)) throw new UsageError("give one approval id, or none");
    const connection = await connect(options, io);
    if (id !== undefined) return showOne(connection, id, options.json, io);
    const found = await list(connection, options.all);
    if (options.json) io.json({ gate: connection.gate, approvals: found });
    else if (found.length === 0) io.say(`Nothing waits for approval at ${connection.gate}.`);
    else
      for (const line of table(
        found.map((one) => [one.id, one.state, utc(one.expiresAtMs), `${one.method} ${one.url}`, one.agent, one.human]),
        ["APPROVAL", "STATE", "UNTIL", "CALL", "AGENT", "FOR HUMAN"],
        io,
      ))
        io.say(line);
    return EXIT.ok;
  },
};

const deciding = (verb: "approve" | "deny", said: string, about: string): Command => ({
  summary: about,
  usage: `portcullis ${verb} <approval id> --reason "…"

Look at the whole call before: portcullis approvals <approval id>

  --reason "…"         why; it is on record
${CONNECTION_USAGE}

Exit: 0 done, 1 it is over, 2 usage, 3 not allowed, 4 the gate could not be reached.`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, { ...CONNECTION, reason: { type: "string" } });
    const id = onlyOperand(operands, "approval id");
    const reason = parseReason(options.reason);
    const connection = await connect(options, io);
    const path = `approvals/${encodeURIComponent(id)}/${verb}`;
    // The same decision by the same one is one.
    const response = await ask(connection, path, { method: "POST", body: { reason }, isRepeatable: true });
    const answer = await parseAnswer(connection, response, whole);
    if (options.json) io.json(answer);
    else {
      const until = answer.validUntilMs === null ? "" : `, once, until ${utc(answer.validUntilMs)}`;
      io.say(`${said}: ${answer.method} ${answer.url}${until}`);
    }
    return EXIT.ok;
  },
});

export const approve = deciding("approve", "Approved", "let exactly one call pass, once");
export const deny = deciding("deny", "Denied", "refuse a call that waits");

async function list(connection: Connection, all: boolean): Promise<readonly Summary[]> {
  const found: Summary[] = [];
  for (let before: string | null = ""; before !== null; ) {
    const query = new URLSearchParams({
      state: all ? "all" : "open",
      limit: "500",
      ...(before === "" ? {} : { before }),
    });
    const got: z.infer<typeof page> = await parseAnswer(connection, await ask(connection, `approvals?${query}`), page);
    found.push(...got.approvals);
    before = got.next;
  }
  return found;
}

async function showOne(connection: Connection, id: string, isJson: boolean, io: Io): Promise<number> {
  const path = `approvals/${encodeURIComponent(id)}`;
  const one = await parseAnswer(connection, await ask(connection, path), whole);
  if (isJson) {
    io.json(one);
    return EXIT.ok;
  }
  for (const [name, value] of facts(one)) io.say(`${name.padEnd(10)}${value}`);
  const bytes = one.body?.bytes ?? 0;
  if (bytes === 0) return EXIT.ok;
  const response = await ask(connection, `${path}/body`, { isStream: true, mayBeAbsent: true });
  const text = response.status === 404 ? null : textOf(new Uint8Array(await response.arrayBuffer()));
  io.say("");
  if (text === null) io.note(`${bytes} bytes of ${one.body?.mediaType ?? "no media type"}, which are not text`);
  else for (const line of text.split("\n")) io.say(line);
  return EXIT.ok;
}

const facts = (one: Whole): [name: string, value: string][] => [
  ["approval", one.id],
  ["state", [one.state, one.cause].filter((part) => part !== null).join(": ")],
  ...(one.decision === null
    ? []
    : [["decided", `${one.decision.verdict} by ${one.decision.by}: ${one.decision.reason}`] as [string, string]]),
  ["agent", `${one.agent} ${one.agentVersion}, instance ${one.instance}`],
  ["for", `human ${one.human}`],
  ["task", `${one.task}: ${one.purpose}`],
  ["held by", one.entries.join(", ")],
  ["asked", utc(one.askedAtMs)],
  ["until", utc(one.expiresAtMs)],
  ["call", `${one.method} ${one.url}`],
  ...one.headers.map(([name, value], i): [string, string] => [i === 0 ? "headers" : "", `${name}: ${value}`]),
];

function textOf(bytes: Uint8Array): string | null {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return null;
  }
}
