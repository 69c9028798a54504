// Lets another process of this machine copy what stands in the local R2 bucket, as an S3 tool would on the real one. Loopback and
// read-only. It opens no more than the local identity provider does, which believes whoever names a human.

import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { z } from "zod";
import { closeServer, listenOnLoopback, loopback } from "./ports.ts";
import type { CopiedBucket } from "./verify-folder.ts";

export interface BucketDoor {
  readonly url: string;
  close(): Promise<void>;
}

export async function startBucketDoor(bucket: CopiedBucket): Promise<BucketDoor> {
  let host = "";
  const server = createServer((request, response) => {
    answer(bucket, host, request, response).catch(() => response.writeHead(500).end());
  });
  host = `${loopback}:${await listenOnLoopback(server, 0)}`;
  return { url: `http://${host}`, close: () => closeServer(server) };
}

async function answer(bucket: CopiedBucket, host: string, request: IncomingMessage, response: ServerResponse) {
  // A web page that has made its own name point here still says its own name.
  if (request.headers.host !== host || request.method !== "GET") return response.writeHead(403).end();
  const { pathname, searchParams } = new URL(request.url ?? "/", `http://${host}`);
  if (pathname === "/") {
    const cursor = searchParams.get("cursor");
    const { objects, ...page } = await bucket.list({
      prefix: searchParams.get("prefix") ?? "",
      ...(cursor === null ? {} : { cursor }),
    });
    const keys = objects.map(({ key }) => ({ key }));
    return response.writeHead(200, { "content-type": "application/json" }).end(
      JSON.stringify({
        objects: keys,
        ...("cursor" in page ? { cursor: page.cursor } : {}),
        truncated: page.truncated,
      }),
    );
  }
  const object = await bucket.get(decodeURIComponent(pathname.slice(1)));
  if (object === null) return response.writeHead(404).end();
  return response
    .writeHead(200, { "content-type": "application/octet-stream" })
    .end(Buffer.from(await object.arrayBuffer()));
}

const listing = z.object({
  objects: z.array(z.object({ key: z.string() })),
  truncated: z.boolean(),
  cursor: z.string().optional(),
});

/** The bucket behind a door, as seen from another process. */
export function openBucketDoor(url: string): CopiedBucket {
  return {
    list: async ({ prefix, cursor }) => {
      const query = new URLSearchParams({ prefix: prefix ?? "", ...(cursor === undefined ? {} : { cursor }) });
      const response = await fetch(`${url}/?${query}`);
      if (!response.ok) throw new Error(`the bucket answered ${response.status}`);
      const { cursor: next, ...page } = listing.parse(await response.json());
      return { ...page, ...(next === undefined ? {} : { cursor: next }) };
    },
    get: async (key) => {
      const response = await fetch(`${url}/${encodeURIComponent(key)}`);
      if (response.ok) return response;
      await response.body?.cancel();
      if (response.status === 404) return null;
      throw new Error(`the bucket answered ${response.status}`);
    },
  };
}
