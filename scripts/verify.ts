// Verifies a copy of the transcript bucket, offline: `npm run verify -- <folder>`.
// Exit codes: 0 all is as it was written, 1 it is not, 2 it could not be verified.

import { join } from "node:path";
import { parseArgs } from "node:util";
import type { TranscriptReport, VerifyReport } from "../src/transcript/verify.ts";
import { readSealKeys, SEAL_KEYS_FILE, verifyFolder } from "./local/verify-folder.ts";
import { describeReceipt, type VerifiedWithReceipt, verifyReceiptFile } from "./local/verify-receipt-file.ts";

const USAGE = `usage: npm run verify -- <folder> [--keys <file>] [--issuer <origin>] [--now <ms or ISO 8601>]
                                    [--receipt <file>] [--json]

  <folder>  a copy of the bucket: <folder>/transcripts/…, <folder>/bodies/…
  --keys    public seal keys, as /.well-known/portcullis-seal-keys.json gives them (default: <folder>/${SEAL_KEYS_FILE})
  --issuer  whose seals these must be (default: of anyone who holds one of the keys)
  --now     the time to verify at (default: now); past its deadline a transcript must have a sealed end
  --receipt a switch's receipt, as the admin API answered or its JWS alone: held to itself and to the transcripts here`;

class UsageError extends Error {}

async function main(args: string[]): Promise<number> {
  const { folder, keysFile, issuer, nowMs, receiptFile, json } = parse(args);
  const options = { keys: await readSealKeys(keysFile), issuer, nowMs };
  if (receiptFile !== undefined) return verifyWithReceipt(await verifyReceiptFile(folder, receiptFile, options), json);
  const report = await verifyFolder(folder, options);
  if (json) console.log(JSON.stringify(report, null, 2));
  else print(report);
  return report.ok ? 0 : 1;
}

function verifyWithReceipt({ report, receipt }: VerifiedWithReceipt, json: boolean): number {
  if (json) console.log(JSON.stringify({ ...report, receipt }, null, 2));
  else {
    print(report);
    for (const line of describeReceipt(receipt)) console.log(line);
    printFindings(receipt.findings);
  }
  return report.ok && receipt.ok ? 0 : 1;
}

function parse(args: string[]) {
  const options = {
    keys: { type: "string" },
    issuer: { type: "string" },
    now: { type: "string" },
    receipt: { type: "string" },
    json: { type: "boolean" },
  } as const;
  let parsed: ReturnType<typeof parseArgs<{ options: typeof options; allowPositionals: true }>>;
  try {
    parsed = parseArgs({ args, options, allowPositionals: true });
  } catch (cause) {
    throw new UsageError(cause instanceof Error ? cause.message : "unknown option");
  }
  const { positionals, values } = parsed;
  const [folder] = positionals;
  if (folder === undefined || positionals.length !== 1) throw new UsageError("give one folder");
  return {
    folder,
    keysFile: values.keys ?? join(folder, SEAL_KEYS_FILE),
    issuer: values.issuer ?? null,
    nowMs: values.now === undefined ? Date.now() : parseTime(values.now),
    receiptFile: values.receipt,
    json: values.json === true,
  };
}

function parseTime(text: string): number {
  const timeMs = /^\d+$/.test(text) ? Number(text) : Date.parse(text);
  if (!Number.isSafeInteger(timeMs)) throw new UsageError(`--now: not a time: ${text}`);
  return timeMs;
}

function print({ transcripts, findings, ok }: VerifyReport): void {
  for (const transcript of transcripts) {
    console.log(`${transcript.findings.length === 0 ? "ok  " : "FAIL"} ${describe(transcript)}`);
    printFindings(transcript.findings);
  }
  if (findings.length > 0) console.log("FAIL what belongs to no transcript");
  printFindings(findings);
  const count = [findings, ...transcripts.map((transcript) => transcript.findings)].flat().length;
  console.log(
    ok ? `verified: ${plural(transcripts.length, "transcript")}` : `NOT verified: ${plural(count, "finding")}`,
  );
}

function printFindings(findings: TranscriptReport["findings"]): void {
  // Keys come from the bucket: what is not printable must not reach a terminal.
  for (const { place, problem } of findings)
    console.log(
      `     ${place}: ${problem}`.replace(/[^\P{C}]/gu, (char) => `\\u{${char.codePointAt(0)!.toString(16)}}`),
    );
}

function describe(report: TranscriptReport): string {
  const notes = [
    plural(report.records, "record"),
    plural(report.segments, "segment"),
    report.status,
    ...note(report.openCalls.length, "call still open", "calls still open"),
    ...note(report.erasedBodies.length, "body erased", "bodies erased"),
    ...note(report.undigestedBodies.length, "body without a digest", "bodies without a digest"),
    ...note(report.bodiesAhead, "object of bodies ahead", "objects of bodies ahead"),
  ];
  return `${report.partition}: ${notes.join(", ")}`;
}

const note = (count: number, one: string, many: string): string[] =>
  count === 0 ? [] : [`${count} ${count === 1 ? one : many}`];

const plural = (count: number, one: string): string => `${count} ${count === 1 ? one : `${one}s`}`;

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (cause) {
  if (cause instanceof UsageError) console.error(`${cause.message}\n\n${USAGE}`);
  else console.error(`not verified: ${cause instanceof Error ? cause.message : "unknown"}`);
  process.exitCode = 2;
}
