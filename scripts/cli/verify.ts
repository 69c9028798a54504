// verify: a copy of the transcript bucket, offline; or the bucket itself, by the S3 API.

import type { ReceiptReport } from "../../src/control/verify-receipt.ts";
import type { VerifyOptions } from "../../src/transcript/verify.ts";
import type { CopyScope } from "../../src/transcript/verify-index.ts";
import type { TranscriptReport, VerifyReport } from "../../src/transcript/verify-report.ts";
import { PULLED_FILE } from "../local/pulled-file.ts";
import { SEAL_KEYS_FILE } from "../local/verify-folder.ts";
import { describeReceipt, holdReceiptFile } from "../local/verify-receipt-file.ts";
import { parseArguments } from "./arguments.ts";
import { type Command, CommandError, EXIT, type Io, UsageError } from "./command.ts";
import { count } from "./printable.ts";
import { noteScopes } from "./verify-scopes.ts";
import { type Copy, openCopy } from "./verify-source.ts";

export const verify: Command = {
  summary: "verify transcripts: a copy, offline, or a bucket",
  usage: `portcullis verify <folder> | --s3 <endpoint> --bucket <name>
                        [--keys <file> | --gate <origin>] [--issuer <origin>] [--now <ms or ISO 8601>]
                        [--no-bodies | --bodies-kept-days <n>] [--receipt <file>] [--whole] [--json]

  <folder>  a copy of the bucket: <folder>/transcripts/…, <folder>/bodies/…, <folder>/erasures/…
  --s3      the bucket --bucket itself, all of it and without a copy, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
            (and AWS_SESSION_TOKEN, AWS_REGION) of the environment, which may list and read it. It implies --whole
  --keys    public seal keys, as /.well-known/portcullis-seal-keys.json gives them (default: <folder>/${SEAL_KEYS_FILE})
  --gate    asks that gate for them
  --issuer  whose seals these must be (default: of anyone who holds one of the keys)
  --now     the time to verify at (default: now); past its deadline a transcript must have a sealed end
  --no-bodies          verify the envelopes only: for a copy without bodies
  --bodies-kept-days   the lifecycle rule of the bucket: bodies of calls older than this may be gone
  --whole   the folder is a copy of everything, whoever made it: what the index of segments names must be here, and
            what is here must be named. (Of what pull made, ${PULLED_FILE} says what must be.)
  --receipt a switch's receipt, as the admin API answered or as --save kept it: held to itself and to the transcripts here

Exit: 0 all is as it was written, 1 it is not, 2 it could not be verified; 3 the bucket refuses, 4 it, or the gate, could not
be reached.`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, {
      s3: { type: "string" },
      bucket: { type: "string" },
      keys: { type: "string" },
      gate: { type: "string" },
      issuer: { type: "string" },
      now: { type: "string" },
      "no-bodies": { type: "boolean", default: false },
      "bodies-kept-days": { type: "string" },
      receipt: { type: "string" },
      whole: { type: "boolean", default: false },
      json: { type: "boolean", default: false },
    });
    const copy = openCopy(operands, options, io);
    const nowMs = options.now === undefined ? Date.now() : parseTime(options.now);
    const keptDays = options["bodies-kept-days"];
    if (options["no-bodies"] && keptDays !== undefined)
      throw new UsageError("--no-bodies and --bodies-kept-days exclude each other");
    const { report, receipt, scopes } = await verifyOrSay(copy, {
      issuer: options.issuer ?? null,
      nowMs,
      bodies: !options["no-bodies"],
      ...(keptDays === undefined ? {} : { bodiesKeptMs: parseDays(keptDays) }),
      receiptFile: options.receipt,
    });
    if (options.json) io.json({ ...report, heldTo: scopes, ...(receipt === null ? {} : { receipt }) });
    else {
      print(report, io);
      noteScopes(scopes, io);
      if (receipt !== null) printReceipt(receipt, io);
    }
    return report.ok && receipt?.ok !== false ? EXIT.ok : EXIT.no;
  },
};

interface Asked extends Omit<VerifyOptions, "keys" | "scopes"> {
  readonly receiptFile: string | undefined;
}

interface Verified {
  readonly report: VerifyReport;
  /** Null: none was asked for. */
  readonly receipt: ReceiptReport | null;
  readonly scopes: readonly CopyScope[];
}

async function verifyOrSay(copy: Copy, { receiptFile, ...asked }: Asked): Promise<Verified> {
  try {
    const scopes = await copy.scopes();
    const options = { ...asked, keys: await copy.keys(), scopes };
    if (receiptFile !== undefined) return { ...(await holdReceiptFile(copy.verify, receiptFile, options)), scopes };
    return { report: await copy.verify(options), receipt: null, scopes };
  } catch (cause) {
    const code = cause instanceof CommandError ? cause.exitCode : EXIT.usage;
    throw new CommandError(code, `not verified: ${(cause as Error).message}`);
  }
}

function parseTime(text: string): number {
  const timeMs = /^\d+$/.test(text) ? Number(text) : Date.parse(text);
  if (!Number.isSafeInteger(timeMs)) throw new UsageError(`--now: not a time: ${text}`);
  return timeMs;
}

function parseDays(text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new UsageError(`--bodies-kept-days: not a number of days: ${text}`);
  return Number(text) * DAY_MS;
}

const DAY_MS = 86_400_000;

function print({ transcripts, findings, unnamedSegments, bodiesVerified, ok }: VerifyReport, io: Io): void {
  for (const transcript of transcripts) {
    io.say(`${transcript.findings.length === 0 ? "ok  " : "FAIL"} ${describe(transcript)}`);
    printFindings(transcript.findings, io);
  }
  if (findings.length > 0) io.say("FAIL what belongs to no transcript");
  printFindings(findings, io);
  if (unnamedSegments.length > 0)
    io.say(
      `${count(unnamedSegments.length, "segment")} of the last hour, which the index of segments does not name yet`,
    );
  const found = [findings, ...transcripts.map((transcript) => transcript.findings)].flat().length;
  if (transcripts.some(({ absentBodies }) => absentBodies.length > 0)) io.say(ABOUT_ABSENT);
  const without = bodiesVerified ? "" : ", envelopes only: no body was looked at";
  io.say(
    ok
      ? `verified: ${count(transcripts.length, "transcript")}${without}`
      : `NOT verified: ${count(found, "finding")}${without}`,
  );
}

const ABOUT_ABSENT =
  "Of a copy that was made without bodies, verify the envelopes with --no-bodies; of a bucket that lets bodies go, say when with --bodies-kept-days.";

function printReceipt(receipt: ReceiptReport, io: Io): void {
  for (const line of describeReceipt(receipt)) io.say(line);
  printFindings(receipt.findings, io);
}

function printFindings(findings: TranscriptReport["findings"], io: Io): void {
  for (const { place, problem } of findings) io.say(`     ${place}: ${problem}`);
}

function describe(report: TranscriptReport): string {
  const notes = [
    count(report.records, "record"),
    count(report.segments, "segment"),
    report.status,
    ...note(report.openCalls.length, "call still open", "calls still open"),
    ...describeErased(report.erasedBodies),
    ...note(report.expiredBodies.length, "body expired", "bodies expired"),
    ...note(report.absentBodies.length, "body absent", "bodies absent"),
    ...note(report.undigestedBodies.length, "body without a digest", "bodies without a digest"),
    ...note(report.bodiesAhead, "object of bodies ahead", "objects of bodies ahead"),
    ...note(report.uncheckedCalls.length, "call not held to its scope", "calls not held to their scope"),
    ...(report.parent === "absent" ? ["its parent's transcript is not here"] : []),
    ...describeClock(report.clockBack),
  ];
  return `${report.partition}: ${notes.join(", ")}`;
}

const note = (number: number, one: string, many: string): string[] => (number === 0 ? [] : [count(number, one, many)]);

/** By which certificates: their keys end so. */
function describeErased(erased: TranscriptReport["erasedBodies"]): string[] {
  const ids = [...new Set(erased.map(({ erasure }) => erasure))];
  return note(erased.length, "body erased", "bodies erased").map((text) => `${text} (${ids.join(", ")})`);
}

/** Two of the platform's clocks often differ by a millisecond: `--json` tells of those, too. */
const NOTED_CLOCK_BACK_MS = 1_000;

const describeClock = (clockBack: TranscriptReport["clockBack"]): string[] =>
  clockBack === null || clockBack.mostMs < NOTED_CLOCK_BACK_MS
    ? []
    : [`clock back by up to ${clockBack.mostMs} ms in ${count(clockBack.records, "record")}`];
