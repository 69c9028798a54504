import { Pattern } from "./pattern.ts";

/** Spellings are ASCII, so seven bits of each byte; what is no ASCII may look like one, and is compared like any. */
const PAIRS = 16_384;
/** Of a spelling no more than this is looked for in pairs. A token of 8 KiB costs no more memory than one of 32 bytes. */
const WINDOW_MAX = 32;
const NOWHERE = 0;
const STANDS = 1;
const BEGINS = 2;

interface Place {
  /** Of the pattern. */
  readonly index: number;
  /** Of the pair in it. */
  readonly offset: number;
}

/**
 * The spellings of one credential, and how to find them in bytes. What is in it does not show.
 *
 * Every occurrence begins with as many consecutive pairs of bytes as the shortest spelling has, or 31 of them. So it is
 * enough to look at every so manyeth pair, and to compare only where that pair is one of the beginning of a spelling.
 */
export class Needles {
  readonly patterns: readonly Pattern[];
  readonly step: number;
  readonly longest: number;
  /** 1: a pair that stands in the beginning of some pattern; 2: one that is its very beginning. */
  readonly isPair = new Uint8Array(PAIRS);
  readonly #firsts = new Map<number, number[]>();
  readonly #begins = new Map<number, number[]>();
  readonly #places = new Map<number, Place[]>();

  /** @param texts ASCII, none shorter than two characters. */
  constructor(texts: readonly string[]) {
    this.patterns = texts.map((text) => new Pattern(text));
    const lengths = texts.map(({ length }) => length);
    this.longest = Math.max(...lengths);
    this.step = Math.min(WINDOW_MAX, ...lengths) - 1;
    for (const [index, { bytes }] of this.patterns.entries()) {
      push(this.#firsts, bytes[0]!, index);
      push(this.#begins, pairAt(bytes, 0), index);
      // The last first: so their occurrences come in the order in which they begin.
      for (let offset = this.step - 1; offset >= 0; offset--) {
        const pair = pairAt(bytes, offset);
        this.isPair[pair] = offset === 0 || this.isPair[pair] === BEGINS ? BEGINS : STANDS;
        push(this.#places, pair, { index, offset });
      }
    }
  }

  placesOf(pair: number): readonly Place[] {
    return this.#places.get(pair)!;
  }

  /** Patterns, by the pair that they begin with. */
  beginsWith(pair: number): readonly number[] {
    return this.#begins.get(pair)!;
  }

  /** Patterns, by their first byte. */
  beginsWithByte(byte: number): readonly number[] {
    return this.#firsts.get(byte) ?? NONE;
  }

  /** Texts that are not one after the other. */
  areInAny(texts: Iterable<string>): boolean {
    let long = "";
    // No spelling is shorter, and none has a line's end in it.
    for (const text of texts) if (text.length > this.step) long += `${text}\n`;
    return long !== "" && new Search(this).isWithin(new TextEncoder().encode(long));
  }

  toJSON(): string {
    return "[secret]";
  }
}

/**
 * Looks for them in bytes that come run by run, and takes time in proportion to the bytes: where a spelling may stand is followed
 * from its beginning on, over the end of a run, and no byte is compared with it a second time.
 */
export class Search {
  readonly #needles: Needles;
  /** For each pattern: how much of it stands at the end of what was taken. */
  readonly #matched: Int32Array;
  /** For each pattern: where in the run it is. What begins before that is decided. */
  readonly #at: Int32Array;
  #open = 0;

  constructor(needles: Needles) {
    this.#needles = needles;
    this.#matched = new Int32Array(needles.patterns.length);
    this.#at = new Int32Array(needles.patterns.length);
  }

  /** So many of the last bytes may be the beginning of a spelling. */
  get open(): number {
    return this.#open;
  }

  /** True: a spelling is in it, whole, by the end of this run. Then there is nothing more to look for. */
  take(run: Uint8Array): boolean {
    if (run.length === 0) return false;
    this.#at.fill(0);
    if (this.#goOn(run) || this.isWithin(run)) return true;
    this.#beginAtEnd(run);
    this.#open = 0;
    for (const matched of this.#matched) if (matched > this.#open) this.#open = matched;
    return false;
  }

  /** What had begun before. */
  #goOn(run: Uint8Array): boolean {
    if (this.#open === 0) return false;
    for (let index = 0; index < this.#matched.length; index++) {
      const matched = this.#matched[index]!;
      if (matched > 0 && this.#follow(index, run, 0, matched)) return true;
    }
    return false;
  }

  /** Whole, from its beginning on. */
  isWithin(run: Uint8Array): boolean {
    const { isPair, step, patterns } = this.#needles;
    for (let at = step - 1; at + 1 < run.length; at += step) {
      const pair = pairAt(run, at);
      if (isPair[pair] === NOWHERE) continue;
      for (const { index, offset } of this.#needles.placesOf(pair)) {
        const from = at - offset;
        const { bytes } = patterns[index]!;
        if (run[from] !== bytes[0] || from < this.#at[index]! || from + bytes.length > run.length) continue;
        if (this.#follow(index, run, from, 0)) return true;
      }
    }
    return false;
  }

  /** What begins so late that the run ends before it would. */
  #beginAtEnd(run: Uint8Array): void {
    const { isPair, longest, patterns } = this.#needles;
    const last = run.length - 1;
    for (let from = Math.max(0, run.length - longest + 1); from < last; from++) {
      const pair = pairAt(run, from);
      if (isPair[pair] !== BEGINS) continue;
      for (const index of this.#needles.beginsWith(pair))
        if (from >= this.#at[index]! && from + patterns[index]!.length > run.length) this.#follow(index, run, from, 0);
    }
    for (const index of this.#needles.beginsWithByte(run[last]!))
      if (this.#at[index]! <= last) this.#matched[index] = 1;
  }

  /** Until nothing of the pattern stands there any more, or the run ends. True: all of it does. */
  #follow(index: number, run: Uint8Array, from: number, matched: number): boolean {
    const pattern = this.#needles.patterns[index]!;
    let at = from;
    let length = matched;
    do length = pattern.next(length, run[at++]!);
    while (length > 0 && length < pattern.length && at < run.length);
    this.#at[index] = at;
    this.#matched[index] = length;
    return length === pattern.length;
  }
}

const NONE: readonly number[] = [];

const pairAt = (bytes: Uint8Array, at: number): number => (bytes[at]! & 0x7f) | ((bytes[at + 1]! & 0x7f) << 7);

function push<T>(to: Map<number, T[]>, key: number, one: T): void {
  const others = to.get(key);
  if (others === undefined) to.set(key, [one]);
  else others.push(one);
}
