// Whom a switch reaches, seen from the agents' sockets: streams of those in reach are cut, all others run on; and what a killed
// agent hears is what any other stopped one hears, to the byte.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { humans } from "../../scripts/local/humans.ts";
import { type GateRig, type Heard, type Instance, startGateRig } from "./gate-rig.ts";
import type { Client, HumanName } from "./harness.ts";
import { pause } from "./hostile-upstream.ts";
import {
  type Copy,
  flip,
  killed,
  type Stream,
  serveEndless,
  settledFaults,
  startCopy,
  startStream,
} from "./kill-rig.ts";

let rig: GateRig;
let copy: Copy;
beforeAll(async () => {
  rig = await startGateRig({}, { otherAgent: "review-bot" });
  copy = await startCopy(rig);
  serveEndless(rig, "/endless");
  serveEndless(rig, "/rules/endless");
});
afterAll(async () => {
  await copy.close();
  await rig.close();
});

const HOSTILE = { type: "http", upstream: "hostile", operations: ["GET /{+path}"] };
const STRICT = { type: "http", upstream: "strict", operations: ["GET /rules/{rule}"], where: { "query.limit": ["1"] } };

interface Who {
  readonly client?: Client;
  readonly human?: HumanName;
  readonly task?: string;
  readonly scope?: readonly unknown[];
}
interface Provisioned extends Instance {
  readonly refresh: string;
}

const asked = ({ client = "build-platform", human = "ada", task = "t-1", scope = [HOSTILE, STRICT] }: Who) => {
  const { sub, email } = humans[human];
  const aud = rig.h.clientKeys[client].audience;
  // By their groups both may do the same here.
  const subject = rig.h.idToken({ sub, email, groups: ["engineering"], aud });
  return { client, human, form: { task, subject_token: subject, authorization_details: JSON.stringify(scope) } };
};
async function provision(who: Who = {}): Promise<Provisioned> {
  const { key, access, refresh } = await rig.h.provision(asked(who));
  return { key, access, refresh, id: key.thumbprint };
}

/** On both upstreams. */
const streamsOf = async (who: Instance): Promise<{ readonly hostile: Stream; readonly strict: Stream }> => ({
  hostile: await startStream(rig, who, "/hostile/endless"),
  strict: await startStream(rig, who, "/strict/rules/endless?limit=1"),
});

/** It ran when it was looked at, and has had bytes since. */
async function expectRunning(streams: readonly Stream[]): Promise<void> {
  const sinceMs = Date.now();
  for (const endMs = sinceMs + 15_000; Date.now() < endMs; await pause(20))
    if (streams.every(({ lastByteAtMs }) => lastByteAtMs > sinceMs)) break;
  const stopped = streams.filter(({ lastByteAtMs, endedAtMs }) => lastByteAtMs <= sinceMs || endedAtMs !== 0);
  expect(stopped.map(({ target }) => target)).toEqual([]);
}
async function expectCut(streams: readonly Stream[]): Promise<void> {
  for (const { ended } of streams) expect((await ended)?.isWhole).toBe(false);
}
const statuses = async (who: Instance): Promise<readonly number[]> => {
  const paths = ["/hostile/now", "/strict/rules/now?limit=1"];
  return (await Promise.all(paths.map((path) => rig.call(who, path)))).map(({ status }) => status);
};

describe("a switch with an upstream", () => {
  it.each(["agent-upstream", "human-upstream"])("%s: those calls alone, of the right ones alone", async (reach) => {
    const isHuman = reach === "human-upstream";
    const meant = await provision(isHuman ? { human: "grace" } : { client: "other-platform" });
    const other = await provision();
    const [streams, others] = [await streamsOf(meant), await streamsOf(other)];
    const target = { upstream: "hostile", ...(isHuman ? { human: "grace@acme.example" } : { agent: "review-bot" }) };
    const { status, json } = await flip(rig, "pause", reach, target);
    expect([status, json["status"], json["cut"]]).toEqual([201, "done", 1]);
    await expectCut([streams.hostile]);
    await expectRunning([streams.strict, others.hostile, others.strict]);
    expect(await statuses(meant)).toEqual([404, 200]);
    expect(await statuses(other)).toEqual([200, 200]);
    expect((await flip(rig, "resume", reach, target)).status).toBe(200);
    for (const endMs = Date.now() + 15_000; (await statuses(meant))[0] !== 200; await pause(100))
      expect(Date.now()).toBeLessThan(endMs);
    await expectRunning([streams.strict]);
    for (const who of [meant, other]) await rig.h.kill(who.id);
    await expectCut([streams.strict, others.hostile, others.strict]);
  });

  it("upstream: everybody's calls to it, and a new one hears what one out of scope hears", async () => {
    const [one, other] = [await provision(), await provision({ client: "other-platform", human: "grace" })];
    const outOfScope = await rig.call(await provision({ scope: [STRICT] }), "/hostile/now");
    const [streams, others] = [await streamsOf(one), await streamsOf(other)];
    // A call that has no answer yet hears it as well.
    rig.upstream.on("/hang", (request) => void request.resume());
    const hanging = rig.call(one, "/hostile/hang");
    await rig.upstream.until("/hang");
    const receipt = await killed(rig, "upstream", { upstream: "hostile" });
    expect(receipt.cut).toBe(3);
    await expectCut([streams.hostile, others.hostile]);
    await expectRunning([streams.strict, others.strict]);
    const seen = rig.upstream.requests("/now").length;
    for (const heard of [await hanging, await rig.call(one, "/hostile/now"), await rig.call(other, "/hostile/now")])
      expect([heard.status, heard.face, heard.rawHeaders.length]).toEqual([
        404,
        outOfScope.face,
        outOfScope.rawHeaders.length,
      ]);
    expect(rig.upstream.requests("/now")).toHaveLength(seen);
    expect(await settledFaults(copy, receipt)).toEqual([]);
    // It takes two to lift this one, so that the others can go on here.
    const { id } = receipt.switch;
    const { sub, groups } = humans.oscar;
    const second = rig.h.idToken({ sub: `${sub}-2`, groups, aud: "portcullis-admin" });
    const lift = { body: { reason: "over" } };
    expect((await rig.h.asAdmin(`/admin/v1/switches/${id}/lift`, lift)).status).toBe(202);
    expect((await rig.h.asAdmin(`/admin/v1/switches/${id}/lift`, { ...lift, token: second })).status).toBe(200);
    for (const who of [one, other]) await rig.h.kill(who.id);
  });
});

describe("what a stopped agent hears", () => {
  it("is the same for a killed, a paused and a revoked one: calls, running calls and renewals", async () => {
    rig.upstream.on("/silent", (request) => void request.resume());
    const all = await Promise.all([0, 1, 2].map((n) => provision({ task: `face-${n}` })));
    const [dead, paused, revoked] = all as [Provisioned, Provisioned, Provisioned];
    const running = all.map((who, n) => rig.call(who, `/hostile/silent?n=${n}`));
    for (const n of [0, 1, 2]) await rig.upstream.until("/silent", ({ target }) => target.endsWith(`=${n}`));
    await killed(rig, "instance", { instance: dead.id });
    expect((await flip(rig, "pause", "instance", { instance: paused.id })).json["status"]).toBe("done");
    const { status } = await rig.h.post("/oauth/revoke", { token: revoked.refresh, ...rig.h.clientForm() });
    expect(status).toBe(200);

    const faceOf = ({ status, face, rawHeaders }: Heard) => {
      const names = rawHeaders.filter((_, i) => i % 2 === 0);
      return { status, face, names };
    };
    const faces = [
      ...(await Promise.all(running)).map(faceOf),
      ...(await Promise.all(all.map((who) => rig.call(who, "/hostile/now")))).map(faceOf),
      // Where it is not granted, and where there is nothing, the answer is no other.
      ...(await Promise.all(all.map((who) => rig.call(who, "/github/user")))).map(faceOf),
      ...(await Promise.all(all.map((who) => rig.call(who, "/nowhere/at/all")))).map(faceOf),
    ];
    expect(faces[0]?.status).toBe(401);
    for (const face of faces) expect(face).toEqual(faces[0]);

    const renewals = await Promise.all(all.map(({ key, refresh }) => rig.h.renew(key, refresh)));
    const said = renewals.map(({ status, text, headers }) => {
      const { date: _, ...rest } = Object.fromEntries(headers);
      return { status, text, rest };
    });
    expect(said[0]).toMatchObject({ status: 400, text: expect.stringContaining('"invalid_grant"') });
    for (const one of said) expect(one).toEqual(said[0]);
    const introspected = await Promise.all(all.map(({ access }) => rig.h.introspect(access)));
    for (const { text } of introspected) expect(text).toBe('{"active":false}');
  });
});

describe("a kill by e-mail address", () => {
  it("reaches that person's instances of every platform, and lets none of theirs begin", async () => {
    const theirs = [await provision(), await provision({ client: "other-platform" })];
    const other = await provision({ human: "grace" });
    const streams = await Promise.all(theirs.map((who) => startStream(rig, who, "/hostile/endless")));
    const running = await startStream(rig, other, "/hostile/endless");
    const receipt = await killed(rig, "human", { human: "ADA@acme.example" });
    expect(receipt.cut).toBe(2);
    expect(receipt.switch.target.human).toMatch(/^[A-Za-z0-9_-]{43}$/);
    await expectCut(streams);
    await expectRunning([running]);
    for (const who of theirs) expect(await statuses(who)).toEqual([401, 401]);
    for (const client of ["build-platform", "other-platform"] as const) {
      const refused = await rig.h.exchange(asked({ client, task: "later" }));
      expect([refused.status, refused.json["error"]]).toEqual([400, "invalid_request"]);
      expect(refused.json["error_description"]).toBe("closed by a switch");
    }
    expect(await statuses(await provision({ human: "grace", client: "other-platform" }))).toEqual([200, 200]);
    expect(await settledFaults(copy, receipt)).toEqual([]);
    await rig.h.kill(other.id);
    await expectCut([running]);
  });
});
