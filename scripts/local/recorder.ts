// A reverse proxy that stands in front of an upstream and keeps what really arrived there: it is the witness of the tour and
// the tests, so it believes only the socket. It streams both ways with back-pressure and never touches a body.

import {
  createServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  request as openRequest,
  type ServerResponse,
} from "node:http";
import { closeServer, listenOnLoopback, loopback } from "./ports.ts";

/** One request as the upstream saw it. The mutable half grows while the request runs. Times are `Date.now()`. */
export interface RecordedRequest {
  readonly id: number;
  readonly method: string;
  /** Path and query, exactly as on the request line. */
  readonly target: string;
  /** As received, lower-case names; `host` is the one the caller sent. */
  readonly headers: IncomingHttpHeaders;
  readonly authorization: string | undefined;
  readonly startedAtMs: number;
  /** Request body bytes received so far. */
  bytesIn: number;
  /** The first `maxBodyBytes` of the request body. */
  readonly body: Buffer;
  status: number | undefined;
  /** Answer body bytes passed to the caller so far. */
  bytesOut: number;
  lastByteAtMs: number | undefined;
  endedAtMs: number | undefined;
  /** The caller closed the connection before the whole answer was written. */
  closedEarly: boolean;
  /** The upstream broke off, so the caller got less than a whole answer through no doing of its own. */
  upstreamFailed: boolean;
}

export interface Recorder {
  /** What the gate is configured with: an origin without a trailing slash. */
  readonly baseUrl: string;
  /** Sends requests on to this origin. Before the first call everything is answered with 503. */
  pointAt(origin: string): void;
  /** Oldest first; only the newest `maxRequests` are kept. */
  requests(): readonly RecordedRequest[];
  /** The first recorded request for which the predicate holds, now or within `timeoutMs` (default 5 s); else it throws. */
  until(predicate: (request: RecordedRequest) => boolean, timeoutMs?: number): Promise<RecordedRequest>;
  /** Forgets what was recorded. Requests under way are no longer listed. */
  clear(): void;
  close(): Promise<void>;
}

/** What each upstream module returns: a recorder whose target is its own to choose. */
export type RecordedUpstream = Omit<Recorder, "pointAt">;

const maxRequests = 10_000;
const maxBodyBytes = 1024 * 1024;
const idleConnectionMs = 75_000; // Longer than the caller's own pool keeps a connection, so that the caller is the one to drop it.

// RFC 9110 §7.6.1, and `expect`, which node:http has already answered. `transfer-encoding` is treated per direction below.
const hopByHop = new Set(["connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"]);
const absoluteUrlHeaders = new Set(["link", "location", "content-location"]);

/** Starts a recorder on 127.0.0.1; port 0 takes any free one. */
export async function startRecorder(port = 0): Promise<Recorder> {
  let targetOrigin: string | undefined;
  let records: RecordedRequest[] = [];
  let lastId = 0;
  const watchers = new Set<{ changed(): void; closed(): void }>();
  const changed = () => {
    for (const watcher of watchers) watcher.changed();
  };

  const server = createServer((incoming, outgoing) => {
    if (targetOrigin === undefined) {
      outgoing.writeHead(503).end();
      return;
    }
    lastId += 1;
    const record = beginRecord(lastId, incoming, changed);
    records.push(record);
    if (records.length > maxRequests) records.shift();
    changed();
    relay({ record, incoming, outgoing, targetOrigin, publicOrigin: baseUrl, changed });
  });
  server.keepAliveTimeout = idleConnectionMs;
  const baseUrl = `http://${loopback}:${await listenOnLoopback(server, port)}`;

  return {
    baseUrl,
    pointAt: (origin) => {
      targetOrigin = new URL(origin).origin;
    },
    requests: () => [...records],
    clear: () => {
      records = [];
    },
    until: (predicate, timeoutMs = 5_000) =>
      new Promise((resolve, reject) => {
        const finish = (settle: () => void) => {
          watchers.delete(watcher);
          clearTimeout(timer);
          settle();
        };
        const watcher = {
          changed: () => {
            const found = records.find(predicate);
            if (found) finish(() => resolve(found));
          },
          closed: () => finish(() => reject(new Error("the recorder was closed while somebody waited on it"))),
        };
        const timer = setTimeout(
          () => finish(() => reject(new Error(`no recorded request fits within ${timeoutMs} ms`))),
          timeoutMs,
        );
        watchers.add(watcher);
        watcher.changed();
      }),
    close: async () => {
      await closeServer(server);
      for (const watcher of watchers) watcher.closed();
    },
  };
}

function beginRecord(id: number, incoming: IncomingMessage, changed: () => void): RecordedRequest {
  const chunks: Buffer[] = [];
  const record: RecordedRequest = {
    id,
    method: incoming.method ?? "",
    target: incoming.url ?? "",
    headers: incoming.headers,
    authorization: incoming.headers.authorization,
    startedAtMs: Date.now(),
    bytesIn: 0,
    get body() {
      return Buffer.concat(chunks).subarray(0, maxBodyBytes);
    },
    status: undefined,
    bytesOut: 0,
    lastByteAtMs: undefined,
    endedAtMs: undefined,
    closedEarly: false,
    upstreamFailed: false,
  };
  incoming.on("data", (chunk: Buffer) => {
    if (record.bytesIn < maxBodyBytes) chunks.push(chunk);
    record.bytesIn += chunk.byteLength;
    changed();
  });
  return record;
}

interface Exchange {
  readonly record: RecordedRequest;
  readonly incoming: IncomingMessage;
  readonly outgoing: ServerResponse;
  readonly targetOrigin: string;
  readonly publicOrigin: string;
  readonly changed: () => void;
}

function relay({ record, incoming, outgoing, targetOrigin, publicOrigin, changed }: Exchange): void {
  const target = new URL(targetOrigin);
  const upstream = openRequest({
    host: target.hostname,
    port: target.port,
    method: incoming.method,
    path: incoming.url,
    headers: requestHeaders(incoming.headers, new URL(publicOrigin).host),
    agent: false, // A fresh connection each: no race with the upstream dropping an idle one.
  });

  incoming.pipe(upstream);

  upstream.on("response", (answer) => {
    record.status = answer.statusCode;
    outgoing.writeHead(
      answer.statusCode ?? 502,
      answer.statusMessage,
      answerHeaders(answer.rawHeaders, targetOrigin, publicOrigin),
    );
    outgoing.flushHeaders();
    changed();
    answer.on("data", (chunk: Buffer) => {
      record.bytesOut += chunk.byteLength;
      record.lastByteAtMs = Date.now();
      changed();
    });
    answer.on("error", () => {
      record.upstreamFailed = !outgoing.destroyed;
      outgoing.destroy();
    });
    answer.pipe(outgoing);
  });

  upstream.on("error", () => {
    if (outgoing.destroyed || outgoing.headersSent) return;
    record.upstreamFailed = true;
    record.status = 502;
    outgoing.writeHead(502).end();
  });

  outgoing.on("close", () => {
    record.endedAtMs = Date.now();
    record.closedEarly = !outgoing.writableFinished && !record.upstreamFailed;
    upstream.destroy();
    changed();
  });
}

// The upstream builds absolute URLs from Host, so it is told the name it is known by, whatever the caller called it.
function requestHeaders(received: IncomingHttpHeaders, host: string): IncomingHttpHeaders {
  const kept = Object.entries(received).filter(([name]) => !hopByHop.has(name));
  return { ...Object.fromEntries(kept), host };
}

// `transfer-encoding` goes too: node:http frames the answer anew. Repeated fields stay repeated.
function answerHeaders(raw: readonly string[], targetOrigin: string, publicOrigin: string): string[] {
  const kept: string[] = [];
  for (let index = 0; index + 1 < raw.length; index += 2) {
    const name = raw[index] as string;
    const value = raw[index + 1] as string;
    const lower = name.toLowerCase();
    if (hopByHop.has(lower) || lower === "transfer-encoding") continue;
    kept.push(name, absoluteUrlHeaders.has(lower) ? value.replaceAll(targetOrigin, publicOrigin) : value);
  }
  return kept;
}
