// Rules over the running gate: an agent that looks around for what it was not given stops itself and its task, and hears of no rule.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { pullBucket, verifyFolder } from "../../scripts/local/verify-folder.ts";
import { parseSealKeys } from "../../src/transcript/verify-keys.ts";
import { type GateRig, type Heard, type Instance, startGateRig } from "./gate-rig.ts";
import type { Members } from "./harness.ts";
import { pause } from "./hostile-upstream.ts";

const PROBES = 5;
let rig: GateRig;
let folder: string;

beforeAll(async () => {
  const rules = {
    prober: {
      signal: "unknown-paths",
      threshold: PROBES,
      windowSeconds: 60,
      mode: "enforce",
      act: "kill",
      reach: "task",
    },
    "any-refusal": { signal: "refusals", threshold: 2, windowSeconds: 60, mode: "observe" },
  } as const;
  rig = await startGateRig({}, { rules });
  folder = await mkdtemp(join(tmpdir(), "portcullis-rules-"));
  rig.upstream.on("/endless", (_request, answer) => {
    answer.writeHead(200, { "content-type": "text/event-stream" });
    const timer = setInterval(() => answer.write("data: on and on\n\n"), 5);
    answer.on("close", () => clearInterval(timer));
  });
});
afterAll(async () => {
  await rig.close();
  await rm(folder, { recursive: true, force: true });
});

const SCOPE = JSON.stringify([{ type: "http", upstream: "hostile", operations: ["GET /{+path}"] }]);
const provision = async (task: string): Promise<Instance> => {
  const { key, access } = await rig.h.provision({ form: { task, authorization_details: SCOPE } });
  return { key, access, id: key.thumbprint };
};
const UNKNOWN = ["/payroll/all", "/github/user", "/admin-api/x", "/strict/rules/r?limit=1", "/hostile/../etc/passwd"];
/** Resolves once its first bytes are here. */
const streaming = async (who: Instance, n: number): Promise<{ readonly ended: Promise<Heard> }> => {
  const begun = Promise.withResolvers<void>();
  const ended = rig.call(who, `/hostile/endless?n=${n}`, { onData: () => begun.resolve() });
  await begun.promise;
  return { ended };
};

async function switchBy(rule: string): Promise<Members> {
  for (let tries = 0; tries < 800; tries++) {
    const { json } = await rig.h.asAdmin("/admin/v1/switches");
    const found = (json["switches"] as Members[]).find(({ by }) => by === `rule:${rule}`);
    if (found?.["status"] === "done") return found;
    await pause(25);
  }
  throw new Error(`no switch of ${rule} is done`);
}

describe("an agent that probes for paths it does not know", () => {
  it("stops itself and its task, is told nothing, and leaves the reason on record", async () => {
    const [prober, sibling, other, killed] = (await Promise.all(
      ["probed", "probed", "quiet", "killed"].map((task) => provision(task)),
    )) as [Instance, Instance, Instance, Instance];
    const streams = await Promise.all([prober, sibling, other].map((who, n) => streaming(who, n)));

    const faces: string[] = [];
    for (const path of UNKNOWN) faces.push((await rig.call(prober, path)).face);
    expect(faces).toHaveLength(PROBES);
    expect(new Set(faces).size).toBe(1);
    expect(JSON.parse(faces[0]!)[0]).toBe(404);

    // At once, whatever becomes of the switch elsewhere: what every revoked token gets, to the byte.
    const after = await rig.call(prober, "/hostile/after");
    const target = { instance: killed.id };
    await rig.h.asAdmin("/admin/v1/switches", {
      body: { act: "kill", reach: "instance", target, reason: "to compare" },
    });
    expect(after.status).toBe(401);
    expect(after.face).toBe((await rig.call(killed, "/hostile/after")).face);

    const sw = await switchBy("prober");
    expect(sw).toMatchObject({
      reach: "task",
      target: { task: "build-platform_probed" },
      act: "kill",
      cause: { kind: "rule", rule: "prober", instance: prober.id },
      opened: null,
    });
    const { json: receipt } = await rig.h.asAdmin(`/admin/v1/switches/${sw["id"]}`);
    expect(receipt).toMatchObject({ reached: 2, cut: 2, unconfirmed: 0, unreached: [] });
    for (const { ended } of streams.slice(0, 2)) expect((await ended).isWhole).toBe(false);
    expect((await rig.call(sibling, "/hostile/after")).face).toBe(after.face);
    expect(rig.upstream.requests("/after")).toEqual([]);
    await expect(provision("probed")).rejects.toThrow("not provisioned: 400");

    // Another task of the same human and agent goes on.
    const fresh = await rig.call(other, "/hostile/other");
    expect(fresh.status).toBe(200);
    const stop = { act: "kill", reach: "instance", target: { instance: other.id }, reason: "the end of the test" };
    await rig.h.asAdmin("/admin/v1/switches", { body: stop });
    await streams[2]!.ended;

    const lines = await rig.records(prober, ({ type }) => type === "switched");
    const signals = lines.filter(({ type }) => type === "signal");
    expect(signals).toMatchObject([
      { rule: "any-refusal", signal: "refusals", value: 2, mode: "observe", act: "pause", reach: "instance" },
      { rule: "prober", signal: "unknown-paths", value: PROBES, threshold: PROBES, windowSeconds: 60, mode: "enforce" },
    ]);
    expect(lines.find(({ type }) => type === "switched")).toMatchObject({
      seq: signals[1]!.seq + 1,
      switch: sw["id"],
      by: "rule:prober",
      causedBy: { kind: "rule", rule: "prober", instance: prober.id },
    });
    const [act] = await rig.h.journal("admin", ({ deed, by }) => deed === "flip" && by === "rule:prober");
    expect(act).toMatchObject({ switch: sw["id"], reach: "task", email: null });
    expect(await rig.records(sibling, ({ type, by }) => type === "switched" && by === "rule:prober")).not.toEqual([]);

    await pullBucket(await rig.bucket(), folder);
    const keys = parseSealKeys({ keys: rig.h.secrets.sealKeys.keys.map(({ d: _, ...key }) => key) });
    if (!keys.ok) throw new Error(keys.error);
    const report = await verifyFolder(folder, { keys: keys.value, issuer: rig.origin, nowMs: Date.now() });
    expect(report.transcripts.flatMap(({ findings }) => findings)).toEqual([]);
    expect(report.ok).toBe(true);
  });
});
