import { createHash } from "node:crypto";
import type { RecordedRequest, Redaction } from "../src/instance/contract.ts";
import type { Json } from "../src/scope/call.ts";
import { SALT_BYTES } from "../src/transcript/body-line.ts";
import { type BodyReference, sha256Hex } from "../src/transcript/envelope.ts";
import type { RawPart } from "../src/transcript/layout.ts";
import type { BodyRun } from "./log-table.ts";

const newSalt = (): Uint8Array => crypto.getRandomValues(new Uint8Array(SALT_BYTES));

/** So much of a body lies in lines, beside its record; what exceeds it, and all of one that declares more, in raw objects. */
export const INLINE_MAX_BYTES = 1_048_576;

/** What is to be written of a run of a body. */
export interface Piece {
  /** Its row in the log; null where an earlier row stands for it. */
  readonly run: BodyRun | null;
  /** Its bytes, where they go into raw objects. */
  readonly raw: { readonly of: number; readonly part: RawPart; readonly bytes: Uint8Array } | null;
}

/** Hashes a body as its runs pass, numbers them, and says where they lie. */
export class BodyWriter {
  readonly of: number;
  readonly part: RawPart;
  readonly mediaType: string | null;
  readonly coding: string;
  readonly #salt: Uint8Array;
  readonly #hash: ReturnType<typeof createHash>;
  readonly #isLarge: boolean;
  #isRaw = false;
  #index = 0;
  bytes = 0;

  constructor(
    of: number,
    part: RawPart,
    about: { readonly mediaType?: string | null; readonly coding?: string; readonly declaredBytes: number | null },
    salt = newSalt(),
  ) {
    this.#salt = salt;
    this.#hash = createHash("sha256").update(salt);
    this.of = of;
    this.part = part;
    this.mediaType = about.mediaType ?? null;
    this.coding = about.coding ?? "identity";
    this.#isLarge = about.declaredBytes !== null && about.declaredBytes > INLINE_MAX_BYTES;
  }

  /** Goes on with a body of which these runs are durable. They lie in lines, all of them. */
  static after(of: number, part: RawPart, runs: Iterable<BodyRun>): BodyWriter | null {
    let writer: BodyWriter | null = null;
    for (const { salt, bytes } of runs) {
      writer ??= new BodyWriter(of, part, { declaredBytes: null }, salt!);
      writer.next(bytes);
    }
    return writer;
  }

  next(bytes: Uint8Array): Piece {
    this.#hash.update(bytes);
    this.bytes += bytes.length;
    const { of, part } = this;
    const raw = { of, part, bytes };
    if (this.#isRaw) return { run: null, raw };
    this.#isRaw = this.#isLarge || this.bytes > INLINE_MAX_BYTES;
    const salt = this.#index === 0 ? this.#salt : null;
    const frame = { of, part, index: this.#index, salt };
    this.#index++;
    return this.#isRaw
      ? { run: { ...frame, bytes: NOTHING, isRaw: true }, raw }
      : { run: { ...frame, bytes, isRaw: false }, raw: null };
  }

  reference(mediaType: string | null, coding: string, complete: boolean): BodyReference {
    return { digest: this.#hash.copy().digest("hex"), bytes: this.bytes, mediaType, coding, complete };
  }
}

const NOTHING = new Uint8Array(0);

/** The digest of a body that came whole, with the run that holds it. */
export function wholeBody(
  of: number,
  part: RawPart | "claims",
  bytes: Uint8Array,
  mediaType: string | null,
  coding: string,
  salt = newSalt(),
): { readonly reference: BodyReference; readonly run: BodyRun } {
  return {
    reference: { digest: sha256Hex(salt, bytes), bytes: bytes.length, mediaType, coding, complete: true },
    run: { of, part, index: 0, salt, bytes, isRaw: false },
  };
}

/** Of a body whose lease is gone. */
export type LostReference = Omit<BodyReference, "bytes"> & { readonly bytes: number | null };

/** What is durable of a body whose lease is gone: hashed again, run by run. */
export class DurableBody {
  readonly #hash = createHash("sha256");
  #bytes = 0;
  #isEmpty = true;
  #lostBytes = 0;

  add({ salt, bytes }: Pick<BodyRun, "salt" | "bytes">): void {
    if (salt !== null) this.#hash.update(salt);
    this.#hash.update(bytes);
    this.#bytes += bytes.length;
    this.#isEmpty = false;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** Some of it can't be read any more: of the rest there is no digest that means anything. */
  lose(bytes: number): void {
    this.#lostBytes += bytes;
  }

  /**
   * Where some of it is lost neither digest nor length can be held against what is left.
   * @param mayMiss how much more may have been passed
   */
  reference(mayMiss: number, known: Pick<BodyReference, "mediaType" | "coding"> | null): LostReference {
    const isLost = this.#lostBytes > 0;
    return {
      digest: this.#isEmpty || isLost ? null : this.#hash.digest("hex"),
      bytes: isLost ? null : this.#bytes,
      mediaType: known?.mediaType ?? null,
      coding: known?.coding ?? "unknown",
      complete: false,
      mayMiss: isLost ? this.#bytes + this.#lostBytes + mayMiss : mayMiss,
    };
  }
}

interface RequestBodyRecord {
  readonly reference: Json;
  /** What shares the call's row, and where its bytes go. */
  readonly piece: Piece;
  /** For the runs that follow. */
  readonly writer: BodyWriter | null;
}

/** What was recorded is digested; of what was sent the length is said besides. */
export const redactedReference = (reference: BodyReference, redaction: Redaction | undefined): Json => {
  const body = redaction?.body ?? null;
  if (body === null) return { ...reference };
  return { ...reference, complete: reference.complete && !body.withheld, trueBytes: body.trueBytes };
};

/** The body of a request as its record speaks of it, and its first run. */
export function requestBody(
  { headers, body, bodyFollows, redaction }: RecordedRequest,
  seq: number,
): RequestBodyRecord {
  const header = (name: string): string | null => headers.find(([key]) => key === name)?.[1] ?? null;
  const mediaType = header("content-type");
  const coding = header("content-encoding") ?? "identity";
  if (bodyFollows) {
    // It was read up to more than lies inline: all of it goes into raw objects.
    const about = { mediaType, coding, declaredBytes: Number.POSITIVE_INFINITY };
    const writer = new BodyWriter(seq, "request", about, redaction?.salt);
    const reference = { digest: null, bytes: null, mediaType, coding, complete: false };
    return { reference, piece: writer.next(body), writer };
  }
  // Where rules concern the call, the run holds their salt, be it empty otherwise.
  if (body.length === 0 && redaction === undefined)
    return { reference: null, piece: { run: null, raw: null }, writer: null };
  const { reference, run } = wholeBody(seq, "request", body, mediaType, coding, redaction?.salt);
  return { reference: redactedReference(reference, redaction), piece: { run, raw: null }, writer: null };
}
