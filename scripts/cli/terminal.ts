// What commands say, on streams: text for people is made fit to print here, and nowhere else.

import { createInterface } from "node:readline/promises";
import type { Io } from "./command.ts";
import { escapeJson, printable, printableJson } from "./printable.ts";

/** The part of a process's stream that is needed. */
export interface Output {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

export function createIo(out: Output, err: Output, env: Io["env"]): Io {
  return {
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
  };
}
