// `npm start`: the organisation with its gate comes up on loopback, shows itself in a tour, and stays until Ctrl-C.
// `--tour` ends after the tour, with 0 or 1. `--dir` keeps secrets and state elsewhere, `--port` prefers another port for the gate.

import { join } from "node:path";
import { parseArgs, styleText } from "node:util";
import { type Organisation, startOrganisation } from "./local/organisation.ts";
import { PortTakenError } from "./local/ports.ts";
import { FolderInUseError } from "./local/run-file.ts";
import { runTour, type TourEnd } from "./tour.ts";

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
/** 128 and the signal's number, as shells have it. */
const INTERRUPTED = 130;
const impatienceMs = 1_000;
/** A slow answer of four seconds: long enough to stop in the middle, short enough to watch to its end. */
const slowChunks = 80;
const chunkDelayMs = 50;

interface Options {
  readonly tour: boolean;
  readonly dir: string;
  readonly port: number | undefined;
}

const print = (line: string): void => console.log(line);

async function main(options: Options): Promise<number> {
  const stopping = new AbortController();
  const stopped = new Promise<"stopped">((resolve) => {
    stopping.signal.addEventListener("abort", () => resolve("stopped"));
  });
  let stoppedAtMs = Number.POSITIVE_INFINITY;
  const stop = () => {
    // npm passes Ctrl-C on to a process that the terminal has told already. Whoever presses it again later is tired of waiting.
    if (Date.now() > stoppedAtMs + impatienceMs) process.exit(INTERRUPTED);
    stoppedAtMs = Math.min(stoppedAtMs, Date.now());
    stopping.abort();
  };
  for (const signal of SIGNALS) process.on(signal, stop);

  const startedAtMs = Date.now();
  let organisation: Organisation;
  try {
    organisation = await start(options, stopping.signal);
  } catch (cause) {
    if (stopping.signal.aborted) return INTERRUPTED;
    throw cause;
  }
  try {
    // Whatever has started listens to Ctrl-C as well and would end the process at once: here everything closes in order.
    for (const signal of SIGNALS)
      for (const listener of process.listeners(signal)) if (listener !== stop) process.off(signal, listener);
    print(
      `Portcullis: a gate between agents and the APIs they work on. Up in ${Date.now() - startedAtMs} ms, on loopback.`,
    );
    // An interrupted step fails on what closes under it: nobody needs to hear of that.
    const tell = (line: string): void => void (stopping.signal.aborted || print(line));
    const end = await Promise.race([runTour(organisation, options.dir, tell), stopped]);
    if (end === "stopped") return INTERRUPTED;
    conclude(end, Date.now() - startedAtMs);
    if (options.tour) return end.exitCode;
    invite(organisation, end, options.dir);
    await stopped;
    print("\nClosing.");
    return end.exitCode;
  } finally {
    await organisation.close();
  }
}

const start = (options: Options, signal: AbortSignal): Promise<Organisation> =>
  startOrganisation({
    signal,
    dir: options.dir,
    ...(options.port === undefined ? {} : { ports: { gate: options.port } }),
    slowChunks,
    chunkDelayMs,
    onNotice: (line) => print(styleText("yellow", line)),
  });

function conclude({ exitCode, checks }: TourEnd, tookMs: number): void {
  const seconds = (tookMs / 1000).toFixed(1);
  print("");
  if (exitCode === 0) print(styleText("green", `All ${checks} checks held, in ${seconds} s.`));
  else {
    print(styleText("red", `The tour failed after ${checks} checks: see the lines with ✗.`));
    print(
      'Where it says "closed by a switch", a kill of an earlier run stands: npx portcullis switches names it, lift opens it.',
    );
  }
}

function invite({ addresses }: Organisation, { team }: TourEnd, dir: string): void {
  const where = dir === defaultDir ? "" : ` --dir ${JSON.stringify(dir)}`;
  const target = team?.triager.id ?? "<instance>";
  print(`
It stays up until Ctrl-C.
  gate               ${addresses.gate}
  identity provider  ${addresses.issuer}
  GitHub             ${addresses.github}
  Slack              ${addresses.slack}
  model              ${addresses.model}
  the gate's own log ${join(dir, "gate.log")}

Try, in another terminal:
  npx portcullis ps${where}
  npx portcullis kill instance ${target} --reason "Enough for today"${where}
  npx portcullis pull transcripts-copy${where}`);
}

const defaultDir = ".portcullis";

function parseOptions(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      tour: { type: "boolean", default: false },
      dir: { type: "string", default: defaultDir },
      port: { type: "string" },
    },
  });
  const port = values.port === undefined ? undefined : Number(values.port);
  if (port !== undefined && !(Number.isInteger(port) && port >= 0 && port <= 65_535))
    throw new Error(`--port ${values.port} is not a port`);
  return { tour: values.tour, dir: values.dir, port };
}

/** What was thrown with words for a person, or by the system, is said in a line; anything else is a bug, and shows where. */
function explain(cause: unknown): void {
  const isSaid =
    cause instanceof FolderInUseError ||
    cause instanceof PortTakenError ||
    (cause instanceof Error && (Object.getPrototypeOf(cause) === Error.prototype || "code" in cause));
  console.error(styleText("red", isSaid ? cause.message : String((cause as Error).stack ?? cause)));
}

process.exitCode = await Promise.resolve()
  .then(() => main(parseOptions(process.argv.slice(2))))
  .catch((cause: unknown) => {
    explain(cause);
    return 1;
  });
// What still runs here (an unfinished step of an interrupted tour) has nobody left to tell.
process.exit();
