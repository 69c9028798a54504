/**
 * Amounts of metered units are plain numbers, money among them, and each is the double nearest to a whole number of
 * millionths: what is added and compared are those whole numbers, so that no sum drifts. Pure.
 */

/** By unit. */
export type Units = Readonly<Record<string, number>>;

const PER_UNIT = 1_000_000;
/** Its millionths are below 2^53. */
export const MAX_AMOUNT = 9_000_000_000;

export const toMillionths = (amount: number): number => Math.round(amount * PER_UNIT);
export const fromMillionths = (millionths: number): number => millionths / PER_UNIT;

/** In millionths, and never less than what was said. */
export function millionthsUp(amount: number): number {
  const near = toMillionths(amount);
  return fromMillionths(near) >= amount ? near : near + 1;
}

export const add = (a: number, b: number): number => fromMillionths(toMillionths(a) + toMillionths(b));

export const addUnits = (a: Units, b: Units): Units => {
  const sum: Record<string, number> = { ...a };
  for (const [unit, amount] of Object.entries(b)) sum[unit] = add(own(sum, unit), amount);
  return sum;
};

/** Of what is not there: nothing. */
export const own = (amounts: Units, name: string): number => (Object.hasOwn(amounts, name) ? amounts[name]! : 0);

const PICO = 1_000_000_000_000;

/** A price in whole millionths of a millionth, or undefined where it has more places than twelve. */
export function toPicos(price: number): bigint | undefined {
  const picos = Math.round(price * PICO);
  return Number.isSafeInteger(picos) && picos / PICO === price ? BigInt(picos) : undefined;
}

/** Exact, and rounded up to a millionth once, at the end. */
export function priceOf(parts: readonly { readonly amount: number; readonly price: number }[]): number {
  const picoMillionths = parts.reduce(
    (sum, { amount, price }) => sum + BigInt(toMillionths(amount)) * toPicos(price)!,
    0n,
  );
  return fromMillionths(Number((picoMillionths + BigInt(PICO) - 1n) / BigInt(PICO)));
}
