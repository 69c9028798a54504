import config from "#config";
import { shardOf } from "../src/control/shard.ts";
import { type Env, parseDeployment } from "../src/deployment.ts";
import { issueGrant } from "../src/grant/claims.ts";
import worker, { Roster as RealRoster } from "../src/index.ts";
import { instanceOf } from "../src/objects.ts";

export { AgentInstance, Journal, Switchboard } from "../src/index.ts";

/** A roster shard that can be filled: enrolled long ago, and without a confirmation now. */
export class Roster extends RealRoster {
  async fill(shard: number, count: number): Promise<number> {
    const { sql } = this.ctx.storage;
    for (let i = 0; i < count; i++)
      sql.exec(
        "INSERT INTO members VALUES (?, ?, NULL, ?, 'bench-bot', '1', 'bench', ',saas,', ',,', ?, 0, 0)",
        `idle-${shard}-${i}`,
        `human-${i % 1_000}`,
        `bench_task-${i % 10_000}`,
        Date.now() + 3_600_000,
      );
    return sql.databaseSize;
  }
}

/**
 * The gate as it is, with one more path, for the bench alone: enrols an instance without an identity provider, so that what
 * is measured is the governed call and nothing else runs beside it.
 */
export default {
  async fetch(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
    if (!request.url.endsWith("/bench-enrol")) return worker.fetch(request as never, env, ctx);
    const deployment = parseDeployment(env, config);
    const { instance, task, fill } = (await request.json()) as { instance: string; task: string; fill?: number };
    if (fill !== undefined)
      return Response.json({ bytes: await fillRoster(env, deployment.config.roster.shards, fill) });
    const nowMs = Date.now();
    const scope = [
      { type: "http", upstream: "saas", operations: ["GET /v0/{base}/{table}"], where: { base: ["appX1"] } },
    ];
    const answer = await instanceOf(deployment, instance).enrol({
      enrolment: {
        instance,
        human: "human",
        emailDigest: null,
        ancestors: [],
        rosterShard: shardOf(instance, deployment.config.roster.shards),
        agent: "bench-bot",
        agentVersion: "1",
        manifest: { model: "none", promptDigest: "none", tools: {} },
        client: "bench",
        chain: [{ client: "bench", agent: "bench-bot" }],
        task: { id: task, purpose: "bench", deadlineMs: nowMs + 3_600_000 },
        grant: "bench-grant",
        subject: "bench-subject",
        scope,
        groups: ["bench"],
        limits: deployment.config.agents["bench-bot"]!.limits,
        refreshDigest: null,
      },
      humanClaims: {},
      proof: { jti: crypto.randomUUID(), issuedAtMs: nowMs },
      deployment: "bench",
    });
    const token = issueGrant(deployment.grantKeys, {
      iss: deployment.config.origin,
      sub: "bench-subject",
      aud: [`${deployment.config.origin}/saas`],
      client_id: "bench",
      jti: "bench-grant",
      iat: Math.floor(nowMs / 1000),
      exp: Math.floor(nowMs / 1000) + 3_600,
      cnf: { jkt: instance },
      authorization_details: scope,
    });
    return Response.json({ ...answer, token });
  },
};

async function fillRoster(env: Env, shards: number, count: number): Promise<number> {
  let bytes = 0;
  for (let shard = 0; shard < shards; shard++) {
    const stub = env.ROSTER.get(env.ROSTER.idFromName(String(shard))) as unknown as Pick<Roster, "fill">;
    bytes += await stub.fill(shard, Math.ceil(count / shards));
  }
  return bytes;
}
