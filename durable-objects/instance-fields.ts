import type { Demand } from "../src/approval/policy.ts";
import type { Limits } from "../src/config/define.ts";
import type { Attributes } from "../src/control/switch.ts";
import type { Denial } from "../src/denial.ts";
import type { Spent } from "../src/instance/carve.ts";
import type { CeilingPermit } from "../src/instance/ceilings.ts";
import type {
  AdmitRequest,
  DelegationFacts,
  Enrolment,
  Manifest,
  Outcome,
  RecordedRequest,
  Redaction,
  Settlement,
} from "../src/instance/contract.ts";
import type { DelegateRequest } from "../src/instance/family.ts";
import type { Units } from "../src/metering/amounts.ts";
import type { Charge } from "../src/metering/charge.ts";
import type { Json } from "../src/scope/call.ts";
import { type BodyReference, type Fields, sha256Hex } from "../src/transcript/envelope.ts";
import { type LostReference, redactedReference } from "./bodies.ts";
import type { AnswerBody, Lease } from "./lease.ts";

/** Pure: what the records of an instance say besides their frame. The one place that names their fields. */

/** In every record, so that each stands alone and leads to a person. */
export const identityFields = (enrolment: Enrolment, grant: string, deployment: string): Fields => ({
  instance: enrolment.instance,
  agent: enrolment.agent,
  agentVersion: enrolment.agentVersion,
  manifestDigest: digestOfManifest(enrolment.manifest),
  task: enrolment.task.id,
  human: enrolment.human,
  client: enrolment.client,
  chain: enrolment.chain.map((actor) => ({ ...actor })),
  // Nobody was there to delegate: by this, a person had approved it.
  ...(enrolment.mandate === null ? {} : { mandate: enrolment.mandate }),
  grant,
  deployment,
});

/** As record 0 has it. */
const manifestFields = ({ model, promptDigest, tools }: Manifest): Fields => ({
  model,
  promptDigest,
  tools: { ...tools },
});

const manifestDigests = new WeakMap<Manifest, string>();

/** Of the exact text in record 0, which holds the manifest itself. */
function digestOfManifest(manifest: Manifest): string {
  let digest = manifestDigests.get(manifest);
  if (digest === undefined) {
    digest = sha256Hex(JSON.stringify(manifestFields(manifest)));
    manifestDigests.set(manifest, digest);
  }
  return digest;
}

export const enrolledFields = (enrolment: Enrolment, claims: BodyReference): Fields => ({
  manifest: manifestFields(enrolment.manifest),
  purpose: enrolment.task.purpose,
  deadline: enrolment.task.deadlineMs,
  scope: [...enrolment.scope],
  limits: { ...enrolment.limits },
  claims: { ...claims },
  parent: enrolment.ancestors.at(-1) ?? null,
});

/** Of a child, before anything of it exists: what it may do, and what of this instance's limits is its own from now on. */
export const delegatedFields = (child: DelegateRequest["child"], limits: Limits): Fields => ({
  act: "delegate",
  child: child.instance,
  childAgent: child.agent,
  childAgentVersion: child.agentVersion,
  childGrant: child.grant,
  purpose: child.purpose,
  deadline: child.deadlineMs,
  scope: [...child.scope],
  limits: { ...limits },
});

/** Of a child that its parent ends by itself. */
export const endedFields = (child: string): Fields => ({ act: "end", child });

/** Of a child that has ended: what it and all below it have spent. The rest of what was reserved for it is back. */
export const returnedFields = (child: string, spent: Spent): Fields => ({
  act: "return",
  child,
  spent: { ...spent, units: { ...spent.units } },
});

/** `entry` and `operation` are of the grant; each ceiling names its own. */
export const callFields = (
  { request: sent, permit, delegation }: AdmitRequest,
  upstream: string,
  body: Json,
  ceilings: readonly CeilingPermit[],
  { units: reserved, approved }: { readonly units: Units; readonly approved: Fields },
): Fields => ({
  upstream,
  method: sent.method,
  target: sent.target,
  headers: pairs(sent.headers),
  body,
  ...redactionFields(sent.redaction),
  ...(delegation === undefined ? {} : { delegation: { jti: delegation.jti, aud: delegation.aud } }),
  decision: { allowed: true, ...permit, ceilings: ceilings.map((one) => ({ ...one })) },
  ...(Object.keys(reserved).length === 0 ? {} : { reserved: { ...reserved } }),
  ...approved,
});

/** What a person is asked to approve: all of the call, and the entries that hold it back. */
export const askedFields = (
  approval: string,
  { request: sent }: AdmitRequest,
  upstream: string,
  body: Json,
  { demand, expiresAtMs }: { readonly demand: Demand; readonly expiresAtMs: number },
): Fields => ({
  approval,
  state: "asked",
  upstream,
  method: sent.method,
  target: sent.target,
  headers: pairs(sent.headers),
  body,
  ...redactionFields(sent.redaction),
  entries: [...demand.at],
  groups: demand.groups.map((oneOf) => [...oneOf]),
  notDelegator: demand.notDelegator,
  expires: expiresAtMs,
});

/** Of a metered call: what it was charged. */
const unitFields = (charges: Readonly<Record<string, Charge>>): Fields =>
  Object.keys(charges).length === 0
    ? {}
    : { units: Object.fromEntries(Object.entries(charges).map(([unit, charge]) => [unit, { ...charge }])) };

export const refusedFields = ({ call, request }: AdmitRequest, denial: Denial, body: Json): Fields => ({
  upstream: call?.upstream ?? null,
  method: request.method,
  target: request.target,
  headers: pairs(request.headers),
  body,
  ...redactionFields(request.redaction),
  decision: { allowed: false, ...decidedBy(denial), ...denial },
});

/** Which layer refused, and why, where the denial does not say it itself. */
function decidedBy(denial: Denial): Fields {
  switch (denial.kind) {
    case "absent":
      return {};
    case "unauthenticated":
      return { layer: "credentials" };
    case "too-large":
      return { layer: "describe" };
    case "limited":
      return { layer: "limits", reason: `over the limit of ${denial.limit}${ofQuota(denial)}` };
    case "exhausted":
      return { layer: "limits", reason: `the budget of ${denial.budget}${ofQuota(denial)} is spent` };
    case "pending":
      return { layer: "boundaries" };
    case "unavailable":
    case "upstream-failed":
      return { layer: "gate" };
  }
}

const ofQuota = ({ quota }: { readonly quota?: string }): string =>
  quota === undefined ? "" : ` of the quota ${quota}`;

/** Where rules concern what is recorded: which they are, and what they took out. */
const redactionFields = (redaction: Redaction | undefined): Fields =>
  redaction === undefined || redaction.applied.length === 0
    ? {}
    : { rulesApplied: [...redaction.applied], redacted: redaction.values.map((value) => ({ ...value })) };

/** A lease that broke while the last bytes were on their way here is a cut call, whatever the Worker thought. */
export function answerFields(
  lease: Lease,
  settlement: Settlement,
  { reference }: AnswerBody,
  charges: Readonly<Record<string, Charge>>,
): Fields {
  const outcome = settlement.outcome === "complete" && lease.cause !== null ? "cut" : settlement.outcome;
  return {
    call: lease.seq,
    outcome,
    ...causeFields(lease),
    ...(settlement.reason === null ? {} : { reason: settlement.reason }),
    status: settlement.head?.status ?? null,
    headers: pairs(settlement.head?.headers ?? []),
    body: reference === null ? null : redactedReference(reference, settlement.redaction),
    ...redactionFields(settlement.redaction),
    ...lateRequest(lease),
    ...upstreamOutcome(outcome),
    passedBytes: settlement.passedBytes + (outcome === "complete" ? settlement.heldBytes : 0),
    forwardedBytes: settlement.forwardedBytes,
    ...unitFields(charges),
    timing: { ...settlement.timing },
  };
}

/** Of a call whose Worker is gone: what it appended is known, and nothing of what it passed since. */
export const lostFields = (lease: Lease, mayMiss: number, charges: Readonly<Record<string, Charge>>): Fields => ({
  call: lease.seq,
  outcome: "lost",
  ...causeFields(lease),
  reason: "the Worker that pumped this call is gone",
  ...upstreamOutcome("lost"),
  body: { ...lease.lostReference(mayMiss) },
  ...lateRequest(lease),
  ...unitFields(charges),
});

/** Of a call whose lease died with the object. */
export const orphanFields = (
  call: number,
  body: LostReference,
  requestBody: LostReference | null,
  charges: Readonly<Record<string, Charge>>,
): Fields => ({
  call,
  outcome: "lost",
  reason: "the object was reset while the call ran",
  ...upstreamOutcome("lost"),
  body: { ...body },
  ...(requestBody === null ? {} : { requestBody: { ...requestBody } }),
  ...unitFields(charges),
});

/** Of a call that ended before its answer did, nobody here knows what the upstream has done. */
const upstreamOutcome = (outcome: Outcome | "lost"): Fields =>
  UNKNOWN_OUTCOMES.has(outcome) ? { upstreamOutcome: "unknown" } : {};
const UNKNOWN_OUTCOMES = new Set<Outcome | "lost">(["cut", "client-gone", "timeout", "lost"]);

/** Why it was cut, and by which switch. */
const causeFields = ({ cause, switchId }: Lease): Fields =>
  cause === null ? {} : { cause, ...(switchId === null ? {} : { switch: switchId }) };

/** The digest of a request body that was longer than its call's record is known only at the end. */
function lateRequest({ request, requestComplete }: Lease): Fields {
  if (request === null) return {};
  return { requestBody: { ...request.reference(request.mediaType, request.coding, requestComplete) } };
}

const pairs = (headers: RecordedRequest["headers"]): Json => headers.map(([name, value]) => [name, value]);

export const upstreamsOf = (enrolment: Enrolment): readonly string[] => [
  ...new Set(enrolment.scope.map((entry) => (entry as { readonly upstream: string }).upstream)),
];

/** What an upstream that wants it is told. */
export const delegationFacts = (enrolment: Enrolment): DelegationFacts => ({
  human: enrolment.human,
  instance: enrolment.instance,
  agent: enrolment.agent,
  agentVersion: enrolment.agentVersion,
  client: enrolment.client,
  chain: enrolment.chain.map((actor) => ({ ...actor })),
  task: enrolment.task.id,
  mandate: enrolment.mandate,
});

export const attributesOf = (enrolment: Enrolment): Attributes => ({
  instance: enrolment.instance,
  human: enrolment.human,
  emailDigest: enrolment.emailDigest,
  groupsAtMs: enrolment.groupsAtMs,
  task: enrolment.task.id,
  agent: enrolment.agent,
  agentVersion: enrolment.agentVersion,
  client: enrolment.client,
  ancestors: enrolment.ancestors,
  mandate: enrolment.mandate,
  agentsAbove: enrolment.chain.slice(0, -1).map(({ agent, agentVersion }) => `${agent}@${agentVersion}`),
  upstreams: upstreamsOf(enrolment),
  deadlineMs: enrolment.task.deadlineMs,
});
