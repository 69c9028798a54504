import { fromMillionths, MAX_AMOUNT, millionthsUp } from "./amounts.ts";
import { type Metered, NOTHING_SAID, type Reading } from "./charge.ts";

/** A JSON answer is read up to this; one that is longer costs its reserve. */
export const READ_MAX_BYTES = 1_048_576;
/** Of one event of a stream. */
export const EVENT_MAX_CHARS = 262_144;

/** How an answer says it. */
export type AnswerForm = "json" | "events" | "lines";

/** Null: no form that can be read. */
export function formOf(mediaType: string | null): AnswerForm | null {
  const type = mediaType?.split(";", 1)[0]?.trim().toLowerCase() ?? "";
  if (type === "text/event-stream") return "events";
  if (/^application\/((x-)?nd-?json|jsonl)$/.test(type)) return "lines";
  return /^application\/([a-z0-9.+-]+\+)?json$/.test(type) ? "json" : null;
}

/** What all answers that are read at a time may keep together. */
export interface Room {
  take(bytes: number): boolean;
  give(bytes: number): void;
}

const FIRST_BUFFER_BYTES = 4_096;

interface Wanted {
  readonly pointer: readonly string[];
  take(value: unknown): void;
}

/**
 * Reads what an answer says of its cost from the bytes that are relayed, of which it keeps one JSON text or one event. Of
 * a stream the last event that says it counts: APIs that report more than once report totals.
 */
export class AnswerReader {
  readonly #form: AnswerForm;
  readonly #wanted: readonly Wanted[];
  /** Where none of these words stands, nothing is to be found. */
  readonly #words: readonly string[];
  readonly #amounts = new Map<string, number>();
  readonly #chosenBy = new Map<string, string>();
  readonly #utf8 = new TextDecoder();
  readonly #room: Room;
  /** Of one JSON text: what came so far, in a buffer that grows, however short the runs are. */
  #buffer = new Uint8Array(0);
  #bytes = 0;
  /** Of a stream: the line that is not over yet, and the event's data so far. */
  #line = "";
  #data: string | null = null;
  /** Something was too long to look at, and may have said it: nothing that was read counts. */
  #isLost = false;

  constructor({ meters, prices }: Metered, form: AnswerForm, room: Room) {
    this.#form = form;
    this.#room = room;
    this.#wanted = [
      ...meters.flatMap(([unit, { pointer }]) =>
        pointer.map((one) => ({ pointer: one, take: (value: unknown) => this.#takeAmount(unit, value) })),
      ),
      ...prices.flatMap(([unit, { by }]) =>
        (by?.pointer ?? []).map((one) => ({
          pointer: one,
          take: (value: unknown) => void (typeof value === "string" && this.#chosenBy.set(unit, value)),
        })),
      ),
    ];
    // A pointer of places in arrays alone names no member: whatever comes is looked at.
    this.#words = this.#wanted.map(({ pointer }) => {
      const member = pointer.findLast((token) => !/^\d+$/.test(token));
      return member === undefined ? "" : JSON.stringify(member);
    });
  }

  take(run: Uint8Array): void {
    if (this.#isLost) return;
    if (this.#form === "json") {
      const fits = this.#bytes + run.byteLength <= READ_MAX_BYTES && this.#makeRoom(run.byteLength);
      if (!fits) this.#lose();
      else {
        this.#buffer.set(run, this.#bytes);
        this.#bytes += run.byteLength;
      }
      return;
    }
    this.#takeText(this.#utf8.decode(run, { stream: true }));
  }

  /** Once, when all of the answer was taken. */
  end(): Reading {
    if (!this.#isLost && this.#form === "json")
      this.#read(new TextDecoder().decode(this.#buffer.subarray(0, this.#bytes)));
    if (!this.#isLost && this.#form !== "json") this.#takeText(`${this.#utf8.decode()}\n\n`);
    this.close();
    return this.#isLost ? NOTHING_SAID : { amounts: this.#amounts, chosenBy: this.#chosenBy };
  }

  /** Gives its room back. Whatever becomes of the answer, and as often as one likes. */
  close(): void {
    this.#room.give(this.#buffer.byteLength);
    this.#buffer = new Uint8Array(0);
    this.#bytes = 0;
  }

  #makeRoom(bytes: number): boolean {
    const needed = this.#bytes + bytes;
    const { byteLength } = this.#buffer;
    if (needed <= byteLength) return true;
    const grown = Math.min(READ_MAX_BYTES, Math.max(needed, 2 * byteLength, FIRST_BUFFER_BYTES));
    if (!this.#room.take(grown - byteLength)) return false;
    const buffer = new Uint8Array(grown);
    buffer.set(this.#buffer.subarray(0, this.#bytes));
    this.#buffer = buffer;
    return true;
  }

  #takeText(text: string): void {
    // A line of many short runs is put together once, when it ends.
    if (!text.includes("\n")) this.#line += text;
    else {
      const lines = (this.#line + text).split("\n");
      this.#line = lines.pop()!;
      for (const line of lines) this.#takeLine(line.endsWith("\r") ? line.slice(0, -1) : line);
    }
    if (this.#line.length + (this.#data?.length ?? 0) > EVENT_MAX_CHARS) this.#lose();
  }

  /** Server-sent events: the `data` lines up to an empty one are one text. */
  #takeLine(line: string): void {
    if (this.#form === "lines") this.#read(line);
    else if (line === "") {
      const data = this.#data;
      this.#data = null;
      if (data !== null) this.#read(data);
    } else if (line.startsWith("data:")) {
      const text = line.slice(line[5] === " " ? 6 : 5);
      this.#data = this.#data === null ? text : `${this.#data}\n${text}`;
    }
  }

  #read(text: string): void {
    if (text === "" || !this.#words.some((word) => text.includes(word))) return;
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      return;
    }
    for (const { pointer, take } of this.#wanted) take(valueAt(value, pointer));
  }

  #takeAmount(unit: string, value: unknown): void {
    if (value === undefined || value === null) return;
    const isAmount = typeof value === "number" && value >= 0 && value <= MAX_AMOUNT;
    if (isAmount) this.#amounts.set(unit, fromMillionths(millionthsUp(value)));
    // It says something that is no amount: what an event before it said counts no more.
    else this.#amounts.delete(unit);
  }

  #lose(): void {
    this.#isLost = true;
    this.close();
    this.#line = "";
    this.#data = null;
  }
}

function valueAt(value: unknown, pointer: readonly string[]): unknown {
  let at = value;
  for (const token of pointer) {
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, token)) return undefined;
    at = (at as Record<string, unknown>)[token];
  }
  return at;
}
