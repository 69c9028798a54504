// narrow: a human has lost groups.

import { emailDigest } from "../../src/identity/email-digest.ts";
import { parseArguments, parseReason } from "./arguments.ts";
import { type Command, UsageError } from "./command.ts";
import { CONNECTION, CONNECTION_USAGE, connect } from "./connection.ts";
import { carryOut, report } from "./switch.ts";

const OPTIONS = {
  ...CONNECTION,
  groups: { type: "string" },
  reason: { type: "string" },
  wait: { type: "boolean", default: false },
  save: { type: "string" },
} as const;

export const narrow: Command = {
  summary: "take groups from a human, and what those allowed from all that works for them",
  usage: `portcullis narrow human <id or e-mail address> --groups <those that are left> --reason "…" [--wait] [--save <file>]

Instances that were provisioned before lose what the other groups allowed, running calls included; for them it is final.
Who signs in anew has the groups that the identity provider states then.

  --groups <a,b>       the groups that the human still has; --groups "" for none
  --reason "…"         why; it is on record
  --wait               follow it until it is done, up to two minutes (as always at a terminal)
  --save <file>        keep the signed receipt (JWS)
${CONNECTION_USAGE}

Exit: 0 done, 1 it stands and is not through yet, 2 usage, 3 not allowed, 4 the gate could not be reached.`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, OPTIONS);
    const [reach, named = "", ...others] = operands;
    if (reach !== "human" || named === "" || others.length > 0)
      throw new UsageError("narrow whom? human <id or e-mail address>");
    if (options.groups === undefined) throw new UsageError("which groups are left? --groups a,b");
    const groups = options.groups.split(",").flatMap((group) => (group.trim() === "" ? [] : [group.trim()]));
    const reason = parseReason(options.reason);
    const connection = await connect(options, io);
    // An address has no place in a path, which others may write down.
    const human = named.includes("@") ? emailDigest(named) : named;
    const isFollowed = options.wait || (io.isWatched && !options.json);
    const path = `humans/${encodeURIComponent(human)}/groups`;
    const receipt = await carryOut(connection, path, { groups, reason }, isFollowed, io);
    return report(receipt, options, io);
  },
};
