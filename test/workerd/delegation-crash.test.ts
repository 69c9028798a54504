// Between a parent's reservation and a child's grant anything may die. No grant is signed by a parent that is gone, and what was
// reserved for a child that never came is not lost.

import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { AgentInstance } from "../../durable-objects/agent-instance.ts";
import { Roster } from "../../durable-objects/roster.ts";
import { createInstanceKey, thumbprintOf } from "../../src/agent/instance-key.ts";
import { shardOf } from "../../src/control/shard.ts";
import { instanceOf } from "../../src/objects.ts";
import { alarmAt, askFor, isStopped, LEAD, linesOf, type Node, rootOf, said, soon } from "./family-kit.ts";
import { deployment, flip, instanceStub, rosterStub, upstream } from "./kit.ts";

beforeEach(() => void upstream(() => Response.json([])));
afterEach(() => vi.restoreAllMocks());
vi.setConfig({ testTimeout: 30_000 });

const GONE = "invalid_request: subject_token: no longer valid";
const AGAIN = "temporarily_unavailable: try again with a new key";
const ALL = { task_limits: '{"calls":20}' };
const rootOf20 = () => rootOf({ limits: { ...LEAD, calls: 20 } });
const abort = (id: string) =>
  runInDurableObject(instanceStub(id), (_o, state) => state.abort("a test")).catch(() => {});

type Step = "delegate" | "enrol" | "confirmChild" | "disown";
type Method = (this: AgentInstance, ...args: unknown[]) => Promise<unknown>;
/** Once, around one step of one delegation. */
function around(step: Step, what: (go: () => Promise<unknown>, args: readonly unknown[]) => Promise<unknown>): void {
  const methods = AgentInstance.prototype as unknown as Record<Step, Method>;
  const original = methods[step];
  vi.spyOn(methods, step).mockImplementationOnce(function (this: AgentInstance, ...args: unknown[]) {
    return what(() => original.apply(this, args), args);
  });
}

const types = async (id: string): Promise<string[]> =>
  (await linesOf(id)).map(({ type, act }) => (act === undefined ? type : `${act}`));
/** What was reserved comes back when the child is known not to be one: the whole of it can be given again. */
async function givesAllAgain(root: Node, laterMs = 0): Promise<void> {
  if (laterMs > 0) await alarmAt(root.id, Date.now() + laterMs);
  await soon(async () => expect(await types(root.id)).toContain("return"));
  expect(said(await askFor(root, { form: ALL }))).toBe("granted");
}

describe("dying between the parent's reservation and the child's enrolment", () => {
  it("of the Worker: the child can't come any more, and its share is back after a minute", async () => {
    const beforeMs = Date.now();
    const root = await rootOf20();
    const key = await createInstanceKey();
    around("enrol", async () => {
      throw new Error("the Worker is gone");
    });
    around("disown", async () => {
      throw new Error("the Worker is gone");
    });
    expect(said(await askFor(root, { key, form: ALL }))).toBe(AGAIN);
    expect(said(await askFor(root, { form: ALL }))).toBe(
      "invalid_request: task_limits: calls exceeds what the parent has left",
    );
    await alarmAt(root.id, beforeMs + 59_000);
    expect(await types(root.id)).toEqual(["enrolled", "delegate"]);
    await alarmAt(root.id, Date.now() + 61_000);
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 61_000);
    await soon(async () => expect(await types(root.id)).toContain("return"));
    clock.mockRestore();
    // The key was barred: an enrolment that was still on its way comes to nothing.
    const other = await rootOf();
    expect(said(await askFor(other, { key }))).toContain("invalid_request: this key is enrolled already");
    expect(said(await askFor(root, { form: ALL }))).toBe("granted");
  });

  it("of the parent: what it has given stays given, and a parent that comes up again goes on", async () => {
    for (const die of [abort, async (id: string) => evictDurableObject(instanceStub(id))]) {
      const root = await rootOf20();
      around("enrol", async (go) => {
        await die(root.id);
        return go();
      });
      const answer = await askFor(root, { form: ALL });
      expect(said(answer)).toBe("granted");
      expect(said(await askFor(root, { form: ALL }))).toBe(
        "invalid_request: task_limits: calls exceeds what the parent has left",
      );
    }
  });

  it("of the parent for good, by revocation: nobody is enrolled, or who is has ended; and no grant is signed", async () => {
    const root = await rootOf20();
    around("enrol", async (go) => {
      await root.held.revoke();
      return go();
    });
    const answer = await askFor(root, { form: ALL });
    // The parent's word may have come before the enrolment, which then finds its key barred.
    expect([GONE, "invalid_request: this key is enrolled already: every instance needs a key of its own"]).toContain(
      said(answer),
    );
    await soon(async () =>
      expect((await types(root.id)).includes("return") || (await isStopped(answer.id))).toBe(true),
    );
    expect(await isStopped(answer.id)).toBe(true);
  });

  it("of the parent for good, by a kill: its roster keeps the child out", async () => {
    const root = await rootOf20();
    around("enrol", async (go) => {
      await flip({ reach: "instance", target: { instance: root.id } });
      return go();
    });
    const answer = await askFor(root, { form: ALL });
    expect(said(answer)).toBe(GONE);
    expect((await instanceOf(deployment, answer.id).introspect()).enrolment).toBeNull();
  });

  it("of the parent's patience: who is barred while the roster enlists it is not enrolled, and not on the list", async () => {
    const root = await rootOf20();
    const { enlist } = Roster.prototype;
    vi.spyOn(Roster.prototype, "enlist").mockImplementationOnce(async function (this: Roster, attributes) {
      const answer = await enlist.call(this, attributes);
      await instanceOf(deployment, attributes.instance).endAsChildOf(root.id, "test", attributes.instance);
      return answer;
    });
    const answer = await askFor(root, { form: ALL });
    expect(said(answer)).toContain("invalid_request: this key is enrolled already");
    expect((await instanceOf(deployment, answer.id).introspect()).enrolment).toBeNull();
    const shard = shardOf(answer.id, deployment.config.roster.shards);
    const listed = async () => (await rosterStub(shard).list("", 1_000)).some(({ instance }) => instance === answer.id);
    await soon(async () => expect(await listed()).toBe(false));
    await givesAllAgain(root);
  });

  it("of the roster: the child is not enrolled, and its share comes back", async () => {
    const root = await rootOf20();
    around("enrol", async () => ({ enrolled: false, reason: "unavailable" }));
    expect(said(await askFor(root, { form: ALL }))).toBe(AGAIN);
    await givesAllAgain(root);
  });
});

describe("dying between the child's enrolment and the parent's confirmation", () => {
  it("of the Worker: a child without a grant is ended after a minute, and its share comes back when it is over", async () => {
    const root = await rootOf20();
    around("confirmChild", async () => {
      throw new Error("the Worker is gone");
    });
    around("disown", async () => {
      throw new Error("the Worker is gone");
    });
    const answer = await askFor(root, { form: ALL });
    expect(said(answer)).toBe(AGAIN);
    expect(await isStopped(answer.id)).toBe(false);
    await alarmAt(root.id, Date.now() + 61_000);
    const clock = vi.spyOn(Date, "now").mockReturnValue(Date.now() + 61_000);
    await soon(async () => expect(await isStopped(answer.id)).toBe(true));
    clock.mockRestore();
    await givesAllAgain(root);
  });

  it("of the parent, for a moment or for good: no grant, and the child ends", async () => {
    const ways: ((root: Node) => Promise<unknown>)[] = [
      (root) => root.held.revoke(),
      (root) => flip({ reach: "instance", target: { instance: root.id } }),
      (root) => flip({ reach: "instance", target: { instance: root.id }, act: "pause" }),
    ];
    for (const [i, way] of ways.entries()) {
      const root = await rootOf20();
      around("enrol", async (go) => {
        const enrolled = await go();
        await way(root);
        return enrolled;
      });
      const answer = await askFor(root, { form: ALL });
      expect([i, said(answer)]).toEqual([i, GONE]);
      await soon(async () => expect([i, await isStopped(answer.id)]).toEqual([i, true]));
    }
  });

  it("of the parent's object, with the question: no grant, and the child ends", async () => {
    const root = await rootOf20();
    around("confirmChild", async () => {
      await abort(root.id);
      throw new Error("reset");
    });
    const answer = await askFor(root, { form: ALL });
    expect(said(answer)).toBe(AGAIN);
    await soon(async () => expect(await isStopped(answer.id)).toBe(true));
  });

  it("of the child's object: it comes up as what it was enrolled", async () => {
    const root = await rootOf20();
    let child = "";
    around("confirmChild", async (go, args) => {
      child = String(args[0]);
      await abort(child);
      return go();
    });
    const answer = await askFor(root, { form: ALL });
    expect(said(answer)).toBe("granted");
    expect(answer.id).toBe(child);
    expect((await linesOf(child))[0]).toMatchObject({ type: "enrolled", limits: { calls: 20 } });
  });
});

describe("dying with the reservation itself", () => {
  it("leaves nothing of it, or all of it: the record, the share and the proof's use are one commit", async () => {
    const root = await rootOf20();
    const key = await createInstanceKey();
    const form = { ...ALL, ...(await root.held.delegate(await thumbprintOf(key))) };
    around("delegate", async (go) => {
      await go();
      await abort(root.id);
      throw new Error("reset");
    });
    expect(said(await askFor(root, { key, form }))).toBe(AGAIN);
    const lines = await types(root.id);
    const isReserved = lines.includes("delegate");
    const answer = said(await askFor(root, { key, form }));
    expect(answer).toBe(isReserved ? "invalid_request: subject_token_proof: it was used before" : "granted");
  });

  it("by a grant that was confirmed for one delegation says nothing of another with the same key", async () => {
    const root = await rootOf20();
    const answer = await askFor(root);
    expect(said(answer)).toBe("granted");
    const parent = instanceOf(deployment, root.id);
    expect(await parent.confirmChild(answer.id, "another grant")).toBe(false);
    await parent.disown(answer.id, "another grant");
    expect(await isStopped(answer.id)).toBe(false);
    expect(await parent.confirmChild("another child", "another grant")).toBe(false);
  });
});
