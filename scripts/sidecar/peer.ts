// Whose connection it is, on Linux: the socket at its other end, and whether a process of the tree holds that.

import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import type { Socket } from "node:net";

/** Of these processes, those that hold it. Nobody where it can't be told: a process that hides its descriptors is nobody. */
export function holdersOf(socket: Socket, pids: readonly number[]): readonly number[] {
  const { remotePort, localPort } = socket;
  if (remotePort === undefined || localPort === undefined) return [];
  const inode = inodeOf(remotePort, localPort);
  return inode === undefined ? [] : pids.filter((pid) => holds(pid, inode));
}

/** 127.0.0.1 in the tables of both families: a client may have a socket of IPv6 that speaks IPv4. */
const LOOPBACK = ["0100007F", "0000000000000000FFFF00000100007F"];

function inodeOf(localPort: number, remotePort: number): string | undefined {
  const hex = (port: number) => port.toString(16).toUpperCase().padStart(4, "0");
  const [from, to] = [hex(localPort), hex(remotePort)];
  for (const table of ["/proc/self/net/tcp", "/proc/self/net/tcp6"]) {
    for (const line of readTable(table)) {
      // proc_net_tcp: sl local_address rem_address st … inode. 0 is a socket that nobody holds any more.
      const [, local, remote, , , , , , , inode] = line.trim().split(/\s+/);
      if (inode === undefined || inode === "0") continue;
      if (LOOPBACK.some((address) => local === `${address}:${from}` && remote === `${address}:${to}`)) return inode;
    }
  }
  return undefined;
}

function readTable(path: string): string[] {
  try {
    return readFileSync(path, "latin1").split("\n").slice(1);
  } catch {
    return [];
  }
}

function holds(pid: number, inode: string): boolean {
  try {
    const wanted = `socket:[${inode}]`;
    return readdirSync(`/proc/${pid}/fd`).some((fd) => linkOf(`/proc/${pid}/fd/${fd}`) === wanted);
  } catch {
    return false;
  }
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined;
  }
}
