// The desk: what it hears of, whatever dies, and whom it tells.

import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { createHmac } from "node:crypto";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { AgentInstance } from "../../durable-objects/agent-instance.ts";
import { ApprovalDesk } from "../../durable-objects/approval-desk.ts";
import { instanceOf } from "../../src/objects.ts";
import { within } from "../../src/within.ts";
import { WEBHOOK } from "./approval-config.ts";
import {
  actsOf,
  decide,
  decision,
  desk,
  fileIn,
  heard,
  put,
  requestsOf,
  reset,
  resetDesk,
  ring,
  storyOf,
  until,
} from "./approval-kit.ts";
import config from "./config.ts";
import { deployment, deskStub, enrolAgent, flip, instanceStub, recordsOf, switchOf, upstream } from "./kit.ts";

/** What the webhook was sent, and how it answers. */
let posted: { headers: Headers; body: string }[] = [];
let answer: () => Response | Promise<Response> = () => new Response();
beforeEach(() => {
  posted = [];
  answer = () => new Response();
  upstream(async (request) => {
    if (request.url !== WEBHOOK) return Response.json({});
    posted.push({ headers: request.headers, body: await request.text() });
    return answer();
  });
});
afterEach(async () => {
  vi.restoreAllMocks();
  await runInDurableObject(deskStub(), (_desk, { storage }) => {
    storage.sql.exec("DELETE FROM hooks");
  });
});

const ringDesk = () => runDurableObjectAlarm(deskStub());
const idOf = (post: { body: string }) => (JSON.parse(post.body) as { data: { id: string } }).data.id;

describe("what was asked", () => {
  it("reaches the desk once, though the first words of it are lost and the instance dies", async () => {
    const agent = await enrolAgent();
    const report = vi.spyOn(ApprovalDesk.prototype, "report").mockRejectedValue(new Error("out of reach"));
    expect((await put(agent)).status).toBe(503);
    await reset(agent);
    expect(await requestsOf(agent)).toEqual([]);
    report.mockRestore();
    await ring(agent);
    await heard(agent, 1);
    await ring(agent);
    expect(await requestsOf(agent)).toHaveLength(1);
    expect(await storyOf(agent)).toEqual(["approval asked"]);
  });

  it("is there once where the desk's answer was lost", async () => {
    const agent = await enrolAgent();
    const real = ApprovalDesk.prototype.report;
    const report = vi.spyOn(ApprovalDesk.prototype, "report").mockImplementation(async function (
      this: ApprovalDesk,
      one,
    ) {
      await real.call(this, one);
      throw new Error("lost on the way back");
    });
    await put(agent);
    const [request] = await heard(agent, 1);
    await ringDesk();
    await until(() => expect(posted).toHaveLength(1));
    await instanceOf(deployment, agent.id).revoke("the platform", "test");
    await until(async () => expect((await requestsOf(agent))[0]?.state).toBe("cancelled"));
    report.mockRestore();
    await ring(agent);
    await ringDesk();
    expect(await requestsOf(agent)).toHaveLength(1);
    expect(posted).toHaveLength(1);
    await until(async () => expect(await actsOf(request!.id)).toMatchObject([{ deed: "approval cancelled" }]));
  });

  it("is listed without what an agent makes as long as it likes, and shown whole", async () => {
    const agent = await enrolAgent();
    const headers = { "content-type": "text/plain", "x-padding": "x".repeat(30_000) };
    await put(agent, "one", undefined, { headers });
    const [one] = await heard(agent);
    expect(JSON.stringify(one).length).toBeLessThan(2_000);
    const whole = (await desk().read(one!.id))!;
    expect(whole.headers).toContainEqual(["x-padding", headers["x-padding"]]);
    const { seq: _, headers: __, body: ___, ...summary } = whole;
    expect(one).toEqual(summary);
  });

  it("is bounded for each instance, and others are heard beside it", async () => {
    const [flood, other] = [await enrolAgent(), await enrolAgent()];
    await Promise.all(Array.from({ length: 40 }, (_, i) => put(flood, `number ${i}`)));
    await put(other);
    await heard(flood, 10);
    await heard(other, 1);
  });

  it("no more is asked while the desk can't be told of what is over", async () => {
    const agent = await enrolAgent();
    vi.spyOn(ApprovalDesk.prototype, "report").mockRejectedValue(new Error("out of reach"));
    for (let round = 0; round < 7; round++) {
      for (let i = 0; i < 10; i++) await put(agent, `${round} ${i}`);
      const sw = switchOf({ reach: "upstream", target: { upstream: "github" }, act: "pause" });
      await instanceOf(deployment, agent.id).close(sw);
      await instanceOf(deployment, agent.id).read(0, 0);
      await instanceOf(deployment, agent.id).reopen(sw.id, null);
    }
    expect((await storyOf(agent)).filter((line) => line === "approval asked")).toHaveLength(50);
  });
});

describe("a decision", () => {
  it("is in the transcript and in the journal, by whom and why", async () => {
    const agent = await enrolAgent();
    await put(agent);
    const answered = await decide(agent, { reason: "read it" });
    if (answered.kind !== "decided") throw new Error(answered.kind);
    const line = (await recordsOf(agent)).find(({ state }) => state === "approved");
    expect(line).toMatchObject({ by: "olga", reason: "read it", validUntil: answered.approval.validUntilMs });
    expect(JSON.stringify(line)).not.toContain("olga@acme.example");
    const { id } = answered.approval;
    await until(async () =>
      expect(await actsOf(id)).toMatchObject([
        {
          deed: "approve",
          approval: id,
          by: "olga",
          email: "olga@acme.example",
          reason: "read it",
          instance: agent.id,
        },
      ]),
    );
  });

  it("the same by the same one is one; another's is told that it is over", async () => {
    const agent = await enrolAgent();
    await put(agent);
    const [request] = await heard(agent);
    const id = request!.id;
    expect(await desk().decide(id, decision())).toMatchObject({ kind: "decided", isRepeated: false });
    expect(await desk().decide(id, decision({ reason: "again" }))).toMatchObject({ kind: "decided", isRepeated: true });
    expect(await desk().decide(id, decision({ by: "oscar" }))).toMatchObject({ kind: "over" });
    expect(await desk().decide(id, decision({ verdict: "denied" }))).toMatchObject({ kind: "over" });
    expect((await put(agent)).status).toBe(200);
    // Used, told, and forgotten by the instance.
    await until(async () => expect((await requestsOf(agent))[0]?.state).toBe("used"));
    expect(await desk().decide(id, decision())).toMatchObject({ kind: "decided", isRepeated: true });
    expect(await desk().decide(id, decision({ by: "oscar" }))).toMatchObject({ kind: "over" });
    expect((await storyOf(agent)).filter((line) => line === "approval approved")).toHaveLength(1);
    await until(async () => expect(await actsOf(id)).toHaveLength(1));
  });

  it("that a kill has cancelled since is not told as given, however often it is sent", async () => {
    const agent = await enrolAgent();
    await put(agent);
    const [request] = await heard(agent);
    const { id } = request!;
    expect(await desk().decide(id, decision())).toMatchObject({ kind: "decided", isRepeated: false });
    await flip({ reach: "instance", target: { instance: agent.id } });
    const over = { kind: "over", approval: { state: "cancelled", cause: "switched" } };
    expect(await desk().decide(id, decision())).toMatchObject(over);
    // Told, and forgotten by the instance.
    await until(async () => expect((await requestsOf(agent))[0]?.state).toBe("cancelled"));
    expect(await desk().decide(id, decision())).toMatchObject(over);
    await until(async () =>
      expect((await actsOf(id)).map(({ deed }) => deed)).toEqual(["approve", "approval cancelled"]),
    );
  });

  it("of two at once exactly one counts", async () => {
    const agent = await enrolAgent();
    await put(agent);
    const [request] = await heard(agent);
    const answers = await Promise.all(
      Array.from({ length: 10 }, (_, i) =>
        desk().decide(request!.id, decision({ by: `approver-${i}`, verdict: i % 2 === 0 ? "approved" : "denied" })),
      ),
    );
    expect(answers.filter(({ kind }) => kind === "decided")).toHaveLength(1);
    expect(answers.filter(({ kind }) => kind === "over")).toHaveLength(9);
  });

  it("that the instance never heard did not happen, and can be made again", async () => {
    const agent = await enrolAgent();
    await put(agent);
    const [request] = await heard(agent);
    const deaf = vi.spyOn(AgentInstance.prototype, "decideApproval").mockRejectedValue(new Error("out of reach"));
    expect(await desk().decide(request!.id, decision())).toEqual({ kind: "unavailable" });
    expect((await put(agent)).status).toBe(503);
    deaf.mockRestore();
    await resetDesk();
    expect(await desk().decide(request!.id, decision())).toMatchObject({ kind: "decided", isRepeated: false });
  });

  it("that the instance took while the desk died is heard of all the same, once", async () => {
    const agent = await enrolAgent();
    await put(agent);
    const [request] = await heard(agent);
    // As if the desk had gone between asking and hearing.
    const report = vi.spyOn(ApprovalDesk.prototype, "report").mockRejectedValue(new Error("out of reach"));
    const taken = await instanceOf(deployment, agent.id).decideApproval(request!.id, decision());
    expect(taken).toMatchObject({ kind: "decided" });
    await resetDesk();
    expect((await desk().read(request!.id))?.state).toBe("asked");
    report.mockRestore();
    // Who asks again is told that it is done.
    expect(await desk().decide(request!.id, decision())).toMatchObject({ kind: "decided", isRepeated: true });
    await ring(agent);
    await until(async () => expect((await requestsOf(agent))[0]?.state).toBe("approved"));
    await until(async () => expect(await actsOf(request!.id)).toHaveLength(1));
  });

  it("of what is not there is told so", async () => {
    expect(await desk().decide(crypto.randomUUID(), decision())).toEqual({ kind: "unknown" });
    const agent = await enrolAgent();
    expect(await instanceOf(deployment, agent.id).decideApproval(crypto.randomUUID(), decision())).toEqual({
      kind: "unknown",
    });
    expect(await instanceOf(deployment, "nobody").decideApproval(crypto.randomUUID(), decision())).toEqual({
      kind: "unknown",
    });
  });

  it.each<[string, string, object, string]>([
    ["the delegator", "vault", { by: "human-1" }, "another must decide"],
    ["the delegator by another id", "vault", { emailDigest: "ada-digest" }, "another must decide"],
    ["one without an address", "vault", { emailDigest: null }, "no e-mail address"],
    ["one who is not in the group", "vault-group", { groups: ["engineering"] }, "the group treasury"],
  ])("is not for %s", async (_, repo, by, why) => {
    const agent = await enrolAgent({ emailDigest: "ada-digest" });
    await put(agent, "one", fileIn(repo));
    expect(await decide(agent, by)).toEqual({ kind: "forbidden", reason: expect.stringContaining(why) });
    expect((await put(agent, "one", fileIn(repo))).status).toBe(503);
    expect(await storyOf(agent)).not.toContain("approval approved");
  });

  it("is not for another account of the delegator, and what that one approved before it was known as such is none", async () => {
    const approvals = config.approvals as { samePerson: readonly (readonly string[])[] };
    const agent = await enrolAgent({ emailDigest: "ada-digest" });
    await put(agent);
    expect(await decide(agent)).toMatchObject({ kind: "decided" });
    try {
      approvals.samePerson = [["olga-digest", "ada-digest"]];
      expect((await put(agent)).status).toBe(503);
      const why = expect.stringContaining("the agent acts for you");
      expect(await decide(agent)).toEqual({ kind: "forbidden", reason: why });
      expect(await decide(agent, { by: "omar", emailDigest: "omar-digest" })).toMatchObject({ kind: "decided" });
      expect((await put(agent)).status).toBe(200);
    } finally {
      approvals.samePerson = [];
    }
  });

  it("is for whom the entry says it is for", async () => {
    const agent = await enrolAgent({ emailDigest: "ada-digest" });
    await put(agent, "one", fileIn("vault-own"));
    expect(await decide(agent, { by: "human-1" })).toMatchObject({ kind: "decided" });
    await put(agent, "one", fileIn("vault-group"));
    expect(await decide(agent, { groups: ["treasury"] })).toMatchObject({ kind: "decided" });
  });
});

describe("the webhook", () => {
  it("is told once of what waits, signed, and of nothing secret", async () => {
    const agent = await enrolAgent();
    await put(agent, "SECRET BODY", `${fileIn("vault")}?key=SECRET`, {
      headers: { "content-type": "text/plain", "x-secret": "SECRET" },
    });
    const [request] = await heard(agent);
    await ringDesk();
    await until(() => expect(posted).toHaveLength(1));
    const [{ headers, body }] = posted as [(typeof posted)[0]];
    expect(idOf({ body })).toBe(request!.id);
    expect(headers.get("webhook-id")).toBe(request!.id);
    const key = Buffer.from("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "base64");
    const signed = `${request!.id}.${headers.get("webhook-timestamp")}.${body}`;
    const mac = createHmac("sha256", new Uint8Array(key)).update(signed).digest("base64");
    expect(headers.get("webhook-signature")).toBe(`v1,${mac}`);
    for (const secret of ["SECRET", agent.token, "MfKQ", "test-github-credential"])
      expect(body + JSON.stringify([...headers])).not.toContain(secret);
    await ringDesk();
    expect(posted).toHaveLength(1);
  });

  it.each<[string, () => Response | Promise<Response>]>([
    ["down", () => new Response(null, { status: 500 })],
    ["out of reach", () => Promise.reject(new Error("refused"))],
    ["redirecting", () => new Response(null, { status: 307, headers: { location: "https://evil.test/" } })],
  ])("where it is %s, is told again, with the same id, and nobody waits for it", async (_, fails) => {
    answer = fails;
    const agent = await enrolAgent();
    await put(agent);
    await heard(agent);
    await ringDesk();
    await until(() => expect(posted).toHaveLength(1));
    const now = Date.now();
    const clock = vi.spyOn(Date, "now").mockImplementation(() => now + 3_000);
    answer = () => new Response();
    await until(async () => {
      await ringDesk();
      expect(posted).toHaveLength(2);
    });
    clock.mockRestore();
    expect(new Set(posted.map(({ headers }) => headers.get("webhook-id"))).size).toBe(1);
    expect(await decide(agent)).toMatchObject({ kind: "decided" });
  });

  it("is told nothing twice because a request beside it can't be read", async () => {
    vi.spyOn(console, "error").mockImplementation(() => {});
    const agent = await enrolAgent();
    await put(agent);
    const [request] = await heard(agent);
    await ringDesk();
    await until(() => expect(posted).toHaveLength(1));
    const hooks = (query: string, ...ids: string[]) =>
      runInDurableObject(deskStub(), (_desk, { storage: { sql } }) => sql.exec(query, ...ids).toArray());
    await until(async () => expect(await hooks("SELECT id FROM hooks")).toEqual([]));
    await hooks("INSERT INTO requests (id, state, json) VALUES ('spoilt', 'asked', '{}')");
    await hooks("INSERT INTO hooks (id, attempts, next_at_ms) VALUES ('spoilt', 0, 1), (?, 0, 2)", request!.id);
    let take = (): void => {};
    const taken = new Promise<void>((resolve) => {
      take = resolve;
    });
    answer = () => taken.then(() => new Response());
    const ringing = runInDurableObject(deskStub(), (object) => object.alarm());
    await until(() => expect(posted).toHaveLength(2));
    // As long as it is on its way, nobody is rung for it.
    expect(
      await within(
        200,
        ringing.then(() => "rung"),
      ),
    ).toBeUndefined();
    take();
    await ringing;
    expect(await hooks("SELECT id, attempts FROM hooks")).toEqual([{ id: "spoilt", attempts: 1 }]);
    expect(posted).toHaveLength(2);
    await hooks("DELETE FROM requests WHERE id = 'spoilt'");
  });

  it("where it never answers, hinders no decision and no other request", async () => {
    answer = () => new Promise(() => {});
    const agent = await enrolAgent();
    await put(agent);
    const [request] = await heard(agent);
    void ringDesk();
    expect(await desk().decide(request!.id, decision())).toMatchObject({ kind: "decided" });
    await put(agent, "two");
    await heard(agent, 2);
  });

  it("is not told of what was decided before", async () => {
    answer = () => new Response(null, { status: 500 });
    const agent = await enrolAgent();
    await put(agent);
    await heard(agent);
    await ringDesk();
    await until(() => expect(posted).toHaveLength(1));
    await decide(agent);
    const now = Date.now();
    const clock = vi.spyOn(Date, "now").mockImplementation(() => now + 10_000);
    await ringDesk();
    clock.mockRestore();
    expect(posted).toHaveLength(1);
    const left = await runInDurableObject(deskStub(), (_d, { storage }) =>
      storage.sql.exec("SELECT id FROM hooks").toArray(),
    );
    expect(left).toEqual([]);
  });

  it("where its secret is no secret, no door opens", async () => {
    const { parseDeployment } = await import("../../src/deployment.ts");
    const env = { ...deployment.env, APPROVALS_WEBHOOK: "guess me" };
    const config = { ...deployment.config };
    expect(() => parseDeployment(env, config)).toThrow(/^secret APPROVALS_WEBHOOK is not whsec_/);
  });
});

describe("its cost", () => {
  it("a call that no entry holds back asks neither desk nor book, and writes two rows as before", async () => {
    const agent = await enrolAgent();
    const asked = vi.spyOn(ApprovalDesk.prototype, "report");
    const rows: string[] = [];
    await runInDurableObject(instanceStub(agent.id), (_i, { storage }) => {
      const exec = storage.sql.exec.bind(storage.sql);
      vi.spyOn(storage.sql, "exec").mockImplementation(((query: string, ...bindings: unknown[]) => {
        rows.push(query.trim().split(/\s+/).slice(0, 3).join(" "));
        return exec(query, ...bindings);
      }) as typeof storage.sql.exec);
    });
    expect(await (await put(agent, "one", fileIn("widgets"))).text()).toBe("{}");
    expect(rows).toEqual(["INSERT INTO log_0", "INSERT INTO log_0"]);
    expect(asked).not.toHaveBeenCalled();
  });
});
