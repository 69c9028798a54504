// A governed program that has another one governed: as a sub-agent, with a sidecar and a key of its own.

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { DETAILS } from "./harness.ts";
import { type SidecarRig, startSidecarRig } from "./sidecar-rig.ts";

const MAIN = new URL("./sidecar-main.ts", import.meta.url).pathname;
const LIBRARY = new URL("../../src/agent/agent-fetch.ts", import.meta.url).pathname;
const STATUS = "curl -sS -o /dev/null -w '%{http_code}\\n'";
const ISSUES = "/github/repos/acme/widgets/issues";

let rig: SidecarRig;
let dir: string;
/** What a sub-agent is to be: it may read, and its parent may comment, too. */
let reader: string;

const fileOf = async (name: string, change: object = {}): Promise<string> => {
  const request = { agent: "summariser", agentVersion: "2.0.0", purpose: "sum up", authorization_details: DETAILS };
  const path = join(dir, `${name}.json`);
  await writeFile(path, JSON.stringify({ ...request, task_limits: { calls: 10, concurrency: 1 }, ...change }));
  return path;
};

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "sidecar-children-"));
  reader = await fileOf("reader");
  rig = await startSidecarRig();
});
afterAll(async () => {
  await rig.close();
  await rm(dir, { recursive: true, force: true });
});

let scripts = 0;
/** In the script of a parent: a sidecar of its own around this script. */
async function subAgent(script: string, options = `--sub-agent ${reader}`): Promise<string> {
  const path = join(dir, `${scripts++}.sh`);
  await writeFile(path, script);
  return `${process.execPath} ${MAIN} ${options} -- sh ${path}`;
}
const idsIn = (err: string): readonly string[] => [...err.matchAll(/instance (\S+) at /g)].map(([, id]) => id ?? "");

interface Listed {
  readonly instance: string;
  readonly ancestors: readonly string[];
}
async function listed(id: string): Promise<Listed | undefined> {
  const { json } = await rig.gate.asAdmin(`/admin/v1/instances?limit=1000`);
  return (json as { instances: Listed[] }).instances.find(({ instance }) => instance === id);
}

describe("a program through the sidecar of a sub-agent", () => {
  it("does what it was given, as a child of the instance that started it, and ends with its parent", async () => {
    const comment = `${STATUS} --json '{"body":"Done"}' "$PORTCULLIS_URL${ISSUES}/1/comments"`;
    const inner = await subAgent(`${STATUS} "$PORTCULLIS_URL${ISSUES}"; ${comment}; echo child; sleep 60`);
    const sidecar = rig.start(`${inner} | (head -n 3; ${comment}; echo parent); wait`);
    await sidecar.until(/^200\n404\nchild\n201\nparent\n/);
    const [parent, child] = idsIn(sidecar.err());
    expect(await listed(child ?? "")).toMatchObject({ ancestors: [parent] });
    sidecar.process.kill("SIGTERM");
    expect(await sidecar.ended).toBe(143);
    expect([await listed(parent ?? ""), await listed(child ?? "")]).toEqual([undefined, undefined]);
  });

  it("finds nothing of its parent: no variable, no grant, and at its parent's address no service", async () => {
    const inner = await subAgent(`env | grep ^PORTCULLIS_
${STATUS} "$PARENT${ISSUES}"; ${STATUS} "$PARENT/.portcullis"; sh -c '(sleep 0.2; curl -sS "$PARENT${ISSUES}") & exit' | grep -c served
`);
    const outer = `export PARENT=$PORTCULLIS_URL; ${inner}; ${STATUS} "$PORTCULLIS_URL${ISSUES}"`;
    const { code, out, err } = await rig.run(outer);
    expect(code, err).toBe(0);
    expect(out.trim().split("\n"), err).toEqual([
      expect.stringMatching(/^PORTCULLIS_URL=http:\/\/127\.0\.0\.1:\d+$/),
      "403",
      "403",
      "1",
      "200",
    ]);
    expect(err).toContain("a process that is not the command's called");
  });

  it("through a unix socket, too", async () => {
    const inner = await subAgent(`${STATUS} "$PORTCULLIS_URL${ISSUES}"; echo "$PORTCULLIS_SOCKET"`);
    const { code, out, err } = await rig.run(inner, ["--socket", join(dir, "parent.sock")]);
    expect({ code, out }, err).toEqual({ code: 0, out: "200\n\n" });
  });

  it("is ended by its parent by id, while the parent goes on", async () => {
    const go = join(dir, "child");
    const inner = await subAgent(`while ${STATUS} -f "$PORTCULLIS_URL${ISSUES}"; do sleep 0.2; done; echo over`);
    const sidecar = rig.start(
      `${inner} & while [ ! -s ${go} ]; do sleep 0.1; done
       curl -sS -X DELETE -w '%{http_code}\\n' "$PORTCULLIS_URL/.portcullis/sub-agents/$(cat ${go})"
       wait; ${STATUS} "$PORTCULLIS_URL${ISSUES}"`,
    );
    await sidecar.until(/^200$/m);
    const [, child] = idsIn(sidecar.err());
    await writeFile(go, child ?? "");
    expect(await sidecar.ended).toBe(0);
    const said = sidecar.out().trim().split("\n");
    expect(said.slice(-1)).toEqual(["200"]);
    expect(said.filter((line) => line !== "200").sort()).toEqual(["204", "401", "over"]);
    expect(await listed(child ?? "")).toBeUndefined();
  });
});

describe("the sidecar's own door", () => {
  it("gives a program with a key of its own a grant that is bound to that, and nothing of the parent's", async () => {
    const script = join(dir, "own-key.ts");
    await writeFile(
      script,
      `import { createAgentFetch, createEnrolmentProof, createInstanceKey } from ${JSON.stringify(LIBRARY)};
const url = process.env.PORTCULLIS_URL;
const { gate } = await (await fetch(url + "/.portcullis")).json();
const key = await createInstanceKey();
const body = new URLSearchParams({ agent: "summariser", agent_version: "2.0.0", purpose: "sum up",
  authorization_details: ${JSON.stringify(JSON.stringify(DETAILS))} });
const headers = { DPoP: await createEnrolmentProof(gate, key) };
const answer = await fetch(url + "/.portcullis/sub-agents", { method: "POST", headers, body });
const grant = await answer.json();
const call = await createAgentFetch({ gate, key, grant })(gate + "${ISSUES}");
console.log(JSON.stringify({ status: answer.status, called: call.status, grant }));`,
    );
    const { out, err } = await rig.run(`${process.execPath} ${script}`);
    const { status, called, grant } = JSON.parse(out || `{"err":${JSON.stringify(err)}}`) as Record<string, unknown>;
    expect({ status, called }, err).toEqual({ status: 200, called: 200 });
    expect(Object.keys(grant as object).sort()).toEqual(
      expect.arrayContaining(["access_token", "expires_in", "refresh_token", "token_type"]),
    );
    const { access, refresh } = rig.given.at(-1)!;
    expect([out.includes(access), out.includes(refresh)]).toEqual([false, false]);
  });

  it.each([
    ["no proof", `-X POST $D/sub-agents -d agent=x`, 400, "a DPoP proof by the sub-agent's key is required"],
    ["what is no proof", `$D/sub-agents -H 'DPoP: x.y.z' -d agent=x`, 400, "a DPoP proof by the sub-agent's key"],
    ["another path", "$D/gate", 404, "not one of GET /.portcullis"],
    ["another method", "-X PUT $D/sub-agents", 404, "not one of GET /.portcullis"],
    ["no thumbprint", "-X DELETE $D/sub-agents/x", 400, "the path does not end in a thumbprint"],
    ["a web page", "-H 'Origin: https://page.example' $D", 403, "no web page is served"],
  ])("refuses %s, in words, and asks the gate nothing", async (_name, asked, status, reason) => {
    const { out } = await rig.run(`D=$PORTCULLIS_URL/.portcullis; curl -sS -w '%{http_code}' ${asked}`);
    expect(out).toContain(reason);
    expect(out.slice(-3)).toBe(String(status));
  });
});

describe("no sub-agent", () => {
  it("but a line that says why, and an exit code", async () => {
    const other = await fileOf("other", { agent: "triage-bot", agentVersion: "1.4.0" });
    const much = await fileOf("much", { task_limits: { calls: 100_000 } });
    const bad = await fileOf("bad", { agentVersion: 2 });
    const files = [other, much, bad, `${reader}.missing`];
    const asked = await Promise.all(files.map((file) => subAgent("echo not started", `--quiet --sub-agent ${file}`)));
    const { out, err } = await rig.run(asked.map((inner) => `${inner}; echo $?`).join("\n"));
    expect(out, err).toBe("3\n3\n2\n2\n");
    expect(err).toContain("the authority refused: invalid_request, agent: not one that the parent may provision");
    expect(err).toContain(
      "the authority refused: invalid_request, task_limits: calls exceeds what the parent has left",
    );
    expect(err).toContain("agentVersion: ");
    expect(err).toContain("ENOENT");
  });

  it("for a process that the parent's sidecar does not serve, nor where none listens, nor without one", async () => {
    const sidecar = rig.start("sleep 60");
    const stranger = async (...options: string[]) => {
      const running = rig.startWith([...options, "--", "echo", "started"]);
      return [await running.ended, running.out(), running.err()];
    };
    expect(await stranger("--sub-agent", reader, "--parent", await sidecar.url())).toEqual([
      3,
      "",
      expect.stringContaining("the parent's sidecar: portcullis agent: only the process that was started beside it"),
    ]);
    expect(await stranger("--sub-agent", reader, "--parent", "http://127.0.0.1:1")).toEqual([
      4,
      "",
      expect.stringContaining("the parent's sidecar can't be reached"),
    ]);
    for (const [options, reason] of [
      [["--sub-agent", reader], "give --parent: this was not started by a sidecar"],
      [["--sub-agent", reader, "--parent", "http://10.0.0.1:80"], "neither the path of a socket nor http://127.0.0.1"],
      [["--sub-agent", reader, "--provision", reader], "give one of --grant-command, --provision and --sub-agent"],
      [["--provision", reader, "--parent", "/x"], "--parent belongs to --sub-agent"],
    ] as const)
      expect(await stranger(...options)).toEqual([2, "", expect.stringContaining(reason)]);
    sidecar.process.kill("SIGTERM");
    await sidecar.ended;
  });
});
