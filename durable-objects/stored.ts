import * as z from "zod";

/** What is stored is not what this release can read. Whatever would be decided by it is not decided. */
export class UnreadableState extends Error {}

/** SQLite's word for a table that was never created. */
const isMissingTable = (error: unknown): boolean => error instanceof Error && error.message.includes("no such table");

/** What a query finds; null where its table was never created. */
export function rowsIfThere<T extends Record<string, SqlStorageValue>>(
  sql: SqlStorage,
  query: string,
  ...bindings: SqlStorageValue[]
): T[] | null {
  try {
    return sql.exec<T>(query, ...bindings).toArray();
  } catch (error) {
    if (isMissingTable(error)) return null;
    throw error;
  }
}

/** A shape for each member of the type, the optional ones as well: one that is added breaks the build until it has its own. */
export type Members<T> = { readonly [K in keyof T]-?: z.ZodType<T[K]> };

/** @param members each is there, or says itself that it need not be */
export const whole = <T extends object>(members: Members<T>): z.ZodType<T> =>
  z.looseObject(members as z.core.$ZodShape) as unknown as z.ZodType<T>;

/**
 * As it is: what stands beside the shape's members stays. A member that is missing, or is no number where one must be, would be
 * `NaN` in a limit, and every comparison with that is false: such state is not read at all.
 *
 * @param name for the operator: of a kind of state, never an id
 */
export function holdTo<T>(shape: z.ZodType<T>, name: string, value: unknown): T {
  const parsed = shape.safeParse(value);
  if (parsed.success) return value as T;
  const { path, message } = parsed.error.issues[0]!;
  throw new UnreadableState(`${name} is not as this release stores it: ${[...path.map(placeOf), message].join(": ")}`);
}

/** What was stored as JSON. */
export const readStored = <T>(shape: z.ZodType<T>, name: string, json: string): T =>
  holdTo(shape, name, parseStored(name, json));

/** The same, where its owner holds it to its shape. */
export function parseStored(name: string, json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    // The error would quote it.
    throw new UnreadableState(`${name} is no JSON`);
  }
}

/** Names that the code has given; what else stands in a path may be an id. */
const placeOf = (part: PropertyKey): string => (/^[A-Za-z]{1,24}$/.test(String(part)) ? String(part) : "*");
