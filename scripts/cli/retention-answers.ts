// What the admin API answers about holds and erasures: what is read of it, and nothing is held to more.

import { z } from "zod";

const subject = z.object({ kind: z.string(), id: z.string().optional() });
export const hold = z.looseObject({
  id: z.string(),
  subject,
  reason: z.string(),
  by: z.string(),
  atMs: z.number(),
  released: z.object({ atMs: z.number(), by: z.array(z.string()), reason: z.string() }).nullable(),
  awaiting: z.string().optional(),
});
export const holdsPage = z.object({ holds: z.array(hold), next: z.string().nullable() });
export const erasure = z.looseObject({
  id: z.string(),
  human: z.string(),
  task: z.string().nullable(),
  status: z.enum(["running", "stopped", "done", "incomplete"]),
  certificate: z.string(),
  beforeMs: z.number(),
  objects: z.number(),
  bytes: z.number(),
  rewritten: z.number(),
  blanked: z.number(),
  leftCount: z.number(),
  left: z.array(z.object({ what: z.string(), why: z.string() })),
  stoppedBy: z.string().nullable(),
});

export type Hold = z.infer<typeof hold>;
export type Erasure = z.infer<typeof erasure>;
