// Says what a copy was held to, where that is less than everything.

import type { CopyScope } from "../../src/transcript/verify-index.ts";
import { PULLED_FILE } from "../local/pulled-file.ts";
import type { Io } from "./command.ts";
import { utc } from "./printable.ts";

/** Whoever can write to the copy can narrow what it says of itself, so that is told: all but "everything, to the end". */
export function noteScopes(scopes: readonly CopyScope[], io: Io): void {
  const described = scopes.map(describeScope);
  if (described.includes(EVERYTHING)) return;
  const held =
    described.length === 0
      ? `No pull has left a ${PULLED_FILE} here: a transcript that is gone as a whole does not show.`
      : `Held to the index of segments as ${PULLED_FILE} says: ${described.join("; ")}.`;
  io.note(`${held} For a copy of everything say --whole.`);
}

const EVERYTHING = "everything";

function describeScope({ human, task, instance, fromMs, toMs, untilMs }: CopyScope): string {
  const of = Object.entries({ human, task, instance }).flatMap(([name, id]) =>
    id === undefined ? [] : `${name} ${id}`,
  );
  const since = fromMs === undefined ? [] : [`from ${spellTime(fromMs)}`];
  const until = toMs === undefined ? [] : [`to ${spellTime(toMs)}`];
  const what = [...of, ...since, ...until].join(", ") || EVERYTHING;
  return untilMs === null ? what : `${what}, as of ${spellTime(untilMs)}`;
}

/** A file may say any number. */
const spellTime = (ms: number): string => (Math.abs(ms) <= 8.64e15 ? utc(ms) : String(ms));
