// What the tests of kill switches share: calls of every kind that go on until somebody stops them, and a receipt held to what is in
// the bucket by the verifier that is shipped.

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { gunzipSync } from "node:zlib";
import { pullBucket } from "../../scripts/local/verify-folder.ts";
import { verifyReceiptFile } from "../../scripts/local/verify-receipt-file.ts";
import type { Receipt } from "../../src/control/receipt.ts";
import { parseSealKeys, type SealKeys } from "../../src/transcript/verify-keys.ts";
import type { GateRig, Heard, Instance, Line } from "./gate-rig.ts";
import type { Answer, Members } from "./harness.ts";
import { pause } from "./hostile-upstream.ts";

export type SignedReceipt = Receipt & { readonly jws: string };
export const SWITCHES = "/admin/v1/switches";

/** An answer's head at once, then a little every few milliseconds, until the connection is closed or `isOver`. */
export function serveEndless(rig: GateRig, path: string, isOver: () => boolean = () => false): void {
  rig.upstream.on(path, (request, answer) => {
    request.resume();
    answer.writeHead(200, { "content-type": "text/event-stream" });
    const timer = setInterval(() => {
      answer.write("data: on and on\n\n");
      if (isOver()) answer.end();
    }, 40);
    answer.on("close", () => clearInterval(timer));
  });
}

export interface Stream {
  readonly who: Instance;
  readonly target: string;
  readonly ended: Promise<Heard | null>;
  /** When it was over, for whatever reason; 0: it runs. */
  endedAtMs: number;
  lastByteAtMs: number;
}

/** Resolves when its first bytes are here. */
export async function startStream(rig: GateRig, who: Instance, target: string): Promise<Stream> {
  const begun = Promise.withResolvers<void>();
  const onData = (_run: Buffer, atMs: number) => {
    stream.lastByteAtMs = atMs;
    begun.resolve();
  };
  const ended = rig
    .call(who, target, { onData })
    .catch(() => null)
    .finally(() => {
      stream.endedAtMs = Date.now();
      begun.reject(new Error(`${target} ended before its first byte`));
    });
  const stream: Stream = { who, target, ended, endedAtMs: 0, lastByteAtMs: 0 };
  begun.promise.catch(() => {});
  await begun.promise;
  return stream;
}

export const flip = (
  rig: GateRig,
  act: "kill" | "pause" | "resume",
  reach: string,
  target: Members,
  reason = "a test",
): Promise<Answer> => rig.h.asAdmin(SWITCHES, { body: { act, reach, target, reason } });

/** Kills, and carries on asking until nobody in reach can act any more. */
export async function killed(rig: GateRig, reach: string, target: Members, reason?: string): Promise<SignedReceipt> {
  const { status, json, text } = await flip(rig, "kill", reach, target, reason);
  if (status !== 201 && status !== 202) throw new Error(`not killed: ${status} ${text}`);
  return untilDone(rig, (json as unknown as Receipt).switch.id);
}

export async function untilDone(rig: GateRig, id: string, timeoutMs = 15_000): Promise<SignedReceipt> {
  for (const endMs = Date.now() + timeoutMs; ; await pause(50)) {
    const receipt = (await rig.h.asAdmin(`${SWITCHES}/${id}`)).json as unknown as SignedReceipt;
    if (receipt.status === "done") return receipt;
    if (Date.now() > endMs) throw new Error(`not done: ${JSON.stringify({ ...receipt, jws: "" })}`);
  }
}

export function sealKeys(rig: GateRig): SealKeys {
  const keys = parseSealKeys({ keys: rig.h.secrets.sealKeys.keys.map(({ d: _, ...key }) => key) });
  if (!keys.ok) throw new Error(keys.error);
  return keys.value;
}

/**
 * A copy of the bucket that grows: what stands there is written once, so it is fetched once.
 * @param of whose transcripts; null: everybody's, and the journals
 */
export async function startCopy(rig: GateRig, of: readonly Instance[] | null = null) {
  const ids = of === null ? null : new Set(of.map(({ id }) => id));
  const isWanted = (key: string): boolean => ids === null || ids.has(/\/instance=([^/]+)\//.exec(key)?.[1] ?? "");
  const folder = await mkdtemp(join(tmpdir(), "portcullis-kill-"));
  const known = new Map<string, ArrayBuffer>();
  const pull = async (): Promise<void> => {
    const bucket = await rig.bucket();
    await pullBucket(
      {
        list: (options) => bucket.list(options),
        get: async (key) => {
          // What is there already is not written again.
          if (known.has(key) || !isWanted(key)) return null;
          const bytes = await (await bucket.get(key))?.arrayBuffer();
          if (bytes === undefined) return null;
          known.set(key, bytes);
          return { arrayBuffer: async () => bytes };
        },
      },
      folder,
    );
  };
  const lines = new Map<string, Line[]>();
  return {
    pull,
    /** As far as it was pulled, in the order of the transcript. */
    linesOf(who: Instance): readonly Line[] {
      const keys = [...known.keys()].filter((key) => key.startsWith("transcripts/") && key.includes(`=${who.id}/`));
      for (const key of keys.filter((key) => !lines.has(key))) {
        const text = gunzipSync(known.get(key)!).toString();
        lines.set(
          key,
          text.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line) as Line])),
        );
      }
      const all = keys.flatMap((key) => lines.get(key)!).filter(({ type }) => type !== undefined);
      return all.sort((a, b) => a.seq - b.seq);
    },
    /** Everything that the verifier finds fault with, in the transcripts and in this receipt. */
    async faults(receipt: SignedReceipt): Promise<string[]> {
      const file = join(await mkdtemp(join(tmpdir(), "portcullis-receipt-")), "receipt.json");
      await writeFile(file, JSON.stringify(receipt));
      const options = { keys: sealKeys(rig), issuer: rig.origin, nowMs: Date.now() };
      const { report, receipt: held } = await verifyReceiptFile(folder, file, options);
      await rm(dirname(file), { recursive: true });
      const found = [...report.transcripts.flatMap(({ findings }) => findings), ...held.findings];
      return [
        ...found.map(({ place, problem }) => `${place}: ${problem}`),
        ...held.notAtHand.filter((id) => ids?.has(id) ?? true).map((instance) => `${instance}: no transcript`),
        ...(report.ok && held.ok ? [] : ["it does not verify"]),
      ];
    },
    close: () => rm(folder, { recursive: true, force: true }),
  };
}
export type Copy = Awaited<ReturnType<typeof startCopy>>;

/** What comes into the bucket comes a moment later: what is missing by then is a fault. */
export async function settledFaults(copy: Copy, receipt: SignedReceipt): Promise<string[]> {
  let faults: string[] = [];
  for (const endMs = Date.now() + 20_000; Date.now() < endMs; await pause(300)) {
    await copy.pull();
    faults = await copy.faults(receipt);
    if (faults.length === 0) break;
  }
  return faults;
}
