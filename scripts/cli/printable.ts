// What is printed was written by others: agents' ids, admins' reasons, keys of a bucket. None of it may command a terminal.

import type { Io } from "./command.ts";

const UNPRINTABLE = /[^\P{C}]/gu;

/** Control, format and unassigned characters, lone surrogates and newlines as `\u{…}`. */
export const printable = (text: string): string =>
  text.replace(UNPRINTABLE, (char) => `\\u{${char.codePointAt(0)!.toString(16)}}`);

/** One line of JSON that is the same document with the same characters escaped. */
export const printableJson = (value: unknown): string => escapeJson(JSON.stringify(value));

/** A text that is JSON already: outside of strings no such character but white space can stand. */
export const escapeJson = (json: string): string =>
  json.replace(UNPRINTABLE, (char) =>
    [...Array(char.length).keys()].map((i) => `\\u${char.charCodeAt(i).toString(16).padStart(4, "0")}`).join(""),
  );

export const utc = (timeMs: number): string => new Date(timeMs).toISOString().replace("T", " ");
export const utcMinute = (timeMs: number): string => `${utc(timeMs).slice(0, 16)}Z`;

export const count = (number: number, one: string, many = `${one}s`): string =>
  `${number} ${number === 1 ? one : many}`;

/** Columns as wide as their widest cell. Headings are for a person: programs read lines that are all alike. */
export function table(rows: readonly (readonly string[])[], headings: readonly string[], { isRead }: Io): string[] {
  const clean = (isRead ? [headings, ...rows] : rows).map((row) => row.map(printable));
  const widths = (clean[0] ?? []).map((_, column) => Math.max(...clean.map((row) => row[column]?.length ?? 0)));
  return clean.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join("  ")
      .trimEnd(),
  );
}
