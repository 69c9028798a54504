import type { Needles } from "../upstream/needles.ts";

const NOTHING = new Uint8Array(0);

/** What fewer bytes may begin is met in any text: to hold them back would delay streams, and they give nothing away. */
const HELD_MIN_BYTES = 4;

/**
 * Looks for the credential in an answer as it passes. What may be its beginning, from four bytes on, is held back until the
 * next bytes say what it is; never more is held than a spelling of it has. Of an answer that breaks off there, what is held
 * goes nowhere. So three characters of at least sixteen can pass before the rest is known for what it is.
 */
export class EchoScan {
  readonly #needles: Needles | null;
  /** What may be the beginning, and how much of it has passed. */
  #kept: Uint8Array = NOTHING;
  #keptPassed = 0;

  /** @param needles null: no credential was sent. */
  constructor(needles: Needles | null) {
    this.#needles = needles;
  }

  /** What of the answer may go on, empty where all of it is held; null: the credential is in it. */
  pass(run: Uint8Array): Uint8Array | null {
    if (this.#needles === null) return run;
    const bytes = this.#kept.length === 0 ? run : joined(this.#kept, run);
    const passed = this.#keptPassed;
    if (this.#needles.areIn(bytes)) {
      this.end();
      return null;
    }
    const from = this.#needles.beginningIn(bytes);
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
    return held;
  }

  isInHeaders(headers: Iterable<readonly [name: string, value: string]>): boolean {
    const needles = this.#needles;
    return (
      needles !== null && [...headers].some(([name, value]) => needles.areInText(value) || needles.areInText(name))
    );
  }
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const both = new Uint8Array(a.length + b.length);
  both.set(a, 0);
  both.set(b, a.length);
  return both;
}
