// A call that a person must approve, from outside: the agent that waits, the chat that is told, the person at a command line.

import { createHmac } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runCommand } from "../../scripts/cli/commands.ts";
import { createIo } from "../../scripts/cli/terminal.ts";
import { type Human, humans } from "../../scripts/local/humans.ts";
import { closeServer, listenOnLoopback, loopback } from "../../scripts/local/ports.ts";
import { pullBucket, verifyFolder } from "../../scripts/local/verify-folder.ts";
import { parseSealKeys } from "../../src/transcript/verify-keys.ts";
import { ANYTHING, type GateRig, type Heard, type Instance, startGateRig } from "./gate-rig.ts";
import { pause } from "./hostile-upstream.ts";
import { startQueries } from "./query-blocks.ts";

const KEY = Buffer.alloc(32, 7);
const HELD = "/hostile/held/payment";

const CHAT = { type: "http", upstream: "metered", operations: ["POST /chat"] } as const;
const metered = (port: number) =>
  ({
    baseUrl: `http://${loopback}:${port}`,
    credential: { kind: "none" },
    meters: { tokens: { pointer: "/usage/total_tokens", reserve: 100 } },
    prices: { usd: { of: { tokens: 0.5 } } },
  }) as const;

let rig: GateRig;
let agent: Instance;
const posted: { readonly headers: Record<string, unknown>; readonly body: string }[] = [];
const receiver = createServer((request, answer) => {
  let body = "";
  request.setEncoding("utf8").on("data", (chunk: string) => {
    body += chunk;
  });
  request.on("end", () => {
    if (request.url === "/chat") {
      answer.writeHead(200, { "content-type": "application/json" }).end('{"usage":{"total_tokens":7}}');
      return;
    }
    posted.push({ headers: request.headers, body });
    answer.writeHead(204).end();
  });
});
beforeAll(async () => {
  const port = await listenOnLoopback(receiver, 0);
  rig = await startGateRig(
    { approve: { operations: ["PUT /held/{+path}"], approval: { waitSeconds: 20 } } },
    {
      webhook: `http://${loopback}:${port}/approvals`,
      more: { upstreams: { metered: metered(port) }, entries: [CHAT] },
    },
    { around: { bindings: { APPROVALS_WEBHOOK: `whsec_${KEY.toString("base64")}` } } },
  );
  agent = await rig.provision([ANYTHING, CHAT]);
});
afterAll(async () => {
  await rig.close();
  await closeServer(receiver);
});

async function cli(human: Human, ...args: string[]): Promise<{ code: number; out: string; err: string }> {
  const [out, err]: [string[], string[]] = [[], []];
  const { sub, email, groups } = humans[human];
  const token = rig.h.idToken({ sub, email, groups, aud: "portcullis-admin" });
  const env = { PORTCULLIS_GATE: rig.origin, PORTCULLIS_TOKEN: token, XDG_CONFIG_HOME: rig.stateDir };
  const io = createIo({ write: (text) => out.push(text) }, { write: (text) => err.push(text) }, env);
  const code = await runCommand(args, io);
  return { code, out: out.join(""), err: err.join("") };
}

const ask = (path: string, body: string, signal?: AbortSignal): Promise<Heard> =>
  rig.call(agent, path, {
    method: "PUT",
    body,
    headers: { "content-type": "application/json" },
    ...(signal === undefined ? {} : { signal }),
  });

/** Of the newest request that waits; and when the receiver has heard of it. */
async function waitingOne(path: string): Promise<string> {
  let id: string | undefined;
  const look = async (): Promise<string | undefined> => {
    const { out } = await cli("olga", "approvals", "--json");
    const { approvals } = JSON.parse(out) as { approvals: { id: string; url: string }[] };
    id = approvals.find(({ url }) => url.includes(path))?.id;
    return id;
  };
  await expect.poll(look, { timeout: 10_000 }).toBeDefined();
  return id!;
}

describe("a payment that a person must approve", () => {
  it("waits, is asked for by a signed webhook, is looked at and approved at the command line, and passes once", async () => {
    const body = '{"amount":100}';
    const answered = ask(`${HELD}?account=7`, body);
    const id = await waitingOne("/held/payment");
    await expect.poll(() => posted.length, { timeout: 10_000 }).toBe(1);
    const [{ headers, body: said }] = posted as [(typeof posted)[0]];
    const mac = createHmac("sha256", KEY).update(`${id}.${headers["webhook-timestamp"]}.${said}`).digest("base64");
    expect([headers["webhook-id"], headers["webhook-signature"]]).toEqual([id, `v1,${mac}`]);
    expect(JSON.parse(said)).toMatchObject({
      data: { id, method: "PUT", hasQuery: true, link: `${rig.origin}/admin/v1/approvals/${id}` },
    });
    expect(said).not.toContain("account=7");
    expect(rig.upstream.requests("/held/payment")).toHaveLength(0);

    const shown = await cli("olga", "approvals", id);
    expect(shown.out).toContain("held/payment?account=7");
    expect(shown.out).toContain(body);
    expect(shown.out).not.toContain(agent.access);
    // Whom the agent acts for holds no role; and were it so, it would still be refused.
    const ada = await cli("ada", "approve", id, "--reason", "mine");
    expect([ada.code, ada.err]).toEqual([3, expect.stringContaining("this needs the role approver")]);
    const done = await cli("olga", "approve", id, "--reason", "the invoice is right");
    expect([done.code, done.out]).toEqual([0, expect.stringContaining("Approved: PUT")]);
    expect((await answered).status).toBe(200);
    expect(rig.upstream.requests("/held/payment")).toHaveLength(1);
    const { lines } = await rig.recorded(agent, `${HELD}?account=7`);
    expect(lines.find(({ type }) => type === "call")?.["approval"]).toBe(id);
    expect(JSON.stringify(lines)).toContain("the invoice is right");
    const again = await cli("olga", "deny", id, "--reason", "too late");
    expect([again.code, again.err]).toEqual([1, expect.stringContaining("has decided: approved")]);
  });

  it("is refused as if it were not there when it is denied", async () => {
    const answered = ask("/hostile/held/denied", "{}");
    const id = await waitingOne("/held/denied");
    expect((await cli("olga", "deny", id, "--reason", "no")).code).toBe(0);
    const nowhere = await rig.call(agent, "/ungranted/x");
    const { status, body } = await answered;
    expect([status, body.toString()]).toEqual([404, nowhere.body.toString()]);
  });

  it("is not spent by an agent that went away while it waited", async () => {
    const gone = new AbortController();
    const first = ask("/hostile/held/gone", "{}", gone.signal).catch(() => "gone");
    const id = await waitingOne("/held/gone");
    gone.abort();
    await first;
    await pause(300);
    expect((await cli("olga", "approve", id, "--reason", "yes")).code).toBe(0);
    expect((await ask("/hostile/held/gone", "{}")).status).toBe(200);
    expect(rig.upstream.requests("/held/gone")).toHaveLength(1);
  });

  it("a kill ends the wait at once; what the gate wrote down verifies, and tells it", async () => {
    for (let i = 0; i < 2; i++) {
      const chat = { method: "POST", body: "{}", headers: { "content-type": "application/json" } };
      expect((await rig.call(agent, "/metered/chat", chat)).status).toBe(200);
    }
    const answered = ask("/hostile/held/killed", "{}");
    const id = await waitingOne("/held/killed");
    expect((await rig.h.kill(agent.id)).status).toBe(201);
    expect((await answered).status).toBe(401);
    const late = await cli("olga", "approve", id, "--reason", "yes");
    expect([late.code, late.err]).toEqual([1, expect.stringContaining("it is cancelled: switched")]);
    await rig.records(agent, ({ type, state }) => type === "approval" && state === "cancelled");
    const folder = await mkdtemp(join(tmpdir(), "portcullis-approval-"));
    try {
      await pullBucket(await rig.bucket(), folder);
      const keys = parseSealKeys({ keys: rig.h.secrets.sealKeys.keys.map(({ d: _, ...key }) => key) });
      if (!keys.ok) throw new Error(keys.error);
      const report = await verifyFolder(folder, { keys: keys.value, issuer: rig.origin, nowMs: Date.now() });
      expect(report.transcripts.flatMap(({ findings }) => findings)).toEqual([]);
      expect(report.ok).toBe(true);
      // docs/queries.md, over the same.
      const { db, rowsOf } = await startQueries(folder);
      const rows = await rowsOf("What people were asked to approve");
      const spent = await rowsOf("What was spent, in units");
      db.closeSync();
      expect(spent.map(({ upstream, unit, calls, charged }) => [upstream, unit, calls, charged])).toEqual([
        ["metered", "tokens", "2", 14],
        ["metered", "usd", "2", 7],
      ]);
      const of = rows.map(({ target, verdict, reason, state, cause }) => [target, verdict, reason, state, cause]);
      expect(of).toEqual([
        [`${HELD}?account=7`, "approved", "the invoice is right", "used", null],
        ["/hostile/held/denied", "denied", "no", "denied", null],
        ["/hostile/held/gone", "approved", "yes", "used", null],
        ["/hostile/held/killed", null, null, "cancelled", "switched"],
      ]);
      expect(rows.every((row) => (row["state"] === "used") === (row["used_by"] !== null))).toBe(true);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
    const story = await cli("oscar", "show", agent.id);
    for (const words of [
      "APPROVAL asked: PUT /hostile/held/payment",
      "APPROVAL approved by",
      "APPROVAL denied by",
      "APPROVAL cancelled: switched",
      "approved by",
    ])
      expect(story.out).toContain(words);
  });
});
