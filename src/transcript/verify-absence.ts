import { type Erasure, readErasureLine } from "./erasure.ts";
import type { Findings } from "./verify-findings.ts";
import type { SealKeys } from "./verify-keys.ts";
import { parseErasureKey } from "./verify-layout.ts";
import { joinBytes } from "./verify-lines.ts";
import type { TranscriptObjects } from "./verify-objects.ts";
import type { StatedBody } from "./verify-stated-bodies.ts";

/** Far above the longest certificate. */
const CERTIFICATE_MAX_BYTES = 65_536;

/** Why a body may be gone: by a certificate, or by the bucket's lifecycle. */
export type Absence = { readonly erasure: string } | "expired";

export interface AbsenceRules {
  readonly certificates: readonly Erasure[];
  /** Bodies of calls before this time may have been deleted by a lifecycle rule. Null: there is none. */
  readonly expiredBeforeMs: number | null;
}

/** What accounts for the absence of a body of this human and task. Null: nothing does. */
export function accountFor(
  { atMs, sinceMs }: StatedBody,
  { human, task }: Readonly<Record<string, string>>,
  { certificates, expiredBeforeMs }: AbsenceRules,
): Absence | null {
  const erasure = certificates.find(
    (one) => one.human === human && (one.task === undefined || one.task === task) && atMs <= one.before,
  );
  if (erasure !== undefined) return { erasure: erasure.id };
  return expiredBeforeMs !== null && sinceMs < expiredBeforeMs ? "expired" : null;
}

/** Certificates that hold; of the others, findings. */
export async function readCertificates(
  objects: TranscriptObjects,
  { keys, issuer }: { readonly keys: SealKeys; readonly issuer: string | null },
  findings: Findings,
): Promise<readonly Erasure[]> {
  const certificates: Erasure[] = [];
  for await (const key of objects.keys("erasures/")) {
    const name = parseErasureKey(key);
    if (name === undefined) {
      findings.add(key, "not the name of an erasure certificate");
      continue;
    }
    const text = await readText(objects, key);
    if (text === null) {
      findings.add(key, "can't be read");
      continue;
    }
    const read = readErasureLine(text.replace(/\n$/, ""), keys);
    if (!read.ok) findings.add(key, read.error);
    else if (read.value.human !== name.human || read.value.id !== name.id)
      findings.add(key, `a foreign certificate: it is ${read.value.id}, of human ${read.value.human}`);
    else if (issuer !== null && read.value.iss !== issuer)
      findings.add(key, `the certificate is of issuer ${read.value.iss}, not of ${issuer}`);
    else certificates.push(read.value);
  }
  return certificates;
}

async function readText(objects: TranscriptObjects, key: string): Promise<string | null> {
  const object = await objects.open(key);
  if (!object.ok) return null;
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for await (const part of object.value) {
    bytes += part.length;
    if (bytes > CERTIFICATE_MAX_BYTES) return null;
    parts.push(part);
  }
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(joinBytes(parts, bytes));
  } catch {
    return null;
  }
}
