import { millionths, otherUnit, Sums, spell } from "./verify-amounts.ts";
import type { ChildrenReader } from "./verify-children.ts";
import type { AnswerSaid, CallSaid, EndedSaid, LimitsSaid } from "./verify-shapes.ts";

/** Calls beyond the concurrency are few: more are not kept. */
const MAX_CROWDED = 100;

interface Open {
  readonly reserved: Readonly<Record<string, number>>;
}

interface Crowd {
  readonly seq: number;
  readonly place: string;
  readonly limit: number;
  /** Of those that ran beside it, who may have held a place. */
  readonly beside: Set<number>;
}

/**
 * What an instance has used, added up from its calls and answers. Calls and units are exact. Of bytes two sums are kept: of calls
 * that ended as they should all is counted; others are counted as far as the budget went. What may have passed
 * besides is stated at the end.
 */
export class SpendingReader {
  readonly #children: ChildrenReader;
  #limits: LimitsSaid | null = null;
  #calls = 0;
  #bytes = { least: 0, most: 0 };
  readonly #units = new Sums();
  readonly #open = new Map<number, Open>();
  readonly #crowded: Crowd[] = [];

  constructor(children: ChildrenReader) {
    this.#children = children;
  }

  begin(limits: LimitsSaid): void {
    this.#limits = limits;
  }

  get used() {
    return { calls: this.#calls, bytes: this.#bytes.least, units: this.#units };
  }

  readCall(seq: number, place: string, { body, reserved = {} }: CallSaid): string | null {
    this.#calls++;
    this.#units.add(reserved);
    // A longer one is stated by the answer.
    if (body !== null && body.bytes !== null) this.#count("trueBytes" in body ? body.trueBytes : body.bytes, true);
    const problem = this.#limits === null ? null : this.#beyond(this.#limits, reserved);
    this.#crowd(seq, place);
    this.#open.set(seq, { reserved });
    return problem;
  }

  #beyond(limits: LimitsSaid, reserved: Readonly<Record<string, number>>): string | null {
    const calls = this.#children.left(limits, "calls");
    if (this.#calls > calls) return `is call ${this.#calls}, and ${calls} were left to it`;
    const bytes = this.#children.left(limits, "bytes");
    if (this.#bytes.least >= bytes) return `comes after ${this.#bytes.least} bytes, and ${bytes} were left to it`;
    for (const unit of Object.keys(reserved)) {
      const left = this.#children.leftOfUnit(limits, unit);
      if (left !== null && this.#units.of(unit) > left)
        return `reserves ${unit} up to ${spell(this.#units.of(unit))}, and ${spell(left)} were left to it`;
    }
    return null;
  }

  #crowd(seq: number, place: string): void {
    const limit = this.#limits === null ? null : this.#children.left(this.#limits, "concurrency");
    if (limit === null || this.#open.size < limit || this.#crowded.length === MAX_CROWDED) return;
    this.#crowded.push({ seq, place, limit, beside: new Set(this.#open.keys()) });
  }

  /** @param said of a call that is open */
  readAnswer(said: AnswerSaid): string | null {
    const { call, outcome, cause, body, requestBody, units = {} } = said;
    const { reserved } = this.#open.get(call) ?? { reserved: {} };
    this.#open.delete(call);
    if (outcome === "lost") for (const { beside } of this.#crowded) beside.delete(call);
    const isExact = outcome === "complete" && cause === undefined;
    for (const one of [body, requestBody]) {
      if (one === null || one === undefined) continue;
      this.#count("trueBytes" in one && one.trueBytes !== undefined ? one.trueBytes : one.bytes, isExact);
    }
    this.#units.add(reserved, -1);
    this.#units.add(Object.fromEntries(Object.entries(units).map(([unit, { charged }]) => [unit, charged])));
    return findOfCharges(reserved, said);
  }

  #count(bytes: number | null | undefined, isExact: boolean): void {
    if (isExact) this.#bytes.least += bytes ?? 0;
    this.#bytes.most += bytes ?? Number.POSITIVE_INFINITY;
  }

  readEnded(said: EndedSaid): string | null {
    if (said.calls !== this.#calls) return `calls is ${said.calls}, and the records say ${this.#calls}`;
    const { least } = this.#bytes;
    // What may have passed, and nobody has heard of, is charged as well.
    const most = this.#bytes.most + said.bytesUnheard;
    const stated = least === most ? String(least) : `${least} to ${most}`;
    if (said.bytes < least || said.bytes > most) return `bytes is ${said.bytes}, and the records say ${stated}`;
    const limit = this.#limits?.bytes;
    if (limit !== undefined && said.bytes > limit) return `bytes is ${said.bytes}, and the limit ${limit}`;
    return otherUnit(said.units, this.#units);
  }

  /** Calls that were admitted beside more than the concurrency allows. Lost ones, and ones without an answer, may have held no place. */
  get crowded(): readonly { readonly place: string; readonly problem: string }[] {
    return this.#crowded.flatMap(({ place, limit, beside }) => {
      const running = [...beside].filter((seq) => !this.#open.has(seq)).length;
      return running < limit
        ? []
        : [{ place, problem: `runs beside ${running} calls, and ${limit} may run at a time` }];
    });
  }
}

/** A call costs what its answer says, else what was reserved for it. */
function findOfCharges(reserved: Readonly<Record<string, number>>, { outcome, units = {} }: AnswerSaid): string | null {
  const names = Object.keys(units);
  const other =
    Object.keys(reserved).find((unit) => !Object.hasOwn(units, unit)) ??
    names.find((unit) => !Object.hasOwn(reserved, unit));
  if (other !== undefined) return `charges other units than its call reserved: ${other}`;
  for (const unit of names) {
    const { charged, by } = units[unit]!;
    if (by === "reserve" && millionths(charged) !== millionths(reserved[unit]!))
      return `charges ${charged} of ${unit} by its reserve, which is ${reserved[unit]}`;
    if (by === "answer" && outcome === "lost") return `charges ${unit} by an answer that is lost`;
    if (outcome === "not-sent" && charged !== 0) return `charges ${unit} for a call that was not sent`;
  }
  return null;
}
