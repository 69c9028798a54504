/**
 * What a shared signal does, as data: a row for each event of CAEP 1.0 and RISC 1.0. A transmitter's `acts` say
 * otherwise by the event's URI, and what events of other makers do.
 */

/** `narrow` takes groups: those that the event does not list any more are lost. */
export const SIGNAL_ACTS = ["kill", "pause", "narrow", "ignore"] as const;
export type SignalAct = (typeof SIGNAL_ACTS)[number];

export interface SignalRule {
  readonly act: SignalAct;
  /** How long after the event was issued the switch stays closed; null: until somebody opens it. */
  readonly blockSeconds: number | null;
  /** The event's member that decides whether it acts. A value that stands in neither list is a malformed event. */
  readonly when?: { readonly member: string; readonly acts: readonly string[]; readonly spares: readonly string[] };
}

/** As a transmitter's configuration states it. */
export interface SignalOverride {
  readonly act: SignalAct;
  readonly blockSeconds?: number | null | undefined;
}

/** Who signed in before the event has an ID token that lives about so long. It must not start new instances. */
const ID_TOKEN_SECONDS = 3_600;

const IGNORE: SignalRule = { act: "ignore", blockSeconds: null };
const KILL_FOR_A_TIME: SignalRule = { act: "kill", blockSeconds: ID_TOKEN_SECONDS };
const KILL: SignalRule = { act: "kill", blockSeconds: null };

const NARROW: SignalRule = { act: "narrow", blockSeconds: null };

const CAEP: Readonly<Record<string, SignalRule>> = {
  "session-revoked": KILL_FOR_A_TIME,
  "credential-change": {
    ...KILL_FOR_A_TIME,
    when: { member: "change_type", acts: ["revoke", "update", "delete"], spares: ["create"] },
  },
  // Low again: what was paused waits for an operator all the same.
  "risk-level-change": {
    act: "pause",
    blockSeconds: null,
    when: { member: "current_level", acts: ["HIGH"], spares: ["LOW", "MEDIUM"] },
  },
  "token-claims-change": NARROW,
  "assurance-level-change": IGNORE,
  "device-compliance-change": IGNORE,
  "session-established": IGNORE,
  "session-presented": IGNORE,
};

const RISC: Readonly<Record<string, SignalRule>> = {
  "sessions-revoked": KILL_FOR_A_TIME,
  "credential-compromise": KILL_FOR_A_TIME,
  "account-disabled": KILL,
  "account-purged": KILL,
  "account-enabled": IGNORE,
  "account-credential-change-required": IGNORE,
  "identifier-changed": IGNORE,
  "identifier-recycled": IGNORE,
  "opt-in": IGNORE,
  "opt-out-initiated": IGNORE,
  "opt-out-cancelled": IGNORE,
  "opt-out-effective": IGNORE,
  "recovery-activated": IGNORE,
  "recovery-information-changed": IGNORE,
};

const OPENID_EVENTS = "https://schemas.openid.net/secevent/";

const RULES: ReadonlyMap<string, SignalRule> = new Map(
  Object.entries({ caep: CAEP, risc: RISC }).flatMap(([family, rules]) =>
    Object.entries(rules).map(([name, rule]) => [`${OPENID_EVENTS}${family}/event-type/${name}`, rule] as const),
  ),
);

/** About the stream itself, and about nobody (SSF 1.0 §8.1). */
export const STREAM_EVENTS: readonly string[] = [
  `${OPENID_EVENTS}ssf/event-type/verification`,
  `${OPENID_EVENTS}ssf/event-type/stream-updated`,
];

const EVENT_MAX_CHARS = 255;

/** RFC 8417 §2.2: events are named by URIs. */
export const isEventUri = (text: string): boolean =>
  text.length <= EVENT_MAX_CHARS && /^[a-z][a-z0-9+.-]*:[!-~]+$/i.test(text);

/** What is wrong with the name of an event in a configuration. A slip in it would leave an act without effect. */
export function findEventNameFault(event: string): string | undefined {
  if (!isEventUri(event)) return "the URI of an event";
  if (event.startsWith(OPENID_EVENTS) && !RULES.has(event)) return "no event of CAEP or RISC has this URI";
  return undefined;
}

/** An override changes what is done, and not when: the member that decides goes on deciding. */
export function signalRule(event: string, overrides: Readonly<Record<string, SignalOverride>>): SignalRule {
  const rule = RULES.get(event) ?? IGNORE;
  const override = Object.hasOwn(overrides, event) ? overrides[event] : undefined;
  if (override === undefined) return rule;
  const { act, blockSeconds = act === rule.act ? rule.blockSeconds : null } = override;
  return { ...rule, act, blockSeconds };
}
