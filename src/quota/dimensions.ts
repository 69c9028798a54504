import type { QuotaConfig } from "../config/quotas.ts";
import type { Budget } from "../denial.ts";
import { toMillionths } from "../metering/amounts.ts";

/** What a quota bounds, in whole numbers: calls, bytes, units in millionths, places of running calls, tokens of the rate. Pure. */
export type Dimension = Budget | "concurrency" | "rate";
/** Of some dimensions. */
export type Some = { readonly [dimension in Dimension]?: number };

export const of = (amounts: Some, dimension: Dimension): number =>
  Object.hasOwn(amounts, dimension) ? amounts[dimension]! : 0;

export const dimensionsOf = (amounts: Some): readonly Dimension[] => Object.keys(amounts) as Dimension[];

export const plus = (a: Some, b: Some): Some => {
  const sum: { [dimension in Dimension]?: number } = { ...a };
  for (const dimension of dimensionsOf(b)) sum[dimension] = of(a, dimension) + of(b, dimension);
  return sum;
};
export const minus = (a: Some, b: Some): Some =>
  plus(
    a,
    map(b, (_, amount) => -amount),
  );

export const map = (amounts: Some, change: (dimension: Dimension, amount: number) => number): Some =>
  Object.fromEntries(dimensionsOf(amounts).map((one) => [one, change(one, of(amounts, one))]));

export const only = (amounts: Some, keep: (dimension: Dimension) => boolean): Some =>
  Object.fromEntries(dimensionsOf(amounts).flatMap((one) => (keep(one) ? [[one, of(amounts, one)]] : [])));

/** Neither begins anew with a period. */
export const isLasting = (dimension: Dimension): boolean => dimension === "concurrency" || dimension === "rate";

/** What may be leased in all; of the rate, the most that may be saved up. */
export function limitsOf({ calls, bytes, units, concurrency, callsPerSecond, burst }: QuotaConfig): Some {
  const limits: { [dimension in Dimension]?: number } = {};
  if (calls !== undefined) limits.calls = calls;
  if (bytes !== undefined) limits.bytes = bytes;
  for (const [unit, amount] of Object.entries(units)) limits[`units.${unit}`] = toMillionths(amount);
  if (concurrency !== undefined) limits.concurrency = concurrency;
  if (callsPerSecond !== undefined) limits.rate = burst ?? Math.max(1, Math.ceil(callsPerSecond));
  return limits;
}
