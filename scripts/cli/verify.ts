// verify: a copy of the transcript bucket, offline.

import { join } from "node:path";
import type { TranscriptReport, VerifyReport } from "../../src/transcript/verify.ts";
import { readSealKeys, SEAL_KEYS_FILE, verifyFolder } from "../local/verify-folder.ts";
import { onlyOperand, parseArguments } from "./arguments.ts";
import { type Command, CommandError, EXIT, type Io, UsageError } from "./command.ts";
import { count } from "./printable.ts";

export const verify: Command = {
  summary: "verify a copy of the transcripts, offline",
  usage: `portcullis verify <folder> [--keys <file>] [--issuer <origin>] [--now <ms or ISO 8601>] [--json]

  <folder>  a copy of the bucket: <folder>/transcripts/…, <folder>/bodies/…
  --keys    public seal keys, as /.well-known/portcullis-seal-keys.json gives them (default: <folder>/${SEAL_KEYS_FILE})
  --issuer  whose seals these must be (default: of anyone who holds one of the keys)
  --now     the time to verify at (default: now); past its deadline a transcript must have a sealed end

Exit: 0 all is as it was written, 1 it is not, 2 it could not be verified.`,
  run: async (args, io) => {
    const { operands, options } = parseArguments(args, {
      keys: { type: "string" },
      issuer: { type: "string" },
      now: { type: "string" },
      json: { type: "boolean", default: false },
    });
    const folder = onlyOperand(operands, "folder");
    const nowMs = options.now === undefined ? Date.now() : parseTime(options.now);
    const report = await verifyOrSay(folder, {
      keysFile: options.keys ?? join(folder, SEAL_KEYS_FILE),
      issuer: options.issuer ?? null,
      nowMs,
    });
    if (options.json) io.json(report);
    else print(report, io);
    return report.ok ? EXIT.ok : EXIT.no;
  },
};

interface Asked {
  readonly keysFile: string;
  readonly issuer: string | null;
  readonly nowMs: number;
}

async function verifyOrSay(folder: string, { keysFile, issuer, nowMs }: Asked): Promise<VerifyReport> {
  try {
    return await verifyFolder(folder, { keys: await readSealKeys(keysFile), issuer, nowMs });
  } catch (cause) {
    throw new CommandError(EXIT.usage, `not verified: ${(cause as Error).message}`);
  }
}

function parseTime(text: string): number {
  const timeMs = /^\d+$/.test(text) ? Number(text) : Date.parse(text);
  if (!Number.isSafeInteger(timeMs)) throw new UsageError(`--now: not a time: ${text}`);
  return timeMs;
}

function print({ transcripts, findings, ok }: VerifyReport, io: Io): void {
  for (const transcript of transcripts) {
    io.say(`${transcript.findings.length === 0 ? "ok  " : "FAIL"} ${describe(transcript)}`);
    printFindings(transcript.findings, io);
  }
  if (findings.length > 0) io.say("FAIL what belongs to no transcript");
  printFindings(findings, io);
  const found = [findings, ...transcripts.map((transcript) => transcript.findings)].flat().length;
  io.say(ok ? `verified: ${count(transcripts.length, "transcript")}` : `NOT verified: ${count(found, "finding")}`);
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
    ...note(report.erasedBodies.length, "body erased", "bodies erased"),
    ...note(report.undigestedBodies.length, "body without a digest", "bodies without a digest"),
    ...note(report.bodiesAhead, "object of bodies ahead", "objects of bodies ahead"),
  ];
  return `${report.partition}: ${notes.join(", ")}`;
}

const note = (number: number, one: string, many: string): string[] => (number === 0 ? [] : [count(number, one, many)]);
