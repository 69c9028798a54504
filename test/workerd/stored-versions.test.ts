import {
  createExecutionContext,
  env,
  evictDurableObject,
  runDurableObjectAlarm,
  runInDurableObject,
  waitOnExecutionContext,
} from "cloudflare:test";
import { createHash } from "node:crypto";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { checked } from "../../durable-objects/checked-state.ts";
import * as deployed from "../../durable-objects/deployed.ts";
import { attributesOf } from "../../durable-objects/instance-fields.ts";
import { MandateIndex } from "../../durable-objects/mandate-index.ts";
import { Roster } from "../../durable-objects/roster.ts";
import { type ClassName, MIGRATIONS, type Migration, migrate } from "../../durable-objects/schema.ts";
import { admin } from "../../src/admin/admin.ts";
import type { Deployment, Env } from "../../src/deployment.ts";
import type { Enrolment } from "../../src/instance/contract.ts";
import { instanceOf } from "../../src/objects.ts";
import { INSTANCE_V0 } from "./instance-v0.ts";
import {
  type Agent,
  boardStub,
  deployment,
  enrolAgent,
  ISSUES,
  instanceStub,
  rosterStub,
  settlement,
  typesOf,
  upstream,
} from "./kit.ts";
import { ask, verdict } from "./quota-kit.ts";
import { storedLines, verified } from "./raw-kit.ts";

type Stub = DurableObjectStub<undefined> & { readonly [method: string]: (...args: unknown[]) => Promise<unknown> };

/** What the operator is told. */
let told: string[];
beforeEach(() => {
  told = [];
  vi.spyOn(console, "error").mockImplementation((...words: unknown[]) => void told.push(words.join(" ")));
});
afterEach(() => vi.restoreAllMocks());

const inside = <T>(stub: object, work: (storage: DurableObjectStorage) => T | Promise<T>): Promise<T> =>
  runInDurableObject(stub as DurableObjectStub<undefined>, (_object, { storage }) => work(storage));

const TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB '_cf_*'";

/** It starts anew with this in its storage. */
async function restart(stub: object, change: (sql: SqlStorage) => unknown = () => {}): Promise<void> {
  await inside(stub, ({ sql }) => void change(sql));
  await evictDurableObject(stub as DurableObjectStub<undefined>);
}

/** Schema and rows, but the platform's own. */
const dump = (stub: object): Promise<unknown> => inside(stub, ({ sql }) => dumpOf(sql));
function dumpOf(sql: SqlStorage): unknown {
  const schema = sql.exec<{ name: string; type: string; sql: string }>(
    "SELECT name, type, sql FROM sqlite_master WHERE name NOT GLOB '_cf_*' ORDER BY name",
  );
  return schema
    .toArray()
    .map(({ name, type, sql: made }) => [made, type === "index" ? [] : sql.exec(`SELECT * FROM ${name}`).toArray()]);
}

const versionIn = (stub: object): Promise<number | null> =>
  inside(stub, ({ sql }) => {
    const views = sql.exec("SELECT 1 FROM sqlite_master WHERE type = 'view'").toArray();
    return views.length === 0
      ? null
      : sql.exec<{ version: number }>("SELECT version FROM storage_version").one().version;
  });
const setVersion = (version: number | string) => (sql: SqlStorage) => {
  sql.exec("DROP VIEW IF EXISTS storage_version");
  sql.exec(`CREATE VIEW storage_version AS SELECT ${version} AS version`);
};

/** What the instance has counted, with the next call. */
async function left(agent: Agent): Promise<{ readonly calls: number; readonly bytes: number }> {
  const admission = await ask(agent);
  if (!admission.admitted) throw new Error(JSON.stringify(admission.denial));
  await admission.lease.settle(settlement({ outcome: "not-sent", tail: new Uint8Array(0) }));
  admission.lease[Symbol.dispose]?.();
  const { calls, bytes } = admission.limits;
  return { calls, bytes };
}

/** Everything that time does, until the transcript says so in the bucket. Another run of the alarm may be on its way. */
const inTheEnd = (agent: Agent) =>
  vi.waitFor(async () => {
    await runInDurableObject(instanceStub(agent.id), (instance) => instance.alarm());
    // What was dumped had been admitted without a gate, which states by what.
    const report = await verified(agent, /^is complete, and passed 0 of |decision\.entry$/);
    expect(report).toMatchObject({ status: "ended", openCalls: [] });
  });

const unversion = (sql: SqlStorage): void => {
  sql.exec("DROP VIEW storage_version");
};
const withoutBytesAhead = "json_remove(state, '$.usage.bytesAhead')";

describe("an instance that an older release has stored", () => {
  /** As the old release left it: the same tables, the same rows. */
  async function restored(): Promise<Agent> {
    vi.spyOn(Date, "now").mockReturnValue(INSTANCE_V0.atMs + 1_000);
    const enrolment = JSON.parse(INSTANCE_V0.tables[0].rows[0].json) as Enrolment;
    const stub = instanceStub(enrolment.instance);
    await inside(stub, (storage) => storage.deleteAll());
    await restart(stub, (sql) => {
      for (const { name, sql: schema, rows } of INSTANCE_V0.tables) {
        sql.exec(schema);
        for (const row of rows) {
          const values = Object.values(row).map((value) =>
            typeof value === "object" ? Uint8Array.from(Buffer.from(value.hex, "hex")) : value,
          );
          const marks = values.map(() => "?").join(", ");
          sql.exec(`INSERT INTO ${name} (${Object.keys(row).join(", ")}) VALUES (${marks})`, ...values);
        }
      }
    });
    await rosterStub(enrolment.rosterShard).enlist(attributesOf(enrolment));
    return { ...(await enrolAgent()), id: enrolment.instance, enrolment };
  }

  it("is brought to this version, goes on where it was, and its transcript verifies to the end", async () => {
    const agent = await restored();
    const { limits } = agent.enrolment;
    // Two calls and two bytes are of the old release, one of them was running.
    expect(await left(agent)).toEqual({ calls: limits.calls - 3, bytes: limits.bytes - 2 });
    expect(await versionIn(instanceStub(agent.id))).toBe(1);
    const replay = { jti: "454e55df-280d-4fe4-b3ef-5ee04d1177ba", issuedAtMs: INSTANCE_V0.atMs };
    const again = await instanceOf(deployment, agent.id).admit(agent.admission({ proof: replay }));
    expect(again).toMatchObject({ admitted: false, denial: { reason: "replay" } });
    await instanceOf(deployment, agent.id).revoke("test", "test");
    vi.mocked(Date.now).mockReturnValue(agent.enrolment.task.deadlineMs + 60_000);
    await inTheEnd(agent);
    const lines = await storedLines(agent, "transcripts");
    // The one that was running could have been taken up again for a moment: its end is recorded behind what came first.
    expect(typesOf(lines)).toMatch(/^enrolled call answer call call .*answer.* ended seal$/);
    const ends = lines.filter(({ type, call }) => type === "answer" && call === 3);
    expect(ends).toMatchObject([{ outcome: "lost" }]);
    expect(told).toEqual([]);
  });

  it("without its migration is refused, and is not reckoned with what is not there", async () => {
    const agent = await restored();
    await restart(instanceStub(agent.id), (sql) => sql.exec(`UPDATE log_0 SET state = ${withoutBytesAhead}`));
    expect(await verdict(ask(agent))).toBe("lost");
    expect(told).toEqual([expect.stringMatching(/^state not readable AgentInstance [0-9a-f]{64} .*usage: bytesAhead/)]);
    expect(told.join()).not.toContain(agent.id);
  });

  it("begins with a segment's totals where nothing came after it", async () => {
    const agent = await enrolAgent();
    const before = await left(agent);
    vi.spyOn(Date, "now").mockReturnValue(Date.now() + 600_000);
    const stub = instanceStub(agent.id);
    await instanceOf(deployment, agent.id).revoke("test", "test");
    await inTheEnd(agent);
    await restart(stub, (sql) => {
      unversion(sql);
      const old = `json_set(json, '$.state', (SELECT ${withoutBytesAhead} || '' FROM (SELECT json_extract(json, '$.state') AS state)))`;
      expect(sql.exec(`UPDATE kept SET json = ${old} WHERE kind = 'segment' RETURNING 1`).toArray()).not.toEqual([]);
    });
    expect(await versionIn(stub)).toBe(1);
    expect(before.calls).toBeGreaterThan(0);
    expect(await instanceOf(deployment, agent.id).introspect()).toMatchObject({ enrolment: { instance: agent.id } });
    expect(told).toEqual([]);
  });

  it("that never was stays nothing: whoever asks for it leaves no trace", async () => {
    const stub = instanceStub("nobody");
    expect(await instanceOf(deployment, "nobody").introspect()).toMatchObject({ enrolment: null });
    expect(await dump(stub)).toEqual([]);
  });
});

describe("a new object", () => {
  it("whose constructor makes its tables says its version with them", () =>
    runInDurableObject(stubOf("Roster", "not-a-shard"), (_object, ctx) => {
      const { storage } = ctx;
      for (const { name } of storage.sql.exec<{ name: string }>(TABLES).toArray())
        storage.sql.exec(`DROP TABLE ${name}`);
      let runs = 0;
      const Newer = checked("Roster", Roster, [() => void runs++, () => void runs++]);
      for (let i = 0; i < 2; i++) expect(new Newer(ctx, env as unknown as Env)).toBeInstanceOf(Roster);
      expect(storage.sql.exec("SELECT version FROM storage_version").one()).toEqual({ version: 2 });
      expect(runs).toBe(0);
    }));

  it("says its version with its first row, and costs no row for it", async () => {
    const agent = await enrolAgent();
    expect(await versionIn(instanceStub(agent.id))).toBe(MIGRATIONS.AgentInstance.length);
    const rows = await inside(instanceStub(agent.id), ({ sql }) => sql.exec("SELECT kind FROM kept").toArray());
    expect(rows).toEqual([{ kind: "enrolment" }]);
  });
});

const BINDINGS: Readonly<Record<ClassName, string>> = {
  AgentInstance: "AGENT_INSTANCE",
  ApprovalDesk: "APPROVAL_DESK",
  CredentialBroker: "CREDENTIAL_BROKER",
  Journal: "JOURNAL",
  MandateBook: "MANDATE_BOOK",
  MandateIndex: "MANDATE_INDEX",
  Quota: "QUOTA",
  Retention: "RETENTION",
  Roster: "ROSTER",
  Switchboard: "SWITCHBOARD",
};
const stubOf = (name: ClassName, id: string): Stub => {
  const namespace = (env as unknown as Record<string, DurableObjectNamespace>)[BINDINGS[name]]!;
  return namespace.get(namespace.idFromName(id)) as unknown as Stub;
};
const refusal = async (stub: Stub, door: string): Promise<string> => {
  try {
    await stub[door]!();
    return "none";
  } catch (error) {
    return (error as Error).message;
  }
};
const CLASSES: Readonly<Record<ClassName, { readonly prototype: object }>> = { ...deployed };
/** Methods that its callers know. */
const doorsOf = (name: ClassName): string[] =>
  Object.entries(Object.getOwnPropertyDescriptors(CLASSES[name].prototype)).flatMap(([method, { value }]) =>
    typeof value === "function" && method !== "constructor" && method !== "alarm" ? [method] : [],
  );

describe("state of a newer release", () => {
  for (const name of Object.keys(MIGRATIONS) as ClassName[])
    it(`of ${name} is refused at every door, and is not touched`, async () => {
      const stub = stubOf(name, `rolled-back-${name}`);
      const newer = MIGRATIONS[name].length + 1;
      await inside(stub, (storage) => storage.setAlarm(Date.now() + 3_600_000));
      await restart(stub, (sql) => {
        sql.exec("CREATE TABLE what_is_to_come (it TEXT)");
        sql.exec("INSERT INTO what_is_to_come VALUES ('stays')");
        setVersion(newer)(sql);
      });
      const doors = doorsOf(name);
      expect(doors.length).toBeGreaterThan(0);
      const before = await dump(stub);
      for (const door of doors)
        expect(await refusal(stub, door), door).toBe(`${name}: its state is not readable by this release`);
      const known = MIGRATIONS[name].length;
      // Once, however many ask.
      expect(told).toEqual([
        expect.stringMatching(
          new RegExp(
            `^state not readable ${name} [0-9a-f]{64} .*it has version ${newer}, and this release knows ${known}`,
          ),
        ),
      ]);
      // The platform gives up an alarm that fails: it rings again, and does nothing.
      await runDurableObjectAlarm(stub);
      expect(await inside(stub, (storage) => storage.getAlarm())).toBeGreaterThan(Date.now());
      expect(await dump(stub)).toEqual(before);

      // The release that knows it, once more.
      await restart(stub, setVersion(known));
      expect(await inside(stub, ({ sql }) => sql.exec("SELECT it FROM what_is_to_come").toArray())).toEqual([
        { it: "stays" },
      ]);
      expect(told).toHaveLength(1);
    });

  it("of an instance, or of its roster when it must ask, closes the gate with 503, and nothing goes to the upstream", async () => {
    const agent = await enrolAgent();
    const calls = upstream(() => Response.json([]));
    const instance = instanceStub(agent.id);
    const roster = rosterStub(agent.enrolment.rosterShard);
    await restart(instance, setVersion(99));
    expect((await agent.call(ISSUES)).status).toBe(503);
    await restart(instance, setVersion(1));
    await restart(roster, setVersion(99));
    expect((await agent.call(ISSUES)).status).toBe(503);
    expect(calls).not.toHaveBeenCalled();
    await restart(roster, unversion);
    expect((await agent.call(ISSUES)).status).toBe(200);
  });

  it("of the switchboard closes the admin's door: who kills does not hear that it was done", async () => {
    const key = `pbg_${"k".repeat(43)}`;
    const held: Deployment = {
      ...deployment,
      config: { ...deployment.config, admins: { ...deployment.config.admins, breakGlass: { night: "NIGHT_KEY" } } },
      env: { ...deployment.env, NIGHT_KEY: createHash("sha256").update(key).digest("hex") },
    };
    const kill = async (): Promise<number> => {
      const ctx = createExecutionContext();
      const body = JSON.stringify({ act: "kill", reach: "human", target: { human: "nobody" }, reason: "test" });
      const headers = { authorization: `Bearer ${key}`, "idempotency-key": crypto.randomUUID() };
      const answer = await admin.request(
        "/admin/v1/switches",
        { method: "POST", headers, body },
        { deployment: held },
        ctx,
      );
      await waitOnExecutionContext(ctx);
      return answer.status;
    };
    await restart(boardStub(), setVersion(99));
    // What rejects, src/index.ts answers with 503.
    expect(await kill().catch((error: Error) => error.message)).toMatch("not readable");
    await restart(boardStub(), unversion);
    expect(await kill()).toBe(201);
  });
});

describe("state that is not what it must be", () => {
  const spoilt: readonly (readonly [what: string, query: string, told: RegExp])[] = [
    [
      "a total that is no number",
      "UPDATE log_0 SET state = json_set(state, '$.usage.calls', NULL)",
      /running totals .*usage: calls/,
    ],
    [
      "a limit that is missing",
      "UPDATE kept SET json = json_remove(json, '$.limits.bytes') WHERE kind = 'enrolment'",
      /enrolment .*limits: bytes/,
    ],
    ["totals that are no JSON", "UPDATE log_0 SET state = '{\"usage\":'", /running totals is no JSON/],
    ["a record that is no JSON", "UPDATE log_0 SET line = 'x' || line", /record is no JSON/],
    [
      "a segment's totals that are no JSON",
      `INSERT INTO kept VALUES ('segment', '7', '{"firstSeq":5,"lastSeq":6,"head":"","sealLine":"","state":"{","jtiUntilMs":0,"bytes":0,"final":false,"stage":2}')`,
      /running totals is no JSON/,
    ],
    ["a kind that nobody knows", "INSERT INTO kept VALUES ('lottery', '1', '{}')", /lottery/],
    ["a version that is no number", "CREATE VIEW storage_version AS SELECT 'many' AS version", /version is no number/],
  ];
  for (const [what, query, why] of spoilt)
    it(`${what}: the instance refuses, and reckons nothing`, async () => {
      const agent = await enrolAgent();
      await restart(instanceStub(agent.id), (sql) => {
        if (query.startsWith("CREATE VIEW")) unversion(sql);
        sql.exec(query);
      });
      expect(await verdict(ask(agent))).toBe("lost");
      expect(told).toEqual([expect.stringMatching(why)]);
      expect(told.join()).not.toContain(agent.id);
    });

  it("a quota's totals, a roster's switch: they refuse", async () => {
    const quota = stubOf("Quota", "ample.spoilt");
    await inside(quota, () => {});
    await restart(quota, (sql) =>
      sql.exec(`INSERT INTO totals (id, json) VALUES (0, '{"period":0,"granted":{"calls":null}}')`),
    );
    expect(await refusal(quota, "read")).toMatch("not readable");
    const roster = stubOf("Roster", "77");
    await inside(roster, () => {});
    await restart(roster, (sql) => sql.exec(`INSERT INTO switches (id, json) VALUES ('s', '{"id":"s","act":"nod"}')`));
    expect(await refusal(roster, "confirm")).toMatch("not readable");
    expect(told).toHaveLength(2);
  });
});

describe("migrations", () => {
  const add =
    (column: string): Migration =>
    (sql) => {
      sql.exec(`ALTER TABLE things ADD COLUMN ${column} TEXT`);
      sql.exec(`UPDATE things SET ${column} = 'new'`);
    };
  const broken: Migration = (sql) => {
    sql.exec("DELETE FROM things");
    sql.exec("CREATE TABLE half (a)");
    throw new Error("the middle of it");
  };
  const withThings = (id: string, work: (storage: DurableObjectStorage) => void): Promise<void> =>
    inside(stubOf("MandateIndex", id), (storage) => {
      storage.sql.exec("CREATE TABLE things (a TEXT)");
      storage.sql.exec("INSERT INTO things VALUES ('old')");
      work(storage);
    });

  it("run in their order, each once", () =>
    withThings("two-in-a-row", (storage) => {
      migrate(storage, [add("b")]);
      migrate(storage, [add("b"), add("c"), add("d")]);
      migrate(storage, [add("b"), add("c"), add("d")]);
      expect(storage.sql.exec("SELECT * FROM things").toArray()).toEqual([{ a: "old", b: "new", c: "new", d: "new" }]);
      expect(storage.sql.exec("SELECT version FROM storage_version").one()).toEqual({ version: 3 });
    }));

  it("that break off in the middle leave everything as it was, and begin anew", () =>
    withThings("in-the-middle", (storage) => {
      migrate(storage, [add("b")]);
      const before = dumpOf(storage.sql);
      expect(() => migrate(storage, [add("b"), add("c"), broken])).toThrow("the middle of it");
      expect(dumpOf(storage.sql)).toEqual(before);
      migrate(storage, [add("b"), add("c")]);
      expect(storage.sql.exec("SELECT * FROM things").toArray()).toEqual([{ a: "old", b: "new", c: "new" }]);
    }));

  it("that fail close the object, and the operator hears why", async () => {
    const stub = stubOf("MandateIndex", "failed");
    await withThings("failed", () => {});
    await runInDurableObject(stub as DurableObjectStub<undefined>, async (_object, ctx) => {
      const before = dumpOf(ctx.storage.sql);
      const Newer = checked("MandateIndex", MandateIndex, [add("b"), broken]);
      const object = new Newer(ctx, env as unknown as Env);
      await expect(object.find("any")).rejects.toThrow("not readable");
      expect(dumpOf(ctx.storage.sql)).toEqual(before);
    });
    expect(told).toEqual([expect.stringContaining("from version 0 to 2: the middle of it")]);
  });

  it("that a reset of the object interrupts are not there afterwards", async () => {
    const stub = stubOf("MandateIndex", "reset");
    await withThings("reset", () => {});
    const before = await dump(stub);
    await runInDurableObject(stub as DurableObjectStub<undefined>, (_object, ctx) => {
      migrate(ctx.storage, [add("b")]);
      ctx.abort("in the turn of the migration");
    }).catch(() => {});
    expect(await dump(stubOf("MandateIndex", "reset"))).toEqual(before);
  });
});
