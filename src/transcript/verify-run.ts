import * as z from "zod";
import { parseStrictJsonBytes } from "../json/strict-json.ts";
import { err, ok, type Result } from "../result.ts";
import { type BodyLine, readBodyBytes, SALT_BYTES, writeBodyLine, writeRawLine } from "./body-line.ts";
import { UNKNOWN_VERSION } from "./envelope.ts";
import type { BodyName } from "./verify-records.ts";

const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

const runShape = z.strictObject({
  v: z.literal(1),
  seq: z.number().int().nonnegative(),
  part: z.enum(["request", "answer", "claims"]),
  index: z.number().int().nonnegative(),
  salt: z
    .string()
    .regex(new RegExp(`^[0-9a-f]{${SALT_BYTES * 2}}$`))
    .optional(),
  text: z.string().optional(),
  base64: z.string().optional(),
  raw: z.string().optional(),
});

/** A line of a bodies object. */
export interface Run extends BodyName {
  readonly index: number;
  readonly salt: Uint8Array | null;
  /** Null: they lie in raw objects. */
  readonly bytes: Uint8Array | null;
}

export function parseRun(line: Uint8Array): Result<Run, string> {
  const strict = parseStrictJsonBytes(line);
  if (!strict.ok) return err(`not strict JSON: ${strict.error}`);
  const parsed = runShape.safeParse(strict.value);
  if (!parsed.success) {
    const field = parsed.error.issues[0]?.path.join(".");
    return err(field === "v" ? UNKNOWN_VERSION : `not a run of a body: ${field}`);
  }
  const { seq, part, index, raw, salt } = parsed.data;
  const run = { seq, part, index, salt: salt === undefined ? null : fromHex(salt) };
  const frame = { seq, index, ...(salt === undefined ? {} : { salt }) };
  // What a line holds has one spelling, so nothing can hide beside it.
  try {
    const text = UTF8.decode(line);
    if (raw !== undefined && part !== "claims") {
      if (writeRawLine({ ...frame, part }) === text) return ok({ ...run, bytes: null });
    } else {
      const bytes = readBodyBytes(parsed.data as BodyLine);
      const spelled = writeBodyLine({ seq, part, index, ...(salt === undefined ? {} : { salt }) }, bytes);
      if (spelled === text) return ok({ ...run, bytes });
    }
  } catch {}
  return err("not a run of a body as it was written");
}

const fromHex = (hex: string): Uint8Array =>
  Uint8Array.from({ length: hex.length / 2 }, (_, i) => Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16));
