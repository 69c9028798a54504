// The running gate between an instance that holds a grant and an upstream that does what a test says, with eyes on all three: the
// agent's socket, the upstream's, and what came into R2.

import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { request as openRequest } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import type { HostileUpstream as HostileConfig, LocalAddresses } from "../../scripts/local/config.ts";
import { type GateOptions, type LocalGate, startGate } from "../../scripts/local/gate.ts";
import { type Harness, type Members, NOWHERE, type SigningKey, sha256, startHarness } from "./harness.ts";
import { type HostileUpstream, pause, startHostileUpstream } from "./hostile-upstream.ts";

export const METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
export const ANYTHING = {
  type: "http",
  upstream: "hostile",
  operations: [...METHODS.map((method) => `${method} /{+path}`), "GET /trailing/"],
};
const RULES = [
  { type: "http", upstream: "strict", operations: ["POST /rules/{rule}"], where: { "body./model": ["small"] } },
  { type: "http", upstream: "strict", operations: ["GET /rules/{rule}"], where: { "query.limit": ["1", "2"] } },
];

export interface Instance {
  readonly key: SigningKey;
  readonly access: string;
  /** Its id. */
  readonly id: string;
}

/** A record's line. */
export type Line = Members & { readonly type: string; readonly seq: number };

export interface Sent {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  /** Given whole with its length; an iterable goes in chunks without one. */
  readonly body?: Buffer | string | AsyncIterable<Buffer>;
  /** Instead of a right one; null sends none. */
  readonly proof?: string | readonly string[] | null;
  readonly authorization?: string | null;
  /** Closes the connection with a reset. */
  readonly signal?: AbortSignal;
  /** Hears each run as it comes. */
  readonly onData?: (run: Buffer, atMs: number) => void;
  /** Called with the answer's head; by pausing it a test is a slow reader. */
  readonly onHead?: (answer: import("node:http").IncomingMessage) => void;
}

export interface Heard {
  readonly status: number;
  readonly headers: import("node:http").IncomingHttpHeaders;
  readonly rawHeaders: readonly string[];
  readonly body: Buffer;
  /** The answer came to its end by its framing. */
  readonly isWhole: boolean;
  /** Everything that the agent can tell answers apart by. */
  readonly face: string;
}

export type GateRig = Awaited<ReturnType<typeof startGateRig>>;

/** Instead of what the rig makes itself. */
export interface RigParts {
  /** Stays when the rig is closed. */
  readonly stateDir?: string;
  /** Of an upstream that is the caller's. */
  readonly baseUrl?: string;
  readonly around?: Pick<GateOptions, "entry" | "bindings" | "onLog">;
}

export async function startGateRig(
  config: Omit<HostileConfig, "baseUrl"> = {},
  addresses: Partial<LocalAddresses> = {},
  parts: RigParts = {},
) {
  const stateDir = parts.stateDir ?? (await mkdtemp(join(tmpdir(), "portcullis-gate-")));
  const upstream: HostileUpstream = await startHostileUpstream();
  const figures = { flushAfterMs: 100, callsPerSecond: 1_000, burst: 1_000, ...addresses };
  const { around = {}, baseUrl = upstream.baseUrl } = parts;
  const hostile = { baseUrl, ...config };
  const h: Harness = await startHarness({ stateDir, around, addresses: { ...figures, hostile } });
  const { origin } = h;
  const port = Number(new URL(origin).port);
  let gate: LocalGate = h.gate;

  const provision = async (details: readonly unknown[] = [ANYTHING, ...RULES]): Promise<Instance> => {
    const { key, access } = await h.provision({ form: { authorization_details: JSON.stringify(details) } });
    return { key, access, id: key.thumbprint };
  };

  const proofFor = (who: Instance, method: string, path: string, claims: Members = {}, header: Members = {}): string =>
    h.proof(who.key, { htm: method, htu: origin + path.split("?")[0], ath: sha256(who.access), ...claims }, header);

  const headersOf = (who: Instance, path: string, sent: Sent): Record<string, string | string[]> => {
    const { method = "GET", proof = proofFor(who, method, path), authorization = `DPoP ${who.access}` } = sent;
    return {
      ...(sent.headers as Record<string, string>),
      ...(authorization === null ? {} : { Authorization: authorization }),
      ...(proof === null ? {} : { DPoP: proof as string }),
    };
  };

  /** One request on a connection of its own. Rejects where no answer began. */
  const call = (who: Instance, path: string, sent: Sent = {}): Promise<Heard> => {
    const { body } = sent;
    const isWhole = typeof body === "string" || Buffer.isBuffer(body);
    return new Promise((resolve, reject) => {
      const outgoing = openRequest({
        host: "127.0.0.1",
        port,
        path,
        agent: false,
        method: sent.method ?? "GET",
        headers: { ...headersOf(who, path, sent), ...(isWhole ? { "content-length": Buffer.byteLength(body) } : {}) },
      });
      sent.signal?.addEventListener("abort", () => outgoing.socket?.resetAndDestroy());
      outgoing.on("error", reject);
      outgoing.on("response", (answer) => {
        const runs: Buffer[] = [];
        answer.on("data", (run: Buffer) => {
          runs.push(run);
          sent.onData?.(run, Date.now());
        });
        answer.on("error", () => {});
        answer.on("close", () => {
          const { statusCode: status = 0, headers, rawHeaders } = answer;
          const bytes = Buffer.concat(runs);
          const { date: _, ...rest } = headers;
          const face = JSON.stringify([status, rest, bytes.toString("latin1")]);
          resolve({ status, headers, rawHeaders, body: bytes, isWhole: answer.complete, face });
        });
        sent.onHead?.(answer);
      });
      if (body === undefined || isWhole) outgoing.end(body);
      else
        void (async () => {
          for await (const run of body) if (!outgoing.write(run)) await drained(outgoing);
          outgoing.end();
        })().catch(() => outgoing.destroy());
    });
  };

  /** A request line and headers exactly as given, and what came back: its status, its text. */
  const raw = (text: string): Promise<{ readonly status: number; readonly text: string }> =>
    new Promise((resolve, reject) => {
      const socket = connect(port, "127.0.0.1", () => socket.write(text, "latin1"));
      let answer = "";
      socket.setTimeout(5_000, () => socket.destroy());
      socket.on("data", (run) => {
        answer += run.toString("latin1");
      });
      socket.on("error", reject);
      socket.on("close", () => resolve({ status: Number(answer.split(" ")[1] ?? 0), text: answer }));
    });

  /** With right credentials for `htu`, on a request line of any shape. */
  const rawCall = (who: Instance, line: { method: string; target: string; htu?: string; headers?: string }) => {
    const proof = proofFor(who, line.method, line.htu ?? line.target);
    const fixed = `Host: 127.0.0.1:${port}\r\nConnection: close\r\nAuthorization: DPoP ${who.access}\r\nDPoP: ${proof}\r\n`;
    return raw(`${line.method} ${line.target} HTTP/1.1\r\n${fixed}${line.headers ?? ""}\r\n`);
  };

  /** Written once, so read once. */
  const segments = new Map<string, Members[]>();
  async function readBucket(prefix: string, instance: string): Promise<Members[]> {
    const bucket = await gate.miniflare.getR2Bucket("TRANSCRIPTS");
    const keys = (await keysOf(prefix, instance)).filter((key) => key.endsWith(".gz"));
    for (const key of keys.filter((key) => !segments.has(key))) {
      const text = gunzipSync((await (await bucket.get(key))?.arrayBuffer()) ?? "").toString();
      segments.set(
        key,
        text.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line) as Members])),
      );
    }
    return keys.flatMap((key) => segments.get(key) ?? []);
  }

  /** Where an instance's objects lie, of human and task, once one of them was seen: nobody else's are listed again. */
  const partitions = new Map<string, string>();
  async function keysOf(prefix: string, instance: string): Promise<string[]> {
    const bucket = await gate.miniflare.getR2Bucket("TRANSCRIPTS");
    const keys: string[] = [];
    const within = prefix + (partitions.get(instance) ?? "");
    let cursor: string | undefined;
    do {
      const listed = await bucket.list({ prefix: within, ...(cursor === undefined ? {} : { cursor }) });
      keys.push(...listed.objects.map(({ key }) => key).filter((key) => key.includes(`/instance=${instance}/`)));
      cursor = listed.truncated ? listed.cursor : undefined;
    } while (cursor !== undefined);
    const [, partition] = /^[a-z]+\/(.*\/instance=[^/]+\/)/.exec(keys[0] ?? "") ?? [];
    if (partition !== undefined) partitions.set(instance, partition);
    return keys;
  }

  /** The instance's records in R2, as soon as one of them fits. */
  async function records(who: Instance, fits: (line: Line) => boolean, timeoutMs = 20_000): Promise<Line[]> {
    for (const endMs = Date.now() + timeoutMs; Date.now() < endMs; await pause(40)) {
      const lines = (await readBucket("transcripts/", who.id)) as Line[];
      if (lines.some(fits)) return lines.filter(({ type }) => type !== undefined);
    }
    throw new Error("no such record came into R2");
  }

  /** The call to this target and its answer, when that is on record. */
  async function recorded(who: Instance, target: string) {
    let call: Line | undefined;
    const lines = await records(who, (line) => {
      if (line.type === "call" && line["target"] === target) call = line;
      return line.type === "answer" && line["call"] === call?.seq;
    });
    const answer = lines.find(({ type, call: of }) => type === "answer" && of === call?.seq);
    if (call === undefined || answer === undefined) throw new Error("not recorded");
    return { call, answer, lines };
  }

  const refused = async (who: Instance, target: string, nth = 1): Promise<Line> => {
    const fits = (line: Line) => line.type === "refused" && line["target"] === target;
    let count = 0;
    const lines = await records(who, (line) => {
      if (line.seq === 0) count = 0;
      return fits(line) && ++count >= nth;
    });
    return lines.filter(fits)[nth - 1] as Line;
  };

  /** A recorded body, from `bodies/…`. */
  async function recordedBody(who: Instance, seq: number, part: "request" | "answer"): Promise<Buffer> {
    const lines = await readBucket("bodies/", who.id);
    const runs = lines.filter((line) => line["seq"] === seq && line["part"] === part);
    runs.sort((a, b) => Number(a["index"]) - Number(b["index"]));
    const bytes = runs.map(({ text, base64, raw }) => {
      if (raw !== undefined) return rawBody(who.id, raw as string);
      return text === undefined ? Buffer.from((base64 as string) ?? "", "base64") : Buffer.from(text as string);
    });
    return Buffer.concat(await Promise.all(bytes));
  }

  async function rawBody(instance: string, name: string): Promise<Buffer> {
    const bucket = await gate.miniflare.getR2Bucket("TRANSCRIPTS");
    const keys = (await keysOf("bodies/", instance)).filter((key) => key.includes(`/${name}.`));
    const objects = keys.sort().map(async (key) => Buffer.from(await (await bucket.get(key))!.bytes()));
    return Buffer.concat(await Promise.all(objects));
  }

  return {
    h,
    origin,
    port,
    stateDir,
    upstream,
    provision,
    proofFor,
    call,
    raw,
    rawCall,
    records,
    recorded,
    refused,
    recordedBody,
    jti: randomUUID,
    /** The same gate, its state and its origin, with another configuration. */
    async restart(next: Omit<HostileConfig, "baseUrl">): Promise<void> {
      await gate.close();
      gate = await startGate({
        port,
        stateDir,
        ...around,
        secrets: h.secrets,
        addresses: {
          ...figures,
          issuer: h.idp.issuer,
          jwksUri: h.idp.jwksUri,
          github: NOWHERE,
          slack: NOWHERE,
          model: NOWHERE,
          hostile: { baseUrl, ...next },
        },
      });
      if (gate.origin !== origin) throw new Error("the port was taken meanwhile");
    },
    /** kill -9 of the gate's workerd, in the middle of whatever it does. */
    crash(): readonly number[] {
      const ours = (pid: number): boolean => {
        try {
          const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
          const [, name, rest] = /^\d+ \((.*)\) (.*)$/s.exec(stat) ?? [];
          return name === "workerd" && rest?.split(" ")[1] === String(process.pid);
        } catch {
          return false;
        }
      };
      const pids = readdirSync("/proc")
        .map(Number)
        .filter((pid) => pid > 0 && ours(pid));
      if (pids.length === 0) throw new Error("no workerd to kill");
      for (const pid of pids) process.kill(pid, "SIGKILL");
      return pids;
    },
    bucket: () => gate.miniflare.getR2Bucket("TRANSCRIPTS"),
    async close(): Promise<void> {
      await upstream.close();
      if (gate !== h.gate) await gate.close();
      await h.close();
      if (parts.stateDir === undefined) await rm(stateDir, { recursive: true, force: true });
    },
  };
}

const drained = (outgoing: import("node:http").ClientRequest): Promise<void> =>
  new Promise((resolve, reject) => {
    const settle = (then: () => void) => () => {
      outgoing.off("drain", drain).off("close", close);
      then();
    };
    const drain = settle(resolve);
    const close = settle(() => reject(new Error("closed")));
    outgoing.once("drain", drain).once("close", close);
  });
