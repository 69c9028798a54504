// What commands say, on streams: text for people is made fit to print here, and nowhere else.

import { createInterface } from "node:readline/promises";
import { CommandError, EXIT, type Io } from "./command.ts";
import { escapeJson, printable, printableJson } from "./printable.ts";

/** The part of a process's stream that is needed. */
export interface Output {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

/** To this process's own stdout, at the pace of who reads it. */
const writeBytes = (run: Uint8Array): Promise<void> =>
  new Promise((resolve, reject) => {
    process.stdout.write(run, (cause) => (cause ? reject(cause) : resolve()));
  });

export function createIo(out: Output, err: Output, env: Io["env"], write = writeBytes): Io {
  return {
    bytes: (run) => {
      if (out.isTTY === true)
        throw new CommandError(EXIT.usage, "Exact bytes could command this terminal. Put them into a file: … > file");
      return write(run);
    },
    say: (line) => void out.write(`${printable(line)}\n`),
    note: (line) => void err.write(`${printable(line)}\n`),
    json: (value) => void out.write(`${printableJson(value)}\n`),
    exact: (line) => void out.write(`${out.isTTY === true ? escapeJson(line) : line}\n`),
    usage: (text, why) => {
      if (why === "asked") out.write(`${text}\n`);
      else err.write(`\n${text}\n`);
    },
    ask: async (question) => {
      if (!process.stdin.isTTY || err.isTTY !== true) return null;
      const terminal = createInterface({ input: process.stdin, output: process.stderr });
      try {
        return await terminal.question(printable(question));
      } finally {
        terminal.close();
      }
    },
    env,
    isWatched: err.isTTY === true,
    isRead: out.isTTY === true,
  };
}
