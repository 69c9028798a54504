import { connect, createServer, type Socket } from "node:net";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

/** Answers that never end by themselves, and clients that note when theirs ended. */

export interface StreamEnd {
  /** Milliseconds since 1970, with fractions. */
  readonly lastByteAtMs: number;
  /** The connection is gone: nothing can come any more. */
  readonly closedAtMs: number;
  readonly bytes: number;
}

/** A running answer, read from a socket of its own. */
export interface OpenStream {
  readonly end: Promise<StreamEnd>;
  close(): void;
}

export const nowMs = (): number => performance.timeOrigin + performance.now();

/** Resolves when the first bytes of the body are here. */
export function openStream(port: number, request: string): Promise<OpenStream> {
  const socket: Socket = connect({ port, host: "127.0.0.1", noDelay: true });
  const ended = Promise.withResolvers<StreamEnd>();
  let head = "";
  let isOpen = false;
  let bytes = 0;
  let lastByteAtMs = 0;
  return new Promise((resolve, reject) => {
    socket.on("connect", () => socket.write(request));
    socket.on("data", (run) => {
      lastByteAtMs = nowMs();
      bytes += run.length;
      if (isOpen) return;
      head += run.toString("latin1");
      if (!head.startsWith("HTTP/1.1 200") && head.length > 12) reject(new Error(head.slice(0, 200)));
      if (!head.includes("\r\n\r\n") || !head.includes("data:")) return;
      isOpen = true;
      resolve({ end: ended.promise, close: () => socket.destroy() });
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      if (!isOpen) reject(new Error(`closed before it began: ${head.slice(0, 200)}`));
      ended.resolve({ lastByteAtMs, closedAtMs: nowMs(), bytes });
    });
  });
}

/** An upstream whose every answer is an event stream without an end, on a thread of its own. */
export function startStreams(everyMs: number): Promise<{ readonly port: number; close(): Promise<number> }> {
  const worker = new Worker(new URL(import.meta.url), { workerData: { everyMs } });
  return new Promise((resolve) => {
    worker.once("message", (port: number) => resolve({ port, close: () => worker.terminate() }));
  });
}

if (!isMainThread && (workerData as { everyMs?: number } | null)?.everyMs !== undefined) {
  const { everyMs } = workerData as { everyMs: number };
  const event = `data: ${"x".repeat(40)}\n\n`;
  const chunk = `${event.length.toString(16)}\r\n${event}\r\n`;
  const server = createServer({ noDelay: true }, (socket) => {
    let timer: NodeJS.Timeout | undefined;
    socket.on("error", () => {});
    socket.on("close", () => clearInterval(timer));
    socket.on("data", () => {
      if (timer !== undefined) return;
      socket.write(`HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n${chunk}`);
      // Not all at the same moment.
      setTimeout(() => {
        timer = setInterval(() => socket.write(chunk), everyMs);
      }, Math.random() * everyMs);
    });
  });
  server.listen(0, "127.0.0.1", 4_096, () => parentPort?.postMessage((server.address() as { port: number }).port));
}
