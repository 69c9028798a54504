import { createHash } from "node:crypto";
import type { RecordedRequest } from "../src/instance/contract.ts";
import type { Json } from "../src/scope/call.ts";
import { SALT_BYTES } from "../src/transcript/body-line.ts";
import { type BodyReference, sha256Hex } from "../src/transcript/envelope.ts";
import type { BodyRun } from "./log-table.ts";

/** Hashes a body as its runs pass, and numbers them. */
export class BodyWriter {
  readonly #of: number;
  readonly #part: "request" | "answer";
  readonly mediaType: string | null;
  readonly coding: string;
  readonly #salt = crypto.getRandomValues(new Uint8Array(SALT_BYTES));
  readonly #hash = createHash("sha256").update(this.#salt);
  #index = 0;
  bytes = 0;

  constructor(of: number, part: "request" | "answer", mediaType: string | null = null, coding = "identity") {
    this.#of = of;
    this.#part = part;
    this.mediaType = mediaType;
    this.coding = coding;
  }

  next(bytes: Uint8Array): BodyRun {
    const run: BodyRun = {
      of: this.#of,
      part: this.#part,
      index: this.#index,
      salt: this.#index === 0 ? this.#salt : null,
      bytes,
    };
    this.#index++;
    this.#hash.update(bytes);
    this.bytes += bytes.length;
    return run;
  }

  reference(mediaType: string | null, coding: string, complete: boolean): BodyReference {
    return { digest: this.#hash.copy().digest("hex"), bytes: this.bytes, mediaType, coding, complete };
  }
}

/** The digest of a body that came whole, with the run that holds it. */
export function wholeBody(
  of: number,
  part: "request" | "answer" | "claims",
  bytes: Uint8Array,
  mediaType: string | null,
  coding: string,
): { readonly reference: BodyReference; readonly run: BodyRun } {
  const salt = crypto.getRandomValues(new Uint8Array(SALT_BYTES));
  return {
    reference: { digest: sha256Hex(salt, bytes), bytes: bytes.length, mediaType, coding, complete: true },
    run: { of, part, index: 0, salt, bytes },
  };
}

/** What is durable of an answer whose lease is gone. `mayMiss`: how much more may have been passed. */
export function durableReference(
  runs: Iterable<{ readonly salt: Uint8Array | null; readonly bytes: Uint8Array }>,
  mayMiss: number,
  known: Pick<BodyReference, "mediaType" | "coding"> = { mediaType: null, coding: "unknown" },
): BodyReference {
  const hash = createHash("sha256");
  let bytes = 0;
  let found = false;
  for (const run of runs) {
    if (run.salt !== null) hash.update(run.salt);
    hash.update(run.bytes);
    bytes += run.bytes.length;
    found = true;
  }
  return {
    digest: found ? hash.digest("hex") : null,
    bytes,
    mediaType: known.mediaType,
    coding: known.coding,
    complete: false,
    mayMiss,
  };
}

interface RequestBodyRecord {
  readonly reference: Json;
  readonly run: BodyRun | null;
  /** For the runs that follow. */
  readonly writer: BodyWriter | null;
}

/** The body of a request as its record speaks of it, and its first run. */
export function requestBody({ headers, body, bodyFollows }: RecordedRequest, seq: number): RequestBodyRecord {
  const header = (name: string): string | null => headers.find(([key]) => key === name)?.[1] ?? null;
  const mediaType = header("content-type");
  const coding = header("content-encoding") ?? "identity";
  if (bodyFollows) {
    const writer = new BodyWriter(seq, "request", mediaType, coding);
    const reference = { digest: null, bytes: null, mediaType, coding, complete: false };
    return { reference, run: writer.next(body), writer };
  }
  if (body.length === 0) return { reference: null, run: null, writer: null };
  const { reference, run } = wholeBody(seq, "request", body, mediaType, coding);
  return { reference: { ...reference }, run, writer: null };
}
