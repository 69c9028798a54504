/**
 * A body up to this is on record in its call's own row, durable with the decision; a longer one is recorded as it passes.
 * What rules speak of is looked for in a body of at most this length.
 */
export const FIRST_RUN_BYTES = 1_048_576;
