/**
 * The honest ceiling of a recorded transfer: passes bytes on and puts the same bytes into the bucket, in objects of the
 * same size. No identity, no chain, no order of record and act, nothing that a crash would leave.
 */
const OBJECT_BYTES = 8_388_608;

interface Env {
  readonly UPSTREAM: string;
  readonly TRANSCRIPTS: R2Bucket;
}

const counts = { puts: 0, putBytes: 0, lastPutAtMs: 0 };

export default {
  async fetch(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
    const { pathname, search } = new URL(request.url);
    if (pathname === "/bench-counts") return Response.json(counts);
    const record = (body: ReadableStream<Uint8Array> | null) =>
      body?.pipeThrough(recording(env, ctx, crypto.randomUUID())) ?? null;
    const length = request.headers.get("content-length");
    const sent = record(request.body);
    const body = sent === null || length === null ? sent : sent.pipeThrough(new FixedLengthStream(Number(length)));
    const answer = await fetch(env.UPSTREAM + pathname + search, {
      method: request.method,
      headers: request.headers,
      body,
    });
    return new Response(record(answer.body), answer);
  },
};

function recording(env: Env, ctx: ExecutionContext, name: string): TransformStream<Uint8Array, Uint8Array> {
  let object = new Uint8Array(OBJECT_BYTES);
  let filled = 0;
  let no = 0;
  let putting: Promise<unknown> = Promise.resolve();
  const put = async (bytes: Uint8Array): Promise<void> => {
    await putting;
    putting = env.TRANSCRIPTS.put(`${name}.${no++}`, bytes).then(() => {
      counts.puts++;
      counts.putBytes += bytes.length;
      counts.lastPutAtMs = Date.now();
    });
    ctx.waitUntil(putting);
  };
  return new TransformStream({
    async transform(run, controller) {
      for (let rest = run; rest.length > 0; ) {
        const taken = rest.subarray(0, OBJECT_BYTES - filled);
        object.set(taken, filled);
        filled += taken.length;
        rest = rest.subarray(taken.length);
        if (filled < OBJECT_BYTES) continue;
        await put(object);
        object = new Uint8Array(OBJECT_BYTES);
        filled = 0;
      }
      controller.enqueue(run);
    },
    async flush() {
      if (filled > 0) await put(object.subarray(0, filled));
    },
  });
}
