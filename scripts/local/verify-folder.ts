// A copy of the bucket in a folder: how it gets there, and how it is verified. The folder mirrors the bucket's keys.

import { constants } from "node:fs";
import { type FileHandle, mkdir, open, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative, sep } from "node:path";
import { err, ok, type Result } from "../../src/result.ts";
import { segmentKey } from "../../src/transcript/layout.ts";
import { type VerifyOptions, verifyTranscripts } from "../../src/transcript/verify.ts";
import { parseSealKeys, type SealKeys } from "../../src/transcript/verify-keys.ts";
import { parseObjectKey } from "../../src/transcript/verify-layout.ts";
import type { TranscriptObjects } from "../../src/transcript/verify-objects.ts";
import type { VerifyReport } from "../../src/transcript/verify-report.ts";
import { readPulled, scopesOf } from "./pulled-file.ts";

/**
 * Beside a copy, what `GET /.well-known/portcullis-seal-keys.json` answered when it was made. Against whoever can
 * write to the copy only keys from elsewhere prove anything.
 */
export const SEAL_KEYS_FILE = "seal-keys.json";

/** Throws where the file is no set of public seal keys. */
export async function readSealKeys(file: string): Promise<SealKeys> {
  return sealKeysOf(await readFile(file, "utf8"), file);
}

/** @param from as the error names it. */
export function sealKeysOf(text: string, from: string): SealKeys {
  const keys = parseSealKeys(JSON.parse(text));
  if (!keys.ok) throw new Error(`${from}: ${keys.error}`);
  return keys.value;
}

/** Throws where the folder, or what it is a copy of, can't be listed or read. What is no file in it is a finding. */
export async function verifyFolder(folder: string, options: VerifyOptions): Promise<VerifyReport> {
  const objects = await folderObjects(folder);
  const scopes = options.scopes ?? scopesOf(await readPulled(folder));
  return verifyTranscripts(objects, { ...options, scopes });
}

async function folderObjects(folder: string): Promise<TranscriptObjects> {
  const top = await readdir(folder);
  return { keys: (prefix) => listFiles(folder, prefix, top), open: (key) => openFile(join(folder, key)) };
}

/**
 * Everything but folders, links included: whatever else stands there is nobody's object, and a finding. So is what
 * stands in a folder whose name differs in case alone: on some disks it is the same one, in the bucket it never is.
 */
async function* listFiles(folder: string, prefix: string, top: readonly string[]): AsyncGenerator<string> {
  for (const name of top.filter((one) => `${one.toLowerCase()}/` === prefix)) {
    const entries = await readdir(join(folder, name), { recursive: true, withFileTypes: true }).catch(
      (cause: NodeJS.ErrnoException) => {
        if (cause.code === "ENOTDIR") return null;
        throw cause;
      },
    );
    if (entries === null) yield name;
    for (const entry of entries ?? [])
      if (!entry.isDirectory()) yield relative(folder, join(entry.parentPath, entry.name)).split(sep).join("/");
  }
}

/** A link leads out of the copy, and a pipe has no end: only a plain file is an object. */
async function openFile(path: string): Promise<Result<AsyncIterable<Uint8Array>, string>> {
  let file: FileHandle;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (cause) {
    return err((cause as NodeJS.ErrnoException).code === "ELOOP" ? NOT_A_FILE : "can't be read");
  }
  if ((await file.stat()).isFile()) return ok(file.createReadStream());
  await file.close();
  return err(NOT_A_FILE);
}

const NOT_A_FILE = "not a plain file";

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
    if (name === undefined || name.kind === "segment" || copied.has(key)) continue;
    if (name.kind === "raw" || copied.has(segmentKey(name.partition.path, name.firstSeq))) await copy(key);
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
