// RFC 7009 by a parent: it ends its own child and nobody else, and learns nothing of anybody else.

import { runInDurableObject } from "cloudflare:test";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { AgentInstance } from "../../durable-objects/agent-instance.ts";
import { endChild } from "../../src/agent/agent-fetch.ts";
import { createInstanceKey, createProof, type InstanceKey, thumbprintOf } from "../../src/agent/instance-key.ts";
import { issueGrant } from "../../src/grant/claims.ts";
import { instanceOf } from "../../src/objects.ts";
import { ORIGIN } from "./config.ts";
import {
  alarmAt,
  askFor,
  childOf,
  enrolmentOf,
  isStopped,
  linesOf,
  type Node,
  rootOf,
  said,
  send,
  soon,
} from "./family-kit.ts";
import { boardStub, deployment, flip, instanceStub, journalLines, SCOPE, upstream } from "./kit.ts";

beforeEach(() => void upstream(() => Response.json([])));
afterEach(() => vi.restoreAllMocks());
vi.setConfig({ testTimeout: 30_000 });

const REVOKE_URL = `${ORIGIN}/oauth/revoke`;
const KEY_URI = "urn:ietf:params:oauth:jwk-thumbprint:sha-256:";
const ROOMY = { task_limits: '{"concurrency":20,"burst":60,"callsPerSecond":60,"calls":500}' };
const SMALL = { task_limits: '{"concurrency":2,"burst":3}' };

interface Shown {
  readonly key?: InstanceKey;
  readonly authorization?: string | null;
  readonly proof?: string;
}

/** As a parent sends it, right unless it is spoilt. Status, headers, and all that is said. */
async function revoke(parent: Node, token: string, shown: Shown = {}): Promise<string> {
  const { key = parent.key, authorization = `DPoP ${parent.token}` } = shown;
  const proof = shown.proof ?? (await createProof(key, "POST", REVOKE_URL, parent.token));
  const headers: Record<string, string> = { DPoP: proof };
  if (authorization !== null) headers["Authorization"] = authorization;
  const answer = await send(REVOKE_URL, { method: "POST", body: new URLSearchParams({ token }), headers });
  const text = await answer.text();
  if (answer.status === 200) return `200 ${JSON.stringify([...answer.headers])} ${text}`;
  const json = JSON.parse(text) as Record<string, string>;
  return `${answer.status} ${json["error"]}: ${json["error_description"]}`;
}
const DULL = '200 [["cache-control","no-store"]] ';

const refusalsOf = async (instance: string): Promise<readonly string[]> => {
  return (await journalLines("authority-refused"))
    .filter((line) => line["instance"] === instance)
    .map(({ endpoint, reason }) => `${endpoint}: ${reason}`);
};

describe("a parent ends", () => {
  it("its child and all below it, with a record on either side, and nobody beside", async () => {
    const root = await rootOf();
    const [child, sibling] = [await childOf(root, ROOMY), await childOf(root, ROOMY)];
    const leaf = await childOf(child, SMALL);
    expect(await endChild(root.held, child.id)).toBe(true);
    expect([await child.call(), await sibling.call(), await root.call()]).toEqual([401, 200, 200]);
    expect(await child.held.renew()).toBe("refused");
    await soon(async () => expect([await leaf.call(), await isStopped(leaf.id)]).toEqual([401, true]));
    expect((await linesOf(root.id)).filter(({ act }) => act === "end")).toMatchObject([
      { type: "delegated", child: child.id, grant: "grant-1" },
    ]);
    for (const { id } of [child, leaf])
      expect((await linesOf(id)).filter(({ type }) => type === "switched")).toMatchObject([
        { act: "revoke", reach: "instance", by: "parent" },
      ]);
    await soon(async () =>
      expect((await linesOf(root.id)).filter(({ act }) => act === "return")).toMatchObject([{ child: child.id }]),
    );
  });

  it.each([
    ["its grant", (child: Node) => child.token],
    ["its refresh token", (child: Node) => child.refresh!],
    ["its key", (child: Node) => KEY_URI + child.id],
  ])("its child by %s", async (_name, tokenOf) => {
    const root = await rootOf();
    const child = await childOf(root);
    expect(await revoke(root, tokenOf(child))).toBe(DULL);
    expect(await isStopped(child.id)).toBe(true);
  });

  it("itself by its own key, and all below it", async () => {
    const root = await rootOf();
    const child = await childOf(root);
    expect(await revoke(root, KEY_URI + root.id)).toBe(DULL);
    await soon(async () => expect([await isStopped(root.id), await isStopped(child.id)]).toEqual([true, true]));
  });

  it("a child while both are paused: it does not come back with the others", async () => {
    const root = await rootOf();
    const [child, sibling] = [await childOf(root), await childOf(root)];
    const paused = await flip({ reach: "instance", target: { instance: root.id }, act: "pause" });
    expect(await endChild(root.held, child.id)).toBe(true);
    await boardStub().lift(paused.switch.id, { by: "admin", email: null, reason: "over" });
    await soon(async () => expect([await root.call(), await sibling.call()]).toEqual([200, 200]));
    expect(await child.call()).toBe(401);
  });

  it("a child that is just being provisioned: no grant of it is signed, and its share is back", async () => {
    for (const step of ["before it is enrolled", "after"] as const) {
      const root = await rootOf();
      const key = await createInstanceKey();
      const id = await thumbprintOf(key);
      const { enrol } = AgentInstance.prototype;
      vi.spyOn(AgentInstance.prototype, "enrol").mockImplementationOnce(async function (this: AgentInstance, request) {
        if (step === "after") {
          const answer = await enrol.call(this, request);
          await endChild(root.held, id);
          return answer;
        }
        await endChild(root.held, id);
        return enrol.call(this, request);
      });
      const answer = await askFor(root, { key });
      expect([step, said(answer)]).toEqual([step, expect.stringContaining("invalid_request: ")]);
      expect(await isStopped(id)).toBe(true);
      await soon(async () => expect((await linesOf(root.id)).at(-1)).toMatchObject({ act: "return", child: id }));
    }
  });
});

describe("a child that can't be reached", () => {
  it("is not said to be ended: it is ended when it can be, though the parent dies, and is asked for again meanwhile", async () => {
    const root = await rootOf();
    const child = await childOf(root);
    const ending = vi.spyOn(AgentInstance.prototype, "endAsChildOf").mockRejectedValue(new Error("unreachable"));
    expect(await revoke(root, KEY_URI + child.id)).toBe("503 temporarily_unavailable: try again");
    expect(await endChild(root.held, child.id)).toBe(false);
    expect(ending).toHaveBeenCalledTimes(2);
    // Asked twice, decided once.
    expect((await linesOf(root.id)).filter(({ act }) => act === "end")).toHaveLength(1);
    await runInDurableObject(instanceStub(root.id), (_o, state) => state.abort("a test")).catch(() => {});
    ending.mockRestore();
    await alarmAt(root.id, Date.now() + 6_000);
    await soon(async () => expect(await isStopped(child.id)).toBe(true));
    expect(await endChild(root.held, child.id)).toBe(true);
  });

  it("nor is one whose parent can't be", async () => {
    const root = await rootOf();
    const child = await childOf(root);
    vi.spyOn(AgentInstance.prototype, "endChild").mockRejectedValueOnce(new Error("unreachable"));
    expect(await revoke(root, KEY_URI + child.id)).toBe("503 temporarily_unavailable: try again");
    expect(await child.call()).toBe(200);
  });
});

describe("who is no living child", () => {
  it("is one answer, whoever it is, and goes on; the attempt is on record", async () => {
    const [root, stranger] = [await rootOf(), await rootOf()];
    const child = await childOf(root, ROOMY);
    const [leaf, sibling] = [await childOf(child, SMALL), await childOf(root, ROOMY)];
    const nephew = await childOf(sibling, SMALL);
    const ended = await childOf(child, SMALL);
    expect(await revoke(child, KEY_URI + ended.id)).toBe(DULL);
    await soon(async () => expect((await linesOf(child.id)).at(-1)).toMatchObject({ act: "return" }));
    const others: [string, Node, string][] = [
      ["a grandchild", root, KEY_URI + leaf.id],
      ["a grandchild's grant", root, leaf.token],
      ["a grandchild's refresh token", root, leaf.refresh!],
      ["its parent", child, KEY_URI + root.id],
      ["its parent's grant", child, root.token],
      ["a sibling", child, KEY_URI + sibling.id],
      ["a sibling's child", child, KEY_URI + nephew.id],
      ["a stranger", child, KEY_URI + stranger.id],
      ["a stranger's grant", child, stranger.token],
      ["its child that has ended", child, KEY_URI + ended.id],
      ["its child's grant that has ended", child, ended.token],
      ["nobody", child, KEY_URI + (await thumbprintOf(await createInstanceKey()))],
    ];
    for (const [name, by, token] of others) expect([name, await revoke(by, token)]).toEqual([name, DULL]);
    for (const token of [KEY_URI, `${KEY_URI}x`, `${KEY_URI}${leaf.id}x`, `${KEY_URI}../${leaf.id}`, leaf.id, "x"])
      expect([token, await revoke(child, token)]).toEqual([token, DULL]);
    const living = [root, child, leaf, sibling, nephew, stranger];
    expect(await Promise.all(living.map((node) => node.call()))).toEqual(living.map(() => 200));
    // Of many in a second some are counted only.
    await soon(async () => {
      expect(await revoke(root, KEY_URI + leaf.id)).toBe(DULL);
      expect(await refusalsOf(root.id)).toContain(`revoke: token: ${leaf.id} is no living child of this instance`);
    });
    // Nothing of it stands in anybody's transcript but what was done.
    expect((await linesOf(child.id)).filter(({ act }) => act === "end")).toHaveLength(1);
    expect((await linesOf(root.id)).filter(({ act }) => act === "end")).toEqual([]);
  });
});

describe("who does not show what a parent has", () => {
  const rows: [name: string, shown: (root: Node, child: Node) => Promise<Shown>, reason: string][] = [
    [
      "no grant, and so its key alone",
      async () => ({ authorization: null }),
      "400 unsupported_token_type: a key is named by an instance with its grant alone",
    ],
    ["a grant as a bearer", async ({ token }) => ({ authorization: `Bearer ${token}` }), "401 invalid_client"],
    ["a grant of another", async (_root, { token }) => ({ authorization: `DPoP ${token}` }), "401 invalid_client"],
    ["the child's key", async (_root, { key }) => ({ key }), "401 invalid_client"],
    ["no token at all", async () => ({ authorization: "DPoP" }), "401 invalid_client"],
    [
      "a grant that has run out",
      async (root) => {
        const { subject: sub } = await enrolmentOf(root.id);
        const iat = Math.floor(Date.now() / 1000) - 600;
        const token = issueGrant(deployment.grantKeys, {
          iss: ORIGIN,
          sub,
          aud: [`${ORIGIN}/github`],
          client_id: "build-platform",
          jti: "grant-1",
          iat,
          exp: iat + 300,
          cnf: { jkt: root.id },
          authorization_details: SCOPE,
        });
        const proof = await createProof(root.key, "POST", REVOKE_URL, token);
        return { authorization: `DPoP ${token}`, proof };
      },
      "401 invalid_client",
    ],
    [
      "a proof without the grant's digest",
      async ({ key }) => ({ proof: await createProof(key, "POST", REVOKE_URL) }),
      "400 invalid_dpop_proof: ath is of another token",
    ],
    [
      "a proof for the token endpoint",
      async ({ key, token }) => ({ proof: await createProof(key, "POST", `${ORIGIN}/oauth/token`, token) }),
      "400 invalid_dpop_proof: htu is another URL",
    ],
  ];
  it.each(rows)("%s: is refused, and nothing ends", async (_name, shown, reason) => {
    const root = await rootOf();
    const child = await childOf(root);
    const CLIENT = "401 invalid_client: client authentication failed";
    const expected = reason === "401 invalid_client" ? CLIENT : reason;
    expect(await revoke(root, KEY_URI + child.id, await shown(root, child))).toBe(expected);
    expect(await child.call()).toBe(200);
  });

  it("a proof that has ended one child ends no other", async () => {
    const root = await rootOf();
    const [child, sibling] = [await childOf(root), await childOf(root)];
    const proof = await createProof(root.key, "POST", REVOKE_URL, root.token);
    expect(await revoke(root, KEY_URI + child.id, { proof })).toBe(DULL);
    expect(await revoke(root, KEY_URI + sibling.id, { proof })).toBe("400 invalid_dpop_proof: it was used before");
    expect(await sibling.call()).toBe(200);
    expect(await instanceOf(deployment, child.id).introspect()).toMatchObject({ state: "inactive" });
  });
});
