// From nothing to an instance that holds a grant: the key is made here, and what provisions it sees a proof of it and no more.

import { readFile } from "node:fs/promises";
import { z } from "zod";
import { createHeldGrant, type HeldGrant } from "../../src/agent/held-grant.ts";
import { createEnrolmentProof, createInstanceKey, thumbprintOf } from "../../src/agent/instance-key.ts";
import { reasonOf, refused, unreachable, usageFault } from "./ending.ts";
import { runGrantCommand } from "./grant-command.ts";
import { type Options, parseGateOption } from "./options.ts";
import { askParent, gateOf } from "./parent.ts";
import { type ProvisionFile, parseProvisionFile } from "./provision-file.ts";
import { readSubAgentFile } from "./sub-agent-file.ts";
import { exchange } from "./token-exchange.ts";

export interface Provisioned {
  readonly gate: string;
  /** The key's thumbprint: what an admin kills. */
  readonly instance: string;
  readonly grant: HeldGrant;
  /** The task's, as far as it is known. */
  readonly deadlineMs: number | undefined;
}

const ASK_TIMEOUT_MS = 10_000;
/** A program's answer: RFC 6749 §5.1, and the deadline if it likes to say it. */
const tokens = z.object({
  access_token: z.string().min(1),
  token_type: z.string().regex(/^dpop$/i, "is not DPoP"),
  expires_in: z.number().positive(),
  refresh_token: z.string().min(1).optional(),
  deadline: z.number().positive().optional(),
});
const refusal = z.object({ error: z.string(), error_description: z.string().optional() });
/** Who reads what is said here: with a provision file the sidecar is the platform, with a parent the developer asks; else the command's developer may see it. */
type Reader = "asker" | "developer";

/** By whom the exchange is made, with this proof. */
interface Source {
  readonly gate: string;
  readonly reader: Reader;
  readonly deadline?: number;
  ask(proof: string): Promise<unknown>;
}

/** Throws an `Ending` where there is no grant to be had. */
export async function provision(options: Options, signal: AbortSignal): Promise<Provisioned> {
  const source = await sourceOf(options, signal);
  const { gate } = source;
  await findGate(gate, signal);
  const key = await createInstanceKey();
  const instance = await thumbprintOf(key);
  const proof = await createEnrolmentProof(gate, key);
  const grant = readTokens(await source.ask(proof), source.reader);
  const claims = claimsOf(grant.access_token);
  // Said here, where somebody can see what is wrong: to the running program the gate says 401 and nothing else.
  if (claims?.iss !== gate) throw refused(`the grant is one of ${claims?.iss ?? "nobody"}, not of ${gate}`);
  if (claims.cnf?.jkt !== instance) throw refused("the grant is bound to another key than the proof showed");
  const deadline = source.deadline ?? grant.deadline ?? claimsOf(grant.refresh_token ?? "")?.exp;
  return {
    gate,
    instance,
    grant: createHeldGrant({
      gate,
      key,
      grant: {
        access_token: grant.access_token,
        expires_in: grant.expires_in,
        ...(grant.refresh_token === undefined ? {} : { refresh_token: grant.refresh_token }),
      },
    }),
    deadlineMs: deadline === undefined ? undefined : deadline * 1000,
  };
}

async function sourceOf({ from, gate: named }: Options, signal: AbortSignal): Promise<Source> {
  if (from.kind === "parent") {
    const form = readSubAgentFile(from.path);
    const gate = parseGateOption(await gateOf(from.parent, signal));
    if (named !== undefined && named !== gate) throw usageFault(`--gate ${named}: the parent's is ${gate}`);
    return { gate, reader: "asker", ask: (proof) => askParent(from.parent, { form, proof, signal }) };
  }
  if (from.kind === "command") {
    const gate = named;
    if (gate === undefined) throw usageFault("give --gate");
    return { gate, reader: "developer", ask: (proof) => runGrantCommand(from.command, { gate, proof, signal }) };
  }
  const file = await readProvisionFile(from.path);
  const gate = named ?? (file.gate === undefined ? undefined : parseGateOption(file.gate));
  if (gate === undefined) throw usageFault("give --gate");
  return { gate, reader: "asker", deadline: file.deadline, ask: (proof) => exchange(file, { gate, proof, signal }) };
}

async function readProvisionFile(path: string): Promise<ProvisionFile> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    throw usageFault(`--provision ${path}: ${reasonOf(cause)}`);
  }
  return parseProvisionFile(text, path);
}

/** That it answers, and as itself, before anyone spends an ID token on it. RFC 8414 §3.3. */
async function findGate(gate: string, interrupted: AbortSignal): Promise<void> {
  const url = `${gate}/.well-known/oauth-authorization-server`;
  let issuer: unknown;
  try {
    const answer = await fetch(url, {
      redirect: "manual",
      signal: AbortSignal.any([interrupted, AbortSignal.timeout(ASK_TIMEOUT_MS)]),
    });
    if (!answer.ok) throw new Error(`${url} answered ${answer.status}`);
    issuer = ((await answer.json()) as { issuer?: unknown }).issuer;
  } catch (cause) {
    throw unreachable(`the gate ${gate} can't be reached: ${reasonOf(cause)}`);
  }
  if (issuer !== gate) throw usageFault(`${gate} is not a gate's own origin: it calls itself ${String(issuer)}`);
}

function readTokens(answer: unknown, reader: Reader): z.infer<typeof tokens> {
  const said = refusal.safeParse(answer);
  if (said.success) {
    const { error, error_description: why } = said.data;
    // Why is the platform's to know and to tell: its program has read the answer, and has this stderr.
    const text = `the authority refused: ${error}${why === undefined || reader === "developer" ? "" : `, ${why}`}`;
    throw error === "temporarily_unavailable" ? unreachable(text) : refused(text);
  }
  const parsed = tokens.safeParse(answer);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  throw refused(`no grant: ${issue?.path.join(".") || "the answer"} ${issue?.message ?? "is not one"}`);
}

interface Claims {
  readonly iss?: string;
  readonly exp?: number;
  readonly cnf?: { readonly jkt?: string };
}

/** As they stand there: the gate verifies them. */
function claimsOf(jwt: string): Claims | undefined {
  try {
    return JSON.parse(Buffer.from(jwt.split(".")[1] ?? "", "base64url").toString()) as Claims;
  } catch {
    return undefined;
  }
}
