// The running gate with real upstreams, a platform that provisions for whoever shows a proof, and sidecars in processes of their own.

import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createServer, type Server } from "node:http";
import { startGitHub } from "../../scripts/local/github.ts";
import { startModel } from "../../scripts/local/model.ts";
import { closeServer, listenOnLoopback } from "../../scripts/local/ports.ts";
import type { RecordedUpstream } from "../../scripts/local/recorder.ts";
import { type Harness, startHarness } from "./harness.ts";
import { type HostileUpstream, pause, startHostileUpstream } from "./hostile-upstream.ts";

const main = new URL("./sidecar-main.ts", import.meta.url).pathname;
const github = {
  type: "http",
  upstream: "github",
  operations: ["GET /repos/{owner}/{repo}/issues", "POST /repos/{owner}/{repo}/issues/{issue_number}/comments"],
  where: { owner: ["acme"], repo: ["widgets"] },
};
const model = {
  type: "http",
  upstream: "model",
  operations: ["POST /v1/chat/completions"],
  where: { "body./model": ["gpt-4.1-mini"] },
};
const hostile = {
  type: "http",
  upstream: "hostile",
  operations: ["GET", "POST", "PUT", "DELETE", "OPTIONS"].map((method) => `${method} /{+path}`),
};
export const SCOPE = [github, model, hostile];
export const TOKENS = { githubToken: "ghp_of_the_organisation_1", modelKey: "sk-of-the-organisation-1" };
/** What the sidecar's environment holds and its child's must not. */
export const SECRETS = { PORTCULLIS_PLATFORM_SECRET: "platform-secret-1", VAULT_TOKEN: "vault-token-1" };

export interface Running {
  readonly process: ChildProcess;
  readonly pid: number;
  /** stdout of the command. */
  readonly out: () => string;
  readonly err: () => string;
  /** Exit code of the sidecar. */
  readonly ended: Promise<number | null>;
  /** What this matched on either stream; throws when the sidecar has ended before, or nothing comes. */
  until(pattern: RegExp): Promise<RegExpExecArray>;
  /** Both from the line that it says at its start. */
  readonly instance: () => Promise<string>;
  readonly url: () => Promise<string>;
}

export type SidecarRig = Awaited<ReturnType<typeof startSidecarRig>>;

export async function startSidecarRig() {
  // Not skipped: without these, nothing here was tested.
  for (const [program, why] of [
    ["curl", "a client that knows nothing of grants"],
    ["python3", "a program in another language"],
  ] as const) {
    try {
      execFileSync(program, ["--version"], { stdio: "ignore" });
    } catch {
      throw new Error(`the tests of the sidecar need ${program} on PATH: ${why}`);
    }
  }
  const gitHub: RecordedUpstream = await startGitHub({ token: TOKENS.githubToken });
  const chat: RecordedUpstream = await startModel({ key: TOKENS.modelKey, slowChunks: 400, chunkDelayMs: 50 });
  const upstream: HostileUpstream = await startHostileUpstream();
  const gate: Harness = await startHarness({
    secrets: (made) => ({ ...made, ...TOKENS }),
    addresses: {
      github: gitHub.baseUrl,
      model: chat.baseUrl,
      hostile: { baseUrl: upstream.baseUrl, maxRequestBytes: 64 * 1_048_576, maxAnswerBytes: 64 * 1_048_576 },
      callsPerSecond: 1_000,
      burst: 1_000,
    },
  });

  /** Refresh tokens by instance, in the order of provisioning. */
  const given: { readonly access: string; readonly refresh: string }[] = [];
  const form = (overrides: Record<string, string> = {}) =>
    gate.exchangeForm({ form: { authorization_details: JSON.stringify(SCOPE), ...overrides } });
  const platform: Server = createServer((request, response) => {
    const overrides = Object.fromEntries(new URL(request.url ?? "", "http://x").searchParams);
    void gate.post("/oauth/token", form(overrides), { DPoP: String(request.headers["x-proof"]) }).then((answer) => {
      const { access_token: access, refresh_token: refresh } = answer.json as Record<string, string>;
      if (answer.status === 200) given.push({ access: access ?? "", refresh: refresh ?? "" });
      response.writeHead(answer.status).end(answer.text);
    });
  });
  const platformPort = await listenOnLoopback(platform, 0);

  /** Asks the platform, which may put other parameters into its exchange. */
  const grantCommand = (overrides: Record<string, string> = {}): string =>
    `test -n "$PORTCULLIS_PLATFORM_SECRET" && curl -sS -H "X-Proof: $PORTCULLIS_PROOF" 'http://127.0.0.1:${platformPort}/?${new URLSearchParams(overrides)}'`;

  async function flip(instance: string, act: "kill" | "pause" | "resume"): Promise<void> {
    const body = { reach: "instance", target: { instance }, act, reason: "a test" };
    const { status, text } = await gate.asAdmin("/admin/v1/switches", { body });
    if (status >= 300) throw new Error(`${act}: ${status} ${text}`);
  }

  const running = new Set<ChildProcess>();

  /** A sidecar with these arguments and no others. */
  function startWith(args: readonly string[], env: Record<string, string> = {}): Running {
    const child = spawn(process.execPath, [main, ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...SECRETS, ...env },
    });
    running.add(child);
    let out = "";
    let err = "";
    child.stdout.on("data", (run: Buffer) => {
      out += run.toString();
    });
    child.stderr.on("data", (run: Buffer) => {
      err += run.toString();
    });
    let isOver = false;
    const ended = new Promise<number | null>((resolve) =>
      child.on("exit", (code) => {
        // What it started may hold its streams open: waited for is the sidecar.
        setTimeout(() => {
          isOver = true;
          running.delete(child);
          resolve(code);
        }, 50);
      }),
    );
    const until = async (pattern: RegExp): Promise<RegExpExecArray> => {
      for (const endMs = Date.now() + 20_000; Date.now() < endMs; await pause(10)) {
        const found = pattern.exec(out) ?? pattern.exec(err);
        if (found !== null) return found;
        if (isOver) break;
      }
      throw new Error(`${pattern} did not come. stdout:\n${out}\nstderr:\n${err}`);
    };
    const started = /instance (\S+) at \S+, (.*?)(?:, until .*)?$/m;
    return {
      process: child,
      pid: child.pid ?? 0,
      out: () => out,
      err: () => err,
      ended,
      until,
      instance: async () => (await until(started))[1] ?? "",
      url: async () => (await until(started))[2] ?? "",
    };
  }

  /** A sidecar around a shell script. */
  const start = (script: string, options: readonly string[] = [], overrides: Record<string, string> = {}): Running =>
    startWith([
      ...["--gate", gate.origin, "--grant-command", grantCommand(overrides)],
      ...options,
      ...["--", "sh", "-c", script],
    ]);

  /** … until its end. */
  async function run(script: string, options: readonly string[] = [], overrides: Record<string, string> = {}) {
    const sidecar = start(script, options, overrides);
    const code = await sidecar.ended;
    return { code, out: sidecar.out(), err: sidecar.err() };
  }

  return {
    gate,
    gitHub,
    chat,
    upstream,
    given,
    grantCommand,
    flip,
    startWith,
    start,
    run,
    async close(): Promise<void> {
      for (const child of running) child.kill("SIGTERM");
      await closeServer(platform);
      await gate.close();
      await Promise.all([gitHub.close(), chat.close(), upstream.close()]);
    },
  };
}
