// What every command is, and how it ends.

/** What a command says and hears. Text for people has its control characters escaped: ids and reasons come from outside. */
export interface Io {
  /** A line for a person, on stdout. */
  say(line: string): void;
  /** A line for a person that is not the answer: a warning, or progress; on stderr. */
  note(line: string): void;
  /** One JSON document on one line, on stdout. */
  json(value: unknown): void;
  /** An exact line of a transcript, on stdout. */
  exact(line: string): void;
  /** Exact bytes, on stdout; never to a terminal, which they could command. Resolves when there is room for more. */
  bytes(run: Uint8Array): Promise<void>;
  /** How a command is used: the answer where that was asked, else beside what was wrong. */
  usage(text: string, why: "asked" | "not asked"): void;
  /** Asks a person at a terminal; null where nobody sits there. */
  ask(question: string): Promise<string | null>;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Whether a person watches: progress is worth a line then. */
  readonly isWatched: boolean;
  /** Whether the answer itself goes to a person, and not into a file or another program. */
  readonly isRead: boolean;
}

export interface Command {
  readonly summary: string;
  /** All of it, with its options. */
  readonly usage: string;
  run(args: readonly string[], io: Io): Promise<number>;
}

/** Documented: scripts rely on them. */
export const EXIT = {
  ok: 0,
  /** Refused, or not as it should be: not verified, a switch that is not done. */
  no: 1,
  usage: 2,
  /** Not signed in, or not allowed to. */
  forbidden: 3,
  /** The gate, or the identity provider, could not be reached or could not answer. */
  unreachable: 4,
} as const;

/** What a person can put right, with the code to end with. Anything else that is thrown is a bug. */
export class CommandError extends Error {
  override readonly name = "CommandError";
  readonly exitCode: number;
  constructor(exitCode: number, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** The words were wrong: how the command is called is shown below. */
export class UsageError extends CommandError {
  constructor(message: string) {
    super(EXIT.usage, message);
  }
}
