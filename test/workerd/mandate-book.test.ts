// Approval in advance: that it is used exactly as often as it says, ends when it is revoked whatever dies meanwhile, and never outlives
// the trust in who gave it.

import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";
import type { MandateBook } from "../../durable-objects/mandate-book.ts";
import type { MandateIndex } from "../../durable-objects/mandate-index.ts";
import type { Switchboard } from "../../durable-objects/switchboard.ts";
import { shardOf } from "../../src/control/shard.ts";
import type { Mandate } from "../../src/mandate/contract.ts";
import { issueMandateToken } from "../../src/mandate/token.ts";
import { instanceOf, mandateIndexOf, switchboardOf } from "../../src/objects.ts";
import { askFor, childOf, rootOf, said } from "./family-kit.ts";
import { boardStub, deployment, flip, operator, rosterStub, SCOPE } from "./kit.ts";
import { approve, bookOf, exchangeMandate, instanceId, mandateOf, revoke, somebody } from "./mandate-kit.ts";

afterEach(() => vi.restoreAllMocks());

const stubOf = ({ human }: Mandate) =>
  env.MANDATE_BOOK.get(env.MANDATE_BOOK.idFromName(human)) as DurableObjectStub<MandateBook>;
const abort = (mandate: Mandate) =>
  runInDurableObject(stubOf(mandate), (_o, state) => state.abort("reset by a test")).catch(() => {});
const boardPrototype = async () =>
  (await runInDurableObject(boardStub(), (board: object) => ({ it: Object.getPrototypeOf(board) as Switchboard }))).it;
const indexPrototype = async () =>
  (
    await runInDurableObject(env.MANDATE_INDEX.get(env.MANDATE_INDEX.idFromName("mandates")), (index: object) => ({
      it: Object.getPrototypeOf(index) as MandateIndex,
    }))
  ).it;
const stateOf = async (instance: string) => (await instanceOf(deployment, instance).introspect()).state;
const verdicts = async (exchanges: readonly Promise<{ readonly verdict: string }>[]) => {
  const counts: Record<string, number> = {};
  for (const { verdict } of await Promise.all(exchanges)) counts[verdict] = (counts[verdict] ?? 0) + 1;
  return counts;
};
const times = <T>(count: number, make: () => T): T[] => Array.from({ length: count }, make);

describe("a mandate", () => {
  it("becomes a grant of its human's, which names it in every record, and states its purpose and nobody's more", async () => {
    const mandate = await approve({ limits: { calls: 7, bytes: null } });
    const { verdict, instance } = await exchangeMandate(mandate);
    expect(verdict).toBe("granted");
    const { enrolment } = await instanceOf(deployment, instance).introspect();
    expect(enrolment).toMatchObject({
      human: mandate.human,
      mandate: mandate.id,
      groups: ["engineering"],
      groupsAtMs: mandate.groupsAtMs,
      task: { purpose: "every night" },
      limits: { calls: 7, bytes: deployment.config.agents["triage-bot"]!.limits.bytes },
    });
    const { lines } = (await instanceOf(deployment, instance).read(0, 10))!;
    expect(lines.map((line) => JSON.parse(line).mandate)).toEqual([mandate.id]);
  });

  it.each<[name: string, mandate: Partial<Mandate>, asked: Parameters<typeof exchangeMandate>[1], reason: string]>([
    ["another client's", {}, { client: "other-platform" }, "subject_token: the mandate is for another client"],
    ["for another agent", { agent: "other-bot" }, {}, "subject_token: the mandate is for another agent"],
    ["expired", { expiresAtMs: Date.now() - 1_000 }, {}, "subject_token: expired"],
    ["not yet good", { notBeforeMs: Date.now() + 60_000 }, {}, "subject_token: the mandate: not yet"],
    ["with another purpose", {}, { form: { purpose: "to rule" } }, "purpose is not the one that was approved"],
  ])("is refused: %s", async (_name, change, asked, reason) => {
    expect((await exchangeMandate(await approve(change), asked)).verdict).toBe(`invalid_request: ${reason}`);
  });

  it("gives nothing by a group that was lost since, however long ago, and is refused where nobody can say", async () => {
    const expiresAtMs = Date.now() + 30 * 86_400_000;
    const aged = await approve({ groupsAtMs: Date.now() - 90 * 86_400_000, expiresAtMs });
    const { switch: lost } = await flip({
      act: "narrow",
      reach: "human",
      target: { human: aged.human },
      groups: [],
      eventAtMs: Date.now() - 60 * 86_400_000,
      untilMs: Date.now() + 1_000,
    });
    await vi.waitFor(async () => {
      await runDurableObjectAlarm(boardStub());
      expect((await switchboardOf(deployment).read(lost.id))?.opened).toMatchObject({ by: "expiry" });
    });
    const instance = instanceId();
    const shard = rosterStub(shardOf(instance, deployment.config.roster.shards));
    // By then it is nothing to anybody else, and forgotten where newcomers come.
    const later = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 20 * 86_400_000);
    const known = await runInDurableObject(shard, async (roster, { storage: { sql } }) => {
      await roster.alarm();
      return sql.exec<{ id: string }>("SELECT id FROM switches").toArray();
    });
    expect(known.map(({ id }) => id)).not.toContain(lost.id);
    expect((await exchangeMandate(aged, { instance })).verdict).toMatch(
      /^invalid_authorization_details: .*exceeds the human's entitlement/,
    );
    later.mockRestore();
    const mandate = await approve();
    vi.spyOn(await boardPrototype(), "narrowingsOf").mockRejectedValue(new Error("out of reach"));
    expect((await exchangeMandate(mandate)).verdict).toBe("temporarily_unavailable: try again");
  });

  it("is refused one millisecond before its window and when it closes, and where its zone has no such hour", async () => {
    const schedule = { timeZone: "Europe/Vienna", days: ["sun" as const], from: "02:00", to: "03:00" };
    const notBeforeMs = Date.parse("2026-01-01T00:00:00Z");
    const mandate = await approve({ schedule, notBeforeMs, expiresAtMs: Date.now() + 86_400_000 });
    const outside = "invalid_request: subject_token: the mandate: outside of its schedule";
    for (const time of [
      "2026-03-22T00:59:59.999Z",
      "2026-03-22T02:00:00Z",
      "2026-03-29T01:00:00Z",
      "2026-03-29T01:30:00Z",
    ])
      expect((await exchangeMandate(mandate, { nowMs: Date.parse(time) })).verdict, time).toBe(outside);
    // The book looks at its own clock: what was in time at the Worker counts for nothing.
    const useAt = async (time: string) => {
      const clock = vi.spyOn(Date, "now").mockReturnValue(Date.parse(time));
      const answer = await bookOf(mandate).use(mandate.id);
      clock.mockRestore();
      return answer;
    };
    const late = { used: false, reason: "outside of its schedule" };
    expect(await useAt("2026-03-29T01:00:00Z")).toEqual(late);
    expect(await useAt("2026-03-22T02:00:00Z")).toEqual(late);
    expect((await bookOf(mandate).read(mandate.id))?.uses).toBe(0);
    expect(await useAt("2026-03-22T01:59:59.999Z")).toEqual({ used: true });
  });

  it("bounds what is asked for, though every ceiling would allow it", async () => {
    const narrow = [{ ...SCOPE[0]!, operations: ["GET /repos/{owner}/{repo}/issues"] }];
    const mandate = await approve({ scope: narrow, expiresAtMs: Date.now() + 120_000, taskSeconds: 60 });
    expect((await exchangeMandate(mandate)).verdict).toBe(
      "invalid_authorization_details: authorization_details[0] exceeds the mandate",
    );
    const form = { authorization_details: JSON.stringify(narrow) };
    const deadline = (seconds: number) => ({ ...form, deadline: String(Math.floor(Date.now() / 1000) + seconds) });
    expect((await exchangeMandate(mandate, { form: deadline(62) })).verdict).toBe(
      "invalid_request: deadline is later than the mandate allows",
    );
    const nearItsEnd = await approve({ scope: narrow, expiresAtMs: Date.now() + 10_000 });
    expect((await exchangeMandate(nearItsEnd, { form: deadline(12) })).verdict).toBe(
      "invalid_request: deadline is later than the mandate allows",
    );
    expect((await exchangeMandate(mandate, { form: deadline(58) })).verdict).toBe("granted");
    expect((await bookOf(mandate).read(mandate.id))?.uses).toBe(1);
  });

  it("is bounded by the ceilings of now: what its groups may do no more is refused", async () => {
    const mandate = await approve({ groups: ["nobody"] });
    expect((await exchangeMandate(mandate)).verdict).toBe(
      `invalid_authorization_details: authorization_details[0]: "GET /repos/{owner}/{repo}/issues" exceeds the human's entitlement`,
    );
  });

  it("is refused in any other text than the one that was signed", async () => {
    const mandate = await approve();
    const other = await approve({ human: mandate.human });
    const [header, payload, signature] = issueMandateToken(deployment, mandate).split(".") as [string, string, string];
    const [, otherPayload] = issueMandateToken(deployment, other).split(".") as [string, string];
    const forged = (token: string) => exchangeMandate(mandate, { token }).then(({ verdict }) => verdict);
    const bad = "invalid_request: subject_token: ";
    expect(await forged(`${header}.${otherPayload}.${signature}`)).toBe(`${bad}the signature does not verify`);
    expect(await forged(`${header}.${payload}.${signature}=`)).toBe(`${bad}not canonical base64url`);
    expect(await forged(`${header}.${payload}.`)).toBe(`${bad}an empty part`);
    const elsewhere = { ...deployment, config: { ...deployment.config, origin: "https://other.test" } };
    expect(await forged(issueMandateToken(elsewhere, mandate))).toBe(`${bad}iss or aud is not this gate`);
    const asGrant = deployment.grantKeys.signCompact("at+jwt", { jti: mandate.id });
    expect(await forged(asGrant)).toBe(`${bad}typ is not "portcullis-mandate+jwt"`);
    // Signed, and about nothing that stands in the book.
    expect(await forged(issueMandateToken(deployment, mandateOf()))).toBe(`${bad}the mandate: unknown`);
    // One human's mandate under the name of another.
    expect(await forged(issueMandateToken(deployment, { ...mandate, human: somebody() }))).toBe(
      `${bad}the mandate: unknown`,
    );
  });
});

describe("the uses of a mandate", () => {
  it("are exact: of 100 exchanges at once for 10 uses, 10 are granted", async () => {
    const mandate = await approve({ maxUses: 10 });
    const counts = await verdicts(times(100, () => exchangeMandate(mandate)));
    expect(counts).toEqual({
      granted: 10,
      "invalid_request: subject_token: the mandate: its uses are spent": 90,
    });
    expect((await bookOf(mandate).read(mandate.id))?.uses).toBe(10);
    await evictDurableObject(stubOf(mandate));
    expect((await exchangeMandate(mandate)).verdict).toMatch(/its uses are spent$/);
  });

  it("of a day are those of that day, by the clock of its place", async () => {
    const mandate = await approve({ perDay: 1, expiresAtMs: Date.now() + 10 * 86_400_000 });
    const use = async () => {
      const answer = await bookOf(mandate).use(mandate.id);
      return answer.used ? "used" : answer.reason;
    };
    expect([await use(), await use()]).toEqual(["used", "the uses of this day are spent"]);
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 86_400_000);
    expect([await use(), await use()]).toEqual(["used", "the uses of this day are spent"]);
    clock.mockRestore();
    // A clock that goes back finds its day again: then it was used, and now it is not known. What was ever used is.
    expect((await bookOf(mandate).read(mandate.id))?.uses).toBe(2);
  });

  it("are exact over resets: before the count none is gone, after it one is, whatever became of the answer", async () => {
    const mandate = await approve({ maxUses: 2 });
    vi.spyOn(await boardPrototype(), "humanKilledAt").mockImplementationOnce(async () => {
      await abort(mandate);
      return null;
    });
    expect((await exchangeMandate(mandate)).verdict).toBe("temporarily_unavailable: try again");
    vi.restoreAllMocks();
    expect((await bookOf(mandate).read(mandate.id))?.uses).toBe(0);
    // Counted and durable, and its answer gets nowhere.
    expect(await bookOf(mandate).use(mandate.id)).toEqual({ used: true });
    await abort(mandate);
    expect((await exchangeMandate(mandate)).verdict).toBe("granted");
    expect((await exchangeMandate(mandate)).verdict).toMatch(/its uses are spent$/);
  });

  it("stay counted where the enrolment then fails", async () => {
    const mandate = await approve({ maxUses: 2 });
    const instance = instanceId();
    expect((await exchangeMandate(mandate, { instance })).verdict).toBe("granted");
    expect((await exchangeMandate(mandate, { instance })).verdict).toMatch(/this key is enrolled already/);
    expect((await exchangeMandate(mandate)).verdict).toMatch(/its uses are spent$/);
  });
});

describe("a revocation", () => {
  it("ends at once what works under the mandate, and nothing else, with a receipt", async () => {
    const mandate = await approve();
    const other = await approve({ human: mandate.human });
    const [one, two, others] = await Promise.all([mandate, mandate, other].map((of) => exchangeMandate(of)));
    const { revoked } = (await revoke(mandate))!;
    expect(revoked).toMatchObject({ by: mandate.human, reason: "a test" });
    expect(await stateOf(one!.instance)).toBe("inactive");
    expect(await stateOf(two!.instance)).toBe("inactive");
    expect(await stateOf(others!.instance)).toBe("active");
    const receipt = await switchboardOf(deployment).read(revoked!.switch!);
    expect(receipt).toMatchObject({ status: "done", switch: { reach: "mandate", target: { mandate: mandate.id } } });
    expect(receipt!.reached.map(({ instance }) => instance).sort()).toEqual([one!.instance, two!.instance].sort());
    expect((await exchangeMandate(mandate)).verdict).toBe("invalid_request: subject_token: the mandate: revoked");
    // Asked again it is what it was.
    expect((await revoke(mandate))?.revoked).toEqual(revoked);
    expect(await mandateIndexOf(deployment).find(mandate.id)).toBe(mandate.human);
  });

  it("that races with exchanges leaves nobody alive", async () => {
    const mandate = await approve();
    const exchanges = times(30, () => exchangeMandate(mandate));
    await Promise.race(exchanges);
    await revoke(mandate);
    const ended = await Promise.all(exchanges);
    const granted = ended.filter(({ verdict }) => verdict === "granted");
    expect(granted.length).toBeGreaterThan(0);
    for (const { instance } of granted) expect(await stateOf(instance)).toBe("inactive");
    for (const { verdict } of ended) expect(verdict).toMatch(/^granted$|the mandate: revoked$|closed by a switch$/);
  });

  it("between the use and the enrolment keeps the newcomer out", async () => {
    const mandate = await approve();
    const prototype = (
      await runInDurableObject(stubOf(mandate), (book: object) => ({ it: Object.getPrototypeOf(book) as MandateBook }))
    ).it;
    const { use } = prototype;
    vi.spyOn(prototype, "use").mockImplementation(async function (this: MandateBook, id) {
      const used = await use.call(this, id);
      await this.revoke(id, { by: "b", email: null, reason: "r" });
      return used;
    });
    const { verdict, instance } = await exchangeMandate(mandate);
    expect(verdict).toBe("invalid_request: closed by a switch");
    expect(await stateOf(instance)).toBe("inactive");
  });

  it("reaches the switchboard however often that is out of reach, and over a reset of the book", async () => {
    const mandate = await approve();
    const { instance } = await exchangeMandate(mandate);
    const flips = vi.spyOn(await boardPrototype(), "flip").mockRejectedValue(new Error("out of reach"));
    expect((await revoke(mandate))?.revoked?.switch).not.toBeNull();
    expect(flips).toHaveBeenCalled();
    // Nobody new, from the commit on.
    expect((await exchangeMandate(mandate)).verdict).toMatch(/the mandate: revoked$/);
    expect(await stateOf(instance)).toBe("active");
    await abort(mandate);
    flips.mockRestore();
    await vi.waitFor(
      async () => {
        await runDurableObjectAlarm(stubOf(mandate)).catch(() => false);
        expect(await stateOf(instance)).toBe("inactive");
      },
      { timeout: 10_000, interval: 100 },
    );
    expect(
      await runInDurableObject(stubOf(mandate), (_b, { storage }) =>
        storage.sql.exec("SELECT 1 FROM mandates WHERE flip IS NOT NULL").toArray(),
      ),
    ).toEqual([]);
  });

  it("ends the children of who works under it, and theirs", async () => {
    const mandate = await approve();
    const root = await rootOf({ mandate: mandate.id, human: mandate.human });
    await exchangeMandate(mandate);
    const child = await childOf(root, { task_limits: '{"concurrency":20,"burst":50,"callsPerSecond":50}' });
    const below = await childOf(child);
    const other = await rootOf({ mandate: "another", human: mandate.human });
    const { revoked } = (await revoke(mandate))!;
    const reached = (await switchboardOf(deployment).read(revoked!.switch!))!.reached.map(({ instance }) => instance);
    expect(reached).toEqual(expect.arrayContaining([root.id, child.id, below.id]));
    for (const { id } of [root, child, below]) expect(await stateOf(id)).toBe("inactive");
    expect(await stateOf(other.id)).toBe("active");
    expect(said(await askFor(child))).toBe("invalid_request: subject_token: no longer valid");
  });

  it("of one that was never used is no switch: nobody can be in its reach, and none ever will be", async () => {
    const mandate = await approve();
    expect((await revoke(mandate))?.revoked).toMatchObject({ by: mandate.human, switch: null });
    expect((await exchangeMandate(mandate)).verdict).toBe("invalid_request: subject_token: the mandate: revoked");
    const states = await switchboardOf(deployment).list(null, 100);
    expect(states.filter(({ switch: sw }) => sw.target.mandate === mandate.id)).toEqual([]);
  });

  it("whose answer from the switchboard was lost is one switch all the same", async () => {
    const mandate = await approve();
    await exchangeMandate(mandate);
    const prototype = await boardPrototype();
    const { flip: real } = prototype;
    let lost = 0;
    vi.spyOn(prototype, "flip").mockImplementation(async function (this: Switchboard, request) {
      const answer = await real.call(this, request);
      if (lost++ === 0) throw new Error("lost");
      return answer;
    });
    const { revoked } = (await revoke(mandate))!;
    await revoke(mandate);
    expect(lost).toBe(2);
    const states = await switchboardOf(deployment).list(null, 100);
    const those = states.filter(({ switch: sw }) => sw.target.mandate === mandate.id);
    expect(those.map(({ switch: sw }) => sw.id)).toEqual([revoked!.switch]);
  });

  it("of nothing is nothing", async () => {
    expect(await bookOf({ human: somebody() }).revoke("none", { by: "b", email: null, reason: "r" })).toBeNull();
  });
});

describe("a kill of the human", () => {
  it("refuses newcomers while it stands, and what was approved before it stays ended when it was lifted", async () => {
    const mandate = await approve();
    const { instance } = await exchangeMandate(mandate);
    const { switch: sw } = await flip({ reach: "human", target: { human: mandate.human } });
    expect(await stateOf(instance)).toBe("inactive");
    const stopped = "invalid_request: subject_token: the mandate: its human was stopped since";
    expect((await exchangeMandate(mandate)).verdict).toBe(stopped);
    await switchboardOf(deployment).lift(sw.id, operator());
    expect((await exchangeMandate(mandate)).verdict).toBe(stopped);
    expect((await bookOf(mandate).read(mandate.id))?.uses).toBe(1);
    // By who was vouched for before, nothing is approved any more; by who is vouched for since, it is.
    // Its clock may be a minute ahead.
    const before = mandateOf({ human: mandate.human, groupsAtMs: sw.atMs + 60_000 });
    expect(await bookOf(before).approve(before)).toEqual({
      approved: false,
      reason: "its human was stopped since",
    });
    const anew = await approve({ human: mandate.human, groupsAtMs: sw.atMs + 60_001 });
    expect((await exchangeMandate(anew)).verdict).toBe("granted");
  });

  it("by the digest of an address counts, too", async () => {
    const emailDigest = `digest-${crypto.randomUUID()}`;
    const mandate = await approve({ emailDigest });
    await flip({ reach: "human", target: { human: emailDigest } });
    expect((await exchangeMandate(mandate)).verdict).toMatch(/its human was stopped since$/);
  });

  it("that can't be asked about is taken for one", async () => {
    const mandate = await approve();
    vi.spyOn(await boardPrototype(), "humanKilledAt").mockRejectedValue(new Error("out of reach"));
    expect((await exchangeMandate(mandate)).verdict).toBe("temporarily_unavailable: try again");
    const another = mandateOf();
    expect(await bookOf(another).approve(another)).toEqual({ approved: false, reason: "unavailable" });
    vi.restoreAllMocks();
    expect((await bookOf(mandate).read(mandate.id))?.uses).toBe(0);
  });
});

describe("the book", () => {
  it("takes no more at a time than the configuration says, also of those that come at once", async () => {
    const human = somebody();
    const most = deployment.config.mandates!.mostStanding;
    const answers = await Promise.all(times(most + 5, () => bookOf({ human }).approve(mandateOf({ human }))));
    expect(answers.filter(({ approved }) => approved)).toHaveLength(most);
    expect(answers.find(({ approved }) => !approved)).toEqual({ approved: false, reason: "too-many" });
    const [first] = await bookOf({ human }).list();
    await revoke(first!.mandate);
    expect((await bookOf({ human }).approve(mandateOf({ human }))).approved).toBe(true);
  });

  it("takes ten times as many on one day, however many are revoked; and the index hears of no more", async () => {
    const human = somebody();
    const book = bookOf({ human });
    const most = deployment.config.mandates!.mostStanding * 10;
    const first = await approve({ human });
    await revoke(first);
    const copy =
      (no: number) =>
      (_b: unknown, { storage: { sql } }: DurableObjectState) =>
        void sql.exec(
          `INSERT INTO mandates (id, json, revoked, ended_at_ms) SELECT id || '-' || ?1, json, revoked, ended_at_ms FROM mandates WHERE id = ?2`,
          no,
          first.id,
        );
    for (let no = 2; no < most; no++) await runInDurableObject(stubOf(first), copy(no));
    expect((await book.approve(mandateOf({ human }))).approved).toBe(true);
    const notes = vi.spyOn(await indexPrototype(), "note");
    expect(await book.approve(mandateOf({ human }))).toEqual({ approved: false, reason: "too-many" });
    expect(notes).not.toHaveBeenCalled();
    vi.spyOn(Date, "now").mockReturnValue(Date.now() + 86_400_001);
    expect((await book.approve(mandateOf({ human, expiresAtMs: Date.now() + 1_000 }))).approved).toBe(true);
  });

  it("that was reset says what it said, and its acts come into the journal", async () => {
    const mandate = await approve({ maxUses: 5 });
    await bookOf(mandate).use(mandate.id);
    await abort(mandate);
    expect(await bookOf(mandate).read(mandate.id)).toEqual({ mandate, uses: 1, revoked: null });
    await vi.waitFor(async () => {
      const untold = await runInDurableObject(stubOf(mandate), (_b, { storage }) =>
        storage.sql.exec("SELECT 1 FROM acts").toArray(),
      );
      expect(untold).toEqual([]);
    });
  });

  it("takes an assertion once, also of many at a time, and keeps it until it has expired", async () => {
    const book = bookOf({ human: somebody() });
    const untilMs = Date.now() + 300_000;
    const first = await Promise.all(times(20, () => book.spendAssertion("jti-1", untilMs)));
    expect(first.filter(Boolean)).toHaveLength(1);
    expect(await book.spendAssertion("jti-2", untilMs)).toBe(true);
    const clock = vi.spyOn(Date, "now").mockReturnValue(untilMs);
    expect(await book.spendAssertion("jti-1", untilMs)).toBe(false);
    clock.mockRestore();
  });
});

describe("the index", () => {
  const FORGET_MS = 15_552_000_000 + 3_600_000;
  const index = () => env.MANDATE_INDEX.get(env.MANDATE_INDEX.idFromName("mandates"));
  const entries = () =>
    runInDurableObject(index(), (_i, { storage: { sql } }) =>
      ["mandates", "ends"].map((table) => sql.exec<{ n: number }>(`SELECT count(*) AS n FROM ${table}`).one().n),
    );

  it("forgets a mandate 180 days after it expired, with the next approval, and not a moment before", async () => {
    const old = await approve({ expiresAtMs: Date.now() + 7_200_000 });
    const goesAtMs = old.expiresAtMs + FORGET_MS;
    const known = () => mandateIndexOf(deployment).find(old.id);
    const clock = vi.spyOn(Date, "now").mockReturnValue(goesAtMs - 1);
    await approve();
    expect(await known()).toBe(old.human);
    await runInDurableObject(index(), (_i, state) => state.abort("reset by a test")).catch(() => {});
    clock.mockReturnValue(goesAtMs);
    const next = await approve();
    expect(await known()).toBeNull();
    expect(await mandateIndexOf(deployment).find(next.id)).toBe(next.human);
    // Neither is a page after it an empty one, which would say that there is no more.
    expect(await mandateIndexOf(deployment).list(old.id, 10)).toBeNull();
    expect(await mandateIndexOf(deployment).list(next.id, 10)).not.toBeNull();
    const [mandates, ends] = await entries();
    expect(mandates).toBe(ends);
  });

  it("catches up with what has gathered while nobody approved", async () => {
    const first = mandateOf();
    await Promise.all(
      times(150, () => mandateIndexOf(deployment).note({ id: crypto.randomUUID(), human: first.human }, 1_000)),
    );
    await approve();
    await approve();
    const [, ends] = await entries();
    const overdue = await runInDurableObject(index(), (_i, { storage: { sql } }) =>
      sql.exec("SELECT 1 FROM ends WHERE until_ms <= ?", Date.now()).toArray(),
    );
    expect([overdue, ends! > 0]).toEqual([[], true]);
  });
});
