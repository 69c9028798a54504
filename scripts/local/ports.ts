// Loopback listening: every part of the local stack binds to 127.0.0.1 and nowhere else, and closes without waiting for clients.

import type { Server as HttpServer } from "node:http";
import { type AddressInfo, createServer, type Server } from "node:net";

export const loopback = "127.0.0.1";

/**
 * The preferred port if nobody listens on it, else one that is free now. 0 asks for any free port.
 * Another process may take the port before the caller binds it: the caller's own `listenOnLoopback` then says so.
 */
export async function choosePort(preferred: number): Promise<number> {
  const probe = createServer();
  let port: number;
  try {
    port = await listenOnLoopback(probe, preferred);
  } catch (cause) {
    if (preferred === 0 || !(cause instanceof PortTakenError)) throw cause;
    port = await listenOnLoopback(probe, 0);
  }
  await new Promise<void>((resolve) => probe.close(() => resolve()));
  return port;
}

/** Somebody else has the port, or the system reserves it. */
export class PortTakenError extends Error {
  constructor(port: number, code: string) {
    super(`port ${port} on ${loopback} is not available (${code})`);
    this.name = "PortTakenError";
  }
}

/** Binds the server to loopback and gives the port it got. Throws `PortTakenError` where another port would help. */
export function listenOnLoopback(server: Server, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const fail = (error: NodeJS.ErrnoException) => {
      const taken = error.code === "EADDRINUSE" || error.code === "EACCES";
      reject(taken ? new PortTakenError(port, error.code ?? "unknown") : error);
    };
    server.once("error", fail);
    server.listen({ port, host: loopback, exclusive: true }, () => {
      server.off("error", fail);
      resolve((server.address() as AddressInfo).port);
    });
  });
}

/** Stops listening and cuts every open connection. */
export function closeServer(server: HttpServer): Promise<void> {
  return new Promise((resolve, reject) => {
    server.close((error) => {
      if (error && (error as NodeJS.ErrnoException).code !== "ERR_SERVER_NOT_RUNNING") reject(error);
      else resolve();
    });
    server.closeAllConnections();
  });
}
