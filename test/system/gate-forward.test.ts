// What an upstream really receives: the agent's words about content, the gate's credential, and nothing else.

import { randomBytes } from "node:crypto";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type GateRig, type Instance, METHODS, startGateRig } from "./gate-rig.ts";
import { bodyOf, pause } from "./hostile-upstream.ts";

const MIB = 1_048_576;

/** What the instance has committed, read beside it. */
function instanceDatabase(instance: string): DatabaseSync {
  const files = readdirSync(rig.stateDir, { recursive: true, encoding: "utf8" }).filter((file) =>
    file.endsWith(".sqlite"),
  );
  for (const file of files) {
    const database = new DatabaseSync(join(rig.stateDir, file), { readOnly: true });
    const tables = database.prepare("SELECT name FROM sqlite_master WHERE name = 'kept'").all();
    const row =
      tables.length === 0 ? undefined : database.prepare("SELECT json FROM kept WHERE kind = 'enrolment'").get();
    if (String(row?.["json"]).includes(instance)) return database;
    database.close();
  }
  throw new Error("no database of this instance");
}
let rig: GateRig;
let who: Instance;

beforeAll(async () => {
  rig = await startGateRig({ maxRequestBytes: 6 * MIB });
  who = await rig.provision();
});
afterAll(() => rig.close());

describe("the URL", () => {
  it.each([
    ["/u/plain", "/u/plain"],
    ["/trailing/", "/trailing/"],
    ["/u/a%2Fb", "/u/a%2Fb"],
    ["/u/a%2fb", "/u/a%2fb"],
    ["/u/%C3%BC%E2%82%AC", "/u/%C3%BC%E2%82%AC"],
    ["/u/a+b%20c", "/u/a+b%20c"],
    ["/u/a;v=1,2:x@y$&'()*!~", "/u/a;v=1,2:x@y$&'()*!~"],
    ["/u/%41%7e", "/u/%41%7e"],
    ["/u/...", "/u/..."],
    ["/u/q?b=2&a=1&b=3&&c&d=", "/u/q?b=2&a=1&b=3&&c&d="],
    ["/u/q?x=%2e%2E%2f&y=a+b%20c", "/u/q?x=%2e%2E%2f&y=a+b%20c"],
    ["/u/q?u=https://x.test/?z", "/u/q?u=https://x.test/?z"],
    ["/u/q?", "/u/q"],
  ])("%s goes out as it was sent", async (sent, received) => {
    const before = rig.upstream.requests().length;
    expect((await rig.call(who, `/hostile${sent}`)).status).toBe(200);
    const seen = rig.upstream.requests().slice(before);
    expect(seen.map(({ target }) => target)).toEqual([received]);
  });
});

describe("headers", () => {
  const SPOKEN = {
    Accept: "application/vnd.x+json",
    "User-Agent": "octokit/1",
    "If-None-Match": 'W/"1"',
    "X-Request-Id": "r-1",
    "Content-Language": "de",
    "X-GitHub-Api-Version": "2022-11-28",
  };
  const UNSAID = {
    Cookie: "session=1",
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Host": "evil.test",
    X_Forwarded_Proto: "https",
    Forwarded: "for=6.6.6.6",
    Via: "1.1 evil",
    "CF-Connecting-IP": "6.6.6.6",
    "CF-Access-Client-Secret": "s",
    "X-Real-IP": "6.6.6.6",
    "True-Client-IP": "6.6.6.6",
    TE: "trailers",
    "Proxy-Authorization": "Basic eA==",
    "X-Hostile-Key": "the agent's own",
    "X-Api-Key": "the agent's own",
    "Private-Token": "the agent's own",
    "X-Portcullis-Human": "root",
    "Txn-Token": "t",
    Connection: "close, X-Named",
    "X-Named": "named by Connection",
    "X-Unheard-Of": "anything",
    X_Hostile_Key: "the agent's own",
    "Accept-Encoding": "gzip, br",
    Range: "bytes=0-3",
    "If-Range": '"1"',
    Host: "evil.test",
  };

  it("come without what the agent may not say, and with the injected credential only", async () => {
    const heard = await rig.call(who, "/hostile/headers", {
      headers: { ...SPOKEN, ...UNSAID, Host: `127.0.0.1:${rig.port}` },
    });
    expect(heard.status).toBe(200);
    const [seen] = rig.upstream.requests("/headers");
    for (const [name, value] of Object.entries(SPOKEN)) expect(seen?.headers[name.toLowerCase()], name).toBe(value);
    const known = new Set([...Object.keys(SPOKEN).map((name) => name.toLowerCase()), "host", "connection"]);
    const rest = Object.entries(seen?.headers ?? {}).filter(([name]) => !known.has(name));
    expect(Object.fromEntries(rest)).toEqual({
      "accept-encoding": "identity",
      "x-hostile-key": rig.h.secrets.modelKey,
      // What the runtime says of itself, and makes of `cache: "no-store"`.
      "cf-worker": expect.any(String),
      "cache-control": "no-cache",
      pragma: "no-cache",
    });
    expect(seen?.headers.host).toBe(new URL(rig.upstream.baseUrl).host);
    expect(JSON.stringify(seen?.rawHeaders)).not.toContain(who.access.slice(-40));
  });

  it("go on record as sent, without what admits to the gate and without the credential", async () => {
    const { call, lines } = await rig.recorded(who, "/hostile/headers");
    const names = (call["headers"] as [string, string][]).map(([name]) => name);
    expect(names).toContain("cookie");
    expect(names).toContain("x-unheard-of");
    expect(names).not.toContain("authorization");
    expect(names).not.toContain("dpop");
    const text = JSON.stringify(lines);
    expect(text).not.toContain(rig.h.secrets.modelKey);
    expect(text).not.toContain(who.access.slice(-40));
  });

  it("name the upstream's host whatever Host the agent sent", async () => {
    await rig.call(who, "/hostile/host", { headers: { Host: "evil.test" } });
    expect(rig.upstream.requests("/host").map(({ headers }) => headers.host)).toEqual([
      new URL(rig.upstream.baseUrl).host,
    ]);
  });

  it("do not pass an Expect on", async () => {
    const heard = await rig.call(who, "/hostile/expect", {
      method: "POST",
      body: "x",
      headers: { Expect: "100-continue" },
    });
    expect(heard.status).toBe(200);
    expect(rig.upstream.requests("/expect")[0]?.headers.expect).toBeUndefined();
  });
});

describe("a request's body", () => {
  async function* chunks(body: Buffer, size: number): AsyncGenerator<Buffer> {
    for (let at = 0; at < body.length; at += size) {
      yield body.subarray(at, at + size);
      await pause(0);
    }
  }
  const SIZES = [0, 1, 16_383, 16_384, 16_385, 65_536, MIB - 1, MIB, MIB + 1, 2 * MIB, 2 * MIB + 1, 5 * MIB];

  it.each(
    SIZES.flatMap((bytes) => [[bytes, "declared"] as const, [bytes, "chunked"] as const]),
  )("of %d bytes, %s, goes out and on record byte for byte", async (bytes, framing) => {
    const body = randomBytes(bytes);
    const path = `/hostile/body/${framing}/${bytes}`;
    const sent = framing === "declared" ? body : chunks(body, 70_001);
    const headers = { "Content-Type": "application/octet-stream" };
    expect((await rig.call(who, path, { method: "PUT", body: sent, headers })).status).toBe(200);
    const [seen] = rig.upstream.requests(path.slice("/hostile".length));
    expect(seen?.isWhole).toBe(true);
    expect(seen !== undefined && bodyOf(seen).equals(body)).toBe(true);
    const { call, answer } = await rig.recorded(who, path);
    expect(answer["forwardedBytes"]).toBe(bytes);
    const reference = (answer["requestBody"] ?? call["body"]) as { bytes: number; complete: boolean } | null;
    expect(reference === null ? 0 : reference.bytes).toBe(bytes);
    if (reference !== null) expect(reference.complete).toBe(true);
    expect((await rig.recordedBody(who, call.seq, "request")).equals(body)).toBe(true);
  });

  it("is durable before a byte of it reaches the upstream", async () => {
    const uploader = await rig.provision();
    const database = instanceDatabase(uploader.id);
    const heldBytes = (): number => {
      const tables = database
        .prepare("SELECT name FROM sqlite_master WHERE name LIKE 'raw!_%!_request!_%' ESCAPE '!'")
        .all();
      return tables.reduce((sum, { name }) => {
        const sql = `SELECT sum(length(bytes)) AS bytes FROM ${String(name)}`;
        return sum + Number(database.prepare(sql).get()?.["bytes"] ?? 0);
      }, 0);
    };
    const leads: number[] = [];
    rig.upstream.on("/durable", (request, answer, seen) => {
      request.on("data", () => leads.push(seen.bytesIn - heldBytes()));
      request.on("end", () => answer.end("ok"));
    });
    const sent = { method: "PUT", body: chunks(randomBytes(4 * MIB), 50_000) };
    expect((await rig.call(uploader, "/hostile/durable", sent)).status).toBe(200);
    expect(leads.length).toBeGreaterThan(4);
    expect(Math.max(...leads)).toBeLessThanOrEqual(0);
    database.close();
  });

  it.each(METHODS.filter((method) => method !== "GET"))("goes with %s", async (method) => {
    expect((await rig.call(who, `/hostile/method/${method}`, { method, body: "a body" })).status).toBe(200);
    const [seen] = rig.upstream.requests(`/method/${method}`);
    expect([seen?.method, seen && bodyOf(seen).toString()]).toEqual([method, "a body"]);
  });

  it("has none with GET, and one that is sent all the same is not there", async () => {
    expect((await rig.call(who, "/hostile/get-body", { body: "x" })).status).toBe(404);
    expect(rig.upstream.requests("/get-body")).toEqual([]);
    expect((await rig.refused(who, "/hostile/get-body"))["decision"]).toMatchObject({ layer: "describe" });
  });
});
