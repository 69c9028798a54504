// An entry of a story in words for a person. Whatever it quotes is made fit for a terminal where it is said.

import { count, utc } from "./printable.ts";
import type { RecordLine } from "./record-line.ts";
import type { Beginning, CallEntry, Entry, Event, Refusal } from "./story.ts";

/** Lines without their newline. */
export function entryLines(entry: Entry): string[] {
  switch (entry.entry) {
    case "instance":
      return beginningLines(entry);
    case "call":
      return [callLine(entry)];
    case "refused":
      return [refusalLine(entry)];
    case "event":
      return [eventLine(entry)];
  }
}

function beginningLines(from: Beginning): string[] {
  const { agent, agentVersion, manifest, chain, scope } = from;
  const facts: [name: string, value: string][] = [
    ["instance", from.instance],
    ["agent", `${agent} ${agentVersion}, model ${manifest.model}, prompt ${manifest.promptDigest}`],
    ["for", `human ${from.human}`],
    ["sent by", from.client],
    ["chain", chain.map((actor) => `${actor.agent} (${actor.client})`).join(" > ")],
    ...(from.parent === null ? [] : [["parent", from.parent] as [string, string]]),
    ...(from.mandate === undefined ? [] : [["mandate", from.mandate] as [string, string]]),
    ["task", from.task],
    ["purpose", from.purpose],
    ["from", utc(from.atMs)],
    ["until", from.deadline === null ? "" : utc(from.deadline)],
    ...scope.map((one, at): [string, string] => [at === 0 ? "may" : "", scopeLine(one)]),
  ];
  return [...facts.map(([name, value]) => `${name.padEnd(10)}${value}`.trimEnd()), ""];
}

const OPERATIONS_SHOWN = 3;
const VALUES_SHOWN = 5;

/** In short: the first operations, and each condition as JSON has it. */
function scopeLine({ upstream, operations, where = {} }: Beginning["scope"][number]): string {
  const conditions = Object.entries(where).map(([name, values]) => `${name} ${valuesOf(values)}`);
  const ops = someOf(operations, OPERATIONS_SHOWN).join("; ");
  return `${upstream}: ${ops}${conditions.length === 0 ? "" : ` where ${conditions.join(", ")}`}`;
}

const valuesOf = (values: unknown): string =>
  Array.isArray(values)
    ? someOf(
        values.map((value) => (typeof value === "string" ? value : JSON.stringify(value))),
        VALUES_SHOWN,
      ).join(" or ")
    : JSON.stringify(values);

const someOf = (all: readonly string[], most: number): readonly string[] =>
  all.length <= most ? all : [...all.slice(0, most), `${all.length - most} more`];

const head = (atMs: number, seq: number): string => `${utc(atMs)} ${String(seq).padStart(5)} `;
const join = (...parts: (string | null)[]): string => parts.filter((part) => part !== null && part !== "").join("  ");

const callLine = (call: CallEntry): string => callWords(head(call.atMs, call.seq), call);

/** Of the answer to a call that was told as running. */
export const answerLine = (call: CallEntry): string =>
  callWords(`${head(call.answeredAtMs ?? call.atMs, call.seq)} answer to`, call);

function callWords(beginning: string, call: CallEntry): string {
  const { outcome, status, operation, method, target } = call;
  const isKnown = outcome !== "running" && outcome !== "lost";
  return join(
    `${beginning} ${method} ${target}`,
    call.upstream,
    operation === null ? null : `[${operation}]`,
    call.approvedBy === null ? null : `approved by ${call.approvedBy}`,
    `${status === null ? "" : `${status} `}${outcomeOf(call)}`,
    call.durationMs === null ? null : duration(call.durationMs),
    isKnown ? `${size(call.sentBytes)} up, ${size(call.receivedBytes)} down` : null,
    call.redacted === 0 ? null : `${count(call.redacted, "value")} redacted`,
  );
}

function outcomeOf({ outcome, cause, switch: by, reason, upstreamOutcome }: CallEntry): string {
  const why = [
    cause === "narrowed" ? "narrowed: the human lost the group that allowed it" : cause,
    by === null ? null : `switch ${by}`,
    cause === null ? reason : null,
    upstreamOutcome === null ? null : `what the upstream did is ${upstreamOutcome}`,
  ].filter((part) => part !== null);
  return why.length === 0 ? outcome : `${outcome} (${why.join(", ")})`;
}

function refusalLine({ atMs, seq, method, target, layer, kind, reason, counted, upstream }: Refusal): string {
  if (counted !== null) return `${head(atMs, seq)} REFUSED  ${count(counted, "more call")} within a minute`;
  return join(`${head(atMs, seq)} REFUSED ${method} ${target}`, upstream, `${layer ?? kind}: ${reason ?? kind}`);
}

const word = (value: unknown): string =>
  typeof value === "string" || typeof value === "number"
    ? String(value)
    : value === null || value === undefined
      ? ""
      : JSON.stringify(value);

type Words = (record: RecordLine) => string;

/** A null prototype: a record of type `constructor` finds nothing. */
const EVENTS: Readonly<Record<string, Words>> = Object.assign(Object.create(null) as Record<string, Words>, {
  renewed: ({ issued, expires }) =>
    `renewed: grant ${word(issued)}${typeof expires === "number" ? ` until ${utc(expires)}` : ""}`,
  switched: ({ act, reach, by, reason, switch: id, causedBy, until, groups }) =>
    [
      act === "narrow"
        ? `NARROWED: of the human's groups, ${Array.isArray(groups) && groups.length > 0 ? `only ${groups.map(word).join(", ")}` : "none"} from here on, by ${word(by) || "nobody known"}`
        : `SWITCHED: ${word(act)} of ${word(reach)} by ${word(by) || "nobody known"}`,
      word(reason) === "" ? "" : `: ${word(reason)}`,
      word(causedBy) === "" ? "" : ` (because of ${word(causedBy)})`,
      typeof until === "number" && act !== "narrow" ? ` until ${utc(until)}` : "",
      word(id) === "" ? "" : `  switch ${word(id)}`,
    ].join(""),
  signal: ({ rule, signal, value, threshold, windowSeconds, mode, act, reach, seen, differs }) =>
    rule === null
      ? `SIGNAL ${word(signal)}: ${word(seen)}, ${word(value)} (at ${word(threshold)})${Array.isArray(differs) ? `; differs: ${differs.map(word).join(", ")}` : ""}`
      : `SIGNAL ${word(rule)}: ${word(value)} ${word(signal)}${word(windowSeconds) === "" ? "" : ` in ${word(windowSeconds)} s`} (at ${word(threshold)}), ${word(mode)}: ${word(act)} of ${word(reach)}`,
  delegated: ({ act, child, childAgent, purpose, limits, spent }) =>
    act === "return"
      ? `SUB-AGENT ENDED: ${word(child)}, spent ${word(spent)}`
      : act === "end"
        ? `SUB-AGENT ${word(child)} is ended by its parent`
        : `DELEGATED to ${word(childAgent)} ${word(child)}: ${word(purpose)}  limits ${word(limits)}`,
  approval: ({ approval, state, method, target, by, reason, expires, validUntil }) =>
    [
      `APPROVAL ${word(state)}`,
      word(method) === "" ? "" : `: ${word(method)} ${word(target)}`,
      word(by) === "" ? "" : ` by ${word(by)}`,
      word(reason) === "" ? "" : `: ${word(reason)}`,
      typeof expires === "number" ? ` until ${utc(expires)}` : "",
      typeof validUntil === "number" ? `, once, until ${utc(validUntil)}` : "",
      `  approval ${word(approval)}`,
    ].join(""),
  ended: ({ cause, calls, bytes }) =>
    `ENDED: ${word(cause)}${typeof calls === "number" ? `, ${count(calls, "call")}` : ""}${typeof bytes === "number" ? `, ${size(bytes)}` : ""}`,
} satisfies Record<string, Words>);

const eventLine = ({ type, seq, atMs, record }: Event): string =>
  `${head(atMs, seq)} ${EVENTS[type]?.(record) ?? `${type} (a record that this version does not know)`}`;

const duration = (ms: number): string => (ms < 10_000 ? `${ms} ms` : `${(ms / 1_000).toFixed(1)} s`);

const UNITS = ["KiB", "MiB", "GiB", "TiB"] as const;

export function size(bytes: number | null): string {
  if (bytes === null) return "?";
  if (bytes < 1_024) return `${bytes} B`;
  let value = bytes / 1_024;
  let unit = 0;
  for (; value >= 1_024 && unit < UNITS.length - 1; unit++) value /= 1_024;
  return `${value.toFixed(1)} ${UNITS[unit]}`;
}
