// What the admin API answers with. Everything that a gate says is handed on in `--json`; stated here is what is read,
// and nothing is held to more: a newer gate may have reaches and members that receipt-shape.ts does not know.

import { z } from "zod";

const target = z.object({
  instance: z.string().optional(),
  task: z.string().optional(),
  human: z.string().optional(),
  agent: z.string().optional(),
  agentVersion: z.string().optional(),
  upstream: z.string().optional(),
  mandate: z.string().optional(),
});
const booked = z.object({
  id: z.string(),
  reach: z.string(),
  target,
  act: z.enum(["kill", "pause", "narrow"]),
  reason: z.string(),
  by: z.string(),
  cause: z.unknown(),
  atMs: z.number(),
  untilMs: z.number().nullable(),
  groups: z.array(z.string()).optional(),
});
const opened = z.object({ atMs: z.number(), by: z.string(), reason: z.string() }).nullable();
const status = z.enum(["accepted", "pending", "done", "resumed"]);

export const receipt = z.looseObject({
  iss: z.string(),
  switch: booked,
  status,
  opened,
  reached: z.number(),
  idle: z.number(),
  cut: z.number(),
  unconfirmed: z.number(),
  acceptedAtMs: z.number(),
  lastAcknowledgedAtMs: z.number().nullable(),
  lastByteAtMs: z.number().nullable(),
  missing: z.number(),
  lastStoppedByMs: z.number().nullable(),
  unreached: z.array(z.object({ instance: z.string(), stoppedByMs: z.number() })).nullable(),
  unheardShards: z.number().exactOptional(),
  jws: z.string(),
});
export const progress = z.looseObject({
  switch: z.string(),
  status,
  reached: z.number(),
  idle: z.number(),
  cut: z.number(),
  unconfirmed: z.number(),
  unreached: z.number(),
});
const summary = booked.loose().extend({ status, opened, liftAskedBy: z.array(z.string()) });
export const lifted = summary.extend({ awaiting: z.string().optional() });
const member = z.looseObject({
  instance: z.string(),
  human: z.string(),
  emailDigest: z.string().nullable(),
  task: z.string(),
  agent: z.string(),
  agentVersion: z.string(),
  upstreams: z.array(z.string()),
  parent: z.string().nullable().optional(),
  deadlineMs: z.number(),
  state: z.enum(["live", "paused", "killed"]),
  narrowedBy: z.array(z.string()).optional(),
});

export const whereabouts = z.object({ instance: z.string(), human: z.string(), task: z.string() });
export const instancesPage = z.object({ instances: z.array(member), next: z.string().nullable() });
export const switchesPage = z.object({ switches: z.array(summary), next: z.string().nullable() });
export const resumed = z.object({ switches: z.array(summary) });
/** RFC 9457. */
export const problem = z.object({ detail: z.string().optional() });

export type Target = z.infer<typeof target>;
export type Receipt = z.infer<typeof receipt>;
export type Progress = z.infer<typeof progress>;
export type SwitchSummary = z.infer<typeof summary>;
export type Lifted = z.infer<typeof lifted>;
export type Member = z.infer<typeof member>;
export type Whereabouts = z.infer<typeof whereabouts>;
