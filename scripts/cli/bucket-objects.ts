// A bucket as `verify` reads it, without a copy: listed once, then every object streamed as it is asked for.

import { err, ok } from "../../src/result.ts";
import { segmentKey } from "../../src/transcript/layout.ts";
import { INDEX_PREFIX } from "../../src/transcript/segment-index.ts";
import { parseObjectKey } from "../../src/transcript/verify-layout.ts";
import type { OBJECT_PREFIXES, TranscriptObjects } from "../../src/transcript/verify-objects.ts";
import { listObjects, type ObjectSource } from "../local/object-source.ts";
import { CommandError, EXIT } from "./command.ts";

const TRIES = 3;
const PAUSE_MS = 500;

type Prefix = (typeof OBJECT_PREFIXES)[number];

/**
 * A gate may write to it meanwhile. In the order in which `pull` copies: what the index names is in the bucket when the
 * rest is listed, and of each segment that is listed all bodies are.
 */
export async function bucketObjects(source: ObjectSource, withBodies: boolean): Promise<TranscriptObjects> {
  const index = await keysUnder(source, INDEX_PREFIX);
  const bodies = new Set(withBodies ? await keysUnder(source, "bodies/") : []);
  const others = (await keysUnder(source, "transcripts/")).filter((key) => !key.startsWith(INDEX_PREFIX));
  const segments = new Set([...index, ...others]);
  if (withBodies)
    for (const key of await keysUnder(source, "bodies/")) {
      const name = parseObjectKey(key);
      const isOfListed =
        name?.kind === "raw" ||
        (name?.kind === "volume" && segments.has(segmentKey(name.partition.path, name.firstSeq)));
      if (isOfListed) bodies.add(key);
    }
  const keys: Record<Prefix, Iterable<string>> = {
    "transcripts/": segments,
    "bodies/": bodies,
    "erasures/": await keysUnder(source, "erasures/"),
  };
  return {
    keys: (prefix) => keys[prefix],
    open: async (key) => {
      const opened = await source.open(key, 0);
      return opened === null ? err("gone since it was listed") : ok(wholeOf(source, key, opened));
    },
  };
}

async function keysUnder(source: ObjectSource, prefix: string): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of listObjects(source, prefix)) keys.push(key);
  return keys;
}

type Opened = NonNullable<Awaited<ReturnType<ObjectSource["open"]>>>;

/** Where the connection breaks off it goes on from there: half an object would pass for an altered one. */
async function* wholeOf(source: ObjectSource, key: string, first: Opened): AsyncGenerator<Uint8Array> {
  let reached = 0;
  let opened: Opened | null = first;
  for (let tries = 1; ; tries++) {
    try {
      // Who knows no ranges begins anew.
      let at = opened.offset;
      for await (const chunk of opened.body) {
        const rest = chunk.subarray(Math.min(chunk.length, Math.max(0, reached - at)));
        at += chunk.length;
        reached += rest.length;
        if (rest.length > 0) yield rest;
      }
      return;
    } catch (cause) {
      if (tries === TRIES) throw brokenOff(source, key, (cause as Error).message);
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    opened = await source.open(key, reached);
    if (opened === null || opened.offset > reached) throw brokenOff(source, key, "it is not there any more");
  }
}

const brokenOff = ({ name }: ObjectSource, key: string, why: string): CommandError =>
  new CommandError(EXIT.unreachable, `The ${name} broke off in the middle of ${key}: ${why}`);
