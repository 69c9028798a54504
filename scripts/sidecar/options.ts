import { parseArgs } from "node:util";
import { parseGate } from "../remote.ts";
import { usageFault } from "./ending.ts";
import { type ParentAddress, parseParent } from "./parent.ts";

export const usage = `Usage: portcullis agent --gate <origin> (--grant-command <cmd> | --provision <file>) [options] -- <command> [args]
       portcullis agent --sub-agent <file> [--parent <url or socket>] [options] -- <command> [args]

Runs a command as one governed instance: it calls http://127.0.0.1:<port>/<upstream>/… (in PORTCULLIS_URL) without any
credential; the sidecar holds key and grant, signs, renews, and gives the grant back when the command ends.

  --gate <origin>         the gate; or PORTCULLIS_GATE, or "gate" in the provision file
  --grant-command <cmd>   a program of your platform, run by the shell: it finds PORTCULLIS_PROOF and PORTCULLIS_GATE in its
                          environment, does the token exchange, and prints the token endpoint's JSON
  --provision <file>      for trying out and CI: the sidecar does the exchange itself, as the platform
  --sub-agent <file>      as a sub-agent of the instance whose sidecar has started this: what it is to be
  --parent <url or path>  … where that sidecar listens (default: PORTCULLIS_SOCKET, PORTCULLIS_URL)
  --env <NAME=/path>      sets NAME for the command to the sidecar's address with this path; e.g. OPENAI_BASE_URL=/model/v1
  --hide <NAME>           keeps NAME of this environment from the command (PORTCULLIS_* always are)
  --port <n>              listen on this port of 127.0.0.1 (default: any)
  --socket <path>         listen on a unix socket of mode 0600 instead (in PORTCULLIS_SOCKET)
  --stop-on-kill          end the command when the gate refuses the instance and its renewal
  --stop-after <seconds>  … and has done so for this long (default 0)
  --kill-after <seconds>  from SIGTERM to SIGKILL (default 5)
  --quiet                 say nothing but errors

Exit code: the command's own (128 + n for a signal); 2 usage; 3 no grant, or stopped by --stop-on-kill; 4 gate unreachable.`;

export interface Options {
  /** An origin; nothing: the provision file names it. */
  readonly gate: string | undefined;
  readonly from:
    | { readonly kind: "command"; readonly command: string }
    | { readonly kind: "file"; readonly path: string }
    | { readonly kind: "parent"; readonly parent: ParentAddress; readonly path: string };
  /** Names and paths that begin with a slash. */
  readonly addresses: readonly (readonly [name: string, path: string])[];
  readonly hidden: readonly string[];
  readonly listen:
    | { readonly kind: "port"; readonly port: number }
    | { readonly kind: "socket"; readonly path: string };
  /** Nothing: the command is left running. */
  readonly stopAfterMs: number | undefined;
  readonly killAfterMs: number;
  readonly quiet: boolean;
  readonly command: string;
  readonly args: readonly string[];
}

export type Environment = Readonly<Record<string, string | undefined>>;

/** Throws an `Ending` with what is wrong. */
export function parseOptions(all: readonly string[], env: Environment): Options {
  const at = all.indexOf("--");
  const [command, ...args] = at === -1 ? [] : all.slice(at + 1);
  const values = parseValues(at === -1 ? all : all.slice(0, at));
  if (command === undefined || command === "") throw usageFault("give a command after --");
  const gate = values.gate ?? (env["PORTCULLIS_GATE"] || undefined);
  if (values.socket !== undefined && values.port !== undefined) throw usageFault("--port or --socket, not both");
  if (values.socket !== undefined && values.env !== undefined)
    throw usageFault("--env needs a port: there is no URL of a unix socket that clients agree on");
  if (values["stop-after"] !== undefined && values["stop-on-kill"] !== true)
    throw usageFault("--stop-after belongs to --stop-on-kill");
  return {
    gate: gate === undefined ? undefined : parseGateOption(gate),
    from: parseFrom(values, env),
    addresses: (values.env ?? []).map(parseAddress),
    hidden: values.hide ?? [],
    listen:
      values.socket === undefined
        ? { kind: "port", port: parsePort(values.port ?? "0") }
        : { kind: "socket", path: values.socket },
    stopAfterMs: values["stop-on-kill"] === true ? parseSeconds("stop-after", values["stop-after"] ?? "0") : undefined,
    killAfterMs: parseSeconds("kill-after", values["kill-after"] ?? "5"),
    quiet: values.quiet === true,
    command,
    args,
  };
}

function parseValues(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      allowPositionals: false,
      options: {
        gate: { type: "string" },
        "grant-command": { type: "string" },
        provision: { type: "string" },
        "sub-agent": { type: "string" },
        parent: { type: "string" },
        env: { type: "string", multiple: true },
        hide: { type: "string", multiple: true },
        port: { type: "string" },
        socket: { type: "string" },
        "stop-on-kill": { type: "boolean" },
        "stop-after": { type: "string" },
        "kill-after": { type: "string" },
        quiet: { type: "boolean" },
      },
    }).values;
  } catch (cause) {
    throw usageFault((cause as Error).message);
  }
}

/** The grant is bound to a key, but what passes is not. */
export function parseGateOption(text: string): string {
  const gate = parseGate(text);
  if (!gate.ok) throw usageFault(`--gate ${text}: ${gate.error}`);
  return gate.value;
}

function parseFrom(values: ReturnType<typeof parseValues>, env: Environment): Options["from"] {
  const { "grant-command": command, provision, "sub-agent": subAgent, parent } = values;
  if ([command, provision, subAgent].filter((value) => value !== undefined).length !== 1)
    throw usageFault("give one of --grant-command, --provision and --sub-agent");
  if (parent !== undefined && subAgent === undefined) throw usageFault("--parent belongs to --sub-agent");
  if (command !== undefined) return { kind: "command", command };
  if (provision !== undefined) return { kind: "file", path: provision };
  const address = parent ?? (env["PORTCULLIS_SOCKET"] || env["PORTCULLIS_URL"]);
  if (address === undefined || address === "") throw usageFault("give --parent: this was not started by a sidecar");
  return { kind: "parent", parent: parseParent(address), path: subAgent! };
}

function parseAddress(text: string): readonly [string, string] {
  const [, name, path] = /^([A-Za-z_][A-Za-z0-9_]*)=(\/[\x21-\x7e]*)$/.exec(text) ?? [];
  if (name === undefined || path === undefined)
    throw usageFault(`--env ${text} is not a name and a path, such as OPENAI_BASE_URL=/model/v1`);
  if (name.startsWith("PORTCULLIS_")) throw usageFault(`--env ${name}: names of PORTCULLIS_ are the sidecar's own`);
  return [name, path];
}

function parsePort(text: string): number {
  if (!/^\d{1,5}$/.test(text) || Number(text) > 65_535) throw usageFault(`--port ${text} is not a port`);
  return Number(text);
}

function parseSeconds(name: string, text: string): number {
  if (!/^\d{1,6}(\.\d{1,3})?$/.test(text)) throw usageFault(`--${name} ${text} is not a number of seconds`);
  return Number(text) * 1000;
}
