// What a valid grant can't reach looks like nothing at all; ceilings and limits hold on every call.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type GateRig, type Instance, type Sent, startGateRig } from "./gate-rig.ts";
import { pause } from "./hostile-upstream.ts";

let rig: GateRig;
afterAll(() => rig.close());

const LIMITS = { concurrency: 4, calls: 40, bytes: 3_000_000, refusalsRecordedPerMinute: 10_000 };
const JSON_TYPE = { "content-type": "application/json" };
const FORM_TYPE = { "content-type": "application/x-www-form-urlencoded" };

beforeAll(async () => {
  rig = await startGateRig({ limits: LIMITS, firstByteTimeoutMs: 8_000 }, { burst: 30, callsPerSecond: 1 });
});

const GET_ONE = { type: "http", upstream: "hostile", operations: ["GET /one/{name}"], where: { name: ["a", "b/c"] } };
const POST_ANY = { type: "http", upstream: "hostile", operations: ["POST /post/{name}"] };
const RULES = [
  { type: "http", upstream: "strict", operations: ["POST /rules/{rule}"], where: { "body./model": ["small"] } },
  { type: "http", upstream: "strict", operations: ["GET /rules/{rule}"], where: { "query.limit": ["1", "2"] } },
];

describe("the neutral 404", () => {
  const NOT_THERE: [string, string, Sent, string][] = [
    ["another method", "/hostile/one/a", { method: "DELETE" }, "grant"],
    ["another path", "/hostile/two/a", {}, "grant"],
    ["another value in the path", "/hostile/one/z", {}, "grant"],
    ["a longer path", "/hostile/one/a/b", {}, "grant"],
    ["a trailing slash", "/hostile/one/a/", {}, "grant"],
    ["the query of a rule", "/strict/rules/r?limit=3", {}, "grant"],
    ["a rule's query twice", "/strict/rules/r?limit=1&limit=2", {}, "grant"],
    ["no query where a rule wants it", "/strict/rules/r", {}, "grant"],
    [
      "the body of a rule",
      "/strict/rules/r",
      { method: "POST", body: '{"model":"large"}', headers: JSON_TYPE },
      "grant",
    ],
    ["no body where a rule wants it", "/strict/rules/r", { method: "POST" }, "grant"],
    [
      "a body key twice",
      "/strict/rules/r",
      { method: "POST", body: '{"model":"large","model":"small"}', headers: JSON_TYPE },
      "describe",
    ],
    ["a body of no type", "/strict/rules/r", { method: "POST", body: '{"model":"small"}' }, "describe"],
    [
      "a coded body",
      "/strict/rules/r",
      { method: "POST", body: "{}", headers: { ...JSON_TYPE, "content-encoding": "gzip" } },
      "describe",
    ],
    ["a bracket before a rule's query", "/strict/rules/r?limit=1&[limit]=3", {}, "grant"],
    ["a bracket behind a rule's query", "/strict/rules/r?limit=1&limit]=3", {}, "grant"],
    [
      "a form beside a rule on the query",
      "/strict/rules/f",
      { method: "POST", body: "a=1", headers: FORM_TYPE },
      "describe",
    ],
    [
      "a method override in a form",
      "/hostile/post/a",
      { method: "POST", body: "_method=DELETE", headers: FORM_TYPE },
      "describe",
    ],
    [
      "a method override without a type",
      "/hostile/post/b",
      { method: "POST", body: "x=1&[_method]=DELETE" },
      "describe",
    ],
    [
      "a method override in a part",
      "/hostile/post/c",
      {
        method: "POST",
        body: 'form-data; name="_method"',
        headers: { "content-type": "multipart/form-data; boundary=b" },
      },
      "describe",
    ],
    [
      "a method override in JSON",
      "/hostile/post/d",
      { method: "POST", body: '{"_method":"PUT"}', headers: JSON_TYPE },
      "describe",
    ],
    [
      "a form longer than the first run",
      "/hostile/post/e",
      { method: "POST", body: Buffer.alloc(1_048_577, "a"), headers: FORM_TYPE },
      "describe",
    ],
    ["an upstream that is not there", "/nowhere/one/a", {}, "route"],
    ["an upstream of another name", "/HOSTILE/one/a", {}, "route"],
    ["a name of every object", "/constructor/one/a", {}, "route"],
    ["__proto__", "/__proto__/one/a", {}, "route"],
    ["an upstream without a grant", "/ungranted/one/a", {}, "route"],
    ["an upstream alone", "/hostile", {}, "describe"],
    ["an upstream and a slash", "/hostile/", {}, "grant"],
    ["nothing", "/", {}, "route"],
    ["two slashes first", "//hostile/one/a", {}, "route"],
    ["two slashes", "/hostile//one/a", {}, "describe"],
    ["a semicolon in the query", "/hostile/one/a?x=1;y=2", {}, "describe"],
    ["a method override", "/hostile/one/a", { headers: { "X-HTTP-Method-Override": "DELETE" } }, "describe"],
    ["a method override in the query", "/hostile/one/a?_method=DELETE", {}, "describe"],
    ["an encoded dot segment", "/hostile/one/%2e%2e/one/a", {}, "describe"],
    ["a dot segment encoded twice", "/hostile/one/%252e%252e", {}, "describe"],
    ["a dot segment behind an encoded slash", "/hostile/one/b%2f..%2fc", {}, "describe"],
    ["a NUL", "/hostile/one/%00", {}, "describe"],
    ["what is no UTF-8", "/hostile/one/%C0%AE", {}, "describe"],
  ];

  it("is the same for all that is not granted, reaches nobody, and each record names its layer", async () => {
    const instances: Instance[] = [];
    for (let i = 0; i < NOT_THERE.length; i += 25) instances.push(await rig.provision([GET_ONE, POST_ANY, ...RULES]));
    const faces = new Map<string, string>();
    for (const [i, [name, path, sent]] of NOT_THERE.entries()) {
      const heard = await rig.call(instances[Math.floor(i / 25)] as Instance, path, sent);
      expect(heard.status, name).toBe(404);
      faces.set(heard.face, name);
    }
    expect([...faces.values()]).toHaveLength(1);
    expect([...faces.keys()][0]).toContain("Not Found");
    expect(rig.upstream.requests()).toEqual([]);
    const counts = new Map<string, number>();
    for (const [i, [name, path, , layer]] of NOT_THERE.entries()) {
      const who = instances[Math.floor(i / 25)] as Instance;
      const nth = (counts.get(who.id + path) ?? 0) + 1;
      counts.set(who.id + path, nth);
      const { decision } = await rig.refused(who, path, nth);
      expect(decision, name).toMatchObject({ allowed: false, kind: "absent", layer });
    }
  });

  it("is said before a byte of the body has come, where the path alone is out of scope", async () => {
    const who = await rig.provision([GET_ONE, POST_ANY, ...RULES]);
    const ended = Promise.withResolvers<void>();
    async function* stalled(): AsyncGenerator<Buffer> {
      yield Buffer.alloc(10);
      await ended.promise;
    }
    for (const path of ["/hostile/two/body", "/nowhere/body", "/hostile//body", "/strict/unruled/body"]) {
      const heard = await Promise.race([
        rig.call(who, path, { method: "POST", body: stalled() }).then(({ status }) => status),
        pause(5_000),
      ]);
      expect(heard, path).toBe(404);
    }
    ended.resolve();
  });

  it("is given to what no client would send", async () => {
    const who = await rig.provision([GET_ONE, ...RULES]);
    const known = (await rig.rawCall(who, { method: "GET", target: "/hostile/two/x" })).text;
    const undated = (text: string) => text.replace(/^date:.*\r\n/im, "");
    for (const target of [
      "/hostile/one/x/../a",
      "/hostile/one/./a",
      "/hostile/../hostile/one/a",
      "/hostile/one/..;x/a",
      "/hostile/one/.%2e/a",
      "/hostile/one\\..\\a",
      "/hostile/one/%5c..%5ca",
      "/hostile/one/a|b",
      "/hostile/one/{a}",
      '/hostile/one/"a"',
      "/hostile/one/\xfc",
    ]) {
      const heard = await rig.rawCall(who, { method: "GET", target });
      if (heard.status !== 400) expect(undated(heard.text), target).toBe(undated(known));
    }
    for (const method of ["get", "Get", "TRACE", "CONNECT", "FOO"]) {
      const heard = await rig.rawCall(who, { method, target: "/hostile/one/a" });
      // CONNECT is no request to the runtime, which has a 500 of its own for it.
      expect(method === "CONNECT" ? [500] : [400, 404, 501], `${method} ${heard.text}`).toContain(heard.status);
    }
    // In absolute form the host is what the request line says (RFC 9112 §3.2.2), and it names nobody but the gate.
    await rig.rawCall(who, { method: "GET", target: `http://evil.test/hostile/one/a`, htu: "/hostile/one/a" });
    expect(rig.upstream.requests().filter(({ target }) => target !== "/one/a")).toEqual([]);
    expect(rig.upstream.requests().every(({ headers }) => headers.host === new URL(rig.upstream.baseUrl).host)).toBe(
      true,
    );
  });

  it("what is granted passes, with data that looks like a path", async () => {
    const who = await rig.provision([GET_ONE, POST_ANY, ...RULES]);
    for (const [path, sent] of [
      ["/hostile/one/a", {}],
      ["/hostile/one/a", { method: "HEAD" }],
      ["/hostile/one/b%2Fc", {}],
      ["/strict/rules/r?limit=2", {}],
      ["/strict/rules/r", { method: "POST", body: '{"model":"small"}', headers: JSON_TYPE }],
      ["/hostile/post/x", { method: "POST", body: "payment_method=card", headers: FORM_TYPE }],
    ] as [string, Sent][])
      expect((await rig.call(who, path, sent)).status, path).toBe(200);
  });
});

describe("limits", () => {
  it("a burst is followed by 429 with Retry-After, and after that long a call passes", async () => {
    const who = await rig.provision();
    const heard = [];
    for (let i = 0; i < 40; i++) heard.push(await rig.call(who, "/hostile/burst"));
    const limited = heard.filter(({ status }) => status === 429);
    expect(limited.length).toBeGreaterThan(0);
    expect(heard.slice(0, 30).every(({ status }) => status === 200)).toBe(true);
    expect(limited[0]?.headers["retry-after"]).toBe("1");
    expect(JSON.parse(limited[0]?.body.toString() ?? "")).toEqual({
      type: "about:blank",
      title: "Too Many Requests",
      status: 429,
    });
    await pause(1_100);
    expect((await rig.call(who, "/hostile/burst")).status).toBe(200);
    expect((await rig.refused(who, "/hostile/burst"))["decision"]).toMatchObject({ kind: "limited", limit: "rate" });
    expect(rig.upstream.requests("/burst")).toHaveLength(heard.length - limited.length + 1);
  });

  it("of concurrent calls no more run than may", async () => {
    const who = await rig.provision();
    let running = 0;
    let most = 0;
    let refused = 0;
    rig.upstream.on("/concurrent", async (request, answer) => {
      request.resume();
      most = Math.max(most, ++running);
      // However slow the machine: none is over before all others were refused, and all that were not have come.
      while (refused < 16 || most < 4) await pause(20);
      running--;
      answer.end("ok");
    });
    const heard = await Promise.all(
      Array.from({ length: 20 }, async () => {
        const one = await rig.call(who, "/hostile/concurrent");
        if (one.status !== 200) refused++;
        return one;
      }),
    );
    expect(heard.filter(({ status }) => status === 200)).toHaveLength(4);
    expect(heard.filter(({ status, headers }) => status === 429 && headers["retry-after"] === "1")).toHaveLength(16);
    expect(most).toBe(4);
    expect((await rig.call(who, "/hostile/after")).status).toBe(200);
  });

  it("the call budget is never overspent", async () => {
    const { key, access } = await rig.h.provision({
      form: {
        task_limits: '{"calls":3}',
        authorization_details: JSON.stringify([{ type: "http", upstream: "hostile", operations: ["GET /{+path}"] }]),
      },
    });
    const who = { key, access, id: key.thumbprint };
    const heard = await Promise.all(Array.from({ length: 50 }, () => rig.call(who, "/hostile/calls")));
    for (let i = 0; i < 3; i++) heard.push(await rig.call(who, "/hostile/calls"));
    expect(heard.filter(({ status }) => status === 200)).toHaveLength(3);
    expect(rig.upstream.requests("/calls")).toHaveLength(3);
    const last = heard.at(-1);
    expect([last?.status, last?.headers["retry-after"]]).toEqual([429, undefined]);
  });

  it("the byte budget cuts in mid-stream, and is then spent", async () => {
    const who = await rig.provision();
    rig.upstream.on("/bytes", async (request, answer) => {
      request.resume();
      answer.writeHead(200, { "content-type": "text/event-stream" });
      for (let i = 0; i < 60 && !answer.destroyed; i++) {
        answer.write(Buffer.alloc(100_000, "b"));
        await pause(10);
      }
      answer.end();
    });
    const heard = await rig.call(who, "/hostile/bytes");
    expect([heard.status, heard.isWhole]).toEqual([200, false]);
    expect(heard.body.length).toBeGreaterThan(2_000_000);
    // The budget, and at most what a stream may lead its record by, twice: one run is under way while another is asked for.
    const bound = 3_000_000 + 2 * 262_144 + 2 * 65_536;
    const { answer } = await rig.recorded(who, "/hostile/bytes");
    expect(answer).toMatchObject({ outcome: "cut", cause: "budget" });
    // What passed last may be lost with the connection, to an agent that is slow to read.
    expect(answer["passedBytes"]).toBeGreaterThanOrEqual(heard.body.length);
    expect(answer["passedBytes"]).toBeLessThan(bound);
    const after = await rig.call(who, "/hostile/bytes");
    expect([after.status, after.headers["retry-after"]]).toEqual([429, undefined]);
  });
});

describe("ceilings are asked on every call", () => {
  it("each by itself refuses what the grant still says, and the record names it", async () => {
    const who = await rig.provision();
    expect((await rig.call(who, "/hostile/ceiling")).status).toBe(200);
    const neutral = (await rig.call(who, "/nowhere")).face;
    const count = rig.upstream.requests("/ceiling").length;
    let nth = 0;
    for (const layer of ["entitlement", "agent", "boundaries"] as const) {
      await rig.restart({ limits: LIMITS, without: layer });
      const heard = await rig.call(who, "/hostile/ceiling");
      expect(heard.face).toBe(neutral);
      expect((await rig.refused(who, "/hostile/ceiling", ++nth))["decision"]).toMatchObject({ kind: "absent", layer });
    }
    expect(rig.upstream.requests("/ceiling")).toHaveLength(count);
    await rig.restart({ limits: LIMITS });
    expect((await rig.call(who, "/hostile/ceiling")).status).toBe(200);
  });
});
