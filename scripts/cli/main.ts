// The command line: `npx portcullis <command>`. Which commands there are is the table; what each says of itself is beside it.

import { createInterface } from "node:readline/promises";
import { type Command, CommandError, EXIT, type Io, UsageError } from "./command.ts";
import { ps, switches } from "./list.ts";
import { login, logout } from "./login.ts";
import { escapeJson, printable, printableJson } from "./printable.ts";
import { pull } from "./pull.ts";
import { kill, lift, pause, readOne, resume } from "./switch.ts";
import { tail } from "./tail.ts";
import { verify } from "./verify.ts";

const commands: ReadonlyMap<string, Command> = new Map([
  ["kill", kill],
  ["pause", pause],
  ["resume", resume],
  ["lift", lift],
  ["ps", ps],
  ["switches", switches],
  ["switch", readOne],
  ["tail", tail],
  ["pull", pull],
  ["verify", verify],
  ["login", login],
  ["logout", logout],
]);

const usage = (): string => `portcullis <command> [--help] [--json]

${[...commands].map(([name, { summary }]) => `  ${name.padEnd(10)} ${summary}`).join("\n")}

Exit: 0 ok, 1 refused or not as it should be, 2 usage, 3 not signed in or not allowed, 4 the gate could not be reached.`;

const io: Io = {
  say: (line) => void process.stdout.write(`${printable(line)}\n`),
  note: (line) => void process.stderr.write(`${printable(line)}\n`),
  json: (value) => void process.stdout.write(`${printableJson(value)}\n`),
  exact: (line) => void process.stdout.write(`${process.stdout.isTTY ? escapeJson(line) : line}\n`),
  ask: async (question) => {
    if (!process.stdin.isTTY || !process.stderr.isTTY) return null;
    const terminal = createInterface({ input: process.stdin, output: process.stderr });
    try {
      return await terminal.question(printable(question));
    } finally {
      terminal.close();
    }
  },
  env: process.env,
  isWatched: process.stderr.isTTY === true,
};

async function main([name, ...args]: readonly string[]): Promise<number> {
  const command = name === undefined ? undefined : commands.get(name);
  if (command === undefined) {
    const isAsked = name === "--help" || name === "-h" || name === "help";
    (isAsked ? process.stdout : process.stderr).write(
      `${name === undefined || isAsked ? "" : `${printable(name)}: no such command\n\n`}${usage()}\n`,
    );
    return isAsked ? EXIT.ok : EXIT.usage;
  }
  if (args.includes("--help") || args.includes("-h")) {
    process.stdout.write(`${command.usage}\n`);
    return EXIT.ok;
  }
  try {
    return await command.run(args, io);
  } catch (cause) {
    if (!(cause instanceof CommandError)) throw cause;
    io.note(cause.message);
    if (cause instanceof UsageError) process.stderr.write(`\n${command.usage}\n`);
    return cause.exitCode;
  }
}

// `… | head` has read enough.
process.stdout.on("error", (cause: NodeJS.ErrnoException) => {
  if (cause.code !== "EPIPE") throw cause;
  process.exit(EXIT.ok);
});
process.exitCode = await main(process.argv.slice(2));
