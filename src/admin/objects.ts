import * as z from "zod";
import { type AdminHono, parseQuery, problem, record, requireRole } from "./door.ts";

const LIST_MAX = 1_000;
/** Far above what any key of the layout has. */
const KEY_MAX_CHARS = 512;

/** Whatever an object of the layout can be called, and nothing that a path could take for another. */
const KEY = /^(transcripts|bodies|erasures)(\/(?!\.\.?(\/|$))[A-Za-z0-9_=.-]+)+$/;
const PREFIX = /^(transcripts|bodies|erasures)\/((?!\.\.?(\/|$))[A-Za-z0-9_=.-]+(\/|$))*$/;

export const objectsQuery = z.strictObject({
  prefix: z.string().max(KEY_MAX_CHARS).regex(PREFIX, "begins with transcripts/, bodies/ or erasures/"),
  /** `next` of the page before. */
  cursor: z.string().min(1).max(4_096).optional(),
  limit: z.coerce.number().int().min(1).max(LIST_MAX).default(LIST_MAX),
  /** What lies deeper is told by the name of its folder alone. */
  folders: z.enum(["true", "false"]).default("false"),
});
export const objectQuery = z.strictObject({
  key: z.string().max(KEY_MAX_CHARS).regex(KEY, "not a key under transcripts/, bodies/ or erasures/"),
});

/** Objects as they were stored: for a copy of the bucket by who has no credential of the bucket's. */
export function objectRoutes(admin: AdminHono): void {
  admin.get("/admin/v1/objects", async (c) => {
    const { deployment } = c.env;
    const who = c.get("admin");
    const refused = await requireRole(deployment, who, c.req.path, ["auditor"]);
    if (refused !== null) return refused;
    const query = parseQuery(c.req.query(), objectsQuery);
    if (!query.ok) return problem(400, "Bad Request", query.error);
    const { prefix, cursor, limit, folders } = query.value;
    await record(deployment, "read", { by: who.id, email: who.email, prefix });
    const listed = await deployment.env.TRANSCRIPTS.list({
      prefix,
      limit,
      ...(cursor === undefined ? {} : { cursor }),
      ...(folders === "true" ? { delimiter: "/" } : {}),
    });
    return c.json({
      objects: listed.objects.map(({ key, size, uploaded }) => ({
        key,
        bytes: size,
        uploadedAtMs: uploaded.getTime(),
      })),
      folders: listed.delimitedPrefixes,
      next: listed.truncated ? listed.cursor : null,
    });
  });

  admin.get("/admin/v1/object", async (c) => {
    const { deployment } = c.env;
    const who = c.get("admin");
    const refused = await requireRole(deployment, who, c.req.path, ["auditor"]);
    if (refused !== null) return refused;
    const query = parseQuery(c.req.query(), objectQuery);
    if (!query.ok) return problem(400, "Bad Request", query.error);
    const { key } = query.value;
    await record(deployment, "read", { by: who.id, email: who.email, object: key });
    return readObject(deployment.env.TRANSCRIPTS, key, c.req.header("Range"));
  });
}

async function readObject(bucket: R2Bucket, key: string, range: string | undefined): Promise<Response> {
  const [, first, last] = /^bytes=(\d{1,15})-(\d{0,15})$/.exec(range ?? "") ?? [];
  // Another range than one from a first byte on may be ignored (RFC 9110, 14.2).
  if (first === undefined) {
    const object = await bucket.get(key);
    return object === null ? absent() : new Response(object.body, { headers: headers(object.size, object.httpEtag) });
  }
  const size = (await bucket.head(key))?.size;
  if (size === undefined) return absent();
  const offset = Number(first);
  const end = last === undefined || last === "" ? size - 1 : Math.min(Number(last), size - 1);
  if (offset >= size || end < offset) {
    const answer = problem(416, "Range Not Satisfiable");
    answer.headers.set("Content-Range", `bytes */${size}`);
    return answer;
  }
  const object = await bucket.get(key, { range: { offset, length: end - offset + 1 } });
  if (object === null) return absent();
  return new Response(object.body, {
    status: 206,
    headers: { ...headers(end - offset + 1, object.httpEtag), "Content-Range": `bytes ${offset}-${end}/${size}` },
  });
}

const absent = (): Response => problem(404, "Not Found", "no such object");

const headers = (bytes: number, etag: string) => ({
  "Content-Type": "application/octet-stream",
  "Content-Length": String(bytes),
  ETag: etag,
  "Accept-Ranges": "bytes",
  "Cache-Control": "no-store, no-transform",
  "X-Content-Type-Options": "nosniff",
});
