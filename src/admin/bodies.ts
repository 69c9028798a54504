import type { Deployment } from "../deployment.ts";
import { instanceOf } from "../objects.ts";
import type { BodyPart } from "../transcript/body-line.ts";
import { type InstancePartition, instancePartition, KEY_ID } from "../transcript/layout.ts";
import {
  type BodyStore,
  findErasure,
  type LocatedBody,
  locateBody,
  type RawObject,
} from "../transcript/locate-body.ts";
import { statePart } from "../transcript/stated-part.ts";
import { type AdminHono, problem, record, requireRole } from "./door.ts";
import { readLinesFrom } from "./transcripts.ts";

const PARTS: readonly string[] = ["request", "answer", "claims"] satisfies readonly BodyPart[];

/** One body, byte for byte as it was recorded: from the bucket, and what has not left yet from the instance's object. */
export function bodyRoutes(admin: AdminHono): void {
  admin.get("/admin/v1/transcripts/:human/:task/:instance/bodies/:seq/:part", async (c) => {
    const { deployment } = c.env;
    const who = c.get("admin");
    const refused = await requireRole(deployment, who, c.req.path, ["auditor"]);
    if (refused !== null) return refused;
    const { human, task, instance, seq, part } = c.req.param();
    const of = { human, task, instance };
    if (![human, task, instance].every((id) => KEY_ID.test(id)) || !/^\d{1,10}$/.test(seq) || !PARTS.includes(part))
      return problem(404, "Not Found", "not the path of a body");
    // On record before it is looked for: whether there is such a body says something, too.
    await record(deployment, "read", { by: who.id, email: who.email, ...of, bodyOf: Number(seq), part });
    return readBody(deployment, of, Number(seq), part as BodyPart);
  });
}

/** The answer to who may read it. */
export async function readBody(
  deployment: Deployment,
  of: InstancePartition,
  seq: number,
  part: BodyPart,
): Promise<Response> {
  const partition = instancePartition(of);
  const stated = await statePart(readLinesFrom(deployment, of, seq), seq, part);
  if (stated === null) return problem(404, "Not Found", `no record ${seq} with a body of the part ${part}`);
  const store = storeOf(deployment.env.TRANSCRIPTS);
  // Before anything of it is read: rows of it may outlive its erasure for minutes.
  const erasure = await findErasure(
    store,
    { human: of.human, task: of.task, atMs: stated.atMs },
    { keys: deployment.sealKeys, issuer: deployment.config.origin },
  );
  if (erasure !== null) return problem(410, "Gone", `erased: by the certificate ${erasure}`);
  // INVARIANT: the records, the object, the bucket, in this order. What the records state has been written by then, and
  // what the object has dropped by then is in the bucket.
  const held = await instanceOf(deployment, of.instance).readBody(seq, part);
  const ours = held?.partition === partition ? held : undefined;
  const located = await locateBody(store, partition, { ...stated, seq, part }, ours);
  if (located === null) return problem(404, "Not Found", LOST);
  return new Response(streamBody(deployment, of.instance, seq, part, located), {
    headers: {
      "Content-Type": "application/octet-stream",
      "Content-Disposition": `attachment; filename="${seq}-${part}"`,
      "Cache-Control": "no-store, no-transform",
      "X-Content-Type-Options": "nosniff",
    },
  });
}

const LOST =
  "the body is on record, and not in the bucket: deleted by a lifecycle rule, or lost. No erasure certificate covers it";

/** Piece by piece, as it is read. Breaks off where an object goes meanwhile: a part of it must not pass for the whole. */
function streamBody(
  deployment: Deployment,
  instance: string,
  seq: number,
  part: BodyPart,
  { runs, raw }: LocatedBody,
): ReadableStream<Uint8Array> {
  const pieces = piecesOf();
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await pieces.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    async cancel() {
      await pieces.return();
    },
  });

  async function* piecesOf(): AsyncGenerator<Uint8Array, void> {
    for (const run of runs) if (run.length > 0) yield run;
    for (const object of raw) yield* readRaw(object);
  }

  async function* readRaw({ key, no, bytes }: RawObject): AsyncGenerator<Uint8Array, void> {
    if (bytes === null && part !== "claims") {
      const held = await instanceOf(deployment, instance).readRaw(seq, part, no);
      if (held !== null) return yield held;
    }
    const object = await deployment.env.TRANSCRIPTS.get(key);
    if (object === null) throw new Error(`${key}: gone while it was read`);
    yield* object.body as ReadableStream<Uint8Array>;
  }
}

const storeOf = (bucket: R2Bucket): BodyStore => ({
  async *list(prefix) {
    let cursor: string | undefined;
    do {
      const listed: R2Objects = await bucket.list({ prefix, ...(cursor === undefined ? {} : { cursor }) });
      for (const { key, size } of listed.objects) yield { key, bytes: size };
      cursor = listed.truncated ? listed.cursor : undefined;
    } while (cursor !== undefined);
  },
  get: async (key) => {
    const object = await bucket.get(key);
    return object === null ? null : new Uint8Array(await object.arrayBuffer());
  },
});
