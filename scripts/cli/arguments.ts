// Words of a command line. An instance's id begins with a dash in one case of 64, and neither it nor its beginning may be taken
// for an option.

import { type ParseArgsOptionsConfig, parseArgs } from "node:util";
import { UsageError } from "./command.ts";

/** No argument of a process can hold it. */
const SHIELD = "\0";

/** There are no options of one letter, none of 43 characters, and unknown words with capitals, figures or underscores are no typing errors. */
const isNoOption = (arg: string, options: ParseArgsOptionsConfig): boolean =>
  /^-(?!-|$)/.test(arg) ||
  (!Object.hasOwn(options, arg.slice(2)) && /^--(?:[a-z-]*[A-Z0-9_][A-Za-z0-9_-]*|[a-z-]{41})$/.test(arg));

type Parsed<T extends ParseArgsOptionsConfig> = ReturnType<
  typeof parseArgs<{ options: T; allowPositionals: true; strict: true }>
>["values"];

export interface Arguments<T extends ParseArgsOptionsConfig> {
  readonly operands: readonly string[];
  readonly options: Parsed<T>;
}

/** Throws `UsageError` for an option that there isn't, or that lacks its value. */
export function parseArguments<const T extends ParseArgsOptionsConfig>(
  args: readonly string[],
  options: T,
): Arguments<T> {
  const shielded = args.map((arg) => (isNoOption(arg, options) ? `${SHIELD}${arg}` : arg));
  let parsed: ReturnType<typeof parseArgs<{ options: T; allowPositionals: true; strict: true }>>;
  try {
    parsed = parseArgs({ args: shielded, options, allowPositionals: true, strict: true });
  } catch (cause) {
    throw new UsageError(unshield((cause as Error).message));
  }
  const values = Object.entries(parsed.values).map(([name, value]) => [
    name,
    typeof value === "string" ? unshield(value) : Array.isArray(value) ? value.map(unshieldAny) : value,
  ]);
  return {
    operands: parsed.positionals.map((operand) => unshield(operand)),
    options: Object.fromEntries(values) as Parsed<T>,
  };
}

const unshield = (text: string): string => text.replaceAll(SHIELD, "");
const unshieldAny = (value: string | boolean): string | boolean =>
  typeof value === "string" ? unshield(value) : value;

/** The operand that a command takes, and no other. */
export function onlyOperand(operands: readonly string[], name: string): string {
  const [operand] = operands;
  if (operand === undefined || operands.length !== 1) throw new UsageError(`give one ${name}`);
  return operand;
}

export function noOperands(operands: readonly string[]): void {
  if (operands.length > 0) throw new UsageError(`unexpected: ${operands.join(" ")}`);
}

/** Required of every act: it is on record. */
export function parseReason(reason: string | undefined): string {
  if (reason === undefined || reason.trim() === "") throw new UsageError('it needs its reason: --reason "…"');
  return reason;
}

const UNIT_MS: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `90s`, `30m`, `2h`, `7d` from now, or a time in ISO 8601; in milliseconds since 1970, and not over yet. */
export function parseUntil(text: string, nowMs: number): number {
  const [, count, unit] = /^(\d{1,6})([smhd])$/.exec(text) ?? [];
  const untilMs = count === undefined ? parseIso(text) : nowMs + Number(count) * UNIT_MS[unit!]!;
  if (!Number.isSafeInteger(untilMs))
    throw new UsageError(`--until ${text}: not a time; say 30m, 2h, or 2030-01-31T12:00Z`);
  if (untilMs <= nowMs) throw new UsageError(`--until ${text}: it is over already`);
  return untilMs;
}

// Date.parse takes nearly anything for a time: a date alone must be one.
const parseIso = (text: string): number => (/^\d{4}-\d{2}-\d{2}(T|$)/.test(text) ? Date.parse(text) : Number.NaN);
