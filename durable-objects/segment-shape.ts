import * as z from "zod";
import type { Segment } from "./log-segments.ts";
import { whole } from "./stored.ts";

export const SEGMENT = whole<Segment>({
  firstSeq: z.number(),
  lastSeq: z.number(),
  head: z.string(),
  sealLine: z.string(),
  state: z.string(),
  jtiUntilMs: z.number(),
  bytes: z.number(),
  final: z.boolean(),
  stage: z.literal([0, 1, 2]),
});
