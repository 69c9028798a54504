import { connect, createServer } from "node:net";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

/**
 * A load generator that costs little beside what it measures: requests are byte strings made before the clock starts,
 * and of an answer only its length is read. It and the upstream run in threads of this process; the measured workerd
 * is a process of its own.
 */
export interface Run {
  readonly port: number;
  readonly concurrency: number;
  readonly requests: readonly string[];
  /** Not more than so many a second; as fast as they are answered where it is not said. */
  readonly perSecond?: number;
}

export interface Ran {
  readonly seconds: number;
  readonly latenciesMs: readonly number[];
  readonly statuses: Readonly<Record<string, number>>;
}

export async function run(work: Run): Promise<Ran> {
  const latenciesMs: number[] = [];
  const statuses: Record<string, number> = {};
  let next = 0;
  const began = performance.now();
  await Promise.all(
    Array.from(
      { length: work.concurrency },
      () =>
        new Promise<void>((resolve, reject) => {
          const socket = connect({ port: work.port, host: "127.0.0.1", noDelay: true });
          let received = "";
          let sentAt = 0;
          const send = (): void => {
            const request = work.requests[next++];
            if (request === undefined) {
              socket.end();
              resolve();
              return;
            }
            const waitMs =
              work.perSecond === undefined ? 0 : began + ((next - 1) * 1_000) / work.perSecond - performance.now();
            const write = (): void => {
              sentAt = performance.now();
              socket.write(request);
            };
            if (waitMs > 0) setTimeout(write, waitMs);
            else write();
          };
          socket.on("connect", send);
          socket.on("error", reject);
          socket.on("data", (chunk) => {
            received += chunk.toString("latin1");
            if (!isWhole(received)) return;
            latenciesMs.push(performance.now() - sentAt);
            const status = received.slice(9, 12);
            statuses[status] = (statuses[status] ?? 0) + 1;
            received = "";
            send();
          });
        }),
    ),
  );
  return { seconds: (performance.now() - began) / 1000, latenciesMs, statuses };
}

function isWhole(text: string): boolean {
  const end = text.indexOf("\r\n\r\n");
  if (end === -1) return false;
  const head = text.slice(0, end).toLowerCase();
  const length = /content-length: (\d+)/.exec(head)?.[1];
  if (length !== undefined) return text.length >= end + 4 + Number(length);
  return text.endsWith("\r\n0\r\n\r\n") || text.slice(end + 4) === "0\r\n\r\n";
}

/** An upstream that answers every request with the same JSON, on a thread of its own. */
export function startUpstream(answerBytes: number): Promise<{ readonly port: number; close(): Promise<number> }> {
  const worker = new Worker(new URL(import.meta.url), { workerData: { answerBytes } });
  return new Promise((resolve) => {
    worker.once("message", (port: number) => resolve({ port, close: () => worker.terminate() }));
  });
}

if (!isMainThread && (workerData as { answerBytes?: number } | null)?.answerBytes !== undefined) {
  const { answerBytes } = workerData as { answerBytes: number };
  const body = JSON.stringify({ data: "x".repeat(Math.max(0, answerBytes - 11)) });
  const answer = `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  const server = createServer({ noDelay: true }, (socket) => {
    let received = "";
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      received += chunk.toString("latin1");
      // GET requests only: each ends with its head.
      for (let end = received.indexOf("\r\n\r\n"); end !== -1; end = received.indexOf("\r\n\r\n")) {
        received = received.slice(end + 4);
        socket.write(answer);
      }
    });
  });
  server.listen(0, "127.0.0.1", () => parentPort?.postMessage((server.address() as { port: number }).port));
}
