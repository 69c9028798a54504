// quota: what of a shared limit is spent, and what is leased.

import { parseArguments } from "./arguments.ts";
import { type Command, EXIT, UsageError } from "./command.ts";
import { CONNECTION, CONNECTION_USAGE, connect } from "./connection.ts";
import { ask, parseAnswer } from "./gate-client.ts";
import { table, utc } from "./printable.ts";
import { quotaAnswer } from "./quota-answer.ts";

export const quota: Command = {
  summary: "what of a shared limit is spent, and what is leased to instances",
  usage: `portcullis quota <name> <key>

The key is whose it is: a task's, human's, agent's or upstream's id, "all" where everything counts together, or two of
them with a dot. What is leased counts as spent until instances give it back.

${CONNECTION_USAGE}`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, CONNECTION);
    const [name, key] = operands;
    if (name === undefined || key === undefined || operands.length > 2)
      throw new UsageError("quota which? <name> <key>");
    const connection = await connect(options, io);
    const path = `quotas/${encodeURIComponent(name)}/${encodeURIComponent(key)}`;
    const found = await parseAnswer(connection, await ask(connection, path, { isRepeatable: true }), quotaAnswer);
    if (options.json) {
      io.json(found);
      return EXIT.ok;
    }
    const { period, dimensions, instances } = found;
    // Any id can be a key: whoever has used nothing of it can't be told from one that is misspelt.
    if (instances === 0 && dimensions.every(({ spent }) => spent === 0))
      io.note("Nothing is spent and nothing is leased. Is the key spelled right? A human's is the id that ps shows.");
    const when = period === null ? "for good" : `from ${utc(period.fromMs)} until ${utc(period.untilMs)}`;
    io.say(
      `${found.quota} of ${found.key}, ${when}; leased by ${instances} ${instances === 1 ? "instance" : "instances"}`,
    );
    const rows = dimensions.map(({ dimension, limit, spent, leased }) => [
      dimension,
      String(limit),
      String(spent),
      String(leased),
    ]);
    for (const line of table(rows, ["OF", "LIMIT", "SPENT", "LEASED"], io)) io.say(line);
    return EXIT.ok;
  },
};
