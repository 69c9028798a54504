import { inject, onTestFailed } from "vitest";
import { Random } from "./random.ts";

declare module "vitest" {
  interface ProvidedContext {
    readonly seed: number;
  }
}

/** The choices of the test that asks for them: others in each run, and one that fails says how the same are made again. */
export function chosen(): Random {
  const seed = inject("seed");
  onTestFailed(({ task }) => {
    for (const error of task.result?.errors ?? []) error.message += `\nTEST_SEED=${seed} makes the same choices again`;
  });
  return new Random(seed);
}
