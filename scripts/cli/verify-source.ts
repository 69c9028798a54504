// What verify reads: a folder, or a bucket; with whose keys, and what must be there.

import { stat } from "node:fs/promises";
import { join } from "node:path";
import { type VerifyOptions, verifyTranscripts } from "../../src/transcript/verify.ts";
import type { CopyScope } from "../../src/transcript/verify-index.ts";
import type { SealKeys } from "../../src/transcript/verify-keys.ts";
import type { VerifyReport } from "../../src/transcript/verify-report.ts";
import { readPulled, scopesOf } from "../local/pulled-file.ts";
import { readSealKeys, SEAL_KEYS_FILE, sealKeysOf, verifyFolder } from "../local/verify-folder.ts";
import { parseGate } from "../remote.ts";
import { noOperands, onlyOperand } from "./arguments.ts";
import { bucketObjects } from "./bucket-objects.ts";
import { type Io, UsageError } from "./command.ts";
import { parseNamed } from "./connection.ts";
import { openS3 } from "./s3-source.ts";
import { fetchSealKeys } from "./seal-keys.ts";

export interface Copy {
  keys(): Promise<SealKeys>;
  /** What must be in it if the index names it. */
  scopes(): Promise<readonly CopyScope[]>;
  verify(options: VerifyOptions): Promise<VerifyReport>;
}

interface Source {
  readonly s3?: string | undefined;
  readonly bucket?: string | undefined;
  readonly keys?: string | undefined;
  readonly gate?: string | undefined;
  readonly whole: boolean;
}

export function openCopy(operands: readonly string[], { s3, bucket, keys, gate, whole }: Source, io: Io): Copy {
  if (keys !== undefined && gate !== undefined) throw new UsageError("--keys and --gate: say one of them");
  const origin = gate === undefined ? undefined : parseNamed(parseGate, gate, "--gate");
  const readKeys = async (file: string): Promise<SealKeys> =>
    origin === undefined ? readSealKeys(file) : sealKeysOf(await fetchSealKeys(origin), origin);
  if (s3 === undefined) {
    if (bucket !== undefined) throw new UsageError("--bucket is of --s3");
    const folder = onlyOperand(operands, "folder");
    const keysFile = keys ?? join(folder, SEAL_KEYS_FILE);
    return {
      keys: () =>
        readKeys(keysFile).catch((cause: NodeJS.ErrnoException) => Promise.reject(withoutKeys(cause, keysFile))),
      scopes: async () => {
        if (!(await stat(folder).catch(() => null))?.isDirectory()) throw new Error(`${folder}: no such folder`);
        return whole ? WHOLE : scopesOf(await readPulled(folder));
      },
      verify: (options) => verifyFolder(folder, options),
    };
  }
  noOperands(operands);
  if (keys === undefined && origin === undefined)
    throw new UsageError("--s3 needs the public seal keys: --keys <file> or --gate <origin>");
  const source = openS3(s3, bucket, io.env);
  return {
    keys: () => readKeys(keys ?? ""),
    scopes: async () => WHOLE,
    verify: async (options) => verifyTranscripts(await bucketObjects(source, options.bodies !== false), options),
  };
}

const withoutKeys = (cause: NodeJS.ErrnoException, keysFile: string): Error =>
  cause.code === "ENOENT" && cause.path === keysFile
    ? new Error(`${keysFile}: no such file. It needs the public seal keys (pull brings them; or --keys <file>)`)
    : cause;

const WHOLE: readonly CopyScope[] = [{ untilMs: null }];
