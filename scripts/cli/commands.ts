// Which commands there are, and what becomes of a command line: the table, and one way through it.

import { agent } from "./agent.ts";
import { approvals, approve, deny } from "./approvals.ts";
import { type Command, CommandError, EXIT, type Io, UsageError } from "./command.ts";
import { erase, readErasure } from "./erase.ts";
import { hold, holds } from "./holds.ts";
import { ps, switches } from "./list.ts";
import { login, logout } from "./login.ts";
import { mandates, revokeMandate } from "./mandates.ts";
import { narrow } from "./narrow.ts";
import { policy } from "./policy.ts";
import { pull } from "./pull.ts";
import { quota } from "./quota.ts";
import { show } from "./show.ts";
import { kill, lift, pause, readOne, resume } from "./switch.ts";
import { tail } from "./tail.ts";
import { verify } from "./verify.ts";

const commands: ReadonlyMap<string, Command> = new Map([
  ["kill", kill],
  ["pause", pause],
  ["resume", resume],
  ["lift", lift],
  ["narrow", narrow],
  ["ps", ps],
  ["quota", quota],
  ["switches", switches],
  ["switch", readOne],
  ["tail", tail],
  ["show", show],
  ["pull", pull],
  ["verify", verify],
  ["erase", erase],
  ["erasure", readErasure],
  ["hold", hold],
  ["holds", holds],
  ["mandates", mandates],
  ["revoke-mandate", revokeMandate],
  ["approvals", approvals],
  ["approve", approve],
  ["deny", deny],
  ["policy", policy],
  ["agent", agent],
  ["login", login],
  ["logout", logout],
]);

const usage = (): string => `portcullis <command> [--help] [--json]

${[...commands].map(([name, { summary }]) => `  ${name.padEnd(14)} ${summary}`).join("\n")}

Exit: 0 ok, 1 refused or not as it should be, 2 usage, 3 not signed in or not allowed, 4 the gate could not be reached.`;

/** In the hour of an incident the whole of it would hide what was wrong. */
const synopsis = (name: string, { usage: text }: Command): string =>
  `${text.split("\n\n", 1)[0]}\nAll of it: npx portcullis ${name} --help`;

/** Runs a command, and says what was wrong with it. The exit code to end with; throws for a bug. */
export async function runCommand([name, ...args]: readonly string[], io: Io): Promise<number> {
  const isHelp = (word: string | undefined): boolean => word === "--help" || word === "-h";
  if (isHelp(name) || name === "help") {
    io.usage(usage(), "asked");
    return EXIT.ok;
  }
  const command = name === undefined ? undefined : commands.get(name);
  if (command === undefined) {
    if (name === undefined) io.usage(usage(), "not asked");
    else io.note(`${name}: no such command. All of them: npx portcullis --help`);
    return EXIT.usage;
  }
  // What comes behind two dashes is of a command that this one runs.
  const own = args.includes("--") ? args.slice(0, args.indexOf("--")) : args;
  if (own.some(isHelp)) {
    io.usage(command.usage, "asked");
    return EXIT.ok;
  }
  try {
    return await command.run(args, io);
  } catch (cause) {
    if (!(cause instanceof CommandError)) throw cause;
    io.note(cause.message);
    if (cause instanceof UsageError) io.usage(synopsis(name!, command), "not asked");
    return cause.exitCode;
  }
}
