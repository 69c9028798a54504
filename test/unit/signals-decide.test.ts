// What an event does and to whom: two pure tables, asked line by line.

import { describe, expect, it } from "vitest";
import { findEventNameFault, type SignalOverride } from "../../src/config/signal-acts.ts";
import type { JsonObject } from "../../src/grant/compact.ts";
import { emailDigest } from "../../src/identity/email-digest.ts";
import { humanId } from "../../src/identity/id-token.ts";
import { decideEvents } from "../../src/signals/decide.ts";
import { parseSubject } from "../../src/signals/subject.ts";

const CAEP = "https://schemas.openid.net/secevent/caep/event-type/";
const RISC = "https://schemas.openid.net/secevent/risc/event-type/";
const SSF = "https://schemas.openid.net/secevent/ssf/event-type/";
const FOREIGN = "https://signals.example/event-type/laptop-stolen";
const IAT_MS = 1_900_000_000_000;
const HOUR_MS = 3_600_000;

const decide = (uri: string, payload: JsonObject = {}, overrides: Readonly<Record<string, SignalOverride>> = {}) =>
  decideEvents({ events: [{ uri, payload }], issuedAtMs: IAT_MS }, overrides, "groups");
/** In a word: what is done and until when, or what was said. */
function verdict(...asked: Parameters<typeof decide>): string {
  const decided = decide(...asked);
  if (!decided.ok) return `${decided.error.code}: ${decided.error.description}`;
  const [decision] = decided.value;
  if (decision?.kind !== "act") return decision?.kind === "ignore" ? decision.why : String(decision?.kind);
  if (decision.act === "narrow") return `narrow to ${decision.groups.join()} at ${decision.eventAtMs - IAT_MS}`;
  return `${decision.act} ${decision.untilMs === null ? "for good" : decision.untilMs - IAT_MS}`;
}

describe("an event", () => {
  const NOT = "such events are not acted upon";
  const MALFORMED = "invalid_request: token-claims-change: ";
  it.each<[uri: string, payload: JsonObject, expected: string]>([
    [`${CAEP}session-revoked`, {}, `kill ${HOUR_MS}`],
    [`${CAEP}credential-change`, { change_type: "revoke" }, `kill ${HOUR_MS}`],
    [`${CAEP}credential-change`, { change_type: "update" }, `kill ${HOUR_MS}`],
    [`${CAEP}credential-change`, { change_type: "delete" }, `kill ${HOUR_MS}`],
    [`${CAEP}credential-change`, { change_type: "create" }, "not acted upon with change_type create"],
    [`${CAEP}credential-change`, {}, "invalid_request: credential-change: change_type is missing, or not known"],
    [
      `${CAEP}credential-change`,
      { change_type: "REVOKE" },
      "invalid_request: credential-change: change_type is missing, or not known",
    ],
    [
      `${CAEP}credential-change`,
      { change_type: ["revoke"] },
      "invalid_request: credential-change: change_type is missing, or not known",
    ],
    [`${CAEP}risk-level-change`, { current_level: "HIGH" }, "pause for good"],
    [`${CAEP}risk-level-change`, { current_level: "MEDIUM" }, "not acted upon with current_level MEDIUM"],
    [`${CAEP}risk-level-change`, { current_level: "LOW" }, "not acted upon with current_level LOW"],
    [
      `${CAEP}risk-level-change`,
      { current_level: null },
      "invalid_request: risk-level-change: current_level is missing, or not known",
    ],
    [`${CAEP}token-claims-change`, { claims: { role: "admin" } }, "its claims do not name groups"],
    [`${CAEP}token-claims-change`, { claims: { groups: ["a"] } }, "narrow to a at 999"],
    [`${CAEP}token-claims-change`, { claims: { groups: null } }, "narrow to  at 999"],
    [`${CAEP}token-claims-change`, { claims: { groups: [] }, event_timestamp: 1_899_999_990 }, "narrow to  at -9001"],
    [
      `${CAEP}token-claims-change`,
      { claims: { groups: ["a"] }, event_timestamp: 1_900_000_060.5 },
      `${MALFORMED}event_timestamp is later than iat`,
    ],
    [
      `${CAEP}token-claims-change`,
      { claims: { groups: ["a"] }, event_timestamp: "now" },
      `${MALFORMED}event_timestamp is not a time in seconds`,
    ],
    [`${CAEP}token-claims-change`, {}, `${MALFORMED}claims is missing, or not an object`],
    [`${CAEP}token-claims-change`, { claims: ["groups"] }, `${MALFORMED}claims is missing, or not an object`],
    [
      `${CAEP}token-claims-change`,
      { claims: { groups: "a" } },
      `${MALFORMED}claims.groups is not a list of at most 500 strings`,
    ],
    [
      `${CAEP}token-claims-change`,
      { claims: { groups: [1] } },
      `${MALFORMED}claims.groups is not a list of at most 500 strings`,
    ],
    [
      `${CAEP}token-claims-change`,
      { claims: { groups: Array<string>(501).fill("a") } },
      `${MALFORMED}claims.groups is not a list of at most 500 strings`,
    ],
    [`${CAEP}assurance-level-change`, {}, NOT],
    [`${CAEP}device-compliance-change`, {}, NOT],
    [`${RISC}sessions-revoked`, {}, `kill ${HOUR_MS}`],
    [`${RISC}credential-compromise`, {}, `kill ${HOUR_MS}`],
    [`${RISC}account-disabled`, { reason: "hijacking" }, "kill for good"],
    [`${RISC}account-purged`, {}, "kill for good"],
    [`${RISC}account-enabled`, {}, NOT],
    [`${SSF}verification`, { state: "s" }, "stream"],
    [`${SSF}stream-updated`, { status: "paused" }, "stream"],
    [FOREIGN, {}, NOT],
    ["constructor", {}, NOT],
  ])("%s %j: %s", (uri, payload, expected) => expect(verdict(uri, payload)).toBe(expected));

  it.each<[uri: string, override: SignalOverride, payload: JsonObject, expected: string]>([
    [`${CAEP}session-revoked`, { act: "kill" }, {}, `kill ${HOUR_MS}`],
    [`${CAEP}session-revoked`, { act: "kill", blockSeconds: 60 }, {}, "kill 60000"],
    [`${CAEP}session-revoked`, { act: "kill", blockSeconds: null }, {}, "kill for good"],
    [`${CAEP}session-revoked`, { act: "pause" }, {}, "pause for good"],
    [`${CAEP}session-revoked`, { act: "ignore" }, {}, NOT],
    [`${RISC}account-disabled`, { act: "pause", blockSeconds: 60 }, {}, "pause 60000"],
    [`${CAEP}token-claims-change`, { act: "kill" }, {}, "kill for good"],
    [`${CAEP}token-claims-change`, { act: "ignore" }, { claims: { groups: [] } }, NOT],
    [FOREIGN, { act: "narrow" }, { claims: { groups: ["a"] } }, "narrow to a at 999"],
    [FOREIGN, { act: "kill", blockSeconds: 5 }, {}, "kill 5000"],
    // When it acts stays as it is.
    [`${CAEP}risk-level-change`, { act: "kill" }, { current_level: "HIGH" }, "kill for good"],
    [`${CAEP}risk-level-change`, { act: "kill" }, { current_level: "LOW" }, "not acted upon with current_level LOW"],
    [`${CAEP}risk-level-change`, { act: "ignore" }, { current_level: "HIGH" }, NOT],
  ])("does what the configuration says: %s %j %j", (uri, override, payload, expected) =>
    expect(verdict(uri, payload, { [uri]: override })).toBe(expected));

  it("says who set it in motion where that is one of four words, and nothing of its free text", () => {
    const decided = (payload: JsonObject) => decide(`${CAEP}session-revoked`, payload);
    const reason = (payload: JsonObject) => {
      const answer = decided(payload);
      return answer.ok && answer.value[0]?.kind === "act" ? answer.value[0].reason : undefined;
    };
    expect(reason({ initiating_entity: "policy", reason_admin: { en: "Ada left" } })).toBe(
      "security event session-revoked, initiated by policy",
    );
    expect(reason({ initiating_entity: "Ada" })).toBe("security event session-revoked");
  });

  it("is decided with the others of its SET, and none is where one is malformed", () => {
    const both = (level: string) => [
      { uri: `${CAEP}session-revoked`, payload: {} },
      { uri: `${CAEP}risk-level-change`, payload: { current_level: level } },
    ];
    const good = decideEvents({ events: both("HIGH"), issuedAtMs: IAT_MS }, {}, "groups");
    expect(good.ok && good.value.map((one) => one.kind === "act" && one.act)).toEqual(["kill", "pause"]);
    expect(decideEvents({ events: both("UNHEARD"), issuedAtMs: IAT_MS }, {}, "groups").ok).toBe(false);
  });

  it.each([
    [`${CAEP}session-revoked`, undefined],
    [FOREIGN, undefined],
    ["urn:example:event", undefined],
    ["session-revoked", "the URI of an event"],
    [`${FOREIGN} `, "the URI of an event"],
    [`${CAEP}sessions-revoked`, "no event of CAEP or RISC has this URI"],
    [`${SSF}verification`, "no event of CAEP or RISC has this URI"],
  ])("has a name that a configuration may use, or not: %s", (event, fault) =>
    expect(findEventNameFault(event)).toBe(fault));
});

describe("a subject", () => {
  const ISSUER = "https://idp.example";
  const rules = { issuer: ISSUER, criticalMembers: ["clearance", "tenant"] };
  const ada = { format: "iss_sub", iss: ISSUER, sub: "ada" };
  const human = { kind: "human", human: humanId(ISSUER, "ada") };
  const whom = (subject: JsonObject) => {
    const parsed = parseSubject(subject, rules);
    return parsed.ok ? parsed.value : `${parsed.error.code}: ${parsed.error.description}`;
  };

  it.each<[name: string, subject: JsonObject, expected: object]>([
    ["iss_sub", ada, human],
    [
      "email",
      { format: "email", email: "Ada@acme.example" },
      { kind: "human", human: emailDigest("ada@acme.example") },
    ],
    ["complex", { format: "complex", user: ada }, human],
    ["complex, with a device and a critical tenant", { format: "complex", user: ada, device: {}, tenant: {} }, human],
    ["complex, with a member that nobody calls critical", { format: "complex", user: ada, mood: {} }, human],
    [
      "complex, with a critical member that is not understood",
      { format: "complex", user: ada, clearance: {} },
      { kind: "discarded", why: "its subject has a critical member that is not understood" },
    ],
  ])("is known: %s", (_name, subject, expected) => expect(whom(subject)).toEqual(expected));

  const UNKNOWN = "not known here; iss_sub and email are, in the shape of RFC 9493";
  it.each<[name: string, subject: JsonObject, expected: string]>([
    ["nothing", {}, `invalid_request: sub_id: ${UNKNOWN}`],
    ["opaque", { format: "opaque", id: "ada" }, `invalid_request: sub_id: ${UNKNOWN}`],
    ["account", { format: "account", uri: "acct:ada@acme.example" }, `invalid_request: sub_id: ${UNKNOWN}`],
    ["aliases", { format: "aliases", identifiers: [ada] }, `invalid_request: sub_id: ${UNKNOWN}`],
    ["iss_sub without sub", { format: "iss_sub", iss: ISSUER }, `invalid_request: sub_id: ${UNKNOWN}`],
    ["iss_sub with an empty sub", { ...ada, sub: "" }, `invalid_request: sub_id: ${UNKNOWN}`],
    ["iss_sub with a number", { ...ada, sub: 1 }, `invalid_request: sub_id: ${UNKNOWN}`],
    ["an email that is none", { format: "email", email: "ada" }, `invalid_request: sub_id: ${UNKNOWN}`],
    ["no format", { iss: ISSUER, sub: "ada" }, `invalid_request: sub_id: ${UNKNOWN}`],
    [
      "complex without a user",
      { format: "complex", session: { format: "opaque", id: "s" } },
      "invalid_request: sub_id.user is missing: only people are known here",
    ],
    [
      "complex with an opaque user",
      { format: "complex", user: { format: "opaque", id: "ada" } },
      `invalid_request: sub_id.user: ${UNKNOWN}`,
    ],
    [
      "complex in complex",
      { format: "complex", user: { format: "complex", user: ada } },
      `invalid_request: sub_id.user: ${UNKNOWN}`,
    ],
    [
      "another provider's human",
      { ...ada, iss: `${ISSUER}/` },
      "access_denied: sub_id.iss is not the provider that this transmitter speaks for",
    ],
    [
      "another provider's human in complex",
      { format: "complex", user: { ...ada, iss: "https://other.example" } },
      "access_denied: sub_id.user.iss is not the provider that this transmitter speaks for",
    ],
  ])("is not known: %s", (_name, subject, expected) => expect(whom(subject)).toBe(expected));
});
