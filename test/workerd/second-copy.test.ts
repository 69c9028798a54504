// One key in two places, through the doors of the Worker: calls and renewals whose connections the edge describes.

import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { exports } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";
import { AgentInstance } from "../../durable-objects/agent-instance.ts";
import { issueRefreshToken } from "../../src/authority/refresh-token.ts";
import type { Sighting } from "../../src/control/second-copy.ts";
import { sightingOf } from "../../src/gate/place.ts";
import { instanceOf, switchboardOf } from "../../src/objects.ts";
import { ORIGIN } from "./config.ts";
import {
  type Agent,
  deployment,
  enrolAgent,
  ISSUES,
  instanceStub,
  type Line,
  recordsOf,
  typesOf,
  upstream,
} from "./kit.ts";

afterEach(() => vi.restoreAllMocks());

interface Spot {
  readonly cf: object;
  readonly ip: string;
}
const HOME: Spot = { cf: { asn: 64_500, country: "FR", httpProtocol: "HTTP/1.1" }, ip: "198.51.100.7" };
const AWAY: Spot = { cf: { asn: 64_501, country: "DE", httpProtocol: "HTTP/1.1" }, ip: "203.0.113.9" };
const UNKNOWN = "/nowhere/x";
const NOWHERE: Spot = { cf: {}, ip: "192.0.2.1" };

let seconds = 0;
/** Each proof is made a second after the one before. */
async function call(agent: Agent, { cf, ip }: Spot, path = ISSUES): Promise<number> {
  seconds++;
  const iat = Math.floor(Date.now() / 1_000) - 60 + seconds;
  const proof = await agent.prove("GET", path, { iat });
  const headers = { "cf-connecting-ip": ip };
  const init = { proof, headers, cf } as Parameters<Agent["call"]>[1];
  const answer = await agent.call(path, init);
  await answer.arrayBuffer();
  return answer.status;
}

/** From here and there by turns; the status of each call. */
async function alternate(agent: Agent, calls: number, path = ISSUES): Promise<number[]> {
  seconds = 0;
  const statuses: number[] = [];
  for (let i = 0; i < calls; i++) statuses.push(await call(agent, i % 2 === 0 ? HOME : AWAY, path));
  return statuses;
}

const watchedBy = (agent: string): Promise<Agent> =>
  enrolAgent({ agent, task: { id: `build-platform_${agent}`, purpose: "test", deadlineMs: Date.now() + 3_600_000 } });
const signalsOf = async (agent: Agent): Promise<readonly Line[]> =>
  (await recordsOf(agent)).filter(({ type }) => type === "signal");

describe("a second copy", () => {
  it("is on record, whatever the rules: what was seen, what differs, and no address", async () => {
    const agent = await enrolAgent();
    upstream(() => Response.json([]));
    expect(await alternate(agent, 5)).toEqual(Array(5).fill(200));
    const part = { address: "198.51.100.0/24", network: 64_500, country: "FR", protocol: "HTTP/1.1" };
    expect(await signalsOf(agent)).toMatchObject([
      {
        rule: null,
        signal: "second-copy",
        seen: "alternating",
        value: 3,
        threshold: 3,
        mode: "observe",
        act: null,
        differs: ["network", "country", "address"],
        places: [{ network: 64_501, country: "DE", address: "203.0.113.0/24" }, part],
        instance: agent.id,
        human: "human-1",
      },
    ]);
    expect(JSON.stringify(await signalsOf(agent))).not.toMatch(/203\.0\.113\.9|198\.51\.100\.7/);
  });

  it("is on record once a minute, and counted meanwhile", async () => {
    const agent = await enrolAgent();
    upstream(() => Response.json([]));
    await alternate(agent, 15);
    expect(await signalsOf(agent)).toHaveLength(1);
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 61_000);
    await alternate(agent, 5);
    clock.mockRestore();
    expect((await signalsOf(agent)).map((line) => line["unrecorded"])).toEqual([0, 3]);
  });

  it("pauses the instance by a rule, and the call that shows it is not made", async () => {
    const agent = await watchedBy("copied-paused");
    const asked = upstream(() => Response.json([]));
    expect(await alternate(agent, 7)).toEqual([200, 200, 200, 200, 401, 401, 401]);
    expect(asked).toHaveBeenCalledTimes(4);
    const types = typesOf(await recordsOf(agent));
    expect(types).toContain("answer signal signal switched refused");
    expect((await signalsOf(agent))[1]).toMatchObject({ rule: "copied-paused", value: 1, mode: "enforce" });
    await vi.waitFor(
      async () => {
        const flips = await switchboardOf(deployment).list(null, 500);
        const found = flips.filter(({ switch: sw }) => sw.cause?.kind === "rule" && sw.cause.instance === agent.id);
        expect(found).toMatchObject([{ switch: { act: "pause", by: "rule:copied-paused" }, status: "done" }]);
      },
      { timeout: 10_000 },
    );
  });

  it("kills it by another, at the second hit, though that has no record of its own", async () => {
    const agent = await watchedBy("copied-killed");
    upstream(() => Response.json([]));
    const statuses = await alternate(agent, 10);
    expect(statuses.indexOf(401)).toBe(7);
    expect(statuses.slice(7)).toEqual([401, 401, 401]);
    const switched = (await recordsOf(agent)).find(({ type }) => type === "switched");
    expect(switched).toMatchObject({
      act: "kill",
      by: "rule:copied-killed",
      reason: "second-copy: 2 within 600 s, threshold 2",
    });
  });

  it("is forgotten with the object", async () => {
    const agent = await watchedBy("copied-paused");
    expect(await alternate(agent, 4, UNKNOWN)).toEqual(Array(4).fill(404));
    await evictDurableObject(instanceStub(agent.id));
    expect(await call(agent, HOME, UNKNOWN)).toBe(404);
    expect(await signalsOf(agent)).toEqual([]);
  });

  it("that is refused counts too", async () => {
    const agent = await watchedBy("copied-paused");
    expect(await alternate(agent, 6, UNKNOWN)).toEqual([404, 404, 404, 404, 401, 401]);
  });

  it("is nobody who repeats the requests of the one, from elsewhere: a replay is not seen", async () => {
    const agent = await watchedBy("copied-paused");
    upstream(() => Response.json([]));
    for (let i = 0; i < 6; i++) {
      const proof = await agent.prove("GET", ISSUES, { iat: Math.floor(Date.now() / 1_000) - 20 + i });
      for (const { cf, ip } of [HOME, AWAY])
        await agent.call(ISSUES, { proof, cf, headers: { "cf-connecting-ip": ip } } as Parameters<Agent["call"]>[1]);
    }
    expect(await signalsOf(agent)).toEqual([]);
  });

  it("is no client that says another address at each call, where no edge says anything", async () => {
    const agent = await watchedBy("copied-paused");
    upstream(() => Response.json([]));
    seconds = 0;
    for (let i = 0; i < 8; i++) expect(await call(agent, { ...NOWHERE, ip: `192.0.${i}.1` })).toBe(200);
    expect(await signalsOf(agent)).toEqual([]);
  });

  it("costs an ordinary call no row", async () => {
    const agent = await watchedBy("copied-paused");
    upstream(() => Response.json([]));
    seconds = 0;
    await call(agent, HOME);
    const rows = await runInDurableObject(instanceStub(agent.id), (_instance, { storage }) => {
      const exec = storage.sql.exec.bind(storage.sql);
      let written = 0;
      vi.spyOn(storage.sql, "exec").mockImplementation(((query: string, ...bindings: unknown[]) => {
        const cursor = exec(query, ...bindings);
        if (/^\s*(insert|update|delete)/i.test(query)) written += cursor.rowsWritten;
        return cursor;
      }) as typeof storage.sql.exec);
      return () => written;
    });
    expect(await call(agent, AWAY)).toBe(200);
    expect(rows()).toBe(2);
  });
});

const sightingAt = (spot: Spot): Sighting =>
  sightingOf({ cf: spot.cf as never, headers: new Headers({ "cf-connecting-ip": spot.ip }) }, Date.now())!;

describe("a renewal", () => {
  const renewal = (sighting: Sighting | null, iat: number) => ({
    refreshDigest: "digest-1",
    grant: crypto.randomUUID(),
    expiresAtMs: Date.now() + 300_000,
    proof: { jti: crypto.randomUUID(), issuedAtMs: iat * 1_000 },
    deployment: "test",
    sighting,
  });

  it("from elsewhere is noticed when the first one goes on, and stops both", async () => {
    const agent = await watchedBy("copied-paused");
    upstream(() => Response.json([]));
    seconds = 0;
    expect(await call(agent, HOME)).toBe(200);
    const iat = Math.floor(Date.now() / 1_000) - 58;
    expect(await instanceOf(deployment, agent.id).renew(renewal(sightingAt(AWAY), iat))).toMatchObject({
      renewed: true,
    });
    seconds = 3;
    expect([await call(agent, HOME), await call(agent, HOME)]).toEqual([200, 401]);
    expect((await signalsOf(agent))[0]).toMatchObject({ seen: "renewal", value: 2 });
    const again = await instanceOf(deployment, agent.id).renew(renewal(sightingAt(AWAY), iat + 10));
    expect(again).toEqual({ renewed: false, reason: "switched" });
  });

  it("that shows the copy is refused itself", async () => {
    const agent = await watchedBy("copied-paused");
    upstream(() => Response.json([]));
    await alternate(agent, 4);
    const iat = Math.floor(Date.now() / 1_000) - 50;
    const answer = await instanceOf(deployment, agent.id).renew(renewal(sightingAt(HOME), iat));
    expect(answer).toEqual({ renewed: false, reason: "switched" });
    expect(typesOf(await recordsOf(agent))).not.toContain("renewed");
  });

  it("says at its door where it comes from", async () => {
    const agent = await enrolAgent();
    const token = issueRefreshToken(deployment, {
      instance: agent.id,
      client: "build-platform",
      expiresAtMs: Date.now() + 60_000,
      nowMs: Date.now(),
    });
    const renew = vi.spyOn(AgentInstance.prototype, "renew");
    const body = new URLSearchParams({ grant_type: "refresh_token", refresh_token: token });
    const dpop = await agent.prove("POST", "/oauth/token");
    const headers = { dpop, "cf-connecting-ip": HOME.ip };
    const init = { method: "POST", headers, body, cf: HOME.cf };
    await exports.default.fetch(new Request(`${ORIGIN}/oauth/token`, init as RequestInit));
    expect(renew.mock.calls[0]?.[0].sighting).toMatchObject({ place: { network: 64_500, address: "198.51.100.0/24" } });
  });
});
