// What a folder is a copy of: `pulled.json` beside what was pulled. By it, `verify` knows what must be there if the index of segments
// names it.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { CopyScope } from "../../src/transcript/verify-index.ts";

export const PULLED_FILE = "pulled.json";

const pulledShape = z.strictObject({
  version: z.literal(1),
  /** In the order in which they were pulled, each once. */
  scopes: z.array(
    z.strictObject({
      human: z.string().optional(),
      task: z.string().optional(),
      instance: z.string().optional(),
      fromMs: z.number().optional(),
      toMs: z.number().optional(),
      /** When its last pull began, on the clock of who pulled. */
      atMs: z.number(),
    }),
  ),
  /** Nothing was pulled since the last of them: not even begun. */
  isCurrent: z.boolean(),
});

export type Pulled = z.output<typeof pulledShape>;

const NOTHING: Pulled = { version: 1, scopes: [], isCurrent: false };

/** A folder without the file is a copy of nobody knows what. Throws where it holds something else. */
export async function readPulled(folder: string): Promise<Pulled> {
  const file = join(folder, PULLED_FILE);
  const text = await readFile(file, "utf8").catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT") return null;
    throw cause;
  });
  if (text === null) return NOTHING;
  try {
    return pulledShape.parse(JSON.parse(text));
  } catch {
    throw new Error(`${file}: not a file that pull wrote`);
  }
}

/**
 * The index grows with each pull, whatever it is of: of an earlier one, what is younger may be missing. Of the last, the
 * index was copied before the segments, so all that it names was there.
 */
export const scopesOf = ({ scopes, isCurrent }: Pulled): CopyScope[] =>
  scopes.map(({ atMs, ...scope }, index) => ({
    ...scope,
    untilMs: isCurrent && index === scopes.length - 1 ? null : atMs,
  }));
