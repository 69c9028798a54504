// Tells the tour and keeps count of it. Whatever is printed with a tick has been compared just then.

import { isDeepStrictEqual, styleText } from "node:util";

export type Print = (line: string) => void;

export class Narrator {
  readonly #print: Print;
  #steps = 0;
  #passed = 0;
  #failed = 0;

  constructor(print: Print) {
    this.#print = print;
  }

  get passed(): number {
    return this.#passed;
  }
  get failed(): number {
    return this.#failed;
  }
  /** 0 only for a tour that checked something and found all of it as expected. */
  get exitCode(): 0 | 1 {
    return this.#passed > 0 && this.#failed === 0 ? 0 : 1;
  }

  /** Runs one step of the tour. What goes wrong in it without a check counts as a failed one. */
  async step<T>(title: string, run: () => Promise<T>): Promise<T> {
    this.#steps += 1;
    this.#print("");
    this.#print(styleText("bold", `${this.#steps}. ${title}`));
    try {
      return await run();
    } catch (cause) {
      this.#fail("the step came to its end", String(cause), "no error");
      throw cause;
    }
  }

  say(text: string): void {
    this.#print(`   ${styleText("dim", text)}`);
  }

  /** Compares deeply, and goes on either way. */
  check(claim: string, seen: unknown, expected: unknown): boolean {
    if (!isDeepStrictEqual(seen, expected)) {
      this.#fail(claim, show(seen), show(expected));
      return false;
    }
    this.#passed += 1;
    this.#print(`   ${styleText("green", "✓")} ${claim}`);
    return true;
  }

  #fail(claim: string, seen: string, expected: string): void {
    this.#failed += 1;
    this.#print(`   ${styleText("red", "✗")} ${claim}`);
    this.#print(`       expected: ${expected}`);
    this.#print(`       seen:     ${seen}`);
  }
}

const show = (value: unknown): string => (typeof value === "string" ? value : (JSON.stringify(value) ?? String(value)));
/** Ids are thumbprints of 43 characters; their beginning tells them apart well enough to follow a story. */
export const short = (id: string): string => id.slice(0, 8);
