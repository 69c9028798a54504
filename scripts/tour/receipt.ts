// Step 6, in between: the receipt of the kill, held to the transcripts by who has nothing but files and public keys.

import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { KillReceipt } from "../local/admin.ts";
import { verifyReceiptFile } from "../local/verify-receipt-file.ts";
import type { Narrator } from "./narrator.ts";
import type { Pulled } from "./transcripts.ts";

export async function verifyKillReceipt(
  { folder, keys }: Pulled,
  { jws, acceptedAtMs, lastAcknowledgedAtMs }: KillReceipt,
  dir: string,
  tour: Narrator,
): Promise<void> {
  const file = join(dir, "tour", "receipt.jws");
  const verify = async (text: string) => {
    await writeFile(file, text);
    const { receipt } = await verifyReceiptFile(folder, file, { keys, issuer: null, nowMs: Date.now() });
    return { ok: receipt.ok, heldTo: receipt.verified.length, cut: receipt.receipt?.cut ?? null };
  };
  const [header, payload = "", signature] = jws.split(".");
  const claims = JSON.parse(Buffer.from(payload, "base64url").toString()) as object;
  const boast = Buffer.from(JSON.stringify({ ...claims, cut: 2 })).toString("base64url");
  tour.check(
    `the kill's signed receipt (${(lastAcknowledgedAtMs ?? acceptedAtMs) - acceptedAtMs} ms to the last acknowledgement) agrees with the transcript; one that boasts of a second cut does not verify`,
    { forged: await verify(`${header}.${boast}.${signature}`), signed: await verify(jws) },
    { forged: { ok: false, heldTo: 0, cut: null }, signed: { ok: true, heldTo: 1, cut: 1 } },
  );
}
