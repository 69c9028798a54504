import { createHash } from "node:crypto";
import { z } from "zod";
import { parseStrictJsonBytes } from "../json/strict-json.ts";
import { err, ok, type Result } from "../result.ts";
import { type BodyLine, readBodyBytes, SALT_BYTES, writeBodyLine } from "./body-line.ts";
import { type Findings, lineOf } from "./verify-findings.ts";
import { readLines } from "./verify-lines.ts";
import { type BodyName, bodyId, type RecordReader, type StatedBody } from "./verify-records.ts";

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
});

/** A line of a bodies object. */
interface Run extends BodyName {
  readonly index: number;
  readonly salt: string | null;
  readonly bytes: Uint8Array;
}

/** The runs of one body so far. */
interface Gathered {
  readonly stated: StatedBody;
  readonly firstPlace: string;
  hash: ReturnType<typeof createHash> | null;
  digest: string | null;
  runs: number;
  bytes: number;
  /** Named by a finding. */
  blamed: boolean;
}

export interface BodyCounts {
  /** Stated by the records, and nothing of it here. */
  readonly erased: readonly BodyName[];
  /** Here, but no record states a digest. */
  readonly undigested: readonly BodyName[];
}

/**
 * Holds the runs in bodies objects to what the records state. Objects come in the order of their segments and volumes,
 * one at a time; runs are hashed as they come, and nothing of a body is kept.
 */
export class BodyReader {
  readonly #records: RecordReader;
  readonly #findings: Findings;
  readonly #gathered = new Map<string, Gathered>();
  /** A line or an object could not be read: what seems to be missing may have stood there. */
  #isDamaged = false;

  constructor(records: RecordReader, findings: Findings) {
    this.#records = records;
    this.#findings = findings;
  }

  /** An object that can't be read at all. */
  markDamaged(key: string, problem: string): void {
    this.#isDamaged = true;
    this.#findings.add(key, problem);
  }

  async read(key: string, segment: number, object: Uint8Array): Promise<void> {
    const read = await readLines(object);
    if (!read.ok) {
      this.markDamaged(key, read.error);
      return;
    }
    const { lines, terminated } = read.value;
    if (!terminated) this.#findings.add(lineOf(key, lines.length - 1), "does not end with a newline");
    for (const [index, bytes] of lines.entries()) {
      const run = parseRun(bytes);
      if (run.ok) this.#readRun(run.value, lineOf(key, index), segment);
      else this.markDamaged(lineOf(key, index), run.error);
    }
  }

  #readRun(run: Run, at: string, segment: number): void {
    const place = `${at} (seq ${run.seq}, ${run.part})`;
    const id = bodyId(run);
    let body = this.#gathered.get(id);
    if (body === undefined) {
      const stated = this.#records.findBody(run);
      if (stated === undefined) {
        this.#findings.add(place, "a body that no record refers to");
        return;
      }
      body = { stated, firstPlace: place, hash: null, digest: null, runs: 0, bytes: 0, blamed: false };
      this.#gathered.set(id, body);
    }
    const problem = placeProblem(run, segment, body);
    if (problem === undefined) gather(body, run);
    else {
      if (!body.blamed && !this.#isDamaged) this.#findings.add(place, problem);
      body.blamed = true;
    }
  }

  /** After the last object. */
  finish(): BodyCounts {
    const erased: BodyName[] = [];
    const undigested: BodyName[] = [];
    for (const stated of this.#records.bodies) {
      const name = { seq: stated.seq, part: stated.part };
      const body = this.#gathered.get(bodyId(name));
      if (body === undefined) {
        if (stated.bytes !== 0 && !this.#isDamaged) erased.push(name);
      } else if (stated.bytes === null) undigested.push(name);
      else if (!body.blamed) this.#compare(body, stated, stated.bytes);
    }
    return { erased, undigested };
  }

  #compare(body: Gathered, stated: StatedBody, bytes: number): void {
    if (body.bytes < bytes) {
      if (!this.#isDamaged)
        this.#findings.add(body.firstPlace, `a part of a body: ${body.bytes} of the ${bytes} bytes of ${stated.place}`);
    } else if (body.digest !== stated.digest) {
      const where = body.runs === 1 ? "altered" : `altered in one of its ${body.runs} runs`;
      this.#findings.add(body.firstPlace, `${where}: not the digest of ${stated.place}`);
    }
  }
}

function parseRun(bytes: Uint8Array): Result<Run, string> {
  const strict = parseStrictJsonBytes(bytes);
  if (!strict.ok) return err(`not strict JSON: ${strict.error}`);
  const parsed = runShape.safeParse(strict.value);
  if (!parsed.success) return err(`not a run of a body: ${parsed.error.issues[0]?.path.join(".")}`);
  const { seq, part, index, salt = null } = parsed.data;
  // What a run holds has one spelling, so nothing can hide beside it.
  try {
    const run = readBodyBytes(parsed.data as BodyLine);
    const spelled = writeBodyLine({ seq, part, index, ...(salt === null ? {} : { salt }) }, run);
    if (spelled === UTF8.decode(bytes)) return ok({ seq, part, index, salt, bytes: run });
  } catch {}
  return err("not a run of a body as it was written");
}

function placeProblem(run: Run, segment: number, { stated, runs, bytes }: Gathered): string | undefined {
  if (run.index !== runs) return `run ${run.index} of a body where its run ${runs} belongs`;
  if ((run.salt !== null) !== (run.index === 0)) return "a salt belongs to run 0, and to no other";
  if (segment < stated.fromSegment || segment > stated.untilSegment)
    return "a run among the bodies of a segment outside of its call's time";
  if (stated.bytes !== null && bytes + run.bytes.length > stated.bytes)
    return `more than the ${stated.bytes} bytes of ${stated.place}`;
  return undefined;
}

function gather(body: Gathered, { salt, bytes }: Run): void {
  body.runs++;
  // Nothing but empty runs comes after the last byte.
  if (body.stated.bytes === null || body.digest !== null) return;
  body.hash ??= createHash("sha256");
  if (salt !== null) body.hash.update(fromHex(salt));
  body.hash.update(bytes);
  body.bytes += bytes.length;
  if (body.bytes < body.stated.bytes) return;
  // Kept as a digest, not as a hash at work: there can be as many bodies as calls.
  body.digest = body.hash.digest("hex");
  body.hash = null;
}

const fromHex = (hex: string): Uint8Array =>
  Uint8Array.from({ length: hex.length / 2 }, (_, i) => Number.parseInt(hex.slice(2 * i, 2 * i + 2), 16));
