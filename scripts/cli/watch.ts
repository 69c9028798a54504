// Looking again and again at what may have changed.

import { CommandError, EXIT, UsageError } from "./command.ts";

const INTERVAL_S = 2;
export const INTERVAL_USAGE = `  --interval <s>       between two looks (default: ${INTERVAL_S})`;

export function parseInterval(text: string | undefined): number {
  const seconds = Number(text ?? INTERVAL_S);
  if (!(seconds >= 0.1 && seconds <= 3_600)) throw new UsageError(`--interval ${text}: from 0.1 to 3600 seconds`);
  return seconds * 1_000;
}

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A look that fails in the middle is tried again: what follows must not end with one lost packet. */
const PATIENCE_LOOKS = 5;

/** @param intervalMs null: one look, and it succeeds or fails */
export async function looking<T>(intervalMs: number | null, look: () => Promise<T>): Promise<T> {
  for (let failures = 1; ; failures += 1) {
    try {
      return await look();
    } catch (cause) {
      const isLost = cause instanceof CommandError && cause.exitCode === EXIT.unreachable;
      if (intervalMs === null || !isLost || failures >= PATIENCE_LOOKS) throw cause;
      await pause(intervalMs);
    }
  }
}
