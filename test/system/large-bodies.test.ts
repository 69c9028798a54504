// Bodies of any size and kind, both ways: the same bytes at the agent, at the upstream and on record, and a copy of the
// bucket that verifies. What breaks off says so, also after kill -9.

import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { pullBucket, verifyFolder } from "../../scripts/local/verify-folder.ts";
import { parseSealKeys } from "../../src/transcript/verify-keys.ts";
import { type GateRig, type Instance, startGateRig } from "./gate-rig.ts";
import { type Behaviour, bodyOf, pause } from "./hostile-upstream.ts";

const MIB = 1_048_576;
const INLINE = MIB;
const OBJECT = 8 * MIB;
const LEAD = 262_144;

let rig: GateRig;
let who: Instance;
beforeAll(async () => {
  rig = await startGateRig();
  who = await rig.provision();
});
afterAll(() => rig.close());

interface Reference {
  readonly digest: string | null;
  readonly bytes: number;
  readonly complete: boolean;
  readonly coding: string;
  readonly mayMiss?: number;
}

async function* inRuns(body: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < body.length; at += size) yield body.subarray(at, at + size);
}

/** Answers with `body` when the request is through: of a declared length, or in chunks. */
const answering =
  (body: Buffer, isDeclared: boolean, type: string): Behaviour =>
  (request, answer) => {
    request.on("end", () => {
      answer.writeHead(200, { "content-type": type, ...(isDeclared ? { "content-length": body.length } : {}) });
      answer.end(body);
    });
  };

const json = (length: number): Buffer => {
  const frame = '{"text":""}';
  return Buffer.from(frame.replace('""', `"${randomBytes(length).toString("hex").slice(frame.length, length)}"`));
};

const rawObjectsOf = async (seq: number, part: string): Promise<number> => {
  const { objects } = await (await rig.bucket()).list({ prefix: "bodies/" });
  const name = `/${String(seq).padStart(10, "0")}-${part}.`;
  return objects.filter(({ key }) => key.includes(`instance=${who.id}/`) && key.includes(name)).length;
};

describe("a body passes and is recorded to the byte", () => {
  const both = (size: number) => [
    { size, isDeclared: true, kind: "octets" },
    { size, isDeclared: false, kind: "json" },
  ];
  const cases = [
    ...[INLINE, INLINE + 1, OBJECT + 1].flatMap(both),
    { size: INLINE - 1, isDeclared: false, kind: "octets" },
    { size: OBJECT - 1, isDeclared: true, kind: "json" },
    { size: OBJECT, isDeclared: true, kind: "octets" },
    // Its lines hold the first MiB, or a little less.
    { size: OBJECT + INLINE + 1, isDeclared: false, kind: "octets" },
  ];

  it.each(cases)("$size bytes of $kind, declared: $isDeclared", async ({ size, isDeclared, kind }) => {
    const [sent, came] = kind === "json" ? [json(size), json(size)] : [randomBytes(size), randomBytes(size)];
    const type = kind === "json" ? "application/json" : "application/octet-stream";
    const path = `/size/${size}/${isDeclared}`;
    rig.upstream.on(path, answering(came, isDeclared, type));
    const heard = await rig.call(who, `/hostile${path}`, {
      method: "PUT",
      headers: { "content-type": type },
      body: isDeclared ? sent : inRuns(sent, 100_003),
    });
    expect([heard.status, heard.isWhole, heard.body.equals(came)]).toEqual([200, true, true]);
    const [seen] = rig.upstream.requests(path);
    expect(seen !== undefined && bodyOf(seen).equals(sent)).toBe(true);
    const { call, answer } = await rig.recorded(who, `/hostile${path}`);
    const request = (answer["requestBody"] ?? call["body"]) as Reference;
    expect(request).toMatchObject({ bytes: size, complete: true });
    expect(answer).toMatchObject({ outcome: "complete", passedBytes: size, forwardedBytes: size });
    expect(answer["body"]).toMatchObject({ bytes: size, complete: true });
    expect((await rig.recordedBody(who, call.seq, "request")).equals(sent)).toBe(true);
    expect((await rig.recordedBody(who, call.seq, "answer")).equals(came)).toBe(true);
    // What fits inline lies there; a longer request, and a longer answer that says so, lie in objects as a whole.
    const objects = size <= INLINE ? 0 : Math.ceil(size / OBJECT);
    expect(await rawObjectsOf(call.seq, "request")).toBe(objects);
    if (isDeclared) expect(await rawObjectsOf(call.seq, "answer")).toBe(objects);
  });

  it("a coded request goes and is recorded as it came", async () => {
    const sent = gzipSync(randomBytes(2 * MIB));
    const headers = { "content-type": "application/json", "content-encoding": "gzip" };
    const heard = await rig.call(who, "/hostile/coded", { method: "PUT", headers, body: sent });
    expect(heard.status).toBe(200);
    const [seen] = rig.upstream.requests("/coded");
    expect(seen !== undefined && bodyOf(seen).equals(sent)).toBe(true);
    const { call, answer } = await rig.recorded(who, "/hostile/coded");
    expect(answer["requestBody"]).toMatchObject({ bytes: sent.length, coding: "gzip", complete: true });
    expect((await rig.recordedBody(who, call.seq, "request")).equals(sent)).toBe(true);
  });

  it("a stream of events with pauses outgrows its lines", async () => {
    const events = Array.from({ length: 12 }, (_, i) =>
      Buffer.from(`data: ${i}${randomBytes(75_000).toString("hex")}\n\n`),
    );
    rig.upstream.on("/events", async (_request, answer) => {
      answer.writeHead(200, { "content-type": "text/event-stream" });
      for (const event of events) {
        answer.write(event);
        await pause(40);
      }
      answer.end();
    });
    const heard = await rig.call(who, "/hostile/events");
    expect([heard.isWhole, heard.body.equals(Buffer.concat(events))]).toEqual([true, true]);
    const { call, answer } = await rig.recorded(who, "/hostile/events");
    expect(answer["body"]).toMatchObject({ bytes: heard.body.length, complete: true });
    expect((await rig.recordedBody(who, call.seq, "answer")).equals(heard.body)).toBe(true);
    expect(await rawObjectsOf(call.seq, "answer")).toBe(1);
  });
});

describe("a body that breaks off in raw territory", () => {
  const body = randomBytes(OBJECT + 2 * MIB);

  /** It says so, and what is recorded begins like what was sent and holds at least what the other side saw. */
  async function expectPart(target: string, part: "request" | "answer", seen: number) {
    const { call, answer } = await rig.recorded(who, target);
    const reference = (part === "answer" ? answer["body"] : answer["requestBody"]) as Reference;
    expect(reference.complete).toBe(false);
    const kept = await rig.recordedBody(who, call.seq, part);
    expect(kept.length).toBe(reference.bytes);
    expect(kept.equals(body.subarray(0, kept.length))).toBe(true);
    expect(kept.length).toBeGreaterThanOrEqual(seen);
    expect(kept.length).toBeGreaterThan(INLINE);
    return answer;
  }

  it("the agent goes away in the middle of its upload", async () => {
    const leaving = new AbortController();
    async function* half() {
      yield* inRuns(body.subarray(0, -1), 65_536);
      await rig.upstream.until("/up-agent", ({ bytesIn }) => bytesIn > OBJECT, 10_000);
      leaving.abort();
      await pause(5_000);
    }
    const sent = { method: "PUT", body: half(), signal: leaving.signal };
    await expect(rig.call(who, "/hostile/up-agent", sent)).rejects.toThrow();
    const seen = await rig.upstream.until("/up-agent", ({ isBrokenOff }) => isBrokenOff);
    expect(seen.isWhole).toBe(false);
    const answer = await expectPart("/hostile/up-agent", "request", seen.bytesIn);
    expect(answer).toMatchObject({ outcome: "client-gone" });
  });

  it("the upstream goes away in the middle of an upload", async () => {
    rig.upstream.on("/up-upstream", (request, _answer, seen) => {
      request.on("data", () => {
        if (seen.bytesIn > OBJECT + MIB) request.socket.resetAndDestroy();
      });
    });
    const heard = await rig
      .call(who, "/hostile/up-upstream", { method: "PUT", body: inRuns(body, 65_536) })
      .catch(() => null);
    expect(heard?.status ?? 502).toBe(502);
    const [seen] = rig.upstream.requests("/up-upstream");
    const { call, answer } = await rig.recorded(who, "/hostile/up-upstream");
    expect(answer).toMatchObject({ outcome: "upstream-failed" });
    const kept = await rig.recordedBody(who, call.seq, "request");
    expect(kept.equals(body.subarray(0, kept.length))).toBe(true);
    expect(kept.length).toBeGreaterThanOrEqual(seen?.bytesIn ?? Number.POSITIVE_INFINITY);
  });

  it("the agent goes away in the middle of a download", async () => {
    rig.upstream.on("/down-agent", answering(body, true, "application/octet-stream"));
    const leaving = new AbortController();
    let got = 0;
    await rig.call(who, "/hostile/down-agent", {
      signal: leaving.signal,
      onData: (run) => {
        got += run.length;
        if (got > 3 * MIB) leaving.abort();
      },
    });
    const answer = await expectPart("/hostile/down-agent", "answer", got);
    expect(answer).toMatchObject({ outcome: "client-gone" });
    expect(answer["passedBytes"]).toBeGreaterThanOrEqual(got);
  });

  it.each(["declared", "chunked"])("the upstream goes away in the middle of a download, %s", async (kind) => {
    rig.upstream.on(`/down-${kind}`, (_request, answer) => {
      answer.writeHead(200, kind === "declared" ? { "content-length": body.length } : {});
      answer.write(body.subarray(0, -1), () => setTimeout(() => answer.socket?.resetAndDestroy(), 50));
    });
    const heard = await rig.call(who, `/hostile/down-${kind}`);
    expect(heard.isWhole).toBe(false);
    const answer = await expectPart(`/hostile/down-${kind}`, "answer", heard.body.length);
    expect(answer).toMatchObject({ outcome: "upstream-failed" });
  });

  it("the last byte waits for the record", async () => {
    const all = randomBytes(2 * MIB);
    const goOn = Promise.withResolvers<void>();
    rig.upstream.on("/last", async (_request, answer) => {
      answer.writeHead(200, { "content-length": all.length });
      answer.write(all.subarray(0, -1));
      await goOn.promise;
      answer.end(all.subarray(-1));
    });
    let got = 0;
    const count = (run: Buffer): void => {
      got += run.length;
    };
    const heard = rig.call(who, "/hostile/last", { onData: count });
    for (let i = 0; i < 200 && got < all.length - 2; i++) await pause(10);
    await pause(50);
    // One byte of what came is held back, and one has not come.
    expect(got).toBe(all.length - 2);
    goOn.resolve();
    expect((await heard).body.equals(all)).toBe(true);
  });
});

describe("kill -9 in the middle of large bodies", () => {
  it("what either side has seen is on record, up to the lead", async () => {
    const up = randomBytes(24 * MIB);
    const down = randomBytes(24 * MIB);
    // Neither comes to its end before the gate has died, however slow the other is.
    const crashed = Promise.withResolvers<void>();
    async function* slowly(bytes: Buffer) {
      for await (const run of inRuns(bytes.subarray(0, -1), 262_144)) {
        yield run;
        await pause(10);
      }
      await crashed.promise;
      yield bytes.subarray(-1);
    }
    rig.upstream.on("/killed-down", (_request, answer) => {
      answer.writeHead(200, { "content-length": down.length });
      void (async () => {
        for await (const run of slowly(down)) answer.write(run);
      })();
    });
    const uploading = rig.call(who, "/hostile/killed-up", { method: "PUT", body: slowly(up) }).catch(() => null);
    let got = 0;
    const count = (run: Buffer): void => {
      got += run.length;
    };
    const downloading = rig.call(who, "/hostile/killed-down", { onData: count }).catch(() => null);
    await rig.upstream.until("/killed-up", ({ bytesIn }) => bytesIn > OBJECT + MIB, 10_000);
    for (let i = 0; i < 1_000 && got < OBJECT + MIB; i++) await pause(10);
    rig.crash();
    crashed.resolve();
    await Promise.all([uploading, downloading]);
    const [seen] = rig.upstream.requests("/killed-up");
    await rig.restart({});
    // A call wakes the object.
    await rig.call(who, "/hostile/after");
    const uploaded = await rig.recorded(who, "/hostile/killed-up");
    const downloaded = await rig.recorded(who, "/hostile/killed-down");
    for (const { answer } of [uploaded, downloaded]) expect(answer).toMatchObject({ outcome: "lost" });
    const kept = await rig.recordedBody(who, uploaded.call.seq, "request");
    expect(kept.length).toBeGreaterThanOrEqual(seen?.bytesIn ?? Number.POSITIVE_INFINITY);
    expect(kept.equals(up.subarray(0, kept.length))).toBe(true);
    const request = uploaded.answer["requestBody"] as Reference;
    expect(request).toMatchObject({ bytes: kept.length, complete: false });
    const came = await rig.recordedBody(who, downloaded.call.seq, "answer");
    expect(came.length).toBeGreaterThanOrEqual(got - LEAD);
    expect(came.equals(down.subarray(0, came.length))).toBe(true);
    expect(downloaded.answer["body"]).toMatchObject({ bytes: came.length, complete: false, mayMiss: LEAD });
  });
});

describe("the bucket", () => {
  it("verifies, every body of it", async () => {
    const folder = await mkdtemp(join(tmpdir(), "portcullis-large-"));
    try {
      await pullBucket(await rig.bucket(), folder);
      const keys = parseSealKeys({ keys: rig.h.secrets.sealKeys.keys.map(({ d: _, ...key }) => key) });
      if (!keys.ok) throw new Error(keys.error);
      const report = await verifyFolder(folder, { keys: keys.value, issuer: rig.origin, nowMs: Date.now() });
      expect(report.transcripts.flatMap(({ findings }) => findings)).toEqual([]);
      expect(report.ok).toBe(true);
      const [transcript] = report.transcripts.filter(({ partition }) => partition.includes(who.id));
      expect(transcript).toMatchObject({ absentBodies: [], undigestedBodies: [], openCalls: [] });
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });
});
