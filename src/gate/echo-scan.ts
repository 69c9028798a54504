import type { Needles } from "../upstream/needles.ts";

const NOTHING = new Uint8Array(0);

/**
 * Looks for the credential in an answer as it passes. What may be its beginning is held back until the next bytes say what
 * it is: nothing of it leaves, and never more is held than a spelling of it has.
 */
export class EchoScan {
  readonly #needles: Needles | null;
  #held: Uint8Array = NOTHING;

  /** @param needles null: no credential was sent. */
  constructor(needles: Needles | null) {
    this.#needles = needles;
  }

  /** What of the answer may go on, empty where all of it is held; null: the credential is in it. */
  pass(run: Uint8Array): Uint8Array | null {
    if (this.#needles === null) return run;
    const bytes = this.#held.length === 0 ? run : joined(this.#held, run);
    if (this.#needles.areIn(bytes)) {
      this.#held = NOTHING;
      return null;
    }
    const from = this.#needles.heldFrom(bytes);
    // A copy: what is passed may give its buffer away.
    this.#held = from === bytes.length ? NOTHING : bytes.slice(from);
    return bytes.subarray(0, from);
  }

  /** The answer is over, and what was held is not the credential. */
  end(): Uint8Array {
    const held = this.#held;
    this.#held = NOTHING;
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
