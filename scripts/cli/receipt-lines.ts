// A switch's receipt in a few lines.

import type { Receipt, SwitchSummary } from "./gate-answers.ts";
import { count, utc } from "./printable.ts";
import { describeTarget } from "./target.ts";

const NAMED_MAX = 20;

const HOW_FAR: Readonly<Record<Receipt["status"], string>> = {
  accepted: ", and not through yet (accepted)",
  pending: ", and not through yet (pending)",
  done: "",
  resumed: ", and resumed before all had stopped",
};

const DID: Readonly<Record<Receipt["switch"]["act"], string>> = {
  kill: "Killed",
  pause: "Paused",
  narrow: "Narrowed",
};

/** Pure. */
export function receiptLines(receipt: Receipt, nowMs: number): string[] {
  const { switch: sw, status, opened, unconfirmed, missing, lastStoppedByMs, unheardShards = 0 } = receipt;
  const unreached = (receipt.unreached ?? []).slice(0, NAMED_MAX);
  const did = DID[sw.act];
  const does = sw.act === "narrow" ? "works with what is left" : "admits nothing";
  const lines = [
    `${did}${HOW_FAR[status]}: ${describeTarget(sw)}`,
    `  switch ${sw.id} at ${receipt.iss}, ${utc(sw.atMs)}${sw.untilMs === null ? "" : `, until ${utc(sw.untilMs)}`}`,
    `  by ${sw.by}: ${sw.reason}`,
    ...(sw.act === "narrow" ? [`  groups that are left: ${(sw.groups ?? []).join(", ") || "none"}`] : []),
    `  ${how(receipt)}`,
    `  ${timing(receipt)}`,
  ];
  if (unconfirmed > 0) lines.push(`  not confirmed yet: ${count(unconfirmed, "running call")}`);
  for (const { instance, stoppedByMs } of unreached)
    lines.push(
      `  not reached: ${instance}, ${does} ${stoppedByMs <= nowMs ? "since" : "from"} ${utc(stoppedByMs)}${stoppedByMs <= nowMs ? "" : " on"}`,
    );
  if (missing > unreached.length) {
    const last = lastStoppedByMs === null ? "" : `, the last ${does} from ${utc(lastStoppedByMs)} on`;
    lines.push(`  not reached: ${missing - unreached.length}${unreached.length > 0 ? " more" : ""}${last}`);
  }
  if (unheardShards > 0)
    lines.push(`  not answered yet: ${count(unheardShards, "roster shard")}, whose instances are not counted here`);
  if (opened !== null) lines.push(`  opened ${utc(opened.atMs)} by ${opened.by}: ${opened.reason}`);
  return lines;
}

/** Idle ones held no confirmation, so that they could do nothing: that they were not reached is no failure. */
function how({ reached, idle, cut, missing, unheardShards = 0 }: Receipt): string {
  const later = `${count(idle, "idle instance")} ${idle === 1 ? "learns" : "learn"} of it before the next call`;
  if (idle > 0 && reached === 0 && missing === 0 && unheardShards === 0) return `nobody was at work; ${later}`;
  return `reached ${count(reached, "instance")}, cut ${count(cut, "running call")}${idle === 0 ? "" : `; ${later}`}`;
}

/** Whether it still stands, which its status does not say. Null: its receipt tells when it was opened. */
export function standingLine({ switch: sw, opened }: Receipt): string | null {
  if (opened !== null) return null;
  if (sw.act === "narrow")
    return "  closed: whoever comes with an ID token from before has no other groups. Who signs in anew is not in its reach.";
  const opens = sw.act === "pause" ? "npx portcullis resume" : `npx portcullis lift ${sw.id}`;
  return `  closed: whoever is new in its reach is refused. To open it: ${opens} …`;
}

function timing({ cut, acceptedAtMs, lastAcknowledgedAtMs, lastByteAtMs }: Receipt): string {
  const acknowledged =
    lastAcknowledgedAtMs === null
      ? "nothing to acknowledge"
      : `acknowledged after ${lastAcknowledgedAtMs - acceptedAtMs} ms`;
  const lastByte =
    lastByteAtMs === null ? "no byte of a cut call passed" : `last byte ${distance(lastByteAtMs - acceptedAtMs)}`;
  return cut === 0 && lastByteAtMs === null ? acknowledged : `${acknowledged}, ${lastByte}`;
}

const distance = (ms: number): string => (ms < 0 ? `${-ms} ms before the switch` : `after ${ms} ms`);

/** A switch that names nobody is more often a typing error than a wish. */
export const reachesNobody = ({ status, reached, idle, missing }: Receipt): boolean =>
  status === "done" && reached === 0 && idle === 0 && missing === 0;

export const stateOf = ({ opened, status, untilMs, liftAskedBy }: SwitchSummary): string => {
  if (opened !== null) return "open";
  if (liftAskedBy.length > 0) return "lift asked";
  if (status !== "done") return status;
  return untilMs === null ? "closed" : "closed, timed";
};
