// A bucket by the S3 API, at any endpoint: requests by path, signed by Signature Version 4, read-only.

import { AwsClient } from "aws4fetch";
import { err, ok, type Result } from "../../src/result.ts";
import { type ObjectPage, type ObjectSource, openedFrom, type StoredObject } from "../local/object-source.ts";
import { parseRemote } from "../remote.ts";
import { CommandError, EXIT, type Io, UsageError } from "./command.ts";
import { parseNamed } from "./connection.ts";
import { childrenOf, parseXml, textOf } from "./xml.ts";

const TIMEOUT_MS = 300_000;
const BUCKET = /^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/;

interface S3 {
  readonly client: AwsClient;
  /** `https://endpoint/bucket`. */
  readonly url: string;
  readonly name: string;
  readonly bucket: string;
}

/** Throws `UsageError` where an address or a credential is missing. */
export function openS3(endpoint: string, bucket: string | undefined, env: Io["env"]): ObjectSource {
  const url = parseNamed(parseRemote, endpoint, "--s3");
  if (bucket === undefined) throw new UsageError("--s3 needs --bucket <name>");
  if (!BUCKET.test(bucket)) throw new UsageError(`--bucket ${bucket}: not the name of a bucket`);
  const [accessKeyId, secretAccessKey] = [
    credential(env, "AWS_ACCESS_KEY_ID"),
    credential(env, "AWS_SECRET_ACCESS_KEY"),
  ];
  const sessionToken = env["AWS_SESSION_TOKEN"] || undefined;
  const client = new AwsClient({
    accessKeyId,
    secretAccessKey,
    ...(sessionToken === undefined ? {} : { sessionToken }),
    service: "s3",
    region: env["AWS_REGION"] || env["AWS_DEFAULT_REGION"] || regionOf(url.hostname),
  });
  const base = url.href.replace(/\/+$/, "");
  const s3 = { client, url: `${base}/${bucket}`, name: `bucket ${bucket} at ${base}`, bucket };
  return {
    name: s3.name,
    page: (prefix, cursor, byFolders) => page(s3, prefix, cursor, byFolders),
    open: async (key, offset) => {
      const path = key.split("/").map(encodeURIComponent).join("/");
      const headers: Record<string, string> = offset === 0 ? {} : { range: `bytes=${offset}-` };
      const response = await send(s3, `/${path}`, headers);
      if (response.ok) return openedFrom(response, offset);
      const said = await errorOf(response);
      if (response.status === 404 && said.code !== "NoSuchBucket") return null;
      throw refusal(s3, response.status, said);
    },
  };
}

function credential(env: Io["env"], name: string): string {
  const value = env[name] || undefined;
  if (value === undefined) throw new UsageError(`--s3 needs ${name} in the environment`);
  return value;
}

/** R2 calls its only region `auto`, and so may others; AWS says it in the host. */
const regionOf = (host: string): string => /\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?$/.exec(host)?.[1] ?? "auto";

async function send({ client, url, name }: S3, path: string, headers: Record<string, string> = {}): Promise<Response> {
  try {
    const request = await client.sign(`${url}${path}`, { headers });
    return await fetch(request, { redirect: "manual", signal: AbortSignal.timeout(TIMEOUT_MS) });
  } catch (cause) {
    const { message, cause: inner } = cause as Error & { cause?: Error & { code?: string } };
    throw new CommandError(
      EXIT.unreachable,
      `The ${name} could not be reached: ${inner?.code ?? inner?.message ?? message}`,
    );
  }
}

async function page(s3: S3, prefix: string, cursor: string | null, byFolders: boolean): Promise<ObjectPage> {
  const query = new URLSearchParams({
    "list-type": "2",
    // Keys may hold what XML can't.
    "encoding-type": "url",
    prefix,
    ...(cursor === null ? {} : { "continuation-token": cursor }),
    ...(byFolders ? { delimiter: "/" } : {}),
  });
  const response = await send(s3, `?${query}`);
  if (!response.ok) throw refusal(s3, response.status, await errorOf(response));
  const listed = parseListing(await response.text().catch(() => ""));
  if (!listed.ok)
    throw new CommandError(EXIT.unreachable, `The ${s3.name} answered, but not as S3 does: ${listed.error}`);
  return listed.value;
}

/** An answer to ListObjectsV2. What is missing or odd in it is an error: half a list would pass for the whole. */
export function parseListing(document: string): Result<ObjectPage, string> {
  const parsed = parseXml(document);
  if (!parsed.ok) return parsed;
  const list = parsed.value;
  if (list.name !== "ListBucketResult") return err(`${list.name}, not a list`);
  const isEncoded = textOf(list, "EncodingType") === "url";
  const objects: StoredObject[] = [];
  for (const contents of childrenOf(list, "Contents")) {
    const key = keyOf(textOf(contents, "Key"), isEncoded);
    const size = textOf(contents, "Size");
    const uploadedAtMs = Date.parse(textOf(contents, "LastModified") ?? "");
    if (key === undefined || size === undefined || !/^\d{1,15}$/.test(size) || Number.isNaN(uploadedAtMs))
      return err("an object without its key, size or time");
    objects.push({ key, bytes: Number(size), uploadedAtMs });
  }
  const folders: string[] = [];
  for (const common of childrenOf(list, "CommonPrefixes")) {
    const folder = keyOf(textOf(common, "Prefix"), isEncoded);
    if (folder === undefined) return err("a folder without its prefix");
    folders.push(folder);
  }
  const truncated = textOf(list, "IsTruncated");
  const next = textOf(list, "NextContinuationToken") ?? null;
  if (truncated !== "true" && truncated !== "false") return err("a list that does not say whether it is whole");
  if (truncated === "true" && (next === null || next === "")) return err("a list that goes on, and does not say where");
  return ok({ objects, folders, next: truncated === "true" ? next : null });
}

function keyOf(text: string | undefined, isEncoded: boolean): string | undefined {
  if (text === undefined || text === "") return undefined;
  try {
    return isEncoded ? decodeURIComponent(text.replaceAll("+", " ")) : text;
  } catch {
    return undefined;
  }
}

interface S3Error {
  readonly code: string;
  readonly message: string;
}

async function errorOf(response: Response): Promise<S3Error> {
  const parsed = parseXml(await response.text().catch(() => ""));
  const error = parsed.ok && parsed.value.name === "Error" ? parsed.value : { name: "", children: [], text: "" };
  return { code: textOf(error, "Code") ?? String(response.status), message: textOf(error, "Message") ?? "" };
}

/** Its own message may quote what was signed: the code says enough where it is about credentials. */
function refusal({ name, bucket }: S3, status: number, { code, message }: S3Error): CommandError {
  // Of an object, a 404 is no refusal: it is gone.
  if (status === 404) return new CommandError(EXIT.no, `There is no bucket ${bucket} for these credentials`);
  if (status === 401 || status === 403)
    return new CommandError(
      EXIT.forbidden,
      `The ${name} refuses (${code}): AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are wrong, or may not list and read it`,
    );
  if (status >= 300 && status < 400)
    return new CommandError(
      EXIT.usage,
      `The ${name} is elsewhere (${code}): give the endpoint, and AWS_REGION, of its region`,
    );
  return new CommandError(EXIT.unreachable, `The ${name} can't answer: ${status} ${code} ${message}`.trimEnd());
}
