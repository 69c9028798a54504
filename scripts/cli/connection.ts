// Which gate is meant, and who asks it. What was said outright goes before what was found.

import { readFile } from "node:fs/promises";
import { isLoopback } from "../../src/loopback.ts";
import type { Result } from "../../src/result.ts";
import { type Human, humans } from "../local/humans.ts";
import { findRunning, type RunAddresses } from "../local/run-file.ts";
import { parseGate, parseRemote } from "../remote.ts";
import { CommandError, EXIT, type Io, UsageError } from "./command.ts";
import { readLogins } from "./login-file.ts";

/** Options of every command that speaks to a gate. */
export const CONNECTION = {
  gate: { type: "string" },
  dir: { type: "string" },
  as: { type: "string" },
  token: { type: "string" },
  "token-file": { type: "string" },
  json: { type: "boolean", default: false },
} as const;

export const CONNECTION_USAGE = `  --gate <origin>      the gate (or PORTCULLIS_GATE; else the stack of npm start, else where you signed in last)
  --dir <folder>       the stack that npm start runs from this folder (default: .portcullis, where one runs)
  --as <person>        who asks there: oscar (also with --dir alone), or olga, who is on call with him
  --token-file <file>  an ID token (or PORTCULLIS_TOKEN, or --token, which others on this machine can see). It goes, as
                       PORTCULLIS_BREAK_GLASS does, only to a gate named by --gate, PORTCULLIS_GATE or --dir
  --json               for machines`;

export interface ConnectionOptions {
  readonly gate?: string | undefined;
  readonly dir?: string | undefined;
  readonly as?: string | undefined;
  readonly token?: string | undefined;
  readonly "token-file"?: string | undefined;
}

export interface Connection {
  readonly gate: string;
  /** A bearer token for that gate. Throws `CommandError` where there is none that is good. */
  bearer(): Promise<string>;
  /** By a break-glass key, which kills and does nothing else. */
  readonly isBreakGlass: boolean;
  /** Null: not a stack of `npm start`. */
  readonly local: RunAddresses | null;
}

const DEFAULT_DIR = ".portcullis";
const ON_CALL: Human = "oscar";
/** A token that runs out on its way is no use. */
const EXPIRY_MARGIN_MS = 5_000;

/** @param mayKill the command is one for which a break-glass key is good, and then it goes before a token. */
export async function connect(options: ConnectionOptions, io: Io, mayKill = false): Promise<Connection> {
  const { gate, local, isNamed } = await findGate(options, io);
  const person = personOf(options, local);
  const given = await givenToken(options, io);
  const key = io.env["PORTCULLIS_BREAK_GLASS"] || undefined;
  const isAs = options.as !== undefined;
  if (isAs && given?.option === true) throw new UsageError(`--as and ${given.from}: say one of them`);
  const isBreakGlass = key !== undefined && !isAs && given?.option !== true && (mayKill || given === undefined);
  const secret = isAs ? undefined : isBreakGlass ? "PORTCULLIS_BREAK_GLASS" : given?.from;
  // INVARIANT: whoever wrote the current folder, its run file included, gets no credential by that.
  if (secret !== undefined && !isNamed)
    throw new UsageError(
      `${secret} is sent to no gate that was merely found (${gate}): name it by --gate <origin>, PORTCULLIS_GATE, or --dir <folder>`,
    );
  return {
    gate,
    local,
    isBreakGlass,
    bearer: async () => {
      if (isBreakGlass) return parseBreakGlass(key);
      if (given !== undefined && !isAs)
        return notExpired(given.token, `The token of ${given.from} has run out. Get another.`);
      return person === null ? signedIn(gate, local, io) : signInLocally(local!, person);
    },
  };
}

/** Whom the local stack was asked to believe outright: that goes before a sign-in that was kept, which may be another stack's. */
function personOf({ as, dir }: ConnectionOptions, local: RunAddresses | null): Human | null {
  if (as === undefined) return dir === undefined ? null : ON_CALL;
  if (local === null)
    throw new UsageError("--as: only at the stack of npm start, which believes whoever names a human");
  if (!Object.hasOwn(humans, as)) throw new UsageError(`--as ${as}: not one of ${Object.keys(humans).join(", ")}`);
  return as as Human;
}

/** What was wrong with it is said with the name by which it was given. */
export function parseNamed<T>(parse: (text: string) => Result<T, string>, text: string, name: string): T {
  const parsed = parse(text);
  if (!parsed.ok) throw new UsageError(`${name} ${text}: ${parsed.error}`);
  return parsed.value;
}

export interface FoundGate {
  readonly gate: string;
  readonly local: RunAddresses | null;
  /** Somebody said it: it was not merely found in the current folder, or where one signed in last. */
  readonly isNamed: boolean;
}

/** `--dir` means the stack there; `--gate` and the environment, that one; then what runs here; then where one signed in last. */
export async function findGate(options: ConnectionOptions, io: Io): Promise<FoundGate> {
  if (options.gate !== undefined && options.dir !== undefined)
    throw new UsageError("--gate and --dir: say one of them");
  if (options.dir !== undefined) {
    const local = await findRunning(options.dir).catch((cause: Error) => {
      throw new CommandError(EXIT.unreachable, cause.message);
    });
    return { ...onLoopback(local), isNamed: true };
  }
  const running = await findRunning(DEFAULT_DIR).catch(() => null);
  const named = options.gate ?? (io.env["PORTCULLIS_GATE"] || undefined);
  if (named !== undefined) {
    const gate = parseNamed(parseGate, named, options.gate === undefined ? "PORTCULLIS_GATE" : "--gate");
    // No run file speaks for a gate elsewhere: it would say who signs people in there.
    return running?.gate === gate && isLoopback(new URL(gate))
      ? { ...onLoopback(running), isNamed: true }
      : { gate, local: null, isNamed: true };
  }
  if (running !== null) return { ...onLoopback(running), isNamed: false };
  const { current } = await readLogins(io);
  if (current === null)
    throw new UsageError("which gate? Say --gate <origin>, set PORTCULLIS_GATE, or sign in: portcullis login");
  return { gate: current, local: null, isNamed: false };
}

/** Whoever can write a run file must not be able to lead anybody to another machine. */
function onLoopback(local: RunAddresses): { readonly gate: string; readonly local: RunAddresses } {
  for (const address of [local.gate, local.issuer, local.bucket])
    if (!isLoopback(parseNamed(parseRemote, address, "run file:")))
      throw new UsageError(`the run file names ${address}: not on this machine`);
  return { gate: local.gate, local };
}

interface Given {
  readonly token: string;
  readonly from: string;
  /** On the command line, not in the environment. */
  readonly option: boolean;
}

async function givenToken(options: ConnectionOptions, io: Io): Promise<Given | undefined> {
  const file = options["token-file"];
  if (options.token !== undefined && file !== undefined)
    throw new UsageError("--token and --token-file: say one of them");
  if (options.token !== undefined)
    return { token: parseToken(options.token, "--token"), from: "--token", option: true };
  if (file !== undefined) {
    const text = await readFile(file, "utf8").catch((cause: Error) => {
      throw new UsageError(`--token-file: ${cause.message}`);
    });
    return { token: parseToken(text.trim(), file), from: file, option: true };
  }
  const token = io.env["PORTCULLIS_TOKEN"] || undefined;
  return token === undefined
    ? undefined
    : { token: parseToken(token, "PORTCULLIS_TOKEN"), from: "PORTCULLIS_TOKEN", option: false };
}

/** It becomes a header: the value itself is never part of a message. */
function parseToken(token: string, from: string): string {
  if (!/^[A-Za-z0-9._~+/=-]{1,16384}$/.test(token)) throw new UsageError(`${from}: not a token`);
  return token;
}

function parseBreakGlass(key: string): string {
  if (!/^pbg_[A-Za-z0-9_-]{43,128}$/.test(key))
    throw new UsageError("PORTCULLIS_BREAK_GLASS: not a break-glass key (pbg_…)");
  return key;
}

async function signedIn(gate: string, local: RunAddresses | null, io: Io): Promise<string> {
  const kept = (await readLogins(io)).gates[gate]?.token ?? null;
  const signIn = `npx portcullis login --gate ${gate}`;
  if (kept !== null && (local === null || !hasExpired(kept)))
    return notExpired(kept, `The sign-in at ${gate} has run out. Sign in again: ${signIn}`);
  if (local === null) throw new CommandError(EXIT.forbidden, `Not signed in at ${gate}. Sign in: ${signIn}`);
  return signInLocally(local, ON_CALL);
}

/** The local stack's sign-in page believes whoever names a human. */
async function signInLocally(local: RunAddresses, person: Human): Promise<string> {
  const { signInAt } = await import("../local/sign-in.ts");
  try {
    return await signInAt(local.issuer, person, "portcullis-admin");
  } catch (cause) {
    throw new CommandError(EXIT.unreachable, `No sign-in at ${local.issuer}: ${(cause as Error).message}`);
  }
}

function notExpired(token: string, otherwise: string): string {
  if (hasExpired(token)) throw new CommandError(EXIT.forbidden, otherwise);
  return token;
}

const hasExpired = (token: string): boolean =>
  (expiryOf(token) ?? Number.POSITIVE_INFINITY) <= Date.now() + EXPIRY_MARGIN_MS;

/** As the token says; whether it is true is the gate's to verify. Null: it says nothing that can be read. */
export function expiryOf(token: string): number | null {
  try {
    const { exp } = JSON.parse(Buffer.from(token.split(".")[1] ?? "", "base64url").toString()) as { exp?: unknown };
    return typeof exp === "number" ? exp * 1_000 : null;
  } catch {
    return null;
  }
}
