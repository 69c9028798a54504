const HIDDEN = "[secret]";

/**
 * A value that must not show. Whatever prints it, turns it into text or into JSON gets a word in its place; a structured
 * clone, and with it RPC, gets nothing or throws: the value is in no property. INVARIANT: `open` is called in
 * placing.ts alone, where it is put into what leaves. A test holds that.
 */
export class Secret {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
  }

  open(): string {
    return this.#value;
  }
  /** Whether it is this text: what was read again is known to be the same. */
  is(text: string): boolean {
    return this.#value === text;
  }
  get length(): number {
    return this.#value.length;
  }

  toString(): string {
    return HIDDEN;
  }
  toJSON(): string {
    return HIDDEN;
  }
  [Symbol.toPrimitive](): string {
    return HIDDEN;
  }
  get [Symbol.toStringTag](): string {
    return HIDDEN;
  }
  /** `util.inspect`, and with it `console.log`. */
  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return HIDDEN;
  }
}
