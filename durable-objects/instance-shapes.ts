import * as z from "zod";
import type { Approval, ApprovalState, ApprovalSummary, Decision } from "../src/approval/contract.ts";
import type { Demand } from "../src/approval/policy.ts";
import type { Limits } from "../src/config/define.ts";
import type { FlipRequest } from "../src/control/contract.ts";
import type { Amounts } from "../src/instance/carve.ts";
import type { Actor, Enrolment, Manifest } from "../src/instance/contract.ts";
import type { Usage } from "../src/instance/limits.ts";
import type { Share } from "../src/quota/shares.ts";
import type { Call, Json } from "../src/scope/call.ts";
import type { KeptApproval } from "./approval-book.ts";
import type { KnownSwitch } from "./closed-switches.ts";
import type { Child, Totals } from "./family.ts";
import type { Shapes } from "./kept.ts";
import type { Passing, State } from "./ledger.ts";
import type { KnownBody } from "./raw-bodies.ts";
import { SEGMENT } from "./segment-shape.ts";
import { holdTo, whole } from "./stored.ts";
import { SWITCH, SWITCH_MEMBERS } from "./switch-shape.ts";

/** What an `AgentInstance` keeps, by kind, and its running totals. Each is held to its type: neither changes without the other. */

const number = z.number();
const numbers = z.record(z.string(), number);
const text = z.string();
const texts = z.array(text);
const whether = z.boolean();
/** What no decision here is reckoned from. */
const json = z.custom<Json>((value) => value !== undefined);
const PAIRS = z.array(z.tuple([text, text]));
const LOST = whole<{ readonly calls: number; readonly untilMs: number }>({ calls: number, untilMs: number });
const APPROVAL_STATE: z.ZodType<ApprovalState> = z.enum([
  "asked",
  "approved",
  "used",
  "denied",
  "expired",
  "cancelled",
]);

const LIMITS = whole<Limits>({
  callsPerSecond: number,
  burst: number,
  concurrency: number,
  calls: number,
  bytes: number,
  units: numbers,
  refusalsRecordedPerMinute: number,
});

const ENROLMENT = whole<Enrolment>({
  instance: text,
  human: text,
  emailDigest: text.nullable(),
  emailUnverified: z.literal(true).exactOptional(),
  agent: text,
  agentVersion: text,
  manifest: whole<Manifest>({ model: text, promptDigest: text, tools: z.record(text, text) }),
  client: text,
  chain: z.array(whole<Actor>({ client: text, agent: text, agentVersion: text, instance: text })),
  ancestors: texts,
  parentScope: z.array(json).nullable(),
  groups: texts,
  groupsAtMs: number,
  mandate: text.nullable(),
  rosterShard: number,
  task: whole<Enrolment["task"]>({ id: text, purpose: text, deadlineMs: number }),
  grant: text,
  subject: text,
  scope: z.array(json),
  limits: LIMITS,
  refreshDigest: text.nullable(),
});

export const HANDOVER = whole<FlipRequest>({
  ...SWITCH_MEMBERS,
  email: text.nullable(),
  idempotencyKey: text.nullable(),
});

const APPROVAL_SUMMARY_MEMBERS = {
  id: text,
  instance: text,
  human: text,
  agent: text,
  agentVersion: text,
  task: text,
  purpose: text,
  upstream: text,
  method: text,
  url: text,
  entries: texts,
  groups: z.array(texts),
  notDelegator: whether,
  askedAtMs: number,
  expiresAtMs: number,
  state: APPROVAL_STATE,
  decision: whole<Decision>({
    verdict: z.enum(["approved", "denied"]),
    by: text,
    email: text.nullable(),
    reason: text,
    atMs: number,
  }).nullable(),
  validUntilMs: number.nullable(),
  endedAtMs: number.nullable(),
  cause: text.nullable(),
  call: number.nullable(),
};

/** As lists have it. */
export const APPROVAL_SUMMARY = whole<ApprovalSummary>(APPROVAL_SUMMARY_MEMBERS);
export const APPROVAL = whole<Approval>({ ...APPROVAL_SUMMARY_MEMBERS, headers: PAIRS, body: json, seq: number });

const CALL = whole<Call>({
  upstream: text,
  method: text,
  segments: texts,
  query: PAIRS,
  body: z.union([
    z.looseObject({ kind: z.literal(["none", "opaque"]) }),
    z.looseObject({ kind: z.literal("json"), value: json }),
  ]),
});

const KEPT_APPROVAL = whole<KeptApproval>({
  approval: APPROVAL,
  digest: text,
  call: CALL,
  demand: whole<Demand>({
    at: texts,
    waitMs: number,
    validMs: number,
    expireMs: number,
    notDelegator: whether,
    groups: z.array(texts),
  }),
  grant: text,
  told: APPROVAL_STATE.nullable(),
});

const AMOUNTS = whole<Amounts>({
  calls: number.exactOptional(),
  bytes: number.exactOptional(),
  concurrency: number.exactOptional(),
  burst: number.exactOptional(),
  callsPerSecond: number.exactOptional(),
  units: numbers,
});

const CHILD = whole<Child>({
  grant: text,
  reserved: AMOUNTS,
  state: z.enum(["reserved", "living", "disowned", "told"]),
  atMs: number,
});

export const INSTANCE_SHAPES = {
  enrolment: ENROLMENT,
  switch: whole<KnownSwitch>({ sw: SWITCH, isOpen: whether }),
  handover: HANDOVER,
  approval: KEPT_APPROVAL,
  segment: SEGMENT,
  raw: whole<KnownBody>({ objects: number, unstored: z.array(number) }),
  orphan: number,
  child: CHILD,
  family: z.union([whole<Totals>({ children: number, spent: AMOUNTS }), z.literal(true)]),
} as const satisfies Required<Shapes>;

export const TOTALS = whole<State>({
  usage: whole<Usage>({
    calls: number,
    bytes: number,
    bytesAhead: number,
    bytesUnheard: number.exactOptional(),
    units: numbers,
    tokens: number,
    tokensAtMs: number,
  }),
  open: z.array(number),
  grantsExpireAtMs: number,
  stopped: z.enum(["revoked", "switched"]).nullable(),
  cuts: numbers.exactOptional(),
  orphaned: LOST.exactOptional(),
  shares: z
    .record(text, whole<Share>({ period: number, used: z.record(text, number), lost: LOST.exactOptional() }))
    .exactOptional(),
  ahead: numbers.exactOptional(),
  passing: z.record(text, whole<Passing>({ bytes: number, quotas: texts })).exactOptional(),
});

export const readTotals = (found: Json): State => holdTo(TOTALS, "running totals", found);
