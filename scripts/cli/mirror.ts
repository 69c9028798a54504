// Objects into a folder, at the bucket's own keys. Objects are written once: what is there with its size is there. Half of one is a
// `.part`, which the next pull goes on with.

import { createWriteStream } from "node:fs";
import { chmod, lstat, mkdir, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import type { ObjectSource, StoredObject } from "../local/object-source.ts";
import { CommandError, EXIT } from "./command.ts";

const AT_ONCE = 8;
const TRIES = 3;
const PAUSE_MS = 500;

export interface Progress {
  /** That are in the folder now. */
  readonly objects: number;
  readonly bytes: number;
  /** Of them, those that this pull has brought. */
  readonly fetched: number;
  readonly fetchedBytes: number;
}

export class Mirror {
  readonly #source: ObjectSource;
  readonly #folder: string;
  readonly #onProgress: (progress: Progress) => void;
  /** By key; what was listed before it vanished is not among them. */
  readonly taken = new Set<string>();
  /** Keys that can't be a path. */
  readonly odd = new Set<string>();
  #progress: Progress = { objects: 0, bytes: 0, fetched: 0, fetchedBytes: 0 };

  constructor(source: ObjectSource, folder: string, onProgress: (progress: Progress) => void) {
    this.#source = source;
    this.#folder = folder;
    this.#onProgress = onProgress;
  }

  get progress(): Progress {
    return this.#progress;
  }

  /** Some at once. The first failure ends it, when those beside it have. */
  async take(objects: AsyncIterable<StoredObject>): Promise<void> {
    const iterator = objects[Symbol.asyncIterator]();
    let turn: Promise<unknown> = Promise.resolve();
    let hasFailed = false;
    // A generator takes one question after the other.
    const next = (): Promise<IteratorResult<StoredObject>> => {
      const asked = turn.then(() => iterator.next());
      turn = asked.catch(() => {});
      return asked;
    };
    const work = async (): Promise<void> => {
      while (!hasFailed) {
        const { done, value } = await next();
        if (done === true) return;
        await this.#takeOne(value);
      }
    };
    const fail = (cause: unknown): never => {
      hasFailed = true;
      throw cause;
    };
    const ended = await Promise.allSettled(Array.from({ length: AT_ONCE }, () => work().catch(fail)));
    const failed = ended.find((one) => one.status === "rejected");
    if (failed !== undefined) throw failed.reason;
  }

  async #takeOne(object: StoredObject): Promise<void> {
    const { key, bytes } = object;
    if (this.taken.has(key)) return;
    if (!isPath(key)) {
      this.odd.add(key);
      return;
    }
    const path = join(this.#folder, key);
    const isThere = await keep(path, bytes);
    const taken = isThere === true ? "taken" : isThere === null ? "odd" : await this.#fetch(object, path);
    if (taken === "odd") this.odd.add(key);
    if (taken !== "taken") return;
    this.taken.add(key);
    const { objects, fetched, fetchedBytes } = this.#progress;
    this.#progress = {
      objects: objects + 1,
      bytes: this.#progress.bytes + bytes,
      fetched: fetched + (isThere === true ? 0 : 1),
      fetchedBytes: fetchedBytes + (isThere === true ? 0 : bytes),
    };
    this.#onProgress(this.#progress);
  }

  /** `gone`: from the bucket, since it was listed. */
  async #fetch({ key, bytes }: StoredObject, path: string): Promise<"taken" | "gone" | "odd"> {
    const part = `${path}.part`;
    try {
      await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    } catch (cause) {
      // Another object stands where this one needs a folder.
      if (["ENOTDIR", "EEXIST"].includes((cause as NodeJS.ErrnoException).code ?? "")) return "odd";
      throw cause;
    }
    for (let tries = 1; ; tries++) {
      const reached = await partSize(part, bytes);
      // All of it came, and its name did not.
      if (reached < bytes || bytes === 0) {
        const opened = await this.#source.open(key, reached);
        if (opened === null) {
          await rm(part, { force: true });
          return "gone";
        }
        const flags = opened.offset === reached && reached > 0 ? "a" : "w";
        // A connection that breaks off leaves a part. What the disk refuses is no better the next time.
        await pipeline(opened.body, createWriteStream(part, { flags, mode: 0o600 })).catch(throwUnlessBroken);
      }
      const { size } = await lstat(part);
      if (size === bytes) break;
      if (size > bytes) await rm(part);
      if (tries === TRIES)
        throw new CommandError(
          EXIT.unreachable,
          `${this.#source.name} gave ${size} of the ${bytes} bytes of ${key}. Pull again: it goes on from there`,
        );
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    await rename(part, path);
    return "taken";
  }
}

/** Of a file's name most disks take 255 bytes, and `.part` comes behind it. */
const NAME_MAX_BYTES = 250;

/**
 * A key is whatever somebody put there: it must not lead out of the folder, pass for half of another, or take the place
 * where others of the layout need a folder, or a file.
 */
function isPath(key: string): boolean {
  const parts = key.split("/");
  return (
    parts.every((part) => part !== "" && part !== "." && part !== ".." && Buffer.byteLength(part) <= NAME_MAX_BYTES) &&
    !/[\\\0]/.test(key) &&
    !parts.some((part) => part.endsWith(".part")) &&
    !/^[a-z]+=/.test(parts.at(-1)!) &&
    !parts.slice(0, -1).some((part) => /\.(gz|json|\d{4,6})$/.test(part))
  );
}

/**
 * Whether the object is there: a file of its size. What agents did is nobody else's on this machine. Null: a folder is
 * there, with what was copied into it, and it stays.
 */
async function keep(path: string, bytes: number): Promise<boolean | null> {
  const there = await lstat(path).catch(() => null);
  if (there?.isDirectory() === true) return null;
  if (there === null || !there.isFile() || there.size !== bytes) {
    if (there !== null) await rm(path);
    return false;
  }
  if ((there.mode & 0o077) !== 0) await chmod(path, 0o600);
  return true;
}

/** How much of it an earlier pull has left. */
async function partSize(part: string, bytes: number): Promise<number> {
  const there = await lstat(part).catch(() => null);
  if (there === null) return 0;
  if (there.isFile() && there.size <= bytes) return there.size;
  await rm(part, { recursive: true });
  return 0;
}

function throwUnlessBroken(cause: NodeJS.ErrnoException): void {
  if (cause.syscall !== undefined && cause.path !== undefined) throw cause;
  if (["ENOSPC", "EDQUOT", "EFBIG", "EIO"].includes(cause.code ?? "")) throw cause;
}
