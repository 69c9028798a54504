// The gate as it is, and around it what a soak needs: a bucket that fails, and doors through which objects are reset and rung.

import { AgentInstance as RealInstance } from "../../durable-objects/agent-instance.ts";
import { Journal as RealJournal } from "../../durable-objects/journal.ts";
import type { Env } from "../../src/deployment.ts";
import worker from "../../src/index.ts";
import type { BucketFaults } from "./bucket-faults.ts";
import { FaultyBucket } from "./faulty-bucket.ts";

export { Roster, Switchboard } from "../../src/index.ts";

/** One for the isolate, and so for all objects of it. */
let bucket: FaultyBucket | undefined;
const wrapped = new WeakMap<object, Env>();
/** Objects of instances that were started in this life of workerd. */
let started = 0;

function around(env: Env): Env {
  const known = wrapped.get(env);
  if (known !== undefined) return known;
  bucket ??= new FaultyBucket(
    JSON.parse(env["SOAK_FAULTS"] as string) as BucketFaults,
    env["SOAK_WITNESS"] as string,
    // Another life, other faults.
    Math.floor(Math.random() * 4_294_967_296),
  );
  const made = { ...env, TRANSCRIPTS: bucket.around(env.TRANSCRIPTS) };
  wrapped.set(env, made);
  return made;
}

export class AgentInstance extends RealInstance {
  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, around(env));
    started++;
  }

  async soakAbort(): Promise<void> {
    this.ctx.abort("reset by the soak");
  }

  async soakRing(): Promise<void> {
    await Promise.all([this.alarm(), this.alarm()]);
    await this.alarm();
  }
}

export class Journal extends RealJournal {
  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, around(env));
  }
}

const SOAK = /^https?:\/\/[^/]+\/soak\/([a-z]+)(?:\?instance=([A-Za-z0-9_-]+))?$/;

export default {
  async fetch(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
    const [, act, instance = ""] = SOAK.exec(request.url) ?? [];
    if (act === undefined) return worker.fetch(request as never, around(env), ctx);
    around(env);
    const stub = () =>
      env.AGENT_INSTANCE.get(env.AGENT_INSTANCE.idFromName(instance)) as unknown as Pick<
        AgentInstance,
        "soakAbort" | "soakRing"
      >;
    if (act === "faults") bucket!.faults = (await request.json()) as BucketFaults;
    // An object that was reset rejects who asked for it.
    else if (act === "abort")
      await stub()
        .soakAbort()
        .catch(() => {});
    else if (act === "ring") await stub().soakRing();
    return Response.json({ started, faults: bucket!.counts });
  },
};
