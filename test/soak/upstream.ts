// The upstream, and the witness: what reached it, byte for byte, and each put that was tried.

import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { gzipSync } from "node:zlib";
import { closeServer, listenOnLoopback, loopback } from "../../scripts/local/ports.ts";
import type { PutReport } from "./bucket-faults.ts";
import { ANSWERS, type AnswerKind, answerBody } from "./content.ts";

/** One request that reached it. What can change grows while it runs. */
export interface Arrival {
  readonly call: number;
  readonly method: string;
  readonly atMs: number;
  readonly hash: ReturnType<typeof createHash>;
  bytes: number;
}

export interface Upstream {
  readonly baseUrl: string;
  readonly arrivals: readonly Arrival[];
  readonly puts: readonly PutReport[];
  close(): Promise<void>;
}

const PIECE_BYTES = 65_536;

export async function startUpstream(): Promise<Upstream> {
  const arrivals: Arrival[] = [];
  const puts: PutReport[] = [];
  const server = createServer({ keepAliveTimeout: 75_000 }, (request, answer) => {
    request.on("error", () => {});
    answer.on("error", () => {});
    if (request.url === "/put") {
      void readText(request).then((text) => {
        puts.push(JSON.parse(text) as PutReport);
        answer.end();
      });
      return;
    }
    const url = new URL(request.url ?? "/", "http://upstream");
    const asked = Object.fromEntries(url.searchParams) as Record<string, string>;
    const arrival: Arrival = {
      call: Number(/^soak~(\d+)~$/.exec(asked["call"] ?? "")?.[1] ?? -1),
      method: request.method ?? "",
      atMs: Date.now(),
      hash: createHash("sha256"),
      bytes: 0,
    };
    arrivals.push(arrival);
    request.on("data", (run: Buffer) => {
      arrival.hash.update(run);
      arrival.bytes += run.length;
    });
    const kind = url.pathname.slice(1) as AnswerKind;
    const begin = () =>
      void answerAs(kind, answer, arrival.call, Number(asked["bytes"] ?? 0), Number(asked["pause"] ?? 0)).catch(() =>
        answer.destroy(),
      );
    if (kind === "early") begin();
    else request.on("end", begin);
  });
  const baseUrl = `http://${loopback}:${await listenOnLoopback(server, 0)}`;
  return { baseUrl, arrivals, puts, close: () => closeServer(server) };
}

async function answerAs(kind: AnswerKind, answer: ServerResponse, call: number, bytes: number, pauseMs: number) {
  const body = answerBody(kind, call, bytes);
  // By it a client knows the upstream's answer from the gate's own.
  const head = { "content-type": ANSWERS[kind], "x-soak": String(call) };
  const whole = (coded: Buffer, more: object = {}) =>
    answer.writeHead(200, { ...head, ...more, "content-length": coded.length }).end(coded);
  switch (kind) {
    case "json":
    case "binary":
    case "early":
      return whole(body);
    case "gzip":
      return whole(gzipSync(body), { "content-encoding": "gzip" });
    case "empty":
      return answer.writeHead(204, { "x-soak": String(call) }).end();
    case "hang":
      return;
    case "slow":
      await pause(pauseMs);
      return whole(body);
    case "sse":
    case "chunked":
    case "declared":
    case "halfway": {
      answer.writeHead(200, { ...head, ...(kind === "declared" ? { "content-length": body.length } : {}) });
      const end = kind === "halfway" ? body.length / 2 : body.length;
      const piece = kind === "sse" ? Math.ceil(body.length / 12) : PIECE_BYTES;
      for (let at = 0; at < end && !answer.destroyed; at += piece) {
        if (!answer.write(body.subarray(at, Math.min(at + piece, end)))) await drained(answer);
        if (pauseMs > 0) await pause(pauseMs);
      }
      return kind === "halfway" ? answer.destroy() : answer.end();
    }
  }
}

const drained = (answer: ServerResponse): Promise<void> =>
  new Promise((resolve) => {
    const done = (): void => {
      answer.off("drain", done).off("close", done);
      resolve();
    };
    answer.once("drain", done).once("close", done);
  });

async function readText(request: IncomingMessage): Promise<string> {
  const runs: Buffer[] = [];
  for await (const run of request) runs.push(run as Buffer);
  return Buffer.concat(runs).toString();
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
