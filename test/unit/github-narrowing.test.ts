import { describe, expect, it } from "vitest";
import { credential } from "../../src/config/credential.ts";
import { parseEntries } from "../../src/scope/entry.ts";
import { isCovered, narrowToGrant } from "../../src/upstream/credentials/github-narrowing.ts";

const configured = (change: object = {}) => {
  const config = credential.parse({
    kind: "github-app",
    appId: "1",
    installationId: 7,
    account: "acme",
    privateKey: "KEY",
    permissions: [
      { operations: ["GET /repos/{owner}/{repo}/issues"], permission: "issues", access: "read" },
      { operations: ["POST /repos/{owner}/{repo}/issues"], permission: "issues", access: "write" },
      { operations: ["GET /repos/{owner}/{repo}/{+rest}"], permission: "contents", access: "read" },
      { operations: ["GET /orgs/{org}/members"], permission: "members", access: "read" },
    ],
    ...change,
  });
  if (config.kind !== "github-app") throw new Error("another kind");
  return config;
};
const entries = (...sources: readonly object[]) => {
  const parsed = parseEntries(
    sources.map((source) => ({ type: "http", upstream: "github", ...source })),
    "test",
  );
  if (!parsed.ok) throw new Error(parsed.error.message);
  return parsed.value;
};
const ISSUES = "GET /repos/{owner}/{repo}/issues";
const narrow = (grant: readonly object[], change: object = {}) =>
  narrowToGrant(configured(change), "github", entries(...grant));

describe("a grant's repositories and permissions", () => {
  it("are those that its lists name, each once and in one order", () => {
    const grant = [
      { operations: ["POST /repos/{owner}/{repo}/issues"], where: { owner: ["acme"], repo: ["Widgets", "gears"] } },
      { operations: ["GET /repos/acme/{r}/contents"], where: { r: ["gears"] } },
      { operations: ["GET /repos/{owner}/{repo}/issues"], where: { owner: ["ACME"], repo: ["bolts"] } },
    ];
    const narrowed = {
      repositories: ["bolts", "gears", "widgets"],
      permissions: [
        ["contents", "read"],
        ["issues", "write"],
      ],
    };
    expect(narrow(grant)).toEqual({ ok: true, value: narrowed });
    expect(narrow([...grant].reverse())).toEqual({ ok: true, value: narrowed });
  });

  it("count entries of this upstream alone", () => {
    const other = { upstream: "other", operations: ["GET /{+path}"] };
    expect(narrow([other, { operations: ["GET /repos/acme/widgets/issues"] }])).toMatchObject({
      ok: true,
      value: { repositories: ["widgets"] },
    });
    expect(narrow([other])).toEqual({ ok: false, error: "the grant names no repository" });
  });

  it("need none for what lies outside of repositories", () => {
    const grant = [{ operations: ["GET /repos/acme/widgets/issues", "GET /orgs/{org}/members"] }];
    expect(narrow(grant)).toMatchObject({ ok: true, value: { repositories: ["widgets"] } });
  });

  it.each<[what: string, entry: object, error: string]>([
    ["no list of repositories", { operations: [ISSUES], where: { owner: ["acme"] } }, "does not name its repositories"],
    [
      "a prefix",
      { operations: [ISSUES], where: { owner: ["acme"], repo: { prefix: "w" } } },
      "does not name its repositories",
    ],
    [
      "no owner",
      { operations: [ISSUES], where: { repo: ["widgets"] } },
      "does not name the installation's account alone",
    ],
    [
      "another owner besides",
      { operations: [ISSUES], where: { owner: ["acme", "evil"], repo: ["widgets"] } },
      "does not name the installation's account alone",
    ],
    ["any path", { operations: ["GET /{+path}"] }, "may be any repository's"],
    ["any first segment", { operations: ["GET /{a}/{b}/{c}"] }, "may be any repository's"],
    ["the rest of repos", { operations: ["GET /repos/{+path}"] }, "does not name the installation's account alone"],
    [
      "the rest of an owner",
      { operations: ["GET /repos/acme/{+path}"], where: { path: ["widgets"] } },
      "does not name its repositories",
    ],
    ["all repositories of the owner", { operations: ["GET /repos/acme"] }, "does not name its repositories"],
    ["none at all", { operations: ["GET /orgs/{org}/members"] }, "the grant names no repository"],
  ])("%s: refused, unless the configuration lets the token be wide", (_what, entry, error) => {
    const named = { operations: ["GET /orgs/{org}/members"] };
    expect(narrow([named, entry])).toEqual({ ok: false, error: expect.stringContaining(error) });
    expect(narrow([named, entry], { requireNarrowing: false })).toMatchObject({
      ok: true,
      value: { repositories: null, permissions: expect.arrayContaining([["members", "read"]]) },
    });
  });

  it("without any permission are no token, whatever the configuration lets be wide", () => {
    const grant = [{ operations: ["DELETE /repos/acme/widgets/issues"] }];
    for (const requireNarrowing of [true, false])
      expect(narrow(grant, { requireNarrowing })).toEqual({
        ok: false,
        error: "no operation of the grant has a permission in the configuration",
      });
  });

  it("of more repositories than GitHub takes are refused", () => {
    const many = Array.from({ length: 251 }, (_, i) => `r${i}`);
    const two = [many, many.map((name) => `x${name}`)].map((repo) => ({
      operations: [ISSUES],
      where: { owner: ["acme"], repo },
    }));
    expect(narrow(two)).toEqual({ ok: false, error: "the grant names more than 500 repositories" });
  });
});

describe("a call", () => {
  const call = (method: string, path: string) => ({
    upstream: "github",
    method,
    segments: path.slice(1).split("/"),
    query: [],
  });

  it("is covered by a row that holds the whole of the granted operation", () => {
    const grant = entries({
      operations: ["GET /repos/acme/widgets/issues", "GET /repos/acme/widgets/contents/{+path}"],
    });
    expect(isCovered(configured(), call("GET", "/repos/acme/widgets/issues"), grant)).toBe(true);
    expect(isCovered(configured(), call("HEAD", "/repos/acme/widgets/contents/a/b"), grant)).toBe(true);
  });

  it("is not by a row that holds a part of it, nor by none, nor by another upstream's", () => {
    const wide = entries({ operations: ["GET /orgs/{+path}", "DELETE /repos/acme/widgets/issues"] });
    expect(isCovered(configured(), call("GET", "/orgs/acme/members"), wide)).toBe(false);
    expect(isCovered(configured(), call("DELETE", "/repos/acme/widgets/issues"), wide)).toBe(false);
    const other = entries({ upstream: "other", operations: ["GET /repos/acme/widgets/issues"] });
    expect(isCovered(configured(), call("GET", "/repos/acme/widgets/issues"), other)).toBe(false);
  });
});
