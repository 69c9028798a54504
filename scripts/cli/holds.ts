// hold and holds: what must not be erased.

import { noOperands, parseArguments, parseReason } from "./arguments.ts";
import { type Command, EXIT, UsageError } from "./command.ts";
import { CONNECTION, CONNECTION_USAGE, type Connection, connect } from "./connection.ts";
import { ask, parseAnswer } from "./gate-client.ts";
import { table, utc } from "./printable.ts";
import { type Hold, hold as holdShape, holdsPage } from "./retention-answers.ts";
import { humanOf } from "./target.ts";

export const hold: Command = {
  summary: "keep a human's or a task's bodies from erasure, or release them",
  usage: `portcullis hold human <id or e-mail address> --reason "…"
portcullis hold task <id> --reason "…"
portcullis hold everything --reason "…"
portcullis hold release <hold id> --reason "…"

While a hold stands, nothing that it covers is erased; an erasure that runs is stopped. A lifecycle rule of the bucket
knows nothing of holds. An e-mail address is looked up among the instances that are enrolled now. To release one takes two auditors within an hour (exit 1 after the first).

${CONNECTION_USAGE}`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, { ...CONNECTION, reason: { type: "string" } });
    const [what, id] = operands;
    const isEverything = what === "everything" && operands.length === 1;
    const isNamed = (what === "human" || what === "task" || what === "release") && operands.length === 2;
    if (!isEverything && !isNamed)
      throw new UsageError("hold what? human <id or e-mail address>, task <id>, everything, or release <hold id>");
    const reason = parseReason(options.reason);
    const connection = await connect(options, io);
    const subject = what === "human" ? await humanOf(connection, id!) : id;
    const response =
      what === "release"
        ? await ask(connection, `holds/${encodeURIComponent(id!)}`, { method: "DELETE", body: { reason } })
        : await ask(connection, "holds", {
            method: "POST",
            body: { ...(isEverything ? { everything: true } : { [what!]: subject }), reason },
          });
    const answer = await parseAnswer(connection, response, holdShape);
    if (options.json) io.json(answer);
    else if (answer.awaiting !== undefined) io.say(`Not released yet: ${describe(answer)} awaits ${answer.awaiting}.`);
    else io.say(`${answer.released === null ? "Held" : "Released"}: ${describe(answer)}. Hold ${answer.id}`);
    return answer.awaiting === undefined ? EXIT.ok : EXIT.no;
  },
};

export const holds: Command = {
  summary: "the legal holds, newest first",
  usage: `portcullis holds [--all]

  --all                those that were released, too
${CONNECTION_USAGE}`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, { ...CONNECTION, all: { type: "boolean", default: false } });
    noOperands(operands);
    const connection = await connect(options, io);
    const found = (await listHolds(connection)).filter(({ released }) => options.all || released === null);
    if (options.json) io.json({ gate: connection.gate, holds: found });
    else if (found.length === 0) io.say(`No hold at ${connection.gate}.`);
    else
      for (const line of table(
        found.map((one) => [
          one.id,
          utc(one.atMs),
          one.released === null ? "stands" : "released",
          describe(one),
          `${one.by}: ${one.reason}`,
        ]),
        ["HOLD", "AT", "STATE", "OF", "BY, AND WHY"],
        io,
      ))
        io.say(line);
    return EXIT.ok;
  },
};

async function listHolds(connection: Connection): Promise<readonly Hold[]> {
  const found: Hold[] = [];
  for (let before: string | null = ""; before !== null; ) {
    const query: string = before === "" ? "" : `&before=${encodeURIComponent(before)}`;
    const response = await ask(connection, `holds?limit=500${query}`);
    const page: { holds: Hold[]; next: string | null } = await parseAnswer(connection, response, holdsPage);
    found.push(...page.holds);
    before = page.next;
  }
  return found;
}

const describe = ({ subject: { kind, id } }: Hold): string => (id === undefined ? kind : `${kind} ${id}`);
