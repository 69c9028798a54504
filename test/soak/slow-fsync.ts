// A slow disk, and one that forgets what was not synced: a library preloaded into workerd. Needs a C compiler, and Linux.

import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { answerMarkOf, markOf } from "./content.ts";
import type { Attempt } from "./load.ts";
import type { Arrival } from "./upstream.ts";

const COMPILERS = ["cc", "gcc", "clang"];

/** What can compile it here; undefined: nothing. */
export const compiler = (): string | undefined =>
  process.platform === "linux"
    ? COMPILERS.find((name) => spawnSync(name, ["--version"], { stdio: "ignore" }).status === 0)
    : undefined;

/** What the library saw, in the order in which it happened. */
export interface Synced {
  /** Marks of calls that were written and whose fsync has returned, with the time of its return; infinite: it has not. */
  readonly syncedAtMs: ReadonlyMap<string, number>;
  readonly fsyncs: number;
}

export class SlowDisk {
  readonly #stateDir: string;
  readonly #kept: string;
  readonly #log: string;
  /** Files that a power cut has set back, or that it has taken away. */
  setBack = 0;

  /** For every workerd that is started from now on, until `end`. Throws where it can't be compiled. */
  constructor(with_: string, stateDir: string, folder: string, fsyncMs: number) {
    this.#stateDir = stateDir;
    this.#kept = join(folder, "synced");
    this.#log = join(folder, "fsync.log");
    mkdirSync(this.#kept, { recursive: true });
    const library = join(folder, "slow-fsync.so");
    const source = fileURLToPath(new URL("slow-fsync.c", import.meta.url));
    const { status, stderr } = spawnSync(with_, ["-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"]);
    if (status !== 0) throw new Error(`${with_}: ${stderr}`);
    Object.assign(process.env, {
      LD_PRELOAD: library,
      SOAK_FSYNC_MS: String(fsyncMs),
      SOAK_FSYNC_LOG: this.#log,
      SOAK_FSYNC_KEPT: this.#kept,
    });
  }

  end(): void {
    for (const name of ["LD_PRELOAD", "SOAK_FSYNC_MS", "SOAK_FSYNC_LOG", "SOAK_FSYNC_KEPT"]) delete process.env[name];
  }

  /** The objects' files become what they were at their last fsync. For when workerd is dead. */
  cutPower(): void {
    const objects = join(this.#stateDir, "do");
    for (const namespace of readdirSync(objects).filter((name) => name.startsWith("portcullis-")))
      for (const file of readdirSync(join(objects, namespace))) {
        if (file.startsWith("metadata.sqlite")) continue;
        const path = join(objects, namespace, file);
        const kept = join(this.#kept, `${namespace}@${file}`);
        const isKept = existsSync(kept);
        if (isKept && readFileSync(kept).equals(readFileSync(path))) continue;
        if (!file.endsWith("-shm")) this.setBack++;
        if (isKept) copyFileSync(kept, path);
        else rmSync(path);
      }
  }

  /** Marks whose fsync has not returned. */
  unsynced(): string[] {
    return [...this.synced().syncedAtMs].flatMap(([mark, atMs]) => (Number.isFinite(atMs) ? [] : [mark]));
  }

  synced(): Synced {
    const syncedAtMs = new Map<string, number>();
    /** By file: marks that were written since its last fsync began. */
    const waiting = new Map<string, Set<string>>();
    let fsyncs = 0;
    for (const line of existsSync(this.#log) ? readFileSync(this.#log, "latin1").split("\n") : []) {
      const [what, ...rest] = line.split(" ");
      if (what === "w") {
        const [, mark = "", file = ""] = rest;
        if (!syncedAtMs.has(mark)) {
          syncedAtMs.set(mark, Number.POSITIVE_INFINITY);
          waiting.set(file, (waiting.get(file) ?? new Set()).add(mark));
        }
      } else if (what === "f") {
        const [, endUs = "", file = ""] = rest;
        fsyncs++;
        // Its line is written when it has returned, and workerd's storage has one thread: whatever stands before it was written before it began.
        for (const mark of waiting.get(file) ?? []) syncedAtMs.set(mark, Number(endUs) / 1000);
        waiting.delete(file);
      }
    }
    return { syncedAtMs, fsyncs };
  }
}

/** A process that was killed is not gone at once. */
export async function untilDead(pids: readonly number[]): Promise<void> {
  const lives = (pid: number): boolean => {
    try {
      return !/^\d+ \(.*\) Z/s.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
    } catch {
      return false;
    }
  };
  while (pids.some(lives)) await new Promise((resolve) => setTimeout(resolve, 5));
}

/** A tick of the clock that both sides read. */
const TICK_MS = 1;

/** Which calls got ahead of their own fsync: at the upstream, or with the last byte of an answer. */
export function aheadOfDisk(
  { syncedAtMs }: Synced,
  arrivals: readonly Arrival[],
  attempts: readonly Attempt[],
): { readonly ahead: string[]; readonly seen: number; readonly answersSeen: number } {
  const ahead: string[] = [];
  let seen = 0;
  let answersSeen = 0;
  for (const { call, atMs } of arrivals) {
    const at = syncedAtMs.get(markOf(call));
    // A row longer than a page may have its mark cut in two.
    if (at === undefined) continue;
    seen++;
    if (at > atMs + TICK_MS) ahead.push(`call ${call}: at the upstream ${spell(at - atMs)} before its record's fsync`);
  }
  for (const { call, isWhole, isUpstreams, endedAtMs } of attempts) {
    const at = syncedAtMs.get(answerMarkOf(call));
    if (at === undefined || !isWhole || !isUpstreams) continue;
    answersSeen++;
    if (at > endedAtMs + TICK_MS)
      ahead.push(`call ${call}: answered ${spell(at - endedAtMs)} before its answer's fsync`);
  }
  return { ahead, seen, answersSeen };
}

const spell = (ms: number): string => (Number.isFinite(ms) ? `${Math.round(ms)} ms` : "for good");
