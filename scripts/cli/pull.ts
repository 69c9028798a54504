// pull: transcripts and bodies into a folder, laid out as in the bucket, so that `verify` can read them.

import { access } from "node:fs/promises";
import { join } from "node:path";
import { emailDigest } from "../../src/identity/email-digest.ts";
import { openBucketDoor } from "../local/bucket-door.ts";
import type { ObjectSource } from "../local/object-source.ts";
import { SEAL_KEYS_FILE, writeForOwner } from "../local/verify-folder.ts";
import { openAdmin, readEntries } from "./admin-source.ts";
import { onlyOperand, parseArguments } from "./arguments.ts";
import { type Command, CommandError, EXIT, type Io, UsageError } from "./command.ts";
import { CONNECTION, CONNECTION_USAGE, type Connection, connect, findGate } from "./connection.ts";
import { listInstances } from "./gate-client.ts";
import { Mirror, type Progress } from "./mirror.ts";
import { count } from "./printable.ts";
import { runPull } from "./pull-run.ts";
import { type PullScope, parseScope } from "./pull-scope.ts";
import { openS3 } from "./s3-source.ts";
import { fetchSealKeys } from "./seal-keys.ts";

export const pull: Command = {
  summary: "copy transcripts into a folder, for verify",
  usage: `portcullis pull <folder> [--human <id>] [--task <id>] [--instance <id>] [--from <time> [--to <time>]] [--all]

Copies what stands in the bucket, under its own keys; run again, it goes on where it stopped. Of whom is said by any of these,
together; without them everything (--all). Of a span it copies the whole transcripts of who has records in it.

  --human <id>         or the e-mail address, where the gate still knows an instance of theirs
  --from, --to <time>  2026-11-22, 2026-11-22T15:00Z, or milliseconds since 1970; --to is now unless it is said
  --no-bodies          envelopes alone
  --s3 <endpoint>      by the S3 API, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, AWS_REGION) of the
                       environment, which may list and read the bucket; else by the admin API, as an auditor
  --bucket <name>      with --s3
${CONNECTION_USAGE}`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, {
      ...CONNECTION,
      human: { type: "string" },
      task: { type: "string" },
      instance: { type: "string" },
      from: { type: "string" },
      to: { type: "string" },
      all: { type: "boolean", default: false },
      "no-bodies": { type: "boolean", default: false },
      s3: { type: "string" },
      bucket: { type: "string" },
    });
    const folder = onlyOperand(operands, "folder");
    if (options.s3 === undefined && options.bucket !== undefined) throw new UsageError("--bucket is of --s3");
    const { human, ...rest } = options;
    const isEmail = human?.includes("@") === true;
    const said = parseScope(isEmail ? rest : options, Date.now());
    if (isEmail && (options.all || options.s3 !== undefined))
      throw new UsageError("--human: by e-mail address not with --all, nor with --s3: give the id");
    const { source, connection, gate } = await openSource(options, io);
    const scope = isEmail ? { ...said, human: await humanOf(connection!, human) } : said;
    const progress = progressNotes(io);
    const mirror = new Mirror(source, folder, progress);
    const withBodies = !options["no-bodies"];
    const pullIt = async (): Promise<void> => {
      // Who may not look gets no folder.
      await source.page("transcripts/", null, true);
      await pullSealKeys(gate, folder, io);
      const entries = (span: Parameters<typeof readEntries>[1]) =>
        connection === null ? nothing() : readEntries(connection, span);
      await runPull({ source, mirror, folder, scope, withBodies, entries });
    };
    await pullIt().catch((cause: unknown) => {
      throw asCommandError(cause, source);
    });
    return report(io, options.json, { gate, source, folder, scope, withBodies, mirror });
  },
};

interface Opened {
  readonly source: ObjectSource;
  /** Null: by S3. */
  readonly connection: Connection | null;
  /** Null: nobody said, and none was found. */
  readonly gate: string | null;
}

type Options = Parameters<typeof connect>[0] & {
  readonly s3?: string | undefined;
  readonly bucket?: string | undefined;
};

async function openSource(options: Options, io: Io): Promise<Opened> {
  if (options.s3 !== undefined) {
    const source = openS3(options.s3, options.bucket, io.env);
    // Only for its public keys: one that was merely found may be of another bucket.
    const found = await findGate(options, io).catch(() => null);
    return { source, connection: null, gate: found?.isNamed === true ? found.gate : null };
  }
  const connection = await connect(options, io);
  const { gate, local } = connection;
  return { source: local === null ? openAdmin(connection) : openBucketDoor(local.bucket), connection, gate };
}

async function humanOf(connection: Connection, email: string): Promise<string> {
  const digest = emailDigest(email);
  const humans = new Set(
    (await listInstances(connection)).filter((member) => member.emailDigest === digest).map(({ human }) => human),
  );
  const [human] = humans;
  if (human === undefined || humans.size > 1)
    throw new CommandError(
      EXIT.no,
      `${connection.gate} knows ${humans.size === 0 ? "no instance" : "several humans"} of that address: give --human <id>`,
    );
  return human;
}

async function* nothing(): AsyncGenerator<never> {}

const NOTE_EVERY_MS = 1_000;
/** Where nobody watches, a log is kept short. */
const LOG_EVERY_MS = 15_000;

function progressNotes(io: Io): (progress: Progress) => void {
  const everyMs = io.isWatched ? NOTE_EVERY_MS : LOG_EVERY_MS;
  let dueMs = Date.now() + everyMs;
  return ({ objects, bytes, fetched, fetchedBytes }) => {
    if (Date.now() < dueMs) return;
    dueMs = Date.now() + everyMs;
    io.note(`${count(objects, "object")}, ${megabytes(bytes)}; fetched ${fetched}, ${megabytes(fetchedBytes)}`);
  };
}

const megabytes = (bytes: number): string => `${(bytes / 1_000_000).toFixed(1)} MB`;

/** What a disk or a connection refuses is for a person to put right. */
function asCommandError(cause: unknown, source: ObjectSource): unknown {
  if (cause instanceof CommandError || !(cause instanceof Error)) return cause;
  const { code, path, message } = cause as NodeJS.ErrnoException;
  if (path !== undefined || code === "ENOSPC" || code === "EDQUOT") return new CommandError(EXIT.no, message);
  if (message.endsWith("not a file that pull wrote")) return new CommandError(EXIT.no, message);
  if (cause.name === "TypeError" || message.startsWith("the bucket answered"))
    return new CommandError(EXIT.unreachable, `${source.name} can't be copied: ${message}`);
  return cause;
}

/** Against whoever can write to the copy, only keys that were got another way prove anything. */
async function pullSealKeys(gate: string | null, folder: string, io: Io): Promise<void> {
  const file = join(folder, SEAL_KEYS_FILE);
  if (gate === null) {
    const isThere = await access(file).then(
      () => true,
      () => false,
    );
    if (!isThere) io.note("Without --gate the public seal keys are not here: verify needs them by --keys.");
    return;
  }
  await writeForOwner(file, await fetchSealKeys(gate));
}

interface Ended {
  readonly gate: string | null;
  readonly source: ObjectSource;
  readonly folder: string;
  readonly scope: PullScope;
  readonly withBodies: boolean;
  readonly mirror: Mirror;
}

function report(io: Io, json: boolean, { gate, source, folder, scope, withBodies, mirror }: Ended): number {
  const { progress, odd, taken } = mirror;
  const { objects } = progress;
  const name = gate ?? source.name;
  const verify = `npx portcullis verify ${folder}${withBodies ? "" : " --no-bodies"}`;
  if (json) io.json({ gate, source: source.name, folder, scope, ...progress, oddKeys: [...odd] });
  else {
    io.say(`${count(objects, "object")} of ${name} in ${folder}. Verify: ${verify}`);
    for (const key of odd) io.note(`Not copied, a key that can't be a path: ${JSON.stringify(key)}`);
  }
  const isOfSome = [scope.human, scope.task, scope.instance].some((id) => id !== undefined);
  const isFound = !isOfSome || [...taken].some((key) => !key.startsWith("transcripts/journal="));
  if (!isFound)
    io.note(`Nothing in the bucket is of ${[scope.human, scope.task, scope.instance].filter(Boolean).join(", ")}.`);
  return odd.size === 0 && isFound ? EXIT.ok : EXIT.no;
}
