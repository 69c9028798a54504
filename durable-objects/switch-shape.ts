import * as z from "zod";
import type { Reached } from "../src/control/acknowledgement.ts";
import type { Opening } from "../src/control/contract.ts";
import { ALL_ACTS, REACHES, type Reach, type Switch, type SwitchCause, type Target } from "../src/control/switch.ts";
import { whole } from "./stored.ts";

const text = z.string();

const TARGET = whole<Target>({
  instance: text.exactOptional(),
  task: text.exactOptional(),
  human: text.exactOptional(),
  agent: text.exactOptional(),
  agentVersion: text.exactOptional(),
  upstream: text.exactOptional(),
  mandate: text.exactOptional(),
});

/** What every switch says, on its way as well. */
export const SWITCH_MEMBERS = {
  id: text,
  reach: z.enum(Object.keys(REACHES) as Reach[]),
  target: TARGET,
  act: z.enum(ALL_ACTS),
  reason: text,
  by: text,
  /** It goes on record as it is. */
  cause: z.custom<SwitchCause>((value) => typeof value === "object" && value !== null).nullable(),
  untilMs: z.number().nullable(),
  groups: z.array(text).exactOptional(),
  eventAtMs: z.number().exactOptional(),
};

export const SWITCH = whole<Switch>({ ...SWITCH_MEMBERS, atMs: z.number() });

/** In the switchboard's book. */
export const OPENING = whole<Opening>({ atMs: z.number(), by: text, reason: text });

export const REACHED = whole<Reached>({
  instance: text,
  answer: whole<NonNullable<Reached["answer"]>>({
    cut: z.number(),
    unconfirmed: z.number(),
    acknowledgedAtMs: z.number(),
    lastByteAtMs: z.number().nullable(),
  }).nullable(),
  stoppedByMs: z.number(),
});
