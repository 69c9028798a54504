import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { AsyncLocalStorage } from "node:async_hooks";
import { afterEach, describe, expect, it, vi } from "vitest";
import { receiptOf } from "../../src/control/receipt.ts";
import { instanceOf, switchboardOf } from "../../src/objects.ts";
import { ORIGIN } from "./config.ts";
import { boardStub, deployment, enrolAgent, flip, instanceStub, rosterStub, settlement, verdictOf } from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

const skew = new AsyncLocalStorage<number | (() => number)>();

/** From now on the methods of these objects' class run on another clock. */
async function skewed(stub: unknown, methods: readonly string[], by: number | (() => number)): Promise<void> {
  await runInDurableObject(stub as never, (object: object) => {
    const prototype = Object.getPrototypeOf(object) as Record<string, (...args: unknown[]) => unknown>;
    for (const method of methods) {
      const real = prototype[method]!;
      vi.spyOn(prototype, method).mockImplementation(function (this: unknown, ...args: unknown[]) {
        return skew.run(by, () => real.apply(this, args));
      });
    }
  });
}
function skewableClock(): void {
  const real = Date.now.bind(Date);
  vi.spyOn(Date, "now").mockImplementation(() => {
    const by = skew.getStore() ?? 0;
    return real() + (typeof by === "number" ? by : by());
  });
}

const HOUR = 3_600_000;
/** A clock that steps with every reading. */
const stepping = (ms: number) => {
  let total = 0;
  return () => {
    total += ms;
    return total;
  };
};

describe("a receipt between clocks that differ", () => {
  const skews: [string, { shard?: number | (() => number); instance?: number | (() => number) }][] = [
    ["the instance is an hour ahead", { instance: HOUR }],
    ["the instance is an hour behind", { instance: -HOUR }],
    ["the shard steps back with every reading", { shard: stepping(-1_000) }],
    ["the shard steps forward with every reading", { shard: stepping(1_000) }],
    ["the instance steps forward with every reading", { instance: stepping(60_000) }],
    ["the instance steps back with every reading", { instance: stepping(-60_000) }],
  ];
  it.each(skews)("has no time before the acceptance, and none ahead: %s", async (_name, {
    shard = 0,
    instance = 0,
  }) => {
    const agent = await enrolAgent();
    const { lease } = await admitted(agent.id, agent.admission());
    skewableClock();
    await skewed(rosterStub(agent.enrolment.rosterShard), ["apply"], shard);
    await skewed(instanceStub(agent.id), ["close"], instance);
    const beforeMs = Date.now();
    const flipping = flip({ reach: "instance", target: { instance: agent.id } });
    await lease.broken();
    await lease.settle(settlement({ outcome: "cut" }));
    const { switch: sw } = await flipping;
    let receipt = receiptOf((await switchboardOf(deployment).read(sw.id))!, ORIGIN);
    await vi.waitFor(async () => {
      await runDurableObjectAlarm(boardStub());
      receipt = receiptOf((await switchboardOf(deployment).read(sw.id))!, ORIGIN);
      expect(receipt.status).toBe("done");
    });
    const afterMs = Date.now();
    expect(receipt.acceptedAtMs).toBeGreaterThanOrEqual(beforeMs);
    const isIdle = receipt.reached === 0;
    // A shard that is ahead by more than a confirmation takes the instance for idle; here none is.
    expect(isIdle).toBe(false);
    const times = [
      receipt.firstAcknowledgedAtMs,
      receipt.p50AcknowledgedAtMs,
      receipt.p99AcknowledgedAtMs,
      receipt.lastAcknowledgedAtMs,
    ];
    for (const time of times) {
      expect(time).toBeGreaterThanOrEqual(receipt.acceptedAtMs);
      expect(time).toBeLessThanOrEqual(afterMs);
    }
    expect(receipt.lastByteAtMs ?? 0).toBeLessThanOrEqual(afterMs);
    expect([receipt.cut, receipt.unconfirmed]).toEqual([1, 0]);
    vi.restoreAllMocks();
    expect(await verdictOf(agent)).toBe("switched");
  });
});

async function admitted(id: string, request: Parameters<ReturnType<typeof instanceOf>["admit"]>[0]) {
  const admission = await instanceOf(deployment, id).admit(request);
  if (!admission.admitted) throw new Error("refused");
  return admission;
}
