// Every field of every type of record, changed and sealed anew: what is held against nothing is named here, and in docs/compliance.md.

import { beforeAll, expect, it } from "vitest";
import { type Forged, forge, recordsIn } from "../unit/forge-kit.ts";
import { findingsOf } from "../unit/transcript-kit.ts";
import { partitionOf, type Story, verify, writeStory } from "./forged-story.ts";
import { deployment } from "./kit.ts";

let story: Story;
beforeAll(async () => {
  story = await writeStory();
}, 60_000);

const kindOf = ({ type, act, state, outcome, counted }: Forged): string =>
  [type, act, state, outcome === "lost" ? "lost" : undefined, counted === undefined ? undefined : "counted"]
    .filter((part) => part !== undefined)
    .join(" ");

/** Paths to what is no object or array; places in arrays are all one. */
function* leavesOf(value: unknown, path: readonly string[] = []): Generator<readonly string[]> {
  if (typeof value !== "object" || value === null) yield path;
  else for (const [name, member] of Object.entries(value)) yield* leavesOf(member, [...path, name]);
}

/** Another value of the same type. */
function changed(value: unknown): unknown {
  if (typeof value === "number") return value + 1;
  if (typeof value === "boolean") return !value;
  if (typeof value === "string") return `${value}x`;
  return "x";
}

async function isFound(id: string, seq: number, path: readonly string[], isDropped: boolean): Promise<boolean> {
  const forged = forge(story.objects, partitionOf(id), deployment.sealKeys, (records) => {
    let at: Forged = records[seq]!;
    for (const name of path.slice(0, -1)) at = at[name];
    const name = path.at(-1)!;
    if (isDropped) delete at[name];
    else at[name] = changed(at[name]);
    return records;
  });
  // A family is held together; others have no say in it.
  const family = [story.parent, story.child].includes(id) ? [story.parent, story.child] : [id];
  const beside = new Map([...forged].filter(([key]) => family.some((one) => key.includes(one))));
  return findingsOf(await verify(beside)).length > 0;
}

/**
 * Held to nothing but the seal, as far as so small a change goes: a time that is later than the next record's is told, a limit
 * below what was used is found, and so on. A label in one record (`deployment`) may differ from the next one's.
 */
const UNHELD: readonly string[] = [
  "answer lost: at",
  "answer lost: body.coding",
  "answer lost: body.mayMiss",
  "answer lost: body.mediaType",
  "answer lost: deployment",
  "answer lost: reason",
  "answer: at",
  "answer: body.coding",
  "answer: body.mediaType",
  "answer: deployment",
  "answer: headers.*.*",
  "answer: status",
  "answer: timing.endedAtMs",
  "answer: timing.firstByteAtMs",
  "answer: timing.lastByteAtMs",
  "answer: timing.startedAtMs",
  "approval approved: at",
  "approval approved: deployment",
  "approval approved: reason",
  "approval approved: validUntil",
  "approval asked: at",
  "approval asked: deployment",
  "approval asked: headers.*.*",
  "approval asked: notDelegator",
  "call: at",
  "call: body.coding",
  "call: body.mediaType",
  "call: deployment",
  "call: headers.*.*",
  "call: reserved.input-tokens",
  "call: reserved.output-tokens",
  "delegated delegate: at",
  "delegated delegate: deployment",
  "delegated return: at",
  "delegated return: deployment",
  "ended: at",
  "ended: bytesUnheard",
  "ended: deployment",
  "enrolled: at",
  "enrolled: claims.coding",
  "enrolled: claims.mediaType",
  "enrolled: deadline",
  "enrolled: deployment",
  "enrolled: limits.burst",
  "enrolled: limits.bytes",
  "enrolled: limits.calls",
  "enrolled: limits.callsPerSecond",
  "enrolled: limits.concurrency",
  "enrolled: limits.refusalsRecordedPerMinute",
  "enrolled: limits.units.usd",
  "enrolled: limits.units.usd, dropped",
  "enrolled: purpose",
  "enrolled: scope.*.where.body./max_tokens.max",
  "refused: at",
  "refused: decision.code",
  "refused: decision.code, dropped",
  "refused: decision.reason",
  "refused: deployment",
  "refused: method",
  "refused: target",
  "switched kill: accepted",
  "switched kill: at",
  "switched kill: by",
  "switched kill: deployment",
  "switched kill: reason",
  "switched kill: switch",
];

it("a field that is changed is found, but for these", { timeout: 120_000 }, async () => {
  const unheld = new Set<string>();
  const tried = new Set<string>();
  for (const id of [story.worker, story.killed, story.parent, story.child])
    for (const record of recordsIn(story.objects, partitionOf(id)))
      for (const path of leavesOf(record)) {
        // The frame is written anew by whoever forges.
        if (["v", "type", "seq", "prev"].includes(path[0]!)) continue;
        const name = `${kindOf(record)}: ${path.map((part) => (/^\d+$/.test(part) ? "*" : part)).join(".")}`;
        if (tried.has(name)) continue;
        tried.add(name);
        if (!(await isFound(id, record["seq"], path, false))) unheld.add(name);
        if (!(await isFound(id, record["seq"], path, true))) unheld.add(`${name}, dropped`);
      }
  expect(tried.size).toBeGreaterThan(200);
  expect([...unheld].sort()).toEqual(UNHELD);
});
