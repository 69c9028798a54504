// What is pulled: everything, or of a human, a task, an instance, a span of time, and of all of them together.

import { KEY_ID } from "../../src/transcript/layout.ts";
import { listFolders, type ObjectSource } from "../local/object-source.ts";
import { UsageError } from "./command.ts";

export interface PullScope {
  readonly human?: string | undefined;
  readonly task?: string | undefined;
  readonly instance?: string | undefined;
  /** Both or none. */
  readonly fromMs?: number | undefined;
  readonly toMs?: number | undefined;
}

export interface ScopeOptions {
  readonly human?: string | undefined;
  readonly task?: string | undefined;
  readonly instance?: string | undefined;
  readonly from?: string | undefined;
  readonly to?: string | undefined;
  readonly all?: boolean | undefined;
}

/** Nothing said: everything. */
export function parseScope({ human, task, instance, from, to, all }: ScopeOptions, nowMs: number): PullScope {
  const named = Object.entries({ human, task, instance }).filter(
    (pair): pair is [string, string] => pair[1] !== undefined,
  );
  for (const [name, id] of named)
    if (!KEY_ID.test(id)) throw new UsageError(`--${name} ${id}: not an id, as ps and transcripts have it`);
  if (from === undefined && to !== undefined) throw new UsageError("--to needs --from");
  const span =
    from === undefined
      ? {}
      : { fromMs: parseTime(from, "--from"), toMs: to === undefined ? nowMs : parseTime(to, "--to") };
  if (span.fromMs !== undefined && span.toMs < span.fromMs) throw new UsageError("--to is before --from");
  const scope: PullScope = { ...Object.fromEntries(named), ...span };
  if (all === true && Object.keys(scope).length > 0) throw new UsageError("--all, and what it is of: say one of them");
  return scope;
}

function parseTime(text: string, name: string): number {
  const isTime = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?(Z|[+-]\d{2}:\d{2}))?$/.test(text);
  const timeMs = /^\d{1,13}$/.test(text) ? Number(text) : isTime ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(timeMs))
    throw new UsageError(`${name} ${text}: not a time; say 2026-11-22, 2026-11-22T15:00Z, or milliseconds since 1970`);
  return timeMs;
}

export const isAll = (scope: PullScope): boolean => Object.keys(scope).length === 0;

/** Folders, behind `transcripts/` and behind `bodies/`, in which everything of these ids lies. Without ids: of everybody. */
export async function findFolders(source: ObjectSource, { human, task, instance }: PullScope): Promise<string[]> {
  if (human === undefined && task === undefined && instance === undefined) return [""];
  const humans = human === undefined ? await under(source, "", "human=") : [`human=${human}/`];
  if (task === undefined && instance === undefined) return humans;
  const folders: string[] = [];
  for (const folder of humans) {
    const tasks = task === undefined ? await under(source, folder, "task=") : [`${folder}task=${task}/`];
    folders.push(...tasks.map((path) => (instance === undefined ? path : `${path}instance=${instance}/`)));
  }
  return folders;
}

/** What stands in either half: of a transcript that is gone, its bodies may still be there. */
async function under(source: ObjectSource, folder: string, begins: string): Promise<string[]> {
  const found = new Set<string>();
  for (const half of ["transcripts/", "bodies/"])
    for (const path of await listFolders(source, `${half}${folder}`)) found.add(path.slice(half.length));
  return [...found].filter((path) => path.slice(folder.length).startsWith(begins)).sort();
}
