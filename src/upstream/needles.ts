/** Spellings are ASCII, so seven bits of each byte; what is no ASCII may look like one, and is compared like any. */
const PAIRS = 16_384;
/** Of a spelling no more than this is looked for in pairs. A token of 8 KiB costs no more memory than one of 32 bytes. */
const WINDOW_MAX = 32;
const NOWHERE = 0;
const STANDS = 1;
const BEGINS = 2;

/**
 * The spellings of one credential, and how to find them in bytes. What is in it does not show.
 *
 * Every occurrence begins with as many consecutive pairs of bytes as the shortest spelling has, or 31 of them. So it is
 * enough to look at every so manyeth pair, and to compare only where that pair is one of the beginning of a spelling.
 */
export class Needles {
  readonly #texts: readonly string[];
  readonly #step: number;
  readonly #longest: number;
  /** 1: a pair that stands in the beginning of some pattern; 2: one that is its very beginning. */
  readonly #isPair = new Uint8Array(PAIRS);
  readonly #isFirst = new Uint8Array(256);
  readonly #begins = new Map<number, Uint8Array[]>();
  readonly #places = new Map<number, { readonly pattern: Uint8Array; readonly offset: number }[]>();

  /** @param texts ASCII, none shorter than two characters. */
  constructor(texts: readonly string[]) {
    this.#texts = texts;
    const patterns = texts.map((text) => new TextEncoder().encode(text));
    const lengths = patterns.map(({ length }) => length);
    this.#longest = Math.max(...lengths);
    this.#step = Math.min(WINDOW_MAX, ...lengths) - 1;
    for (const pattern of patterns) {
      this.#isFirst[pattern[0]!] = 1;
      const begins = this.#begins.get(pairAt(pattern, 0)) ?? [];
      begins.push(pattern);
      this.#begins.set(pairAt(pattern, 0), begins);
      for (let offset = 0; offset < this.#step; offset++) {
        const pair = pairAt(pattern, offset);
        this.#isPair[pair] = offset === 0 || this.#isPair[pair] === BEGINS ? BEGINS : STANDS;
        const places = this.#places.get(pair) ?? [];
        places.push({ pattern, offset });
        this.#places.set(pair, places);
      }
    }
  }

  /** Whether any spelling stands in the bytes, whole. */
  areIn(bytes: Uint8Array): boolean {
    const [isPair, step] = [this.#isPair, this.#step];
    for (let at = step - 1; at + 1 < bytes.length; at += step) {
      const pair = pairAt(bytes, at);
      if (isPair[pair] === NOWHERE) continue;
      for (const { pattern, offset } of this.#places.get(pair)!) if (standsAt(bytes, at - offset, pattern)) return true;
    }
    return false;
  }

  areInText(text: string): boolean {
    return this.#texts.some((one) => text.includes(one));
  }

  /** From where on the end of the bytes may be the beginning of a spelling; their length, where it can't. */
  beginningIn(bytes: Uint8Array): number {
    const isPair = this.#isPair;
    const last = bytes.length - 1;
    for (let from = Math.max(0, bytes.length - this.#longest + 1); from < last; from++) {
      const pair = pairAt(bytes, from);
      if (isPair[pair] !== BEGINS) continue;
      for (const pattern of this.#begins.get(pair)!) if (endsWithin(bytes, from, pattern)) return from;
    }
    return last >= 0 && this.#isFirst[bytes[last]!] === 1 ? last : bytes.length;
  }

  toJSON(): string {
    return "[secret]";
  }
}

const pairAt = (bytes: Uint8Array, at: number): number => (bytes[at]! & 0x7f) | ((bytes[at + 1]! & 0x7f) << 7);

function standsAt(bytes: Uint8Array, from: number, pattern: Uint8Array): boolean {
  if (from < 0 || from + pattern.length > bytes.length) return false;
  for (let i = 0; i < pattern.length; i++) if (bytes[from + i] !== pattern[i]) return false;
  return true;
}

/** What is left of the bytes is the beginning of the pattern, and not all of it. */
function endsWithin(bytes: Uint8Array, from: number, pattern: Uint8Array): boolean {
  const length = bytes.length - from;
  if (length >= pattern.length) return false;
  for (let i = 0; i < length; i++) if (bytes[from + i] !== pattern[i]) return false;
  return true;
}
