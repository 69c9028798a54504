// show: what one instance did, as a story: who sent whom, then call by call.

import type { BodyPart } from "../../src/transcript/body-line.ts";
import { parseArguments } from "./arguments.ts";
import { type Command, CommandError, EXIT, type Io, UsageError } from "./command.ts";
import { CONNECTION, CONNECTION_USAGE, connect } from "./connection.ts";
import { isCopy, openCopiedSource } from "./copied-source.ts";
import { bodyJson, bodyLines } from "./show-body.ts";
import { type CallEntry, type Entry, type Reference, Story } from "./story.ts";
import { answerLine, entryLines } from "./story-lines.ts";
import { openGateSource, type TranscriptSource } from "./transcript-source.ts";
import { INTERVAL_USAGE, looking, parseInterval, pause } from "./watch.ts";

const PARTS: readonly string[] = ["request", "answer", "claims"] satisfies readonly BodyPart[];

export const show: Command = {
  summary: "what an instance did, as a story",
  usage: `portcullis show <instance, or an unambiguous beginning of it>
portcullis show <human> <task> <instance>
portcullis show … --body <seq> [request | answer | claims]

Of an instance that has ended, give the whole id, or all three. Each look at a transcript, and at a body, is on record.

  --bodies             with every recorded body: text shown, JSON laid out, anything else by size and digest
  --body <seq>         the exact bytes of one body to stdout; of a call both parts have its number (default: the answer,
                       of record 0 the claims)
  --follow             goes on until the instance has ended, or Ctrl-C
${INTERVAL_USAGE}
${CONNECTION_USAGE}
                       --dir may also be a folder of pull: then no gate is asked

With --json: one object a line, as they are told.`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, {
      ...CONNECTION,
      bodies: { type: "boolean", default: false },
      body: { type: "string" },
      follow: { type: "boolean", default: false },
      interval: { type: "string" },
    });
    const { body, bodies, follow, json, dir } = options;
    if (body !== undefined && (bodies || follow)) throw new UsageError("--body: with neither --bodies nor --follow");
    const intervalMs = follow ? parseInterval(options.interval) : null;
    const wanted = body === undefined ? null : parseBody(body, operands);
    const ids = wanted === null ? operands : wanted.ids;
    if (ids.length !== 1 && ids.length !== 3) throw new UsageError("show what?");
    const source =
      dir !== undefined && (await isCopy(dir))
        ? await openCopiedSource(dir, ids)
        : await openGateSource(await connect(options, io), ids);
    if (wanted !== null) return writeBody(source, wanted.seq, wanted.part, io);
    if (intervalMs !== null && !source.isLive) throw new UsageError("--follow: nothing is added to a copy");
    return tell(source, { bodies, json, intervalMs }, io);
  },
};

interface WantedBody {
  readonly ids: readonly string[];
  readonly seq: number;
  readonly part: BodyPart;
}

function parseBody(text: string, operands: readonly string[]): WantedBody {
  if (!/^\d{1,10}$/.test(text)) throw new UsageError(`--body ${text}: not the number of a record`);
  const seq = Number(text);
  const last = operands.at(-1) ?? "";
  // One word or three say which instance; a word more says which part.
  if (operands.length % 2 === 1) return { ids: operands, seq, part: seq === 0 ? "claims" : "answer" };
  if (!PARTS.includes(last)) throw new UsageError(`${last}: not request, answer or claims`);
  return { ids: operands.slice(0, -1), seq, part: last as BodyPart };
}

async function writeBody(source: TranscriptSource, seq: number, part: BodyPart, io: Io): Promise<number> {
  const read = await source.body(seq, part);
  if ("absent" in read) throw new CommandError(EXIT.no, `Record ${seq}, ${part}: ${read.absent}`);
  for await (const run of read.bytes) await io.bytes(run);
  return EXIT.ok;
}

interface Telling {
  readonly bodies: boolean;
  readonly json: boolean;
  /** Null: what there is now, and no more. */
  readonly intervalMs: number | null;
}

async function tell(source: TranscriptSource, telling: Telling, io: Io): Promise<number> {
  const story = new Story();
  const running = new Set<number>();
  const say = async (entry: Entry) => {
    if (telling.json) io.json(telling.bodies ? { ...entry, ...(await jsonBodies(source, entry)) } : entry);
    else {
      const lines = entry.entry === "call" && running.delete(entry.seq) ? [answerLine(entry)] : entryLines(entry);
      for (const line of lines) io.say(line);
      if (telling.bodies) await sayBodies(source, entry, io);
    }
    if (entry.entry === "call" && entry.outcome === "running") running.add(entry.seq);
  };
  for (;;) {
    await looking(telling.intervalMs, async () => {
      for await (const line of source.lines()) {
        addTo(story, line);
        for (const entry of story.take(false)) await say(entry);
      }
    });
    for (const entry of story.take(true)) await say(entry);
    if (story.hasEnded || telling.intervalMs === null) return EXIT.ok;
    await pause(telling.intervalMs);
  }
}

function addTo(story: Story, line: string): void {
  try {
    story.add(line);
  } catch {
    throw new CommandError(EXIT.unreachable, "what was read is no transcript, or not one of this version");
  }
}

/** Of a call that was told as running its request was shown; a body of which nothing is recorded is not asked for. */
function* bodiesOf(entry: Entry): Generator<readonly [BodyPart, Reference]> {
  if (entry.entry === "instance" && entry.claims !== null) yield ["claims", entry.claims];
  if (entry.entry !== "call" && entry.entry !== "refused") return;
  if (hasBytes(entry.request)) yield ["request", entry.request];
  if (entry.entry === "call") yield* answerOf(entry);
}

function* answerOf({ answer, outcome }: CallEntry): Generator<readonly [BodyPart, Reference]> {
  // What has come of it so far is known to the instance, and not to its records.
  if (outcome === "running") yield ["answer", { digest: null, bytes: null, mediaType: null, coding: "identity" }];
  else if (hasBytes(answer)) yield ["answer", answer];
}

const hasBytes = (reference: Reference | null): reference is Reference => reference !== null && reference.bytes !== 0;

async function sayBodies(source: TranscriptSource, entry: Entry, io: Io): Promise<void> {
  for (const [part, reference] of bodiesOf(entry)) {
    const read = await source.body(entry.seq, part);
    const lines = "absent" in read ? [`${part}: ${read.absent}`] : await bodyLines(part, read.bytes, reference);
    for (const line of lines) io.say(`${" ".repeat(8)}${line}`);
  }
}

async function jsonBodies(source: TranscriptSource, entry: Entry): Promise<Record<string, unknown>> {
  const bodies: Record<string, unknown> = {};
  for (const [part] of bodiesOf(entry)) {
    const read = await source.body(entry.seq, part);
    bodies[part] = "absent" in read ? read : await bodyJson(read.bytes);
  }
  return { bodies };
}
