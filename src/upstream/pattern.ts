/** Most texts are met up to a few bytes. What is known of the rest is worked out when it is met. */
const BORDERS_AT_FIRST = 16;

/**
 * One text to be looked for, as Knuth, Morris and Pratt do: no byte of what is looked through is read twice, however much
 * the text repeats itself. Who gives a token out chooses it, and may choose one of a single letter.
 */
export class Pattern {
  readonly bytes: Uint8Array;
  /** At k: of its first k bytes, how many of the last are its beginning again. As far as it was needed. */
  #borders = new Uint32Array(BORDERS_AT_FIRST);
  #known = 1;

  constructor(text: string) {
    this.bytes = new TextEncoder().encode(text);
  }

  get length(): number {
    return this.bytes.length;
  }

  /** How much of it stands at the end where this byte follows so much of it. */
  next(matched: number, byte: number): number {
    let length = matched;
    while (length > 0 && this.bytes[length] !== byte) length = this.#border(length);
    return this.bytes[length] === byte ? length + 1 : length;
  }

  #border(length: number): number {
    if (length > this.#known) this.#learn(length);
    return this.#borders[length]!;
  }

  #learn(upTo: number): void {
    if (upTo >= this.#borders.length) {
      const longer = new Uint32Array(Math.min(this.length + 1, 2 * upTo));
      longer.set(this.#borders.subarray(0, this.#known + 1));
      this.#borders = longer;
    }
    const [bytes, borders] = [this.bytes, this.#borders];
    for (let length = this.#known + 1; length <= upTo; length++) {
      const last = bytes[length - 1];
      let border = borders[length - 1]!;
      while (border > 0 && bytes[border] !== last) border = borders[border]!;
      borders[length] = bytes[border] === last ? border + 1 : 0;
    }
    this.#known = upTo;
  }
}
