// A call that is written down instead of sent, and who makes it: in the very types that the gate reads a live one into.

import type { Config } from "../../src/config/define.ts";
import type { RequestHead } from "../../src/gate/describe.ts";
import { parseTarget } from "../../src/gate/target.ts";
import { emailDigest } from "../../src/identity/email-digest.ts";
import type { Bounded } from "../../src/instance/ceilings.ts";
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
  /** Of a sub-agent: which stand above it, the root first. */
  readonly agentsAbove?: readonly string[] | undefined;
  readonly parentScope?: readonly Json[] | undefined;
}

/** All that ceilings ask of somebody whom this agent works for. No such agent is a slip, and not a refusal. */
export function whoOf(config: Config, { human = "", groups, agent, agentsAbove = [], parentScope }: Who): Bounded {
  const chain = [...agentsAbove, agent];
  for (const [i, name] of chain.entries()) {
    if (!Object.hasOwn(config.agents, name)) throw new PolicyError(`no agent "${name}" under agents`);
    const { agents, depth } = config.agents[name]!.delegation;
    const [below, levels] = [chain[i + 1], chain.length - 1 - i];
    if (below !== undefined && !agents.includes(below)) throw new PolicyError(`${name} may not provision ${below}`);
    if (levels > depth) throw new PolicyError(`${levels} levels below ${name}, whose delegation.depth is ${depth}`);
  }
  if (parentScope !== undefined) parseScope(parentScope, "the parent's scope");
  const isAddress = human.includes("@");
  return {
    human: isAddress ? "" : human,
    emailDigest: isAddress ? emailDigest(human) : null,
    agent,
    agentsAbove,
    parentScope: parentScope ?? null,
    groups,
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
