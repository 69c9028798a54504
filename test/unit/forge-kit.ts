// What somebody can do who holds the seal keys, or a gate that is wrong: change what records say, and chain and seal them anew.

import { gunzipSync, gzipSync } from "node:zlib";
import type { KeyRing } from "../../src/grant/keys.ts";
import { type Envelope, FIRST_PREV, sha256Hex } from "../../src/transcript/envelope.ts";
import { segmentKey } from "../../src/transcript/layout.ts";
import { readSealLine, writeSealLine } from "../../src/transcript/seal.ts";
import { parseSealKeys, type SealKeys } from "../../src/transcript/verify-keys.ts";
import { parseObjectKey } from "../../src/transcript/verify-layout.ts";
import type { Objects } from "./transcript-kit.ts";

// biome-ignore lint/suspicious/noExplicitAny: a forger changes whatever they like
export type Forged = Record<string, any>;

/** The records of one transcript, in their order. */
export const recordsIn = (objects: Objects, partition: string): Forged[] =>
  segmentsOf(objects, partition).flatMap((key) =>
    linesIn(objects, key)
      .slice(0, -1)
      .map((line) => JSON.parse(line)),
  );

/**
 * Gives what stands there when the records of a transcript are changed: one segment, whose `seq`, chain and seal hold. References
 * to a `seq` are the change's own affair.
 */
export function forge(
  objects: Objects,
  partition: string,
  ring: KeyRing,
  change: (records: Forged[]) => readonly Forged[],
): Objects {
  const keys = segmentsOf(objects, partition);
  const [first] = keys;
  const before = readSealLine(linesIn(objects, keys.at(-1)!).at(-1)!, keysOf(ring));
  if (!before.ok) throw new Error(before.error);
  let prev: string = FIRST_PREV;
  const lines = change(recordsIn(objects, partition)).map((record, seq) => {
    const { v, type, seq: _seq, at, prev: _prev, ...fields } = record as Envelope;
    const line = JSON.stringify({ v, type, seq, at, prev, ...fields });
    prev = sha256Hex(line);
    return line;
  });
  const seal = { ...before.value, first: 0, last: lines.length - 1, prev: FIRST_PREV, head: prev };
  const forged = new Map([...objects].filter(([key]) => !keys.includes(key)));
  forged.set(first!, gzip(`${[...lines, writeSealLine(ring, seal)].join("\n")}\n`));
  // Bodies stand with the first segment, as they would had it been the only one.
  for (const key of keys.slice(1)) {
    const bodies = key.replace("transcripts/", "bodies/");
    const moved = objects.get(bodies);
    if (moved === undefined) continue;
    forged.delete(bodies);
    const at = segmentKey(partition, 0).replace("transcripts/", "bodies/");
    const all = [...(forged.has(at) ? [textOf(forged.get(at)!)] : []), textOf(moved)].join("");
    forged.set(at, gzip(all));
  }
  return forged;
}

const gzip = (text: string): Uint8Array => gzipSync(new TextEncoder().encode(text));
const textOf = (object: Uint8Array): string => new TextDecoder().decode(gunzipSync(object));

const linesIn = (objects: Objects, key: string): string[] => textOf(objects.get(key)!).trimEnd().split("\n");

const segmentsOf = (objects: Objects, partition: string): string[] =>
  [...objects.keys()]
    .filter((key) => {
      const name = parseObjectKey(key);
      return name?.kind === "segment" && name.partition.path === partition;
    })
    .sort();

function keysOf(ring: KeyRing): SealKeys {
  const keys = parseSealKeys(ring.jwks);
  if (!keys.ok) throw new Error(keys.error);
  return keys.value;
}
