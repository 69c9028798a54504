// The whole organisation on loopback: identity provider, three upstreams, the gate between them, and the way to copy its bucket.
// Everything comes up in one go and goes down in one go, whatever has failed in between.

import { createWriteStream } from "node:fs";
import { join } from "node:path";
import { type BucketDoor, type ServedBucket, startBucketDoor } from "./bucket-door.ts";
import { type LocalGate, startGate } from "./gate.ts";
import { startGitHub } from "./github.ts";
import { type IdentityProvider, startIdentityProvider } from "./identity-provider.ts";
import { startModel } from "./model.ts";
import { choosePort } from "./ports.ts";
import { writeProvisionFile } from "./provision-ada.ts";
import type { RecordedUpstream } from "./recorder.ts";
import { claimFolder, type RunAddresses } from "./run-file.ts";
import { type LocalSecrets, loadSecrets } from "./secrets.ts";
import { startSlack } from "./slack.ts";
import type { CopiedBucket } from "./verify-folder.ts";

export const preferredPorts = { gate: 8787, identityProvider: 8788, github: 8789, slack: 8790, model: 8791 } as const;
export type Part = keyof typeof preferredPorts;

/** Of each instance: calls a second, and how many at once after a rest. Stated here, because the tour counts them. */
export const limits = { callsPerSecond: 20, burst: 40 } as const;

export interface OrganisationOptions {
  /** Secrets, state and the run file live there. */
  readonly dir: string;
  /** Other ports to prefer; 0 for any. */
  readonly ports?: Partial<Record<Part, number>>;
  /** The slow answer's length and pace. */
  readonly slowChunks: number;
  readonly chunkDelayMs: number;
  /** What a person should know, e.g. that a port was taken. */
  readonly onNotice: (line: string) => void;
  /** Aborted: what has started is closed again, and starting throws. */
  readonly signal: AbortSignal;
}

export interface Organisation {
  readonly secrets: LocalSecrets;
  readonly gate: LocalGate;
  readonly identityProvider: IdentityProvider;
  readonly github: RecordedUpstream;
  readonly slack: RecordedUpstream;
  readonly model: RecordedUpstream;
  readonly bucket: CopiedBucket;
  readonly addresses: RunAddresses;
  readonly slowChunks: number;
  close(): Promise<void>;
}

export async function startOrganisation(options: OrganisationOptions): Promise<Organisation> {
  const closers: (() => unknown)[] = [];
  // Last up, first down; one that fails does not keep the others up.
  const close = async () => {
    const failures: unknown[] = [];
    for (let closer = closers.pop(); closer !== undefined; closer = closers.pop()) {
      try {
        await closer();
      } catch (cause) {
        failures.push(cause);
      }
    }
    if (failures.length > 0) throw new AggregateError(failures, "a part of the organisation did not close");
  };
  const up = async <T>(start: () => Promise<T>, stop: (part: T) => unknown): Promise<T> => {
    options.signal.throwIfAborted();
    const part = await start();
    closers.push(() => stop(part));
    return part;
  };
  try {
    return { ...(await startParts(options, up)), slowChunks: options.slowChunks, close };
  } catch (cause) {
    await close();
    throw cause;
  }
}

async function startParts(
  options: OrganisationOptions,
  up: <T>(start: () => Promise<T>, stop: (part: T) => unknown) => Promise<T>,
): Promise<Omit<Organisation, "slowChunks" | "close">> {
  const { dir, slowChunks, chunkDelayMs } = options;
  const closeIt = (part: { close(): Promise<void> }) => part.close();
  const runFile = await up(
    () => claimFolder(dir),
    (file) => file.release(),
  );
  process.once("exit", () => runFile.release());
  const secrets = await loadSecrets(dir);
  const log = await up(
    async () => createWriteStream(join(dir, "gate.log"), { mode: 0o600 }),
    (stream) => stream.end(),
  );

  const identityProvider = await up(
    async () =>
      startIdentityProvider({
        port: await portFor("identityProvider", options),
        signingKey: secrets.identityProviderKey,
      }),
    closeIt,
  );
  const github = await up(
    async () => startGitHub({ port: await portFor("github", options), token: secrets.githubToken }),
    closeIt,
  );
  const slack = await up(
    async () => startSlack({ port: await portFor("slack", options), token: secrets.slackToken }),
    closeIt,
  );
  const model = await up(
    async () => startModel({ port: await portFor("model", options), key: secrets.modelKey, slowChunks, chunkDelayMs }),
    closeIt,
  );
  const gate = await up(
    async () =>
      startGate({
        port: await portFor("gate", options),
        secrets,
        addresses: {
          issuer: identityProvider.issuer,
          jwksUri: identityProvider.jwksUri,
          github: github.baseUrl,
          slack: slack.baseUrl,
          model: model.baseUrl,
          mandates: { audience: "portcullis-mandates" },
          ...limits,
        },
        stateDir: join(dir, "state"),
        onLog: (line) => log.write(`${new Date().toISOString()} ${line}\n`),
      }),
    closeIt,
  );
  const bucket = (await gate.miniflare.getR2Bucket("TRANSCRIPTS", "portcullis")) as unknown as CopiedBucket &
    ServedBucket;
  const door: BucketDoor = await up(() => startBucketDoor(bucket), closeIt);
  const addresses: RunAddresses = {
    gate: gate.origin,
    issuer: identityProvider.issuer,
    bucket: door.url,
    github: github.baseUrl,
    slack: slack.baseUrl,
    model: model.baseUrl,
  };
  await writeProvisionFile(dir, {
    gate: gate.origin,
    issuer: identityProvider.issuer,
    clientKey: secrets.platformClientKey,
  });
  await runFile.publish(addresses);
  return { secrets, gate, identityProvider, github, slack, model, bucket, addresses };
}

const titles: Readonly<Record<Part, string>> = {
  gate: "the gate",
  identityProvider: "the identity provider",
  github: "GitHub",
  slack: "Slack",
  model: "the model",
};

/** The preferred port, or a free one and a word about it. */
async function portFor(part: Part, { ports, onNotice }: OrganisationOptions): Promise<number> {
  const preferred = ports?.[part] ?? preferredPorts[part];
  const port = await choosePort(preferred);
  if (preferred !== 0 && port !== preferred) {
    const effect =
      part === "identityProvider" ? " Its issuer is another for this run, so people have other ids than before." : "";
    onNotice(`Port ${preferred} is taken: ${titles[part]} listens on ${port} instead.${effect}`);
  }
  return port;
}
