// A kill's receipt in a file, held to the bucket or a copy of it.

import { readFile } from "node:fs/promises";
import { isDeepStrictEqual } from "node:util";
import { ReceiptEvents } from "../../src/control/receipt-events.ts";
import { type ReceiptReport, verifyReceipt } from "../../src/control/verify-receipt.ts";
import type { VerifyOptions } from "../../src/transcript/verify.ts";
import type { VerifyReport } from "../../src/transcript/verify-report.ts";
import { verifyFolder } from "./verify-folder.ts";

export interface VerifiedWithReceipt {
  readonly report: VerifyReport;
  readonly receipt: ReceiptReport;
}

/** Verifies the folder as ever, and the receipt against its records. Throws where a file or the folder can't be read. */
export const verifyReceiptFile = (folder: string, file: string, options: VerifyOptions): Promise<VerifiedWithReceipt> =>
  holdReceiptFile((all) => verifyFolder(folder, all), file, options);

/** The same, with whatever verifies the transcripts. */
export async function holdReceiptFile(
  verify: (options: VerifyOptions) => Promise<VerifyReport>,
  file: string,
  options: VerifyOptions,
): Promise<VerifiedWithReceipt> {
  const { jws, beside } = parseFile(await readFile(file, "utf8"));
  const events = new ReceiptEvents();
  const report = await verify({ ...options, onRecord: (...record) => events.add(...record) });
  const receipt = verifyReceipt(jws, { ...options, place: file }, events.transcripts);
  // What stands beside the signature is what a person reads: it must be what was signed.
  const unlike = Object.entries(beside).filter(
    ([member, value]) => receipt.receipt !== null && !isDeepStrictEqual(value, Object(receipt.receipt)[member]),
  );
  const findings = unlike.map(([member]) => ({ place: file, problem: `its ${member} is not the one that was signed` }));
  return {
    report,
    receipt: { ...receipt, findings: [...findings, ...receipt.findings], ok: receipt.ok && findings.length === 0 },
  };
}

/** The JWS itself, or what the admin API answered: JSON with the JWS in `jws`. */
function parseFile(text: string): { readonly jws: string; readonly beside: Readonly<Record<string, unknown>> } {
  if (!text.trimStart().startsWith("{")) return { jws: text.trim(), beside: {} };
  let parsed: { readonly jws?: unknown };
  try {
    parsed = JSON.parse(text) as { readonly jws?: unknown };
  } catch {
    throw new Error("the receipt's file is neither a JWS nor JSON");
  }
  const { jws, ...beside } = parsed;
  if (typeof jws !== "string") throw new Error("the receipt's file has no member jws");
  return { jws, beside };
}

const transcripts = (number: number): string => `${number} ${number === 1 ? "transcript" : "transcripts"}`;

/** For a person, without the findings. */
export function describeReceipt({ receipt, verified, notAtHand, unnamed, ok }: ReceiptReport): string[] {
  if (receipt === null) return ["FAIL receipt: not one that can be believed"];
  const { switch: sw, status, reached, cut, unconfirmed, idle, acceptedAtMs, lastAcknowledgedAtMs } = receipt;
  const lasted = lastAcknowledgedAtMs === null ? "" : `, all within ${lastAcknowledgedAtMs - acceptedAtMs} ms`;
  const notes = [
    `${sw.act} of ${sw.reach}, ${status}: ${reached} reached, ${cut} cut, ${unconfirmed} unconfirmed, ${idle} idle${lasted}`,
    `held to ${transcripts(verified.length)}; ${notAtHand.length} of its instances are not at hand`,
    ...(unnamed.length === 0 ? [] : [`learned of by ${transcripts(unnamed.length)} that it does not name`]),
  ];
  return [`${ok ? "ok  " : "FAIL"} receipt ${sw.id}: ${notes[0]}`, ...notes.slice(1).map((note) => `     ${note}`)];
}
