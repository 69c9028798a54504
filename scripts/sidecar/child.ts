// The governed program: started with an environment without the sidecar's secrets, told the signals that the sidecar is told.

import { type ChildProcess, spawn } from "node:child_process";
import { constants } from "node:os";
import { Ending, exitCodes } from "./ending.ts";
import type { Environment } from "./options.ts";
import { hasProc, treeOf } from "./process-tree.ts";

export interface ChildOptions {
  readonly command: string;
  readonly args: readonly string[];
  readonly env: Environment;
  readonly killAfterMs: number;
}

export interface Child {
  /** Everyone who belongs to it now, but for the descendants of who is `apart`. Empty where that can't be told. */
  readonly tree: (apart?: ReadonlySet<number>) => readonly number[];
  /** Its exit code, or 128 and the signal's number; when a `stop` that has begun is through. */
  wait(): Promise<number>;
  signal(signal: NodeJS.Signals): void;
  /** SIGTERM to the whole tree, SIGKILL to what is left of it after `killAfterMs`. */
  stop(): void;
}

/** Throws an `Ending` where the command can't be run. */
export async function startChild({ command, args, env, killAfterMs }: ChildOptions): Promise<Child> {
  // In a terminal it must share the session, or it loses the terminal. Else it leads a session of its own, so that who belongs to it
  // stays known when a process between has ended.
  const isLeader = process.stdin.isTTY !== true;
  const child = spawn(command, [...args], { stdio: "inherit", env: { ...env }, detached: isLeader });
  const pid = await started(child, command);
  const ended = new Promise<number>((resolve) => {
    child.once("exit", (code, signal) => resolve(code ?? 128 + constants.signals[signal ?? "SIGKILL"]));
  });
  const tree: Child["tree"] = (apart) => (hasProc ? treeOf(pid, isLeader, apart) : []);

  /** Without /proc: the group, where it is its own. */
  const signalAll = (signal: NodeJS.Signals): void => {
    const targets = hasProc ? tree() : [isLeader ? -pid : pid];
    for (const target of targets) send(target, signal);
  };

  const isGone = (): boolean => child.exitCode !== null || child.signalCode !== null;
  async function stopAll(): Promise<void> {
    signalAll("SIGTERM");
    const endMs = Date.now() + killAfterMs;
    while (Date.now() < endMs && !(isGone() && tree().length === 0)) await pause(POLL_MS);
    signalAll("SIGKILL");
  }

  let stopping: Promise<void> | undefined;
  return {
    tree,
    async wait() {
      const code = await ended;
      await stopping;
      return code;
    },
    signal: (signal) => {
      if (!isGone()) send(isLeader ? -pid : pid, signal);
    },
    stop: () => {
      stopping ??= stopAll();
    },
  };
}

const POLL_MS = 50;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It ended meanwhile, or has become another user's.
  }
}

const started = (child: ChildProcess, command: string): Promise<number> =>
  new Promise((resolve, reject) => {
    child.once("spawn", () => resolve(child.pid!));
    child.once("error", (cause: NodeJS.ErrnoException) => {
      const code = cause.code === "ENOENT" ? exitCodes.notFound : exitCodes.notExecutable;
      reject(new Ending(code, `${command} can't be run: ${cause.code ?? cause.message}`));
    });
  });

/** What the child finds in its environment: nothing of the sidecar's, nothing that was to be hidden, and where to call. */
export function childEnvironment(
  all: Environment,
  {
    url,
    socket,
    addresses,
    hidden,
  }: {
    readonly url: string;
    readonly socket: string | undefined;
    readonly addresses: readonly (readonly [name: string, path: string])[];
    readonly hidden: readonly string[];
  },
): Environment {
  const env: Record<string, string | undefined> = {};
  for (const [name, value] of Object.entries(all))
    if (!name.startsWith("PORTCULLIS_") && !hidden.includes(name)) env[name] = value;
  env["PORTCULLIS_URL"] = url;
  if (socket !== undefined) env["PORTCULLIS_SOCKET"] = socket;
  for (const [name, path] of addresses) env[name] = url + path;
  // A proxy can't reach this loopback, and should not see what is asked of it.
  for (const name of ["no_proxy", "NO_PROXY"]) {
    const others = env[name] ?? "";
    if (others !== "*") env[name] = [others, "127.0.0.1", "localhost"].filter((host) => host !== "").join(",");
  }
  return env;
}
