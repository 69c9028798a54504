import * as z from "zod";
import type { Deployment } from "../deployment.ts";
import { indexOf } from "../objects.ts";
import { KEY_ID } from "../transcript/layout.ts";
import {
  HOUR_MS,
  INDEX_OPEN_AFTER_HOUR_MS,
  type IndexQuery,
  indexHourPrefix,
  indexHours,
  indexJournalName,
  isAskedFor,
  parseIndexName,
  storedShape,
} from "../transcript/segment-index.ts";
import { parseObjectKey } from "../transcript/verify-layout.ts";
import { type AdminHono, parseQuery, problem, record, requireRole } from "./door.ts";
import { LINES_AT_ONCE, listKeys, nextSeq, readSegment, readTail, streamOf } from "./transcripts.ts";

/** A request may ask R2 10,000 times: 12 objects an hour of each shard, of 16 shards. */
const SPAN_MAX_MS = 48 * HOUR_MS;
/** The year 2100. */
const TIME_MAX_MS = 4_102_444_800_000;
/** Clocks of objects differ: an hour's last flush, and a later one's first entry. */
const CLOCKS_MS = 600_000;

const ISO = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?Z$/;
const time = z
  .string()
  .regex(
    /^(\d{1,13}|\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?Z)$/,
    "milliseconds since 1970, or ISO 8601 in UTC",
  );
const id = z.string().regex(KEY_ID, "an id: at most 64 letters, digits, - and _");

export const segmentsQuery = z.strictObject({
  from: time,
  to: time,
  human: id.optional(),
  task: id.optional(),
  instance: id.optional(),
});

export function segmentRoutes(admin: AdminHono): void {
  admin.get("/admin/v1/segments", async (c) => {
    const { deployment } = c.env;
    const who = c.get("admin");
    const refused = await requireRole(deployment, who, c.req.path, ["auditor"]);
    if (refused !== null) return refused;
    const query = parseQuery(c.req.query(), segmentsQuery);
    if (!query.ok) return problem(400, "Bad Request", query.error);
    const { from, to, ...ids } = query.value;
    const span = { fromMs: parseTime(from), toMs: parseTime(to) };
    const mistake = spanProblem(span);
    if (mistake !== null) return problem(400, "Bad Request", mistake);
    const { human = null, task = null, instance = null } = ids;
    const whom = { human, task, instance };
    await record(deployment, "read", { by: who.id, email: who.email, index: "segments", ...span, ...whom });
    return new Response(streamOf(readIndex(deployment, { ...span, ...ids }, Date.now())), {
      headers: { "Content-Type": "application/x-ndjson", "Cache-Control": "no-store" },
    });
  });
}

const parseTime = (text: string): number => (ISO.test(text) ? Date.parse(text) : Number(text));

function spanProblem({ fromMs, toMs }: { fromMs: number; toMs: number }): string | null {
  if (!(fromMs <= TIME_MAX_MS && toMs <= TIME_MAX_MS)) return "query: from, to: not a time before the year 2100";
  if (toMs < fromMs) return "query: to is before from";
  if (toMs - fromMs > SPAN_MAX_MS) return "query: at most 48 hours at once";
  return null;
}

/** Entries of a span as exact lines: hour by hour, of each journal what stands in R2 and then what has not left. */
async function* readIndex(deployment: Deployment, query: IndexQuery, nowMs: number): AsyncGenerator<string> {
  for (const hourMs of indexHours(query.fromMs, query.toMs)) {
    const reached = new Map<string, number>();
    for await (const key of listKeys(deployment.env.TRANSCRIPTS, indexHourPrefix(hourMs))) {
      const journal = parseObjectKey(key)?.partition.log;
      const text = journal === undefined ? null : await readSegment(deployment.env.TRANSCRIPTS, key);
      if (journal === undefined || text === null) continue;
      reached.set(journal, nextSeq(text, reached.get(journal) ?? 0));
      yield* entriesIn(text, query);
    }
    // No journal exists before its hour, and after its end all of it is in R2.
    if (hourMs > nowMs + CLOCKS_MS || nowMs > hourMs + HOUR_MS + INDEX_OPEN_AFTER_HOUR_MS + CLOCKS_MS) continue;
    for (let shard = 0; shard < deployment.config.roster.shards; shard++) {
      const name = indexJournalName(hourMs, shard);
      if (!reached.has(name)) reached.set(name, 0);
    }
    for (const [name, fromSeq] of reached) {
      const { path, shard } = parseIndexName(name)!;
      const tail = readTail(deployment.env.TRANSCRIPTS, `transcripts/${path}/`, fromSeq, (seq) =>
        indexOf(deployment, hourMs, shard).read(seq, LINES_AT_ONCE),
      );
      for await (const text of tail) yield* entriesIn(text, query);
    }
  }
}

/** The lines of it that are asked for. */
function* entriesIn(text: string, query: IndexQuery): Generator<string> {
  const lines = text.split("\n").filter((line) => {
    if (line === "") return false;
    const entry = storedShape.safeParse(JSON.parse(line));
    return entry.success && isAskedFor(entry.data, query);
  });
  if (lines.length > 0) yield `${lines.join("\n")}\n`;
}
