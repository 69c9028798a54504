// erase, and what came of one.

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { onlyOperand, parseArguments, parseReason } from "./arguments.ts";
import { type Command, CommandError, EXIT, type Io, UsageError } from "./command.ts";
import { CONNECTION, CONNECTION_USAGE, type Connection, connect } from "./connection.ts";
import { ask, parseAnswer } from "./gate-client.ts";
import { count, utc } from "./printable.ts";
import { type Erasure, erasure } from "./retention-answers.ts";
import { humanOf } from "./target.ts";

/** It goes on without anybody who looks. */
const FOLLOW_MS = 600_000;
const LOOK_EVERY_MS = 500;

export const erase: Command = {
  summary: "erase what passed on behalf of a human, up to now",
  usage: `portcullis erase human <id or e-mail address> --reason "…" [--task <id>] [--no-wait] [--yes]

Bodies go, for good; the records stay, and still verify. Copies that were pulled before keep theirs: delete them, and
pull anew. A legal hold forbids it. An e-mail address is looked up among
the instances that are enrolled now; the id is in every record.

  --reason "…"         why; it is on record, and in the signed certificate. Not the place for personal data
  --task <id>          only of this task, as in records
  --no-wait            don't follow it: it goes on by itself
  --yes                don't ask
${CONNECTION_USAGE}

Exit: 0 done, 1 refused, or something is left or not through yet, 2 usage, 3 not allowed, 4 the gate could not be reached.`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, {
      ...CONNECTION,
      reason: { type: "string" },
      task: { type: "string" },
      "no-wait": { type: "boolean", default: false },
      yes: { type: "boolean", default: false },
    });
    const [kind, named] = operands;
    if (kind !== "human" || named === undefined || operands.length !== 2)
      throw new UsageError("erase what? human <id or e-mail address>");
    const reason = parseReason(options.reason);
    const connection = await connect(options, io);
    const human = await humanOf(connection, named);
    const { task } = options;
    if (!options.yes) await confirm(human, task, connection, io);
    const response = await ask(connection, "erasures", {
      method: "POST",
      body: { human, reason, ...(task === undefined ? {} : { task }) },
      headers: { "idempotency-key": randomUUID() },
      isRepeatable: true,
    });
    const begun = await parseAnswer(connection, response, erasure);
    return report(options["no-wait"] ? begun : await follow(connection, begun, io), options.json, io);
  },
};

export const readErasure: Command = {
  summary: "one erasure: how far it is, and what is left",
  usage: `portcullis erasure <erasure id>

${CONNECTION_USAGE}

Exit: 0 done, 1 something is left, or it is not through yet.`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, CONNECTION);
    const id = onlyOperand(operands, "erasure id");
    const connection = await connect(options, io);
    return report(await look(connection, id), options.json, io);
  },
};

const look = async (connection: Connection, id: string): Promise<Erasure> =>
  parseAnswer(connection, await ask(connection, `erasures/${encodeURIComponent(id)}`), erasure);

async function confirm(human: string, task: string | undefined, { gate }: Connection, io: Io): Promise<void> {
  const of = task === undefined ? "" : ` in task ${task}`;
  const answer = await io.ask(
    `This erases, for good, what passed ${gate} on behalf of ${human}${of}. To do it, type "erase": `,
  );
  if (answer === null) throw new UsageError("erase needs --yes where nobody can be asked");
  if (answer.trim() !== "erase") throw new CommandError(EXIT.no, "Nothing was done.");
}

async function follow(connection: Connection, begun: Erasure, io: Io): Promise<Erasure> {
  const untilMs = Date.now() + FOLLOW_MS;
  let now = begun;
  while (now.status === "running" && Date.now() < untilMs) {
    await sleep(LOOK_EVERY_MS);
    const next = await look(connection, begun.id);
    if (io.isWatched && next.objects !== now.objects) io.note(`  ${count(next.objects, "object")} deleted`);
    now = next;
  }
  return now;
}

const SAID = {
  running: "Under way",
  done: "Erased",
  incomplete: "Erased, but for what is left",
  stopped: "Stopped by a hold",
} as const;

function report(erasure: Erasure, isJson: boolean, io: Io): number {
  const { status, human, task, objects, bytes, rewritten, blanked, leftCount, left } = erasure;
  if (isJson) io.json(erasure);
  else {
    io.say(
      `${SAID[status]}: bodies of human ${human}${task === null ? "" : `, task ${task}`}, up to ${utc(erasure.beforeMs)}`,
    );
    io.say(
      `  ${count(objects, "object")} deleted, ${count(bytes, "byte")}; ${rewritten} written anew; ${count(blanked, "body", "bodies")} had not left yet`,
    );
    for (const { what, why } of left) io.say(`  left: ${what}: ${why}`);
    if (leftCount > left.length) io.say(`  left: ${leftCount - left.length} more`);
    if (erasure.stoppedBy !== null) io.say(`  hold ${erasure.stoppedBy}`);
    io.say(`  certificate ${erasure.certificate}`);
    if (status === "running") io.note(`It goes on. Look again: portcullis erasure ${erasure.id}`);
  }
  return status === "done" ? EXIT.ok : EXIT.no;
}
