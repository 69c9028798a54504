// A sidecar as the child of another: what it asks of the one that serves the process which has started it.

import { request as open } from "node:http";
import { Ending, reasonOf, refused, unreachable, usageFault } from "./ending.ts";
import { OWN_PATH, SUB_AGENTS_PATH } from "./sub-agents.ts";

/** Where the parent's sidecar listens. */
export type ParentAddress =
  | { readonly kind: "url"; readonly url: string }
  | { readonly kind: "socket"; readonly path: string };

const TIMEOUT_MS = 60_000;
const ANSWER_MAX_BYTES = 262_144;

/** A path, or an address as it stands in PORTCULLIS_URL. */
export function parseParent(text: string): ParentAddress {
  if (text.startsWith("/") || text.startsWith(".")) return { kind: "socket", path: text };
  // Loopback alone: what is asked of it is answered with a grant.
  if (!/^http:\/\/(127\.0\.0\.1|localhost)(:\d{1,5})?$/.test(text))
    throw usageFault(`--parent ${text} is neither the path of a socket nor http://127.0.0.1:<port>`);
  return { kind: "url", url: text };
}

/** The gate's origin. */
export async function gateOf(parent: ParentAddress, signal: AbortSignal): Promise<string> {
  const { gate } = (await ask(parent, { method: "GET", path: OWN_PATH, signal })) as { readonly gate?: unknown };
  if (typeof gate !== "string") throw usageFault("--parent: what answers there is no sidecar");
  return gate;
}

/** The token endpoint's answer, which may be a refusal. From here on the parent's sidecar does not serve what descends from this process. */
export const askParent = (
  parent: ParentAddress,
  { form, proof, signal }: { form: Readonly<Record<string, string>>; proof: string; signal: AbortSignal },
): Promise<unknown> =>
  ask(parent, {
    method: "POST",
    path: SUB_AGENTS_PATH,
    headers: { DPoP: proof, "Content-Type": "application/x-www-form-urlencoded" },
    body: new URLSearchParams({ ...form, apart: "true" }).toString(),
    signal,
  });

interface Question {
  readonly method: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly signal: AbortSignal;
}

/** Not by `fetch`: it knows no unix sockets. A problem of the sidecar's own (RFC 9457) ends it. */
async function ask(parent: ParentAddress, question: Question): Promise<unknown> {
  const { status, text } = await send(parent, question).catch((cause: unknown) => {
    throw unreachable(`the parent's sidecar can't be reached: ${reasonOf(cause)}`);
  });
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    throw refused(`the parent's sidecar answered ${status}, and no JSON`);
  }
  const { detail } = json as { readonly detail?: unknown };
  if (status >= 400 && typeof detail === "string")
    throw new Ending(status === 502 ? 4 : 3, `the parent's sidecar: ${detail}`);
  return json;
}

const send = (parent: ParentAddress, { method, path, headers = {}, body, signal }: Question) =>
  new Promise<{ readonly status: number; readonly text: string }>((resolve, reject) => {
    const at = parent.kind === "url" ? new URL(parent.url) : undefined;
    const where =
      at === undefined ? { socketPath: (parent as { path: string }).path } : { host: at.hostname, port: at.port };
    const outgoing = open(
      { ...where, method, path, headers: { ...headers, Host: at?.host ?? "localhost" }, signal, timeout: TIMEOUT_MS },
      (answer) => {
        const runs: Buffer[] = [];
        let bytes = 0;
        answer.on("data", (run: Buffer) => {
          bytes += run.length;
          if (bytes > ANSWER_MAX_BYTES) outgoing.destroy(new Error("the answer is too long"));
          else runs.push(run);
        });
        answer.on("error", reject);
        answer.on("end", () => resolve({ status: answer.statusCode ?? 0, text: Buffer.concat(runs).toString() }));
      },
    );
    outgoing.on("timeout", () => outgoing.destroy(new Error("no answer")));
    outgoing.on("error", reject).end(body);
  });
