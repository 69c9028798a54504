import { hiddenParameterOf } from "../config/credential.ts";
import type { Config, UpstreamConfig } from "../config/define.ts";
import { absent, type Denial } from "../denial.ts";
import { type Grant, resourceOf } from "../grant/claims.ts";
import { err, ok, type Result } from "../result.ts";
import type { Call } from "../scope/call.ts";
import { factsNeeded, findPermit, type Permit } from "../scope/decide.ts";
import type { Entry } from "../scope/entry.ts";
import { describeBody, describeHead, type RequestHead, type RuleFacts } from "./describe.ts";
import type { Target } from "./target.ts";

/**
 * Pure: steps 2 to 4 of the way of a call. The gate asks them of a live request; policy tests ask them of one that is
 * written down.
 */

/** What of a grant decides: where it leads, and what it holds. */
export type Held = Pick<Grant, "audiences" | "entries">;

export interface Route {
  readonly name: string;
  readonly config: UpstreamConfig;
}

/** A call that leads somewhere, whose body is still to be read, and what the rules want to know of it. */
export interface Described {
  readonly route: Route;
  readonly call: Omit<Call, "body">;
  readonly rules: RuleFacts;
}

/** One that the grant may hold, as far as that can be asked without the body. */
export interface Path extends Described {
  /** By what the grant allows it whatever the body; null: it is asked again when the body is known. */
  readonly permit: Permit | null;
}

/** An upstream that is configured, and whose resource URL is in the grant's `aud`. */
function routeTo(
  { upstream: name }: Target,
  { audiences }: Held,
  { upstreams, origin }: Config,
): Result<Route, Denial> {
  const upstream = Object.hasOwn(upstreams, name) ? upstreams[name] : undefined;
  if (upstream === undefined) return err(absent("route", "no such upstream"));
  if (!audiences.includes(resourceOf(origin, name))) return err(absent("route", "not in the grant's aud"));
  return ok({ name, config: upstream });
}

/** `route` and `describe`: where it leads, and its facts but for those of the body. */
export function describe(head: RequestHead, hasBody: boolean, grant: Held, config: Config): Result<Described, Denial> {
  const found = routeTo(head.target, grant, config);
  if (!found.ok) return found;
  const { name, config: upstream } = found.value;
  const described = describeHead(head, { upstream: name, encodedSlash: upstream.encodedSlash });
  if (!described.ok) return err(absent("describe", described.error));
  const own = hasBody ? rulesOf(grant.entries, name) : NO_RULES;
  const others = hasBody ? rulesOfCeilings(config, name) : NO_RULES;
  // A form's field of that name could take the place of a credential in the query.
  const isHidden = hasBody && hiddenParameterOf(upstream) !== null;
  const rules = { query: own.query || others.query || isHidden, body: own.body || others.body };
  return ok({ route: found.value, call: described.value, rules });
}

const NOT_GRANTED = absent("grant", "not within the grant");

/** `route`, `describe`, and the grant's own scope as far as it can be asked without the body. */
export function authorizeHead(head: RequestHead, hasBody: boolean, grant: Held, config: Config): Result<Path, Denial> {
  const described = describe(head, hasBody, grant, config);
  if (!described.ok) return described;
  const { call, route } = described.value;
  const isOfBody = hasBody && rulesOf(grant.entries, route.name).body;
  const asked: Call = { ...call, body: { kind: hasBody ? "opaque" : "none" } };
  const entries = isOfBody ? withoutBodyConditions(grant.entries) : grant.entries;
  const permit = findPermit(entries, asked);
  if (permit === undefined) return err(NOT_GRANTED);
  return ok({ ...described.value, permit: isOfBody ? null : permit });
}

/** Wider than the grant: what it refuses, no body could make right. */
const withoutBodyConditions = (entries: readonly Entry[]): readonly Entry[] =>
  entries.map((entry) => ({
    ...entry,
    where: new Map([...entry.where].filter(([name]) => !name.startsWith("body."))),
  }));

/** Asked of the length that is declared, and again of what was read. */
export const findTooLarge = (bytes: number, { config }: Route): Denial | undefined =>
  bytes > config.maxRequestBytes ? { kind: "too-large", reason: "the request's body" } : undefined;

/** The whole call. `body` is complete, or null where it is longer than its first run. */
export function describeWhole(head: RequestHead, body: Uint8Array | null, described: Described): Result<Call, Denial> {
  const facts = describeBody(head, body, described.rules);
  return facts.ok ? ok({ ...described.call, body: facts.value }) : err(absent("describe", facts.error));
}

/** The whole call, and what the grant says of its body. The ceilings are the instance's to ask, in `admit`. */
export function authorizeBody(
  head: RequestHead,
  body: Uint8Array | null,
  grant: Held,
  path: Path,
): Result<{ readonly call: Call; readonly permit: Permit }, Denial> {
  const call = describeWhole(head, body, path);
  if (!call.ok) return call;
  const permitted = path.permit ?? findPermit(grant.entries, call.value);
  return permitted === undefined ? err(NOT_GRANTED) : ok({ call: call.value, permit: permitted });
}

const NO_RULES: RuleFacts = { query: false, body: false };

function rulesOf(entries: readonly Entry[], upstream: string): RuleFacts {
  const needed = factsNeeded(entries.filter((entry) => entry.upstream === upstream));
  return { query: needed.query.size > 0, body: needed.body };
}

const ceilings = new WeakMap<object, Map<string, RuleFacts>>();

/** Fixed for a configuration, so answered once for each upstream. */
function rulesOfCeilings(config: Config, upstream: string): RuleFacts {
  let known = ceilings.get(config);
  if (known === undefined) {
    known = new Map();
    ceilings.set(config, known);
  }
  let rules = known.get(upstream);
  if (rules === undefined) {
    const entries = [
      ...config.boundaries,
      ...Object.values(config.agents).flatMap((agent) => agent.ceiling),
      ...Object.values(config.entitlements).flatMap((layer) => Object.values(layer).flat()),
    ];
    rules = rulesOf(entries, upstream);
    known.set(upstream, rules);
  }
  return rules;
}
