import * as z from "zod";
import type { Hold, Release } from "../src/retention/contract.ts";
import type { Extent } from "../src/retention/cover.ts";
import { whole } from "./stored.ts";

/** What an erasure is, fixed when it is asked for. */
export interface Erasure {
  readonly id: string;
  readonly human: string;
  readonly task: string | null;
  readonly reason: string;
  readonly by: string;
  readonly email: string | null;
  readonly atMs: number;
  readonly beforeMs: number;
  readonly certificate: string;
}

/** An object of a page. `isWhole`: it goes; else it is written anew without what is meant. */
export interface Doomed {
  readonly key: string;
  readonly bytes: number;
  readonly isWhole: boolean;
}

export interface Page {
  readonly doomed: readonly Doomed[];
  /** Keys up to this one are decided. */
  readonly upTo: string;
}

const number = z.number();
const text = z.string();

/** A subject of a kind that is not known would keep nothing, and all that it holds could go. */
export const HOLD = whole<Hold>({
  id: text,
  subject: z.union([
    z.object({ kind: z.enum(["human", "task"]), id: text }),
    z.object({ kind: z.literal("everything") }),
  ]) as z.ZodType<Hold["subject"]>,
  reason: text,
  by: text,
  atMs: number,
});

export const RELEASE = whole<Release>({ atMs: number, by: z.array(text), reason: text });

/** Without a `task` that is null or one, it would be of all tasks. */
export const ERASURE = whole<Erasure>({
  id: text,
  human: text,
  task: text.nullable(),
  reason: text,
  by: text,
  email: text.nullable(),
  atMs: number,
  beforeMs: number,
  certificate: text,
});

export const PAGE = whole<Page>({
  doomed: z.array(whole<Doomed>({ key: text, bytes: number, isWhole: z.boolean() })),
  upTo: text,
});

export const EXTENT = whole<Extent>({ fromSeq: number, running: z.array(number), isExact: z.boolean() });
