// An instance's object is reset under running calls, as each deployment does it, in the gate's own workerd: through the door that the
// soak has for it. What runs goes on, to the byte; what is killed meanwhile is silent.

import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { pullBucket, verifyFolder } from "../../scripts/local/verify-folder.ts";
import { NO_FAULTS } from "../soak/bucket-faults.ts";
import { type GateRig, type Instance, startGateRig } from "./gate-rig.ts";
import { pause } from "./hostile-upstream.ts";
import { killed, sealKeys, serveEndless, startStream } from "./kill-rig.ts";

const EVENTS = 40;
const EVERY_MS = 40;

let rig: GateRig;
/** Hears of each put, and keeps nothing. */
const witness = createServer((request, answer) => request.resume().on("end", () => answer.end()));
beforeAll(async () => {
  await new Promise<void>((resolve) => witness.listen(0, "127.0.0.1", resolve));
  const { port } = witness.address() as AddressInfo;
  const bindings = { SOAK_WITNESS: `http://127.0.0.1:${port}`, SOAK_FAULTS: JSON.stringify(NO_FAULTS) };
  rig = await startGateRig({}, {}, { around: { entry: "test/soak/entry.ts", bindings } });
});
afterAll(async () => {
  await rig.close();
  witness.close();
});

const reset = async ({ id }: Instance): Promise<void> => {
  const answer = await fetch(`${rig.origin}/soak/abort?instance=${id}`, { method: "POST" });
  expect(answer.status).toBe(200);
};

/** A model that answers word by word. */
function serveEvents(path: string, type: string): { readonly text: () => string } {
  const events = Array.from({ length: EVENTS }, (_, i) => `data: ${i} ${randomBytes(300).toString("hex")}\n\n`);
  rig.upstream.on(path, async (_request, answer) => {
    answer.writeHead(200, { "content-type": type });
    for (const event of events) {
      answer.write(event);
      await pause(EVERY_MS);
    }
    answer.end();
  });
  return { text: () => events.join("") };
}

describe("calls of an instance whose object is reset", () => {
  it("go on: what the agent gets, and what is on record, is what the upstream said", async () => {
    const who = await rig.provision();
    const types = ["text/event-stream", "text/plain"];
    const served = types.map((type, i) => serveEvents(`/events/${i}`, type));
    const streams = Array.from({ length: 6 }, (_, i) => rig.call(who, `/hostile/events/${i % 2}?n=${i}`));
    let isOver = false;
    rig.upstream.on("/short", (_request, answer) => {
      answer.writeHead(200, { "content-type": "text/plain", "content-length": 6 });
      setTimeout(() => answer.end("abcdef"), 30);
    });
    const shorts = (async () => {
      const heard: [number, string][] = [];
      for (let n = 0; !isOver; n++) {
        const { status, body } = await rig.call(who, `/hostile/short?n=${n}`);
        heard.push([status, body.toString()]);
      }
      return heard;
    })();
    for (let i = 0; i < 3; i++) {
      await pause(EVERY_MS * 10);
      await reset(who);
    }
    for (const [i, stream] of streams.entries()) {
      const { status, isWhole, body } = await stream;
      expect([status, isWhole, body.toString() === served[i % 2]!.text()]).toEqual([200, true, true]);
    }
    isOver = true;
    const heard = await shorts;
    expect(heard.length).toBeGreaterThan(3);
    // What was not yet admitted when the object died is refused; nothing is passed in part.
    for (const one of heard) expect([200, 503]).toContain(one[0]);
    for (const [status, text] of heard) if (status === 200) expect(text).toBe("abcdef");
    for (let i = 0; i < 6; i++) {
      const { call, answer, lines } = await rig.recorded(who, `/hostile/events/${i % 2}?n=${i}`);
      const text = served[i % 2]!.text();
      expect(answer).toMatchObject({ outcome: "complete", passedBytes: text.length });
      expect((await rig.recordedBody(who, call.seq, "answer")).toString() === text).toBe(true);
      expect(lines.filter(({ type, call: of }) => type === "answer" && of === call.seq)).toHaveLength(1);
    }
    expect(rig.upstream.requests("/events/0").length + rig.upstream.requests("/events/1").length).toBe(6);
  }, 30_000);

  it.each([
    "before",
    "after",
  ] as const)("and is killed just %s that: all are silent when the receipt is done, and each has one record", async (order) => {
    const details = JSON.stringify([{ type: "http", upstream: "hostile", operations: ["GET /{+path}"] }]);
    const form = { task: `reset-and-kill-${order}`, authorization_details: details };
    const { key, access } = await rig.h.provision({ form });
    const who: Instance = { key, access, id: key.thumbprint };
    serveEndless(rig, `/endless/${order}`);
    const targets = Array.from({ length: 4 }, (_, i) => `/hostile/endless/${order}?n=${i}`);
    const streams = await Promise.all(targets.map((target) => startStream(rig, who, target)));
    if (order === "after") await reset(who);
    const killing = killed(rig, "instance", { instance: who.id });
    if (order === "before") await reset(who);
    const receipt = await killing;
    const doneAtMs = Date.now();
    expect(receipt).toMatchObject({ status: "done", reached: 1 });
    for (const { endedAtMs, lastByteAtMs } of streams) {
      expect(endedAtMs).toBeGreaterThan(0);
      expect(lastByteAtMs).toBeLessThanOrEqual(doneAtMs);
    }
    for (const target of targets) {
      const { answer, call, lines } = await rig.recorded(who, target);
      expect(["cut", "lost"]).toContain(answer["outcome"]);
      expect(lines.filter(({ type, call: of }) => type === "answer" && of === call.seq)).toHaveLength(1);
    }
  }, 60_000);

  it("leave a bucket that verifies", async () => {
    const folder = await mkdtemp(join(tmpdir(), "portcullis-reset-"));
    try {
      await pullBucket(await rig.bucket(), folder);
      const report = await verifyFolder(folder, { keys: sealKeys(rig), issuer: rig.origin, nowMs: Date.now() });
      expect(report.transcripts.flatMap(({ findings }) => findings)).toEqual([]);
      expect(report.ok).toBe(true);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});
