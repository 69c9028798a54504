// The bucket, and its index of segments, by the admin API: for who has no credential of the bucket's.

import { z } from "zod";
import {
  HOUR_MS,
  INDEX_OPEN_AFTER_HOUR_MS,
  type StoredEntry,
  storedShape,
} from "../../src/transcript/segment-index.ts";
import { type ObjectSource, openedFrom } from "../local/object-source.ts";
import { CommandError, EXIT } from "./command.ts";
import type { Connection } from "./connection.ts";
import { ask, parseAnswer, readWhole } from "./gate-client.ts";
import type { PullScope } from "./pull-scope.ts";

const objectPage = z.object({
  objects: z.array(z.object({ key: z.string(), bytes: z.number(), uploadedAtMs: z.number() })),
  folders: z.array(z.string()),
  next: z.string().nullable(),
});

export function openAdmin(connection: Connection): ObjectSource {
  return {
    name: connection.gate,
    page: async (prefix, cursor, byFolders) => {
      const query = new URLSearchParams({
        prefix,
        ...(cursor === null ? {} : { cursor }),
        ...(byFolders ? { folders: "true" } : {}),
      });
      return parseAnswer(connection, await ask(connection, `objects?${query}`, { isRepeatable: true }), objectPage);
    },
    open: async (key, offset) => {
      const headers: Record<string, string> = offset === 0 ? {} : { range: `bytes=${offset}-` };
      const asked = { headers, isStream: true, isRepeatable: true, mayBeAbsent: true };
      const response = await ask(connection, `object?${new URLSearchParams({ key })}`, asked);
      return response.status === 404 ? null : openedFrom(response, offset);
    },
  };
}

/**
 * Entries of a span from the journals that take entries still, until a day after their hour: what they hold that is not in the bucket
 * yet. What is older stands in the bucket.
 */
export async function* readEntries(
  connection: Connection,
  { fromMs, toMs, ...ids }: PullScope & { readonly fromMs: number; readonly toMs: number },
): AsyncGenerator<StoredEntry> {
  const nowMs = Date.now();
  const from = Math.max(fromMs, nowMs - INDEX_OPEN_AFTER_HOUR_MS - 3 * HOUR_MS);
  const to = Math.min(toMs, nowMs + HOUR_MS);
  if (to < from) return;
  const query = new URLSearchParams({ from: String(from), to: String(to) });
  for (const [name, id] of Object.entries(ids)) if (id !== undefined) query.set(name, id);
  for (const line of (await readWhole(connection, `segments?${query}`)).split("\n"))
    if (line !== "") yield parseEntry(connection, line);
}

function parseEntry({ gate }: Connection, line: string): StoredEntry {
  try {
    return storedShape.parse(JSON.parse(line));
  } catch {
    throw new CommandError(EXIT.unreachable, `${gate} answered, but not with entries of the index of segments`);
  }
}
