// The door where humans approve in advance, and what a platform can make of it: by HTTP, with real tokens, and a call that runs under a
// mandate when it is revoked.

import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { runCommand } from "../../scripts/cli/commands.ts";
import { createIo } from "../../scripts/cli/terminal.ts";
import { humans } from "../../scripts/local/humans.ts";
import { ANYTHING, type GateRig, startGateRig } from "./gate-rig.ts";
import { type Answer, DETAILS, type HumanName, type Members, makeKey, nowSeconds } from "./harness.ts";
import { serveEndless, startStream, untilDone } from "./kill-rig.ts";

const MANDATES = "/mandates/v1/mandates";
const MANDATE = "urn:portcullis:params:oauth:token-type:mandate";
const AUDIENCE = "portcullis-mandates";

let rig: GateRig;
beforeAll(async () => {
  rig = await startGateRig({}, { mandates: { audience: AUDIENCE, tokenMaxAgeSeconds: 300, longestSeconds: 86_400 } });
});
afterAll(() => rig.close());

const tokenOf = (human: HumanName = "ada", claims: Members = {}): string => {
  const { sub, email, groups } = humans[human];
  return rig.h.idToken({ sub, email, groups, aud: AUDIENCE, ...claims });
};
const asHuman = (path: string, init: { method?: string; body?: unknown; token?: string | null } = {}) => {
  const { token = tokenOf() } = init;
  return rig.h.send(path, {
    method: init.method ?? (init.body === undefined ? "GET" : "POST"),
    headers: token === null ? {} : { authorization: `Bearer ${token}` },
    ...(init.body === undefined ? {} : { body: typeof init.body === "string" ? init.body : JSON.stringify(init.body) }),
  });
};
const terms = (change: Members = {}) => ({
  agent: "triage-bot",
  platform: "build-platform",
  authorization_details: DETAILS,
  purpose: "to look after the queue at night",
  expiresAtMs: Date.now() + 3_600_000,
  taskSeconds: 900,
  ...change,
});
async function approve(change: Members = {}): Promise<{ id: string; token: string; json: Members }> {
  const { status, json, text } = await asHuman(MANDATES, { body: terms(change) });
  if (status !== 201) throw new Error(`not approved: ${status} ${text}`);
  return { id: json["id"] as string, token: json["token"] as string, json };
}
const use = (token: string, form: Members = {}, more: Partial<Parameters<GateRig["h"]["exchange"]>[0]> = {}) =>
  rig.h.exchange({
    ...more,
    form: { subject_token: token, subject_token_type: MANDATE, purpose: undefined, ...form } as never,
  });
const said = ({ json }: Answer): string => `${json["error"]}: ${json["error_description"]}`;

describe("who may approve", () => {
  it.each<[name: string, token: () => string | null]>([
    ["nobody", () => null],
    ["who holds the platform's token of the human", () => rig.h.idToken()],
    ["an admin", () => rig.h.idToken({ aud: "portcullis-admin", groups: ["security-oncall"] })],
    ["who has a token for two doors", () => tokenOf("ada", { aud: [AUDIENCE, "build-platform-app"] })],
    ["who signed in too long ago", () => tokenOf("ada", { iat: nowSeconds() - 300 })],
    ["whose token has expired", () => tokenOf("ada", { exp: nowSeconds() - 61 })],
    ["who holds a grant", () => rig.h.grant(makeKey())],
    ["who made the token up", () => rig.h.idToken({ aud: AUDIENCE }, {}, makeKey())],
  ])("not %s", async (_name, token) => {
    for (const init of [{ body: terms() }, {}, { method: "DELETE", body: { reason: "r" } }]) {
      const { status, headers } = await asHuman(init.method === "DELETE" ? `${MANDATES}/x` : MANDATES, {
        ...init,
        token: token(),
      });
      expect([status, headers.get("www-authenticate")]).toEqual([401, "Bearer"]);
    }
  });

  it("not more than they may do themselves: the layer and the entry are named", async () => {
    const detail = async (body: Members, token = tokenOf()) =>
      (await asHuman(MANDATES, { body, token })).json["detail"];
    const second = (operations: string[], repo = "widgets") => [
      ...DETAILS,
      { type: "http", upstream: "github", operations, where: { owner: ["acme"], repo: [repo] } },
    ];
    expect(await detail(terms({ authorization_details: second(["GET /repos/{owner}/{repo}"], "helpdesk") }))).toBe(
      `authorization_details[1]: "GET /repos/{owner}/{repo}" exceeds the human's entitlement`,
    );
    expect(await detail(terms(), tokenOf("ada", { groups: undefined }))).toMatch(
      /^authorization_details\[0\]: ".*" exceeds the human's entitlement$/,
    );
    expect(await detail(terms({ authorization_details: second(["DELETE /repos/{owner}/{repo}"]) }))).toMatch(
      /^authorization_details\[1\]: "DELETE .*" exceeds /,
    );
  });

  it.each<[change: Members, detail: RegExp]>([
    [{ platform: "nobody" }, /^platform: no platform "nobody"/],
    [{ agent: "other-bot" }, /^agent: build-platform does not provision "other-bot"/],
    [{ authorization_details: [] }, /^authorization_details: /],
    [{ authorization_details: [{ type: "x" }] }, /^authorization_details\[0\]\.type: /],
    [{ purpose: " " }, /^purpose: /],
    [{ expiresAtMs: 1 }, /^expiresAtMs: it is over already \(in milliseconds since 1970\)/],
    [{ expiresAtMs: Date.now() + 90_000_000 }, /^expiresAtMs: later than 86400 seconds/],
    [{ notBeforeMs: Date.now() + 7_200_000 }, /^expiresAtMs: not later than notBeforeMs/],
    [{ taskSeconds: 0 }, /^taskSeconds: /],
    [{ taskSeconds: 86_401 }, /^taskSeconds: this gate allows 86400/],
    [{ schedule: { timeZone: "Mars/Olympus" } }, /^schedule\.timeZone: /],
    [{ maxUses: 0 }, /^maxUses: /],
    [{ limits: { calls: 1.5 } }, /^limits\.calls: /],
    [{ human: "another" }, /human/],
  ])("nothing malformed: %j", async (change, detail) => {
    const { status, json } = await asHuman(MANDATES, { body: terms(change) });
    expect([status, json["detail"]]).toEqual([400, expect.stringMatching(detail)]);
  });
});

describe("a mandate", () => {
  it("is its human's own: nobody else sees or ends it", async () => {
    const { id } = await approve();
    const mine = (await asHuman(MANDATES)).json["mandates"] as Members[];
    expect(mine[0]).toMatchObject({ id, uses: 0, revoked: null });
    expect(mine[0]).not.toHaveProperty("token");
    const token = tokenOf("grace");
    expect((await asHuman(MANDATES, { token })).json["mandates"]).toEqual([]);
    expect((await asHuman(`${MANDATES}/${id}`, { token })).status).toBe(404);
    const body = { reason: "not mine" };
    expect((await asHuman(`${MANDATES}/${id}`, { method: "DELETE", body, token })).status).toBe(404);
    expect((await asHuman(`${MANDATES}/${id}`)).json).toMatchObject({ revoked: null, token: expect.any(String) });
  });

  it("gives its platform a grant that works and can be renewed, and no other client anything", async () => {
    const { id, token } = await approve();
    const key = makeKey();
    const { status, json } = await use(token, {}, { key });
    expect(status).toBe(200);
    expect((await rig.h.call(key, json["access_token"] as string)).status).toBe(502);
    expect((await rig.h.renew(key, json["refresh_token"] as string)).status).toBe(200);
    const who = { key, access: json["access_token"] as string, id: key.thumbprint };
    const all = await rig.records(who, ({ type }) => type === "call");
    const lines = all.filter(({ type }) => type !== "seal");
    expect(lines.map(({ mandate }) => mandate)).toEqual(lines.map(() => id));
    // What it is not: a human's ID token, a grant, a renewal; and by nobody who does not authenticate.
    const asIdToken = await rig.h.exchange({ form: { subject_token: token } });
    expect(said(asIdToken)).toBe("invalid_request: subject_token: typ is of another kind of token");
    expect((await rig.h.call(makeKey(), token)).status).toBe(401);
    expect((await rig.h.renew(key, token)).json["error"]).toBe("invalid_grant");
    expect((await use(token, { client_assertion: undefined })).json["error"]).toBe("invalid_client");
    const idToken = await use(rig.h.idToken());
    expect(said(idToken)).toBe("invalid_request: subject_token: typ is not 'portcullis-mandate+jwt'");
  });

  it("of which ten exchanges come at once for three uses gives three grants", async () => {
    const { token } = await approve({ maxUses: 3 });
    const answers = await Promise.all(Array.from({ length: 10 }, () => use(token)));
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(3);
    for (const answer of answers.filter(({ status }) => status !== 200))
      expect(said(answer)).toBe("invalid_request: subject_token: the mandate: its uses are spent");
  });

  it("that is revoked cuts the stream that runs under it, by a switch with a receipt", async () => {
    serveEndless(rig, "/nightly");
    const { id, token } = await approve({ authorization_details: [ANYTHING] });
    const key = makeKey();
    const { json } = await use(token, { authorization_details: JSON.stringify([ANYTHING]) }, { key });
    const who = { key, access: json["access_token"] as string, id: key.thumbprint };
    const stream = await startStream(rig, who, "/hostile/nightly");
    const body = { reason: "I don't want it any more" };
    const { json: revoked, status } = await asHuman(`${MANDATES}/${id}`, { method: "DELETE", body });
    expect(status).toBe(200);
    const { switch: sw, by } = revoked["revoked"] as { switch: string; by: string };
    const heard = await stream.ended;
    expect(heard?.isWhole ?? false).toBe(false);
    const receipt = await untilDone(rig, sw);
    expect(receipt).toMatchObject({
      reached: 1,
      cut: 1,
      switch: { reach: "mandate", target: { mandate: id }, act: "kill", by, reason: body.reason },
    });
    expect(said(await use(token))).toBe("invalid_request: subject_token: the mandate: revoked");
    expect((await asHuman(`${MANDATES}/${id}`)).json["token"]).toBeNull();
    const deeds = await rig.h.journal("admin", (line) => line["mandate"] === id, 2);
    expect(deeds.map(({ deed }) => deed)).toEqual(["approve mandate", "revoke mandate"]);
    // Of the human no more than the id.
    expect(JSON.stringify(deeds)).not.toContain(humans.ada.email);
  });

  it("is listed and revoked by an operator at the command line", async () => {
    const { id, token: mandate } = await approve({ maxUses: 4 });
    const key = makeKey();
    expect((await use(mandate, {}, { key })).status).toBe(200);
    const { sub, email, groups } = humans.oscar;
    const token = rig.h.idToken({ sub, email, groups, aud: "portcullis-admin" });
    const run = async (...args: string[]) => {
      const said: string[] = [];
      const io = createIo(
        { write: (text) => said.push(text) },
        { write: (text) => said.push(text) },
        {
          PORTCULLIS_TOKEN: token,
        },
      );
      const code = await runCommand([...args, "--gate", rig.origin], io);
      return { code, said: said.join("") };
    };
    const listed = await run("mandates");
    expect(listed.said).toMatch(new RegExp(`${id}\\s+stands\\s.*triage-bot by build-platform\\s+1/4\\s`));
    expect((await run("show", key.thumbprint)).said).toMatch(new RegExp(`^mandate {3}${id}$`, "m"));
    const revoked = await run("revoke-mandate", id, "--reason", "not at night");
    expect(revoked).toEqual({
      code: 0,
      // It was used: what works under it is stopped.
      said: expect.stringMatching(/^Revoked: mandate .*\n {2}switch \S+\n$/),
    });
    expect((await run("mandates")).said).not.toContain(id);
    expect((await run("mandates", "--all")).said).toMatch(new RegExp(`${id}\\s+revoked`));
    expect(await run("revoke-mandate", randomUUID(), "--reason", "r")).toMatchObject({ code: 1 });
  });

  it("ends with its human: killed by an operator, and lifted again, it gives nothing", async () => {
    const { token, json } = await approve();
    const target = { human: json["human"] };
    const killed = await rig.h.asAdmin("/admin/v1/switches", {
      body: { act: "kill", reach: "human", target, reason: "left us" },
    });
    const stopped = "invalid_request: subject_token: the mandate: its human was stopped since";
    expect(said(await use(token))).toBe(stopped);
    const { id } = killed.json["switch"] as { id: string };
    await rig.h.asAdmin(`/admin/v1/switches/${id}/lift`, { body: { reason: "came back" } });
    expect(said(await use(token))).toBe(stopped);
    // Who had signed in before approves nothing.
    const before = tokenOf("ada", { iat: nowSeconds() - 60 });
    const late = await asHuman(MANDATES, { body: terms(), token: before });
    expect([late.status, late.json["detail"]]).toEqual([403, expect.stringMatching(/sign in anew/)]);
  });
});

describe("the door", () => {
  it("has no other paths", async () => {
    expect((await asHuman(`/mandates/v1/${randomUUID()}`)).status).toBe(404);
  });
});
