// What would become of a call, and why. What is decided is decided by the gate's own code; this says it layer by layer.

import { whyNotApprovable } from "../../src/approval/bound.ts";
import { askingEntries } from "../../src/approval/policy.ts";
import type { Config } from "../../src/config/define.ts";
import type { CallLayer } from "../../src/config/policy-tests.ts";
import { absent, type Denial } from "../../src/denial.ts";
import {
  authorizeBody,
  authorizeHead,
  type Described,
  describe,
  describeWhole,
  findTooLarge,
  type Held,
} from "../../src/gate/authorize.ts";
import { redactionFor } from "../../src/gate/call-redaction.ts";
import type { RequestHead } from "../../src/gate/describe.ts";
import { FIRST_RUN_BYTES } from "../../src/gate/first-run.ts";
import { recordedHeaders } from "../../src/gate/headers.ts";
import { resourceOf } from "../../src/grant/claims.ts";
import { type Bounded, ceilingsOf, permitsOf } from "../../src/instance/ceilings.ts";
import { err, type Result } from "../../src/result.ts";
import type { Call, Json } from "../../src/scope/call.ts";
import type { Entry } from "../../src/scope/entry.ts";
import { explain, factsOf, type Miss } from "../../src/scope/explain.ts";
import { findMeant } from "../../src/scope/readings.ts";
import { findCredentialFault } from "../../src/upstream/call-fault.ts";
import type { Asked } from "./asked.ts";

export type Verdict = "allowed" | "refused" | "approval";

/** What an entry that fits may demand of a call besides, whichever entry allows it. A row for each effect. */
const EFFECTS: readonly { readonly verdict: "approval"; readonly isOf: (entry: Entry) => boolean }[] = [
  { verdict: "approval", isOf: (entry) => "approval" in entry && entry.approval !== null },
];

export interface LayerVerdict {
  readonly layer: CallLayer;
  /** `not asked`: no scope was given. */
  readonly verdict: Verdict | "not asked";
  /** By which entry, and which operation of it, as a record names them. */
  readonly at?: string;
  readonly operation?: string;
  /** Of `route` and `describe`, and of a grant without a credential for the call, in words. */
  readonly reason?: string;
  /** Of a layer that refuses: what came near, the nearest first. */
  readonly misses: readonly (Miss & { readonly at: string })[];
}

export interface CallExplanation {
  readonly verdict: Verdict;
  /** Which refuses, or demands approval, first. Null: all allow it. */
  readonly layer: CallLayer | null;
  readonly layers: readonly LayerVerdict[];
  /** Facts that conditions speak of, as they were read; null where the call could not be described. */
  readonly facts: Readonly<Record<string, Json>> | null;
  /** Whether the body was read as JSON, is passed unread, or isn't there. */
  readonly body: Call["body"]["kind"];
}

/** @param scope of the grant; null: it is not asked */
export function explainCall(
  config: Config,
  { head, body }: Asked,
  who: Bounded,
  scope: readonly Entry[] | null,
): CallExplanation {
  const grant = heldOf(config, scope);
  const hasBody = body !== null;
  const described = describe(head, hasBody, grant, config);
  if (!described.ok) return refusedBefore(described.error, hasBody);
  const whole = readWhole(head, body, described.value);
  const granted = scope === null ? byAnyGrant(whole, described.value) : grantedBy(head, body, grant, config);
  if (!granted.ok && layerOf(granted.error) === "describe") return refusedBefore(granted.error, hasBody);

  // Refused by the head alone, nobody would look at a body that can't be read. Here its layers are told all the same.
  const call: Call = whole.ok ? whole.value : { ...described.value.call, body: { kind: "opaque" } };
  const ceilings = ceilingsOf(config, who);
  const permits = permitsOf(ceilings, call);
  const recorded = recordOf(config, head, body, call);
  if (granted.ok && recorded.fault !== null) return refusedBefore(absent("describe", recorded.fault), hasBody);
  const isAsking = askingEntries(config.boundaries).some((entry) => findMeant(entry, call) !== undefined);
  const unseen = granted.ok && permits.ok && isAsking ? whyNotApprovable(recorded.request) : null;
  if (unseen !== null) return refusedBefore(absent("describe", unseen), hasBody);
  const own = scope === null ? [] : [{ name: "grant" as const, entries: scope, places: placesIn(scope) }];
  const bounds = [...own, ...ceilings];
  const layers: LayerVerdict[] = [
    { layer: "route", verdict: "allowed", misses: [] },
    { layer: "describe", verdict: "allowed", misses: [] },
    ...(scope === null ? [unasked(granted)] : []),
    ...bounds.map(({ name, entries, places }): LayerVerdict => {
      const layer = verdictOf(name, entries, places, call);
      const isUncredentialed = name === "grant" && layer.verdict === "allowed" && !granted.ok;
      return isUncredentialed
        ? { layer: name, verdict: "refused", reason: reasonOf(granted.error), misses: [] }
        : layer;
    }),
  ];
  const refusedBy = !granted.ok ? layerOf(granted.error) : permits.ok ? null : layerOf(permits.error);
  const demands = layers.find(
    ({ verdict }) => verdict !== "allowed" && verdict !== "refused" && verdict !== "not asked",
  );
  return {
    verdict: refusedBy !== null ? "refused" : ((demands?.verdict as "approval" | undefined) ?? "allowed"),
    layer: refusedBy ?? demands?.layer ?? null,
    layers,
    facts: Object.fromEntries(bounds.flatMap(({ entries }) => [...factsOf(entries, call)])),
    body: call.body.kind,
  };
}

const placesIn = (scope: readonly Entry[]): readonly string[] => scope.map((_, i) => `authorization_details[${i}]`);

const heldOf = ({ origin, upstreams }: Config, scope: readonly Entry[] | null): Held => ({
  audiences: (scope === null ? Object.keys(upstreams) : scope.map(({ upstream }) => upstream)).map((upstream) =>
    resourceOf(origin, upstream),
  ),
  entries: scope ?? [],
});

/** As the gate reads it: not beyond the first run. */
const firstRunOf = (body: Uint8Array | null): Uint8Array | null =>
  body === null ? new Uint8Array(0) : body.length > FIRST_RUN_BYTES ? null : body;

function readWhole(head: Asked["head"], body: Asked["body"], described: Described): Result<Call, Denial> {
  const tooLarge = findTooLarge(body?.length ?? 0, described.route);
  return tooLarge === undefined ? describeWhole(head, firstRunOf(body), described) : err(tooLarge);
}

/** Which credential a call can have the grant says, as far as any could. */
function byAnyGrant(whole: Result<Call, Denial>, { route, call }: Described): Result<unknown, Denial> {
  const fault = findCredentialFault(route.config, call, null);
  return fault === undefined ? whole : err(absent("grant", fault));
}

const unasked = (granted: Result<unknown, Denial>): LayerVerdict =>
  granted.ok
    ? { layer: "grant", verdict: "not asked", misses: [] }
    : { layer: "grant", verdict: "refused", reason: reasonOf(granted.error), misses: [] };

function grantedBy(head: Asked["head"], body: Asked["body"], grant: Held, config: Config): Result<unknown, Denial> {
  const path = authorizeHead(head, body !== null, grant, config);
  if (!path.ok) return path;
  const { route, call } = path.value;
  const fault = findCredentialFault(route.config, call, grant.entries);
  if (fault !== undefined) return err(absent("grant", fault));
  const tooLarge = findTooLarge(body?.length ?? 0, path.value.route);
  return tooLarge === undefined ? authorizeBody(head, firstRunOf(body), grant, path.value) : err(tooLarge);
}

/** As it would go on record: what can't be redacted does not pass, and of what is redacted nobody sees all. */
function recordOf(config: Config, { target, method, headers }: RequestHead, body: Asked["body"], call: Call) {
  const first = firstRunOf(body);
  const sent = {
    method,
    target: target.rawPath + target.rawQuery,
    headers: recordedHeaders(headers),
    body: first ?? (body ?? new Uint8Array(0)).subarray(0, FIRST_RUN_BYTES),
    bodyFollows: first === null,
  };
  return redactionFor(config, target.upstream, call)?.recordRequest(sent) ?? { request: sent, fault: null };
}

/** The layer as a record names it. */
const layerOf = (denial: Denial): CallLayer =>
  denial.kind === "absent" && denial.layer !== "switch" ? denial.layer : "describe";

const reasonOf = (denial: Denial): string =>
  "reason" in denial ? `${denial.kind === "too-large" ? "too large: " : ""}${denial.reason}` : denial.kind;

function refusedBefore(denial: Denial, hasBody: boolean): CallExplanation {
  const layer = layerOf(denial);
  const refusing: LayerVerdict = { layer, verdict: "refused", reason: reasonOf(denial), misses: [] };
  const before: LayerVerdict[] = layer === "route" ? [] : [{ layer: "route", verdict: "allowed", misses: [] }];
  return { verdict: "refused", layer, layers: [...before, refusing], facts: null, body: hasBody ? "opaque" : "none" };
}

function verdictOf(layer: CallLayer, entries: readonly Entry[], places: readonly string[], call: Call): LayerVerdict {
  const { permit, misses } = explain(entries, call);
  if (permit === undefined)
    return { layer, verdict: "refused", misses: misses.map((miss) => ({ ...miss, at: places[miss.entry]! })) };
  for (const { verdict, isOf } of EFFECTS)
    for (const [place, entry] of entries.entries()) {
      const fits = isOf(entry) ? findMeant(entry, call) : undefined;
      if (fits !== undefined) return { layer, verdict, at: places[place]!, operation: fits.text, misses: [] };
    }
  return { layer, verdict: "allowed", at: places[permit.entry]!, operation: permit.operation, misses: [] };
}
