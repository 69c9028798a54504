// A human loses a group while the gate runs: what it allowed stops at once, on every way to say so, and everything else goes on.

import { createHash, randomUUID } from "node:crypto";
import { createServer, type Server } from "node:http";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runCommand } from "../../scripts/cli/commands.ts";
import { createIo } from "../../scripts/cli/terminal.ts";
import { humans } from "../../scripts/local/humans.ts";
import { closeServer, listenOnLoopback } from "../../scripts/local/ports.ts";
import { type GateRig, type Instance, startGateRig } from "./gate-rig.ts";
import { type Client, type HumanName, ID_TOKEN, type Members, makeKey, nowSeconds, signCompact } from "./harness.ts";
import { pause } from "./hostile-upstream.ts";
import {
  type Copy,
  type SignedReceipt,
  type Stream,
  serveEndless,
  settledFaults,
  startCopy,
  startStream,
  untilDone,
} from "./kill-rig.ts";

const TOKEN = "a-bearer-token-that-only-the-transmitter-holds";
const CLAIMS_CHANGE = "https://schemas.openid.net/secevent/caep/event-type/token-claims-change";
const KEPT = "/hostile/kept/endless";
const LOST = "/hostile/endless";
const BOTH = ["engineering", "readers"];
const signer = makeKey();

let rig: GateRig;
let copy: Copy;
let server: Server;
let issuer: string;
beforeAll(async () => {
  const keys = [{ ...signer.publicJwk, kid: "ec", alg: "ES256", use: "sig" }];
  server = createServer((_request, response) => void response.end(JSON.stringify({ keys })));
  issuer = `http://127.0.0.1:${await listenOnLoopback(server, 0)}`;
  const tokenDigest = createHash("sha256").update(TOKEN).digest("hex");
  rig = await startGateRig({}, { transmitter: { issuer, jwksUri: `${issuer}/jwks`, tokenDigest } });
  copy = await startCopy(rig);
  serveEndless(rig, "/endless");
  serveEndless(rig, "/kept/endless");
});
afterAll(async () => {
  await copy.close();
  await rig.close();
  await closeServer(server);
});

interface Provisioned extends Instance {
  readonly refresh: string;
}
const READ = [{ type: "http", upstream: "hostile", operations: ["GET /{+path}"] }];
const KEPT_ALONE = [{ type: "http", upstream: "hostile", operations: ["GET /kept/{+path}"] }];

const tokenOf = (human: HumanName, claims: Members = {}, client: Client = "build-platform"): string => {
  const { sub, email } = humans[human];
  return rig.h.idToken({ sub, email, groups: BOTH, aud: rig.h.clientKeys[client].audience, ...claims });
};
const asked = (human: HumanName, claims: Members, scope: readonly unknown[]) => ({
  form: { subject_token: tokenOf(human, claims), authorization_details: JSON.stringify(scope) },
});
async function provision(human: HumanName, claims: Members = {}, scope: readonly unknown[] = READ) {
  const { key, access, refresh } = await rig.h.provision(asked(human, claims, scope));
  return { key, access, refresh, id: key.thumbprint } satisfies Provisioned;
}
const refusal = async (human: HumanName, claims: Members = {}, scope: readonly unknown[] = READ) => {
  const { status, json } = await rig.h.exchange(asked(human, claims, scope));
  return `${status} ${json["error"]}: ${json["error_description"]}`;
};
const EXCEEDS =
  "400 invalid_authorization_details: authorization_details[0]: 'GET /{+path}' exceeds the human's entitlement";

/** Signed in a while ago. */
const EARLIER = () => ({ iat: nowSeconds() - 5 });
const streamsOf = async (who: Instance) => ({
  kept: await startStream(rig, who, KEPT),
  lost: await startStream(rig, who, LOST),
});
async function expectRunning(stream: Stream): Promise<void> {
  const sinceMs = Date.now();
  for (const endMs = sinceMs + 15_000; stream.lastByteAtMs <= sinceMs && Date.now() < endMs; ) await pause(20);
  expect([stream.endedAtMs, stream.lastByteAtMs > sinceMs]).toEqual([0, true]);
}
const statuses = async (who: Instance) =>
  (await Promise.all(["/hostile/kept/now", "/hostile/now"].map((path) => rig.call(who, path)))).map(
    ({ status }) => status,
  );
const groupsPath = (human: string) => `/admin/v1/humans/${encodeURIComponent(human)}/groups`;

describe("a human who loses a group", () => {
  it("by an operator: exactly the streams that nothing allows any more are cut, and the receipt holds", async () => {
    const [hers, other] = [await provision("ada", EARLIER()), await provision("grace", EARLIER())];
    const [streams, others] = [await streamsOf(hers), await streamsOf(other)];
    const outOfScope = await rig.call(await provision("grace", {}, KEPT_ALONE), "/hostile/now");
    const body = { groups: ["readers"], reason: "moved to another team" };
    const { status, json } = await rig.h.asAdmin(groupsPath("ada@acme.example"), { body });
    const receipt = json as unknown as SignedReceipt;
    expect([status, receipt.status, receipt.reached, receipt.cut]).toEqual([201, "done", 1, 1]);
    expect(receipt.switch).toMatchObject({ act: "narrow", reach: "human", groups: ["readers"] });
    expect((await streams.lost.ended)?.isWhole).toBe(false);
    expect(streams.lost.lastByteAtMs).toBeLessThanOrEqual(streams.lost.endedAtMs);
    for (const stream of [streams.kept, others.kept, others.lost]) await expectRunning(stream);
    expect([await statuses(hers), await statuses(other)]).toEqual([
      [200, 404],
      [200, 200],
    ]);
    const heard = await rig.call(hers, "/hostile/now");
    expect(heard.face).toBe(outOfScope.face);

    const { answer } = await rig.recorded(hers, LOST);
    expect(answer).toMatchObject({ outcome: "cut", cause: "narrowed", switch: receipt.switch.id });
    const lines = await rig.records(hers, ({ type }) => type === "refused");
    expect(lines.find(({ type }) => type === "switched")).toMatchObject({ act: "narrow", groups: ["readers"] });
    expect(lines.find(({ type }) => type === "refused")).toMatchObject({ decision: { layer: "entitlement" } });
    expect(await settledFaults(copy, receipt)).toEqual([]);

    // Who comes with the ID token from before is held to it; who signs in anew with all groups is not.
    expect(await refusal("ada", EARLIER())).toBe(EXCEEDS);
    expect(await statuses(await provision("ada", EARLIER(), KEPT_ALONE))).toEqual([200, 404]);
    await pause(1_000 - (Date.now() % 1_000) + 5);
    expect(await statuses(await provision("ada"))).toEqual([200, 200]);
    expect(await statuses(hers)).toEqual([200, 404]);
    for (const who of [hers, other]) await rig.h.kill(who.id);
  });

  it("by a security event; one that does not name groups does nothing", async () => {
    const hers = await provision("grace", EARLIER());
    const { kept, lost } = await streamsOf(hers);
    const push = async (claims: unknown, at: Members = {}) => {
      const set = signCompact(
        signer,
        { alg: "ES256", typ: "secevent+jwt", kid: "ec" },
        {
          iss: issuer,
          aud: "portcullis-signals",
          jti: randomUUID(),
          iat: nowSeconds(),
          sub_id: { format: "iss_sub", iss: rig.h.idp.issuer, sub: humans.grace.sub },
          events: { [CLAIMS_CHANGE]: { claims, ...at } },
        },
      );
      const headers = { authorization: `Bearer ${TOKEN}`, "content-type": "application/secevent+jwt" };
      const { status, json } = await rig.h.send("/ssf/events/corp-signals", { method: "POST", headers, body: set });
      return status === 202 ? "202" : `${status} ${json["err"]}: ${json["description"]}`;
    };
    expect(await push({ role: "lead" })).toBe("202");
    expect(await push({ groups: "readers" })).toMatch(
      /^400 invalid_request: token-claims-change: claims\.groups is not/,
    );
    expect(await push({ groups: ["readers"] }, { event_timestamp: nowSeconds() - 3_600 })).toBe("202");
    await expectRunning(lost);
    expect(await push({ groups: ["readers", "a-group-of-no-concern"] })).toBe("202");
    expect((await lost.ended)?.isWhole).toBe(false);
    await expectRunning(kept);
    expect(await statuses(hers)).toEqual([200, 404]);
    const [switched] = (await rig.records(hers, ({ type }) => type === "switched")).filter(
      ({ type }) => type === "switched",
    );
    // A group that entitles to nothing has no place in a record.
    expect(switched).toMatchObject({ act: "narrow", groups: ["readers"], by: "transmitter:corp-signals" });
    await rig.h.kill(hers.id);
  });

  it("by a newer ID token beside a renewal, of the platform that provisioned and of nobody else", async () => {
    const hers = await provision("olga", { iat: nowSeconds() - 30 });
    const { kept, lost } = await streamsOf(hers);
    const renew = async (
      form: Readonly<Record<string, string | undefined>>,
      client: Client | null = "build-platform",
    ) => {
      const { status, json } = await rig.h.post(
        "/oauth/token",
        {
          grant_type: "refresh_token",
          refresh_token: hers.refresh,
          ...(client === null ? {} : rig.h.clientForm(client)),
          subject_token_type: ID_TOKEN,
          ...form,
        },
        { DPoP: rig.h.proof(hers.key) },
      );
      return status === 200 ? "200" : `${status} ${json["error"]}: ${json["error_description"]}`;
    };
    const narrower = tokenOf("olga", { groups: ["readers"], iat: nowSeconds() - 10 });
    expect(await renew({ subject_token: narrower }, null)).toBe("401 invalid_client: client authentication failed");
    expect(await renew({ subject_token: undefined })).toBe("400 invalid_request: subject_token is missing");
    expect(await renew({ subject_token: narrower, subject_token_type: undefined })).toBe(
      "400 invalid_request: subject_token_type must be that of an id_token",
    );
    const others = tokenOf("olga", { groups: ["readers"] }, "other-platform");
    expect(await renew({ subject_token: others }, "other-platform")).toBe(
      "400 unauthorized_client: the refresh token was issued to another client",
    );
    expect(await renew({ subject_token: others })).toBe("400 invalid_request: subject_token: aud is another client");
    expect(await renew({ subject_token: tokenOf("grace", { groups: [] }) })).toBe(
      "400 invalid_request: subject_token: it is of another human",
    );
    expect(await renew({ subject_token: tokenOf("olga", { groups: [], iat: nowSeconds() - 40 }) })).toBe(
      "400 invalid_request: subject_token: it is not newer than the one that the instance was enrolled on",
    );
    expect(await renew({ subject_token: tokenOf("olga", { groups: [], iat: nowSeconds() - 100_000 }) })).toBe(
      "400 invalid_request: subject_token: iat is longer ago than maxTokenAgeSeconds",
    );
    // More groups change nothing, and neither does a renewal without a token.
    expect(
      await renew({ subject_token: tokenOf("olga", { groups: [...BOTH, "support"], iat: nowSeconds() - 11 }) }),
    ).toBe("200");
    expect((await rig.h.renew(hers.key, hers.refresh)).status).toBe(200);
    await expectRunning(lost);
    expect(await renew({ subject_token: narrower })).toBe("200");
    expect((await lost.ended)?.isWhole).toBe(false);
    await expectRunning(kept);
    expect(await statuses(hers)).toEqual([200, 404]);
    expect(await renew({ subject_token: tokenOf("olga") })).toBe("200");
    expect(await statuses(hers)).toEqual([200, 404]);
    expect((await rig.h.introspect(hers.access)).json).toMatchObject({ active: true, groups: ["readers"] });
    const switched = (await rig.records(hers, ({ type }) => type === "switched")).filter(
      ({ type }) => type === "switched",
    );
    expect(switched).toMatchObject([
      { act: "narrow", by: "platform:build-platform", causedBy: { kind: "renewal", client: "build-platform" } },
    ]);
    await rig.h.kill(hers.id);
  });

  it("by the command line, in words", async () => {
    const hers = await provision("oscar", EARLIER());
    const { sub, email, groups } = humans.oscar;
    const token = rig.h.idToken({ sub, email, groups, aud: "portcullis-admin" });
    const portcullis = async (...args: string[]) => {
      const [out, err]: [string[], string[]] = [[], []];
      const write = (to: string[]) => ({ write: (text: string) => to.push(text) });
      const env = { XDG_CONFIG_HOME: "/nonexistent", PORTCULLIS_GATE: rig.origin, PORTCULLIS_TOKEN: token };
      const code = await runCommand(args, createIo(write(out), write(err), env));
      return { code, out: out.join(""), err: err.join("") };
    };
    const narrow = ["narrow", "human", email, "--groups", "readers"];
    expect(await portcullis(...narrow)).toMatchObject({ code: 2, err: expect.stringContaining("it needs its reason") });
    expect(await portcullis("narrow", "task", "x", "--groups", "")).toMatchObject({
      code: 2,
      err: expect.stringContaining("narrow whom? human <id or e-mail address>"),
    });
    expect(await portcullis("narrow", "human", email, "--groups", "raeders", "--reason", "r")).toMatchObject({
      code: 2,
      err: expect.stringContaining('groups.0: no group "raeders" under entitlements.groups'),
    });
    const narrowed = await portcullis(...narrow, "--reason", "moved", "--json");
    expect(narrowed.code).toBe(0);
    const { id } = (JSON.parse(narrowed.out) as SignedReceipt).switch;
    await untilDone(rig, id);
    const shown = await portcullis("switch", id);
    expect(shown.out).toMatch(/^Narrowed: human [\w-]{43}\n/);
    expect(shown.out).toContain("groups that are left: readers\n");
    expect(await statuses(hers)).toEqual([200, 404]);
    const listed = await portcullis("ps", "--human", email);
    expect(listed.out).toMatch(new RegExp(`^${hers.id} +live, narrowed `, "m"));
    await rig.records(hers, ({ type }) => type === "refused");
    const story = await portcullis("show", hers.id);
    expect(story.out).toMatch(/NARROWED: of the human's groups, only readers from here on, by [\w-]{43}: moved/);
    expect(story.out).toMatch(/REFUSED GET \/hostile\/now .*entitlement: .*since the human lost a group/);
    await rig.h.kill(hers.id);
  });
});
