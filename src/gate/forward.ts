import type { UpstreamConfig } from "../config/define.ts";
import { takesRanges, withoutRanges } from "../config/ranges.ts";
import type { Deployment } from "../deployment.ts";
import { type Credential, type CredentialPlan, takeCredential } from "../upstream/credential.ts";
import { fetchOutbound } from "../upstream/outbound.ts";
import type { Admitted } from "./admit.ts";
import { guardedDelegation, type SignedDelegation } from "./delegation.ts";
import type { Guarded } from "./echo-scan.ts";
import { forwardedHeaders, type HeaderList } from "./headers.ts";
import { type RequestBody, readNextRun } from "./request-body.ts";

export interface Forwarding {
  readonly credential: CredentialPlan;
  readonly upstream: UpstreamConfig;
  readonly method: string;
  /** The path below the upstream and the query, as they were sent. */
  readonly rawTarget: string;
  /** As on record: what is not there can't leave either. */
  readonly headers: HeaderList;
  readonly body: RequestBody;
  readonly declaredBytes: number | null;
  /** Null: the upstream wants none. */
  readonly delegation: SignedDelegation | null;
}

export interface Forwarded {
  /** Null: the upstream gave no answer; `call.stop.reason` says why, or it failed. */
  readonly response: Response | null;
  /** How much of the request was handed to the connection, read when the call is settled. Of a connection that broke, less may have left. */
  readonly sent: Sent;
  /** What was sent that the answer must not hold. */
  readonly guarded: readonly Guarded[];
}

/** Filled as it goes. */
export interface Sent {
  bytes: number;
  lastAtMs: number | null;
}

/**
 * Sends an admitted call on: the URL rebuilt from the configured base and the agent's own encoding, the body's bytes
 * as they came, the agent's headers without what it may not say, and the upstream's credential.
 */
export async function forward(call: Admitted, request: Forwarding, deployment: Deployment): Promise<Forwarded> {
  const { upstream, body } = request;
  const sent: Sent = { bytes: 0, lastAtMs: null };
  let isAnswered = false;
  /** The upstream has this long to say something, counted from when it was last told something. */
  const awaitAnswer = (): void => {
    if (!isAnswered) call.stop.allow(upstream.firstByteTimeoutMs, { kind: "timeout", what: "first byte" });
  };
  // From here on: what it waited before, for a person's approval among others, is not the upstream's.
  call.stop.allowTotal(Date.now() + upstream.totalTimeoutMs);
  awaitAnswer();
  try {
    const credential = await credentialOf(call, request, deployment);
    // Nothing leaves while nobody could stop it.
    while (!call.lease.isHeld && call.stop.reason === null) await call.stop.orStopped(call.lease.holding());
    if (credential === null || call.stop.reason !== null) return { response: null, sent, guarded: [] };
    const { delegation } = request;
    const said = takesRanges(upstream) ? request.headers : withoutRanges(request.headers);
    const headers = forwardedHeaders(said, upstream.forwardHeaders, delegation?.header);
    if (delegation !== null) headers.set(delegation.header, delegation.token);
    const url = credential.place(upstream.baseUrl + request.rawTarget, headers);
    const init: RequestInit = { method: request.method, headers, signal: call.stop.signal };
    if (body.rest !== null) {
      call.listen();
      const stream = declared(request.declaredBytes);
      init.body = stream.readable;
      const long = { first: body.first, rest: body.rest, maxBytes: upstream.maxRequestBytes };
      void sendLongBody(call, stream.writable, long, sent, awaitAnswer);
    } else if (body.first.length > 0) {
      init.body = body.first;
      sent.bytes = body.first.length;
      sent.lastAtMs = Date.now();
    }
    const response = await fetchOutbound(url, init);
    isAnswered = true;
    if (response.status === 401) credential.reject();
    return { response, sent, guarded: guardedOf(credential, delegation) };
  } catch {
    // Whatever it says (a host, a certificate, a credential in a URL) is nobody's business outside.
    return { response: null, sent, guarded: [] };
  }
}

function guardedOf({ needles }: Credential, delegation: SignedDelegation | null): readonly Guarded[] {
  const own: readonly Guarded[] = needles === null ? [] : [{ what: "credential", needles }];
  return delegation === null ? own : [...own, guardedDelegation(delegation)];
}

/** Null: the call is stopped, because there is none or for another reason. */
async function credentialOf(
  { stop, delegation }: Admitted,
  { credential }: Forwarding,
  deployment: Deployment,
): Promise<Credential | null> {
  const taken = await stop.orStopped(takeCredential(credential, deployment, delegation));
  if (taken === undefined) return null;
  if (taken.ok) return taken.value;
  stop.stop({ kind: "no-credential", reason: taken.error });
  return null;
}

const declared = (bytes: number | null): { readable: ReadableStream; writable: WritableStream } =>
  bytes === null ? new IdentityTransformStream() : new FixedLengthStream(bytes);

/**
 * INVARIANT: every run is durable in the transcript before a byte of it is written to the upstream; and a body that did
 * not come whole is broken off, so that the upstream can't take its part for the whole. Never rejects.
 */
async function sendLongBody(
  { stop, lease }: Admitted,
  writable: WritableStream,
  body: { readonly first: Uint8Array; readonly rest: ReadableStreamBYOBReader; readonly maxBytes: number },
  sent: Sent,
  moved: () => void,
): Promise<void> {
  const writer = writable.getWriter();
  /** Null at the end, and where the agent vanished: then the call is stopped. */
  const read = async (): Promise<Uint8Array | null> => {
    try {
      return await readNextRun(body.rest);
    } catch {
      stop.stop({ kind: "client-gone" });
      return null;
    }
  };
  const write = async (run: Uint8Array): Promise<void> => {
    // Counted first: of a write that is broken off, nobody knows how much has left.
    sent.bytes += run.byteLength;
    sent.lastAtMs = Date.now();
    await stop.orStopped(writer.write(run));
    moved();
  };
  try {
    let total = body.first.byteLength;
    await write(body.first);
    let next = await read();
    while (stop.reason === null) {
      const following = next === null ? null : await read();
      const run = next ?? new Uint8Array(0);
      total += run.byteLength;
      if (total > body.maxBytes) stop.stop({ kind: "too-large", reason: "the request's body" });
      if (stop.reason !== null || !(await isDurable(run, following === null))) break;
      if (run.byteLength > 0) await write(run);
      if (following === null) return await writer.close();
      next = following;
    }
    await writer.abort("stopped");
  } catch {
    // The upstream takes no more: it may have answered already, and what its connection came to says the rest.
    await writer.abort("broken off").catch(() => {});
  }

  async function isDurable(run: Uint8Array, last: boolean): Promise<boolean> {
    return lease.appendRequest(run, last);
  }
}
