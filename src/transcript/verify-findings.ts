/** One thing that is not as it was written, and where. Places name an object by its key, then line and record: `transcripts/…/0000000000.jsonl.gz line 7 (seq 6)`. */
export interface Finding {
  readonly place: string;
  readonly problem: string;
}

/** Of one transcript. A rewritten object could else buy a report as long as itself. */
export const MAX_FINDINGS = 100;

export class Findings {
  readonly #found: Finding[] = [];
  #more = 0;

  add(place: string, problem: string): void {
    if (this.#found.length < MAX_FINDINGS) this.#found.push({ place, problem });
    else this.#more++;
  }

  get all(): readonly Finding[] {
    if (this.#more === 0) return this.#found;
    return [...this.#found, { place: "this transcript", problem: `${this.#more} more findings` }];
  }
}

export const lineOf = (key: string, index: number, seq: number | null = null): string =>
  `${key} line ${index + 1}${seq === null ? "" : ` (seq ${seq})`}`;
