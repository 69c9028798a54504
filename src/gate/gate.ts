import { hiddenParameterOf } from "../config/credential.ts";
import type { UpstreamConfig } from "../config/define.ts";
import { takesRanges } from "../config/ranges.ts";
import { absent, type Denial, unavailable } from "../denial.ts";
import type { Deployment } from "../deployment.ts";
import { type Grant, resourceOf } from "../grant/claims.ts";
import type { DelegationMark, RecordedRequest } from "../instance/contract.ts";
import { type Metered, meteredOf } from "../metering/charge.ts";
import { err, ok, type Result } from "../result.ts";
import { type CredentialPlan, planCredential } from "../upstream/credential.ts";
import { type Admitted, admit } from "./admit.ts";
import { answerTo } from "./answer.ts";
import { authenticate } from "./authenticate.ts";
import { authorizeBody, authorizeHead, findTooLarge, type Path, type Route } from "./authorize.ts";
import { type CallRedaction, redactionFor, type SentRequest } from "./call-redaction.ts";
import { delegationFor, delegationMark } from "./delegation.ts";
import type { RequestHead } from "./describe.ts";
import { forward } from "./forward.ts";
import { declaredLength, type HeaderList, recordedHeaders } from "./headers.ts";
import { limitHeaders, withLimits } from "./limit-headers.ts";
import { sightingOf } from "./place.ts";
import { type Relayed, relay } from "./relay.ts";
import { type RequestBody, readRequestBody } from "./request-body.ts";
import { parseTarget } from "./target.ts";

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
  const path = withCredential(authorizeHead(head, request.body !== null, grant, config), grant);
  const body = path.ok && request.body !== null ? await readBody(request.body, head, path.value.route) : ok(NO_BODY);
  const authorized = !path.ok ? path : !body.ok ? body : authorizeBody(head, firstRunOf(body.value), grant, path.value);
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

  const delegation = call.ok && path.ok ? delegationMark(path.value.route.config) : undefined;

  // 5. admit: one RPC. The call is durable before anything leaves, or it is refused.
  const asked = {
    proof: { jti: proof.jti, issuedAtMs: proof.issuedAtMs },
    call: call.ok ? call.value.call : null,
    denial: call.ok ? null : call.error,
    request: recorded,
    ...(call.ok ? { permit: call.value.permit } : {}),
    ...(delegation === undefined ? {} : { delegation }),
    sighting: sightingOf(request, startedAtMs),
  };
  const admitted = await admit(deployment, grant, asked, request.signal);
  if (!admitted.ok) return withLimits(refuse(admitted.error.denial), admitted.error.limits);
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
    metered: meteredOf(path.value.route.config, path.value.call),
    credential: path.value.plan,
    redaction,
    delegation,
    startedAtMs,
    deployment,
    ctx,
  });
  // An agent that goes away would else take this Worker along before the call is settled.
  ctx.waitUntil(passing);
  const relayed = await passing;
  if (relayed.ok) return relayed.response;
  const answer = refuse(relayed.denial);
  return answer.status === 429 ? withLimits(answer, admitted.value.limits) : answer;
}

/** Whole, or null where more follows: rules speak of a body that is known to its end. */
const firstRunOf = ({ first, rest }: RequestBody): Uint8Array | null => (rest === null ? first : null);

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
  /** Null: nothing of the call is metered. */
  readonly metered: Metered | null;
  readonly credential: CredentialPlan;
  readonly redaction: CallRedaction | null;
  readonly delegation: DelegationMark | undefined;
  readonly startedAtMs: number;
  readonly deployment: Deployment;
  readonly ctx: ExecutionContext;
}

async function pass(call: Admitted, passing: Passing): Promise<Relayed> {
  const { request, rawTarget, headers, body, grant, upstream, metered, credential } = passing;
  const { redaction, startedAtMs, deployment, ctx } = passing;
  const { method } = request;
  const declaredBytes = declaredLength(request.headers);
  const delegation = delegationFor(call, upstream, passing.delegation, deployment);
  const asked = { upstream, credential, method, rawTarget, headers, body, declaredBytes, delegation };
  const forwarded = await forward(call, asked, deployment);
  return relay(call, forwarded, {
    upstream,
    lead: deployment.config.transcripts,
    rewriting: {
      origin: deployment.config.origin,
      askedUrl: upstream.baseUrl + rawTarget,
      bases: () => basesOf(grant, deployment),
      hiddenParameter: hiddenParameterOf(upstream),
      takesRanges: takesRanges(upstream),
    },
    limitHeaders: limitHeaders(call.limits),
    metered,
    redaction,
    delegation,
    isHead: method === "HEAD",
    startedAtMs,
    waitUntil: (work) => ctx.waitUntil(work),
  });
}

interface Planned extends Path {
  readonly plan: CredentialPlan;
}

/** A call that can't be sent with a credential of its grant is no call of this grant. */
function withCredential(path: Result<Path, Denial>, { entries }: Grant): Result<Planned, Denial> {
  if (!path.ok) return path;
  const { route, call } = path.value;
  const plan = planCredential(route.name, route.config, { call, entries });
  return plan.ok ? ok({ ...path.value, plan: plan.value }) : err(absent("grant", plan.error));
}

async function readBody(
  stream: ReadableStream,
  { headers }: RequestHead,
  route: Route,
): Promise<Result<RequestBody, Denial>> {
  const declaredBytes = declaredLength(headers);
  const declaredTooLarge = findTooLarge(declaredBytes ?? 0, route);
  if (declaredTooLarge !== undefined) return err(declaredTooLarge);
  const body = await readRequestBody(stream, declaredBytes);
  if (!body.ok) return err(unavailable(body.error));
  const tooLarge = findTooLarge(body.value.first.byteLength, route);
  return tooLarge === undefined ? body : err(tooLarge);
}

const basesOf = (grant: Grant, { config }: Deployment): [string, string][] =>
  Object.entries(config.upstreams)
    .filter(([name]) => grant.audiences.includes(resourceOf(config.origin, name)))
    .map(([name, { baseUrl }]) => [name, baseUrl]);
