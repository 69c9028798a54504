import { expect, it, describe as suite } from "vitest";
import { authorizeBody, authorizeHead, describe, describeWhole, findTooLarge } from "../../src/gate/authorize.ts";
import { parseTarget } from "../../src/gate/target.ts";
import type { Json } from "../../src/scope/call.ts";
import { type Entry, parseEntry } from "../../src/scope/entry.ts";
import config, { ORIGIN } from "../workerd/config.ts";

const entry = (where: Json = {}): Entry => {
  const parsed = parseEntry({ type: "http", upstream: "github", operations: ["POST /{+path}"], where }, "e");
  if (!parsed.ok) throw new Error(parsed.error.message);
  return parsed.value;
};
const held = (...entries: readonly Entry[]) => ({ audiences: [`${ORIGIN}/github`], entries });
const head = (headers: Record<string, string> = { "content-type": "application/json" }, path = "/github/a?q=1") => ({
  target: parseTarget(ORIGIN + path),
  method: "POST",
  headers: new Headers(headers),
});
const bytes = (text: string) => new TextEncoder().encode(text);
const OF_BODY = { "body./a": [1] };
const OF_QUERY = { "query.q": ["1"] };

suite("what rules want to know of a call", () => {
  /** A configuration object of its own: what was answered for another is not asked again. */
  const rulesIn = (layers: object, grant = held(entry()), hasBody = true) => {
    const described = describe(head(), hasBody, grant, { ...config, ...layers });
    return described.ok ? described.value.rules : described.error;
  };
  const agent = { ...config.agents["triage-bot"]!, ceiling: [entry(OF_BODY)] };

  it("is nothing, where nobody speaks of query or body", () =>
    expect(rulesIn({})).toEqual({ query: false, body: false }));
  it.each<[layer: string, layers: object]>([
    ["boundaries", { boundaries: [entry(OF_BODY)] }],
    ["an agent's ceiling", { agents: { "triage-bot": agent } }],
    ["an entitlement", { entitlements: { groups: { nobody: [entry(OF_BODY)] } } }],
  ])("is the body, where %s speak of it", (_layer, layers) =>
    expect(rulesIn(layers)).toEqual({ query: false, body: true }));
  it("is what the grant speaks of, too, and nothing where there is no body", () => {
    expect(rulesIn({}, held(entry(OF_QUERY)))).toEqual({ query: true, body: false });
    expect(rulesIn({ boundaries: [entry(OF_BODY)] }, held(entry(OF_BODY)), false)).toEqual({
      query: false,
      body: false,
    });
  });
});

suite("a grant that speaks of the body", () => {
  const grant = held(entry({ ...OF_BODY, ...OF_QUERY }));
  const judge = (body: Uint8Array | null, asked = head()) => {
    const path = authorizeHead(asked, true, grant, config);
    return path.ok ? authorizeBody(asked, body, grant, path.value) : path;
  };

  it("is asked again when the body is known", () => {
    expect(judge(bytes('{"a":1}'))).toMatchObject({ ok: true, value: { permit: { entry: 0 } } });
    expect(judge(bytes('{"a":2}'))).toMatchObject({ ok: false, error: { layer: "grant" } });
  });
  it("refuses by the head what no body makes right", () =>
    expect(authorizeHead(head({}, "/github/a?q=2"), true, grant, config)).toMatchObject({ error: { layer: "grant" } }));
  it("refuses a body that is not read to its end, or in two ways", () => {
    for (const body of [null, bytes('{"a":1,"a":2}')])
      expect(judge(body)).toMatchObject({ ok: false, error: { layer: "describe" } });
  });
});

suite("route", () => {
  it("leads nowhere but where the grant's aud is", () => {
    expect(describe(head(), false, { audiences: [], entries: [entry()] }, config)).toMatchObject({
      error: { layer: "route", reason: "not in the grant's aud" },
    });
    for (const path of ["/nowhere/a", "/constructor/a"])
      expect(describe(head({}, path), false, held(entry()), config)).toMatchObject({
        error: { reason: "no such upstream" },
      });
  });
  it("says when a body is too large for it", () => {
    const described = describe(head(), true, held(entry()), config);
    if (!described.ok) throw new Error("not described");
    const { route } = described.value;
    expect(findTooLarge(route.config.maxRequestBytes, route)).toBeUndefined();
    expect(findTooLarge(route.config.maxRequestBytes + 1, route)).toMatchObject({ kind: "too-large" });
    expect(describeWhole(head(), bytes("{}"), described.value)).toMatchObject({ value: { body: { kind: "opaque" } } });
  });
});
