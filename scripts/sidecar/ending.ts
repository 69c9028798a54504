// How the sidecar itself ends, where the child's exit code is not the answer.

export const exitCodes = {
  /** Options, files: what the caller can put right. */
  usage: 2,
  /** The authority, or the platform in its place, gives no grant; or the gate has refused a running instance. */
  refused: 3,
  unreachable: 4,
  /** As shells have it. */
  notExecutable: 126,
  notFound: 127,
} as const;

/** Said to a person in a line, and then the sidecar ends. */
export class Ending extends Error {
  readonly exitCode: number;
  constructor(exitCode: number, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

export const usageFault = (message: string): Ending => new Ending(exitCodes.usage, message);
export const refused = (message: string): Ending => new Ending(exitCodes.refused, message);
export const unreachable = (message: string): Ending => new Ending(exitCodes.unreachable, message);

export const reasonOf = (cause: unknown): string => {
  if (!(cause instanceof Error)) return String(cause);
  const inner =
    cause.cause instanceof Error ? `: ${cause.cause.message || (cause.cause as { code?: string }).code}` : "";
  return cause.message + inner;
};
