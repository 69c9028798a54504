import type { Child } from "./child.ts";
import { Ending } from "./ending.ts";

/** Passed on as they come. */
const PASSED = ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR2", "SIGWINCH", "SIGCONT"] as const;
/** Those by which the sidecar is told to end. */
const ENDING: Readonly<Record<string, number>> = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129, SIGQUIT: 131 };
/** A terminal tells them to everybody in it by itself. */
const OF_TERMINALS = new Set<string>(["SIGINT", "SIGQUIT", "SIGWINCH", "SIGCONT"]);

/**
 * Signals to the child, as soon as there is one; until then those that end abort `interrupted`. SIGTERM is meant for the whole of it: a
 * child that does not go is killed, so that what it was allowed ends, too.
 *
 * SIGUSR1 is taken and dropped: left to Node it opens the inspector, by which any process of this user could have the key used. It is the
 * child who could send it.
 */
export function passSignals() {
  const interruption = new AbortController();
  let child: Child | undefined;
  const drop = (): void => {};
  const pass = (signal: NodeJS.Signals): void => {
    if (child === undefined) {
      const code = ENDING[signal];
      if (code !== undefined) interruption.abort(new Ending(code, `told to end (${signal})`));
      return;
    }
    if (signal === "SIGTERM") child.stop();
    else if (process.stdin.isTTY !== true || !OF_TERMINALS.has(signal)) child.signal(signal);
  };
  for (const signal of PASSED) process.on(signal, pass);
  process.on("SIGUSR1", drop);
  return {
    interrupted: interruption.signal,
    to(started: Child): void {
      child = started;
      if (interruption.signal.aborted) started.stop();
    },
    close(): void {
      for (const signal of PASSED) process.off(signal, pass);
      process.off("SIGUSR1", drop);
    },
  };
}
