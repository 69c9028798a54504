// Secrets in both directions through the running gate: they reach who they are for, and nothing that is stored anywhere.

import { createHash, randomBytes } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { err, ok } from "../../src/result.ts";
import { verifyTranscripts } from "../../src/transcript/verify.ts";
import { parseSealKeys } from "../../src/transcript/verify-keys.ts";
import { type GateRig, type Instance, type Line, startGateRig } from "./gate-rig.ts";
import { answerWith, type Behaviour, bodyOf } from "./hostile-upstream.ts";

let rig: GateRig;
let who: Instance;
/** Each is in what passes, and in nothing that is stored. */
const secrets: string[] = [];
const secret = (): string => {
  const made = `S3CRET${randomBytes(9).toString("hex")}`;
  secrets.push(made);
  return made;
};

beforeAll(async () => {
  rig = await startGateRig({
    redact: [
      { name: "logins", in: "both", operations: ["POST /vault/{+rest}"], fields: ["/password", "/users/*/pin"] },
      { name: "answers", in: "answer", operations: ["GET /vault/{+rest}"], fields: ["/token"] },
      { name: "traces", in: "request", operations: ["GET /traced"], headers: ["Traceparent"] },
      { name: "keys", in: "both", headers: ["Idempotency-Key", "X-Answer-Key"], query: ["token"] },
    ],
  });
  who = await rig.provision();
});
afterAll(() => rig?.close());

const JSON_TYPE = { "Content-Type": "application/json" };
const redactedOf = (line: Line) =>
  (line["redacted"] as { rule: string; at: string; digest: string | null; bytes: number | null }[]) ?? [];
const reasonOf = (line: Line): unknown => (line["decision"] as { reason?: string }).reason;
/** A record whose target begins so. */
const found = async (type: string, target: string): Promise<Line> => {
  const fits = (line: Line) => line.type === type && String(line["target"]).startsWith(target);
  return (await rig.records(who, fits)).find(fits) as Line;
};
const answerOf = async (call: Line): Promise<Line> => {
  const fits = (line: Line) => line.type === "answer" && line["call"] === call.seq;
  return (await rig.records(who, fits)).find(fits) as Line;
};
/** Objects of the bucket, as stored. */
async function objects(): Promise<Map<string, Uint8Array>> {
  const bucket = await rig.bucket();
  const all = new Map<string, Uint8Array>();
  for (const { key } of (await bucket.list()).objects)
    all.set(key, new Uint8Array((await (await bucket.get(key))?.arrayBuffer()) ?? new ArrayBuffer(0)));
  return all;
}
/** The salt of a call, from `bodies/`. */
async function saltOf(seq: number): Promise<Buffer> {
  for (const [key, bytes] of await objects())
    if (key.startsWith("bodies/") && key.endsWith(".gz") && key.includes(who.id))
      for (const line of gunzipSync(bytes)
        .toString()
        .trim()
        .split("\n")
        .map((text) => JSON.parse(text) as Line))
        if (line.seq === seq && line["part"] === "request" && line["index"] === 0)
          return Buffer.from(line["salt"] as string, "hex");
  throw new Error("no salt");
}
const sha256 = (...parts: (Buffer | string)[]) => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
};

describe("what passes and what is recorded", () => {
  const password = secret();
  const [pin, key, token, answered, answerKey] = [secret(), secret(), secret(), secret(), secret()];
  const sent = `{ "name" : "Ada", "p\\u0061ssword":"${password}",\n "users":[{"pin":"${pin}","n":1.50}] }`;
  const got = `{"id":90071992547409931,"password":{"value":"${answered}"},"ok":true}`;

  it("both sides get every byte; the record has markers in place of the values", async () => {
    rig.upstream.on("/vault/login", (request, answer) => {
      request.on("end", () => {
        // Of no declared length, in two runs, with what was asked in a link.
        answer.writeHead(200, {
          "content-type": "application/vnd.vault+json; charset=utf-8",
          "x-answer-key": answerKey,
          etag: '"1"',
          link: `<${rig.upstream.baseUrl}/vault/login?token=${token}&page=2>; rel="next"`,
        });
        answer.write(got.slice(0, 50));
        setTimeout(() => answer.end(got.slice(50)), 20);
      });
    });
    const headers = { ...JSON_TYPE, "Idempotency-Key": key, "Content-MD5": "unsalted" };
    const path = `/hostile/vault/login?token=${token}&page=1`;
    const heard = await rig.call(who, path, { method: "POST", body: sent, headers });
    expect(heard.body.toString()).toBe(got);
    expect(heard.headers["x-answer-key"]).toBe(answerKey);
    expect(heard.headers.link).toContain(token);
    const [seen] = rig.upstream.requests("/vault/login");
    expect(bodyOf(seen!).toString()).toBe(sent);
    expect(seen?.target).toBe(`/vault/login?token=${token}&page=1`);
    expect(seen?.headers).toMatchObject({ "idempotency-key": key, "content-md5": "unsalted" });

    const call = await found("call", "/hostile/vault/login");
    const answer = await answerOf(call);
    expect(call["target"]).toBe("/hostile/vault/login?token=[redacted:keys]&page=1");
    expect(call["rulesApplied"]).toEqual(["logins", "keys"]);
    expect(redactedOf(call).map(({ rule, at, bytes }) => [rule, at, bytes])).toEqual([
      ["keys", "query:token", token.length],
      ["logins", "header:content-md5", 8],
      ["keys", "header:idempotency-key", key.length],
      ["logins", "/password", password.length + 2],
      ["logins", "/users/0/pin", pin.length + 2],
    ]);
    const recorded = sent.replace(`"${password}"`, '"[redacted:logins]"').replace(`"${pin}"`, '"[redacted:logins]"');
    expect((await rig.recordedBody(who, call.seq, "request")).toString()).toBe(recorded);
    expect(call["body"]).toMatchObject({ bytes: recorded.length, trueBytes: sent.length, complete: true });

    expect(redactedOf(answer).map(({ rule, at }) => [rule, at])).toEqual([
      ["keys", "header:link?token"],
      ["keys", "header:x-answer-key"],
      ["logins", "/password"],
    ]);
    const recordedAnswer = got.replace(`{"value":"${answered}"}`, '"[redacted:logins]"');
    expect((await rig.recordedBody(who, call.seq, "answer")).toString()).toBe(recordedAnswer);
    expect(answer["body"]).toMatchObject({ bytes: recordedAnswer.length, trueBytes: got.length });
    expect(answer).toMatchObject({ outcome: "complete", passedBytes: got.length, forwardedBytes: sent.length });
  });

  it("a value is proven by its own salt, which lies with the bodies and in no envelope", async () => {
    const call = await found("call", "/hostile/vault/login");
    const answer = await answerOf(call);
    const salt = await saltOf(call.seq);
    const prove = (side: string, place: number, value: string) =>
      sha256(sha256(salt, `${side} ${place}`), value).toString("hex");
    expect(redactedOf(call)[0]?.digest).toBe(prove("request", 0, token));
    expect(redactedOf(call)[3]?.digest).toBe(prove("request", 3, `"${password}"`));
    expect(redactedOf(answer)[2]?.digest).toBe(prove("answer", 2, `{"value":"${answered}"}`));
    for (const [name, bytes] of await objects())
      if (name.startsWith("transcripts/")) expect(gunzipSync(bytes).includes(salt.toString("hex")), name).toBe(false);
  });

  it("a rule that finds nothing is named as applied; one of another operation is not", async () => {
    await rig.call(who, "/hostile/vault/nothing", { method: "POST", body: '{"a":1}', headers: JSON_TYPE });
    await rig.call(who, "/hostile/elsewhere", { method: "POST", body: '{"password":"VISIBLE"}', headers: JSON_TYPE });
    const call = await found("call", "/hostile/vault/nothing");
    expect(call).toMatchObject({ rulesApplied: ["logins", "keys"], redacted: [] });
    expect(call["body"]).not.toHaveProperty("trueBytes");
    expect(await answerOf(call)).toMatchObject({ rulesApplied: ["logins", "keys"], redacted: [] });
    const other = await found("call", "/hostile/elsewhere");
    expect(other).toMatchObject({ rulesApplied: ["keys"], redacted: [] });
    expect((await rig.recordedBody(who, other.seq, "request")).toString()).toBe('{"password":"VISIBLE"}');
  });

  it.each<[string, Behaviour]>([
    ["204", answerWith(204, {}, "")],
    ["304", answerWith(304, {}, "")],
    ["empty, of any type", answerWith(200, { "content-type": "text/plain" }, "")],
  ])("an answer without a body needs no redaction: %s", async (name, behaviour) => {
    const path = `/vault/none-${name.slice(0, 3)}`;
    rig.upstream.on(path, behaviour);
    const heard = await rig.call(who, `/hostile${path}`);
    expect([heard.status, heard.body.length]).toEqual([Number.parseInt(name, 10) || 200, 0]);
    expect(await answerOf(await found("call", `/hostile${path}`))).toMatchObject({ outcome: "complete" });
  });

  it("a gzipped answer, which the gate decodes, is redacted", async () => {
    const value = secret();
    const type = { "content-type": "application/json", "content-encoding": "gzip" };
    rig.upstream.on("/vault/gzip", answerWith(200, type, gzipSync(`{"token":"${value}"}`)));
    expect((await rig.call(who, "/hostile/vault/gzip")).body.toString()).toBe(`{"token":"${value}"}`);
    const call = await found("call", "/hostile/vault/gzip");
    expect((await rig.recordedBody(who, call.seq, "answer")).toString()).toBe('{"token":"[redacted:answers]"}');
  });
});

describe("a request that can't be redacted for certain", () => {
  async function* chunks(body: Buffer): AsyncGenerator<Buffer> {
    for (let at = 0; at < body.length; at += 65_536) yield body.subarray(at, at + 65_536);
  }
  const value = secret();
  const right = `{"password":"${value}"}`;
  const big = Buffer.from(`{"password":"${value}","x":"${"x".repeat(10_000_000)}"}`);
  it.each<[string, string, Record<string, string>, Buffer | string | AsyncIterable<Buffer>]>([
    ["without a type", "a body that is not declared as JSON", {}, right],
    [
      "a form",
      "a body that is not declared as JSON",
      { "Content-Type": "application/x-www-form-urlencoded" },
      `password=${value}`,
    ],
    [
      "multipart",
      "a body that is not declared as JSON",
      { "Content-Type": "multipart/form-data; boundary=b" },
      `--b\r\n\r\n${value}`,
    ],
    ["gzip", "a coded body", { ...JSON_TYPE, "Content-Encoding": "gzip" }, gzipSync(right)],
    ["a key twice", "the body: duplicate key", JSON_TYPE, `{"password":1,"p\\u0061ssword":"${value}"}`],
    ["a byte order mark", "the body: not JSON", JSON_TYPE, `\uFEFF${right}`],
    ["UTF-16", "the body: not JSON", JSON_TYPE, Buffer.from(right, "utf16le")],
    ["ten megabytes, declared", "a body too long to be redacted", JSON_TYPE, big],
    ["ten megabytes, chunked", "a body too long to be redacted", JSON_TYPE, chunks(big)],
  ])("%s is refused, and recorded without its body", async (name, reason, headers, body) => {
    const path = `/vault/refused/${name.replaceAll(/[^a-z]/g, "-")}`;
    // Where the body is long, the answer may come before the rest of it was taken.
    const heard = await rig.call(who, `/hostile${path}`, { method: "POST", body, headers }).catch(() => null);
    const unknown = await rig.call(who, "/nothing/here");
    if (heard !== null) expect([heard.status, heard.body]).toEqual([404, unknown.body]);
    expect(rig.upstream.requests(path)).toEqual([]);
    const line = await found("refused", `/hostile${path}`);
    expect(reasonOf(line)).toBe(`redaction by logins: ${reason}`);
    const isLong = name.startsWith("ten");
    const trueBytes = isLong ? null : Buffer.byteLength(body as Buffer | string);
    expect(line["body"]).toMatchObject({ bytes: 0, trueBytes, complete: false });
    expect(redactedOf(line).at(-1)).toMatchObject({ rule: "logins", at: "", bytes: trueBytes });
    if (isLong) expect(redactedOf(line).at(-1)?.digest).toBeNull();
    else {
      const key = sha256(await saltOf(line.seq), `request ${redactedOf(line).length - 1}`);
      expect(redactedOf(line).at(-1)?.digest).toBe(sha256(key, body as Buffer | string).toString("hex"));
    }
  });

  it("passes as a stream where its rule has no fields, its headers redacted", async () => {
    const key = secret();
    const body = randomBytes(3_000_000);
    const headers = { "Content-Type": "application/octet-stream", "Idempotency-Key": key };
    const heard = await rig.call(who, "/hostile/upload", { method: "PUT", body, headers });
    expect(heard.status).toBe(200);
    expect(bodyOf(rig.upstream.requests("/upload")[0]!).equals(body)).toBe(true);
    const call = await found("call", "/hostile/upload");
    const answer = await answerOf(call);
    expect(answer["requestBody"]).toMatchObject({ bytes: body.length, complete: true });
    expect((await rig.recordedBody(who, call.seq, "request")).equals(body)).toBe(true);
    const own = sha256(await saltOf(call.seq), "request 0");
    expect(redactedOf(call)).toMatchObject([{ rule: "keys", digest: sha256(own, key).toString("hex") }]);
  });

  it("passes as a form where its rule has no fields", async () => {
    const headers = { "Content-Type": "multipart/form-data; boundary=b" };
    const heard = await rig.call(who, "/hostile/form", { method: "POST", body: "--b\r\n", headers });
    expect(heard.status).toBe(200);
  });
});

describe("an answer that can't be redacted for certain", () => {
  const value = secret();
  const right = `{"token":"${value}"}`;
  const NOT_JSON = "a body that is not declared as JSON";
  it.each<[string, string, number | null, Behaviour]>([
    ["text", NOT_JSON, right.length, answerWith(200, { "content-type": "text/plain" }, right)],
    ["untyped", NOT_JSON, right.length, answerWith(500, {}, right)],
    ["ndjson", "a stream of events", null, answerWith(200, { "content-type": "application/x-ndjson" }, right)],
    [
      "twice",
      "the body: duplicate key",
      right.length + 12,
      answerWith(200, { "content-type": "application/json" }, `{"x":1,"token":"${value}","x":2}`),
    ],
    [
      "coded",
      "a coded body",
      right.length,
      answerWith(200, { "content-type": "application/json", "content-encoding": "x-own" }, right),
    ],
    [
      "long",
      "a body too long to be redacted",
      null,
      answerWith(200, { "content-type": "application/json" }, `{"token":"${value}${"x".repeat(2_000_000)}"}`),
    ],
    [
      "endless",
      "a body too long to be redacted",
      null,
      (_, answer) => {
        answer.writeHead(200, { "content-type": "application/json" });
        const more = (): void => {
          if (answer.destroyed) return;
          answer.write(`"${value}",`.repeat(4_000));
          setTimeout(more, 5);
        };
        more();
      },
    ],
    [
      "events",
      "a stream of events",
      null,
      (_, answer) => void answer.writeHead(200, { "content-type": "text/event-stream" }).write(`data: ${right}\n\n`),
    ],
  ])("%s is withheld: 502, and nothing of it is recorded", async (name, reason, bytes, behaviour) => {
    rig.upstream.on(`/vault/${name}`, behaviour);
    const heard = await rig.call(who, `/hostile/vault/${name}`);
    expect([heard.status, heard.headers["content-type"]]).toEqual([502, "application/problem+json"]);
    expect(heard.body.includes(value)).toBe(false);
    const call = await found("call", `/hostile/vault/${name}`);
    const answer = await answerOf(call);
    expect(answer).toMatchObject({
      outcome: "upstream-failed",
      reason: `redaction by answers: ${reason}`,
      passedBytes: 0,
    });
    expect(answer["body"]).toMatchObject({ digest: null, bytes: 0, complete: false });
    expect(redactedOf(answer)).toMatchObject([{ rule: "answers", at: "" }]);
    expect(redactedOf(answer)[0]?.bytes).toBe(bytes);
    expect((await rig.recordedBody(who, call.seq, "answer")).length).toBe(0);
  });

  it("nor is the half of one that broke off, or of one that refused the credential", async () => {
    rig.upstream.on("/vault/half", (_, answer) => {
      answer.writeHead(200, { "content-type": "application/json", "content-length": 100 }).write(right);
      setTimeout(() => answer.destroy(), 50);
    });
    rig.upstream.on("/vault/401", answerWith(401, { "content-type": "application/json" }, right));
    for (const name of ["half", "401"]) {
      expect((await rig.call(who, `/hostile/vault/${name}`)).status).toBe(502);
      const answer = await answerOf(await found("call", `/hostile/vault/${name}`));
      expect(answer).toMatchObject({ outcome: "upstream-failed", body: { bytes: 0, complete: false } });
    }
  });

  it("of an operation without such a rule streams as ever", async () => {
    rig.upstream.on("/events", answerWith(200, { "content-type": "text/event-stream" }, "data: 1\n\n"));
    expect((await rig.call(who, "/hostile/events")).body.toString()).toBe("data: 1\n\n");
  });
});

describe("a refused call", () => {
  it.each([
    ["out of scope", "/hostile/vault/../x"],
    ["of an upstream that is not granted", "/ungranted/x"],
    ["of an upstream that does not exist", "/no-such-upstream/x"],
  ])("%s is on record without the values of a query and of headers", async (_, path) => {
    const [token, key, trace] = [secret(), secret(), secret()];
    const { status } = await rig.rawCall(who, {
      method: "GET",
      target: `${path}?token=${token}`,
      headers: `Idempotency-Key: ${key}\r\nTraceparent: ${trace}\r\n`,
    });
    expect(status).toBe(404);
    const line = await found("refused", `${path}?token=`);
    expect(line["target"]).toBe(`${path}?token=[redacted:keys]`);
    expect(line["headers"]).toContainEqual(["idempotency-key", "[redacted:keys]"]);
    // What it would have been is not known, so the rules of all operations count.
    expect(line["headers"]).toContainEqual(["traceparent", "[redacted:traces]"]);
  });
});

describe("at last", () => {
  it("what is stored verifies, and no secret is in it", async () => {
    const all = await objects();
    const [jwk] = rig.h.secrets.sealKeys.keys;
    const keys = await parseSealKeys({ keys: [{ ...jwk, d: undefined }] });
    if (!keys.ok) throw new Error(keys.error);
    const report = await verifyTranscripts(
      {
        keys: (prefix) => [...all.keys()].filter((key) => key.startsWith(prefix)),
        open: async (key) => {
          const bytes = all.get(key);
          return bytes === undefined ? err("not there") : ok(Readable.from([bytes]));
        },
      },
      { keys: keys.value, issuer: rig.origin, nowMs: Date.now() },
    );
    expect(report.transcripts.flatMap(({ findings }) => findings)).toEqual([]);
    const stored = [...all].map(([key, bytes]) => (key.endsWith(".gz") ? gunzipSync(bytes) : Buffer.from(bytes)));
    const files = (readdirSync(rig.stateDir, { recursive: true, encoding: "utf8" }) as string[])
      .map((name) => join(rig.stateDir, name))
      .filter((file) => statSync(file).isFile())
      .map((file) => readFileSync(file));
    const holds = (text: string) => [...stored, ...files].filter((bytes) => bytes.includes(text)).length;
    // What may be stored is found in both places.
    expect(holds("VISIBLE")).toBeGreaterThan(1);
    expect(holds("[redacted:logins]")).toBeGreaterThan(1);
    expect(secrets.filter((value) => holds(value) > 0)).toEqual([]);
  });
});
