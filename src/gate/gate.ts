import type { UpstreamConfig } from "../config/define.ts";
import { absent, type Denial, unavailable } from "../denial.ts";
import type { Deployment } from "../deployment.ts";
import { type Grant, resourceOf } from "../grant/claims.ts";
import type { RecordedRequest } from "../instance/contract.ts";
import { err, ok, type Result } from "../result.ts";
import type { Call } from "../scope/call.ts";
import { factsNeeded, findPermit, type Permit } from "../scope/decide.ts";
import type { Entry } from "../scope/entry.ts";
import { type CredentialPlan, hiddenParameterOf, planCredential } from "../upstream/credential.ts";
import { type Admitted, admit } from "./admit.ts";
import { answerTo } from "./answer.ts";
import { authenticate } from "./authenticate.ts";
import { type CallRedaction, redactionFor, type SentRequest } from "./call-redaction.ts";
import { describeBody, describeHead, type RequestHead, type RuleFacts } from "./describe.ts";
import { forward } from "./forward.ts";
import { declaredLength, type HeaderList, recordedHeaders } from "./headers.ts";
import { type Relayed, relay } from "./relay.ts";
import { type RequestBody, readRequestBody } from "./request-body.ts";
import { parseTarget, type Target } from "./target.ts";

const NO_BODY: RequestBody = { first: new Uint8Array(0), rest: null };

/** The way of a call, top to bottom. Whatever is not permitted on the way is refused; nothing is skipped. */
export async function gate(request: Request, deployment: Deployment, ctx: ExecutionContext): Promise<Response> {
  const { config } = deployment;
  const startedAtMs = Date.now();
  const refuse = (denial: Denial): Response => answerTo(denial, config.origin);

  // 1. authenticate: who holds which grant. Stateless, and blind to what the path leads to.
  const target = parseTarget(request.url);
  const authenticated = await authenticate(request, {
    origin: config.origin,
    grantKeys: deployment.grantKeys,
    rawPath: target.rawPath,
    nowMs: startedAtMs,
  });
  if (!authenticated.ok) return refuse(authenticated.error);
  const { grant, proof } = authenticated.value;

  // 2. to 4. route, describe, authorize: what is asked for, and whether the grant holds it. A body is read only for what
  // passed so far. From here on a refusal is put on record by the instance, which also knows what must be said first (a
  // replay, a switch).
  const head: RequestHead = { target, method: request.method, headers: request.headers };
  const path = authorizeHead(head, request.body !== null, grant, deployment);
  const body = path.ok && request.body !== null ? await readBody(request.body, head, path.value.route) : ok(NO_BODY);
  const authorized = !path.ok ? path : !body.ok ? body : authorizeBody(head, body.value, grant, path.value);
  const sent = body.ok ? body.value : NO_BODY;

  // What no rule lets be written down does not reach the instance; what can't be redacted does not go on.
  const headers = recordedHeaders(request.headers);
  const redaction = redactionFor(config, target.upstream, path.ok ? path.value.call : null);
  const { request: recorded, fault } = record(redaction, {
    method: request.method,
    target: target.rawPath + target.rawQuery,
    headers,
    // A refusal records no body: what is not permitted need not travel.
    body: authorized.ok ? sent.first : null,
    bodyFollows: authorized.ok && sent.rest !== null,
  });
  const call = authorized.ok && fault !== null ? err(absent("describe", fault)) : authorized;

  // 5. admit: one RPC. The call is durable before anything leaves, or it is refused.
  const admitted = await admit(deployment, grant, {
    proof: { jti: proof.jti, issuedAtMs: proof.issuedAtMs },
    call: call.ok ? call.value.call : null,
    denial: call.ok ? null : call.error,
    request: recorded,
    ...(call.ok ? { permit: call.value.permit } : {}),
  });
  if (!admitted.ok) return refuse(admitted.error);
  // The instance admits only what came here permitted.
  if (!path.ok || !call.ok) throw new Error("admitted what was refused");

  // 6. forward, 7. relay, 8. settle: out with our credential, back by hand, and the last byte when all is on record.
  const { stop } = admitted.value;
  if (request.signal.aborted) stop.stop({ kind: "client-gone" });
  else request.signal.addEventListener("abort", () => stop.stop({ kind: "client-gone" }));
  const passing = pass(admitted.value, {
    request,
    rawTarget: target.rawRest + target.rawQuery,
    headers,
    body: sent,
    grant,
    upstream: path.value.route.config,
    credential: path.value.plan,
    redaction,
    startedAtMs,
    deployment,
    ctx,
  });
  // An agent that goes away would else take this Worker along before the call is settled.
  ctx.waitUntil(passing);
  const relayed = await passing;
  return relayed.ok ? relayed.response : refuse(relayed.denial);
}

const record = (redaction: CallRedaction | null, sent: SentRequest): Recorded =>
  redaction === null
    ? { request: { ...sent, body: sent.body ?? NO_BODY.first }, fault: null }
    : redaction.recordRequest(sent);

interface Recorded {
  readonly request: RecordedRequest;
  readonly fault: string | null;
}

interface Passing {
  readonly request: Request;
  /** The path below the upstream and the query, as they were sent. */
  readonly rawTarget: string;
  /** As on record, before redaction. */
  readonly headers: HeaderList;
  readonly body: RequestBody;
  readonly grant: Grant;
  readonly upstream: UpstreamConfig;
  readonly credential: CredentialPlan;
  readonly redaction: CallRedaction | null;
  readonly startedAtMs: number;
  readonly deployment: Deployment;
  readonly ctx: ExecutionContext;
}

async function pass(call: Admitted, passing: Passing): Promise<Relayed> {
  const { request, rawTarget, headers, body, grant, upstream, credential } = passing;
  const { redaction, startedAtMs, deployment, ctx } = passing;
  const { method } = request;
  const declaredBytes = declaredLength(request.headers);
  const asked = { upstream, credential, method, rawTarget, headers, body, declaredBytes, startedAtMs };
  const forwarded = await forward(call, asked, deployment);
  return relay(call, forwarded, {
    upstream,
    lead: deployment.config.transcripts,
    rewriting: {
      origin: deployment.config.origin,
      askedUrl: upstream.baseUrl + rawTarget,
      bases: () => basesOf(grant, deployment),
      hiddenParameter: hiddenParameterOf(upstream),
    },
    redaction,
    isHead: method === "HEAD",
    startedAtMs,
    waitUntil: (work) => ctx.waitUntil(work),
  });
}

interface Route {
  readonly name: string;
  readonly config: UpstreamConfig;
}

/** An upstream that is configured, and whose resource URL is in the grant's `aud`. */
function routeTo(target: Target, grant: Grant, { config }: Deployment): Result<Route, Denial> {
  const { upstream: name } = target;
  const upstream = Object.hasOwn(config.upstreams, name) ? config.upstreams[name] : undefined;
  if (upstream === undefined) return err(absent("route", "no such upstream"));
  if (!grant.audiences.includes(resourceOf(config.origin, name))) return err(absent("route", "not in the grant's aud"));
  return ok({ name, config: upstream });
}

/** A call whose body is still to be read, and what the rules want to know of it. */
interface Path {
  readonly route: Route;
  readonly call: Omit<Call, "body">;
  readonly rules: RuleFacts;
  /** By what the grant allows it whatever the body; null: it is asked again when the body is known. */
  readonly permit: Permit | null;
  readonly plan: CredentialPlan;
}

const NOT_GRANTED = absent("grant", "not within the grant");

/** `routeTo`, `describe`, and the grant's own scope as far as it can be asked without the body. */
function authorizeHead(
  head: RequestHead,
  hasBody: boolean,
  grant: Grant,
  deployment: Deployment,
): Result<Path, Denial> {
  const found = routeTo(head.target, grant, deployment);
  if (!found.ok) return found;
  const { name, config } = found.value;
  const described = describeHead(head, { upstream: name, encodedSlash: config.encodedSlash });
  if (!described.ok) return err(absent("describe", described.error));
  const own = hasBody ? rulesOf(grant.entries, name) : NO_RULES;
  const others = hasBody ? rulesOfCeilings(deployment, name) : NO_RULES;
  // A form's field of that name could take the place of a credential in the query.
  const query = own.query || others.query || hiddenParameterOf(config) !== null;
  const rules = { query, body: own.body || others.body };
  const asked: Call = { ...described.value, body: { kind: hasBody ? "opaque" : "none" } };
  const entries = own.body ? withoutBodyConditions(grant.entries) : grant.entries;
  const permit = findPermit(entries, asked);
  if (permit === undefined) return err(NOT_GRANTED);
  const plan = planCredential(name, config, { call: described.value, entries: grant.entries });
  if (!plan.ok) return err(absent("grant", plan.error));
  const known = own.body ? null : permit;
  return ok({ route: found.value, call: described.value, rules, permit: known, plan: plan.value });
}

/** Wider than the grant: what it refuses, no body could make right. */
const withoutBodyConditions = (entries: readonly Entry[]): readonly Entry[] =>
  entries.map((entry) => ({
    ...entry,
    where: new Map([...entry.where].filter(([name]) => !name.startsWith("body."))),
  }));

async function readBody(
  stream: ReadableStream,
  { headers }: RequestHead,
  { config }: Route,
): Promise<Result<RequestBody, Denial>> {
  const tooLarge: Denial = { kind: "too-large", reason: "the request's body" };
  const declaredBytes = declaredLength(headers);
  if ((declaredBytes ?? 0) > config.maxRequestBytes) return err(tooLarge);
  const body = await readRequestBody(stream, declaredBytes);
  if (!body.ok) return err(unavailable(body.error));
  return body.value.first.byteLength > config.maxRequestBytes ? err(tooLarge) : body;
}

/** The whole call, and what the grant says of its body. The ceilings are the instance's to ask, in `admit`. */
function authorizeBody(
  head: RequestHead,
  { first, rest }: RequestBody,
  grant: Grant,
  { call, rules, permit }: Path,
): Result<{ readonly call: Call; readonly permit: Permit }, Denial> {
  const body = describeBody(head, rest === null ? first : null, rules);
  if (!body.ok) return err(absent("describe", body.error));
  const whole = { ...call, body: body.value };
  const permitted = permit ?? findPermit(grant.entries, whole);
  return permitted === undefined ? err(NOT_GRANTED) : ok({ call: whole, permit: permitted });
}

const NO_RULES: RuleFacts = { query: false, body: false };

function rulesOf(entries: readonly Entry[], upstream: string): RuleFacts {
  const needed = factsNeeded(entries.filter((entry) => entry.upstream === upstream));
  return { query: needed.query.size > 0, body: needed.body };
}

const ceilings = new WeakMap<object, Map<string, RuleFacts>>();

/** Fixed for a configuration, so answered once for each upstream. */
function rulesOfCeilings({ config }: Deployment, upstream: string): RuleFacts {
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
      ...Object.values(config.entitlements.groups).flat(),
    ];
    rules = rulesOf(entries, upstream);
    known.set(upstream, rules);
  }
  return rules;
}

const basesOf = (grant: Grant, { config }: Deployment): [string, string][] =>
  Object.entries(config.upstreams)
    .filter(([name]) => grant.audiences.includes(resourceOf(config.origin, name)))
    .map(([name, { baseUrl }]) => [name, baseUrl]);
