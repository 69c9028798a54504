// ps and switches: who and what there is.

import { emailDigest } from "../../src/identity/email-digest.ts";
import { noOperands, parseArguments } from "./arguments.ts";
import { type Command, EXIT, UsageError } from "./command.ts";
import { CONNECTION, CONNECTION_USAGE, connect } from "./connection.ts";
import type { Member } from "./gate-answers.ts";
import { listInstances, listSwitches } from "./gate-client.ts";
import { table, utc, utcMinute } from "./printable.ts";
import { stateOf } from "./receipt-lines.ts";
import { describeTarget } from "./target.ts";

const STATES = ["live", "paused", "killed", "over"] as const;
const SWITCHES_DEFAULT = 100;
const SWITCHES_MAX = 10_000;

export const ps: Command = {
  summary: "the instances that the gate knows",
  usage: `portcullis ps [--human <id or e-mail>] [--task <id>] [--agent <name>[@<version>]] [--state ${STATES.join("|")}]

${CONNECTION_USAGE}`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, {
      ...CONNECTION,
      human: { type: "string" },
      task: { type: "string" },
      agent: { type: "string" },
      state: { type: "string" },
    });
    noOperands(operands);
    const { human, task, agent, state } = options;
    if (state !== undefined && !STATES.some((known) => known === state))
      throw new UsageError(`--state ${state}: not one of ${STATES.join(", ")}`);
    const connection = await connect(options, io);
    const nowMs = Date.now();
    // People are known to the roster by a digest of their address.
    const digest = human?.includes("@") === true ? emailDigest(human) : undefined;
    const members = (await listInstances(connection)).filter(
      (member) =>
        (human === undefined || member.human === human || (digest !== undefined && member.emailDigest === digest)) &&
        (task === undefined || member.task === task) &&
        (agent === undefined || member.agent === agent || `${member.agent}@${member.agentVersion}` === agent) &&
        (state === undefined || shownState(member, nowMs) === state),
    );
    if (options.json) io.json({ gate: connection.gate, instances: members });
    else if (members.length === 0) io.say(`No such instance at ${connection.gate}.`);
    else
      for (const line of table(
        members.map((member) => [
          member.instance,
          `${shownState(member, nowMs)}${(member.narrowedBy ?? []).length === 0 ? "" : ", narrowed"}`,
          `${member.agent} ${member.agentVersion}`,
          member.task,
          member.human,
          member.upstreams.join(","),
          `until ${utcMinute(member.deadlineMs)}`,
        ]),
        ["INSTANCE", "STATE", "AGENT", "TASK", "HUMAN", "UPSTREAMS", "DEADLINE"],
        io,
      ))
        io.say(line);
    return EXIT.ok;
  },
};

/** Past its deadline an instance may still be in the list: nobody has asked it since. */
const shownState = ({ state, deadlineMs }: Member, nowMs: number): (typeof STATES)[number] =>
  state === "live" && deadlineMs <= nowMs ? "over" : state;

export const switches: Command = {
  summary: "the switches that were made, newest first",
  usage: `portcullis switches [--limit <n>]

  --limit <n>          how many at most (default: ${SWITCHES_DEFAULT})
${CONNECTION_USAGE}`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, { ...CONNECTION, limit: { type: "string" } });
    noOperands(operands);
    const limit = parseLimit(options.limit);
    const connection = await connect(options, io);
    const found = await listSwitches(connection, limit);
    if (options.json) io.json({ gate: connection.gate, switches: found });
    else if (found.length === 0) io.say(`No switch at ${connection.gate}.`);
    else
      for (const line of table(
        found.map((sw) => [sw.id, utc(sw.atMs), stateOf(sw), sw.act, describeTarget(sw), `${sw.by}: ${sw.reason}`]),
        ["SWITCH", "AT", "STATE", "ACT", "TARGET", "BY, AND WHY"],
        io,
      ))
        io.say(line);
    return EXIT.ok;
  },
};

function parseLimit(text: string | undefined): number {
  if (text === undefined) return SWITCHES_DEFAULT;
  const limit = Number(text);
  if (!/^\d{1,5}$/.test(text) || limit < 1 || limit > SWITCHES_MAX)
    throw new UsageError(`--limit ${text}: not a number from 1 to ${SWITCHES_MAX}`);
  return limit;
}
