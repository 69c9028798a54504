// The organisation around the gate, tested by itself: where the tour says "the upstream saw", these are the eyes.

import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer as createHttpServer, type RequestListener, request, type Server } from "node:http";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Octokit } from "@octokit/rest";
import { createRemoteJWKSet, decodeJwt, decodeProtectedHeader, jwtVerify } from "jose";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { githubBot, githubIssueCount, githubStranger, startGitHub } from "../../scripts/local/github.ts";
import { humans } from "../../scripts/local/humans.ts";
import { type IdentityProvider, startIdentityProvider } from "../../scripts/local/identity-provider.ts";
import { modelName, quickAnswer, quickPrompt, slowAnswer, slowPrompt, startModel } from "../../scripts/local/model.ts";
import { choosePort, closeServer, listenOnLoopback, PortTakenError } from "../../scripts/local/ports.ts";
import { type RecordedUpstream, type Recorder, startRecorder } from "../../scripts/local/recorder.ts";
import { type LocalSecrets, loadSecrets } from "../../scripts/local/secrets.ts";
import { slackBot, slackGeneral, startSlack } from "../../scripts/local/slack.ts";

let dir: string;
let secrets: LocalSecrets;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "portcullis-local-"));
  secrets = await loadSecrets(dir);
});

afterAll(() => rm(dir, { recursive: true, force: true }));

describe("secrets", () => {
  it("are made once, for their owner only, and read back the same", async () => {
    const names = ["break-glass.key", "secrets.json"];
    for (const name of names) expect((await stat(join(dir, name))).mode & 0o777).toBe(0o600);
    expect(await readdir(dir)).toEqual(names);
    expect(secrets.breakGlassKey).toMatch(/^pbg_[A-Za-z0-9_-]{43}$/);
    expect(await loadSecrets(dir)).toEqual(secrets);
  });

  it("are the same for two first runs at once", async () => {
    const fresh = await mkdtemp(join(dir, "race-"));
    const runs = await Promise.all([loadSecrets(fresh), loadSecrets(fresh), loadSecrets(fresh)]);
    expect(new Set(runs.map((run) => JSON.stringify(run))).size).toBe(1);
    await rm(fresh, { recursive: true });
  });

  it("of older files, whose seal key is Ed25519, are taken as they are", async () => {
    const old = await mkdtemp(join(dir, "old-"));
    const { breakGlassKey: _, ...file } = secrets;
    await writeFile(join(old, "secrets.json"), JSON.stringify({ ...file, sealKeys: secrets.grantKeys }));
    expect(secrets.sealKeys.keys[0]?.alg).toBe("ES256");
    expect((await loadSecrets(old)).sealKeys.keys[0]?.alg).toBe("Ed25519");
    await rm(old, { recursive: true });
  });

  it.each([
    ["a cut file", (text: string) => text.slice(0, 200), /is not JSON/],
    ["a missing key", (text: string) => text.replace('"sealKeys"', '"sealsKeys"'), /sealKeys/],
    ["a missing token", (text: string) => text.replace(/"ghp_[^"]*"/, '""'), /githubToken/],
    [
      "another key's kid",
      (text: string) => text.replace(secrets.grantKeys.keys[0]?.kid ?? "", secrets.identityProviderKey.kid),
      /is not its key's thumbprint/,
    ],
    [
      "another key's private half",
      (text: string) => text.replace(secrets.platformClientKey.d, secrets.identityProviderKey.d),
      /does not verify its own signature/,
    ],
  ])("are refused with the reason: %s", async (_name, spoil, reason) => {
    const spoilt = await mkdtemp(join(dir, "spoilt-"));
    await writeFile(join(spoilt, "secrets.json"), spoil(await readFile(join(dir, "secrets.json"), "utf8")));
    await chmod(join(spoilt, "secrets.json"), 0o600);
    const failure = await loadSecrets(spoilt).then(
      () => undefined,
      (error: Error) => error.message,
    );
    expect(failure).toMatch(reason);
    expect(failure).toContain(join(spoilt, "secrets.json"));
    await rm(spoilt, { recursive: true });
  });
});

describe("ports", () => {
  it("gives the preferred port if free, else another, and a taken one has a name", async () => {
    const free = await choosePort(0);
    expect(await choosePort(free)).toBe(free);
    const squatter = createServer();
    await listenOnLoopback(squatter, free);
    try {
      expect(await choosePort(free)).not.toBe(free);
      await expect(listenOnLoopback(createServer(), free)).rejects.toThrow(PortTakenError);
    } finally {
      await new Promise((resolve) => squatter.close(resolve));
    }
  });
});

describe("identity provider", () => {
  let idp: IdentityProvider;
  const warnings: unknown[] = [];

  beforeAll(async () => {
    const { warn, info } = console;
    console.warn = console.info = (...line) => void warnings.push(line);
    idp = await startIdentityProvider({ signingKey: secrets.identityProviderKey });
    await idp.signIn("ada", "build-platform-app");
    Object.assign(console, { warn, info });
  });
  afterAll(() => idp.close());

  it.each([
    ["ada", "build-platform-app"],
    ["grace", "build-platform-app"],
    ["oscar", "portcullis-admin"],
    ["ada", "other-app"],
  ] as const)("signs %s in to %s with a verifiable ID token", async (human, client) => {
    const token = await idp.signIn(human, client);
    const { payload, protectedHeader } = await jwtVerify(token, createRemoteJWKSet(new URL(idp.jwksUri)), {
      issuer: idp.issuer,
      audience: client,
      algorithms: ["ES256"],
    });
    const { sub, email, groups } = humans[human];
    expect(payload).toMatchObject({ sub, aud: client, email, groups });
    expect((payload.exp ?? 0) - (payload.iat ?? 0)).toBe(3600);
    expect(protectedHeader.kid).toBe(secrets.identityProviderKey.kid);
  });

  it("is asked for a human's token by hand: the platform's, or that of another client", async () => {
    const script = fileURLToPath(new URL("../../scripts/local/id-token.ts", import.meta.url));
    const print = async (...named: string[]) =>
      (await promisify(execFile)(process.execPath, [script, idp.issuer, "ada", ...named])).stdout.trim();
    expect(decodeJwt(await print()).aud).toBe("build-platform-app");
    expect(decodeJwt(await print("portcullis-mandates")).aud).toBe("portcullis-mandates");
    await expect(print("portcullis")).rejects.toThrow(/portcullis is no client here: .*portcullis-mandates/);
  });

  it("publishes what a gate discovers, and no private half", async () => {
    const metadata = await (await fetch(`${idp.issuer}/.well-known/openid-configuration`)).json();
    expect(metadata).toMatchObject({ issuer: idp.issuer, jwks_uri: idp.jwksUri });
    expect(await (await fetch(idp.jwksUri)).text()).not.toContain('"d"');
  });

  it("prints nothing of its own", () => expect(warnings).toEqual([]));

  it("keeps its key over a restart and gives tokens the life it is told", async () => {
    const again = await startIdentityProvider({ signingKey: secrets.identityProviderKey, idTokenSeconds: 1 });
    const token = await again.signIn("grace", "build-platform-app");
    expect(decodeProtectedHeader(token).kid).toBe(secrets.identityProviderKey.kid);
    const { payload } = await jwtVerify(token, createRemoteJWKSet(new URL(idp.jwksUri)), { clockTolerance: 60 });
    expect((payload.exp ?? 0) - (payload.iat ?? 0)).toBe(1);
    await again.close();
  });
});

describe("GitHub", () => {
  let github: RecordedUpstream;
  const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
  const octokitWith = (auth?: string) => new Octokit({ ...(auth && { auth }), baseUrl: github.baseUrl, log: quiet });
  const widgets = { owner: "acme", repo: "widgets" };

  beforeAll(async () => {
    github = await startGitHub({ token: secrets.githubToken });
  });
  afterAll(() => github.close());

  it("starts with an empty record: seeding went past it", () => expect(github.requests()).toEqual([]));

  it("knows the seeded token, and no other", async () => {
    expect((await octokitWith(secrets.githubToken).users.getAuthenticated()).data.login).toBe(githubBot);
    expect((await octokitWith("ghp_somebody_elses").users.getAuthenticated()).data.login).toBe(githubStranger);
    expect(github.requests().map((request) => request.authorization)).toEqual([
      `token ${secrets.githubToken}`,
      "token ghp_somebody_elses",
    ]);
  });

  it.each(["widgets", "helpdesk", "payroll"])("shows acme/%s to its own bot only", async (repo) => {
    const readme = { owner: "acme", repo };
    expect((await octokitWith(secrets.githubToken).repos.getReadme(readme)).status).toBe(200);
    await expect(octokitWith("ghp_somebody_elses").repos.getReadme(readme)).rejects.toMatchObject({ status: 403 });
    await expect(octokitWith().repos.getReadme(readme)).rejects.toMatchObject({ status: 401 });
  });

  it("gives a file whose path has a slash, under the path Octokit really sends", async () => {
    github.clear();
    const { data } = await octokitWith(secrets.githubToken).repos.getContent({ ...widgets, path: "docs/guide.md" });
    expect(data).toMatchObject({ type: "file", path: "docs/guide.md" });
    expect("content" in data && Buffer.from(data.content, "base64").toString()).toContain("until it clicks");
    expect(github.requests().map((request) => request.target)).toEqual([
      "/repos/acme/widgets/contents/docs%2Fguide.md",
    ]);
  });

  it("pages its issues through links to the address it was called by", async () => {
    github.clear();
    const octokit = octokitWith(secrets.githubToken);
    const first = await octokit.issues.listForRepo({ ...widgets, per_page: 30 });
    expect(first.headers.link).toContain(`<${github.baseUrl}/repos/acme/widgets/issues?`);
    const issues = await octokit.paginate(octokit.issues.listForRepo, { ...widgets, per_page: 30 });
    expect(new Set(issues.map((issue) => issue.number)).size).toBe(githubIssueCount);
    expect(github.requests()).toHaveLength(4);
    expect(issues[0]?.url.startsWith(github.baseUrl)).toBe(true);
  });

  it("records a comment's exact bytes and signs it with the bot", async () => {
    github.clear();
    const body = "Oiled it. — “Good as new” ✓";
    const octokit = octokitWith(secrets.githubToken);
    const { data } = await octokit.issues.createComment({ ...widgets, issue_number: 1, body });
    expect(data.user?.login).toBe(githubBot);
    const [seen] = github.requests();
    expect(seen).toMatchObject({ method: "POST", target: "/repos/acme/widgets/issues/1/comments", status: 201 });
    expect(JSON.parse(seen?.body.toString() ?? "")).toEqual({ body });
    expect(seen?.bytesIn).toBe(seen?.body.byteLength);
  });
});

describe("Slack", () => {
  let slack: RecordedUpstream;
  const call = async (method: string, token: string, body: Record<string, string> = {}) => {
    const response = await fetch(`${slack.baseUrl}/api/${method}`, {
      method: "POST",
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    return (await response.json()) as Record<string, unknown>;
  };

  beforeAll(async () => {
    slack = await startSlack({ token: secrets.slackToken });
  });
  afterAll(() => slack.close());

  it("lets its bot list channels and post", async () => {
    expect(await call("auth.test", secrets.slackToken)).toMatchObject({ ok: true, user_id: slackBot.userId });
    expect(await call("conversations.list", secrets.slackToken)).toMatchObject({
      ok: true,
      channels: expect.arrayContaining([expect.objectContaining(slackGeneral)]),
    });
    const posted = await call("chat.postMessage", secrets.slackToken, { channel: slackGeneral.id, text: "It clicks." });
    expect(posted).toMatchObject({ ok: true, message: { text: "It clicks.", user: slackBot.userId } });
  });

  it.each(["xoxb-somebody-elses", "test_token_admin"])("refuses %s", async (token) => {
    const refused = { ok: false, error: "missing_scope" };
    expect(await call("conversations.list", token)).toMatchObject(refused);
    expect(await call("chat.postMessage", token, { channel: slackGeneral.id, text: "?" })).toMatchObject(refused);
    expect(await call("auth.test", token)).not.toMatchObject({ user_id: slackBot.userId });
  });
});

describe("recorder", () => {
  let recorder: Recorder;
  let upstream: Server;
  let answer: RequestListener;

  beforeAll(async () => {
    upstream = createHttpServer((request, response) => answer(request, response));
    recorder = await startRecorder();
    expect((await fetch(recorder.baseUrl)).status).toBe(503);
    recorder.pointAt(`http://127.0.0.1:${await listenOnLoopback(upstream, 0)}`);
  });
  beforeEach(() => recorder.clear());
  afterAll(async () => {
    await recorder.close();
    await closeServer(upstream);
  });

  it("counts both directions, passes bytes and repeated fields as they are, and renames the upstream in links", async () => {
    answer = (request, response) => {
      const { port } = upstream.address() as AddressInfo;
      const link = `<http://127.0.0.1:${port}/next>; rel="next"`;
      response.writeHead(200, [...["Set-Cookie", "a=1"], ...["Set-Cookie", "b=2"], ...["Link", link]]);
      request.pipe(response);
    };
    const bytes = randomBytes(300_000);
    const response = await fetch(`${recorder.baseUrl}/a%2Fb?x=%20`, { method: "POST", body: bytes });
    expect(Buffer.from(await response.arrayBuffer()).equals(bytes)).toBe(true);
    expect(response.headers.getSetCookie()).toEqual(["a=1", "b=2"]);
    expect(response.headers.get("link")).toBe(`<${recorder.baseUrl}/next>; rel="next"`);
    const seen = await recorder.until((request) => request.endedAtMs !== undefined);
    expect(seen).toMatchObject({ target: "/a%2Fb?x=%20", bytesIn: 300_000, bytesOut: 300_000, closedEarly: false });
    expect(seen.body.equals(bytes)).toBe(true);
  });

  it("tells a caller that leaves while it sends", async () => {
    answer = (request) => void request.resume();
    const call = request(recorder.baseUrl, { method: "POST", headers: { "content-length": 100 } });
    call.on("error", () => {});
    call.write("half?");
    await recorder.until((request) => request.bytesIn > 0);
    call.destroy();
    const seen = await recorder.until((request) => request.endedAtMs !== undefined);
    expect(seen).toMatchObject({ closedEarly: true, upstreamFailed: false, status: undefined });
  });

  it("tells an upstream that breaks off from a caller that leaves", async () => {
    answer = (_request, response) => {
      response.writeHead(200, { "content-length": 10 });
      response.write("half?", () => response.destroy());
    };
    const response = await fetch(recorder.baseUrl);
    await expect(response.text()).rejects.toThrow();
    const seen = await recorder.until((request) => request.endedAtMs !== undefined);
    expect(seen).toMatchObject({ closedEarly: false, upstreamFailed: true, bytesOut: 5 });
  });

  it("says so when nothing that fits comes", () =>
    expect(recorder.until(() => false, 10)).rejects.toThrow("no recorded request fits within 10 ms"));
});

describe("model", () => {
  const slowChunks = 40;
  let model: RecordedUpstream;
  const ask = (prompt: string, key: string, signal?: AbortSignal) =>
    fetch(`${model.baseUrl}/v1/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body: JSON.stringify({ model: modelName, stream: true, messages: [{ role: "user", content: prompt }] }),
      signal: signal ?? null,
    });

  beforeAll(async () => {
    model = await startModel({ key: secrets.modelKey, slowChunks, chunkDelayMs: 25 });
  });
  afterAll(() => model.close());

  it("refuses any key but its own", async () => {
    const response = await ask(quickPrompt, "sk-somebody-elses");
    expect(response.status).toBe(401);
    expect(await response.text()).not.toContain("gate");
  });

  it("streams a quick answer", async () => {
    const response = await ask(quickPrompt, secrets.modelKey);
    expect(response.headers.get("content-type")).toBe("text/event-stream");
    expect(textOf(await response.text())).toBe(quickAnswer);
  });

  it("streams a slow answer, chunk by chunk as time passes", async () => {
    model.clear();
    const startedAtMs = Date.now();
    const response = await ask(slowPrompt, secrets.modelKey);
    let reads = 0;
    let text = "";
    for await (const part of response.body?.pipeThrough(new TextDecoderStream()) ?? []) {
      reads += 1;
      text += part;
    }
    expect(textOf(text)).toBe(slowAnswer(slowChunks));
    expect(reads).toBeGreaterThan(slowChunks / 2);
    expect(Date.now() - startedAtMs).toBeGreaterThan(slowChunks * 25 * 0.8);
    const seen = await model.until((request) => request.endedAtMs !== undefined);
    expect(seen).toMatchObject({ closedEarly: false, bytesOut: Buffer.byteLength(text) });
  });

  it("is seen to be left in the middle, and nothing passes after that", async () => {
    model.clear();
    const leave = new AbortController();
    const response = await ask(slowPrompt, secrets.modelKey, leave.signal);
    await response.body?.getReader().read();
    leave.abort();
    const seen = await model.until((request) => request.endedAtMs !== undefined);
    expect(seen).toMatchObject({ closedEarly: true, upstreamFailed: false, status: 200 });
    const { bytesOut } = seen;
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(seen.bytesOut).toBe(bytesOut);
    expect(seen.lastByteAtMs).toBeLessThanOrEqual(seen.endedAtMs ?? 0);
  });

  it("closes at once with a stream under way", async () => {
    // Its end is half a minute away.
    const brief = await startModel({ key: secrets.modelKey, slowChunks, chunkDelayMs: 750 });
    const stream = fetch(`${brief.baseUrl}/v1/chat/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${secrets.modelKey}`, "content-type": "application/json" },
      body: JSON.stringify({ model: modelName, stream: true, messages: [{ role: "user", content: slowPrompt }] }),
    }).then((response) => response.text());
    stream.catch(() => {});
    await brief.until((request) => request.bytesOut > 0);
    const startedAtMs = Date.now();
    await brief.close();
    expect(Date.now() - startedAtMs).toBeLessThan(15_000);
    await expect(stream).rejects.toThrow();
  });
});

/** The text of an OpenAI chat stream, which must end as one ends. */
function textOf(stream: string): string {
  const events = stream.split("\n\n").filter((event) => event !== "");
  expect(events.at(-1)).toBe("data: [DONE]");
  const chunks = events.slice(0, -1).map((event) => JSON.parse(event.slice("data: ".length)) as ChatChunk);
  return chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
}

interface ChatChunk {
  readonly choices: readonly { readonly delta: { readonly content?: string } }[];
}
