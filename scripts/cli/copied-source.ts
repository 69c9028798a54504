// A transcript in a folder that `pull` has filled: the keys of the bucket as paths.

import { createReadStream } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import { pipeline } from "node:stream";
import { createGunzip } from "node:zlib";
import type { BodyPart } from "../../src/transcript/body-line.ts";
import { type InstancePartition, instancePartition, KEY_ID } from "../../src/transcript/layout.ts";
import { type BodyStore, findErasure, locateBody } from "../../src/transcript/locate-body.ts";
import { statePart } from "../../src/transcript/stated-part.ts";
import { parseObjectKey } from "../../src/transcript/verify-layout.ts";
import { readSealKeys, SEAL_KEYS_FILE } from "../local/verify-folder.ts";
import { CommandError, EXIT } from "./command.ts";
import { type BodyRead, linesOf, type TranscriptSource } from "./transcript-source.ts";

/** Whether `pull` has filled this folder, or an S3 tool. */
export const isCopy = async (folder: string): Promise<boolean> =>
  (await stat(join(folder, "transcripts")).catch(() => null))?.isDirectory() === true;

export async function openCopiedSource(folder: string, operands: readonly string[]): Promise<TranscriptSource> {
  const of = operands.length === 1 ? await findCopied(folder, operands[0]!) : idsOf(operands);
  const partition = instancePartition(of);
  const store = storeOf(folder);
  const lines = async function* (): AsyncGenerator<string> {
    let isEmpty = true;
    for await (const { key } of store.list(`transcripts/${partition}/`)) {
      if (parseObjectKey(key)?.kind !== "segment") continue;
      isEmpty = false;
      yield* orSay(key, linesOf(gunzipped(join(folder, key))));
    }
    if (isEmpty) throw new CommandError(EXIT.no, `No transcript with these ids in ${folder}`);
  };
  return {
    isLive: false,
    lines,
    body: (seq, part) =>
      readBody(seq, part).catch((cause: unknown) => refuseDamaged(`the body of record ${seq}`, cause)),
  };

  async function readBody(seq: number, part: BodyPart): Promise<BodyRead> {
    const stated = await statePart(lines(), seq, part);
    if (stated === null) return { absent: `no record ${seq} with a body of the part ${part}` };
    const keys = await readSealKeys(join(folder, SEAL_KEYS_FILE)).catch(() => null);
    const erasure =
      keys === null ? null : await findErasure(store, { ...of, atMs: stated.atMs }, { keys, issuer: null });
    if (erasure !== null) return { absent: `erased: by the certificate ${erasure}` };
    const located = await locateBody(store, partition, { ...stated, seq, part });
    const isNothing = located === null || (located.runs.length + located.raw.length === 0 && stated.bytes !== 0);
    if (isNothing) return { absent: "not in this copy" };
    const files = located.raw.map(({ key }) => join(folder, key));
    return { bytes: orSay(`the body of record ${seq}`, readAll(located.runs, files)) };
  }
}

/** Whoever can write to the copy can put anything there: that is for `verify` to name, and nothing to fall over. */
function refuseDamaged(what: string, cause: unknown): never {
  if (cause instanceof CommandError) throw cause;
  throw new CommandError(
    EXIT.no,
    `${what} can't be read: ${(cause as Error).message}. What is wrong with the copy: portcullis verify`,
  );
}

async function* orSay<T>(what: string, items: AsyncIterable<T>): AsyncGenerator<T> {
  try {
    yield* items;
  } catch (cause) {
    refuseDamaged(what, cause);
  }
}

async function* readAll(runs: readonly Uint8Array[], files: readonly string[]): AsyncGenerator<Uint8Array> {
  yield* runs;
  for (const file of files) yield* createReadStream(file) as AsyncIterable<Uint8Array>;
}

function gunzipped(file: string): AsyncIterable<Uint8Array> {
  // An error comes with the bytes, where it is thrown.
  return pipeline(createReadStream(file), createGunzip(), () => {});
}

function idsOf([human = "", task = "", instance = ""]: readonly string[]): InstancePartition {
  if (![human, task, instance].every((id) => KEY_ID.test(id)))
    throw new CommandError(EXIT.no, "No transcript with these ids: they are none");
  return { human, task, instance };
}

/** The one instance whose id begins so. */
async function findCopied(folder: string, beginning: string): Promise<InstancePartition> {
  const found: InstancePartition[] = [];
  const top = join(folder, "transcripts");
  for (const human of await valuesIn(top, "human"))
    for (const task of await valuesIn(join(top, `human=${human}`), "task"))
      for (const instance of await valuesIn(join(top, `human=${human}`, `task=${task}`), "instance"))
        if (instance.startsWith(beginning)) found.push({ human, task, instance });
  const [one] = found;
  if (one !== undefined && found.length === 1) return one;
  throw new CommandError(
    one === undefined ? EXIT.no : EXIT.usage,
    one === undefined
      ? `No instance in ${folder} begins with ${beginning}`
      : `${found.length} instances in ${folder} begin with ${beginning}. Give more of the id.`,
  );
}

/** Folders `<name>=<id>`, by their ids. */
const valuesIn = async (folder: string, name: string): Promise<string[]> =>
  (await readdir(folder, { withFileTypes: true }))
    .filter((entry) => entry.isDirectory() && entry.name.startsWith(`${name}=`))
    .map((entry) => entry.name.slice(name.length + 1))
    .filter((id) => KEY_ID.test(id));

const storeOf = (folder: string): BodyStore => ({
  async *list(prefix) {
    // Of a prefix that ends within a name, the folder it stands in.
    const at = join(folder, prefix.slice(0, prefix.lastIndexOf("/")));
    const entries = await readdir(at, { withFileTypes: true }).catch(() => []);
    const keys = entries
      .filter((entry) => entry.isFile())
      .map((entry) => relative(folder, join(entry.parentPath, entry.name)).split(sep).join("/"))
      .filter((key) => key.startsWith(prefix))
      .sort();
    for (const key of keys) yield { key, bytes: (await stat(join(folder, key))).size };
  },
  get: (key) => readFile(join(folder, key)).catch(() => null),
});
