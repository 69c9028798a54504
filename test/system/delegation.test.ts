// What an upstream that wants it is told of who acts for whom: read off its own socket, and verified as it would, with plain jose and the
// keys that the gate publishes.

import { createRemoteJWKSet, type JWTVerifyResult, jwtVerify } from "jose";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type GateRig, startGateRig } from "./gate-rig.ts";
import { makeKey, nowSeconds, signCompact } from "./harness.ts";
import type { Seen } from "./hostile-upstream.ts";

const HEADER = "x-acting-for";
const AUDIENCE = "https://saas.example/api";

let rig: GateRig;
let verify: (token: string) => Promise<JWTVerifyResult>;
beforeAll(async () => {
  rig = await startGateRig({
    delegation: { header: "X-Acting-For", audience: AUDIENCE },
    forwardHeaders: ["x-custom"],
  });
  const keys = createRemoteJWKSet(new URL(`${rig.origin}/.well-known/jwks.json`));
  const expected = {
    issuer: rig.origin,
    audience: AUDIENCE,
    typ: "portcullis-delegation+jwt",
    algorithms: ["Ed25519"],
  };
  verify = (token) => jwtVerify(token, keys, expected);
  // An upstream that takes nobody's word but the gate's.
  rig.upstream.on("/guarded", (request, answer) => {
    request.resume();
    const said = request.headers[HEADER];
    verify(typeof said === "string" ? said : "").then(
      ({ payload }) => answer.end(JSON.stringify({ hello: payload.sub })),
      () => answer.writeHead(403).end("{}"),
    );
  });
});
afterAll(() => rig.close());

const saidIn = ({ headers }: Seen): string => headers[HEADER] as string;

describe("a call to an upstream that wants to know", () => {
  it("carries who acts, for whom and under which task, and the record names it by its claims alone", async () => {
    const who = await rig.provision();
    expect((await rig.call(who, "/hostile/told")).status).toBe(200);
    const token = saidIn(await rig.upstream.until("/told"));
    const { payload, protectedHeader } = await verify(token);
    const { call } = await rig.recorded(who, "/hostile/told");
    expect(protectedHeader.alg).toBe("Ed25519");
    expect(payload).toEqual({
      iss: rig.origin,
      aud: AUDIENCE,
      sub: call["human"],
      act: {
        sub: who.id,
        agent: "triage-bot",
        agent_version: "1.4.0",
        client_id: "build-platform",
      },
      task: "build-platform_t-1",
      txn: `${who.id}:${call.seq}`,
      jti: expect.any(String),
      iat: expect.any(Number),
      exp: payload.iat! + 60,
    });
    expect(call["delegation"]).toEqual({ jti: payload.jti, aud: AUDIENCE });
    expect(call["headers"]).not.toContainEqual([HEADER, expect.anything()]);
  });

  it("is refused there with an agent's own word; and through the gate no such word gets there", async () => {
    const forger = makeKey("Ed25519");
    const now = nowSeconds();
    const claims = { iss: rig.origin, aud: AUDIENCE, sub: "the-boss", iat: now, exp: now + 60, txn: "t", jti: "j" };
    const forged = signCompact(forger, { alg: "Ed25519", typ: "portcullis-delegation+jwt", kid: "k" }, claims);
    // Around the gate: the upstream sees through it.
    const direct = await fetch(`${rig.upstream.baseUrl}/guarded`, { headers: { [HEADER]: forged } });
    expect(direct.status).toBe(403);
    // By the gate: what arrives is the gate's word, whatever the agent said, and in whatever spelling.
    const who = await rig.provision();
    const spellings = [
      "X-Acting-For",
      "x-acting-for",
      "X_Acting_For",
      "Portcullis-Delegation",
      "Txn-Token",
      "X-On-Behalf-Of",
    ];
    for (const name of spellings) {
      const before = rig.upstream.requests("/guarded").length;
      const { status, body } = await rig.call(who, "/hostile/guarded", {
        headers: { [name]: forged, "x-custom": "mine", connection: `close, ${name}` },
      });
      expect(status, name).toBe(200);
      const seen = rig.upstream.requests("/guarded")[before]!;
      expect(JSON.parse(body.toString()).hello, name).not.toBe("the-boss");
      expect(seen.rawHeaders.join("\n"), name).not.toContain(forged);
      expect(seen.headers["x-custom"]).toBe("mine");
    }
  });

  it("never says it to the agent, nor to the record, though the upstream gives it back", async () => {
    rig.upstream.on("/echo", (request, answer) => {
      request.resume();
      const token = request.headers[HEADER] as string;
      answer.writeHead(request.url?.includes("401") ? 401 : 302, {
        "X-Acting-For": token,
        "X-Debug": `you said ${token}`,
        Location: `${rig.upstream.baseUrl}/next?t=${token}`,
        Link: `<${rig.upstream.baseUrl}/next?t=${token}>; rel="next"`,
        "X-Harmless": "yes",
      });
      answer.end();
    });
    const who = await rig.provision();
    for (const target of ["/hostile/echo", "/hostile/echo?401"]) {
      const before = rig.upstream.requests("/echo").length;
      const heard = await rig.call(who, target);
      const token = saidIn(rig.upstream.requests("/echo")[before]!);
      expect(heard.face).not.toContain(token);
      const { answer, lines } = await rig.recorded(who, target);
      expect(JSON.stringify(answer["headers"])).toContain("x-harmless");
      expect(JSON.stringify(lines)).not.toContain(token);
    }
  });

  it("carries another with every call; and what it carries opens nothing here", async () => {
    const who = await rig.provision();
    for (let i = 0; i < 2; i++) await rig.call(who, "/hostile/twice");
    const tokens = rig.upstream.requests("/twice").map(saidIn);
    expect(new Set(tokens).size).toBe(2);
    const [token] = tokens as [string];
    expect((await rig.h.call(makeKey(), token, "/hostile/twice")).status).toBe(401);
    const asSubject = await rig.h.exchange({ form: { subject_token: token } });
    expect(asSubject.json["error_description"]).toBe("subject_token: typ is of another kind of token");
    expect((await rig.h.introspect(token)).json).toEqual({ active: false });
  });
});
