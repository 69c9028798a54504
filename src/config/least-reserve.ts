import { pricedBy, reserveOf } from "../metering/charge.ts";
import type { Metering } from "./meters.ts";

/**
 * What a call that costs any of a unit reserves of it at the least; undefined where none does. Meters of the same operations count
 * together, and those of all operations with each. A call that is of several such groups reserves no less than by one of them.
 */
export function leastReserveOf({ meters, prices }: Metering, unit: string): number | undefined {
  const all = Object.entries(meters);
  const always = all.filter(([, { operations }]) => operations === undefined);
  const groups = Map.groupBy(
    all.filter(([, { operations }]) => operations !== undefined),
    ([, { operations }]) => JSON.stringify(operations),
  );
  const calls = [always, ...[...groups.values()].map((concerned) => [...always, ...concerned])];
  const reserves = calls.map((concerned) => reserveOf(pricedBy(concerned, prices))[unit]);
  const known = reserves.filter((reserve) => reserve !== undefined);
  return known.length === 0 ? undefined : Math.min(...known);
}
