import config from "#config";
import { shardOf } from "../src/control/shard.ts";
import { type Deployment, type Env, parseDeployment } from "../src/deployment.ts";
import { issueGrant } from "../src/grant/claims.ts";
import worker, { Roster as RealRoster } from "../src/index.ts";
import { instanceOf } from "../src/objects.ts";

export * from "../src/index.ts";

/** A roster shard that can be filled: enrolled long ago, and without a confirmation now. */
export class Roster extends RealRoster {
  async fill(shard: number, count: number): Promise<number> {
    const { sql } = this.ctx.storage;
    for (let i = 0; i < count; i++)
      sql.exec(
        `INSERT INTO members (instance, human, groups_at_ms, task, agent, agent_version, client, upstreams, ancestors,
           agents_above, deadline_ms, enlisted_at_ms, confirmed_until_ms, running)
         VALUES (?, ?, 0, ?, 'bench-bot', '1', 'bench', ',saas,', ',,', ',,', ?, 0, 0, 0)`,
        `idle-${shard}-${i}`,
        `human-${i % 1_000}`,
        `bench_task-${i % 10_000}`,
        Date.now() + 3_600_000,
      );
    return sql.databaseSize;
  }
}

/** One of: an instance to enrol, how many to make up and enrol, how many rows to fill the roster with. */
interface Asked {
  readonly instance?: string;
  readonly task: string;
  readonly count?: number;
  readonly fill?: number;
}

/**
 * The gate as it is, with one more path, for the bench alone: enrols an instance without an identity provider, so that what
 * is measured is the governed call and nothing else runs beside it.
 */
export default {
  async fetch(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
    if (!request.url.endsWith("/bench-enrol")) return worker.fetch(request as never, env, ctx);
    const deployment = parseDeployment(env, config);
    const { instance, task, count, fill } = (await request.json()) as Asked;
    if (fill !== undefined)
      return Response.json({ bytes: await fillRoster(env, deployment.config.roster.shards, fill) });
    if (count !== undefined) {
      const made = Array.from({ length: count }, () => enrol(deployment, crypto.randomUUID(), task));
      return Response.json({ enrolled: (await Promise.all(made)).every(({ enrolled }) => enrolled) });
    }
    const answer = await enrol(deployment, instance!, task);
    return Response.json({ ...answer, token: tokenOf(deployment, instance!) });
  },
};

const SCOPE = [
  {
    type: "http",
    upstream: "saas",
    operations: ["GET /v0/{base}/{table}", "POST /v0/{base}/{table}"],
    where: { base: ["appX1"] },
  },
];

const enrol = (deployment: Deployment, instance: string, task: string) =>
  instanceOf(deployment, instance).enrol({
    enrolment: {
      instance,
      human: "human",
      emailDigest: null,
      ancestors: [],
      parentScope: null,
      groupsAtMs: Date.now(),
      mandate: null,
      rosterShard: shardOf(instance, deployment.config.roster.shards),
      agent: "bench-bot",
      agentVersion: "1",
      manifest: { model: "none", promptDigest: "none", tools: {} },
      client: "bench",
      chain: [{ client: "bench", agent: "bench-bot", agentVersion: "1", instance }],
      task: { id: task, purpose: "bench", deadlineMs: Date.now() + 3_600_000 },
      grant: "bench-grant",
      subject: "bench-subject",
      scope: SCOPE,
      groups: ["bench"],
      limits: deployment.config.agents["bench-bot"]!.limits,
      refreshDigest: null,
    },
    humanClaims: {},
    proof: { jti: crypto.randomUUID(), issuedAtMs: Date.now() },
    deployment: "bench",
  });

function tokenOf({ config, grantKeys }: Deployment, instance: string): string {
  const now = Math.floor(Date.now() / 1000);
  return issueGrant(grantKeys, {
    iss: config.origin,
    sub: "bench-subject",
    aud: [`${config.origin}/saas`],
    client_id: "bench",
    jti: "bench-grant",
    iat: now,
    exp: now + 3_600,
    cnf: { jkt: instance },
    authorization_details: SCOPE,
  });
}

async function fillRoster(env: Env, shards: number, count: number): Promise<number> {
  let bytes = 0;
  for (let shard = 0; shard < shards; shard++) {
    const stub = env.ROSTER.get(env.ROSTER.idFromName(String(shard))) as unknown as Pick<Roster, "fill">;
    bytes += await stub.fill(shard, Math.ceil(count / shards));
  }
  return bytes;
}
