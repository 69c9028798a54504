import { Secret } from "./secret.ts";

/** Of brokers' names: an instance has one for each upstream that exchanges tokens. */
const MAX_HELD = 2_000;

interface HeldToken {
  readonly id: string;
  readonly token: Secret;
  readonly useUntilMs: number;
}

/**
 * Tokens that this isolate was given, by their broker's name. Values alone: no promise is shared between requests, for
 * the one whose client leaves would take along the I/O that others wait for.
 */
const held = new Map<string, HeldToken>();
/** What the upstream refused since, by the same name: told to the broker when it is asked next. */
const rejected = new Map<string, string>();

export function heldToken(name: string, nowMs: number): HeldToken | undefined {
  const known = held.get(name);
  if (known === undefined || nowMs < known.useUntilMs) return known;
  held.delete(name);
  return undefined;
}

export function holdToken(name: string, answer: { id: string; token: string; useForMs: number }, nowMs: number) {
  const known: HeldToken = { id: answer.id, token: new Secret(answer.token), useUntilMs: nowMs + answer.useForMs };
  if (rejected.get(name) !== known.id) rejected.delete(name);
  held.delete(name);
  bound(held);
  held.set(name, known);
  return known;
}

/** Only the next call asks for another; this one is over. */
export function rejectToken(name: string, id: string): void {
  if (held.get(name)?.id === id) held.delete(name);
  bound(rejected);
  rejected.set(name, id);
}

export const rejectedToken = (name: string): string | null => rejected.get(name) ?? null;

/** The oldest go first. */
function bound(map: Map<string, unknown>): void {
  for (const oldest of map.keys()) {
    if (map.size < MAX_HELD) return;
    map.delete(oldest);
  }
}
