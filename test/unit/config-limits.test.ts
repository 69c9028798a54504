import { describe, expect, it } from "vitest";
import { defineConfig } from "../../src/config/define.ts";

const ANY = { type: "http", upstream: "model", operations: ["POST /v1/chat"] } as const;
const right = (change: { upstream?: object; quotas?: object; limits?: object } = {}) =>
  defineConfig({
    origin: "https://gate.example",
    identityProviders: { corp: { issuer: "https://idp.example", jwksUri: "https://idp.example/jwks" } },
    platforms: {},
    agents: {
      bot: { versions: { "1": { model: "m", promptDigest: "d" } }, ceiling: [ANY], limits: { ...change.limits } },
    },
    upstreams: {
      model: {
        baseUrl: "https://model.example",
        credential: { kind: "header", header: "Authorization", secret: "KEY" },
        meters: { tokens: { pointer: "/usage/total_tokens", reserve: 4_000 } },
        prices: { usd: { of: { tokens: 0.000002 } } },
        ...change.upstream,
      },
      plain: { baseUrl: "https://plain.example", credential: { kind: "none" } },
    },
    entitlements: { groups: {} },
    boundaries: [ANY],
    admins: { identityProvider: "corp", audience: "a", roles: {} },
    quotas: { ...change.quotas },
  });
const TWO = { meters: { in: { pointer: "/in", reserve: 1 }, out: { pointer: "/out", reserve: 1 } } };
const mistake = (change: Parameters<typeof right>[0]): string => {
  try {
    right(change);
    return "";
  } catch (error) {
    return (error as Error).message.split("\n").slice(1).join("\n").trim();
  }
};

describe("meters and prices", () => {
  it("are read: pointers as their tokens", () => {
    const meters = { tokens: { pointer: ["/usage/a~1b", "/x/~01"], reserve: 0 } };
    expect(right({ upstream: { meters } }).upstreams["model"]!.meters["tokens"]!.pointer).toEqual([
      ["usage", "a/b"],
      ["x", "~1"],
    ]);
  });
  const meter = (change: object) => ({ upstream: { meters: { tokens: { pointer: "/t", reserve: 1, ...change } } } });
  const cases: readonly [string, Parameters<typeof right>[0], RegExp][] = [
    [
      "a pointer that is none",
      meter({ pointer: "usage" }),
      /upstreams\.model\.meters\.tokens\.pointer: .*JSON pointer/,
    ],
    ["the whole answer", meter({ pointer: "" }), /upstreams\.model\.meters\.tokens\.pointer: .*JSON pointer/],
    ["no reserve", meter({ reserve: undefined }), /upstreams\.model\.meters\.tokens\.reserve: /],
    ["a reserve below nothing", meter({ reserve: -1 }), /upstreams\.model\.meters\.tokens\.reserve: /],
    ["an operation that is none", meter({ operations: ["/v1"] }), /upstreams\.model\.meters\.tokens\.operations\.0: /],
    [
      "a price of what nobody meters",
      { upstream: { prices: { usd: { of: { other: 1 } } } } },
      /upstreams\.model\.prices\.usd\.of\.other: no meter "other" of this upstream/,
    ],
    [
      "one in a table",
      { upstream: { prices: { usd: { of: { tokens: 1 }, by: { pointer: "/m", table: { big: { other: 1 } } } } } } },
      /upstreams\.model\.prices\.usd\.by\.table\.big\.other: no meter/,
    ],
    [
      // A model of that name would cost nothing.
      "a list of a table that leaves out what another has a price of",
      {
        upstream: {
          ...TWO,
          prices: { usd: { of: { in: 1, out: 2 }, by: { pointer: "/m", table: { big: { in: 1 } } } } },
        },
      },
      /^upstreams\.model\.prices\.usd\.by\.table\.big\.out: another list has a price of it: say one here, 0 where/,
    ],
    [
      "the same the other way round",
      {
        upstream: {
          ...TWO,
          prices: { usd: { of: { in: 1 }, by: { pointer: "/m", table: { big: { in: 1, out: 2 } } } } },
        },
      },
      /^upstreams\.model\.prices\.usd\.of\.out: another list has a price of it/,
    ],
    [
      "a budget below what one call reserves",
      { limits: { units: { usd: 0.007999 } } },
      /^agents\.bot\.limits\.units\.usd: less than one call reserves, 0\.008: it would let none through$/,
    ],
    [
      "a price with too many places",
      { upstream: { prices: { usd: { of: { tokens: 1e-13 } } } } },
      /upstreams\.model\.prices\.usd\.of\.tokens: at most twelve decimal places/,
    ],
    [
      "a price by the name of a meter",
      { upstream: { prices: { tokens: { of: { tokens: 1 } } } } },
      /upstreams\.model\.prices\.tokens: a meter has this name/,
    ],
    [
      "a budget that nothing meters",
      { limits: { units: { eur: 1 } } },
      /agents\.bot\.limits\.units\.eur: no upstream that counts here has/,
    ],
  ];
  for (const [what, change, message] of cases) it(`refuse ${what}`, () => expect(mistake(change)).toMatch(message));

  it("take a budget of exactly one call, and another list where each has every price", () => {
    expect(mistake({ limits: { units: { usd: 0.008 } } })).toBe("");
    const table = { big: { in: 1, out: 0 } };
    expect(
      mistake({ upstream: { ...TWO, prices: { usd: { of: { in: 1, out: 2 }, by: { pointer: "/m", table } } } } }),
    ).toBe("");
  });

  it("hold a budget to the cheapest call: operations of their own count apart, meters of all with each", () => {
    const meters = (chat: object, read: object, all: object | null) => ({
      chat: { pointer: "/c", reserve: 8, operations: ["POST /v1/chat"], ...chat },
      read: { pointer: "/r", reserve: 2, operations: ["GET /v1/files"], ...read },
      ...(all === null ? {} : { all: { pointer: "/a", reserve: 1, ...all } }),
    });
    const usd = (budget: number, ...given: Parameters<typeof meters>) => {
      const of = Object.fromEntries(Object.keys(meters(...given)).map((unit) => [unit, 1]));
      return mistake({
        limits: { units: { usd: budget } },
        upstream: { meters: meters(...given), prices: { usd: { of } } },
      });
    };
    expect([usd(2, {}, {}, null), usd(1, {}, {}, {})]).toEqual(["", ""]);
    expect(usd(1, {}, {}, null)).toMatch(/reserves, 2:/);
    // Of the same operations: one call has both.
    expect(usd(9, {}, { operations: ["POST /v1/chat"] }, null)).toMatch(/reserves, 10:/);
    expect(usd(0.5, {}, {}, {})).toMatch(/reserves, 1:/);
    // Beside one of all, which costs nothing of it.
    const all = {
      all: { pointer: "/a", reserve: 1 },
      chat: { pointer: "/c", reserve: 8, operations: ["POST /v1/chat"] },
    };
    const chat = (budget: number, of: object) =>
      mistake({ limits: { units: { chat: budget, usd: budget } }, upstream: { meters: all, prices: { usd: { of } } } });
    expect(chat(8, { chat: 1 })).toBe("");
    expect(chat(7, { chat: 1 })).toMatch(/units\.chat: .*reserves, 8:.*\n.*units\.usd: .*reserves, 8:/);
  });
});

describe("quotas", () => {
  const quota = (change: object) => ({ quotas: { q: { per: "task", calls: 1, ...change } } });
  it("are of one, or of a pair", () => {
    expect(right(quota({})).quotas["q"]!.per).toEqual(["task"]);
    expect(right(quota({ per: ["human", "upstream"] })).quotas["q"]!.per).toEqual(["human", "upstream"]);
  });
  const cases: readonly [string, Parameters<typeof right>[0], RegExp][] = [
    ["nothing", quota({ calls: undefined }), /quotas\.q\.per: a quota of nothing/],
    ["an unknown field", quota({ requests: 1 }), /quotas\.q: .*requests/],
    [
      "a pair of the same",
      quota({ per: ["task", "task"] }),
      /quotas\.q\.per: task, human, agent, upstream, everything, or a list/,
    ],
    ["an agent that nobody knows", quota({ agents: ["b"] }), /quotas\.q\.agents\.0: no agent "b" under agents/],
    [
      "an upstream that nobody knows",
      quota({ upstreams: ["u"] }),
      /quotas\.q\.upstreams\.0: no upstream "u" under upstreams/,
    ],
    [
      "a unit that nothing meters",
      quota({ units: { eur: 1 } }),
      /quotas\.q\.units\.eur: no upstream that counts here has a meter or a price/,
    ],
    [
      "a budget below what one call reserves",
      quota({ units: { tokens: 3_999 } }),
      /quotas\.q\.units\.tokens: less than one call reserves, 4000: it would let none through/,
    ],
    [
      "a unit that another upstream meters, and none of its own",
      quota({ upstreams: ["plain"], units: { tokens: 9_000 } }),
      /quotas\.q\.units\.tokens: no upstream that counts here has a meter/,
    ],
    ["a burst of no rate", quota({ burst: 1 }), /quotas\.q\.burst: only with callsPerSecond/],
    [
      "a period of no budget",
      quota({ calls: undefined, concurrency: 1, periodSeconds: 60 }),
      /quotas\.q\.periodSeconds: only with calls, bytes or units/,
    ],
    ["a name with a dot", { quotas: { "q.r": { per: "task", calls: 1 } } }, /quotas\.q\.r: .*/],
  ];
  for (const [what, change, message] of cases) it(`refuse ${what}`, () => expect(mistake(change)).toMatch(message));
});
