import * as z from "zod";
import { MAX_AMOUNT, toPicos } from "../metering/amounts.ts";
import { type Operation, parseOperation } from "../scope/template.ts";
import { unitName } from "./names.ts";

/** What an answer says was used, and what it costs. */

const MAX_POINTER_LENGTH = 256;
const POINTER = /^(?:\/(?:[^~/]|~[01])*)+$/;

/** Unescaped (RFC 6901 §4), `~1` before `~0`, so that `~01` is `~1`. */
const pointer = z
  .string()
  .max(MAX_POINTER_LENGTH)
  .regex(POINTER)
  .transform((text): readonly string[] =>
    text
      .split("/")
      .slice(1)
      .map((token) => token.replaceAll("~1", "/").replaceAll("~0", "~")),
  );
/** Several where an API says it in several places, as its events do. */
const pointers = z
  .union([pointer, z.array(pointer).min(1).max(8)], {
    error: "a JSON pointer (RFC 6901) to a member, e.g. /usage/total_tokens, or up to 8 of them",
  })
  .transform(
    (one): readonly (readonly string[])[] => (Array.isArray(one[0]) ? one : [one]) as readonly (readonly string[])[],
  );

const amount = z.number().nonnegative().max(MAX_AMOUNT);

const operation = z.string().transform((text, ctx): Operation => {
  const parsed = parseOperation(text);
  if (parsed.ok) return parsed.value;
  ctx.addIssue({ code: "custom", message: parsed.error });
  return z.NEVER;
});

const meter = z.strictObject({
  /** Where a JSON answer says it; of a stream of events, the last event that does. */
  pointer: pointers,
  /** Taken when the call is admitted, and charged where its answer can't be read. A budget is exact where no answer says more. */
  reserve: amount,
  /** What a whole answer with a status of 400 or more costs that does not say it. The reserve, where it is left out. */
  failed: amount.optional(),
  /** All of the upstream's, where it is left out. */
  operations: z.array(operation).min(1).max(64).readonly().optional(),
});

const pricePerUnit = z
  .number()
  .nonnegative()
  .max(1_000)
  .refine((price) => toPicos(price) !== undefined, "at most twelve decimal places");
const priceList = z.record(unitName, pricePerUnit).refine((of) => Object.keys(of).length > 0, "at least one unit");

/** A unit that is computed from metered ones. Exact, and rounded up to a millionth. */
const price = z.strictObject({
  of: priceList,
  /** A string in the answer that chooses another list; one that is not in the table leaves it at `of`. */
  by: z.strictObject({ pointer: pointers, table: z.record(z.string(), priceList) }).optional(),
});

export const meters = z.record(unitName, meter).default({});
export const prices = z.record(unitName, price).default({});

type PriceList = z.output<typeof priceList>;
export type Meter = z.output<typeof meter>;
export type Price = z.output<typeof price>;
/** The parts of an upstream that say what its calls cost. */
export interface Metering {
  readonly meters: Readonly<Record<string, Meter>>;
  readonly prices: Readonly<Record<string, Price>>;
}

/** What must hold between meters and prices of one upstream; paths are below it. */
export function findMeterFaults({ meters, prices }: Metering): { readonly path: string[]; readonly message: string }[] {
  return Object.entries(prices).flatMap(([unit, { of, by }]) => [
    ...(Object.hasOwn(meters, unit) ? [{ path: ["prices", unit], message: "a meter has this name" }] : []),
    ...[
      ["of", of] as const,
      ...Object.entries(by?.table ?? {}).map(([row, list]) => [`by.table.${row}`, list] as const),
    ]
      .flatMap(([place, list]) => Object.keys(list).map((part) => [place, part] as const))
      .filter(([, part]) => !Object.hasOwn(meters, part))
      .map(([place, part]) => ({
        path: ["prices", unit, place, part],
        message: `no meter "${part}" of this upstream`,
      })),
    ...findUnpriced(unit, of, by?.table ?? {}),
  ]);
}

/** What a list leaves out would cost nothing, and the answer itself says which list it is. */
function findUnpriced(unit: string, of: PriceList, table: Readonly<Record<string, PriceList>>) {
  const lists = [
    ["of", of] as const,
    ...Object.entries(table).map(([row, list]) => [`by.table.${row}`, list] as const),
  ];
  const parts = new Set(lists.flatMap(([, list]) => Object.keys(list)));
  return lists.flatMap(([place, list]) =>
    [...parts]
      .filter((part) => !Object.hasOwn(list, part))
      .map((part) => ({
        path: ["prices", unit, place, part],
        message: "another list has a price of it: say one here, 0 where it costs nothing",
      })),
  );
}
