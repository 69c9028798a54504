// How a switch's target is written on the command line, and read aloud.

import { REACHES, type Reach } from "../../src/control/switch.ts";
import { emailDigest } from "../../src/identity/email-digest.ts";
import { CommandError, EXIT, UsageError } from "./command.ts";
import type { Connection } from "./connection.ts";
import type { Member, Target, Whereabouts } from "./gate-answers.ts";
import { listInstances, readWhereabouts } from "./gate-client.ts";

export const REACH_USAGE = `  instance <id, or an unambiguous beginning of it>
  task <id>
  human <id or e-mail address>
  agent <name>
  agent-version <name>@<version>
  upstream <name>
  mandate <id>
  agent-upstream <agent> <upstream>
  human-upstream <id or e-mail address> <upstream>
  everything`;

/** RFC 7638: the thumbprint of a key. */
const INSTANCE_CHARS = 43;

export interface Selector {
  readonly reach: Reach;
  readonly target: Target;
}

const REACH_NAMES = Object.keys(REACHES).join(", ");

const isReach = (text: string): text is Reach => Object.hasOwn(REACHES, text);

/** Pure. An instance may still be the beginning of one. */
export function parseSelector(operands: readonly string[]): Selector {
  const [reach, ...names] = operands;
  if (reach === undefined) throw new UsageError(`which reach? One of ${REACH_NAMES}`);
  if (!isReach(reach)) throw new UsageError(`${reach}: no such reach. There are ${REACH_NAMES}`);
  const parts = reach === "agent-version" ? splitVersion(names) : names;
  const members = REACHES[reach];
  if (parts.length !== members.length || parts.includes(""))
    throw new UsageError(
      members.length === 0 ? `${reach} has no target` : `${reach} needs its target: ${spell(reach)}`,
    );
  return { reach, target: Object.fromEntries(members.map((member, i) => [member, parts[i]!])) };
}

const spell = (reach: Reach): string =>
  reach === "agent-version" ? "<agent>@<version>" : REACHES[reach].map((member) => `<${member}>`).join(" ");

function splitVersion(names: readonly string[]): readonly string[] {
  const [name = ""] = names;
  const at = name.indexOf("@");
  return names.length === 1 && at !== -1 ? [name.slice(0, at), name.slice(at + 1)] : [];
}

/** The beginning of an id becomes the id. */
export async function resolveSelector(selector: Selector, connection: Connection): Promise<Selector> {
  const { reach, target } = selector;
  const beginning = target.instance;
  if (beginning === undefined || beginning.length >= INSTANCE_CHARS) return selector;
  if (connection.isBreakGlass)
    throw new UsageError("a break-glass key can't look up which instance that is: give the whole id");
  return { reach, target: { instance: (await findInstance(connection, beginning)).instance } };
}

/** The one instance whose id begins so. */
export async function findInstance(connection: Connection, beginning: string): Promise<Member> {
  const found = (await listInstances(connection)).filter(({ instance }) => instance.startsWith(beginning));
  const [one] = found;
  if (one !== undefined && found.length === 1) return one;
  throw new CommandError(
    one === undefined ? EXIT.no : EXIT.usage,
    one === undefined
      ? `No instance that is enrolled now begins with ${beginning} (npx portcullis ps lists them). Of one that has ended give the whole id.`
      : `${found.length} instances begin with ${beginning}. Give more of the id.`,
  );
}

/** The id of a human who is named by it, or by an address. People are known to the roster by a digest of their address. */
export async function humanOf(connection: Connection, named: string): Promise<string> {
  if (!named.includes("@")) return named;
  const digest = emailDigest(named);
  const found = (await listInstances(connection)).filter((member) => member.emailDigest === digest);
  const [human, ...others] = new Set(found.map((member) => member.human));
  if (human === undefined)
    throw new CommandError(
      EXIT.no,
      `Nobody with that address has an instance enrolled now: give the id, which is in every record and in the keys of the bucket.`,
    );
  if (others.length > 0)
    throw new CommandError(
      EXIT.usage,
      `${others.length + 1} humans have that address: ${[human, ...others].join(", ")}. Give the id.`,
    );
  return human;
}

/** Where a transcript lies: of an instance that has ended, and is on no list any more, by its whole id. */
export async function findWhereabouts(connection: Connection, idOrBeginning: string): Promise<Whereabouts> {
  try {
    return await readWhereabouts(connection, idOrBeginning);
  } catch (cause) {
    if (!(cause instanceof CommandError) || cause.exitCode !== EXIT.no) throw cause;
    return findInstance(connection, idOrBeginning);
  }
}

/** E.g. `agent triage-bot, upstream github`. */
export function describeTarget({ reach, target }: { readonly reach: string; readonly target: Target }): string {
  const { agent, agentVersion, ...others } = target;
  const names = {
    ...(agent === undefined ? {} : { agent: agentVersion === undefined ? agent : `${agent}@${agentVersion}` }),
    ...others,
  };
  const parts = Object.entries(names).flatMap(([member, value]) => (value === undefined ? [] : [`${member} ${value}`]));
  return parts.length === 0 ? reach : parts.join(", ");
}
