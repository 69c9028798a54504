// A copy of the bucket in a folder: how it gets there, and how it is verified. The folder mirrors the bucket's keys.

import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { segmentKey } from "../../src/transcript/layout.ts";
import { type VerifyOptions, type VerifyReport, verifyTranscripts } from "../../src/transcript/verify.ts";
import { parseSealKeys, type SealKeys } from "../../src/transcript/verify-keys.ts";
import { parseObjectKey } from "../../src/transcript/verify-layout.ts";

/**
 * Beside a copy, what `GET /.well-known/portcullis-seal-keys.json` answered when it was made. Against whoever can
 * write to the copy only keys from elsewhere prove anything.
 */
export const SEAL_KEYS_FILE = "seal-keys.json";

/** Throws where the file is no set of public seal keys. */
export async function readSealKeys(file: string): Promise<SealKeys> {
  const keys = parseSealKeys(JSON.parse(await readFile(file, "utf8")));
  if (!keys.ok) throw new Error(`${file}: ${keys.error}`);
  return keys.value;
}

/** Throws where the folder can't be listed. A file in it that can't be read is a finding. */
export async function verifyFolder(folder: string, options: VerifyOptions): Promise<VerifyReport> {
  await readdir(folder);
  const keys = [...(await listFiles(folder, "transcripts")), ...(await listFiles(folder, "bodies"))];
  return verifyTranscripts({ keys: () => keys, get: (key) => readFile(join(folder, key)).catch(() => null) }, options);
}

/** Everything but folders, links included: whatever else stands there is nobody's object, and a finding. */
async function listFiles(folder: string, prefix: string): Promise<string[]> {
  const entries = await readdir(join(folder, prefix), { recursive: true, withFileTypes: true }).catch(
    (cause: NodeJS.ErrnoException) => {
      if (cause.code === "ENOENT") return [];
      throw cause;
    },
  );
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)).split(sep).join("/"));
}

/** The part of an `R2Bucket` that a copy needs. */
export interface CopiedBucket {
  list(options: { prefix?: string; cursor?: string }): Promise<{
    readonly objects: readonly { readonly key: string }[];
    readonly truncated: boolean;
    readonly cursor?: string;
  }>;
  get(key: string): Promise<{ arrayBuffer(): Promise<ArrayBuffer> } | null>;
}

/** Copies every object of a bucket into a folder. Returns how many. */
export async function pullBucket(bucket: CopiedBucket, folder: string): Promise<number> {
  const copied = new Set<string>();
  const copy = async (key: string) => {
    if (await copyObject(bucket, key, folder)) copied.add(key);
  };
  for await (const key of listBucket(bucket, "")) await copy(key);
  // Bodies were listed before segments. Of a segment that came in between, they are in the bucket now and not here.
  for await (const key of listBucket(bucket, "bodies/")) {
    const name = parseObjectKey(key);
    const segment = name === undefined ? "" : segmentKey(name.partition.path, name.firstSeq);
    if (copied.has(segment) && !copied.has(key)) await copy(key);
  }
  return copied.size;
}

async function* listBucket(bucket: CopiedBucket, prefix: string): AsyncGenerator<string> {
  let cursor: string | undefined;
  do {
    const listed = await bucket.list({ prefix, ...(cursor === undefined ? {} : { cursor }) });
    for (const { key } of listed.objects) yield key;
    cursor = listed.truncated ? listed.cursor : undefined;
  } while (cursor !== undefined);
}

async function copyObject(bucket: CopiedBucket, key: string, folder: string): Promise<boolean> {
  // A key is whatever somebody put there: it must not lead out of the folder.
  if (key.split("/").some((part) => part === "" || part === "." || part === "..") || /[\\\0]/.test(key))
    throw new Error(`the bucket holds a key that can't be a path: ${JSON.stringify(key)}`);
  const object = await bucket.get(key);
  if (object === null) return false;
  await writeForOwner(join(folder, key), new Uint8Array(await object.arrayBuffer()));
  return true;
}

/** What agents did, and for whom, is nobody else's on this machine. What stands there is replaced, its mode and all. */
export async function writeForOwner(path: string, content: string | Uint8Array): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  await rm(path, { force: true });
  await writeFile(path, content, { mode: 0o600, flag: "wx" });
}
