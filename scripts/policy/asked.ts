// A call that is written down instead of sent, and who makes it: in the very types that the gate reads a live one into.

import type { Config } from "../../src/config/define.ts";
import type { RequestHead } from "../../src/gate/describe.ts";
import { parseTarget } from "../../src/gate/target.ts";
import { emailDigest } from "../../src/identity/email-digest.ts";
import type { Lineage } from "../../src/instance/contract.ts";
import type { Json } from "../../src/scope/call.ts";
import { type Entry, parseAuthorizationDetails } from "../../src/scope/entry.ts";

/** What a person can put right in a table or on a command line. */
export class PolicyError extends Error {
  override readonly name = "PolicyError";
}

export interface Who {
  readonly human?: string | undefined;
  readonly groups: readonly string[];
  readonly agent: string;
  readonly parentScope?: readonly Json[] | undefined;
}

/** All that ceilings could ask of somebody whom this agent works for. No such agent is a slip, and not a refusal. */
export function lineageOf(config: Config, { human = "", groups, agent, parentScope }: Who, nowMs: number): Lineage {
  if (!Object.hasOwn(config.agents, agent)) throw new PolicyError(`no agent "${agent}" under agents`);
  if (parentScope !== undefined) parseScope(parentScope, "the parent's scope");
  const [client = ""] = Object.entries(config.platforms).find(([, platform]) => platform.agent === agent) ?? [];
  const isAddress = human.includes("@");
  return {
    human: isAddress ? "" : human,
    emailDigest: isAddress ? emailDigest(human) : null,
    agent,
    client,
    // No ceiling asks for it.
    chain: [],
    ancestors: [],
    parentScope: parentScope ?? null,
    groups,
    groupsAtMs: nowMs,
    mandate: null,
  };
}

/** A scope as the token endpoint reads it. */
export function parseScope(details: readonly Json[], what: string): readonly Entry[] {
  const entries = parseAuthorizationDetails(JSON.stringify(details));
  if (entries.ok) return entries.value;
  throw new PolicyError(`${what}: ${entries.error.path}: ${entries.error.message}`);
}

export interface WrittenCall {
  /** Method, and path and query at the gate. */
  readonly call: string;
  readonly headers?: Readonly<Record<string, string>> | undefined;
  /** A text as it is; anything else as JSON. */
  readonly body?: Json | undefined;
}

export interface Asked {
  readonly head: RequestHead;
  /** Null: there is none. */
  readonly body: Uint8Array | null;
}

export function readCall({ call, headers: given = {}, body }: WrittenCall, origin: string): Asked {
  const [, method, path] = /^([^ ]+) (\/.*)$/.exec(call) ?? [];
  if (method === undefined || path === undefined)
    throw new PolicyError(`${call}: not a method, a space, and the path at the gate`);
  let headers: Headers;
  try {
    headers = new Headers(given);
  } catch {
    throw new PolicyError("headers: a name or a value that no request can carry");
  }
  if (body !== undefined && typeof body !== "string" && !headers.has("content-type"))
    headers.set("content-type", "application/json");
  const text = typeof body === "string" ? body : JSON.stringify(body);
  return {
    head: { target: parseTarget(origin + path), method, headers },
    body: body === undefined ? null : new TextEncoder().encode(text),
  };
}
