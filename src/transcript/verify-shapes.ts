import * as z from "zod";

/**
 * What each type of record must hold, as far as something else is held against it. Fields that are not named here may be there:
 * the seal is all that speaks for them.
 */

const text = z.string();
const count = z.number().int().nonnegative();
const amount = z.number().nonnegative();
const time = count.nullable();
const digest = text.regex(/^[0-9a-f]{64}$/);
const pairs = z.array(z.tuple([text, text]));
const units = z.record(text, amount);

const frame = { mediaType: text.nullable(), coding: text, complete: z.boolean(), mayMiss: count.optional() };
/** Of a body that was redacted: the length of what passed. What is recorded has another, or is nothing. */
const redactedFrom = { trueBytes: count.nullable().optional() };
const knownBody = z.strictObject({ digest, bytes: count, ...frame, ...redactedFrom });
/** It came with its record. */
const wholeBody = knownBody.extend({ complete: z.literal(true) });
/** Nothing of it was ever recorded. */
const noBody = z.strictObject({ digest: z.null(), bytes: z.literal(0), ...frame, ...redactedFrom });
/** Longer than its call's record: the answer states it, unless the object was reset in between, and some of it was erased. */
const laterBody = z.strictObject({ digest: z.null(), bytes: z.null(), ...frame });

const redaction = {
  rulesApplied: z.array(text).optional(),
  redacted: z
    .array(z.strictObject({ rule: text, at: text, digest: digest.nullable(), bytes: count.nullable() }))
    .optional(),
};

const limits = z.looseObject({
  callsPerSecond: amount,
  burst: amount,
  concurrency: count,
  calls: count,
  bytes: count,
  refusalsRecordedPerMinute: count,
  units: units.default({}),
});

const request = { method: text, target: text, headers: pairs };

export const enrolledShape = z.looseObject({
  manifest: z.looseObject({}),
  purpose: text,
  deadline: count,
  scope: z.array(z.unknown()),
  limits,
  claims: wholeBody,
  parent: text.nullable(),
});

export const renewedShape = z.looseObject({ issued: text, expires: count });

/** By itself, of a call that is none otherwise: the body is not to be missed besides. */
export const callBodyShape = z.looseObject({ body: z.union([wholeBody, laterBody]).nullable() });

export const callShape = z.looseObject({
  upstream: text,
  ...request,
  body: callBodyShape.shape.body,
  decision: z.looseObject({
    allowed: z.literal(true),
    entry: count,
    operation: text,
    ceilings: z.array(z.looseObject({ layer: text, at: text, operation: text })),
  }),
  reserved: units.optional(),
  ...redaction,
});

export const OUTCOMES = [
  "complete",
  "cut",
  "client-gone",
  "upstream-failed",
  "timeout",
  "too-large",
  "not-sent",
  "lost",
] as const;

export const answerShape = z.looseObject({
  call: count,
  outcome: z.enum(OUTCOMES),
  cause: z
    .enum(["switched", "upstream-switched", "narrowed", "ended", "expired", "budget", "unconfirmed", "log-full"])
    .optional(),
  switch: text.optional(),
  body: z.union([knownBody, noBody, laterBody]).nullable(),
  requestBody: z.union([knownBody, laterBody]).optional(),
  reason: text.optional(),
  status: count.nullable().optional(),
  headers: pairs.optional(),
  timing: z.strictObject({ startedAtMs: count, firstByteAtMs: time, lastByteAtMs: time, endedAtMs: count }).optional(),
  upstreamOutcome: z.literal("unknown").optional(),
  passedBytes: count.optional(),
  forwardedBytes: count.optional(),
  units: z.record(text, z.strictObject({ charged: amount, by: z.enum(["answer", "reserve"]) })).optional(),
  ...redaction,
});

const refusedOne = z.looseObject({
  upstream: text.nullable(),
  ...request,
  body: knownBody.nullable(),
  decision: z.looseObject({ allowed: z.literal(false), layer: text, kind: text, reason: text }),
  ...redaction,
});
/** One record that counts many. */
const refusedMany = z.looseObject({ counted: count.min(1), minute: count, body: z.undefined().optional() });
export const refusedShape = z.union([refusedOne, refusedMany]);

/** A request for approval, and what became of it: `verify-approvals.ts` reads the rest. */
const asked = z.looseObject({
  state: z.literal("asked"),
  upstream: text,
  ...request,
  body: wholeBody.nullable(),
  entries: z.array(text.regex(/^boundaries\[\d+\]$/)).min(1),
  groups: z.array(z.array(text)),
  notDelegator: z.boolean(),
  expires: count,
  ...redaction,
});
const noneAsked = { body: z.undefined().optional(), reason: text };
export const approvalShape = z.discriminatedUnion("state", [
  asked,
  z.looseObject({ state: z.literal("approved"), by: text, validUntil: count, ...noneAsked }),
  z.looseObject({ state: z.literal("denied"), by: text, ...noneAsked }),
  z.looseObject({ state: z.enum(["expired", "cancelled"]), ...noneAsked }),
]);

const closed = {
  switch: text,
  reach: text,
  switchTarget: z.record(text, text),
  reason: text.nullable(),
  by: text.nullable(),
  causedBy: z.looseObject({ kind: text }).nullable(),
  accepted: count,
  until: time,
};
export const switchedShape = z.discriminatedUnion("act", [
  z.looseObject({ act: z.enum(["kill", "pause", "resume"]), ...closed }),
  z.looseObject({ act: z.literal("narrow"), ...closed, groups: z.array(text), groupsAt: time }),
  z.looseObject({ act: z.literal("revoke"), reach: z.literal("instance"), by: text }),
]);

export const delegatedShape = z.discriminatedUnion("act", [
  z.looseObject({
    act: z.literal("delegate"),
    child: text,
    childAgent: text,
    childAgentVersion: text,
    childGrant: text,
    purpose: text,
    deadline: count,
    scope: z.array(z.unknown()),
    limits,
  }),
  z.looseObject({
    act: z.literal("return"),
    child: text,
    spent: z.looseObject({ calls: count.default(0), bytes: count.default(0), units: units.default({}) }),
  }),
]);

export const endedShape = z.looseObject({
  cause: z.enum(["deadline", "revoked", "switched"]),
  calls: count,
  bytes: count,
  bytesUnheard: count.default(0),
  units: units.default({}),
});

export type Enrolled = z.output<typeof enrolledShape>;
export type RenewedSaid = z.output<typeof renewedShape>;
export type CallBody = z.output<typeof callBodyShape>;
export type CallSaid = z.output<typeof callShape>;
export type Refusal = z.output<typeof refusedOne>;
export type AnswerSaid = z.output<typeof answerShape>;
export type ApprovalSaid = z.output<typeof approvalShape>;
export type SwitchedSaid = z.output<typeof switchedShape>;
export type DelegatedSaid = z.output<typeof delegatedShape>;
export type Delegation = Extract<DelegatedSaid, { act: "delegate" }>;
export type Return = Extract<DelegatedSaid, { act: "return" }>;
export type EndedSaid = z.output<typeof endedShape>;
export type LimitsSaid = z.output<typeof limits>;
