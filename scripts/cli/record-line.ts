// A record of a transcript in one line for a person.

import { z } from "zod";
import { utc } from "./printable.ts";

/** Of any type: a record that a newer gate writes is shown as well. */
export const recordShape = z.looseObject({
  type: z.string(),
  /** A seal has none. */
  seq: z.number().int().nonnegative().optional(),
  at: z.number().optional(),
});
export type RecordLine = z.infer<typeof recordShape>;

const word = (value: unknown): string => (typeof value === "string" || typeof value === "number" ? String(value) : "");
const refusalShape = z.object({ kind: z.string(), code: z.string().optional(), reason: z.string().optional() });
const refusal = (decision: unknown): string => {
  const { kind, code, reason } = refusalShape.safeParse(decision).data ?? {};
  return [kind, code, reason].filter((part) => part !== undefined).join(", ");
};

type Words = (record: RecordLine) => readonly string[];

/** A null prototype: a record of type `constructor` finds nothing. */
const WORDS: Readonly<Record<string, Words>> = Object.assign(Object.create(null) as Record<string, Words>, {
  enrolled: ({ agent, agentVersion, purpose }) => [word(agent), word(agentVersion), word(purpose)],
  call: ({ method, target }) => [word(method), word(target)],
  answer: ({ call, outcome, status, passedBytes, cause }) => [
    `to ${word(call)}:`,
    word(outcome),
    word(cause),
    word(status),
    `${word(passedBytes)} bytes`,
  ],
  refused: ({ method, target, decision }) => [word(method), word(target), refusal(decision)],
  switched: ({ act, reach, reason }) => [word(act), "of", `${word(reach)}:`, word(reason)],
  approval: ({ state, method, target, by, reason }) => [
    word(state),
    word(method),
    word(target),
    word(by),
    word(reason),
  ],
  ended: ({ cause, reason }) => [word(cause), word(reason)],
} satisfies Record<string, Words>);

/** Its number is what answers refer to. */
export function recordLine(record: RecordLine): string {
  const { type, seq = 0, at = 0 } = record;
  const words = (WORDS[type]?.(record) ?? []).filter((text) => text !== "");
  return [`${utc(at)} ${String(seq).padStart(5)} ${type.padEnd(8)}`, ...words].join(" ").trimEnd();
}
