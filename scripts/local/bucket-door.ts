// Lets another process of this machine copy what stands in the local R2 bucket, as an S3 tool would on the real one. Loopback and
// read-only. It opens no more than the local identity provider does, which believes whoever names a human.

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { z } from "zod";
import { type ObjectSource, openedFrom } from "./object-source.ts";
import { closeServer, listenOnLoopback, loopback } from "./ports.ts";

/** The part of an `R2Bucket` that is served. */
export interface ServedBucket {
  list(options: { prefix?: string; cursor?: string; delimiter?: string }): Promise<{
    readonly objects: readonly { readonly key: string; readonly size: number; readonly uploaded: Date }[];
    readonly delimitedPrefixes: readonly string[];
    readonly truncated: boolean;
    readonly cursor?: string;
  }>;
  get(
    key: string,
    options?: { range: { offset: number } },
  ): Promise<{ readonly size: number; arrayBuffer(): Promise<ArrayBuffer> } | null>;
  head(key: string): Promise<{ readonly size: number } | null>;
}

export interface BucketDoor {
  readonly url: string;
  close(): Promise<void>;
}

export async function startBucketDoor(bucket: ServedBucket): Promise<BucketDoor> {
  let host = "";
  const server = createServer((request, response) => {
    answer(bucket, host, request, response).catch(() => response.writeHead(500).end());
  });
  host = `${loopback}:${await listenOnLoopback(server, 0)}`;
  return { url: `http://${host}`, close: () => closeServer(server) };
}

async function answer(bucket: ServedBucket, host: string, request: IncomingMessage, response: ServerResponse) {
  // A web page that has made its own name point here still says its own name.
  if (request.headers.host !== host || request.method !== "GET") return response.writeHead(403).end();
  const { pathname, searchParams } = new URL(request.url ?? "/", `http://${host}`);
  if (pathname === "/") {
    const cursor = searchParams.get("cursor");
    const listed = await bucket.list({
      prefix: searchParams.get("prefix") ?? "",
      ...(cursor === null ? {} : { cursor }),
      ...(searchParams.has("folders") ? { delimiter: "/" } : {}),
    });
    const page: z.infer<typeof listing> = {
      objects: listed.objects.map(({ key, size, uploaded }) => ({
        key,
        bytes: size,
        uploadedAtMs: uploaded.getTime(),
      })),
      folders: [...listed.delimitedPrefixes],
      next: listed.truncated ? (listed.cursor ?? null) : null,
    };
    return response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(page));
  }
  const key = decodeURIComponent(pathname.slice(1));
  const offset = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? "")?.[1] ?? 0);
  const size = (await bucket.head(key))?.size;
  if (size !== undefined && offset > 0 && offset >= size) return response.writeHead(416).end();
  const object = await bucket.get(key, ...(offset === 0 ? [] : ([{ range: { offset } }] as const)));
  if (object === null || size === undefined) return response.writeHead(404).end();
  return response
    .writeHead(offset === 0 ? 200 : 206, {
      "content-type": "application/octet-stream",
      ...(offset === 0 ? {} : { "content-range": `bytes ${offset}-${size - 1}/${size}` }),
    })
    .end(Buffer.from(await object.arrayBuffer()));
}

const listing = z.object({
  objects: z.array(z.object({ key: z.string(), bytes: z.number(), uploadedAtMs: z.number() })),
  folders: z.array(z.string()),
  next: z.string().nullable(),
});

/** The bucket behind a door, as seen from another process. */
export function openBucketDoor(url: string): ObjectSource {
  return {
    name: url,
    page: async (prefix, cursor, byFolders) => {
      const query = new URLSearchParams({
        prefix,
        ...(cursor === null ? {} : { cursor }),
        ...(byFolders ? { folders: "true" } : {}),
      });
      const response = await fetch(`${url}/?${query}`);
      if (!response.ok) throw new Error(`the bucket answered ${response.status}`);
      return listing.parse(await response.json());
    },
    open: async (key, offset) => {
      const headers: Record<string, string> = offset === 0 ? {} : { range: `bytes=${offset}-` };
      const response = await fetch(`${url}/${encodeURIComponent(key)}`, { headers });
      if (response.ok) return openedFrom(response, offset);
      await response.body?.cancel();
      if (response.status === 404) return null;
      throw new Error(`the bucket answered ${response.status}`);
    },
  };
}
