// The door by which the served program gets sub-agents of its own: `/.portcullis/…`, where no upstream can be. The child's key is the
// child's; this side's key signs for it, and its grant goes to the gate and nowhere else.

import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { calculateJwkThumbprint, decodeProtectedHeader } from "jose";
import type { HeldGrant } from "../../src/agent/held-grant.ts";
import { problem } from "./relay.ts";

export interface SubAgents {
  /** False: the request is for the gate. */
  serve(request: IncomingMessage, response: ServerResponse): boolean;
}

export interface SubAgentsOptions {
  readonly grant: HeldGrant;
  /** Whoever asks through this connection serves its own descendants: this side does not any more. */
  readonly onApart: (socket: Socket) => void;
}

export const OWN_PATH = "/.portcullis";
export const SUB_AGENTS_PATH = `${OWN_PATH}/sub-agents`;
const FORM_MAX_BYTES = 65_536;
const TIMEOUT_MS = 30_000;
const THUMBPRINT = /^[A-Za-z0-9_-]{43}$/;
/** What a child says of itself. Whose child it is, is said here. */
const ASKED = new Set(["agent", "agent_version", "purpose", "authorization_details", "deadline", "task_limits"]);

export function createSubAgents({ grant, onApart }: SubAgentsOptions): SubAgents {
  const url = `${grant.origin}/oauth/token`;

  /** RFC 8693 in the parent's name, with the child's own proof. The gate's answer, as it is. */
  async function provision(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const proof = request.headers["dpop"];
    const child = typeof proof === "string" ? await keyOf(proof) : undefined;
    if (child === undefined)
      return problem(response, 400, `a DPoP proof by the sub-agent's key is required, for POST ${url}`);
    const asked = await readForm(request);
    if (typeof asked === "string") return problem(response, 400, asked);
    if (asked.apart) onApart(request.socket);
    const body = new URLSearchParams({
      ...asked.form,
      grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
      subject_token_type: "urn:ietf:params:oauth:token-type:access_token",
      ...(await grant.delegate(child)),
    });
    const answer = await exchange(proof as string, body).catch(() => undefined);
    // Nobody else has its key: what was reserved for it would lie there until the deadline.
    if (answer === undefined || (answer.status === 200 && response.destroyed)) await grant.endChild(child);
    if (answer === undefined) return problem(response, 502, "no answer came from the gate");
    const headers = { "content-type": "application/json", "cache-control": "no-store" };
    response.writeHead(answer.status, headers).end(answer.text);
  }

  async function exchange(proof: string, body: URLSearchParams): Promise<{ status: number; text: string }> {
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    const init = { method: "POST", headers: { DPoP: proof }, body, redirect: "manual", signal } as const;
    const answer = await fetch(url, init);
    return { status: answer.status, text: await answer.text() };
  }

  async function end(child: string, response: ServerResponse): Promise<void> {
    if (!THUMBPRINT.test(child)) return problem(response, 400, "the path does not end in a thumbprint");
    if (!(await grant.endChild(child)))
      return problem(response, 502, "the gate did not say that it is ended: ask again");
    response.writeHead(204).end();
  }

  async function route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method, url: target = "" } = request;
    if (method === "GET" && target === OWN_PATH) return json(response, { gate: grant.origin });
    if (method === "POST" && target === SUB_AGENTS_PATH) return provision(request, response);
    if (method === "DELETE" && target.startsWith(`${SUB_AGENTS_PATH}/`))
      return end(target.slice(SUB_AGENTS_PATH.length + 1), response);
    return problem(
      response,
      404,
      `not one of GET ${OWN_PATH}, POST ${SUB_AGENTS_PATH}, DELETE ${SUB_AGENTS_PATH}/<id>`,
    );
  }

  return {
    serve(request, response) {
      const { url: target = "" } = request;
      if (target !== OWN_PATH && !target.startsWith(`${OWN_PATH}/`)) return false;
      route(request, response).catch(() => {
        if (response.headersSent) response.destroy();
        else problem(response, 502, "no answer came from the gate");
      });
      return true;
    },
  };
}

/** Whose proof it says that it is: the gate verifies it. */
async function keyOf(proof: string): Promise<string | undefined> {
  try {
    const { jwk } = decodeProtectedHeader(proof);
    return jwk === undefined ? undefined : await calculateJwkThumbprint(jwk, "sha256");
  } catch {
    return undefined;
  }
}

interface Asked {
  readonly form: Readonly<Record<string, string>>;
  readonly apart: boolean;
}

/** What is wrong with it, or what it asks. */
async function readForm(request: IncomingMessage): Promise<Asked | string> {
  const runs: Buffer[] = [];
  let bytes = 0;
  for await (const run of request as AsyncIterable<Buffer>) {
    bytes += run.length;
    if (bytes > FORM_MAX_BYTES) return `a form of more than ${FORM_MAX_BYTES} bytes`;
    runs.push(run);
  }
  const form: Record<string, string> = Object.create(null);
  let apart = false;
  for (const [name, value] of new URLSearchParams(Buffer.concat(runs).toString())) {
    if (name === "apart") apart = value === "true";
    else if (!ASKED.has(name)) return `${name.slice(0, 40)} is not a parameter of a sub-agent`;
    else if (Object.hasOwn(form, name)) return `${name} is given twice`;
    else form[name] = value;
  }
  return { form, apart };
}

function json(response: ServerResponse, value: object): void {
  response
    .writeHead(200, { "content-type": "application/json", "cache-control": "no-store" })
    .end(JSON.stringify(value));
}
