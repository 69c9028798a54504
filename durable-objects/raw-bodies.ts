import { createHash } from "node:crypto";
import { RAW_OBJECT_MAX_BYTES, type RawPart, rawBodyKey } from "../src/transcript/layout.ts";
import { joinBytes } from "../src/transcript/verify-lines.ts";
import type { Kept } from "./kept.ts";
import { answered, putOnce } from "./put-once.ts";

/** What is kept of a body while its bytes are on their way. */
export interface KnownBody {
  /** How many objects it has so far. */
  readonly objects: number;
  /** Those of them that are not in R2: each has a table. */
  readonly unstored: readonly number[];
}

/** A large body. Its last object is written to until it is closed; after a restart nothing is written to. */
interface Body extends KnownBody {
  readonly of: number;
  readonly part: RawPart;
  /** Bytes in the table of its last object; null where nothing more goes in. */
  filling: number | null;
  /** Nothing follows, and its record needs no more of it. */
  isClosed: boolean;
}

/** Of one body are at most so many on their way to R2 at a time. */
const PUTS_AT_ONCE = 3;

/**
 * Bodies too large for lines: raw bytes in tables, one for each object that they become. A full one is put while the next
 * fills, so what is held stays small however long the body is. Rows are dropped when the put is confirmed.
 */
export class RawBodies {
  readonly #sql: SqlStorage;
  readonly #kept: Kept;
  readonly #bodies = new Map<string, Body>();
  #heldBytes = 0;
  #storing: Promise<void> | null = null;
  #progress = Promise.withResolvers<void>();

  constructor(sql: SqlStorage, kept: Kept) {
    this.#sql = sql;
    this.#kept = kept;
    for (const [id, known] of kept.take<KnownBody>("raw")) {
      const [of, part] = id.split("-") as [string, RawPart];
      const body: Body = { ...known, of: Number(of), part, filling: null, isClosed: false };
      this.#bodies.set(id, body);
      for (const no of body.unstored) this.#heldBytes += this.#bytesOf(tableOf(body, no));
    }
  }

  /** Bytes that are not in R2. */
  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Objects that nothing more goes into, and that are not in R2. */
  get hasFull(): boolean {
    return this.#full().length > 0;
  }

  #full(): { readonly body: Body; readonly no: number }[] {
    return [...this.#bodies.values()].flatMap((body) => fullOf(body).map((no) => ({ body, no })));
  }

  /** Bodies that are over, and not in R2 as a whole. */
  get hasClosed(): boolean {
    return [...this.#bodies.values()].some(({ isClosed }) => isClosed);
  }

  has(of: number, part: RawPart): boolean {
    return this.#bodies.has(idOf(of, part));
  }

  /** Calls whose bodies are here, and not closed. */
  get openCalls(): ReadonlySet<number> {
    return new Set([...this.#bodies.values()].filter(({ isClosed }) => !isClosed).map(({ of }) => of));
  }

  /** A row for each object that the bytes fall into. */
  append(of: number, part: RawPart, bytes: Uint8Array): void {
    let rest = bytes;
    while (rest.length > 0) {
      const body = this.#filling(of, part);
      const room = RAW_OBJECT_MAX_BYTES - body.filling!;
      const taken = rest.subarray(0, room);
      rest = rest.subarray(taken.length);
      this.#sql.exec(`INSERT INTO ${tableOf(body, body.objects - 1)} (bytes) VALUES (?)`, taken);
      body.filling = body.filling! + taken.length;
      this.#heldBytes += taken.length;
    }
  }

  #filling(of: number, part: RawPart): Body {
    const id = idOf(of, part);
    const body = this.#bodies.get(id) ?? { of, part, objects: 0, unstored: [], filling: null, isClosed: false };
    if (body.filling !== null && body.filling < RAW_OBJECT_MAX_BYTES) return body;
    const no = body.objects;
    this.#sql.exec(`CREATE TABLE ${tableOf(body, no)} (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL)`);
    return this.#keep({ ...body, objects: no + 1, unstored: [...body.unstored, no], filling: 0 });
  }

  #keep(body: Body): Body {
    const { objects, unstored } = body;
    const id = idOf(body.of, body.part);
    if (body.isClosed && unstored.length === 0) {
      this.#kept.delete("raw", id);
      this.#bodies.delete(id);
    } else {
      this.#kept.put("raw", id, { objects, unstored } satisfies KnownBody);
      this.#bodies.set(id, body);
    }
    return body;
  }

  /** Nothing follows: with the record that says so. */
  close(of: number): void {
    for (const part of PARTS) {
      const body = this.#bodies.get(idOf(of, part));
      if (body === undefined) continue;
      body.filling = null;
      body.isClosed = true;
      if (body.unstored.length === 0) this.#keep(body);
    }
  }

  /**
   * Puts what is full now into R2. One run at a time: who comes while one runs gets its end, and that of another where it
   * began too early. What becomes full meanwhile is left to the next, or who waits would wait as long as bytes come.
   */
  async store(bucket: R2Bucket, partition: string): Promise<void> {
    const wanted = this.#full();
    while (wanted.some(({ body, no }) => this.#isUnstored(body, no))) {
      this.#storing ??= this.#store(bucket, partition).finally(() => {
        this.#storing = null;
        this.#progressed();
      });
      await this.#storing;
    }
  }

  #isUnstored({ of, part }: Body, no: number): boolean {
    return this.#bodies.get(idOf(of, part))?.unstored.includes(no) ?? false;
  }

  /** Resolves when one more object is in R2, or the run has ended; null: nothing is on its way. */
  get progress(): Promise<void> | null {
    return this.#storing === null ? null : this.#progress.promise;
  }

  #progressed(): void {
    this.#progress.resolve();
    this.#progress = Promise.withResolvers<void>();
  }

  /** One that fails holds back no other. Where all fail that are tried together, R2 is to be left alone for a while. */
  async #store(bucket: R2Bucket, partition: string): Promise<void> {
    const full = this.#full();
    const failures: PromiseRejectedResult[] = [];
    for (let at = 0; at < full.length; at += PUTS_AT_ONCE) {
      // All of them come to their end before the next try, or two could put one object.
      const puts = full.slice(at, at + PUTS_AT_ONCE).map(({ body, no }) => this.#storeOne(bucket, partition, body, no));
      const failed = (await Promise.allSettled(puts)).filter(({ status }) => status === "rejected");
      failures.push(...(failed as PromiseRejectedResult[]));
      if (failed.length === puts.length) break;
    }
    if (failures.length > 0) throw failures[0]!.reason;
  }

  async #storeOne(bucket: R2Bucket, partition: string, { of, part }: Body, no: number): Promise<void> {
    const table = tableOf({ of, part }, no);
    const bytes = this.#bytesOf(table);
    await putOnce(bucket, rawBodyKey(partition, of, part, no), {
      contentType: "application/octet-stream",
      body: () => this.#stream(table, bytes),
      isSame: async (there) => {
        if (there.size !== bytes) return false;
        const mine = createHash("sha256");
        for (const run of this.#runs(table)) mine.update(run);
        const theirs = createHash("sha256");
        for await (const run of there.body as ReadableStream<Uint8Array>) theirs.update(run);
        return mine.digest("hex") === theirs.digest("hex");
      },
    });
    // Dying here, the object is in R2 and will be found equal. From here on it is one commit.
    this.#sql.exec(`DROP TABLE ${table}`);
    this.#heldBytes -= bytes;
    const body = this.#bodies.get(idOf(of, part))!;
    this.#keep({ ...body, unstored: body.unstored.filter((one) => one !== no) });
    this.#progressed();
  }

  /** All bytes of a body, in order: for hashing it again after a restart. Null where an object is gone: it was erased. */
  async *contents(bucket: R2Bucket, partition: string, of: number, part: RawPart): AsyncGenerator<Uint8Array | null> {
    const objects = this.#bodies.get(idOf(of, part))?.objects ?? 0;
    for (let no = 0; no < objects; no++) {
      // Asked anew for each, and its rows at once: while who reads is busy with them it may leave for R2.
      const body = this.#bodies.get(idOf(of, part));
      if (body?.unstored.includes(no)) yield* [...this.#runs(tableOf(body, no))];
      else yield await this.#read(bucket, rawBodyKey(partition, of, part, no));
    }
  }

  #read(bucket: R2Bucket, key: string): Promise<Uint8Array | null> {
    const reading = bucket.get(key).then((object) => object?.bytes() ?? null);
    return answered(key, "read", reading);
  }

  /** How many objects a body has so far; 0: it is not known any more, because all of it is in R2. */
  objectsOf(of: number, part: RawPart): number {
    return this.#bodies.get(idOf(of, part))?.objects ?? 0;
  }

  /** No less than a call's bodies hold. More only where the last of their objects left with an earlier life: it counts as full. */
  mostBytesOf(of: number): number {
    let bytes = 0;
    for (const part of PARTS) {
      const body = this.#bodies.get(idOf(of, part));
      if (body === undefined) continue;
      bytes += (body.objects - body.unstored.length) * RAW_OBJECT_MAX_BYTES;
      for (const no of body.unstored) bytes += this.#bytesOf(tableOf(body, no));
    }
    return bytes;
  }

  /** What is here of an object that is not in R2, at most 8 MiB; null: it is. */
  unstored(of: number, part: RawPart, no: number): Uint8Array | null {
    const body = this.#bodies.get(idOf(of, part));
    if (body?.unstored.includes(no) !== true) return null;
    const runs = [...this.#runs(tableOf(body, no))];
    return joinBytes(
      runs,
      runs.reduce((bytes, { length }) => bytes + length, 0),
    );
  }

  /** One row in memory at a time. */
  #stream(table: string, bytes: number): ReadableStream {
    const { readable, writable } = new FixedLengthStream(bytes);
    const writer = writable.getWriter();
    const write = async (): Promise<void> => {
      for (const run of this.#runs(table)) await writer.write(run);
      await writer.close();
    };
    // A put that fails breaks this off, and says so itself. One that was given up may find that another has got through.
    write().catch((error) => writer.abort(error).catch(() => {}));
    return readable;
  }

  *#runs(table: string): Generator<Uint8Array> {
    for (let after = 0; ; ) {
      const query = `SELECT id, bytes FROM ${table} WHERE id > ? ORDER BY id LIMIT 1`;
      // All of them: a cursor that is left in the middle would keep the table from being dropped.
      const [row] = this.#sql.exec<{ id: number; bytes: ArrayBuffer }>(query, after).toArray();
      if (row === undefined) return;
      after = row.id;
      yield new Uint8Array(row.bytes);
    }
  }

  #bytesOf(table: string): number {
    const query = `SELECT coalesce(sum(length(bytes)), 0) AS bytes FROM ${table}`;
    return this.#sql.exec<{ bytes: number }>(query).one().bytes;
  }
}

const PARTS = ["request", "answer"] as const satisfies readonly RawPart[];

const idOf = (of: number, part: RawPart): string => `${of}-${part}`;
const tableOf = ({ of, part }: Pick<Body, "of" | "part">, no: number): string => `raw_${of}_${part}_${no}`;

const fullOf = ({ unstored, objects, filling }: Body): readonly number[] =>
  filling === null || filling === RAW_OBJECT_MAX_BYTES ? unstored : unstored.filter((no) => no !== objects - 1);
