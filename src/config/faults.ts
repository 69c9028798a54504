import { isLoopback } from "../loopback.ts";
import type { Entry } from "../scope/entry.ts";
import { credentialHeaderOf, tokenEndpointOf } from "./credential.ts";
import { findDelegationFaults } from "./delegation.ts";
import { findForwardingFault } from "./forward-headers.ts";
import { findIdJagFaults } from "./id-jag.ts";
import { leastReserveOf } from "./least-reserve.ts";
import { findMandateFaults } from "./mandates.ts";
import { findMeterFaults, type Metering } from "./meters.ts";
import { findRangeFaults } from "./ranges.ts";
import type { Config } from "./shape.ts";

/** What is wrong, and where. */
export interface Fault {
  readonly path: readonly (string | number)[];
  readonly message: string;
}

const fault = (path: Fault["path"], message: string): Fault => ({ path, message });

/** What must hold between the parts of a configuration. A row for each concern. */
const FINDERS: readonly ((config: Config) => readonly Fault[])[] = [
  findUnknownNames,
  findSharedAudiences,
  findUnknownUpstreams,
  findForwardingFaults,
  findDelegationFaults,
  findPlainHttp,
  findMeteringFaults,
  findQuotaFaults,
  findMandateFaults,
  findIdJagFaults,
  findSubAgentFaults,
  findApprovalFaults,
  findRangeFaults,
];

export const findFaults = (config: Config): readonly Fault[] => FINDERS.flatMap((find) => find(config));

const unknown = (path: Fault["path"], what: string, name: string, known: object, under: string): readonly Fault[] =>
  Object.hasOwn(known, name) ? [] : [fault(path, `no ${what} "${name}" under ${under}`)];

function findUnknownNames({ agents, identityProviders, platforms, admins, transmitters, rules }: Config): Fault[] {
  const provider = (path: Fault["path"], name: string) =>
    unknown(path, "provider", name, identityProviders, "identityProviders");
  const agent = (path: Fault["path"], name: string) => unknown(path, "agent", name, agents, "agents");
  return [
    ...Object.entries(platforms).flatMap(([name, platform]) => [
      ...agent(["platforms", name, "agent"], platform.agent),
      ...provider(["platforms", name, "identityProvider"], platform.identityProvider),
    ]),
    ...provider(["admins", "identityProvider"], admins.identityProvider),
    ...Object.entries(transmitters).flatMap(([name, { identityProvider }]) =>
      provider(["transmitters", name, "identityProvider"], identityProvider),
    ),
    ...Object.entries(rules).flatMap(([name, { agents: watched = [] }]) =>
      watched.flatMap((one, i) => agent(["rules", name, "agents", i], one)),
    ),
  ];
}

/**
 * An admin's token must never be a human's subject token, nor the other way round, and one platform's never another's, whatever the
 * provider is called here.
 */
function findSharedAudiences({ platforms, admins, identityProviders }: Config): Fault[] {
  const doorOf = (provider: string, audience: string): string =>
    JSON.stringify([Object.hasOwn(identityProviders, provider) ? identityProviders[provider]?.issuer : null, audience]);
  const doors = new Map([[doorOf(admins.identityProvider, admins.audience), "admins.audience"]]);
  return Object.entries(platforms).flatMap(([name, { subjectAudience, identityProvider }]) => {
    const door = doorOf(identityProvider, subjectAudience);
    const same = doors.get(door);
    if (same === undefined) doors.set(door, `platforms.${name}.subjectAudience`);
    return same === undefined
      ? []
      : [fault(["platforms", name, "subjectAudience"], `the same as ${same}: give each its own client`)];
  });
}

function findUnknownUpstreams({ boundaries, agents, entitlements, upstreams }: Config): Fault[] {
  const layers: [Fault["path"], readonly Entry[]][] = [
    [["boundaries"], boundaries],
    ...Object.entries(agents).map(([name, { ceiling }]): [string[], readonly Entry[]] => [
      ["agents", name, "ceiling"],
      ceiling,
    ]),
    ...(["groups", "humans"] as const).flatMap((kind) =>
      Object.entries(entitlements[kind]).map(([name, entries]): [string[], readonly Entry[]] => [
        ["entitlements", kind, name],
        entries,
      ]),
    ),
  ];
  return layers.flatMap(([path, layer]) =>
    layer.flatMap(({ upstream }, i) => unknown([...path, i, "upstream"], "upstream", upstream, upstreams, "upstreams")),
  );
}

function findForwardingFaults({ upstreams }: Config): Fault[] {
  return Object.entries(upstreams).flatMap(([name, { forwardHeaders, credential }]) =>
    forwardHeaders.flatMap((header, i) => {
      const message = findForwardingFault(header, credentialHeaderOf(credential));
      return message === undefined ? [] : [fault(["upstreams", name, "forwardHeaders", i], message)];
    }),
  );
}

/** Plain http is for a gate that itself runs on loopback. */
function findPlainHttp({ origin, upstreams, identityProviders, transmitters }: Config): Fault[] {
  // An origin that is no URL has been named already.
  if (!URL.canParse(origin) || isLoopback(new URL(origin))) return [];
  const keys = (
    under: string,
    parts: Readonly<Record<string, { readonly issuer: string; readonly jwksUri: string }>>,
  ) =>
    Object.entries(parts).flatMap(([name, { issuer, jwksUri }]): [string[], string][] => [
      [[under, name, "issuer"], issuer],
      [[under, name, "jwksUri"], jwksUri],
    ]);
  const urls: [string[], string][] = [
    [["origin"], origin],
    ...Object.entries(upstreams).map(([name, { baseUrl }]): [string[], string] => [
      ["upstreams", name, "baseUrl"],
      baseUrl,
    ]),
    ...Object.entries(upstreams).flatMap(([name, { credential }]): [string[], string][] => {
      const url = tokenEndpointOf(credential);
      return url === null ? [] : [[["upstreams", name, "credential", "tokenEndpoint"], url]];
    }),
    ...keys("identityProviders", identityProviders),
    ...keys("transmitters", transmitters),
  ];
  return urls
    .filter(([, url]) => !url.startsWith("https:"))
    .map(([path]) => fault(path, "plain http is only for a gate that itself runs on loopback"));
}

/** Whom an agent may provision must be registered; and bounds that nobody can reach are a mistake of who wrote them. */
function findSubAgentFaults({ agents }: Config): Fault[] {
  return Object.entries(agents).flatMap(([name, { delegation, limits }]) => {
    const path = ["agents", name, "delegation"];
    const { agents: children, breadth, total } = delegation;
    if (children.length === 0) return [];
    return [
      ...children.flatMap((child, i) => unknown([...path, "agents", i], "agent", child, agents, "agents")),
      ...(breadth > total ? [fault([...path, "breadth"], "more than `total` can never live at the same time")] : []),
      // A child takes one at least, and the parent keeps one.
      ...(limits.concurrency < 2 || limits.burst < 2
        ? [fault([...path, "agents"], "a limit of 1 (concurrency, burst) leaves nothing for a sub-agent")]
        : []),
    ];
  });
}

function findApprovalFaults({ origin, admins, approvals: { webhook }, boundaries }: Config): readonly Fault[] {
  const isLocal = !URL.canParse(origin) || isLoopback(new URL(origin));
  const isFine = webhook === undefined || webhook.url.startsWith("https:") || isLocal;
  const asks = boundaries.some(({ approval }) => approval !== null);
  return [
    ...(isFine
      ? []
      : [fault(["approvals", "webhook", "url"], "plain http is only for a gate that itself runs on loopback")]),
    // Every call of such an entry would wait in vain.
    ...(asks && admins.roles.approver.length === 0
      ? [fault(["admins", "roles", "approver"], "needed: boundaries ask for approval, and nobody could give it")]
      : []),
  ];
}

function findMeteringFaults({ upstreams }: Config): Fault[] {
  return Object.entries(upstreams).flatMap(([name, upstream]) =>
    findMeterFaults(upstream).map(({ path, message }) => fault(["upstreams", name, ...path], message)),
  );
}

function findQuotaFaults({ quotas, agents, upstreams }: Config): Fault[] {
  return [
    ...Object.entries(agents).flatMap(([name, { limits }]) =>
      findBudgetFaults(["agents", name, "limits", "units"], limits.units, Object.values(upstreams)),
    ),
    ...Object.entries(quotas).flatMap(([name, { agents: ofAgents = [], upstreams: ofUpstreams, units }]) => {
      const own = Object.entries(upstreams).filter(([upstream]) => ofUpstreams?.includes(upstream) ?? true);
      return [
        ...ofAgents.flatMap((one, i) => unknown(["quotas", name, "agents", i], "agent", one, agents, "agents")),
        ...(ofUpstreams ?? []).flatMap((one, i) =>
          unknown(["quotas", name, "upstreams", i], "upstream", one, upstreams, "upstreams"),
        ),
        ...findBudgetFaults(
          ["quotas", name, "units"],
          units,
          own.map(([, upstream]) => upstream),
        ),
      ];
    }),
  ];
}

/** A budget of a unit that none of these meters would bound nothing, and one below what a single call reserves would let none through. */
function findBudgetFaults(
  path: Fault["path"],
  units: Readonly<Record<string, number>>,
  of: readonly Metering[],
): Fault[] {
  return Object.entries(units).flatMap(([unit, budget]) => {
    const reserves = of.map((metering) => leastReserveOf(metering, unit)).filter((reserve) => reserve !== undefined);
    if (reserves.length === 0)
      return [fault([...path, unit], `no upstream that counts here has a meter or a price "${unit}"`)];
    const least = Math.min(...reserves);
    return budget < least
      ? [fault([...path, unit], `less than one call reserves, ${least}: it would let none through`)]
      : [];
  });
}
