// Programs that know nothing of grants, governed: what passes through the sidecar, and who else tries to.

import { execFileSync, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { createServer, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Writable } from "node:stream";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { modelName, slowPrompt } from "../../scripts/local/model.ts";
import { closeServer, listenOnLoopback } from "../../scripts/local/ports.ts";
import { headersForChild, headersForGate } from "../../scripts/sidecar/headers.ts";
import { createRelay } from "../../scripts/sidecar/relay.ts";
import type { HeldGrant } from "../../src/agent/agent-fetch.ts";
import { answerWith, bodyOf, pause } from "./hostile-upstream.ts";
import { SCOPE, SECRETS, type SidecarRig, startSidecarRig, TOKENS } from "./sidecar-rig.ts";

const MIB = 1_048_576;
let rig: SidecarRig;
let dir: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "sidecar-"));
  execFileSync("mkfifo", [`${dir}/go`]);
  rig = await startSidecarRig();
});
afterAll(async () => {
  await rig.close();
  await rm(dir, { recursive: true, force: true });
});

const ISSUES = "$PORTCULLIS_URL/github/repos/acme/widgets/issues";
/** Prints the status, whatever the body. */
const STATUS = "curl -sS -o /dev/null -w '%{http_code}\\n'";
const CHAT = JSON.stringify({ model: modelName, stream: true, messages: [{ role: "user", content: slowPrompt }] });

/** A zombie that nobody has buried is none. */
const isAlive = (pid: number): boolean => {
  try {
    return !/^\d+ \(.*\) Z/s.test(readFileSync(`/proc/${pid}/stat`, "latin1"));
  } catch {
    return false;
  }
};

describe("a program through the sidecar", () => {
  it("curl reads issues; its own credentials go nowhere, and the links lead back to the sidecar", async () => {
    rig.gitHub.clear();
    const own = "-H 'Authorization: Bearer sk-own-1' -H 'X-Api-Key: sk-own-2' -H 'DPoP: own-3'";
    const { code, out, err } = await rig.run(`echo $PORTCULLIS_URL; curl -sSi ${own} "${ISSUES}?per_page=2"`);
    expect(code, err).toBe(0);
    const [url] = out.split("\n");
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/);
    expect(out).toMatch(/^HTTP\/1\.1 200 /m);
    expect(out).toContain(`<${url}/github/repos/acme/widgets/issues?`);
    expect(out.toLowerCase()).not.toContain(`<${rig.gate.origin}`);
    expect(rig.gitHub.requests().map(({ authorization }) => authorization)).toEqual([`Bearer ${TOKENS.githubToken}`]);
  });

  it("a Python script posts a comment", async () => {
    rig.gitHub.clear();
    const script = join(dir, "comment.py");
    await writeFile(
      script,
      `import json, os, urllib.request
url = os.environ["PORTCULLIS_URL"] + "/github/repos/acme/widgets/issues/1/comments"
body = json.dumps({"body": "Oiled it \\u2713"}).encode()
request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
with urllib.request.urlopen(request) as answer:
    print(answer.status, json.load(answer)["body"])
`,
    );
    const { code, out, err } = await rig.run(`python3 ${script}`);
    expect({ code, out, err: code === 0 ? "" : err }).toEqual({ code: 0, out: "201 Oiled it ✓\n", err: "" });
    expect(rig.gitHub.requests().map(({ method, target }) => `${method} ${target}`)).toEqual([
      "POST /repos/acme/widgets/issues/1/comments",
    ]);
  });

  it("gives --env its address, and no secret", async () => {
    const options = ["--env", "OPENAI_BASE_URL=/model/v1", "--hide", "VAULT_TOKEN"];
    const { out } = await rig.run("env", options);
    const env = new Map(out.split("\n").map((line) => line.split(/=(.*)/s).slice(0, 2) as [string, string]));
    expect(env.get("OPENAI_BASE_URL")).toBe(`${env.get("PORTCULLIS_URL")}/model/v1`);
    expect([...env.keys()].filter((name) => name.startsWith("PORTCULLIS_"))).toEqual(["PORTCULLIS_URL"]);
    expect(env.has("VAULT_TOKEN")).toBe(false);
    expect(env.get("NO_PROXY")).toContain("127.0.0.1");
    const { access, refresh } = rig.given.at(-1)!;
    for (const secret of ["platform-secret-1", "vault-token-1", access, refresh]) expect(out).not.toContain(secret);
  });

  it("paths arrive as they were sent; what only a parser would resolve, the gate refuses", async () => {
    const target = "/p/a%2Fb/%7Ec/%c3%a9?x=%20&y=%2F";
    const url = "$PORTCULLIS_URL/hostile";
    const { out } = await rig.run(
      `${STATUS} --path-as-is "${url}${target}"; ${STATUS} --path-as-is "${url}/p/../q"; ${STATUS} --request-target '*' -X OPTIONS "${url}"`,
    );
    expect(out).toBe("200\n404\n400\n");
    expect(rig.upstream.requests("/p/a%2Fb/%7Ec/%c3%a9").map((seen) => seen.target)).toEqual([target]);
  });

  it.each([
    ["HEAD", "-I", answerWith(200, { "content-length": "5" }, ""), "200 0"],
    ["204", "", answerWith(204, {}, ""), "204 0"],
    ["304", "", answerWith(304, { etag: '"e"' }, ""), "304 0"],
    ["an upstream's refusal", "", answerWith(418, {}, "short"), "418 5"],
  ])("passes %s, on a connection that goes on", async (name, option, behaviour, expected) => {
    const path = `/head/${name.replace(/\W/g, "")}`;
    rig.upstream.on(path, behaviour);
    const url = `"$PORTCULLIS_URL/hostile${path}"`;
    const { out } = await rig.run(
      `curl -sS ${option} -o /dev/null -w '%{http_code} %{size_download} %{num_connects}\\n' ${url} -o /dev/null ${url}`,
    );
    // HEAD is in no scope here: what counts is that its answer has no body, and ends.
    const first = name === "HEAD" ? expect.stringMatching(/^\d{3} 0 1$/) : `${expected} 1`;
    const second = name === "HEAD" ? expect.stringMatching(/^\d{3} 0 0$/) : `${expected} 0`;
    expect(out.trim().split("\n")).toEqual([first, second]);
  });

  it("passes uploads in chunks, and those that ask first", async () => {
    const url = '"$PORTCULLIS_URL/hostile/upload"';
    const { out } = await rig.run(
      `printf chunked | ${STATUS} -T - ${url}; ${STATUS} -H 'Expect: 100-continue' -d asked ${url} -H 'Content-Type: text/plain'`,
    );
    expect(out).toBe("200\n200\n");
    const seen = rig.upstream.requests("/upload");
    expect(seen.map((one) => [one.method, bodyOf(one).toString(), one.isWhole])).toEqual([
      ["PUT", "chunked", true],
      ["POST", "asked", true],
    ]);
  });

  it("refuses a transfer coding that it can't pass on: the upstream would take what is coded for the content", async () => {
    const url = '"$PORTCULLIS_URL/hostile/coded"';
    const put = (coding: string) => `printf coded | curl -sS -T - -H 'Transfer-Encoding: ${coding}' ${url}`;
    const { out } = await rig.run(["gzip, chunked", "identity, chunked", "Chunked"].map(put).join("; echo; "));
    const answers = out.split("\n");
    for (const answer of answers.slice(0, 2))
      expect(JSON.parse(answer)).toMatchObject({ status: 501, detail: expect.stringContaining("but chunked") });
    expect(rig.upstream.requests("/coded").map((one) => bodyOf(one).toString())).toEqual(["coded"]);
  });

  it("20 MB pass in both directions", async () => {
    const bytes = randomBytes(20 * MIB);
    const file = join(dir, "long.bin");
    await writeFile(file, bytes);
    rig.upstream.on("/long", (incoming, answer) => {
      incoming.on("end", () => {
        answer.writeHead(200, { "content-type": "application/octet-stream" });
        answer.end(bytes);
      });
    });
    const { code, out } = await rig.run(
      `curl -sS -w '%{http_code}\\n' -T ${file} -H 'Content-Type: application/octet-stream' "$PORTCULLIS_URL/hostile/long" -o ${dir}/back.bin`,
    );
    expect({ code, out }).toEqual({ code: 0, out: "200\n" });
    expect((await readFile(`${dir}/back.bin`)).equals(bytes)).toBe(true);
    expect(bodyOf(rig.upstream.requests("/long")[0]!).equals(bytes)).toBe(true);
  });

  it.each(["upload", "download"] as const)("an %s that nobody takes is held back, and not in memory", async (way) => {
    const endless = async (to: Writable): Promise<number> => {
      let bytes = 0;
      const run = Buffer.alloc(MIB);
      for (const endMs = Date.now() + 2_000; Date.now() < endMs && bytes < 256 * MIB; ) {
        if (to.write(run)) await pause(0);
        else await Promise.race([once(to, "drain"), pause(300)]);
        if (to.writableNeedDrain) break;
        bytes += run.length;
      }
      return bytes;
    };
    let sent: Promise<number> | undefined;
    const gate = createServer((_, answer) => {
      // An upload is not read; a download never ends.
      if (way === "download") sent = endless(answer);
    });
    const origin = `http://127.0.0.1:${await listenOnLoopback(gate, 0)}`;
    const grant = { origin, authorize: async () => ({ Authorization: "DPoP x", DPoP: "y" }) } as unknown as HeldGrant;
    const relay = createRelay({ grant, onVerdict: () => {} });
    const door = createServer((incoming, answer) => relay.pass(incoming, answer, "http://127.0.0.1:1"));
    const client = request({ port: await listenOnLoopback(door, 0), host: "127.0.0.1", method: "PUT", path: "/x/y" });
    client.on("error", () => {});
    // Heard, and never read.
    client.on("response", () => {});
    if (way === "upload") sent = endless(client);
    else client.end();
    for (const endMs = Date.now() + 5_000; sent === undefined && Date.now() < endMs; ) await pause(10);
    // What the kernel's buffers of two connections take, and no more.
    expect(await sent).toBeLessThan(100 * MIB);
    client.destroy();
    relay.close();
    await Promise.all([closeServer(door), closeServer(gate)]);
  });

  it("a child that leaves is gone at the upstream, too", async () => {
    rig.upstream.on("/endless", (_, answer) => {
      answer.writeHead(200, { "content-type": "text/event-stream" });
      const timer = setInterval(() => answer.write("data: x\n\n"), 50);
      answer.on("close", () => clearInterval(timer));
    });
    const { out } = await rig.run('curl -sSN -m 1 "$PORTCULLIS_URL/hostile/endless" | head -n 1; echo left');
    expect(out).toBe("data: x\nleft\n");
    expect((await rig.upstream.until("/endless", (seen) => seen.isBrokenOff)).isBrokenOff).toBe(true);
  });

  it("an answer that breaks off looks broken, with and without a length, and to clients of HTTP/1.0", async () => {
    for (const [path, headers] of [
      ["/broken/declared", { "content-length": 1_000_000 }],
      ["/broken/chunked", {}],
    ] as const)
      rig.upstream.on(path, (_, answer) => {
        answer.writeHead(200, { "content-type": "text/event-stream", ...headers });
        answer.write("half", () => setTimeout(() => answer.destroy(), 100));
      });
    const url = '"$PORTCULLIS_URL/hostile/broken';
    const { out } = await rig.run(
      `for o in 'declared' 'chunked' 'chunked --http1.0'; do set -- $o; curl -sN $2 ${url}/$1"; echo " $?"; done`,
    );
    // curl: 18 a part of the body, 56 the connection was reset.
    expect(out).toMatch(/^half 18\nhalf 18\n(half)? 56\n$/);
  });
});

describe("a kill", () => {
  const stream = `curl -sSN -H 'Content-Type: application/json' -d '${CHAT}' "$PORTCULLIS_URL/model/v1/chat/completions"`;
  const script = `${stream} | sed -u 's/.*sheep.*/SHEEP/'; echo "then $(${STATUS} "${ISSUES}")"`;

  it("cuts the stream, the next call is refused, and the program lives on to say so", async () => {
    const sidecar = rig.start(`(${stream}; echo "curl $?") > ${dir}/stream.txt &
      while ! grep -q sheep ${dir}/stream.txt; do sleep 0.05; done; echo streaming; wait
      tail -n 1 ${dir}/stream.txt; ${STATUS} "${ISSUES}"; exit 7`);
    await sidecar.until(/streaming/);
    await rig.flip(await sidecar.instance(), "kill");
    expect(await sidecar.ended).toBe(7);
    // 18: "transfer closed with outstanding read data remaining".
    expect(sidecar.out()).toBe("streaming\ncurl 18\n401\n");
    expect(await readFile(`${dir}/stream.txt`, "utf8")).not.toContain("[DONE]");
    expect(sidecar.err()).toContain("refuses this instance's calls and its renewal");
  });

  it("ends the program, with --stop-on-kill", async () => {
    const sidecar = rig.start(`${script}; sleep 60 & echo "left $!"; wait`, ["--stop-on-kill"]);
    await sidecar.until(/SHEEP/);
    await rig.flip(await sidecar.instance(), "kill");
    const code = await sidecar.ended;
    expect(sidecar.out()).toMatch(/then 401\n/);
    expect({ code, said: sidecar.err() }).toEqual({ code: 3, said: expect.stringContaining("ending sh") });
    const [, left] = /left (\d+)/.exec(sidecar.out()) ?? [];
    if (left !== undefined) expect(isAlive(Number(left))).toBe(false);
  });

  it("ends one that does not want to go", async () => {
    const sidecar = rig.start(
      `trap 'echo heard' TERM; echo "me $$"; while true; do ${STATUS} "${ISSUES}"; sleep 0.1; done`,
      ["--stop-on-kill", "--kill-after", "0.5"],
    );
    await sidecar.until(/^200$/m);
    await rig.flip(await sidecar.instance(), "kill");
    expect(await sidecar.ended).toBe(3);
    expect(sidecar.out()).toContain("heard");
    expect(isAlive(Number(/me (\d+)/.exec(sidecar.out())?.[1]))).toBe(false);
  });

  it("is not what a pause is, for who waits longer than it lasts", async () => {
    const sidecar = rig.start(
      `while [ "$(${STATUS} "${ISSUES}")" = 200 ]; do sleep 0.05; done; echo paused; while [ "$(${STATUS} "${ISSUES}")" != 200 ]; do sleep 0.1; done; echo resumed`,
      ["--stop-on-kill", "--stop-after", "30"],
    );
    const target = await sidecar.instance();
    await rig.flip(target, "pause");
    await sidecar.until(/paused/);
    await pause(300);
    await rig.flip(target, "resume");
    expect(await sidecar.ended, sidecar.err()).toBe(0);
    expect(sidecar.out()).toBe("paused\nresumed\n");
  });
});

describe("who else calls", () => {
  const ask = (url: string, headers: Record<string, string> = {}) =>
    new Promise<{ status: number; text: string }>((resolve, reject) => {
      const outgoing = request(`${url}/github/repos/acme/widgets/issues`, { headers }, (answer) => {
        let text = "";
        answer.on("data", (run: Buffer) => {
          text += run.toString();
        });
        answer.on("end", () => resolve({ status: answer.statusCode ?? 0, text }));
      });
      outgoing.on("error", reject).end();
    });

  it("another process of this machine is refused, and nothing of it reaches the gate", async () => {
    rig.gitHub.clear();
    const sidecar = rig.start("sleep 60");
    const { status, text } = await ask(await sidecar.url());
    expect([status, text]).toEqual([403, expect.stringContaining("only the process that was started beside it")]);
    expect(rig.gitHub.requests()).toEqual([]);
    expect(sidecar.err()).toContain("a process that is not the command's called");
    sidecar.process.kill("SIGTERM");
    expect(await sidecar.ended).toBe(143);
  });

  it("descendants are served, even those whose parent is gone", async () => {
    const script = join(dir, "orphan.py");
    await writeFile(
      script,
      `import os, time, urllib.request
time.sleep(0.5)
with urllib.request.urlopen(os.environ["PORTCULLIS_URL"] + "/github/repos/acme/widgets/issues") as answer:
    print(answer.status, os.getppid(), flush=True)
`,
    );
    const { out } = await rig.run(`echo "$$ leads"; sh -c 'echo "$$ leaves"; python3 ${script} &'; sleep 3`);
    const [leader, between, ppid] = out.match(/^\d+(?= leads)|^\d+(?= leaves)|(?<=^200 )\d+/gm) ?? [];
    expect(ppid, out).toBeDefined();
    expect([leader, between]).not.toContain(ppid);
  });

  it.each([
    ["a foreign Host", "-H 'Host: rebound.example'", "another host is meant"],
    [
      "a foreign Host of the right port",
      `-H "Host: rebound.example:$(echo $PORTCULLIS_URL | cut -d: -f3)"`,
      "another host is meant",
    ],
    ["an Origin", "-H 'Origin: https://page.example'", "no web page is served"],
    ["its own Origin", '-H "Origin: $PORTCULLIS_URL"', "no web page is served"],
    ["a browser's navigation", "-H 'Sec-Fetch-Site: none'", "no web page is served"],
  ])("%s is refused, from the right process, too", async (_, header, reason) => {
    const { out } = await rig.run(`curl -sS -w '%{http_code}' ${header} "${ISSUES}"`);
    expect(out).toContain(reason);
    expect(out).toMatch(/403$/);
  });

  it.runIf(process.getuid?.() === 0)(
    "a command that gives up its user is served, and can't look into the sidecar",
    async () => {
      const look = `sh -c 'id -u; ${STATUS.replaceAll("'", '"')} "${ISSUES}"; tr "\\\\0" "\\\\n" < /proc/$SIDECAR/environ | grep ^PORTCULLIS_P; true'`;
      const { out, err } = await rig.run(`export SIDECAR=$PPID; ${look}; setpriv --reuid 65534 --clear-groups ${look}`);
      // The same user sees what the sidecar was started with, as the documentation says.
      expect(out, err).toBe("0\n200\nPORTCULLIS_PLATFORM_SECRET=platform-secret-1\n65534\n200\n");
      expect(err).toMatch(/environ.*denied/i);
    },
  );

  it("a unix socket is its owner's", async () => {
    const socket = join(dir, "gate.sock");
    const { code, out } = await rig.run(
      `stat -c %a $PORTCULLIS_SOCKET; ${STATUS} --unix-socket $PORTCULLIS_SOCKET "$PORTCULLIS_URL/github/repos/acme/widgets/issues"`,
      ["--socket", socket],
    );
    expect({ code, out }).toEqual({ code: 0, out: "600\n200\n" });
    await expect(stat(socket)).rejects.toThrow("ENOENT");
  });
});

describe("the end", () => {
  const stateOf = async (index: number) =>
    (await rig.gate.introspect(rig.given.at(index)!.refresh)).json as { active: boolean };

  it("gives the grant back with the program's end, whose exit code it has", async () => {
    const sidecar = rig.start(`read _ < ${dir}/go; exit 42`);
    await sidecar.url();
    expect(await stateOf(-1)).toMatchObject({ active: true });
    await writeFile(`${dir}/go`, "");
    expect(await sidecar.ended).toBe(42);
    expect(await stateOf(-1)).toEqual({ active: false });
  });

  it("says by which signal the program ended", async () => {
    expect((await rig.run("kill -KILL $$")).code).toBe(137);
  });

  it.each([
    ["SIGTERM", 5],
    ["SIGINT", 6],
    ["SIGHUP", 7],
  ] as const)("passes %s on, waits, and gives the grant back", async (signal, code) => {
    const name = signal.slice(3);
    const sidecar = rig.start(`trap 'exit ${code}' ${name}; echo ready; while true; do sleep 0.05; done`);
    await sidecar.until(/ready/);
    sidecar.process.kill(signal);
    expect(await sidecar.ended).toBe(code);
    expect(await stateOf(-1)).toEqual({ active: false });
  });

  it("SIGUSR1 opens no inspector: it is the child who could send it", async () => {
    const { code, err } = await rig.run("kill -USR1 $PPID; sleep 0.5; exit 9");
    expect({ code, inspector: /Debugger listening/.test(err) }).toEqual({ code: 9, inspector: false });
  });

  it("in a terminal shares the session: Ctrl-C is heard once, and descendants are still told from others", async () => {
    const script = join(dir, "terminal.py");
    // The sidecar in a terminal of its own, and Ctrl-C typed there when the command is ready.
    await writeFile(
      script,
      `import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
seen, typed = b"", False
while True:
    try:
        run = os.read(fd, 4096)
    except OSError:
        break
    if not run:
        break
    seen += run
    if b"ready" in seen and not typed:
        typed = True
        os.write(fd, b"\\x03")
sys.stdout.write(seen.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`,
    );
    const inner = `trap 'echo heard' INT; ${STATUS} "${ISSUES}"; tty -s && echo ready; sleep 1; sleep 1; exit 8`;
    const args = ["--gate", rig.gate.origin, "--grant-command", rig.grantCommand(), "--", "sh", "-c", inner];
    const main = new URL("./sidecar-main.ts", import.meta.url).pathname;
    // Not in sync: platform and gate are of this process.
    const terminal = spawn("python3", [script, process.execPath, main, ...args], {
      env: { ...process.env, ...SECRETS },
      stdio: ["ignore", "pipe", "inherit"],
      timeout: 20_000,
    });
    const [text, [code]] = await Promise.all([terminal.stdout.toArray(), once(terminal, "exit")]);
    const seen = Buffer.concat(text).toString();
    expect(code, seen).toBe(8);
    expect(seen.match(/^(200|ready|.*heard)(?=\r)/gm)?.map((line) => line.replace("^C", ""))).toEqual([
      "200",
      "ready",
      "heard",
    ]);
    expect(await stateOf(-1)).toEqual({ active: false });
  });

  it("closes with the task's deadline", async () => {
    const deadline = String(Math.floor(Date.now() / 1000) + 6);
    const { code, out, err } = await rig.run(
      `${STATUS} "${ISSUES}"; sleep 7; ${STATUS} "${ISSUES}" 2>/dev/null; echo $?`,
      [],
      { deadline },
    );
    // 7: connection refused.
    expect({ code, out }).toEqual({ code: 0, out: "200\n000\n7\n" });
    expect(err).toContain("deadline is over");
  });
});

describe("no grant", () => {
  const file = (members: object = {}) => ({
    client: "build-platform",
    clientKey: rig.gate.secrets.platformClientKey,
    idToken: rig.gate.idToken(),
    task: "sidecar-1",
    purpose: "to test",
    seconds: 600,
    agentVersion: "1.4.0",
    authorization_details: SCOPE,
    ...members,
  });
  const withFile = async (members: object, script = `${STATUS} "${ISSUES}"`) => {
    const path = join(dir, "provision.json");
    await writeFile(path, JSON.stringify(file(members)));
    const sidecar = rig.startWith(["--gate", rig.gate.origin, "--provision", path, "--", "sh", "-c", script]);
    return { code: await sidecar.ended, out: sidecar.out(), err: sidecar.err() };
  };

  it("but one by a file, with key and ID token in it, beside it, or from a command", async () => {
    expect(await withFile({})).toMatchObject({ code: 0, out: "200\n" });
    const { idToken, clientKey } = file();
    await writeFile(join(dir, "key.json"), JSON.stringify(clientKey));
    await writeFile(join(dir, "id.jwt"), `${idToken}\n`);
    expect(await withFile({ clientKey: "key.json", idToken: { file: "id.jwt" } })).toMatchObject({ out: "200\n" });
    expect(await withFile({ idToken: { command: `cat ${dir}/id.jwt` } })).toMatchObject({ out: "200\n" });
  });

  it.each([
    ["a member that is missing", { task: undefined }, 2, "task: "],
    ["one that nobody knows", { porpoise: "x" }, 2, "porpoise"],
    ["both deadline and seconds", { deadline: 4_000_000_000 }, 2, "one of deadline and seconds"],
    ["a key that is not there", { clientKey: "nowhere.json" }, 2, "clientKey: ENOENT"],
    ["a version that nobody runs", { agentVersion: "9.9.9" }, 3, "the authority refused: invalid_request, "],
    ["a client that nobody knows", { client: "nobody" }, 3, "the authority refused: invalid_client"],
  ])("by a file with %s", async (_, members, code, reason) => {
    const end = await withFile(members);
    expect(end).toMatchObject({ code, out: "", err: expect.stringContaining(reason) });
  });

  it.each([
    ["that fails", "exit 9", "ended with 9"],
    ["that prints no JSON", "echo ghp_something", "printed no JSON"],
    ["that prints another thing", "echo '{\"access_token\":1}'", "no grant: access_token"],
    [
      "whose tokens are bearer tokens",
      'echo \'{"access_token":"a","token_type":"Bearer","expires_in":1}\'',
      "token_type",
    ],
    ["that prints a refusal", 'echo \'{"error":"invalid_target"}\'; exit 1', "the authority refused: invalid_target"],
  ])("by a grant command %s", async (_, command, reason) => {
    const sidecar = rig.startWith(["--gate", rig.gate.origin, "--grant-command", command, "--", "echo", "ran"]);
    expect({ code: await sidecar.ended, out: sidecar.out() }).toEqual({ code: 3, out: "" });
    expect(sidecar.err()).toContain(reason);
    expect(sidecar.err()).not.toContain("ghp_something");
  });

  it("while a switch is closed, of which the platform hears more than who starts the command", async () => {
    const pause = { reach: "task", target: { task: "build-platform_paused" }, act: "pause", reason: "a test" };
    expect((await rig.gate.asAdmin("/admin/v1/switches", { body: pause })).status).toBe(201);
    const { code, out, err } = await rig.run("echo ran", [], { task: "paused" });
    expect({ code, out }).toEqual({ code: 3, out: "" });
    expect(err).toBe("portcullis: the authority refused: invalid_request\n");
    expect((await withFile({ task: "paused" })).err).toContain("invalid_request, closed by a switch");
  });

  it("by a grant of another key", async () => {
    const { json } = await rig.gate.provision();
    await writeFile(join(dir, "other.json"), JSON.stringify(json));
    const args = ["--gate", rig.gate.origin, "--grant-command", `cat ${dir}/other.json`, "--", "echo", "ran"];
    const sidecar = rig.startWith(args);
    expect({ code: await sidecar.ended, out: sidecar.out() }).toEqual({ code: 3, out: "" });
    expect(sidecar.err()).toContain("bound to another key");
  });

  it("where the gate is down, or is none", async () => {
    const to = async (gate: string) => {
      const sidecar = rig.startWith(["--gate", gate, "--grant-command", "echo asked >&2", "--", "echo", "ran"]);
      return { code: await sidecar.ended, out: sidecar.out(), err: sidecar.err() };
    };
    const down = await to("http://127.0.0.1:1");
    expect(down).toMatchObject({ code: 4, out: "" });
    expect(down.err).toContain("the gate http://127.0.0.1:1 can't be reached");
    expect(down.err).not.toContain("asked");
    expect((await to(rig.upstream.baseUrl)).code).not.toBe(0);
    const alias = rig.gate.origin.replace("127.0.0.1", "localhost");
    expect(await to(alias)).toMatchObject({ code: 2, err: expect.stringContaining(rig.gate.origin) });
  });

  it("the command is not there: 127, and the grant is given back", async () => {
    const command = rig.grantCommand();
    const sidecar = rig.startWith(["--gate", rig.gate.origin, "--grant-command", command, "--", "no-such-command"]);
    expect(await sidecar.ended).toBe(127);
    expect(sidecar.err()).toContain("no-such-command can't be run");
    expect((await rig.gate.introspect(rig.given.at(-1)!.refresh)).json).toEqual({ active: false });
  });

  const GATE = ["--gate", "https://gate.example.com"];
  const BY = ["--grant-command", "true"];
  it.each([
    ["no command", [...GATE, ...BY], "a command after --"],
    ["nothing to provision by", [...GATE, "--", "true"], "one of --grant-command, --provision and --sub-agent"],
    ["both", [...GATE, ...BY, "--provision", "x", "--", "true"], "one of --grant-command, --provision and --sub-agent"],
    ["no gate", [...BY, "--", "true"], "give --gate"],
    ["a gate with a path", ["--gate", "https://gate.example.com/x", ...BY, "--", "true"], "an origin has no path"],
    ["a gate without TLS", ["--gate", "http://gate.example.com", ...BY, "--", "true"], "http is for loopback only"],
    ["an unknown option", [...GATE, ...BY, "--stop-on-kil", "--", "true"], "--stop-on-kil"],
    ["a port that is none", [...GATE, ...BY, "--port", "70000", "--", "true"], "is not a port"],
    ["an address without a path", [...GATE, ...BY, "--env", "X=model", "--", "true"], "a name and a path"],
    ["a name of its own", [...GATE, ...BY, "--env", "PORTCULLIS_URL=/x", "--", "true"], "the sidecar's own"],
    ["a wait for nothing", [...GATE, ...BY, "--stop-after", "1", "--", "true"], "belongs to --stop-on-kill"],
    ["a URL of a socket", [...GATE, ...BY, "--socket", "/x", "--env", "X=/y", "--", "true"], "needs a port"],
  ])("bad options: %s", async (_, args, reason) => {
    const sidecar = rig.startWith(args);
    expect({ code: await sidecar.ended, out: sidecar.out() }).toEqual({ code: 2, out: "" });
    expect(sidecar.err()).toContain(reason);
  });
});

describe("headers", () => {
  it("that are the child's own credentials, the hop's, or named by it, do not leave", () => {
    const sent = ["Authorization", "a", "dpop", "b", "X-API-Key", "c", "Cookie", "d", "Proxy-Authorization", "e"];
    const hop = [
      "Connection",
      "close, X-Mine, Content-Length",
      "X-Mine",
      "f",
      "TE",
      "trailers",
      "Upgrade",
      "websocket",
    ];
    const kept = ["Accept", "*/*", "X-Two", "1", "x-two", "2", "Content-Length", "3", "__proto__", "4", "Host", "evil"];
    expect({ ...headersForGate([...sent, ...hop, ...kept], "gate.example.com") }).toEqual({
      accept: "*/*",
      "x-two": ["1", "2"],
      "content-length": "3",
      ["__proto__"]: "4",
      host: "gate.example.com",
    });
  });

  it("that lead to the gate lead to the sidecar, and no others", () => {
    const [gate, local] = ["https://gate.example.com", "http://127.0.0.1:5"];
    const link = `<${gate}/a>; rel="next", <${gate}.evil.example/b>; rel="prev", </c>; rel="last"`;
    const all = ["Location", `${gate}/github/x?y`, "Link", link, "Keep-Alive", "timeout=5", "ETag", '"e"'];
    expect(headersForChild(all, gate, local)).toEqual([
      ...["Location", `${local}/github/x?y`],
      ...["Link", `<${local}/a>; rel="next", <${gate}.evil.example/b>; rel="prev", </c>; rel="last"`],
      ...["ETag", '"e"'],
    ]);
  });
});
