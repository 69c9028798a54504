// Who belongs to a process, on Linux: read from /proc, as it is at this moment.

import { readdirSync, readFileSync } from "node:fs";

export const hasProc = process.platform === "linux";

interface Member {
  readonly pid: number;
  readonly parent: number;
  readonly session: number;
}

const NOBODY: ReadonlySet<number> = new Set();

/**
 * `root`, its descendants, and with `isSession` everybody in the session that it leads: who was left behind by a parent that
 * ended has another parent by then, and nobody can join another's session.
 * @param apart whose descendants are not asked for
 */
export function treeOf(root: number, isSession: boolean, apart = NOBODY): readonly number[] {
  const all = readdirSync("/proc").flatMap((name) => (/^\d+$/.test(name) ? readMember(Number(name)) : []));
  const found = new Set<number>();
  for (const { pid, session } of all) if (pid === root || (isSession && session === root)) found.add(pid);
  // A child may be listed before its parent.
  for (let size = -1; size !== found.size; ) {
    size = found.size;
    for (const { pid, parent } of all) if (found.has(parent) && !apart.has(parent)) found.add(pid);
  }
  return [...found];
}

/** proc_pid_stat(5). The name may hold spaces and parentheses. Nobody, where it ended while we looked. */
function readMember(pid: number): Member[] {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const [state, parent, , session] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return state === "Z" ? [] : [{ pid, parent: Number(parent), session: Number(session) }];
  } catch {
    return [];
  }
}
