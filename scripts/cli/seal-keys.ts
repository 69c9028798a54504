// The public seal keys, as a gate itself says them.

import { CommandError, EXIT } from "./command.ts";

const TIMEOUT_MS = 30_000;

/** Its JWK set, as text. */
export async function fetchSealKeys(gate: string): Promise<string> {
  const address = `${gate}/.well-known/portcullis-seal-keys.json`;
  try {
    const response = await fetch(address, { redirect: "manual", signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (response.ok) return await response.text();
    await response.body?.cancel();
  } catch {}
  throw new CommandError(EXIT.unreachable, `${gate} does not say its seal keys`);
}
