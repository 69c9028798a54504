// kill, pause, resume, lift.

import { randomUUID } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { onlyOperand, parseArguments, parseReason, parseUntil } from "./arguments.ts";
import { type Command, CommandError, EXIT, type Io, UsageError } from "./command.ts";
import { CONNECTION, CONNECTION_USAGE, type Connection, connect } from "./connection.ts";
import type { Progress, Receipt } from "./gate-answers.ts";
import { ask, parseLifted, parseReceipt, parseResumed, readSwitch } from "./gate-client.ts";
import { count } from "./printable.ts";
import { reachesNobody, receiptLines, standingLine } from "./receipt-lines.ts";
import { followSwitch } from "./switch-events.ts";
import { describeTarget, parseSelector, REACH_USAGE, resolveSelector } from "./target.ts";

type Act = "kill" | "pause";

const REASONED = { ...CONNECTION, reason: { type: "string" } } as const;
const FLIP = {
  ...REASONED,
  until: { type: "string" },
  wait: { type: "boolean", default: false },
  yes: { type: "boolean", default: false },
  save: { type: "string" },
} as const;

const FLIP_USAGE = `
Reaches:
${REACH_USAGE}

  --reason "…"         why; it is on record
  --until <time>       when it opens by itself: 30m, 2h, 7d, or a time in ISO 8601
  --wait               follow it until it is done, up to two minutes (as always at a terminal)
  --save <file>        keep the signed receipt (JWS)
  --yes                do not ask, where the reach is everything
${CONNECTION_USAGE}

Exit: 0 done, 1 it stands and is not through yet, 2 usage, 3 not allowed, 4 the gate could not be reached.`;

export const kill: Command = {
  summary: "stop whoever is in reach, for good",
  usage: `portcullis kill <reach> [<target>] --reason "…" [--until <time>] [--wait] [--save <file>]
${FLIP_USAGE}
With a break-glass key in PORTCULLIS_BREAK_GLASS it needs no sign-in.`,
  run: (args, io) => flip("kill", args, io),
};

export const pause: Command = {
  summary: "hold whoever is in reach until it is resumed",
  usage: `portcullis pause <reach> [<target>] --reason "…" [--until <time>] [--wait] [--save <file>]\n${FLIP_USAGE}`,
  run: (args, io) => flip("pause", args, io),
};

async function flip(act: Act, args: readonly string[], io: Io): Promise<number> {
  const { operands, options } = parseArguments(args, FLIP);
  const asked = parseSelector(operands);
  const reason = parseReason(options.reason);
  const untilMs = options.until === undefined ? undefined : parseUntil(options.until, Date.now());
  const connection = await connect(options, io, act === "kill");
  const selector = await resolveSelector(asked, connection);
  if (selector.reach === "everything" && !options.yes) await confirmEverything(act, connection, io);
  const isFollowed = options.wait || (io.isWatched && !options.json);
  const body = { act, ...selector, reason, ...(untilMs === undefined ? {} : { untilMs }) };
  const receipt = await carryOut(connection, "switches", body, isFollowed, io);
  return report(receipt, options, io);
}

/** Under one key through all attempts: whatever became of the first, it is one switch. */
export async function carryOut(
  connection: Connection,
  path: string,
  body: object,
  isFollowed: boolean,
  io: Io,
): Promise<Receipt> {
  const key = { "idempotency-key": randomUUID() };
  const asked = { method: "POST", body, isRepeatable: true } as const;
  if (isFollowed) {
    const headers = { ...key, accept: "text/event-stream" };
    const response = await ask(connection, path, { ...asked, headers, isStream: true });
    const receipt = await followSwitch(response, (progress) => {
      if (io.isWatched && progress.status !== "done") io.note(progressLine(progress));
    });
    if (receipt !== null) return receipt;
  }
  return parseReceipt(connection, await ask(connection, path, { ...asked, headers: key }));
}

async function confirmEverything(act: Act, { gate }: Connection, io: Io): Promise<void> {
  const answer = await io.ask(`This is about everybody at ${gate}. To ${act} everything, type "everything": `);
  if (answer === null) throw new UsageError(`${act} everything needs --yes where nobody can be asked`);
  if (answer.trim() !== "everything") throw new CommandError(EXIT.no, "Nothing was done.");
}

const progressLine = ({ status, reached, cut, unconfirmed, unreached }: Progress): string =>
  `  ${status}: reached ${reached}, cut ${cut}, unconfirmed ${unconfirmed}, not reached ${unreached}`;

export async function report(
  receipt: Receipt,
  options: { readonly json: boolean; readonly save?: string | undefined },
  io: Io,
): Promise<number> {
  if (options.json) io.json(receipt);
  else for (const line of receiptLines(receipt, Date.now())) io.say(line);
  if (reachesNobody(receipt)) {
    const stands =
      receipt.switch.act === "narrow" ? "older ID tokens are held to it" : "newcomers in its reach are refused";
    io.note(`Nobody was in reach. It stands: ${stands}. Is the target spelled right?`);
  }
  // The switch is a fact by now: a file that can't be written must not look as if it were not.
  if (options.save !== undefined) await save(receipt, options.save);
  return receipt.status === "done" ? EXIT.ok : EXIT.no;
}

async function save({ jws, switch: { id } }: Receipt, file: string): Promise<void> {
  try {
    await writeFile(file, `${jws}\n`);
  } catch (cause) {
    throw new CommandError(
      EXIT.no,
      `The switch stands, but its receipt was not saved: ${(cause as Error).message}. Get it again: portcullis switch ${id} --save <file>`,
    );
  }
}

export const resume: Command = {
  summary: "let whoever was paused go on",
  usage: `portcullis resume <reach> [<target>] --reason "…"

Opens every pause of exactly this reach and target.

Reaches:
${REACH_USAGE}

${CONNECTION_USAGE}`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, REASONED);
    const asked = parseSelector(operands);
    const reason = parseReason(options.reason);
    const connection = await connect(options, io);
    const selector = await resolveSelector(asked, connection);
    const response = await ask(connection, "switches", {
      method: "POST",
      body: { act: "resume", ...selector, reason },
    });
    const switches = await parseResumed(connection, response);
    if (options.json) io.json({ switches });
    else io.say(`Resumed: ${describeTarget(selector)}, ${count(switches.length, "pause")} opened.`);
    return EXIT.ok;
  },
};

export const lift: Command = {
  summary: "open a switch, so that newcomers may come in again",
  usage: `portcullis lift <switch id> --reason "…"

What a kill has stopped stays so. A kill of everything or of an upstream takes two operators within an hour (exit 1 after the first).

${CONNECTION_USAGE}`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, REASONED);
    const id = onlyOperand(operands, "switch id");
    const reason = parseReason(options.reason);
    const connection = await connect(options, io);
    const path = `switches/${encodeURIComponent(id)}/lift`;
    const response = await ask(connection, path, { method: "POST", body: { reason } });
    const lifted = await parseLifted(connection, response);
    if (options.json) io.json(lifted);
    else if (lifted.awaiting === undefined) io.say(`Lifted: ${lifted.act} of ${describeTarget(lifted)}.`);
    else io.say(`Not lifted yet: ${lifted.act} of ${describeTarget(lifted)} awaits ${lifted.awaiting}.`);
    return lifted.awaiting === undefined ? EXIT.ok : EXIT.no;
  },
};

export const readOne: Command = {
  summary: "one switch, with its receipt",
  usage: `portcullis switch <switch id> [--save <file>]

  --save <file>        keep the signed receipt (JWS)
${CONNECTION_USAGE}

Exit: 0 done, 1 not through yet.`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, { ...CONNECTION, save: { type: "string" } });
    const id = onlyOperand(operands, "switch id");
    const connection = await connect(options, io);
    const receipt = await readSwitch(connection, id);
    if (options.json) io.json(receipt);
    else {
      for (const line of receiptLines(receipt, Date.now())) io.say(line);
      const standing = standingLine(receipt);
      if (standing !== null) io.say(standing);
    }
    if (options.save !== undefined) await save(receipt, options.save);
    return receipt.status === "done" ? EXIT.ok : EXIT.no;
  },
};
