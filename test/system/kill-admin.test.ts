// The admin's side of a kill: who may, what is told while it runs, and that it goes on without whoever asked for it.

import { connect } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { humans } from "../../scripts/local/humans.ts";
import type { Receipt } from "../../src/control/receipt.ts";
import { readReceipt } from "../../src/control/verify-receipt.ts";
import { type GateRig, type Instance, startGateRig } from "./gate-rig.ts";
import { type Members, nowSeconds } from "./harness.ts";
import { pause } from "./hostile-upstream.ts";
import { SWITCHES, sealKeys, serveEndless, startStream, untilDone } from "./kill-rig.ts";

let rig: GateRig;
beforeAll(async () => {
  rig = await startGateRig({}, { viewers: "support" });
  serveEndless(rig, "/endless");
});
afterAll(() => rig.close());

const adminToken = (claims: Members = {}): string =>
  rig.h.idToken({ sub: humans.oscar.sub, groups: humans.oscar.groups, aud: "portcullis-admin", ...claims });
const switches = async (): Promise<readonly Members[]> =>
  (await rig.h.asAdmin(SWITCHES)).json["switches"] as readonly Members[];

describe("a kill that nobody may ask for", () => {
  it.each<[string, () => { readonly token: string; readonly reason?: unknown }, number]>([
    ["without a role", () => ({ token: adminToken({ groups: [] }) }), 403],
    ["who may look, and no more", () => ({ token: adminToken({ groups: ["support"] }) }), 403],
    ["without a reason", () => ({ token: adminToken(), reason: undefined }), 400],
    ["with an expired token", () => ({ token: adminToken({ exp: nowSeconds() - 61 }) }), 401],
    ["with an old token that has not expired", () => ({ token: adminToken({ iat: nowSeconds() - 3_601 }) }), 401],
    ["with a token that does not say how old it is", () => ({ token: adminToken({ iat: undefined }) }), 401],
    ["with a break-glass key that is not known", () => ({ token: `${rig.h.secrets.breakGlassKey}x` }), 401],
    ["without a reason, by break-glass", () => ({ token: rig.h.secrets.breakGlassKey, reason: "" }), 400],
  ])("%s: there is no switch of it, and the stream runs on", async (_name, given, status) => {
    const who = await rig.provision();
    const stream = await startStream(rig, who, "/hostile/endless");
    const before = await switches();
    const { token, ...reason } = given();
    const body = { act: "kill", reach: "instance", target: { instance: who.id }, reason: "a test", ...reason };
    for (const accept of ["application/json", "text/event-stream"]) {
      const headers = { authorization: `Bearer ${token}`, accept };
      const answer = await rig.h.send(SWITCHES, { method: "POST", headers, body: JSON.stringify(body) });
      expect(answer.status).toBe(status);
    }
    expect(await switches()).toEqual(before);
    const sinceMs = Date.now();
    await expect.poll(() => stream.lastByteAtMs, { timeout: 10_000 }).toBeGreaterThan(sinceMs);
    expect(stream.endedAtMs).toBe(0);
    await rig.h.kill(who.id);
    await stream.ended;
  });

  it("a break-glass key kills, and does nothing else", async () => {
    const who = await rig.provision();
    const body = { reach: "instance", target: { instance: who.id }, reason: "the provider is down" };
    const forbidden: [path: string, body?: Members][] = [
      [SWITCHES, { ...body, act: "pause" }],
      [SWITCHES, { ...body, act: "resume" }],
      [SWITCHES],
      ["/admin/v1/instances"],
      ["/admin/v1/openapi.json"],
      ["/admin/v1/transcripts/a/b/c"],
    ];
    const answersTo = async (path: string, body?: Members) =>
      (await rig.h.asAdmin(path, { token: rig.h.secrets.breakGlassKey, ...(body === undefined ? {} : { body }) }))
        .status;
    for (const [path, body] of forbidden) expect([path, body, await answersTo(path, body)]).toEqual([path, body, 403]);
    expect((await rig.call(who, "/hostile/alive")).status).toBe(200);
    const killed = await rig.h.asAdmin(SWITCHES, {
      token: rig.h.secrets.breakGlassKey,
      body: { ...body, act: "kill" },
    });
    expect([killed.status, killed.json["status"]]).toEqual([201, "done"]);
    const { id, by } = killed.json["switch"] as { id: string; by: string };
    expect(by).toBe("break-glass:oncall");
    expect((await rig.call(who, "/hostile/dead")).status).toBe(401);
    expect(await answersTo(`${SWITCHES}/${id}`)).toBe(403);
    expect(await answersTo(`${SWITCHES}/${id}/lift`, { reason: "again" })).toBe(403);
    expect((await switches()).find((one) => one["id"] === id)).toMatchObject({ opened: null });
    const [act] = await rig.h.journal("admin", ({ deed, by }) => deed === "flip" && by === "break-glass:oncall");
    expect(act).toMatchObject({ switch: id, email: null });
    expect(JSON.stringify(await rig.h.journal("admin", () => true))).not.toContain(rig.h.secrets.breakGlassKey);
  });
});

describe("progress", () => {
  const provisionWatched = async (): Promise<Instance> => {
    const scope = [{ type: "http", upstream: "hostile", operations: ["GET /{+path}"] }];
    const form = { task: "watched", authorization_details: JSON.stringify(scope) };
    const { key, access } = await rig.h.provision({ form });
    return { key, access, id: key.thumbprint };
  };

  it("comes as events, and at the end the signed receipt", async () => {
    const all = await Promise.all(Array.from({ length: 12 }, () => provisionWatched()));
    const streams = await Promise.all(all.map((who) => startStream(rig, who, "/hostile/endless")));
    const body = { act: "kill", reach: "task", target: { task: "build-platform_watched" }, reason: "a test" };
    const answer = await rig.h.send(SWITCHES, {
      method: "POST",
      headers: { authorization: `Bearer ${adminToken()}`, accept: "text/event-stream" },
      body: JSON.stringify(body),
    });
    expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "text/event-stream"]);
    const events = answer.text
      .split("\n\n")
      .slice(0, -1)
      .map((text) => {
        const [, type, data] = /^event: (\w+)\ndata: (.*)$/.exec(text) ?? [];
        return { type, data: JSON.parse(data ?? "null") as Members };
      });
    const last = events.at(-1)!;
    expect(last.type).toBe("receipt");
    expect(events.length).toBeGreaterThan(1);
    for (const { type, data } of events.slice(0, -1)) {
      expect(type).toBe("progress");
      expect(data).toMatchObject({ switch: (last.data["switch"] as Members)["id"], status: expect.any(String) });
    }
    // No figure goes back.
    const cuts = events.map(({ data }) => Number(data["cut"]));
    expect(cuts).toEqual(cuts.toSorted((a, b) => a - b));
    const { jws, ...receipt } = last.data as unknown as Receipt & { jws: string };
    const read = readReceipt(jws, { keys: sealKeys(rig), issuer: rig.origin, place: "" });
    expect(read).toEqual({ ok: true, value: receipt });
    expect(receipt).toMatchObject({ status: "done", cut: 12, unconfirmed: 0, unreached: [] });
    for (const { ended } of streams) expect((await ended)?.isWhole).toBe(false);
  });
});

describe("a kill goes on without whoever asked for it", () => {
  /** Sends, and goes away in that moment or later: with a reset, or as a program that ends. */
  const sendAndGo = (instance: string, { accept, afterMs, isReset }: Way): Promise<void> =>
    new Promise((resolve) => {
      const body = JSON.stringify({ act: "kill", reach: "instance", target: { instance }, reason: "gone" });
      const lines = [
        `POST ${SWITCHES} HTTP/1.1`,
        `Host: 127.0.0.1:${rig.port}`,
        `Authorization: Bearer ${adminToken()}`,
        `Accept: ${accept}`,
        `Content-Length: ${body.length}`,
      ];
      const go = () => (isReset ? socket.resetAndDestroy() : socket.destroy());
      const socket = connect(rig.port, "127.0.0.1", () => {
        const goLater = () => (afterMs === 0 ? go() : setTimeout(go, afterMs));
        socket.write(`${lines.join("\r\n")}\r\n\r\n${body}`, goLater);
      });
      socket.on("error", () => {});
      socket.on("close", () => resolve());
    });
  const RESET_AFTER_MS = 150;
  interface Way {
    readonly afterMs: number;
    readonly accept: string;
    readonly isReset: boolean;
  }
  // A reset throws away what the gate has not read yet, and nobody has asked for anything then: it comes when that is surely read.
  const ways: readonly Way[] = [0, 0, 0, 0, 1, 2, 4, RESET_AFTER_MS].flatMap((afterMs) =>
    ["application/json", "text/event-stream"].flatMap((accept) =>
      (afterMs < RESET_AFTER_MS ? [false] : [true, false]).map((isReset) => ({ afterMs, accept, isReset })),
    ),
  );
  const switchOf = async (who: Instance): Promise<string> => {
    for (const endMs = Date.now() + 15_000; Date.now() < endMs; await pause(50)) {
      const found = (await switches()).find(({ target }) => (target as Members)["instance"] === who.id);
      if (found !== undefined) return found["id"] as string;
    }
    return "no switch stands";
  };

  it("one at a time, and many at once", async () => {
    for (const isAtOnce of [false, true]) {
      const all = await Promise.all(ways.map(() => rig.provision()));
      const streams = await Promise.all(all.map((who) => startStream(rig, who, "/hostile/endless")));
      const sending: Promise<void>[] = [];
      for (const [n, way] of ways.entries()) {
        // Of many at once some are not read yet when they are reset.
        const sent = sendAndGo(all[n]!.id, { ...way, isReset: way.isReset && !isAtOnce });
        sending.push(sent);
        if (!isAtOnce) await sent;
      }
      await Promise.all(sending);
      const ids = await Promise.all(all.map(switchOf));
      expect(ways.filter((_, n) => ids[n] === "no switch stands")).toEqual([]);
      for (const id of ids) expect(await untilDone(rig, id)).toMatchObject({ cut: 1, reached: 1, unconfirmed: 0 });
      for (const { ended } of streams) expect((await ended)?.isWhole).toBe(false);
    }
  });

  it("also where the gate has just begun, and must first ask for the keys of the admin's token", async () => {
    for (const accept of ["application/json", "text/event-stream"]) {
      const who = await rig.provision();
      await rig.restart({});
      await sendAndGo(who.id, { accept, afterMs: 5, isReset: false });
      const id = await switchOf(who);
      expect(id).not.toBe("no switch stands");
      expect(await untilDone(rig, id)).toMatchObject({ status: "done" });
      expect((await rig.call(who, "/hostile/dead")).status).toBe(401);
    }
  });
});
