// One call of the child: to the gate with grant and proof, and its answer back, run by run. By `node:http`, since a URL parser
// (and so fetch) would resolve `..` and could alter the path that the child has written.

import { Agent, type ClientRequest, type IncomingMessage, request as openPlain, type ServerResponse } from "node:http";
import { request as openTls, Agent as TlsAgent } from "node:https";
import type { HeldGrant } from "../../src/agent/held-grant.ts";
import { headersForChild, headersForGate } from "./headers.ts";

/**
 * What an answer tells of the instance. `refused`: 401 about the grant itself (RFC 6750 §3.1), for which a kill is one of the reasons;
 * `unproven`: 401 about the proof; `unknown`: any other error, which may be the gate's or the upstream's.
 */
export type Verdict = "admitted" | "refused" | "unproven" | "unknown";

export interface RelayOptions {
  readonly grant: HeldGrant;
  readonly onVerdict: (verdict: Verdict) => void;
}

export interface Relay {
  /** `local`: this side's origin, as the child calls it. */
  pass(request: IncomingMessage, response: ServerResponse, local: string): void;
  close(): void;
}

interface Call {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly local: string;
}

const HEADER_MAX_BYTES = 65_536;
const PROBLEM = {
  400: "Bad Request",
  403: "Forbidden",
  404: "Not Found",
  501: "Not Implemented",
  502: "Bad Gateway",
} as const;

export function createRelay({ grant, onVerdict }: RelayOptions): Relay {
  const gate = new URL(grant.origin);
  const isTls = gate.protocol === "https:";
  const connections = isTls ? new TlsAgent({ keepAlive: true }) : new Agent({ keepAlive: true });
  const open = isTls ? openTls : openPlain;

  async function pass(call: Call, isSecondTry = false): Promise<void> {
    const { request, response, local } = call;
    const { method = "GET", url: target = "" } = request;
    const shown = await grant.authorize(method, grant.origin + target);
    // It may have left in the meantime.
    if (response.destroyed) return;
    const outgoing = open({
      agent: connections,
      host: gate.hostname.replace(/^\[|\]$/g, ""),
      port: gate.port === "" ? (isTls ? 443 : 80) : gate.port,
      method,
      path: target,
      headers: { ...headersForGate(request.rawHeaders, gate.host), ...shown },
      maxHeaderSize: HEADER_MAX_BYTES,
    });
    let isAnswered = false;
    outgoing.on("response", (answer) => {
      isAnswered = true;
      onVerdict(verdictOn(answer));
      answerWith(answer, response, headersForChild(answer.rawHeaders, grant.origin, local));
    });
    outgoing.on("error", () => {
      // After an answer has begun, its own end tells.
      if (isAnswered || response.destroyed) return;
      // A connection that the gate had just closed: it has seen nothing of this.
      if (outgoing.reusedSocket && !isSecondTry && isSafe(request)) void again(call);
      else problem(response, 502, "no answer came from the gate");
    });
    // Of a body that nobody takes any more the rest is let go, so that the child comes to read its answer.
    outgoing.on("close", () => request.unpipe(outgoing).resume());
    response.on("close", () => {
      if (!response.writableFinished) outgoing.destroy();
    });
    sendBody(request, outgoing);
  }

  const again = (call: Call): Promise<void> => pass(call, true).catch(() => void call.response.destroy());

  return {
    pass: (request, response, local) => {
      // Absolute forms, `*`, and what RFC 3986 has no place for: it would be rewritten on the way, and the proof be one for something else.
      if (!/^\/[\x21-\x7e]*$/.test(request.url ?? "") || request.url?.includes("#"))
        problem(response, 400, "the path can't be passed on as it is");
      // RFC 9112 §6.1. Passed on without its coding's name, the body would be taken for something else.
      else if ((request.headers["transfer-encoding"] ?? "chunked").toLowerCase() !== "chunked")
        problem(response, 501, "no transfer coding but chunked is passed on");
      else pass({ request, response, local }).catch(() => response.destroy());
    },
    close: () => connections.destroy(),
  };
}

const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers["content-length"] !== undefined || headers["transfer-encoding"] !== undefined;

/** Nothing is done twice by asking twice (RFC 9110 §9.2.1). */
const isSafe = (request: IncomingMessage): boolean =>
  (request.method === "GET" || request.method === "HEAD") && !hasBody(request);

/** `pipe` holds the child back while the gate takes no more. A body that did not come whole must not look whole. */
function sendBody(request: IncomingMessage, outgoing: ClientRequest): void {
  if (!hasBody(request)) {
    outgoing.end();
    return;
  }
  request.on("close", () => {
    if (!request.complete) outgoing.destroy();
  });
  request.on("error", () => outgoing.destroy());
  request.pipe(outgoing);
}

function answerWith(answer: IncomingMessage, response: ServerResponse, headers: string[]): void {
  response.sendDate = false;
  response.writeHead(answer.statusCode ?? 502, answer.statusMessage ?? "", headers);
  // At once: whoever waits for an event stream must see that it has begun.
  response.flushHeaders();
  answer.on("error", () => {});
  answer.on("close", () => {
    if (!answer.complete) breakOff(response, answer.headers["content-length"] !== undefined);
  });
  answer.pipe(response);
}

/** INVARIANT: what the gate has cut is never ended properly. Without framing a reset alone tells that it was not the end. */
function breakOff(response: ServerResponse, isDeclared: boolean): void {
  if (isDeclared || response.chunkedEncoding) response.destroy();
  else response.socket?.resetAndDestroy();
}

const verdictOn = ({ statusCode, headers }: IncomingMessage): Verdict => {
  // An upstream's own 401 never comes here: the gate answers 502 for it.
  if (statusCode !== 401) return statusCode !== undefined && statusCode < 400 ? "admitted" : "unknown";
  const challenge = headers["www-authenticate"] ?? "";
  return /error="invalid_token"/.test(challenge) ? "refused" : "unproven";
};

/** RFC 9457. The sidecar's reader is its own child's developer, so it says what is wrong. */
export function problem(response: ServerResponse, status: keyof typeof PROBLEM, detail: string): void {
  const body = JSON.stringify({
    type: "about:blank",
    title: PROBLEM[status],
    status,
    detail: `portcullis agent: ${detail}`,
  });
  response
    .writeHead(status, {
      "content-type": "application/problem+json",
      "content-length": Buffer.byteLength(body),
      "cache-control": "no-store",
    })
    .end(body);
}
