import { afterEach, describe, expect, it, vi } from "vitest";
import type { UpstreamConfig } from "../../src/config/define.ts";
import type { Deployment } from "../../src/deployment.ts";
import type { Admitted } from "../../src/gate/admit.ts";
import { forward } from "../../src/gate/forward.ts";
import { HeldLease } from "../../src/gate/held-lease.ts";
import { Stop } from "../../src/gate/stop.ts";
import type { Cause, LeaseCalls, Resumption } from "../../src/instance/contract.ts";
import { fetchOutbound } from "../../src/upstream/outbound.ts";

afterEach(() => vi.restoreAllMocks());

const upstream = {
  type: "http",
  baseUrl: "https://upstream.test",
  credential: { kind: "header", header: "authorization", secret: "STORED", value: "{secret}" },
  forwardHeaders: [],
  ranges: false,
  firstByteTimeoutMs: 60_000,
  totalTimeoutMs: 60_000,
  maxRequestBytes: 1_000,
} as unknown as UpstreamConfig;

const leaseWith = (broken: Promise<Cause>): LeaseCalls => ({
  broken: () => broken,
  beat: async () => true,
  append: async () => 1,
  appendRequest: async () => true,
  settle: async () => true,
});
const resumed = (cause: Cause | null): Resumption => ({
  kind: "resumed",
  lease: leaseWith(new Promise(() => {})),
  aheadBytes: 1,
  answerBytes: 0,
  cause,
});

/** A call that is admitted, and whose credential is still asked for when its object is reset. */
function waiting(name: string) {
  const sent = vi.spyOn(globalThis, "fetch").mockImplementation(async () => new Response("sent"));
  const secret = Promise.withResolvers<string>();
  const broken = Promise.withResolvers<Cause>();
  const again = Promise.withResolvers<Resumption>();
  const stop = new Stop();
  const lease = new HeldLease(leaseWith(broken.promise), 1, stop, () => again.promise);
  lease.listen();
  const config = { ...upstream, credential: { ...upstream.credential, secret: name } } as UpstreamConfig;
  const forwarding = forward(
    { seq: 1, lease, stop, delegation: null, listen: () => {} } as unknown as Admitted,
    {
      credential: { upstream: "up", config, token: null },
      upstream: config,
      method: "POST",
      rawTarget: "/a",
      headers: [],
      body: { first: new TextEncoder().encode("body"), rest: null },
      declaredBytes: 4,
      delegation: null,
    },
    { env: { [name]: { get: () => secret.promise } } } as unknown as Deployment,
  );
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 3; i++) await new Promise((resolve) => setTimeout(resolve, 0));
  };
  const end = (): void => {
    lease[Symbol.dispose]();
    stop.end();
  };
  return { sent, secret, broken, again, stop, forwarding, settle, end };
}

describe("a call whose object is reset between its admission and the upstream's connection", () => {
  it("sends nothing while nobody could stop it, and is sent when it was taken up", async () => {
    const { sent, secret, broken, again, forwarding, settle, end } = waiting("FIRST");
    broken.reject(new Error("reset"));
    await settle();
    secret.resolve("a secret that is long enough");
    await settle();
    expect(sent).not.toHaveBeenCalled();
    again.resolve(resumed(null));
    expect(await (await forwarding).response?.text()).toBe("sent");
    expect(sent).toHaveBeenCalledTimes(1);
    end();
  });

  it.each<[string, Resumption]>([
    ["by a switch", resumed("switched")],
    ["because nobody gives it another lease", { kind: "refused" }],
    ["because it was recorded as lost", { kind: "over", outcome: "lost", cause: null }],
  ])("and is stopped meanwhile %s: sends nothing at all", async (why, found) => {
    const { sent, secret, broken, again, forwarding, settle, end } = waiting(`SECRET ${why}`);
    broken.reject(new Error("reset"));
    await settle();
    secret.resolve("a secret that is long enough");
    await settle();
    again.resolve(found);
    expect(await forwarding).toMatchObject({ response: null, sent: { bytes: 0, lastAtMs: null } });
    expect(sent).not.toHaveBeenCalled();
    end();
  });

  it("and whose agent goes away meanwhile: sends nothing at all", async () => {
    const { sent, secret, broken, again, stop, forwarding, settle, end } = waiting("GONE");
    broken.reject(new Error("reset"));
    await settle();
    secret.resolve("a secret that is long enough");
    stop.stop({ kind: "client-gone" });
    expect(await forwarding).toMatchObject({ response: null, sent: { bytes: 0 } });
    again.resolve(resumed(null));
    await settle();
    expect(sent).not.toHaveBeenCalled();
    end();
  });
});

it("what leaves follows no redirect and is answered by no cache, whatever its caller says", async () => {
  const asked = vi.spyOn(globalThis, "fetch").mockResolvedValue(new Response(null));
  await fetchOutbound("https://upstream.test/", { redirect: "follow", cache: "no-cache" });
  expect(asked).toHaveBeenCalledWith("https://upstream.test/", { redirect: "manual", cache: "no-store" });
});
