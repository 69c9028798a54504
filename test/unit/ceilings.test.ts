// The layers of a call, and what a human has lost, over random stacks: no call passes that any layer alone would refuse, and
// nothing that is lost ever comes back.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { LiveCeilings } from "../../durable-objects/live-ceilings.ts";
import { type Config, type ConfigSource, defineConfig } from "../../src/config/define.ts";
import { allEntitled, entitlementParts, groupOfPlace, groupsThatCount } from "../../src/config/entitlements.ts";
import type { ScopeEntry } from "../../src/config/layers.ts";
import { endOfSecondMs, groupsLeft, narrowingUntilMs } from "../../src/control/narrowing.ts";
import type { Switch } from "../../src/control/switch.ts";
import type { Deployment } from "../../src/deployment.ts";
import { emailDigest } from "../../src/identity/email-digest.ts";
import { type Bounded, ceilingsOf, findExcess, permitsOf } from "../../src/instance/ceilings.ts";
import type { Enrolment } from "../../src/instance/contract.ts";
import type { Call, Json } from "../../src/scope/call.ts";
import { findPermit } from "../../src/scope/decide.ts";
import { parseEntries } from "../../src/scope/entry.ts";
import base from "../workerd/config.ts";

const POOL: readonly ScopeEntry[] = [
  { type: "http", upstream: "github", operations: ["GET /{+all}"] },
  { type: "http", upstream: "github", operations: ["GET /{a}", "POST /{a}"], where: { a: ["x", "y"] } },
  { type: "http", upstream: "github", operations: ["POST /{+all}"] },
  { type: "http", upstream: "github", operations: ["POST /x"], where: { "body./n": [1] } },
  { type: "http", upstream: "github", operations: ["GET /x/{b}"], where: { b: ["1"] } },
];
const GROUPS = ["g1", "g2", "g3", "constructor", "a[0]"];
const ADDRESS = "Ada@acme.example";
const ID = "i".repeat(43);

const layer = fc.oneof(
  { weight: 1, arbitrary: fc.subarray([...POOL]) },
  { weight: 2, arbitrary: fc.subarray([...POOL], { minLength: 3 }) },
);
const groups = fc.subarray(GROUPS);
const who: fc.Arbitrary<Bounded> = fc.record({
  groups,
  human: fc.constantFrom("another", "another", "another", ID),
  emailDigest: fc.constantFrom(null, null, "other", emailDigest(ADDRESS)),
  emailUnverified: fc.constantFrom(undefined, true as const),
  agent: fc.constantFrom("triage-bot", "triage-bot", "triage-bot", "triage-bot", "nobody"),
  parentScope: fc.option(layer as unknown as fc.Arbitrary<Json[]>),
});
const configs: fc.Arbitrary<Config> = fc
  .record({
    ceiling: layer,
    boundaries: layer,
    byGroup: fc.array(layer, { minLength: GROUPS.length - 1, maxLength: GROUPS.length - 1 }),
    byAddress: layer,
    byId: layer,
  })
  .map(({ ceiling, boundaries, byGroup, byAddress, byId }) =>
    withLayers({
      ceiling,
      boundaries,
      // The last group is in no configuration.
      groups: Object.fromEntries(byGroup.map((entries, i) => [GROUPS[i]!, entries])),
      humans: { [ADDRESS]: byAddress, [ID]: byId },
    }),
  );

interface Layers {
  readonly ceiling: readonly ScopeEntry[];
  readonly boundaries: readonly ScopeEntry[];
  readonly groups: Readonly<Record<string, readonly ScopeEntry[]>>;
  readonly humans: Readonly<Record<string, readonly ScopeEntry[]>>;
}
const entriesOf = (given: readonly ScopeEntry[]) => {
  const parsed = parseEntries(given, "");
  if (!parsed.ok) throw new Error(parsed.error.message);
  return parsed.value;
};
const each = (table: Readonly<Record<string, readonly ScopeEntry[]>>) =>
  Object.fromEntries(Object.entries(table).map(([name, given]) => [name, entriesOf(given)]));
/** As `defineConfig` would make it, without asking it for each of a thousand. */
const withLayers = ({ ceiling, boundaries, groups, humans }: Layers): Config => ({
  ...base,
  agents: { "triage-bot": { ...base.agents["triage-bot"]!, ceiling: entriesOf(ceiling) } },
  boundaries: entriesOf(boundaries).map((entry) => ({ ...entry, approval: null })),
  entitlements: { groups: each(groups), humans: each(humans) },
});

const calls: fc.Arbitrary<Call> = fc.record({
  upstream: fc.constantFrom("github", "github", "github", "github", "slack"),
  method: fc.constantFrom("GET", "GET", "GET", "POST", "POST", "DELETE"),
  segments: fc.constantFrom(["x"], ["y"], ["z"], ["x", "1"], ["x", "2"]),
  query: fc.constant([]),
  body: fc.constantFrom<Call["body"]>({ kind: "none" }, { kind: "json", value: { n: 1 } }, { kind: "opaque" }),
});
const NOW_MS = 1_000_000;
const narrowing = (change: Partial<Switch> = {}): Switch => ({
  id: "s",
  reach: "human",
  target: { human: "h" },
  act: "narrow",
  reason: "test",
  by: "admin",
  cause: null,
  atMs: NOW_MS,
  untilMs: null,
  ...change,
});
const stated = fc.record({ groups, groupsAtMs: fc.integer({ min: NOW_MS - 5, max: NOW_MS + 5 }) });
const narrowings = fc.array(
  fc.record({ groups, eventAtMs: fc.integer({ min: NOW_MS - 5, max: NOW_MS + 5 }) }).map(narrowing),
  { maxLength: 4 },
);

describe("a stack of layers", () => {
  it("lets no call pass that any layer alone would refuse, refuses none that all allow, and names what decided", () => {
    let [allowed, refused] = [0, 0];
    fc.assert(
      fc.property(configs, who, calls, (config, one, call) => {
        const stack = ceilingsOf(config, one);
        const alone = stack.map(({ entries }) => findPermit(entries, call) !== undefined);
        const permits = permitsOf(stack, call);
        expect(permits.ok).toBe(alone.every(Boolean));
        if (permits.ok) {
          allowed++;
          for (const [i, { layer, at }] of permits.value.entries()) {
            expect(layer).toBe(stack[i]!.name);
            const entry = stack[i]!.entries[stack[i]!.places.indexOf(at)]!;
            expect(findPermit([entry], call)).toBeDefined();
          }
        } else {
          refused++;
          expect(permits.error).toMatchObject({ kind: "absent", layer: stack[alone.indexOf(false)]!.name });
        }
      }),
      { numRuns: 1_500 },
    );
    expect(Math.min(allowed, refused)).toBeGreaterThan(100);
  });

  it("holds a scope at the token endpoint as it holds its calls: what is within can be called, and what is beyond is named", () => {
    fc.assert(
      fc.property(configs, who, layer, calls, (config, one, scope, call) => {
        const stack = ceilingsOf(config, one);
        const entries = entriesOf(scope);
        const excess = findExcess(entries, stack);
        if (excess === null) {
          if (findPermit(entries, call) !== undefined) expect(permitsOf(stack, call).ok).toBe(true);
        } else {
          expect(entries[excess.entry]!.operations.map(({ text }) => text)).toContain(excess.operation);
          expect(stack.map(({ name }) => name)).toContain(excess.layer);
        }
      }),
      { numRuns: 1_000 },
    );
  });
});

describe("what a human has lost", () => {
  it("is never permitted again, whatever comes after it and in whatever order", () => {
    let lost = 0;
    fc.assert(
      fc.property(configs, who, stated, narrowings, narrowings, calls, (config, one, word, some, more, call) => {
        const may = (list: typeof some) =>
          permitsOf(ceilingsOf(config, { ...one, groups: groupsLeft(word, list) }), call).ok;
        const all = [...some, ...more];
        // Each one takes away: nothing that a part of them refuses is allowed by all of them, nor by none.
        if (!may([])) expect(may(some)).toBe(false);
        if (!may(some)) expect(may(all)).toBe(false);
        expect(may([...all].reverse())).toBe(may(all));
        if (may([]) && !may(all)) lost++;
      }),
      { numRuns: 1_500 },
    );
    expect(lost).toBeGreaterThan(20);
  });

  it("is what was lost after the provider's word, and nothing of before", () => {
    fc.assert(
      fc.property(stated, narrowings, (word, list) => {
        const left = groupsLeft(word, list);
        for (const group of word.groups) {
          const isLost = list.some(
            ({ groups: kept = [], eventAtMs = 0 }) => word.groupsAtMs < eventAtMs && !kept.includes(group),
          );
          expect(left.includes(group)).toBe(!isLost);
        }
        expect(left.every((group) => word.groups.includes(group))).toBe(true);
      }),
    );
  });

  it("is everything, where a narrowing does not say what is left, and nothing by a kill", () => {
    const word = { groups: ["g1"], groupsAtMs: 5 };
    const sw = narrowing();
    expect(groupsLeft(word, [sw])).toEqual([]);
    expect(groupsLeft(word, [{ ...sw, act: "kill", groups: [], eventAtMs: 9 }])).toEqual(["g1"]);
    expect(groupsLeft(word, [{ ...sw, groups: [], eventAtMs: 5 }])).toEqual(["g1"]);
    expect(groupsLeft(word, [{ ...sw, groups: [], eventAtMs: 6 }])).toEqual([]);
  });

  it("is remembered until no ID token from before is taken; a second is over at its end", () => {
    const provider = base.identityProviders["corp"]!;
    const identityProviders = {
      a: { ...provider, maxTokenAgeSeconds: 60 },
      b: { ...provider, maxTokenAgeSeconds: 10 },
    };
    expect(narrowingUntilMs({ identityProviders }, 1_000) - 1_000).toBeGreaterThanOrEqual(60_000 + 60_000);
    expect([endOfSecondMs(5), endOfSecondMs(5.9)]).toEqual([5_999, 5_999]);
  });
});

describe("a sub-agent", () => {
  const call: Call = { upstream: "github", method: "GET", segments: ["x"], query: [], body: { kind: "none" } };
  const enrolment = {
    human: ID,
    emailDigest: null,
    groups: ["g1"],
    groupsAtMs: 1,
    agent: "summariser",
    chain: [{ agent: "triage-bot" }, { agent: "summariser" }],
    scope: [POOL[0]!],
    parentScope: [POOL[0]!],
  } as unknown as Enrolment;
  const asOf = (ceiling: readonly ScopeEntry[]) => {
    const config = withLayers({ ceiling, boundaries: [POOL[0]!], groups: { g1: [POOL[0]!] }, humans: {} });
    const summariser = { ...config.agents["triage-bot"]!, ceiling: entriesOf([POOL[0]!]) };
    const agents = { ...config.agents, summariser };
    return new LiveCeilings(
      () => ({ config: { ...config, agents } }) as unknown as Deployment,
      () => [],
    );
  };

  it("may do no more than the agents above it, as the configuration has them now", () => {
    const permits = asOf([POOL[0]!]).permitsOf(enrolment, call);
    expect(permits.ok && permits.value.map(({ at }) => at)).toEqual([
      "parent[0]",
      "entitlements.groups.g1[0]",
      "agents.summariser.ceiling[0]",
      "agents.triage-bot.ceiling[0]",
      "boundaries[0]",
    ]);
    // Taken from the agent above since: it can't have it done by a child that it had before.
    expect(asOf([]).permitsOf(enrolment, call)).toMatchObject({ ok: false, error: { layer: "agent" } });
    expect(asOf([]).exceeding(enrolment, [])).toEqual(["g1"]);
  });
});

describe("entitlements", () => {
  const some = [POOL[0]!];
  const humans = { "Ada@ACME.example": some };
  const { entitlements } = withLayers({ ceiling: [], boundaries: [], groups: { g1: some }, humans });
  const nobody = { human: ID, emailDigest: null, groups: [] };
  const placesOf = (one: Parameters<typeof entitlementParts>[1]) =>
    entitlementParts(entitlements, one).flatMap(([place, entries]) => (entries.length === 0 ? [] : [place]));

  it("of a human who is named by address go by its digest, however it is spelled, and only where it is verified", () => {
    const digest = emailDigest("ada@acme.example");
    expect(placesOf({ ...nobody, emailDigest: digest })).toEqual([`entitlements.humans.${digest}`]);
    expect(placesOf({ ...nobody, emailDigest: digest, emailUnverified: true })).toEqual([]);
    expect(placesOf({ ...nobody, groups: ["g1", "constructor"] })).toEqual(["entitlements.groups.g1"]);
    expect(placesOf(nobody)).toEqual([]);
  });

  it("know which groups count, and a place says its group whatever the name", () => {
    expect(groupsThatCount(entitlements, ["zzz", "g1", "constructor", "g1"])).toEqual(["g1"]);
    expect(groupOfPlace("entitlements.groups.a[0].b[1][2]")).toBe("a[0].b[1]");
    expect(groupOfPlace(`entitlements.humans.${ID}[0]`)).toBeNull();
    expect(groupOfPlace("entitlements.groups.a")).toBeNull();
  });

  it("are all told to who reads the facts of a call", () => {
    expect(allEntitled(entitlements)).toEqual([...entriesOf(some), ...entriesOf(some)]);
  });

  it("are optional by name", () => {
    const config = defineConfig({
      origin: "https://gate.test",
      identityProviders: { corp: { issuer: "https://idp.test", jwksUri: "https://idp.test/jwks" } },
      platforms: {},
      agents: {},
      upstreams: {},
      entitlements: { groups: {} },
      boundaries: [],
      admins: { identityProvider: "corp", audience: "a", roles: {} },
    } as unknown as ConfigSource);
    expect(config.entitlements.humans).toEqual({});
    expect(config.identityProviders["corp"]?.maxTokenAgeSeconds).toBe(86_400);
  });
});
