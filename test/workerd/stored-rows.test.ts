// Rows of books that are read as they are needed: one that this release can't read decides nothing, and holds up no other.

import { env, evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { attributesOf } from "../../durable-objects/instance-fields.ts";
import type { MandateBook } from "../../durable-objects/mandate-book.ts";
import { Retention } from "../../durable-objects/retention.ts";
import type { JournalEntry } from "../../src/control/contract.ts";
import { instanceOf, switchboardOf } from "../../src/objects.ts";
import { bodiesKey, instancePartition } from "../../src/transcript/layout.ts";
import {
  boardStub,
  deployment,
  deskStub,
  enrolAgent,
  flipRequest,
  journalLines,
  retentionStub,
  rosterStub,
} from "./kit.ts";
import { approve, exchangeMandate, revoke } from "./mandate-kit.ts";

/** What the operator is told. */
let told: string[];
beforeEach(() => {
  told = [];
  vi.spyOn(console, "error").mockImplementation((...words: unknown[]) => void told.push(words.join(" ")));
});
afterEach(() => vi.restoreAllMocks());

type Stub = DurableObjectStub<undefined> & { readonly [method: string]: (...args: unknown[]) => Promise<unknown> };
const exec = (stub: object, query: string, ...bindings: unknown[]) =>
  runInDurableObject(stub as Stub, (_object, { storage: { sql } }) => sql.exec(query, ...bindings).toArray());
const alarmAt = (stub: object) => runInDurableObject(stub as Stub, (_object, { storage }) => storage.getAlarm());
const retention = (): Stub => retentionStub() as unknown as Stub;
const board = (): Stub => boardStub() as unknown as Stub;
const desk = (): Stub => deskStub() as unknown as Stub;
const unreadable = (name: string) => new RegExp(`^${name}: its state is not readable by this release$`);
/** Awaited here: what is handed on is a promise of the stub's own, and others come of it. */
async function refusal(asked: Promise<unknown>): Promise<string> {
  try {
    await asked;
    return "none";
  } catch (error) {
    return (error as Error).message;
  }
}
const line = (name: string, of: string) =>
  expect.stringMatching(new RegExp(`^state not readable ${name} [0-9a-f]{64} ${of}`));

describe("legal holds and erasures", () => {
  const bucket = env.TRANSCRIPTS as R2Bucket;
  const erasureOf = (human: string) => ({ human, task: null, reason: "r", by: "o", email: null, idempotencyKey: null });
  afterEach(async () => {
    await exec(retention(), "DELETE FROM holds");
    await exec(retention(), "DELETE FROM erasures");
  });

  it("a hold of a kind that is not known: no erasure is taken, and none that runs goes on", async () => {
    const human = `h-${crypto.randomUUID()}`;
    const key = bodiesKey(instancePartition({ human, task: "t-1", instance: "i-1" }), 0, 0);
    await bucket.put(key, "what is held");
    // It does not begin before the hold is there.
    const ringing = vi.spyOn(Retention.prototype, "alarm").mockResolvedValue();
    expect(await retention()["erase"]!(erasureOf(human))).toMatchObject({ kind: "accepted" });
    const hold = { id: "hold-1", subject: { kind: "case", id: human }, reason: "r", by: "o", atMs: 1 };
    await exec(retention(), "INSERT INTO holds (id, json) VALUES (?, ?)", hold.id, JSON.stringify(hold));
    ringing.mockRestore();
    expect(await refusal(retention()["erase"]!(erasureOf(human)))).toMatch(unreadable("Retention"));
    expect(await refusal(retention()["holds"]!(null, 10))).toMatch(unreadable("Retention"));
    for (let i = 0; i < 3; i++) await runInDurableObject(retentionStub(), (object) => object.alarm());
    expect(await bucket.head(key)).not.toBeNull();
    expect(await exec(retention(), "SELECT stage, status FROM erasures")).toEqual([
      { stage: "certificate", status: "running" },
    ]);
    // Once, however often it is come upon; and the alarm is not given up.
    expect(told).toEqual([line("Retention", "hold is not as this release stores it: subject")]);
    expect(told.join()).not.toContain(human);
    expect(await alarmAt(retention())).toBeGreaterThan(Date.now());
  });

  it("an erasure that does not say of which task: it is not carried out as if it were of all", async () => {
    const human = `h-${crypto.randomUUID()}`;
    const key = bodiesKey(instancePartition({ human, task: "t-1", instance: "i-1" }), 0, 0);
    await bucket.put(key, "of another task, perhaps");
    await retention()["erase"]!(erasureOf(human));
    await exec(retention(), "UPDATE erasures SET json = json_remove(json, '$.task'), stage = 'objects'");
    for (let i = 0; i < 3; i++) await runDurableObjectAlarm(retention() as never);
    expect(await bucket.head(key)).not.toBeNull();
    expect(told).toEqual([line("Retention", "erasure is not as this release stores it: task")]);
  });
});

describe("the switchboard", () => {
  const spoilt = { id: "spoilt", reach: "human", target: { human: "h" }, act: "nod", reason: "r", by: "b" };
  const operator = { by: "o", email: null, reason: "r" };
  const put = (state: { done: 0 | 1 }, sw: object = { ...spoilt, cause: null, untilMs: null, atMs: 1 }) =>
    exec(boardStub(), "INSERT INTO switches (id, json, done) VALUES ('spoilt', ?, ?)", JSON.stringify(sw), state.done);
  afterEach(async () => {
    await exec(boardStub(), "DELETE FROM switches");
    await exec(boardStub(), "DELETE FROM outcomes");
  });

  it("does not hand on what it can't read: a shard that comes up takes nobody until it can", async () => {
    const attributes = { ...attributesOf((await enrolAgent()).enrolment), instance: "newcomer" };
    await put({ done: 1 });
    const roster = rosterStub(201);
    expect(await roster.enlist(attributes)).toBeNull();
    expect(await exec(roster, "SELECT id FROM switches")).toEqual([]);
    expect(told).toEqual([line("Switchboard", "switch is not as this release stores it: act")]);
    await exec(boardStub(), "DELETE FROM switches");
    expect(await roster.enlist(attributes)).toMatchObject({ enlisted: true });
  });

  it("carries on what it can read beside it, and says what it can't", async () => {
    const { enrolment } = await enrolAgent();
    await put({ done: 0 }, { ...spoilt, act: "kill", cause: null, untilMs: "soon", atMs: 1 });
    const killed = await switchboardOf(deployment).flip(flipRequest({ reach: "human", target: { human: "other" } }));
    if (!killed.flipped) throw new Error("not flipped");
    await exec(boardStub(), "UPDATE switches SET done = 0 WHERE id <> 'spoilt'");
    await evictDurableObject(boardStub() as never);
    await runDurableObjectAlarm(boardStub() as never);
    await vi.waitFor(async () => {
      const rows = await exec(boardStub(), "SELECT id, done, opened FROM switches ORDER BY no");
      expect(rows).toEqual([
        { id: "spoilt", done: 0, opened: null },
        { id: killed.state.switch.id, done: 1, opened: null },
      ]);
    });
    expect(await refusal(board()["list"]!(null, 10))).toMatch(unreadable("Switchboard"));
    expect(await refusal(board()["read"]!("spoilt"))).toMatch(unreadable("Switchboard"));
    expect(await board()["read"]!(killed.state.switch.id)).toMatchObject({ status: "done" });
    expect(told).toEqual([line("Switchboard", "switch is not as this release stores it: untilMs")]);
    expect(await alarmAt(boardStub())).not.toBeNull();
    expect(await exec(rosterStub(enrolment.rosterShard), "SELECT id FROM switches WHERE id = 'spoilt'")).toEqual([]);
  });

  it("is not rung without a pause for one whose time is over, and that can't be read", async () => {
    await put({ done: 1 }, { ...spoilt, act: "nap", cause: null, untilMs: 1, atMs: 1 });
    await evictDurableObject(boardStub() as never);
    const beforeMs = Date.now();
    await runDurableObjectAlarm(boardStub() as never);
    expect(await alarmAt(boardStub())).toBeGreaterThanOrEqual(beforeMs + 1_000);
  });

  it("resumes a pause beside one that it can't read, and does not say that there is none", async () => {
    const target = { human: `h-${crypto.randomUUID()}` };
    const paused = await switchboardOf(deployment).flip(flipRequest({ act: "pause", reach: "human", target }));
    if (!paused.flipped) throw new Error("not flipped");
    await put({ done: 1 }, { ...spoilt, act: "pause", cause: null, untilMs: "soon", atMs: 1 });
    const resume = (human: string) => board()["resume"]!({ reach: "human", target: { human } }, operator);
    expect(await resume(target.human)).toMatchObject([{ switch: { id: paused.state.switch.id }, opened: { by: "o" } }]);
    expect(await refusal(resume("h"))).toMatch(unreadable("Switchboard"));
  });

  it("pushes a kill though it can't read whom it has reached, and says nothing of that", async () => {
    const { enrolment } = await enrolAgent();
    const killed = await switchboardOf(deployment).flip(flipRequest({ reach: "human", target: { human: "another" } }));
    if (!killed.flipped) throw new Error("not flipped");
    const { id } = killed.state.switch;
    await exec(boardStub(), "UPDATE switches SET done = 0");
    await exec(boardStub(), "UPDATE outcomes SET reached = '[{\"instance\":1}]'");
    const spoiltRows = await exec(boardStub(), "SELECT * FROM outcomes");
    const roster = rosterStub(enrolment.rosterShard);
    // It had not come through there.
    await exec(roster, "DELETE FROM switches");
    await evictDurableObject(roster as never);
    await evictDurableObject(boardStub() as never);
    await runDurableObjectAlarm(boardStub() as never);
    await vi.waitFor(async () => expect(await exec(roster, "SELECT id FROM switches")).toEqual([{ id }]));
    await runDurableObjectAlarm(boardStub() as never);
    expect(await refusal(board()["read"]!(id))).toMatch(unreadable("Switchboard"));
    expect(await exec(boardStub(), "SELECT * FROM outcomes")).toEqual(spoiltRows);
    expect(await exec(boardStub(), "SELECT done FROM switches")).toEqual([{ done: 0 }]);
    expect(told).toEqual([line("Switchboard", "what a shard has reached is not as this release stores it")]);
    expect(await alarmAt(boardStub())).not.toBeNull();
  });

  it("who was narrowed by what can't be read gets no grant by a mandate from before", async () => {
    await exec(
      boardStub(),
      "INSERT INTO human_narrowings (name, switch, event_at_ms, kept) VALUES ('h', 's', 1, '[\"a\", null]')",
    );
    expect(await refusal(board()["narrowingsOf"]!(["h"]))).toMatch(unreadable("Switchboard"));
    expect(await board()["narrowingsOf"]!(["somebody else"])).toEqual([]);
    await exec(boardStub(), "DELETE FROM human_narrowings");
  });

  it("tells the journal of the acts that it can read, in their order", async () => {
    const act = (name: string): JournalEntry => ({ type: "act", fields: { deed: name }, deployment: "test" });
    const insert = "INSERT INTO acts (json) VALUES (?), (?), (?)";
    await exec(boardStub(), insert, JSON.stringify(act("row-1")), '{"type":"act"}', JSON.stringify(act("row-3")));
    await runDurableObjectAlarm(boardStub() as never);
    await vi.waitFor(async () =>
      expect(await exec(boardStub(), "SELECT json FROM acts")).toEqual([{ json: '{"type":"act"}' }]),
    );
    const deeds = (await journalLines("admin")).map(({ deed }) => String(deed));
    expect(deeds.filter((deed) => deed.startsWith("row-"))).toEqual(["row-1", "row-3"]);
    await runDurableObjectAlarm(boardStub() as never);
    expect(told).toEqual([
      expect.stringMatching(/^state not readable act is not as .*: fields.* The journal is not told$/),
    ]);
    await exec(boardStub(), "DELETE FROM acts");
  });
});

describe("a book of mandates", () => {
  it("carries the end of one to its switch though that of another can't be read, and hands on nothing of that", async () => {
    const other = await approve();
    const mandate = await approve({ human: other.human });
    const { instance } = await exchangeMandate(mandate);
    const stub = env.MANDATE_BOOK.get(env.MANDATE_BOOK.idFromName(other.human));
    const book = stub as DurableObjectStub<MandateBook>;
    await exec(stub, 'UPDATE mandates SET flip = \'{"id":"spoilt","act":"nod"}\' WHERE id = ?', other.id);
    expect((await revoke(mandate))?.revoked?.switch).not.toBeNull();
    expect((await instanceOf(deployment, instance).introspect()).state).toBe("inactive");
    expect(await exec(boardStub(), "SELECT id FROM switches WHERE json NOT LIKE '%' || ? || '%'", mandate.id)).toEqual(
      [],
    );
    await runInDurableObject(book, (object) => object.alarm());
    expect(await exec(stub, "SELECT id FROM mandates WHERE flip IS NOT NULL")).toEqual([{ id: other.id }]);
    expect(told).toEqual([line("MandateBook", "switch of a mandate is not as this release stores it")]);
    expect(await alarmAt(book)).not.toBeNull();
    await exec(stub, "UPDATE mandates SET flip = NULL");
    await exec(boardStub(), "DELETE FROM switches");
  });
});

describe("the desk for approvals", () => {
  afterEach(async () => {
    await exec(deskStub(), "DELETE FROM requests");
    await exec(deskStub(), "DELETE FROM hooks");
  });

  it("lists and decides nothing by what it can't read, and goes on with the rest", async () => {
    const put = "INSERT INTO requests (id, state, ended_at_ms, json) VALUES (?, ?, ?, ?)";
    await exec(deskStub(), put, "spoilt", "asked", null, '{"id":"spoilt","state":"granted"}');
    await exec(deskStub(), put, "old", "denied", 1, '{"id":"old"}');
    await exec(deskStub(), "INSERT INTO hooks (id, attempts, next_at_ms) VALUES ('spoilt', 0, 1)");
    expect(await refusal(desk()["list"]!("open", null, 10))).toMatch(unreadable("ApprovalDesk"));
    expect(await refusal(desk()["decide"]!("spoilt", { verdict: "approved" }))).toMatch(unreadable("ApprovalDesk"));
    expect(await desk()["read"]!("another")).toBeNull();
    await evictDurableObject(deskStub() as never);
    told = [];
    await runInDurableObject(deskStub(), (object) => object.alarm());
    expect(await exec(deskStub(), "SELECT id FROM requests")).toEqual([{ id: "spoilt" }]);
    expect(await exec(deskStub(), "SELECT attempts FROM hooks")).toEqual([{ attempts: 1 }]);
    expect(told).toEqual([line("ApprovalDesk", "request for approval is not as this release stores it")]);
    expect(await alarmAt(deskStub())).toBeGreaterThan(Date.now());
  });
});
