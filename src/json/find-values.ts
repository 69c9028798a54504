import { err, ok, type Result } from "../result.ts";
import { endOfString, MAX_JSON_DEPTH } from "./strict-json.ts";

/** A value in a JSON text, by where it stands: `text.slice(start, end)` is its source, quotes included. */
export interface FoundValue<P> {
  readonly pattern: P;
  /**
   * The pattern as an RFC 6901 pointer, with the numbers of elements filled in. Where `*` stood for a member it still
   * does: names of members are content.
   */
  readonly at: string;
  readonly start: number;
  readonly end: number;
}

/** The way to a value; `*` stands for any member or element. */
export interface ValuePattern {
  readonly tokens: readonly string[];
}

/** RFC 6901 §4: no sign, no leading zero. */
const ARRAY_INDEX = /^(?:0|[1-9]\d*)$/;
const ANY = "*";

/**
 * Pure. Every value that a pattern leads to, in the order of the text; none within another. What may be meant is found:
 * names are compared after their escapes and whatever their case (Go's encoding/json takes `Amount` for `amount`), and
 * a name where the text has an array is looked for in each of its elements. An error: not JSON, an object that names a
 * key twice, nested too deep, or more than `maxFound`. Unlike strict JSON it takes any number: nobody reads its value.
 */
export function findValues<P extends ValuePattern>(
  text: string,
  patterns: readonly P[],
  maxFound: number,
): Result<readonly FoundValue<P>[], string> {
  try {
    // The grammar; what follows only looks for places.
    JSON.parse(text);
  } catch {
    return err("not JSON");
  }
  const walk = new Walk<P>(text, maxFound);
  walk.value(
    patterns.map((pattern) => ({ pattern, next: 0, at: "" })),
    0,
  );
  return walk.problem === null ? ok(walk.found) : err(walk.problem);
}

/** How far a pattern has been followed. */
interface Trail<P> {
  readonly pattern: P;
  /** Of its tokens. */
  readonly next: number;
  readonly at: string;
}

const QUOTE = 0x22;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const COMMA = 0x2c;

/** One pass over a text that is known to be JSON. Recursion is bounded by the depth. */
class Walk<P extends ValuePattern> {
  readonly found: FoundValue<P>[] = [];
  problem: string | null = null;
  readonly #text: string;
  readonly #maxFound: number;
  #at = 0;

  constructor(text: string, maxFound: number) {
    this.#text = text;
    this.#maxFound = maxFound;
  }

  value(trails: readonly Trail<P>[], depth: number): void {
    const code = this.#peek();
    const start = this.#at;
    // The first rule that means it gives it its name; within it nothing is looked for any more.
    const hit = trails.find(({ pattern, next }) => next === pattern.tokens.length);
    const inner = hit === undefined ? trails : [];
    if (code === OPEN_OBJECT || code === OPEN_ARRAY) {
      if (depth >= MAX_JSON_DEPTH) this.problem = `nested deeper than ${MAX_JSON_DEPTH}`;
      else if (code === OPEN_OBJECT) this.#object(inner, depth + 1);
      else this.#array(inner, depth + 1);
    } else if (code === QUOTE) this.#at = endOfString(this.#text, start);
    else while (this.#at < this.#text.length && !isDelimiter(this.#text.charCodeAt(this.#at))) this.#at++;
    if (hit === undefined || this.problem !== null) return;
    this.found.push({ pattern: hit.pattern, at: hit.at, start, end: this.#at });
    if (this.found.length > this.#maxFound) this.problem = `more than ${this.#maxFound} values`;
  }

  #object(trails: readonly Trail<P>[], depth: number): void {
    const names = new Set<string>();
    this.#at++;
    while (this.problem === null && this.#peek() !== CLOSE_OBJECT) {
      const end = endOfString(this.#text, this.#at);
      const name: string = JSON.parse(this.#text.slice(this.#at, end));
      if (names.has(name)) {
        this.problem = "duplicate key";
        return;
      }
      names.add(name);
      this.#at = end;
      this.#peek();
      // The colon.
      this.#at++;
      this.value(
        trails.flatMap((trail) => into(trail, name)),
        depth,
      );
      if (this.problem === null && this.#peek() === COMMA) this.#at++;
    }
    this.#at++;
  }

  #array(trails: readonly Trail<P>[], depth: number): void {
    this.#at++;
    for (let i = 0; this.problem === null && this.#peek() !== CLOSE_ARRAY; i++) {
      this.value(
        trails.flatMap((trail) => intoElement(trail, i)),
        depth,
      );
      if (this.problem === null && this.#peek() === COMMA) this.#at++;
    }
    this.#at++;
  }

  /** The next character that is not white space. */
  #peek(): number {
    while (this.#text.charCodeAt(this.#at) <= 0x20) this.#at++;
    return this.#text.charCodeAt(this.#at);
  }
}

function into<P extends ValuePattern>(trail: Trail<P>, name: string): Trail<P>[] {
  const token = trail.pattern.tokens[trail.next];
  if (token === undefined || (token !== ANY && fold(token) !== fold(name))) return [];
  return [{ ...trail, next: trail.next + 1, at: `${trail.at}/${escapeToken(token)}` }];
}

function intoElement<P extends ValuePattern>(trail: Trail<P>, index: number): Trail<P>[] {
  const token = trail.pattern.tokens[trail.next];
  if (token === undefined) return [];
  const at = `${trail.at}/${index}`;
  // A list where one thing was expected, as in a batch.
  if (token !== ANY && !ARRAY_INDEX.test(token)) return [{ ...trail, at }];
  return token === ANY || Number(token) === index ? [{ ...trail, next: trail.next + 1, at }] : [];
}

// Upper first: `ſ` and `K` (Kelvin) fold to `s` and `k`. In Protocol Buffers' JSON `card_number` is `cardNumber`, too.
const fold = (name: string): string => name.replaceAll("_", "").toUpperCase().toLowerCase();

const escapeToken = (token: string): string => token.replaceAll("~", "~0").replaceAll("/", "~1");

const isDelimiter = (code: number): boolean =>
  code <= 0x20 || code === COMMA || code === CLOSE_ARRAY || code === CLOSE_OBJECT;
