// An upstream that does whatever a test says, and is the witness of what really reached it: it believes only the socket.

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { closeServer, listenOnLoopback, loopback } from "../../scripts/local/ports.ts";

/** One request as it came in. What can change grows while it runs. */
export interface Seen {
  readonly method: string;
  /** Path and query, exactly as on the request line. */
  readonly target: string;
  readonly headers: IncomingMessage["headers"];
  readonly rawHeaders: readonly string[];
  /** When its head was here. */
  readonly atMs: number;
  readonly chunks: Buffer[];
  bytesIn: number;
  /** When the last byte of its body came; 0: none did. */
  lastByteAtMs: number;
  /** All of the body came, by its framing. */
  isWhole: boolean;
  /** The connection was closed before the whole of the body came, or before the answer's end. */
  isBrokenOff: boolean;
  brokenOffAtMs: number;
  /** When the exchange was over, for whatever reason; 0: it runs. */
  closedAtMs: number;
}

export type Behaviour = (request: IncomingMessage, answer: ServerResponse, seen: Seen) => void;

export interface HostileUpstream {
  readonly baseUrl: string;
  /** What `path`, without its query, does from now on. Others read the whole body and say `{"ok":true}`. */
  on(path: string, behaviour: Behaviour): void;
  /** Oldest first. */
  requests(path?: string): readonly Seen[];
  /** The first request on this path for which it holds, now or within `timeoutMs`; else it throws. */
  until(path: string, holds?: (seen: Seen) => boolean, timeoutMs?: number): Promise<Seen>;
  close(): Promise<void>;
}

export async function startHostileUpstream(): Promise<HostileUpstream> {
  const behaviours = new Map<string, Behaviour>();
  const all: Seen[] = [];
  const pathOf = (target: string) => target.split("?")[0] ?? "";
  const requests = (path?: string) => all.filter(({ target }) => path === undefined || pathOf(target) === path);

  const server = createServer({ keepAliveTimeout: 75_000 }, (request, answer) => {
    const seen: Seen = {
      method: request.method ?? "",
      target: request.url ?? "",
      headers: request.headers,
      rawHeaders: request.rawHeaders,
      atMs: Date.now(),
      chunks: [],
      bytesIn: 0,
      lastByteAtMs: 0,
      isWhole: false,
      isBrokenOff: false,
      brokenOffAtMs: 0,
      closedAtMs: 0,
    };
    all.push(seen);
    request.on("data", (chunk: Buffer) => {
      seen.chunks.push(chunk);
      seen.bytesIn += chunk.length;
      seen.lastByteAtMs = Date.now();
    });
    request.on("end", () => {
      seen.isWhole = request.complete;
    });
    request.on("error", () => {});
    answer.on("error", () => {});
    answer.on("close", () => {
      seen.closedAtMs = Date.now();
      if (answer.writableFinished && seen.isWhole) return;
      seen.isBrokenOff = true;
      seen.brokenOffAtMs = Date.now();
    });
    (behaviours.get(pathOf(seen.target)) ?? answerOk)(request, answer, seen);
  });
  const baseUrl = `http://${loopback}:${await listenOnLoopback(server, 0)}`;
  return {
    baseUrl,
    on: (path, behaviour) => void behaviours.set(path, behaviour),
    requests,
    until: async (path, holds = () => true, timeoutMs = 20_000) => {
      for (const endMs = Date.now() + timeoutMs; Date.now() < endMs; await pause(5)) {
        const found = requests(path).find(holds);
        if (found !== undefined) return found;
      }
      throw new Error(`nothing like it reached ${path} within ${timeoutMs} ms`);
    },
    close: () => closeServer(server),
  };
}

export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** The body that was received. */
export const bodyOf = (seen: Seen): Buffer => Buffer.concat(seen.chunks);

const answerOk: Behaviour = (request, answer) => {
  request.on("end", () => {
    const body = '{"ok":true}';
    answer.writeHead(200, { "content-type": "application/json", "content-length": body.length }).end(body);
  });
};

/** Answers whole, of a declared length, when the body has come. */
export const answerWith =
  (status: number, headers: Readonly<Record<string, string | readonly string[]>>, body: Buffer | string): Behaviour =>
  (request, answer) => {
    request.on("end", () => {
      answer.writeHead(status, { "content-length": Buffer.byteLength(body), ...(headers as Record<string, string>) });
      answer.end(body);
    });
  };
