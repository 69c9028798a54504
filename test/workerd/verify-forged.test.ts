// Records that a gate has really written, changed by somebody who can seal them anew, or by a gate that is wrong: seals and chain
// hold, and what the records say of each other does not.

import { env } from "cloudflare:test";
import { beforeAll, describe, expect, it, vi } from "vitest";
import { instanceOf } from "../../src/objects.ts";
import { ok } from "../../src/result.ts";
import { instancePartition } from "../../src/transcript/layout.ts";
import { type VerifyReport, verifyTranscripts } from "../../src/transcript/verify.ts";
import { type Forged, forge, recordsIn } from "../unit/forge-kit.ts";
import { findingsOf, keysOf, type Objects } from "../unit/transcript-kit.ts";
import { decide, heard, put } from "./approval-kit.ts";
import { ORIGIN } from "./config.ts";
import { alarmAt, childOf, LEAD, rootOf, soon } from "./family-kit.ts";
import { type Agent, deployment, enrolAgent, flip, ISSUES, SCOPE, settlement, upstream } from "./kit.ts";
import { abortInstance } from "./quota-kit.ts";
import { modelCalls } from "./quotas-config.ts";

const HUMAN = "human-forged";
const TASK = "build-platform_forged";
const { sealKeys: ring } = deployment;
const utf8 = new TextEncoder();
const deadlineMs = Math.ceil(Date.now() / 1000) * 1000 + 3_600_000;
const of = { human: HUMAN, task: { id: TASK, purpose: "test", deadlineMs } };
const partitionOf = (instance: string): string => instancePartition({ human: HUMAN, task: TASK, instance });

/** What was really written: a worker that calls and pays, one that was killed, a parent and its child. */
let truth: Objects;
let worker: string;
let killed: string;
let parent: string;
let child: string;

/** A model's call: its scope asks for a fact of its body. */
async function askModel(agent: Agent) {
  const admission = await instanceOf(deployment, agent.id).admit(
    agent.admission({
      call: {
        upstream: "model",
        method: "POST",
        segments: ["v1", "chat"],
        query: [],
        body: { kind: "json", value: { max_tokens: 10 } },
      },
      permit: { entry: 1, operation: "POST /v1/chat" },
      request: {
        method: "POST",
        target: "/model/v1/chat",
        headers: [],
        body: utf8.encode('{"max_tokens":10}'),
        bodyFollows: false,
      },
    }),
  );
  if (!admission.admitted) throw new Error(JSON.stringify(admission.denial));
  return admission.lease;
}

const WHOLE = { passedBytes: 2, heldBytes: 0, forwardedBytes: 17 };

async function writeWorker(): Promise<string> {
  const agent = await enrolAgent({
    ...of,
    agent: "ample-bot",
    scope: [...SCOPE, { ...modelCalls, where: { "body./max_tokens": { max: 4_000 } } }] as never,
    limits: { ...deployment.config.agents["ample-bot"]!.limits, units: { usd: 1 } },
  });
  await (await agent.call(ISSUES)).text();
  await (await agent.call(`${ISSUES}?state=open`)).text();
  const units = { "input-tokens": 10, "output-tokens": 20, usd: 0.00033 };
  await (await askModel(agent)).settle(settlement({ ...WHOLE, units }));
  await (await askModel(agent)).settle(settlement({ ...WHOLE, outcome: "client-gone" }));
  expect((await put(agent)).status).toBe(503);
  await heard(agent);
  await decide(agent);
  expect((await put(agent)).status).toBe(200);
  await askModel(agent);
  await abortInstance(agent);
  await alarmAt(agent.id, deadlineMs + 1);
  return agent.id;
}

async function writeKilled(): Promise<string> {
  const agent = await enrolAgent(of);
  await (await agent.call(ISSUES)).text();
  await flip({ reach: "instance", target: { instance: agent.id } });
  expect((await agent.call(ISSUES)).status).toBe(401);
  await alarmAt(agent.id, Date.now() + 302_000);
  return agent.id;
}

async function writeFamily(): Promise<readonly [parent: string, child: string]> {
  const root = await rootOf({ ...of, limits: { ...LEAD, units: { usd: 5 } } });
  const one = await childOf(root, { task_limits: JSON.stringify({ calls: 10, units: { usd: 1 } }) });
  expect(await one.call()).toBe(200);
  expect(await root.call()).toBe(200);
  await alarmAt(one.id, deadlineMs + 1);
  await soon(async () => {
    const read = await instanceOf(deployment, root.id).read(0, 100);
    expect(read!.lines.some((line) => line.includes('"act":"return"'))).toBe(true);
  });
  await alarmAt(root.id, deadlineMs + 1);
  return [root.id, one.id];
}

async function readBucket(): Promise<Objects> {
  const objects: Objects = new Map();
  for (const prefix of ["transcripts", "bodies"]) {
    const listed = await env.TRANSCRIPTS.list({ prefix: `${prefix}/human=${HUMAN}/` });
    for (const { key } of listed.objects) objects.set(key, await (await env.TRANSCRIPTS.get(key))!.bytes());
  }
  return objects;
}

beforeAll(async () => {
  upstream(() => Response.json([]));
  worker = await writeWorker();
  killed = await writeKilled();
  [parent, child] = await writeFamily();
  vi.restoreAllMocks();
  truth = await readBucket();
});

const verify = (objects: Objects, bodies = true): Promise<VerifyReport> =>
  verifyTranscripts(
    {
      keys: (prefix) => [...objects.keys()].filter((key) => key.startsWith(prefix)),
      open: async (key) => ok(new Response(objects.get(key)).body as unknown as AsyncIterable<Uint8Array>),
    },
    { keys: keysOf(ring), issuer: ORIGIN, nowMs: Date.now(), bodies },
  );

/** `seq 3: what is wrong`, of one transcript or of all. */
async function found(id: string, change: (records: Forged[]) => readonly Forged[], bodies = true): Promise<string[]> {
  const report = await verify(forge(truth, partitionOf(id), ring, change), bodies);
  return findingsOf(report).map(
    ({ place, problem }) => `${/\(seq \d+/.exec(place)?.[0].slice(1) ?? place}: ${problem}`,
  );
}

const indexOf = (records: readonly Forged[], type: string, nth = 0): number =>
  records.flatMap((record, i) => (record["type"] === type ? [i] : []))[nth]!;

/** Changes a member of one record. */
const set =
  (type: string, path: readonly (string | number)[], to: unknown, nth = 0) =>
  (records: Forged[]): Forged[] => {
    let at = records[indexOf(records, type, nth)]!;
    for (const name of path.slice(0, -1)) at = at[name];
    const name = path.at(-1)!;
    if (!(name in at) && to === undefined) throw new Error(`no ${path.join(".")} in ${type}`);
    at[name] = typeof to === "function" ? to(at[name]) : to;
    return records;
  };

/** References to later records follow. */
function shifted(records: readonly Forged[], from: number, by: number): Forged[] {
  return records.map((record) =>
    record["type"] === "answer" && record["call"] >= from ? { ...record, call: record["call"] + by } : record,
  );
}
const drop =
  (type: string, nth = 0) =>
  (records: Forged[]) => {
    const at = indexOf(records, type, nth);
    return shifted(records.toSpliced(at, 1), at, -1);
  };
const insert =
  (at: (records: readonly Forged[]) => number, make: (records: readonly Forged[]) => Forged) => (records: Forged[]) => {
    const place = at(records);
    return shifted(records, place, 1).toSpliced(place, 0, make(records));
  };

describe("what a gate has written", () => {
  it("verifies, forged into one segment or not, and all of it was held to something", async () => {
    const types = [worker, killed, parent, child].flatMap((id) =>
      recordsIn(truth, partitionOf(id)).map(({ type }) => type),
    );
    for (const type of ["enrolled", "call", "answer", "approval", "switched", "refused", "delegated", "ended"])
      expect(types).toContain(type);
    const report = await verify(truth);
    expect(findingsOf(report)).toEqual([]);
    expect(report.transcripts.map(({ status }) => status)).toEqual(["ended", "ended", "ended", "ended"]);
    expect(report.transcripts.map((one) => one.parent).sort()).toEqual(["held", "none", "none", "none"]);
    expect(report.transcripts.map(({ uncheckedCalls }) => uncheckedCalls)).toEqual([[], [], [], []]);
    for (const id of [worker, killed, parent, child]) expect(await found(id, (records) => records)).toEqual([]);
  });

  it("says of calls whose scope speaks of their body, where no body is here, that they were not checked", async () => {
    const { transcripts, ok: isOk } = await verify(truth, false);
    expect(isOk).toBe(true);
    const models = recordsIn(truth, partitionOf(worker)).filter(
      ({ type, upstream: to }) => type === "call" && to === "model",
    );
    const report = transcripts.find(({ partition }) => partition === partitionOf(worker))!;
    expect(report.uncheckedCalls).toEqual(models.map(({ seq }) => seq));
    expect(models).toHaveLength(3);
  });
});

type Row = readonly [
  name: string,
  who: () => string,
  change: (records: Forged[]) => readonly Forged[],
  problem: RegExp,
];
const rows: readonly Row[] = [
  ["an answer that is dropped", () => worker, drop("answer"), /a call without an answer, and the transcript ended/],
  [
    "an answer that is doubled",
    () => worker,
    (records) => {
      const at = indexOf(records, "answer");
      return insert(
        () => at + 1,
        () => records[at]!,
      )(records);
    },
    /a second answer to the call of seq 1/,
  ],
  [
    "answers of two calls, swapped",
    () => worker,
    (records) => {
      const [a, b] = [records[indexOf(records, "answer")]!, records[indexOf(records, "answer", 1)]!];
      [a["call"], b["call"]] = [b["call"], a["call"]];
      return records;
    },
    /which is no call before it|not the digest of|without an answer/,
  ],
  ["a call that is dropped", () => worker, drop("call"), /answers seq|calls is 6, and the records say 5/],
  [
    "units that an answer says less of",
    () => worker,
    set("answer", ["units", "usd", "charged"], 0, 2),
    /usd is .*, and the records say/,
  ],
  [
    "units charged by a reserve that was another",
    () => worker,
    set("answer", ["units", "usd", "charged"], 0.01, 3),
    /charges 0.01 of usd by its reserve, which is 0.063/,
  ],
  [
    "units that a call reserves beyond the limit",
    () => worker,
    set("call", ["reserved", "usd"], 2, 2),
    /reserves usd up to 2, and 1 were left to it/,
  ],
  [
    "totals: calls",
    () => worker,
    set("ended", ["calls"], (was: number) => was - 1),
    /calls is 5, and the records say 6/,
  ],
  [
    "totals: bytes",
    () => killed,
    set("ended", ["bytes"], (was: number) => was + 1),
    /bytes is 3, and the records say 2/,
  ],
  [
    "totals: bytes beyond the bounds",
    () => worker,
    set("ended", ["bytes"], 1),
    /bytes is 1, and the records say \d+ to \d+/,
  ],
  [
    "totals: units",
    () => worker,
    set("ended", ["units", "usd"], (was: number) => was + 0.000001),
    /usd is .*, and the records say/,
  ],
  ["totals: no units", () => worker, set("ended", ["units"], undefined), /is 0, and the records say/],
  ["an approval that is dropped", () => worker, drop("approval", 1), /is used, and was asked before/],
  ["a request for approval that is dropped", () => worker, drop("approval", 0), /was never asked for before/],
  [
    "an approval that is used twice",
    () => worker,
    (records) => {
      const at = records.findIndex(({ type, approval }) => type === "call" && approval !== undefined);
      return insert(
        () => at,
        () => records[at]!,
      )(records);
    },
    /is used, and was used before/,
  ],
  [
    "a call after a kill",
    () => killed,
    insert(
      (records) => indexOf(records, "switched") + 1,
      (records) => records[indexOf(records, "call")]!,
    ),
    /stands after the kill of/,
  ],
  ["a kill that is dropped", () => killed, drop("switched"), /its cause is switched, and the records say deadline/],
  ["a call after the deadline", () => worker, set("call", ["at"], deadlineMs, 1), /stands after the deadline/],
  [
    "a call to what its scope does not allow",
    () => worker,
    set("call", ["target"], "/github/repos/evil/widgets/issues"),
    /is not what entry 0 of its scope allows/,
  ],
  [
    "a call that names another entry",
    () => worker,
    set("call", ["decision", "entry"], 1),
    /by an operation that entry 1 of its scope does not have/,
  ],
  [
    "a scope that is narrower than its calls' bodies",
    () => worker,
    set("enrolled", ["scope", 1, "where", "body./max_tokens", "max"], 5),
    /is not what entry 1 of its scope allows, by its body/,
  ],
  [
    "a layer that was not asked",
    () => worker,
    set("call", ["decision", "ceilings"], (was: unknown[]) => was.slice(0, -1)),
    /was allowed by the layers entitlement, agent, and is bounded by entitlement, agent, boundaries/,
  ],
  ["a mandate in one record", () => worker, set("call", ["mandate"], "m"), /its mandate is not that of/],
  ["another agent in one record", () => worker, set("answer", ["agent"], "x"), /its agent is not that of/],
  ["a grant that nobody has given out", () => worker, set("call", ["grant"], "x"), /its grant was not given out/],
  [
    "another manifest",
    () => worker,
    set("enrolled", ["manifest", "model"], "other"),
    /manifestDigest is not of its manifest/,
  ],
  [
    "a child with more than it was given",
    () => child,
    set("enrolled", ["limits", "calls"], 1_000),
    /its limits is not what was delegated/,
  ],
  [
    "a child with a wider scope",
    () => child,
    set("enrolled", ["scope", 0, "where"], undefined),
    /its scope is not what was delegated/,
  ],
  [
    "a child of longer life",
    () => child,
    set("enrolled", ["deadline"], (was: number) => was + 1),
    /its deadline is not what was delegated/,
  ],
  ["a child that nobody has delegated to", () => parent, drop("delegated"), /to which nothing was delegated/],
  [
    "a delegation beyond what is left",
    () => parent,
    set("delegated", ["limits", "calls"], 1e9),
    /delegates more of calls than it has left/,
  ],
  [
    "a delegation beyond its own scope",
    () => parent,
    set("delegated", ["scope", 0, "where"], undefined),
    /delegates what its own scope does not cover: entry 0/,
  ],
  [
    "a delegation beyond its own deadline",
    () => parent,
    set("delegated", ["deadline"], deadlineMs + 1),
    /delegates beyond its own deadline/,
  ],
  [
    "a child that comes back with less spent",
    () => parent,
    set("delegated", ["spent", "calls"], 0, 1),
    /with 0 calls spent, and its transcript says 1/,
  ],
  [
    "a child that comes back with more spent than it had",
    () => parent,
    set("delegated", ["spent", "calls"], 11, 1),
    /has spent more calls than were delegated to it/,
  ],
];

describe("forged, and sealed with the gate's own key", () => {
  it.each(rows)("%s: found", async (_name, who, change, problem) => {
    const problems = await found(who(), change);
    expect(problems.filter((one) => problem.test(one))).not.toEqual([]);
  });
});
