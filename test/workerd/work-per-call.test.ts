import { createExecutionContext, env, runInDurableObject, waitOnExecutionContext } from "cloudflare:test";
import { afterEach, describe, expect, it, vi } from "vitest";
import { Quota } from "../../durable-objects/quota.ts";
import { Roster } from "../../durable-objects/roster.ts";
import type { Deployment, Env } from "../../src/deployment.ts";
import { gate } from "../../src/gate/gate.ts";
import { ORIGIN } from "./config.ts";
import {
  type Agent,
  appendBySizeAlone,
  boardStub,
  deployment,
  enrolAgent,
  ISSUES,
  instanceStub,
  rosterStub,
  upstream,
  verdictOf,
} from "./kit.ts";
import { quotaStub } from "./quota-kit.ts";

afterEach(() => vi.restoreAllMocks());

/** The deployment with every call of a Durable Object's method on record: each is one billed request. */
function watched(): { readonly deployment: Deployment; readonly requests: string[] } {
  const requests: string[] = [];
  const watch = (name: string, namespace: DurableObjectNamespace) =>
    new Proxy(namespace, {
      get(target, property) {
        if (property !== "get") {
          const value = Reflect.get(target, property);
          return typeof value === "function" ? value.bind(target) : value;
        }
        return (...args: Parameters<DurableObjectNamespace["get"]>) =>
          new Proxy(target.get(...args), {
            get(stub, method) {
              return (...params: unknown[]) => {
                requests.push(`${name}.${String(method)}`);
                return (stub as unknown as Record<string, (...p: unknown[]) => unknown>)[String(method)]!(...params);
              };
            },
          });
      },
    });
  const bindings = env as unknown as Env;
  const names = ["AGENT_INSTANCE", "ROSTER", "SWITCHBOARD", "JOURNAL", "QUOTA"] as const;
  const namespaces = Object.fromEntries(names.map((name) => [name, watch(name, bindings[name])]));
  return { requests, deployment: { ...deployment, env: { ...bindings, ...namespaces } as Env } };
}

async function ask(agent: Agent, change: { token?: string; proof?: string; path?: string } = {}) {
  const { requests, deployment } = watched();
  const path = change.path ?? ISSUES;
  const headers = {
    authorization: `DPoP ${change.token ?? agent.token}`,
    dpop: change.proof ?? (await agent.prove("GET", path)),
  };
  const ctx = createExecutionContext();
  const cf = { asn: 64_500, country: "FR" };
  const response = await gate(new Request(ORIGIN + path, { headers, cf } as RequestInit), deployment, ctx);
  await response.text();
  await waitOnExecutionContext(ctx);
  return { status: response.status, requests };
}

const spoil = (token: string): string => `${token.slice(0, -3)}${token.endsWith("AAA") ? "BBB" : "AAA"}`;

/** Every method of these classes, as any object of them is asked. */
async function askedOf(): Promise<string[]> {
  const asked: string[] = [];
  const day = new Date().toISOString().slice(0, 10);
  const stubs = {
    Roster: rosterStub(0),
    Switchboard: boardStub(),
    Journal: journalStub(`admin.${day}`),
    Quota: quotaStub("ample.unasked"),
  };
  for (const [name, stub] of Object.entries(stubs))
    await runInDurableObject(stub as DurableObjectStub<Roster>, (object) => {
      const prototype = Object.getPrototypeOf(object) as Record<string, (...args: unknown[]) => unknown>;
      for (const [method, { value }] of Object.entries(Object.getOwnPropertyDescriptors(prototype))) {
        if (method === "constructor" || method === "alarm" || typeof value !== "function") continue;
        vi.spyOn(prototype, method).mockImplementation(function (this: unknown, ...args: unknown[]) {
          asked.push(`${name}.${method}`);
          return value.apply(this, args);
        });
      }
    });
  return asked;
}
const journalStub = (name: string) => env.JOURNAL.get(env.JOURNAL.idFromName(name));
const at = (ms: number) => vi.spyOn(Date, "now").mockReturnValue(ms);

describe("the roster, the switchboard and the journals", () => {
  it("hear nothing of an ordinary call, nor of one that is refused", async () => {
    const agent = await enrolAgent();
    upstream(() => Response.json([]));
    const asked = await askedOf();
    expect((await ask(agent)).status).toBe(200);
    expect((await ask(agent, { path: "/github/repos/evil/widgets/issues" })).status).toBe(404);
    expect(asked).toEqual([]);
  });

  it("are asked by a busy instance ahead of need and beside its calls, once", async () => {
    const agent = await enrolAgent();
    const enrolledAtMs = Date.now();
    const { confirmationMs } = deployment.config.roster;
    const asked = await askedOf();
    const hung = vi.spyOn(Roster.prototype, "confirm").mockImplementation(() => new Promise(() => {}));
    const clock = at(enrolledAtMs + confirmationMs / 2 + 1_000);
    // Nobody answers, and no call waits for it.
    for (let i = 0; i < 3; i++) expect(await verdictOf(agent)).toBe("admitted");
    expect(hung).toHaveBeenCalledOnce();
    clock.mockRestore();
    expect(asked).toEqual([]);
  });

  it("are never asked by an idle one, though its alarm runs, but once for each segment that leaves", async () => {
    const agent = await enrolAgent();
    const asked = await askedOf();
    const clock = at(Date.now() + 600_000);
    await runInDurableObject(instanceStub(agent.id), (instance) => instance.alarm());
    expect(asked.splice(0)).toEqual(["Journal.append"]);
    await runInDurableObject(instanceStub(agent.id), (instance) => instance.alarm());
    clock.mockRestore();
    expect(asked).toEqual([]);
  });
});

describe("the roster hears of streams", () => {
  /** Answers without a length, of these runs, at the same time; read to their ends. */
  const stream = async (agent: Agent, type: string, runs: readonly number[], count = 1) => {
    upstream(() => {
      let at = 0;
      const pull = async (controller: ReadableByteStreamController) => {
        await new Promise((resolve) => setTimeout(resolve, 20));
        const bytes = runs[at++];
        if (bytes !== undefined) return controller.enqueue(new Uint8Array(bytes));
        controller.close();
        controller.byobRequest?.respond(0);
      };
      const body = new ReadableStream({ type: "bytes", pull } as UnderlyingByteSource);
      return new Response(body, { headers: { "content-type": type } });
    });
    const answers = await Promise.all(Array.from({ length: count }, () => agent.call(ISSUES)));
    const total = runs.reduce((sum, bytes) => sum + bytes, 0);
    for (const answer of answers) expect((await answer.bytes()).length).toBe(total);
  };
  const saysOf = ({ mock }: { mock: { calls: unknown[][] } }, { id }: Agent) =>
    mock.calls.filter(([instance]) => instance === id).map(([, isRunning]) => isRunning);

  it("when the first event stream of an instance begins: one request, however many there are and follow", async () => {
    const agent = await enrolAgent();
    const confirm = vi.spyOn(Roster.prototype, "confirm");
    await stream(agent, "text/event-stream", [6, 6], 3);
    await vi.waitFor(() => expect(saysOf(confirm, agent)).toEqual([true]));
    await stream(agent, "text/event-stream", [6, 6], 2);
    expect(saysOf(confirm, agent)).toEqual([true]);
  });

  it("of others when their first run is on record, and not at all of what is short", async () => {
    appendBySizeAlone();
    const agent = await enrolAgent();
    const confirm = vi.spyOn(Roster.prototype, "confirm");
    // Without a length, and over before it is due to be appended.
    await stream(agent, "application/json", [6, 6], 4);
    expect(saysOf(confirm, agent)).toEqual([]);
    await stream(agent, "application/octet-stream", [300_000, 300_000], 2);
    await vi.waitFor(() => expect(saysOf(confirm, agent)).toEqual([true]));
    await stream(agent, "application/octet-stream", [300_000]);
    expect(saysOf(confirm, agent)).toEqual([true]);
  });

  it("with the questions that are asked anyway, as long as there are streams", async () => {
    const agent = await enrolAgent();
    const confirm = vi.spyOn(Roster.prototype, "confirm");
    const nowMs = Date.now();
    await stream(agent, "text/event-stream", [6]);
    await vi.waitFor(() => expect(saysOf(confirm, agent)).toEqual([true]));
    await stream(agent, "text/event-stream", [6]);
    // Nothing runs when it is asked, and something did since the last time.
    const clock = at(nowMs + deployment.config.roster.confirmationMs * 0.75);
    expect(await verdictOf(agent)).toBe("admitted");
    await vi.waitFor(() => expect(saysOf(confirm, agent)).toEqual([true, true]));
    clock.mockReturnValue(nowMs + deployment.config.roster.confirmationMs * 1.5);
    expect(await verdictOf(agent)).toBe("admitted");
    clock.mockRestore();
    await vi.waitFor(() => expect(saysOf(confirm, agent)).toEqual([true, true, false]));
  });
});

describe("a shared limit", () => {
  it("that a lease covers costs a call no request and no row", async () => {
    const agent = await enrolAgent({ agent: "ample-bot", human: `human-${crypto.randomUUID()}` });
    upstream(() => Response.json([]));
    const asked = await askedOf();
    expect((await ask(agent)).status).toBe(200);
    expect(asked.splice(0)).toEqual(["Quota.lease"]);
    const rows = await rowsOf(agent, async () => {
      expect((await ask(agent)).status).toBe(200);
    });
    expect([rows, asked]).toEqual([2, []]);
  });

  it("is asked by a busy instance ahead of need and beside its calls", async () => {
    const agent = await enrolAgent({ agent: "ample-bot", human: `human-${crypto.randomUUID()}` });
    for (let i = 0; i < 3; i++) expect(await verdictOf(agent)).toBe("admitted");
    const hung = vi.spyOn(Quota.prototype, "lease").mockImplementation(() => new Promise(() => {}));
    // The last that the first lease covers, and nobody answers: it does not wait for it.
    expect(await verdictOf(agent)).toBe("admitted");
    await vi.waitFor(() => expect(hung).toHaveBeenCalledOnce());
  });
});

/** Inserts while it does that. */
async function rowsOf(agent: Agent, work: () => Promise<void>): Promise<number> {
  let rows = 0;
  await runInDurableObject(instanceStub(agent.id), (_instance, { storage }) => {
    const exec = storage.sql.exec.bind(storage.sql);
    vi.spyOn(storage.sql, "exec").mockImplementation(((query: string, ...bindings: unknown[]) => {
      if (/^\s*(INSERT|UPDATE|DELETE)/.test(query)) rows++;
      return exec(query, ...bindings);
    }) as typeof storage.sql.exec);
  });
  await work();
  return rows;
}

describe("Durable Object requests", () => {
  it("an ordinary call costs one", async () => {
    const agent = await enrolAgent();
    upstream(() => Response.json([]));
    expect(await ask(agent)).toEqual({ status: 200, requests: ["AGENT_INSTANCE.admit"] });
  });

  it("a refusal at the grant's signature costs none", async () => {
    const agent = await enrolAgent();
    expect(await ask(agent, { token: spoil(agent.token) })).toEqual({ status: 401, requests: [] });
  });

  it("a refusal at the proof's signature costs none", async () => {
    const agent = await enrolAgent();
    expect(await ask(agent, { proof: spoil(await agent.prove("GET", ISSUES)) })).toEqual({ status: 401, requests: [] });
  });

  it("a refusal at the proof's claims costs none", async () => {
    const agent = await enrolAgent();
    expect(await ask(agent, { proof: await agent.prove("POST", ISSUES) })).toEqual({ status: 401, requests: [] });
  });

  it("a call out of scope costs one, which records it", async () => {
    const agent = await enrolAgent();
    expect(await ask(agent, { path: "/github/repos/evil/widgets/issues" })).toEqual({
      status: 404,
      requests: ["AGENT_INSTANCE.admit"],
    });
  });
});
