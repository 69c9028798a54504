import type { Config } from "../config/define.ts";
import type { Units } from "../metering/amounts.ts";
import { type Charge, chargesOf, meteredOf, reserveOf } from "../metering/charge.ts";
import type { Call } from "../scope/call.ts";
import type { Settlement } from "./contract.ts";

/** What a call takes before it leaves, and what it comes to. Pure. */

/** Beside what is on its way to the record, a Worker reads so much of an answer before it says so. */
const READ_AHEAD_BYTES = 65_536;
/** An answer that is redacted is passed whole. */
const WHOLE_BYTES = 1_048_576;

/** What is reserved of metered units. */
export function unitsOf({ upstreams }: Config, call: Call): Units {
  const upstream = Object.hasOwn(upstreams, call.upstream) ? upstreams[call.upstream] : undefined;
  const metered = upstream === undefined ? null : meteredOf(upstream, call);
  return metered === null ? {} : reserveOf(metered);
}

/** How much of a running call a quota may not have been told of: what has passed, and what was read and has not. */
export function leadBytesOf({ upstreams, transcripts }: Config, name: string): number {
  const lead = transcripts.streamLeadBytes + READ_AHEAD_BYTES;
  const redacts = Object.hasOwn(upstreams, name) && upstreams[name]!.redact.length > 0;
  return redacts ? Math.max(lead, WHOLE_BYTES) : lead;
}

/** Where nothing has left, nothing was spent. */
export function settledCharges(
  reserved: Units,
  { outcome, units }: Pick<Settlement, "outcome" | "units">,
): Readonly<Record<string, Charge>> {
  const nothing = () => Object.fromEntries(Object.keys(reserved).map((unit) => [unit, 0]));
  return chargesOf(reserved, outcome === "not-sent" ? nothing() : (units ?? null));
}

export const amountsOf = (charges: Readonly<Record<string, Charge>>): Units =>
  Object.fromEntries(Object.entries(charges).map(([unit, { charged }]) => [unit, charged]));
