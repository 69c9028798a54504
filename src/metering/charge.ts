import type { Meter, Metering, Price } from "../config/meters.ts";
import type { Call } from "../scope/call.ts";
import { mayBeOperation } from "../scope/readings.ts";
import { priceOf, type Units } from "./amounts.ts";

/** What a call of a metered upstream costs: at most, and as its answer says. Pure. */

/** The meters that concern one call, and the prices that are made of them. */
export interface Metered {
  readonly meters: readonly (readonly [unit: string, meter: Meter])[];
  readonly prices: readonly (readonly [unit: string, price: Price])[];
}

/** What an answer says. What is not there could not be read. */
export interface Reading {
  readonly amounts: ReadonlyMap<string, number>;
  /** By priced unit: what chooses its list. */
  readonly chosenBy: ReadonlyMap<string, string>;
}

export const NOTHING_SAID: Reading = { amounts: new Map(), chosenBy: new Map() };

/** Null where nothing of the call is metered. Another spelling of the path, which the upstream may take for the same, is no way around. */
export function meteredOf({ meters, prices }: Metering, call: Pick<Call, "method" | "segments">): Metered | null {
  const concerned = Object.entries(meters).filter(
    ([, { operations }]) => operations === undefined || operations.some((operation) => mayBeOperation(operation, call)),
  );
  return concerned.length === 0 ? null : pricedBy(concerned, prices);
}

/** Meters of one call, with the prices that are made of any of them. */
export function pricedBy(meters: Metered["meters"], prices: Metering["prices"]): Metered {
  const names = new Set(meters.map(([unit]) => unit));
  return {
    meters,
    prices: Object.entries(prices).filter(([, { of }]) => Object.keys(of).some((part) => names.has(part))),
  };
}

/** Taken before the call leaves. Money is reserved at the dearest list. */
export function reserveOf({ meters, prices }: Metered): Units {
  const units: Record<string, number> = Object.fromEntries(meters.map(([unit, { reserve }]) => [unit, reserve]));
  const reserved = new Map(Object.entries(units));
  for (const [unit, { of, by }] of prices) {
    const lists = [of, ...Object.values(by?.table ?? {})];
    units[unit] = Math.max(...lists.map((list) => costOf(list, reserved)));
  }
  return units;
}

/**
 * What a whole answer says that it cost; a unit that it does not say is not among them, and costs its reserve.
 * @param status of the answer
 */
export function chargeOf({ meters, prices }: Metered, reading: Reading, status: number): Units {
  const known = new Map<string, number>();
  for (const [unit, { failed }] of meters) {
    const amount = reading.amounts.get(unit) ?? (status >= 400 ? failed : undefined);
    if (amount !== undefined) known.set(unit, amount);
  }
  const units: Record<string, number> = Object.fromEntries(known);
  const metered = new Set(meters.map(([unit]) => unit));
  for (const [unit, { of, by }] of prices) {
    const row = reading.chosenBy.get(unit);
    const list = by !== undefined && row !== undefined && Object.hasOwn(by.table, row) ? by.table[row]! : of;
    // Of a call that has not said what chooses the list, the price is not known either, unless it cost nothing.
    const isChosen = by === undefined || row !== undefined || status >= 400;
    const parts = Object.keys(list).filter((part) => metered.has(part));
    if (isChosen && parts.every((part) => known.has(part))) units[unit] = costOf(list, known);
  }
  return units;
}

/** What a call was charged of a unit, and who says so: its answer, or nobody. */
export interface Charge {
  readonly charged: number;
  readonly by: "answer" | "reserve";
}

/** @param said as the Worker read it; null: it could not be read, or there was no whole answer */
export function chargesOf(reserved: Units, said: Units | null): Readonly<Record<string, Charge>> {
  return Object.fromEntries(
    Object.entries(reserved).map(([unit, amount]): [string, Charge] =>
      said !== null && Object.hasOwn(said, unit)
        ? [unit, { charged: said[unit]!, by: "answer" }]
        : [unit, { charged: amount, by: "reserve" }],
    ),
  );
}

const costOf = (list: Readonly<Record<string, number>>, amounts: ReadonlyMap<string, number>): number =>
  priceOf(Object.entries(list).map(([part, price]) => ({ price, amount: amounts.get(part) ?? 0 })));
