// The door for the child, and for nobody else: loopback or a unix socket, plain HTTP/1.1.

import { existsSync, rmSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { reasonOf, usageFault } from "./ending.ts";
import type { Options } from "./options.ts";
import { problem, type Relay } from "./relay.ts";
import type { SubAgents } from "./sub-agents.ts";

export interface ListenerOptions {
  readonly listen: Options["listen"];
  readonly relay: Relay;
  readonly subAgents: SubAgents;
  /** Asked once for each connection, when its first request has come. */
  readonly isOurs: (socket: Socket) => boolean;
  readonly onStranger: () => void;
}

export interface Listener {
  /** Without a path. Through a socket the host is a name and no more. */
  readonly url: string;
  /** Stops listening and cuts what runs. */
  close(): void;
}

const HOST = "127.0.0.1";
const HEADER_MAX_BYTES = 65_536;
const KEEP_ALIVE_MS = 60_000;

/** Throws an `Ending` where there is no listening. */
export async function startListener(options: ListenerOptions): Promise<Listener> {
  const { listen, relay, subAgents, isOurs, onStranger } = options;
  const verdicts = new WeakMap<Socket, boolean>();
  const hosts = new Set<string>();

  /** Why not; nothing: let it in. */
  function faultOf(request: IncomingMessage): string | undefined {
    const known = verdicts.get(request.socket) ?? isOurs(request.socket);
    verdicts.set(request.socket, known);
    if (!known) {
      onStranger();
      return "only the process that was started beside it, and its children, are served";
    }
    // A page in a browser, of whatever name its server gave this address (DNS rebinding).
    if (listen.kind === "port" && !hosts.has((request.headers.host ?? "").toLowerCase()))
      return "another host is meant";
    if (request.headers.origin !== undefined || request.headers["sec-fetch-site"] !== undefined)
      return "no web page is served";
    return undefined;
  }

  function serve(request: IncomingMessage, response: ServerResponse, isAwaited: boolean): void {
    response.on("error", () => {});
    const fault = faultOf(request);
    if (fault !== undefined) {
      problem(response, 403, fault);
      return;
    }
    if (isAwaited) response.writeContinue();
    if (subAgents.serve(request, response)) return;
    relay.pass(request, response, listen.kind === "port" ? `http://${request.headers.host}` : SOCKET_URL);
  }

  const server = createServer({
    maxHeaderSize: HEADER_MAX_BYTES,
    keepAliveTimeout: KEEP_ALIVE_MS,
    // An upload may take as long as it takes: the gate has bounds of its own.
    requestTimeout: 0,
  });
  server.on("request", (request, response) => serve(request, response, false));
  // RFC 9110 §10.1.1: asked before the body is sent, so strangers are told before, too.
  server.on("checkContinue", (request, response) => serve(request, response, true));
  server.on("connection", (socket) => socket.setNoDelay(true));

  const path = listen.kind === "socket" ? listen.path : undefined;
  if (path !== undefined && existsSync(path)) throw usageFault(`--socket ${path}: something is there already`);
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause) =>
      reject(usageFault(`can't listen on ${path ?? (listen as { port: number }).port}: ${reasonOf(cause)}`)),
    );
    if (path === undefined)
      return server.listen({ host: HOST, port: (listen as { port: number }).port, exclusive: true }, resolve);
    // Bound before this returns: there is no moment at which others could connect.
    const umask = process.umask(0o177);
    server.listen(path, resolve);
    process.umask(umask);
    return undefined;
  });
  const url = path === undefined ? `http://${HOST}:${(server.address() as AddressInfo).port}` : SOCKET_URL;
  hosts.add(new URL(url).host).add(`localhost:${new URL(url).port}`);
  if (new URL(url).port === "") hosts.add("localhost");
  return {
    url,
    close: () => {
      server.close();
      server.closeAllConnections();
      if (path !== undefined) rmSync(path, { force: true });
    },
  };
}

const SOCKET_URL = "http://localhost";
