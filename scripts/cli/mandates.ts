// mandates and revoke-mandate: what humans approved in advance.

import { z } from "zod";
import { noOperands, onlyOperand, parseArguments, parseReason } from "./arguments.ts";
import { type Command, EXIT } from "./command.ts";
import { CONNECTION, CONNECTION_USAGE, type Connection, connect } from "./connection.ts";
import { ask, parseAnswer } from "./gate-client.ts";
import { table, utc } from "./printable.ts";

/** What is read of it, and nothing is held to more. */
const mandate = z.looseObject({
  id: z.string(),
  human: z.string(),
  agent: z.string(),
  platform: z.string(),
  purpose: z.string(),
  expiresAtMs: z.number(),
  uses: z.number(),
  maxUses: z.number().nullable(),
  revoked: z.object({ by: z.string(), reason: z.string(), switch: z.string().nullable() }).nullable(),
});
type Mandate = z.infer<typeof mandate>;
const mandatesPage = z.object({ mandates: z.array(mandate), next: z.string().nullable() });

export const mandates: Command = {
  summary: "what humans approved in advance, newest first",
  usage: `portcullis mandates [--all]

  --all                those that have expired or were revoked, too
${CONNECTION_USAGE}`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, { ...CONNECTION, all: { type: "boolean", default: false } });
    noOperands(operands);
    const connection = await connect(options, io);
    const nowMs = Date.now();
    const found = (await listMandates(connection)).filter((one) => options.all || stateOf(one, nowMs) === "stands");
    if (options.json) io.json({ gate: connection.gate, mandates: found });
    else if (found.length === 0) io.say(`No mandate at ${connection.gate}.`);
    else
      for (const line of table(
        found.map((one) => [
          one.id,
          stateOf(one, nowMs),
          utc(one.expiresAtMs),
          `${one.agent} by ${one.platform}`,
          one.maxUses === null ? String(one.uses) : `${one.uses}/${one.maxUses}`,
          `${one.human}: ${one.purpose}`,
        ]),
        ["MANDATE", "STATE", "EXPIRES", "FOR", "USES", "OF, AND WHY"],
        io,
      ))
        io.say(line);
    return EXIT.ok;
  },
};

export const revokeMandate: Command = {
  summary: "end a mandate, and at once all that works under it",
  usage: `portcullis revoke-mandate <mandate id> --reason "…"

What works under it is killed, as by a switch: portcullis switch <id> has the receipt.

${CONNECTION_USAGE}`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, { ...CONNECTION, reason: { type: "string" } });
    const id = onlyOperand(operands, "mandate id");
    const reason = parseReason(options.reason);
    const connection = await connect(options, io);
    const asked = { method: "DELETE", body: { reason }, isRepeatable: true } as const;
    const response = await ask(connection, `mandates/${encodeURIComponent(id)}`, asked);
    const answer = await parseAnswer(connection, response, mandate);
    if (options.json) io.json(answer);
    else {
      io.say(`Revoked: mandate ${answer.id} of ${answer.human} for ${answer.agent}.`);
      if (answer.revoked !== null && answer.revoked.switch !== null) io.say(`  switch ${answer.revoked.switch}`);
    }
    return EXIT.ok;
  },
};

const stateOf = ({ revoked, expiresAtMs }: Mandate, nowMs: number): string =>
  revoked !== null ? "revoked" : expiresAtMs <= nowMs ? "expired" : "stands";

async function listMandates(connection: Connection): Promise<readonly Mandate[]> {
  const found: Mandate[] = [];
  for (let before: string | null = ""; before !== null; ) {
    const query: string = before === "" ? "" : `?before=${encodeURIComponent(before)}`;
    const response = await ask(connection, `mandates${query}`);
    const page: z.infer<typeof mandatesPage> = await parseAnswer(connection, response, mandatesPage);
    found.push(...page.mandates);
    before = page.next;
  }
  return found;
}
