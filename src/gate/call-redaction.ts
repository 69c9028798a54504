import type { Config } from "../config/define.ts";
import type { RedactionRule } from "../config/redaction.ts";
import type { AnswerHead, RecordedRequest, RedactedBody, RedactedValue, Redaction } from "../instance/contract.ts";
import { err, ok, type Result } from "../result.ts";
import type { Call } from "../scope/call.ts";
import { mayBeOperation } from "../scope/readings.ts";
import { SALT_BYTES } from "../transcript/body-line.ts";
import { saltOfValue, type ValueSide, valueDigest } from "../transcript/redacted-value.ts";
import {
  type Direction,
  fieldRules,
  isOfDirection,
  redactBody,
  redactHeaders,
  redactQuery,
  type TakenOut,
  TOO_LONG,
} from "./redact.ts";

/** A request as it came, before any rule. `body` null: it is not recorded, whatever it is. */
export interface SentRequest {
  readonly method: string;
  readonly target: string;
  readonly headers: RecordedRequest["headers"];
  readonly body: Uint8Array | null;
  readonly bodyFollows: boolean;
}

/**
 * The rules for a call; null where none concerns it. Of a call that could not be described all of its upstream's
 * count, and where even the upstream is not known those of all: a slip in a path must not put on record what a right
 * one would not.
 */
export function redactionFor(
  { upstreams }: Config,
  upstream: string,
  call: Omit<Call, "body"> | null,
): CallRedaction | null {
  const config = Object.hasOwn(upstreams, upstream) ? upstreams[upstream] : undefined;
  const all = config === undefined ? Object.values(upstreams).flatMap(({ redact }) => redact) : config.redact;
  const rules = call === null || all.length === 0 ? all : all.filter((rule) => concerns(rule, call));
  return rules.length === 0 ? null : new CallRedaction(rules);
}

/** What may be meant is found: a grant may be wider than a rule, and a rule that misses a call is no refusal. */
const concerns = ({ operations }: RedactionRule, call: Omit<Call, "body">): boolean =>
  operations === undefined || operations.some((operation) => mayBeOperation(operation, call));

/** What rules do to one call, both ways: decides what is recorded, and remembers what was taken out. */
export class CallRedaction {
  readonly #rules: readonly RedactionRule[];
  readonly #salt = crypto.getRandomValues(new Uint8Array(SALT_BYTES));
  readonly #answerValues: RedactedValue[] = [];
  #answerBody: RedactedBody | null = null;
  /** The answer's body is redacted by its fields: it passes whole, or not at all. */
  readonly hasAnswerFields: boolean;

  constructor(rules: readonly RedactionRule[]) {
    this.#rules = rules;
    this.hasAnswerFields = fieldRules(rules, "answer").length > 0;
  }

  /** What goes on record of a request, and why it must not pass; null where it may. */
  recordRequest(sent: SentRequest): { readonly request: RecordedRequest; readonly fault: string | null } {
    const target = redactQuery(this.#rules, sent.target);
    const headers = redactHeaders(this.#rules, sent.headers, "request");
    const values = this.#valuesOf([...target.taken, ...headers.taken], "request", 0);
    const request = { method: sent.method, target: target.recorded, headers: headers.recorded };
    const applied = this.#applied("request");
    const salt = this.#salt;
    const rules = fieldRules(this.#rules, "request");
    if (sent.body === null || rules.length === 0) {
      const redaction = { applied, values, body: null, salt };
      const body = sent.body ?? new Uint8Array(0);
      return { request: { ...request, body, bodyFollows: sent.bodyFollows, redaction }, fault: null };
    }
    const header = (name: string): string | null => sent.headers.find(([key]) => key === name)?.[1] ?? null;
    const words = { mediaType: header("content-type"), coding: header("content-encoding") };
    const redacted = sent.bodyFollows ? err(TOO_LONG) : redactBody(rules, sent.body, words);
    if (!redacted.ok) {
      const whole = sent.bodyFollows ? null : sent.body;
      values.push(this.#wholeBody(rules, whole, "request", values.length));
      const redaction = { applied, values, body: { trueBytes: whole?.byteLength ?? null, withheld: true }, salt };
      return {
        request: { ...request, body: new Uint8Array(0), bodyFollows: false, redaction },
        fault: faultOf(rules, redacted.error),
      };
    }
    const { recorded, taken } = redacted.value;
    values.push(...this.#valuesOf(taken, "request", values.length));
    const body = taken.length === 0 ? null : { trueBytes: sent.body.byteLength, withheld: false };
    const redaction = { applied, values, body, salt };
    return { request: { ...request, body: recorded, bodyFollows: false, redaction }, fault: null };
  }

  /** As it goes on record. */
  answerHead(head: AnswerHead): AnswerHead {
    const { recorded, taken } = redactHeaders(this.#rules, head.headers, "answer");
    this.#takeFromAnswer(taken);
    return { ...head, headers: recorded };
  }

  /** What goes on record of a whole answer. An error says why it must not pass. */
  answerBody(body: Uint8Array, { mediaType, coding }: AnswerHead): Result<Uint8Array, string> {
    const rules = fieldRules(this.#rules, "answer");
    const redacted = redactBody(rules, body, { mediaType, coding });
    if (!redacted.ok) return err(this.withholdAnswer(redacted.error, body));
    const { recorded, taken } = redacted.value;
    this.#takeFromAnswer(taken);
    if (taken.length > 0) this.#answerBody = { trueBytes: body.byteLength, withheld: false };
    return ok(recorded);
  }

  /** The answer's body goes nowhere. `body` null: it was not read to its end. Returns the reason, for the record. */
  withholdAnswer(why: string, body: Uint8Array | null): string {
    const rules = fieldRules(this.#rules, "answer");
    this.#answerValues.push(this.#wholeBody(rules, body, "answer", this.#answerValues.length));
    this.#answerBody = { trueBytes: body?.byteLength ?? null, withheld: true };
    return faultOf(rules, why);
  }

  get answer(): Redaction {
    return { applied: this.#applied("answer"), values: this.#answerValues, body: this.#answerBody };
  }

  #applied(direction: Direction): readonly string[] {
    return this.#rules
      .filter((rule) => isOfDirection(rule, direction) || rule.query !== undefined)
      .map(({ name }) => name);
  }

  #takeFromAnswer(taken: readonly TakenOut[]): void {
    this.#answerValues.push(...this.#valuesOf(taken, "answer", this.#answerValues.length));
  }

  /** `before`: how many of this side are in the record already. */
  #valuesOf(taken: readonly TakenOut[], side: ValueSide, before: number): RedactedValue[] {
    return taken.map(({ rule, at, value }, i) => ({
      rule,
      at,
      digest: valueDigest(saltOfValue(this.#salt, side, before + i), value),
      bytes: value.byteLength,
    }));
  }

  #wholeBody([rule]: readonly RedactionRule[], body: Uint8Array | null, side: ValueSide, place: number): RedactedValue {
    const digest = body === null ? null : valueDigest(saltOfValue(this.#salt, side, place), body);
    return { rule: rule!.name, at: "", digest, bytes: body?.byteLength ?? null };
  }
}

const faultOf = (rules: readonly RedactionRule[], why: string): string =>
  `redaction by ${rules.map(({ name }) => name).join(", ")}: ${why}`;
