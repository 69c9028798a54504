// What each class stores, pinned: it does not change without a new version.

import { env, runInDurableObject } from "cloudflare:test";
import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import * as z from "zod";
import { ACT } from "../../durable-objects/act-outbox.ts";
import { APPROVAL, HANDOVER, INSTANCE_SHAPES, TOTALS } from "../../durable-objects/instance-shapes.ts";
import type { Journal } from "../../durable-objects/journal.ts";
import { Kept } from "../../durable-objects/kept.ts";
import { MANDATE } from "../../durable-objects/mandate-shape.ts";
import { HOLDER, TOTALS as QUOTA_TOTALS } from "../../durable-objects/quota-shapes.ts";
import { RawBodies } from "../../durable-objects/raw-bodies.ts";
import { ERASURE, EXTENT, HOLD, PAGE, RELEASE } from "../../durable-objects/retention-shapes.ts";
import { type ClassName, MIGRATIONS } from "../../durable-objects/schema.ts";
import { SEGMENT } from "../../durable-objects/segment-shape.ts";
import { whole } from "../../durable-objects/stored.ts";
import { OPENING, REACHED, SWITCH } from "../../durable-objects/switch-shape.ts";
import type { Revocation } from "../../src/mandate/contract.ts";
import { boardStub, deskStub, enrolAgent, instanceStub, retentionStub, rosterStub } from "./kit.ts";
import { quotaStub } from "./quota-kit.ts";

/** Of each class its version, and a digest of what it stores. */
const PINNED: Readonly<Record<ClassName, readonly [version: number, digest: string]>> = {
  AgentInstance: [1, "4d46e0dd06309133"],
  ApprovalDesk: [0, "0608558184e2538a"],
  CredentialBroker: [0, "643d5437104296e2"],
  Journal: [0, "c60ff96e80b0cca3"],
  MandateBook: [0, "45b69a2e3ac120c8"],
  MandateIndex: [0, "fce869943e7c612b"],
  Quota: [0, "cc5c3bc64447d5b6"],
  Retention: [0, "e3ef682777a65a3b"],
  Roster: [0, "bf5d1ba1e3052156"],
  Switchboard: [0, "0026bd701b813eee"],
};

const advice = (name: ClassName, [version]: readonly [number, string], digest: string): string =>
  `What ${name} stores is not what was pinned. Objects out there have stored it as before. Either undo the change, or:
1. Add a migration to the end of ${name} in durable-objects/schema.ts, which brings what is stored to the new shape.
2. Test it in test/workerd/stored-versions.test.ts, with what the release before has stored.
3. Pin it in test/workerd/stored-shapes.test.ts: ${name}: [${version}, "${digest}"].
Only what no deployment has stored yet is pinned anew without a migration.`;

const number = z.number();
const text = z.string();

/** What is not looked at when it is read is held to its type here alone. */
const REVOCATION = whole<Revocation>({ atMs: number, by: text, reason: text, switch: text.nullable() });
const SHAPES: Readonly<Record<ClassName, readonly z.ZodType[]>> = {
  AgentInstance: [...Object.values(INSTANCE_SHAPES), TOTALS],
  ApprovalDesk: [APPROVAL, ACT],
  CredentialBroker: [],
  Journal: [SEGMENT],
  MandateBook: [MANDATE, REVOCATION, HANDOVER, ACT],
  MandateIndex: [],
  Quota: [QUOTA_TOTALS, HOLDER],
  Retention: [HOLD, RELEASE, ERASURE, PAGE, EXTENT, ACT],
  Roster: [SWITCH],
  Switchboard: [SWITCH, OPENING, REACHED, ACT],
};

type Stub = DurableObjectStub<undefined>;
const named = (namespace: DurableObjectNamespace, name: string) => namespace.get(namespace.idFromName(name)) as Stub;

/** Of each class one that has made all its tables. */
const STUBS: Readonly<Record<ClassName, () => Promise<Stub>>> = {
  AgentInstance: async () => {
    const stub = instanceStub((await enrolAgent()).id);
    await runInDurableObject(stub, (_instance, { storage: { sql } }) =>
      new RawBodies(sql, new Kept(sql, "AgentInstance", INSTANCE_SHAPES)).append(1, "answer", new Uint8Array(1)),
    );
    return stub as Stub;
  },
  ApprovalDesk: async () => deskStub() as Stub,
  CredentialBroker: async () => named(env.CREDENTIAL_BROKER, "github"),
  Journal: async () => {
    const name = `admin.${new Date().toISOString().slice(0, 10)}`;
    const stub = env.JOURNAL.get(env.JOURNAL.idFromName(name)) as DurableObjectStub<Journal>;
    await stub.append({ type: "act", fields: {}, deployment: "test" });
    return stub as Stub;
  },
  MandateBook: async () => named(env.MANDATE_BOOK, "human-1"),
  MandateIndex: async () => named(env.MANDATE_INDEX, "mandates"),
  Quota: async () => quotaStub("ample.shapes") as Stub,
  Retention: async () => retentionStub() as Stub,
  Roster: async () => rosterStub(0) as Stub,
  Switchboard: async () => boardStub() as Stub,
};

const schemaOf = (stub: Stub): Promise<readonly string[]> =>
  runInDurableObject(stub, (_object, { storage: { sql } }) =>
    sql
      .exec<{ sql: string }>(
        "SELECT sql FROM sqlite_master WHERE type <> 'view' AND name NOT GLOB '_cf_*' AND sql IS NOT NULL ORDER BY name",
      )
      .toArray()
      .map(({ sql: made }) => made.replace(/\s+/g, " ")),
  );

describe("what is stored does not change without a new version:", () => {
  for (const name of Object.keys(MIGRATIONS) as ClassName[])
    it(name, async () => {
      const shapes = SHAPES[name].map((shape) => z.toJSONSchema(shape, { unrepresentable: "any" }));
      const stored = JSON.stringify([await schemaOf(await STUBS[name]()), shapes]);
      const found = [MIGRATIONS[name].length, createHash("sha256").update(stored).digest("hex").slice(0, 16)] as const;
      expect(found, advice(name, found, found[1])).toEqual(PINNED[name]);
    });
});
