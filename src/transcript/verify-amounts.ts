/**
 * Amounts as records say them. Units (money among them) are doubles nearest to whole millionths, and are added and compared as
 * those: bytes are not, which in millionths would be more than a double holds.
 */

export const MILLION = 1_000_000;

export const millionths = (amount: number): number => Math.round(amount * MILLION);

export const spell = (ofMillionths: number): string => String(ofMillionths / MILLION);

/** Of a unit that is not there nothing, whatever it is called: `constructor` is a name as well. */
export const own = (units: Readonly<Record<string, number>>, unit: string): number =>
  Object.hasOwn(units, unit) ? units[unit]! : 0;

/** Sums of units, by name, in millionths. */
export class Sums {
  readonly #sums = new Map<string, number>();

  add(units: Readonly<Record<string, number>>, sign: 1 | -1 = 1): void {
    for (const [unit, amount] of Object.entries(units)) this.#sums.set(unit, this.of(unit) + sign * millionths(amount));
  }
  of(unit: string): number {
    return this.#sums.get(unit) ?? 0;
  }
  get names(): readonly string[] {
    return [...this.#sums.keys()];
  }
}

/** The first unit of which two sums say different things. */
export function otherUnit(said: Readonly<Record<string, number>>, sums: Sums): string | null {
  const names = new Set([...Object.keys(said), ...sums.names]);
  for (const unit of names) {
    const amount = millionths(own(said, unit));
    if (amount !== sums.of(unit)) return `${unit} is ${spell(amount)}, and the records say ${spell(sums.of(unit))}`;
  }
  return null;
}
