import { connect, createServer, type Socket } from "node:net";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

/** Long bodies: an upstream on a thread of its own that gives and takes as many bytes as it is asked for, and a client for them. */

const RUN = Buffer.alloc(262_144, "transcript ");

/** Resolves when the whole answer is here, of a declared length or in chunks; with how many bytes came after its head. */
export function transfer(port: number, head: string, sendBytes: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true });
    let text = "";
    let isBody = false;
    let expected = Number.NaN;
    let bytes = 0;
    let tail = "";
    socket.on("error", reject);
    socket.on("close", () => reject(new Error(`it broke off after ${bytes} bytes: ${text.slice(0, 200)}`)));
    socket.on("connect", () => {
      socket.write(head);
      if (sendBytes > 0) write(socket, sendBytes);
    });
    socket.on("data", (run) => {
      tail = (tail + run.subarray(-5).toString("latin1")).slice(-5);
      if (isBody) bytes += run.length;
      else {
        text += run.toString("latin1");
        const end = text.indexOf("\r\n\r\n");
        if (end === -1) return;
        if (!text.startsWith("HTTP/1.1 200")) return reject(new Error(text.slice(0, 300)));
        isBody = true;
        expected = Number(/content-length: (\d+)/i.exec(text.slice(0, end))?.[1]);
        bytes = text.length - end - 4;
      }
      if (Number.isNaN(expected) ? tail !== "0\r\n\r\n" : bytes < expected) return;
      socket.removeAllListeners("close");
      socket.destroy();
      resolve(bytes);
    });
  });
}

function write(socket: Socket, bytes: number): void {
  let left = bytes;
  const more = (): void => {
    while (left > 0) {
      const run = RUN.subarray(0, Math.min(left, RUN.length));
      left -= run.length;
      if (!socket.write(run)) return void socket.once("drain", more);
    }
  };
  more();
}

/** Answers `GET …?bytes=N` with N bytes, and anything else, when it came whole, with "ok". */
export function startTransfers(): Promise<{ readonly port: number; close(): Promise<number> }> {
  const worker = new Worker(new URL(import.meta.url), { workerData: { transfers: true } });
  return new Promise((resolve) => {
    worker.once("message", (port: number) => resolve({ port, close: () => worker.terminate() }));
  });
}

if (!isMainThread && (workerData as { transfers?: true } | null)?.transfers === true) {
  const server = createServer({ noDelay: true }, (socket) => {
    let head = "";
    let left = -1;
    socket.on("error", () => {});
    socket.on("data", (run) => {
      if (left < 0) {
        head += run.toString("latin1");
        const end = head.indexOf("\r\n\r\n");
        if (end === -1) return;
        const bytes = Number(/\?bytes=(\d+)/.exec(head)?.[1] ?? 0);
        if (head.startsWith("GET")) {
          socket.write(`HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: ${bytes}\r\n\r\n`);
          head = "";
          return write(socket, bytes);
        }
        left = Number(/content-length: (\d+)/i.exec(head)?.[1]) - (head.length - end - 4);
      } else left -= run.length;
      if (left > 0) return;
      socket.write("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok");
      head = "";
      left = -1;
    });
  });
  server.listen(0, "127.0.0.1", () => parentPort?.postMessage((server.address() as { port: number }).port));
}
