// Every kind of credential, against upstreams that do their worst with it: then every record, log line and answer is searched for
// every secret, in every spelling.

import { generateKeyPairSync, randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startEmulatedService } from "../../scripts/local/emulator.ts";
import { spellingsOf } from "../../src/upstream/spellings.ts";
import { startAuthorizationServer } from "./authorization-server.ts";
import { type GateRig, type Heard, type Instance, type Line, startGateRig } from "./gate-rig.ts";
import { bodyOf, type HostileUpstream, pause, startHostileUpstream } from "./hostile-upstream.ts";

const random = (): string => randomBytes(24).toString("base64url");
const { privateKey: appKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
const client = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" });
const password = `pa/ss&${random()}`;
const SECRETS = {
  HEADER_KEY: `key_${random()}`,
  BASIC_KEY: Buffer.from(`deploy:${password}`).toString("base64"),
  QUERY_KEY: `AIza+${random()}`,
  OAUTH_SECRET: `oauth ${random()}`,
  CLIENT_KEY: JSON.stringify({ ...client, alg: "ES256", kid: "gate-1" }),
  APP_KEY: appKey.export({ type: "pkcs8", format: "pem" }) as string,
};
const APP = { app_id: 4242, slug: "portcullis", name: "Portcullis" };
const REPOS = "GET /repos/{owner}/{repo}/issues";
const PERMISSIONS = [
  { operations: [REPOS], permission: "issues", access: "read" as const },
  { operations: ["GET /repos/{owner}/{repo}"], permission: "metadata", access: "read" as const },
];

let hostile: HostileUpstream;
let server: Awaited<ReturnType<typeof startAuthorizationServer>>;
let github: Awaited<ReturnType<typeof startEmulatedService>>;
let rig: GateRig;
let stateDir: string;
const logs: string[] = [];
/** All that agents and admins heard. */
const heard: string[] = [];

/** Upstreams at the hostile one, a path for each. */
const kinds = {
  header: { kind: "header", header: "X-Api-Key", secret: "HEADER_KEY", value: "{secret}" },
  basic: { kind: "header", header: "Authorization", secret: "BASIC_KEY", value: "Basic {secret}" },
  query: { kind: "query", parameter: "key", secret: "QUERY_KEY" },
} as const;
const HOSTILE = [...Object.keys(kinds), "parts", "tokened", "exchange", "failing", "redirected", "unreachable"];
const upstreams = () => {
  const basic = { method: "client_secret_basic", secret: "OAUTH_SECRET" } as const;
  const oauth = (tokenEndpoint: string) =>
    ({ kind: "oauth-client-credentials", tokenEndpoint, clientId: "gate", authentication: basic }) as const;
  const credentials = {
    ...kinds,
    tokened: oauth(server.tokenEndpoint),
    failing: oauth(`${hostile.baseUrl}/as/failing`),
    redirected: oauth(`${hostile.baseUrl}/as/redirected`),
    unreachable: oauth(`${hostile.baseUrl}/as/broken`),
    exchange: {
      kind: "token-exchange",
      tokenEndpoint: server.tokenEndpoint,
      clientId: "gate-keyed",
      authentication: { method: "private_key_jwt", secret: "CLIENT_KEY", audience: server.issuer },
      subjectAudience: server.issuer,
    } as const,
  };
  return {
    ...Object.fromEntries(
      Object.entries(credentials).map(([name, credential]) => [name, { baseUrl: hostile.baseUrl, credential }]),
    ),
    parts: { baseUrl: hostile.baseUrl, credential: kinds.header, ranges: true },
    app: {
      baseUrl: github.upstream.baseUrl,
      credential: {
        kind: "github-app" as const,
        appId: String(APP.app_id),
        installationId: 7,
        account: "acme",
        privateKey: "APP_KEY",
        permissions: PERMISSIONS,
      },
    },
  };
};
const anything = (upstream: string) => ({
  type: "http" as const,
  upstream,
  operations: ["GET /{+path}", "POST /{+path}"],
});
const repository = (repo: readonly string[]) => ({
  type: "http" as const,
  upstream: "app",
  operations: [REPOS, "GET /repos/{owner}/{repo}"],
  where: { owner: ["acme"], repo },
});

/** What it was sent, in whatever place: the worst that an upstream can say. */
const credentialIn = (request: { headers: NodeJS.Dict<string | string[]>; url?: string | undefined }): string =>
  [
    request.headers.authorization,
    request.headers["x-api-key"],
    new URL(request.url ?? "/", "http://x").searchParams.get("key"),
  ]
    .filter((one) => typeof one === "string")
    .join(" ")
    .replace(/^(Bearer|Basic) /, "");

function misbehave(): void {
  const on = (path: string, answer: (sent: string, url: string) => [number, Record<string, string>, string]) =>
    hostile.on(path, (request, response) => {
      request.resume();
      const [status, headers, body] = answer(credentialIn(request), `${hostile.baseUrl}${request.url}`);
      response.writeHead(status, { "content-length": Buffer.byteLength(body), ...headers }).end(body);
    });
  on("/echo/body", (sent) => [200, { "content-type": "application/json" }, JSON.stringify({ sent })]);
  on("/echo/base64", (sent) => [200, {}, Buffer.from(`x-access-token:${sent}`).toString("base64")]);
  on("/echo/percent", (sent) => [200, {}, `https://x/?t=${encodeURIComponent(sent)}`]);
  on("/echo/header", (sent) => [200, { "x-debug": `sent ${sent}` }, "{}"]);
  on("/echo/refused", (sent) => [401, { "www-authenticate": `Bearer error="${sent}"` }, `bad: ${sent}`]);
  on("/echo/redirect", (_sent, url) => [302, { location: url.replace("/echo/redirect", "/ok") }, ""]);
  on("/echo/elsewhere", (sent) => [302, { location: `${hostile.baseUrl}/ok?other=${encodeURIComponent(sent)}` }, ""]);
  on("/echo/link", (_sent, url) => [200, { link: `<${url}${url.includes("?") ? "&" : "?"}page=2>; rel="next"` }, "[]"]);
  hostile.on("/echo/parts", (request, response) => {
    request.resume();
    const page = `sent: ${credentialIn(request)}`;
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
    const body = first === undefined ? page : page.slice(Number(first), Number(last) + 1);
    const part = first === undefined ? {} : { "content-range": `bytes ${first}-${last}/${page.length}` };
    const head = { "accept-ranges": "bytes", "content-length": body.length, ...part };
    response.writeHead(first === undefined ? 200 : 206, head).end(body);
  });
  on("/as/redirected", (sent) => [307, { location: `${hostile.baseUrl}/as/failing?${sent}` }, ""]);
  hostile.on("/as/broken", (request) => request.socket.destroy());
  hostile.on("/broken", (request) => request.socket.destroy());
  hostile.on("/as/failing", (request, response, seen) =>
    request.on("end", () =>
      response
        .writeHead(400)
        .end(JSON.stringify({ error: credentialIn(request), error_description: `${bodyOf(seen)}` })),
    ),
  );
  hostile.on("/echo/stream", async (request, response) => {
    request.resume();
    const sent = credentialIn(request);
    response.writeHead(200, { "content-type": "text/event-stream" });
    for (const part of ["data: before\n\n", "data: ", sent.slice(0, 7), sent.slice(7, 9), sent.slice(9), "\n\n"]) {
      response.write(part);
      await pause(15);
    }
    response.end();
  });
}

beforeAll(async () => {
  stateDir = await mkdtemp(join(tmpdir(), "portcullis-credentials-"));
  hostile = await startHostileUpstream();
  misbehave();
  const { d: _, ...publicJwk } = client;
  server = await startAuthorizationServer({
    basic: { id: "gate", secret: SECRETS.OAUTH_SECRET },
    keyed: { id: "gate-keyed", jwk: { ...publicJwk, alg: "ES256", kid: "gate-1" } },
  });
  const permissions = { issues: "write", contents: "write", metadata: "read" };
  github = await startEmulatedService("github", 0, {
    github: {
      users: [{ login: "nobody" }],
      orgs: [{ login: "acme", members: [] }],
      repos: ["widgets", "payroll"].map((name) => ({ owner: "acme", name, private: true })),
      apps: [
        {
          ...APP,
          private_key: appKey.export({ type: "pkcs8", format: "pem" }) as string,
          permissions,
          installations: [{ installation_id: 7, account: "acme", permissions }],
        },
      ],
    },
  } as never);
  rig = await startGateRig(
    {},
    {
      more: {
        upstreams: upstreams(),
        entries: [...HOSTILE.map(anything), repository(["widgets", "payroll"])],
      },
    },
    { stateDir, baseUrl: hostile.baseUrl, around: { bindings: SECRETS, onLog: (line) => void logs.push(line) } },
  );
  server.trust(rig.origin);
});

afterAll(async () => {
  await rig?.close();
  await github?.upstream.close();
  await server?.close();
  await hostile?.close();
  await rm(stateDir, { recursive: true, force: true });
});

const provision = (repos: readonly string[] = ["widgets"]): Promise<Instance> =>
  rig.provision([...HOSTILE.map(anything), repository(repos)]);
async function ask(who: Instance, path: string): Promise<Heard> {
  const answer = await rig.call(who, path);
  heard.push(answer.face, JSON.stringify(answer.rawHeaders), answer.body.toString("latin1"));
  return answer;
}

/** What reached GitHub, and what it says of the tokens that it gave. */
async function installationTokens() {
  const answer = await fetch(`${github.directUrl}/_emulate/installation-tokens`);
  return ((await answer.json()) as { installation_tokens: Record<string, unknown>[] }).installation_tokens;
}

describe("a GitHub App", () => {
  it("works with a token for the grant's repository and its operations' permissions, and no other", async () => {
    const one = await provision();
    const answer = await ask(one, "/app/repos/acme/widgets/issues");
    expect([answer.status, answer.body.toString()]).toEqual([200, "[]"]);
    const other = await provision();
    expect((await ask(other, "/app/repos/acme/widgets")).status).toBe(200);
    const wider = await provision(["widgets", "payroll"]);
    expect((await ask(wider, "/app/repos/acme/payroll/issues")).status).toBe(200);
    const given = await installationTokens();
    expect(given.map(({ permissions, repository_selection }) => ({ permissions, repository_selection }))).toEqual(
      [1, 2].map(() => ({ permissions: { issues: "read", metadata: "read" }, repository_selection: "selected" })),
    );
    expect(given.map(({ repository_ids }) => (repository_ids as unknown[]).length)).toEqual([1, 2]);
    const used = github.upstream.requests().filter(({ method }) => method === "GET");
    expect(used.map(({ authorization }) => authorization?.slice(0, 11))).toEqual(used.map(() => "Bearer ghs_"));
  });
});

describe("an authorization server", () => {
  it("gives tokens to the gate as its client, and for the gate's statement of who acts", async () => {
    const who = await provision();
    for (const upstream of ["tokened", "exchange"]) expect((await ask(who, `/${upstream}/ok`)).status).toBe(200);
    const sent = hostile.requests("/ok").map(({ headers }) => headers.authorization);
    expect(sent.map((one) => one?.replace("Bearer ", "")).sort()).toEqual([...server.given].sort());
    expect(server.subjects).toMatchObject([{ act: { sub: who.id, agent: "triage-bot" }, task: "build-platform_t-1" }]);
  });
});

describe("what a hostile upstream makes of a credential", () => {
  const ECHOES = ["body", "base64", "percent", "header", "refused", "elsewhere", "stream"];

  it("reaches no agent, whatever the kind and the way", async () => {
    const who = await provision();
    for (const upstream of [...Object.keys(kinds), "tokened", "exchange"]) {
      for (const echo of ECHOES) {
        const answer = await ask(who, `/${upstream}/echo/${echo}`);
        if (echo !== "stream") expect([upstream, echo, answer.status]).toEqual([upstream, echo, 502]);
        else
          expect([answer.status, answer.isWhole, answer.body.toString()]).toEqual([
            200,
            false,
            expect.stringMatching(/^data: before\n\n(data: )?$/),
          ]);
      }
      expect((await ask(who, `/${upstream}/broken`)).status).toBe(502);
      expect((await ask(who, `/${upstream}/ok`)).status).toBe(200);
    }
    const { answer } = await rig.recorded(who, "/query/echo/body");
    expect(answer).toMatchObject({ outcome: "upstream-failed", reason: "the answer held the credential" });
  });

  it("is not had in parts, of which none holds it", async () => {
    const who = await provision();
    const ask4 = (upstream: string, at: number) =>
      rig.call(who, `/${upstream}/echo/parts`, { headers: { Range: `bytes=${at}-${at + 3}`, "If-Range": '"1"' } });
    for (const upstream of Object.keys(kinds))
      for (const at of [0, 6, 10]) expect((await ask4(upstream, at)).status).toBe(502);
    for (const { headers } of hostile.requests("/echo/parts"))
      expect([headers.range, headers["if-range"]]).toEqual([undefined, undefined]);
    // Who says that this upstream shows none gets what it gives.
    const part = await ask4("parts", 2);
    expect([part.status, part.body.toString(), part.headers["accept-ranges"]]).toEqual([206, "nt: ", "bytes"]);
    const whole = await ask(who, "/header/ok");
    expect(whole.status).toBe(200);
  });

  it("by its own URL is taken out of what leads on", async () => {
    const who = await provision();
    const redirect = await ask(who, "/query/echo/redirect?page=1");
    expect([redirect.status, redirect.headers.location]).toEqual([
      302,
      `${rig.origin}/hostile/ok?page=1`.replace("hostile", firstAt()),
    ]);
    const link = await ask(who, "/query/echo/link?a=1");
    expect(link.headers.link).toBe(`<${rig.origin}/${firstAt()}/echo/link?a=1&page=2>; rel="next"`);
  });

  it("of a token endpoint that fails reaches nobody, and the call is not sent", async () => {
    const who = await provision();
    const reasons: Record<string, string> = {
      failing: "no credential: the token endpoint answered 400",
      redirected: "no credential: the token endpoint answered 307",
      unreachable: "no credential: the token endpoint could not be reached",
    };
    for (const [upstream, reason] of Object.entries(reasons)) {
      for (let n = 0; n < 3; n++) expect((await ask(who, `/${upstream}/never`)).status).toBe(502);
      const { answer } = await rig.recorded(who, `/${upstream}/never`);
      expect(answer).toMatchObject({ outcome: "not-sent", reason });
    }
    expect(hostile.requests("/never")).toHaveLength(0);
    expect(hostile.requests("/as/failing")).toHaveLength(1);
  });
});

/** Several upstreams share an address here: a link leads to the first of them that the grant names. */
const firstAt = (): string => "header";

describe("every record, log line and answer", () => {
  it("is without any secret, in any spelling", async () => {
    // By now each was used: else this would find nothing of it anywhere.
    const used = hostile.requests().map(({ headers, target }) => JSON.stringify([headers, target]));
    for (const one of [SECRETS.HEADER_KEY, SECRETS.BASIC_KEY, encodeURIComponent(SECRETS.QUERY_KEY), ...server.given])
      expect(used.some((seen) => seen.includes(one))).toBe(true);
    expect(server.given).toHaveLength(5);
    const tokensOfGithub = github.upstream
      .requests()
      .map(({ authorization }) => authorization?.replace("Bearer ", "") ?? "");
    expect(new Set(tokensOfGithub.map((token) => token.slice(0, 4)))).toEqual(new Set(["eyJh", "ghs_"]));

    const secrets: Record<string, string> = {
      header: SECRETS.HEADER_KEY,
      basic: SECRETS.BASIC_KEY,
      password,
      query: SECRETS.QUERY_KEY,
      "client secret": SECRETS.OAUTH_SECRET,
      "client key": client.d as string,
      ...Object.fromEntries(
        SECRETS.APP_KEY.split("\n")
          .slice(1, -2)
          .map((line, i) => [`app key, line ${i}`, line]),
      ),
      ...Object.fromEntries(server.given.map((token, i) => [`token ${i}`, token])),
      ...Object.fromEntries(tokensOfGithub.map((token, i) => [`GitHub's ${i}`, token])),
      "GitHub's signature": tokensOfGithub[0]!.split(".")[2]!,
    };

    const corpus = new Map<string, string>([
      ["agents", heard.join("\n")],
      ["logs", logs.join("\n")],
      ...(await adminAnswers()),
      ...(await bucketObjects()),
      ...storedFiles(),
    ]);
    const found = [...corpus].flatMap(([where, text]) =>
      Object.entries(secrets).flatMap(([name, secret]) =>
        spellingsOf(secret, 16)
          .filter((spelling) => text.includes(spelling))
          .map(() => `${name} in ${where}`),
      ),
    );
    expect(found).toEqual([]);
    // And it is the right haystack.
    const all = [...corpus.values()].join("\n");
    for (const word of ["the answer held the credential", "/query/echo/body", "data: before"])
      expect(all).toContain(word);
    expect(corpus.get("logs")).toContain("the token endpoint answered 400");
    expect(corpus.size).toBeGreaterThan(10);
  });

  async function adminAnswers(): Promise<[string, string][]> {
    const answers: [string, string][] = [];
    const read = async (path: string) => {
      const { text, status } = await rig.h.asAdmin(path);
      expect([path, status]).toEqual([path, 200]);
      answers.push([path, text]);
      return text;
    };
    const { instances } = JSON.parse(await read("/admin/v1/instances")) as {
      instances: Record<"human" | "task" | "instance", string>[];
    };
    for (const { human, task, instance } of instances) {
      const path = `/admin/v1/transcripts/${human}/${task}/${instance}`;
      const transcript = await read(path);
      const lines = transcript.split("\n").flatMap((line) => (line.startsWith("{") ? [JSON.parse(line) as Line] : []));
      for (const { type, seq } of lines)
        if (type === "answer") {
          const { text } = await rig.h.asAdmin(`${path}/bodies/${seq}/answer`);
          answers.push([`body ${seq} of ${instance}`, text]);
        }
    }
    return answers;
  }

  async function bucketObjects(): Promise<[string, string][]> {
    const bucket = await rig.bucket();
    const { objects } = await bucket.list();
    return Promise.all(
      objects.map(async ({ key }): Promise<[string, string]> => {
        const bytes = Buffer.from(await (await bucket.get(key))!.bytes());
        return [key, (key.endsWith(".gz") ? gunzipSync(bytes) : bytes).toString("latin1")];
      }),
    );
  }

  /** What the objects keep: a broker keeps nothing. */
  function storedFiles(): [string, string][] {
    const files = readdirSync(stateDir, { recursive: true, withFileTypes: true }).filter((file) => file.isFile());
    return files.map((file) => {
      const path = join(file.parentPath, file.name);
      return [path, readFileSync(path, "latin1")];
    });
  }
});
