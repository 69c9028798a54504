// `portcullis agent … -- <command>`: any program, governed. Key and grant live here; the program gets an address.

import { type Child, childEnvironment, startChild } from "../sidecar/child.ts";
import { Ending, exitCodes } from "../sidecar/ending.ts";
import { createKillWatch } from "../sidecar/kill-watch.ts";
import { startListener } from "../sidecar/listener.ts";
import { type Options, parseOptions, usage } from "../sidecar/options.ts";
import { holdersOf } from "../sidecar/peer.ts";
import { hasProc } from "../sidecar/process-tree.ts";
import { type Provisioned, provision } from "../sidecar/provision.ts";
import { createRelay } from "../sidecar/relay.ts";
import { passSignals } from "../sidecar/signals.ts";
import { createSubAgents } from "../sidecar/sub-agents.ts";
import { printable } from "./printable.ts";

export const agent = {
  summary: "runs a command as one governed instance",
  usage,
  async run(args: readonly string[]): Promise<number> {
    const before = args.indexOf("--") === -1 ? args : args.slice(0, args.indexOf("--"));
    if (before.includes("--help") || before.includes("-h")) {
      console.log(usage);
      return 0;
    }
    try {
      return await govern(parseOptions(args, process.env));
    } catch (cause) {
      if (!(cause instanceof Ending)) throw cause;
      complain(cause.message);
      if (cause.exitCode === exitCodes.usage) console.error("See: portcullis agent --help");
      return cause.exitCode;
    }
  },
};

/** stdout is the command's. A line may quote what others have said: the authority, the platform's program. */
const complain = (line: string): void => console.error(`portcullis: ${printable(line)}`);

async function govern(options: Options): Promise<number> {
  const say = (line: string): void => void (options.quiet || complain(line));
  const signals = passSignals();
  try {
    const provisioned = await provision(options, signals.interrupted).catch((cause: unknown) => {
      signals.interrupted.throwIfAborted();
      throw cause;
    });
    try {
      return await runCommand(options, provisioned, signals, say);
    } finally {
      // The command is gone, or never was: with it goes what it was allowed.
      if (!(await revoke(provisioned)))
        complain(`the grant of ${provisioned.instance} could not be given back; without its key it ends by itself`);
    }
  } finally {
    signals.close();
  }
}

async function runCommand(
  options: Options,
  { gate, grant, instance, deadlineMs }: Provisioned,
  signals: ReturnType<typeof passSignals>,
  say: (line: string) => void,
): Promise<number> {
  let stop = (): void => {};
  let isStopped = false;
  const watch = createKillWatch({
    grant,
    stopAfterMs: options.stopAfterMs,
    onStop: () => {
      isStopped = true;
      stop();
    },
    say,
  });
  let tree: Child["tree"] = () => [];
  /** Sidecars of sub-agents: whom they serve, this one does not. */
  const apart = new Set<number>();
  const served = (): readonly number[] => {
    if (apart.size === 0) return tree();
    // The id of a process that is gone becomes another's.
    const all = new Set(tree());
    for (const pid of apart) if (!all.has(pid)) apart.delete(pid);
    return tree(apart);
  };
  let strangers = 0;
  const relay = createRelay({ grant, onVerdict: watch.note });
  const listener = await startListener({
    listen: options.listen,
    relay,
    subAgents: createSubAgents({
      grant,
      onApart: (socket) => {
        for (const pid of holdersOf(socket, served())) apart.add(pid);
      },
    }),
    // Who is behind a unix socket can't be read from /proc: there its mode is what keeps others out.
    isOurs: (socket) => !hasProc || options.listen.kind === "socket" || holdersOf(socket, served()).length > 0,
    onStranger: () => {
      if (strangers++ === 0) complain("a process that is not the command's called, and was refused (said once)");
    },
  });
  const task = closeAt(deadlineMs, () => {
    say("the task's deadline is over: nothing is passed any more");
    listener.close();
  });
  try {
    if (!hasProc && options.listen.kind === "port")
      complain("on this system any process of this machine can use the address while the command runs");
    const socket = options.listen.kind === "socket" ? options.listen.path : undefined;
    const { addresses, hidden, command, args, killAfterMs } = options;
    const env = childEnvironment(process.env, { url: listener.url, socket, addresses, hidden });
    signals.interrupted.throwIfAborted();
    const child = await startChild({ command, args, env, killAfterMs });
    tree = child.tree;
    const until = deadlineMs === undefined ? "" : `, until ${new Date(deadlineMs).toISOString()}`;
    say(`instance ${instance} at ${gate}, ${socket ?? listener.url}${until}`);
    stop = () => {
      say(`ending ${command}`);
      listener.close();
      child.stop();
    };
    signals.to(child);
    const code = await child.wait();
    return isStopped ? exitCodes.refused : code;
  } finally {
    task.close();
    watch.close();
    listener.close();
    relay.close();
  }
}

/** Timers reach 24 days; a task does, too, but only by configuration. */
const TIMER_MAX_MS = 2 ** 31 - 1;

function closeAt(deadlineMs: number | undefined, close: () => void): { close(): void } {
  if (deadlineMs === undefined) return { close() {} };
  let timer: NodeJS.Timeout;
  const wait = (): void => {
    const leftMs = deadlineMs - Date.now();
    timer = setTimeout(leftMs <= TIMER_MAX_MS ? close : wait, Math.min(Math.max(leftMs, 0), TIMER_MAX_MS));
    timer.unref();
  };
  wait();
  return { close: () => clearTimeout(timer) };
}

const REVOKE_TRIES = 3;
const REVOKE_AGAIN_MS = 500;

async function revoke({ grant }: Provisioned): Promise<boolean> {
  for (let tries = 1; ; tries++) {
    if (await grant.revoke()) return true;
    if (tries === REVOKE_TRIES) return false;
    await new Promise((resolve) => setTimeout(resolve, REVOKE_AGAIN_MS));
  }
}
