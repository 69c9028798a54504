import type { UpstreamConfig } from "../config/define.ts";
import type { Env } from "../deployment.ts";
import { injectCredential } from "../upstream/credential.ts";
import { fetchOutbound } from "../upstream/outbound.ts";
import type { Admitted } from "./admit.ts";
import { forwardedHeaders } from "./headers.ts";
import { type RequestBody, readNextRun } from "./request-body.ts";

export interface Forwarding {
  readonly upstream: UpstreamConfig;
  readonly method: string;
  /** The path below the upstream and the query, as they were sent. */
  readonly rawTarget: string;
  readonly headers: Headers;
  readonly headerNames: readonly string[];
  readonly body: RequestBody;
  readonly declaredBytes: number | null;
}

export interface Forwarded {
  /** Null: the upstream gave no answer; `call.stop.reason` says why, or it failed. */
  readonly response: Response | null;
  /** How much of the request went out, read when the call is settled. */
  readonly sent: { bytes: number };
}

/**
 * Sends an admitted call on: the URL rebuilt from the configured base and the agent's own encoding, the body's bytes
 * as they came, the agent's headers without what it may not say, and the upstream's credential.
 */
export async function forward(call: Admitted, request: Forwarding, env: Env): Promise<Forwarded> {
  const { upstream, body } = request;
  const headers = forwardedHeaders(request.headers, request.headerNames);
  injectCredential(headers, upstream, env);
  const sent = { bytes: 0 };
  call.stop.allow(upstream.firstByteTimeoutMs, { kind: "timeout", what: "first byte" });
  try {
    const init: RequestInit = { method: request.method, headers, signal: call.stop.signal };
    if (body.rest !== null) {
      const stream = declared(request.declaredBytes);
      init.body = stream.readable;
      sendLongBody(call, stream.writable, { first: body.first, rest: body.rest }, sent, upstream).catch(() => {});
    } else if (body.first.length > 0) {
      init.body = body.first;
      sent.bytes = body.first.length;
    }
    if (call.stop.reason !== null) return { response: null, sent: { bytes: 0 } };
    return { response: await fetchOutbound(upstream.baseUrl + request.rawTarget, init), sent };
  } catch {
    // Whatever it says (a host, a certificate, a credential in a URL) is nobody's business outside.
    return { response: null, sent };
  }
}

const declared = (bytes: number | null): { readable: ReadableStream; writable: WritableStream } =>
  bytes === null ? new IdentityTransformStream() : new FixedLengthStream(bytes);

/** INVARIANT: every run is durable in the transcript before a byte of it is written to the upstream. */
async function sendLongBody(
  call: Admitted,
  writable: WritableStream,
  body: { readonly first: Uint8Array; readonly rest: ReadableStreamBYOBReader },
  sent: { bytes: number },
  upstream: UpstreamConfig,
): Promise<void> {
  const writer = writable.getWriter();
  const pass = async (run: Uint8Array): Promise<void> => {
    await Promise.race([writer.write(run), call.stop.stopped]);
    if (call.stop.reason === null) sent.bytes += run.byteLength;
  };
  try {
    await pass(body.first);
    let total = body.first.byteLength;
    let next = await readNextRun(body.rest);
    while (call.stop.reason === null) {
      const following = next === null ? null : await readNextRun(body.rest);
      const run = next ?? new Uint8Array(0);
      total += run.byteLength;
      if (total > upstream.maxRequestBytes) call.stop.stop({ kind: "too-large", reason: "the request's body" });
      if (call.stop.reason !== null || !(await call.lease.appendRequest(run, following === null))) break;
      if (run.byteLength > 0) await pass(run);
      if (following === null) {
        await writer.close();
        return;
      }
      next = following;
    }
    await writer.abort("stopped");
  } catch (error) {
    // The agent vanished in the middle of its body: the upstream must not take the rest for the whole.
    call.stop.stop({ kind: "client-gone" });
    await writer.abort("client gone").catch(() => {});
    throw error;
  }
}
