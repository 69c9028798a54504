// Which stack runs from a folder, and where it listens: `.portcullis/run.json`. It holds addresses, never a credential. It is also
// the folder's lock: two gates that write one state would spoil it.

import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";

const addresses = z.strictObject({
  gate: z.url(),
  issuer: z.url(),
  bucket: z.url(),
  github: z.url(),
  slack: z.url(),
  model: z.url(),
});
const runFile = z.strictObject({ pid: z.number().int().positive(), addresses: addresses.optional() });

export type RunAddresses = z.infer<typeof addresses>;

/** Another process that lives has the folder. */
export class FolderInUseError extends Error {
  override readonly name = "FolderInUseError";
  constructor(path: string, pid: number) {
    super(
      `Portcullis already runs from this folder, as process ${pid}. Stop it first, or give another folder with --dir. ` +
        `(If that process is something else, delete ${path}.)`,
    );
  }
}

export interface RunFile {
  /** Says where everything listens, for other processes of the same owner. */
  publish(where: RunAddresses): Promise<void>;
  /** Gives the folder back. Synchronous, so that it also works while the process exits. */
  release(): void;
}

/** Takes the folder for this process. Throws `FolderInUseError`; a file that a dead process left is replaced. */
export async function claimFolder(dir: string): Promise<RunFile> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const path = join(dir, "run.json");
  if (!createOwn(path)) {
    const holder = parse(await readFile(path, "utf8").catch(() => ""));
    if (holder !== undefined && isAlive(holder.pid)) throw new FolderInUseError(path, holder.pid);
    await rm(path, { force: true });
    if (!createOwn(path)) throw new FolderInUseError(path, parse(readFileSync(path, "utf8"))?.pid ?? 0);
  }
  let isOurs = true;
  return {
    publish: async (where) => {
      // Written aside and moved: a reader never sees half a file.
      await writeFile(`${path}.new`, `${JSON.stringify({ pid: process.pid, addresses: where }, null, 2)}\n`, {
        mode: 0o600,
      });
      await rename(`${path}.new`, path);
    },
    release: () => {
      if (isOurs) rmSync(path, { force: true });
      isOurs = false; // The next to claim the folder must not lose it to this process's exit.
    },
  };
}

/** Where the stack of this folder listens. Throws with what to do where none runs. */
export async function findRunning(dir: string): Promise<RunAddresses> {
  const found = parse(await readFile(join(dir, "run.json"), "utf8").catch(() => ""));
  if (found?.addresses === undefined || !isAlive(found.pid))
    throw new Error(`Nothing runs from ${dir}. Start it with: npm start`);
  return found.addresses;
}

function createOwn(path: string): boolean {
  try {
    writeFileSync(path, `${JSON.stringify({ pid: process.pid })}\n`, { mode: 0o600, flag: "wx" });
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "EEXIST") return false;
    throw cause;
  }
}

function parse(text: string): z.infer<typeof runFile> | undefined {
  try {
    return runFile.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

function isAlive(pid: number): boolean {
  if (pid === process.pid) return false; // A number that came around: this process has not claimed it.
  try {
    process.kill(pid, 0);
    return true;
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === "EPERM";
  }
}
