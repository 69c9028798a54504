// tail: a transcript's records as they come, or what becomes of switches.

import { parseArguments } from "./arguments.ts";
import { type Command, CommandError, EXIT, type Io, UsageError } from "./command.ts";
import { CONNECTION, CONNECTION_USAGE, type Connection, connect } from "./connection.ts";
import type { SwitchSummary } from "./gate-answers.ts";
import { listSwitches, readWhole } from "./gate-client.ts";
import { utc } from "./printable.ts";
import { stateOf } from "./receipt-lines.ts";
import { type RecordLine, recordLine, recordShape } from "./record-line.ts";
import { describeTarget, findInstance } from "./target.ts";
import { INTERVAL_USAGE, looking, parseInterval, pause } from "./watch.ts";

const SWITCHES_WATCHED = 100;

export const tail: Command = {
  summary: "a transcript's records, or switches, as they come",
  usage: `portcullis tail <instance, or an unambiguous beginning of it>
portcullis tail <human> <task> <instance>     also where the instance is no longer in the list
portcullis tail switches

Of a transcript it ends with the instance, else with Ctrl-C. Each look at a transcript is itself on record.

  --once               what there is, and no more
${INTERVAL_USAGE}
${CONNECTION_USAGE}

With --json: the transcript's exact lines, seals too; of switches one JSON document a line.`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, {
      ...CONNECTION,
      once: { type: "boolean", default: false },
      interval: { type: "string" },
    });
    const intervalMs = options.once ? null : parseInterval(options.interval);
    const [first, ...rest] = operands;
    if (first === undefined || ![0, 2].includes(rest.length)) throw new UsageError("tail what?");
    const connection = await connect(options, io);
    if (rest.length === 0 && first === "switches") return tailSwitches(connection, intervalMs, options.json, io);
    const { human, task, instance } =
      rest.length === 0 ? await findInstance(connection, first) : { human: first, task: rest[0]!, instance: rest[1]! };
    const path = ["transcripts", human, task, instance].map(encodeURIComponent).join("/");
    return tailTranscript(connection, path, intervalMs, options.json, io);
  },
};

// --- transcripts --------------------------------------------------------------------------------------------------

async function tailTranscript(
  connection: Connection,
  path: string,
  intervalMs: number | null,
  isRaw: boolean,
  io: Io,
): Promise<number> {
  let nextSeq = 0;
  const seals = new Set<string>();
  for (;;) {
    const text = await looking(intervalMs, () => readWhole(connection, path));
    let hasEnded = false;
    for (const raw of text.split("\n")) {
      if (raw === "") continue;
      const record = parseLine(raw, connection);
      // A seal comes when its records have been told already, and has no number of its own.
      const isNew = record.seq === undefined ? !seals.has(raw) : record.seq >= nextSeq;
      if (record.seq === undefined) seals.add(raw);
      else nextSeq = Math.max(nextSeq, record.seq + 1);
      hasEnded ||= record.type === "ended";
      if (!isNew) continue;
      if (isRaw) io.exact(raw);
      else if (record.seq !== undefined) io.say(recordLine(record));
    }
    if (hasEnded || intervalMs === null) return EXIT.ok;
    await pause(intervalMs);
  }
}

function parseLine(raw: string, { gate }: Connection): RecordLine {
  try {
    return recordShape.parse(JSON.parse(raw));
  } catch {
    throw new CommandError(EXIT.unreachable, `${gate} answered, but not with a transcript`);
  }
}

// --- switches -----------------------------------------------------------------------------------------------------

async function tailSwitches(
  connection: Connection,
  intervalMs: number | null,
  isRaw: boolean,
  io: Io,
): Promise<number> {
  const told = new Map<string, string>();
  for (;;) {
    const switches = await looking(intervalMs, () => listSwitches(connection, SWITCHES_WATCHED));
    for (const sw of switches.toReversed()) {
      const state = stateOf(sw);
      if (told.get(sw.id) === state) continue;
      told.set(sw.id, state);
      if (isRaw) io.json(sw);
      else io.say(switchLine(sw, state));
    }
    if (intervalMs === null) return EXIT.ok;
    await pause(intervalMs);
  }
}

function switchLine(sw: SwitchSummary, state: string): string {
  const [atMs, by, reason] =
    sw.opened === null ? [sw.atMs, sw.by, sw.reason] : [sw.opened.atMs, sw.opened.by, sw.opened.reason];
  return `${utc(atMs)}  ${sw.id}  ${state}  ${sw.act} ${describeTarget(sw)}  ${by}: ${reason}`;
}
