import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  areApart,
  CALLS_AFTER_RENEWAL,
  type CopyHit,
  type CopyState,
  observe,
  type Place,
  RETURN_MS,
  RETURNS,
  SPOTS_MAX,
  UNSEEN,
  WINDOW_MS,
} from "../../src/control/second-copy.ts";

const HOME: Place = {
  network: 64_500,
  country: "FR",
  address: "198.51.100.0/24",
  family: 4,
  tls: "node",
  protocol: "HTTP/1.1",
  agent: "octokit",
};
const at = (change: Partial<Place>): Place => ({ ...HOME, ...change });
const AWAY = at({ network: 64_501, address: "203.0.113.0/24" });
const HOME_V6 = at({ address: "2001:db8:1::/48", family: 6 });
const POOL = at({ address: "198.51.101.0/24" });
/** In the same cloud, with other software. */
const NEXT_DOOR = at({ address: "198.51.101.0/24", tls: "python" });

const NOW_MS = 1_800_000_000_000;

/** An instance's life, with the clock of who calls. */
class Life {
  state: CopyState = UNSEEN;
  hits: CopyHit[] = [];
  nowMs = NOW_MS;

  /** @param clockMs how far the caller's clock is ahead; `lateMs` how long the call was under way */
  call(place: Place, change: { afterMs?: number; clockMs?: number; lateMs?: number; isRenewal?: boolean } = {}): this {
    const { afterMs = 2_000, clockMs = 0, lateMs = 20, isRenewal = false } = change;
    this.nowMs += afterMs;
    const issuedAtMs = Math.floor((this.nowMs - lateMs + clockMs) / 1_000) * 1_000;
    const { state, hit } = observe(this.state, { place, arrivedAtMs: this.nowMs, issuedAtMs, isRenewal }, this.nowMs);
    this.state = state;
    if (hit !== null) this.hits.push(hit);
    return this;
  }
  renew(place: Place): this {
    return this.call(place, { isRenewal: true });
  }
}

const seen = ({ hits }: Life): string[] => hits.map((hit) => hit.seen);

describe("places are apart", () => {
  it.each<[name: string, a: Place, b: Place, expected: boolean]>([
    ["not from themselves", HOME, HOME, false],
    ["in two networks", HOME, AWAY, true],
    ["in two countries of one network", HOME, at({ country: "DE" }), true],
    ["not over IPv4 and IPv6 of one network", HOME, HOME_V6, false],
    [
      "not over IPv4 and a tunnel of IPv6 in one country",
      HOME,
      at({ network: 64_501, family: 6, address: "x" }),
      false,
    ],
    ["over IPv4 and IPv6 of another network in another country", HOME, at({ ...AWAY, family: 6, country: "DE" }), true],
    ["not in a pool of addresses", HOME, POOL, false],
    ["behind two addresses of one network with two programs", HOME, NEXT_DOOR, true],
    ["not for another program at one address", HOME, at({ tls: "python", agent: "curl", protocol: "HTTP/2" }), false],
    ["not where TLS says nothing", at({ tls: null }), { ...NEXT_DOOR, tls: null }, false],
  ])("%s", (_name, a, b, expected) => expect([areApart(a, b), areApart(b, a)]).toEqual([expected, expected]));
});

describe("a copy", () => {
  it("that alternates is noticed at the third return, with both places", () => {
    const life = new Life().call(HOME).call(AWAY).call(HOME).call(AWAY);
    expect(life.hits).toEqual([]);
    life.call(HOME);
    expect(life.hits).toEqual([{ seen: "alternating", places: [AWAY, HOME], value: RETURNS, threshold: RETURNS }]);
    // It goes on: it is said again, and not with every call.
    for (let i = 0; i < 3; i++) life.call(AWAY).call(HOME);
    expect(seen(life)).toEqual(Array(3).fill("alternating"));
  });

  it("next door, in the same cloud, is noticed by its software", () => {
    const life = new Life();
    for (let i = 0; i < 3; i++) life.call(HOME).call(NEXT_DOOR);
    expect(seen(life)).toEqual(["alternating"]);
  });

  it("that asks rarely is noticed while the first one is busy", () => {
    const life = new Life();
    for (let n = 0; n < 12; n++) {
      for (let i = 0; i < 10; i++) life.call(HOME, { afterMs: 1_000 });
      if (n % 4 === 3) life.call(AWAY, { afterMs: 500 });
    }
    life.call(HOME);
    expect(seen(life)).toEqual(["alternating"]);
  });

  it("that waits until the first one is silent is not told from a move", () => {
    const life = new Life();
    for (let i = 0; i < 50; i++) life.call(HOME);
    for (let i = 0; i < 50; i++) life.call(AWAY, { afterMs: i === 0 ? RETURN_MS : 1_000 });
    for (let i = 0; i < 50; i++) life.call(HOME, { afterMs: i === 0 ? RETURN_MS + 1_000 : 1_000 });
    expect(life.hits).toEqual([]);
  });

  it("that renews is noticed when the first one goes on", () => {
    const life = new Life().call(HOME).call(HOME).renew(AWAY).call(HOME);
    expect(life.hits).toEqual([]);
    life.call(HOME);
    expect(life.hits).toEqual([
      { seen: "renewal", places: [AWAY, HOME], value: CALLS_AFTER_RENEWAL, threshold: CALLS_AFTER_RENEWAL },
    ]);
  });

  it("behind the same pool of addresses is noticed by its clock, though each of them is steady", () => {
    const life = new Life();
    for (let i = 0; i < 8; i++) life.call(HOME, { lateMs: 20 + i }).call(POOL, { clockMs: -9_000 });
    expect(life.hits[0]).toMatchObject({ seen: "clocks", places: [HOME, POOL], threshold: 5 });
    expect(life.hits[0]!.value).toBeGreaterThanOrEqual(7);
  });

  it.each([-60_000, -8_000, -2_500, 2_500, 8_000, 25_000])("whose clock is %d ms off still alternates", (clockMs) => {
    const life = new Life();
    for (let i = 0; i < 60; i++) life.call(HOME, { afterMs: 1_500 }).call(AWAY, { afterMs: 1_500, clockMs });
    expect(life.hits.length).toBeGreaterThan(0);
  });

  // Its proofs' times are the copy's own to choose. What they say must cover neither its own calls nor those of the first one.
  it.each<[name: string, iatMs: (life: Life) => number]>([
    [
      "as if it had been under way when the first one came",
      ({ state, nowMs }) => Math.max(state.stay!.since.issuedAtMs, nowMs - 119_000),
    ],
    ["as far ahead as a proof may be, and by turns less", ({ nowMs }) => nowMs + 29_000 - (nowMs % 25_000)],
    ["that go back and forth", ({ nowMs }) => nowMs - (nowMs % 90_000)],
  ])("that makes proofs %s is noticed within a minute", (_name, iatMs) => {
    const life = new Life();
    for (let i = 0; i < 20; i++) life.call(HOME, { afterMs: 1_000 });
    const fromMs = life.nowMs;
    while (life.hits.length === 0 && life.nowMs < fromMs + WINDOW_MS) {
      life.call(HOME, { afterMs: 1_000 });
      life.call(AWAY, { afterMs: 500, clockMs: iatMs(life) - life.nowMs });
    }
    expect(seen(life)).toEqual(["alternating"]);
    expect(life.nowMs - fromMs).toBeLessThan(60_000);
  });

  it.each([
    -50_000, 29_000,
  ])("that renews by a proof of %d ms from now is noticed when the first one goes on", (clockMs) => {
    const life = new Life().call(HOME).call(HOME, { afterMs: 30_000 }).call(AWAY, { clockMs, isRenewal: true });
    for (let i = 0; i < 12; i++) life.call(HOME, { afterMs: 2_000 });
    expect(seen(life)).toEqual(["renewal"]);
  });

  it.each([
    7, 8, 30,
  ])("that comes from a new place with each of %d calls is noticed, though nothing comes back", (calls) => {
    const life = new Life().call(HOME);
    for (let n = 0; n < 3 * calls && life.hits.length === 0; n++) {
      life.call(at({ network: 65_000 + n, address: `n${n}` }), { afterMs: 500 });
      if (n % calls === calls - 1) life.call(HOME, { afterMs: 500 });
    }
    expect(seen(life)).toEqual(["alternating"]);
  });

  it("in a large pool of addresses does not drive the first one out of memory", () => {
    const life = new Life();
    const far = (n: number): Place => at({ network: 64_999, address: `n${n}`, tls: "python" });
    for (let n = 0; n < 60; n++) life.call(n % 20 === 0 ? HOME : far(n), { afterMs: 1_000 });
    life.call(HOME);
    expect(seen(life)).toEqual(["alternating"]);
  });

  it("that floods with places drives the first one out of nobody's memory, and fills none", () => {
    const life = new Life();
    for (let i = 0; i < 1_000; i++) life.call(at({ network: 65_000 + i, address: `n${i}` })).call(HOME);
    expect(life.hits.length).toBeGreaterThan(300);
    expect(life.state.spots).toHaveLength(SPOTS_MAX);
    expect(JSON.stringify(life.state).length).toBeLessThan(6_000);
  });
});

describe("no copy", () => {
  const quiet = (life: Life): void => expect(life.hits).toEqual([]);

  it("is who makes 1,000 calls from one place, with jitter, delays and renewals", () => {
    const life = new Life();
    for (let i = 0; i < 1_000; i++)
      life.call(HOME, { afterMs: (i * 7_919) % 1_500, lateMs: (i * 104_729) % 40_000, isRenewal: i % 100 === 99 });
    quiet(life);
  });

  it("is who moves once, with calls still under way", () => {
    const life = new Life();
    for (let i = 0; i < 20; i++) life.call(HOME);
    life.call(AWAY, { afterMs: 3_000 });
    for (let i = 0; i < 10; i++)
      life.call(HOME, { afterMs: 100, lateMs: 3_500 + i * 100 }).call(AWAY, { afterMs: 900 });
    for (let i = 0; i < 20; i++) life.call(AWAY);
    quiet(life);
  });

  it("is who moves while a long upload from before is still being read", () => {
    const life = new Life().call(HOME).call(HOME);
    const before = life.nowMs;
    life.call(AWAY, { afterMs: 3_000 });
    for (let i = 0; i < 10; i++) {
      life.call(AWAY, { afterMs: 5_000 });
      // Its head came in time: when the instance hears of it says nothing.
      const seen = { place: HOME, arrivedAtMs: before + 3_100 + i, issuedAtMs: before, isRenewal: false };
      const { state, hit } = observe(life.state, seen, life.nowMs);
      life.state = state;
      expect(hit).toBeNull();
    }
    quiet(life);
  });

  it("is who moves, renews there, and comes back", () => {
    const life = new Life().call(HOME).renew(AWAY).call(AWAY).call(AWAY).call(HOME).call(HOME).call(HOME);
    quiet(life);
  });

  it("is a laptop that changes its network every two minutes", () => {
    const life = new Life();
    for (let i = 0; i < 20; i++)
      for (let n = 0; n < 60; n++) life.call(i % 2 === 0 ? HOME : AWAY, { afterMs: n === 0 ? 4_000 : 2_000 });
    quiet(life);
  });

  it("is one machine over IPv4 and IPv6, or behind a pool of addresses, by turns", () => {
    const life = new Life();
    for (let i = 0; i < 300; i++) life.call([HOME, HOME_V6, POOL][i % 3]!, { afterMs: 700 });
    quiet(life);
  });

  it("is one machine behind a pool of a hundred addresses", () => {
    const life = new Life();
    for (let i = 0; i < 500; i++) life.call(at({ address: `n${(i * 37) % 100}` }), { afterMs: 100 });
    quiet(life);
  });

  it("is who travels through a dozen networks, a minute in each", () => {
    const life = new Life();
    for (let i = 0; i < 60; i++) life.call(at({ network: 65_000 + Math.floor(i / 5) }), { afterMs: 12_000 });
    quiet(life);
  });

  it("is one program with two libraries at one address", () => {
    const life = new Life();
    for (let i = 0; i < 100; i++) life.call(i % 2 === 0 ? HOME : at({ tls: "python", agent: "curl" }));
    quiet(life);
  });

  it("is one program of which one library makes its proofs long before they are sent", () => {
    const life = new Life();
    for (let i = 0; i < 40; i++) life.call(HOME).call(at({ tls: "python" }), { lateMs: 8_000 + (i % 3) * 4_000 });
    quiet(life);
  });

  it("is a machine whose clock is put right, over IPv4 and IPv6", () => {
    const life = new Life();
    for (let i = 0; i < 20; i++) life.call(i % 2 === 0 ? HOME : HOME_V6, { clockMs: -20_000 });
    for (let i = 0; i < 20; i++) life.call(i % 2 === 0 ? HOME : HOME_V6);
    quiet(life);
  });

  it("is who has two clocks one after the other: a new machine in the place of the old", () => {
    const life = new Life();
    for (let i = 0; i < 10; i++) life.call(HOME);
    for (let i = 0; i < 10; i++) life.call(AWAY, { clockMs: 9_000 });
    quiet(life);
  });

  it("is who comes back three times in longer than the window", () => {
    const life = new Life();
    for (let i = 0; i < 6; i++)
      life
        .call(HOME, { afterMs: WINDOW_MS / 2 })
        .call(AWAY, { afterMs: 5_000 })
        .call(HOME);
    quiet(life);
  });

  it("is anybody at one place, whatever clock and delays", () => {
    const step = fc.record({
      afterMs: fc.nat(120_000),
      lateMs: fc.nat(60_000),
      clockMs: fc.integer({ min: -60_000, max: 30_000 }),
      isRenewal: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const life = new Life();
        for (const one of steps) life.call(HOME, one);
        expect(life.hits).toEqual([]);
      }),
    );
  });
});
