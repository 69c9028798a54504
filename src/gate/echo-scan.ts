import { type Needles, Search } from "../upstream/needles.ts";

const NOTHING = new Uint8Array(0);

/** What fewer bytes may begin is met in any text: to hold them back would delay streams, and they give nothing away. */
const HELD_MIN_BYTES = 4;

/** By what it is known, and what it is. */
export interface Guarded {
  readonly what: Echoed;
  readonly needles: Needles;
}
export type Echoed = "credential" | "signed delegation";

/**
 * Looks for the credential, and for the signed delegation, in an answer as it passes. What may be its beginning, from four bytes on, is held back until the
 * next bytes say what it is; never more is held than a spelling of it has. Of an answer that breaks off there, what is held
 * goes nowhere. So three characters of at least sixteen can pass before the rest is known for what it is.
 */
export class EchoScan {
  readonly #guarded: readonly Guarded[];
  /** Null: nothing of a body has come. */
  #searches: readonly Search[] | null = null;
  /** What may be the beginning, and how much of it has passed. */
  #kept: Uint8Array = NOTHING;
  #keptPassed = 0;

  /** @param guarded none: nothing was sent that could come back. */
  constructor(guarded: readonly Guarded[]) {
    this.#guarded = guarded;
  }

  /** What of the answer may go on, empty where all of it is held; else what is in it. */
  pass(run: Uint8Array): Uint8Array | Echoed {
    if (this.#guarded.length === 0) return run;
    this.#searches ??= this.#guarded.map(({ needles }) => new Search(needles));
    const found = this.#searches.findIndex((search) => search.take(run));
    if (found !== -1) {
      this.end();
      return this.#guarded[found]!.what;
    }
    const bytes = this.#kept.length === 0 ? run : joined(this.#kept, run);
    const passed = this.#keptPassed;
    const from = bytes.length - Math.max(...this.#searches.map(({ open }) => open));
    const until = bytes.length - from < HELD_MIN_BYTES ? bytes.length : Math.max(from, passed);
    // A copy: what is passed may give its buffer away.
    this.#kept = from === bytes.length ? NOTHING : bytes.slice(from);
    this.#keptPassed = Math.max(0, until - from);
    return bytes.subarray(passed, until);
  }

  /** The answer is over, and what was held is not the credential. */
  end(): Uint8Array {
    const held = this.#kept.subarray(this.#keptPassed);
    this.#kept = NOTHING;
    this.#keptPassed = 0;
    this.#searches = null;
    return held;
  }

  /** Null: nothing is in them. */
  findInHeaders(headers: Iterable<readonly [name: string, value: string]>): Echoed | null {
    if (this.#guarded.length === 0) return null;
    const texts = [...headers].flat();
    return this.#guarded.find(({ needles }) => needles.areInAny(texts))?.what ?? null;
  }
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const both = new Uint8Array(a.length + b.length);
  both.set(a, 0);
  both.set(b, a.length);
  return both;
}
