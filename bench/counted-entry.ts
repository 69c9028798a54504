import type { JournalEntry } from "../src/control/contract.ts";
import type { Env } from "../src/deployment.ts";
import type { Counts } from "./counts.ts";
import * as gate from "./enrol-entry.ts";

export * from "./enrol-entry.ts";

/** The bench's gate, with what the platform bills counted: all objects and the Worker share this isolate. */
const counts: Counts = {
  requests: 0,
  alarms: 0,
  rows: 0,
  alarmsSet: 0,
  puts: 0,
  putBytes: 0,
  lastPutAtMs: 0,
  segments: [],
};

type Class<T> = new (ctx: DurableObjectState, env: Env) => T;

/** @param calls its methods that are called from outside: each is a billed request */
function counted<T extends object>(Base: Class<T>, calls: readonly string[]): Class<T> {
  const prototype = Base.prototype as Record<string, (...args: unknown[]) => unknown>;
  for (const name of [...calls, "alarm"]) {
    const real = prototype[name];
    if (real === undefined) continue;
    prototype[name] = function (this: unknown, ...args: unknown[]) {
      counts[name === "alarm" ? "alarms" : "requests"]++;
      if (name === "append") noteSegment(args[0] as JournalEntry);
      return real.apply(this, args);
    };
  }
  return class extends (Base as Class<object>) {
    constructor(ctx: DurableObjectState, env: Env) {
      countRows(ctx.storage);
      super(ctx, { ...env, TRANSCRIPTS: countPuts(env.TRANSCRIPTS) });
    }
  } as Class<T>;
}

function noteSegment({ type, fields }: JournalEntry): void {
  const { first, last, from } = fields as Readonly<Record<string, number>>;
  if (type === "stored") counts.segments.push({ lagMs: Date.now() - from!, records: last! - first! + 1 });
}

function countRows(storage: DurableObjectStorage): void {
  const { sql } = storage;
  const exec = sql.exec.bind(sql);
  sql.exec = ((query: string, ...bindings: unknown[]) => {
    const cursor = exec(query, ...bindings);
    counts.rows += cursor.rowsWritten;
    return cursor;
  }) as typeof sql.exec;
  const setAlarm = storage.setAlarm.bind(storage);
  storage.setAlarm = (...args: Parameters<typeof setAlarm>) => {
    counts.alarmsSet++;
    return setAlarm(...args);
  };
}

/** Bytes are read and forgotten: what is measured then is the gate without the emulated bucket, which computes in this process. */
const { discards = false } = JSON.parse(process.env["BENCH"] ?? "{}") as { readonly discards?: boolean };

async function discard(value: unknown): Promise<R2Object> {
  if (!(value instanceof ReadableStream)) return { size: (value as Uint8Array).byteLength } as R2Object;
  const reader = value.getReader({ mode: "byob" });
  for (let size = 0; ; ) {
    const { value: run } = await reader.readAtLeast(262_144, new Uint8Array(262_144));
    if (run === undefined || run.byteLength === 0) return { size } as R2Object;
    size += run.byteLength;
  }
}

const countPuts = (bucket: R2Bucket): R2Bucket =>
  new Proxy(bucket, {
    get(target, property) {
      const value = Reflect.get(target, property);
      if (property !== "put") return typeof value === "function" ? value.bind(target) : value;
      return async (...args: Parameters<R2Bucket["put"]>) => {
        const put = discards ? await discard(args[1]) : await target.put(...args);
        counts.puts++;
        counts.putBytes += put?.size ?? 0;
        counts.lastPutAtMs = Date.now();
        return put;
      };
    },
  });

const INSTANCE_CALLS = ["enrol", "renew", "admit", "revoke", "introspect", "close", "reopen", "read"];
export const AgentInstance = counted(gate.AgentInstance, INSTANCE_CALLS);
export const Journal = counted(gate.Journal, ["append", "read"]);
export const Roster = counted(gate.Roster, ["enlist", "confirm", "leave"]);
export const Quota = counted(gate.Quota, ["lease", "read"]);
export const Switchboard = counted(gate.Switchboard, ["flip", "join"]);

export default {
  async fetch(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
    if (request.url.endsWith("/bench-counts")) return Response.json(counts);
    return gate.default.fetch(request, env, ctx);
  },
};
