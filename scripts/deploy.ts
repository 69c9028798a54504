// `npm run deploy`: the bucket, its locks and its lifecycle as the configuration says, then the Worker. What is there already
// stays as it is; what is missing is added; what is weaker than it should be is said, or kept longer.

import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { unstable_readConfig } from "wrangler";
import { type Config, ConfigError } from "../src/config/define.ts";
import { retention as retentionShape } from "../src/config/retention.ts";
import { checkRetention, type Found, planBucket, SHORT_LOCK_FLAG, secretsOf, type Wanted } from "./deploy/plan.ts";
import { findPolicyFault } from "./deploy/policy.ts";
import {
  act,
  ask,
  isAbsentBucket,
  isAbsentWorker,
  isSignedOut,
  parseLifecycle,
  parseLocks,
  parseSecrets,
  type Ran,
} from "./deploy/wrangler.ts";

const USAGE = `npm run deploy -- [options]

Sets the bucket up as portcullis.config.ts and wrangler.toml say, and deploys the Worker. Refused where the configuration
is not as portcullis.policy.ts expects.

  --dry-run            look what is there, and print what would be run; change nothing
  --lock-days <n>      instead of transcripts.retention.lockDays
  --bodies-days <n>    instead of transcripts.retention.bodiesDays
  --${SHORT_LOCK_FLAG}
                       allow a lock of less than 183 days`;

/** What is read of wrangler.toml; wrangler's own types of it are in a package that is not here. */
interface WranglerToml {
  readonly r2_buckets: readonly {
    readonly binding: string;
    readonly bucket_name?: string;
    readonly jurisdiction?: string;
  }[];
  readonly secrets_store_secrets?: readonly { readonly binding: string }[];
}

const readWranglerToml = (): WranglerToml =>
  unstable_readConfig({ config: fileURLToPath(new URL("../wrangler.toml", import.meta.url)) });

class Refusal extends Error {}

/** What a person types. */
const spell = (args: readonly string[]): string =>
  ["npm exec -- wrangler", ...args.map((arg) => (/^[\w./=-]+$/.test(arg) ? arg : `'${arg}'`))].join(" ");

async function readConfiguration(): Promise<Config> {
  try {
    return ((await import("#config")) as { default: Config }).default;
  } catch (cause) {
    if (cause instanceof ConfigError) throw new Refusal(cause.message);
    throw cause;
  }
}

function wantedOf(
  config: Config,
  days: { readonly lock: string | undefined; readonly bodies: string | undefined },
): Wanted {
  const { r2_buckets: buckets } = readWranglerToml();
  const bound = buckets.find(({ binding }) => binding === "TRANSCRIPTS");
  if (bound?.bucket_name === undefined)
    throw new Refusal("wrangler.toml: no [[r2_buckets]] with the binding TRANSCRIPTS and a bucket_name");
  const { jurisdiction, locationHint } = config.placement;
  if (bound.jurisdiction !== jurisdiction)
    throw new Refusal(
      `the bucket's jurisdiction in wrangler.toml is ${bound.jurisdiction ?? "not set"}, and placement.jurisdiction ${jurisdiction ?? "is not set"}: records and objects belong in one`,
    );
  const number = (text: string): number => (/^\d{1,5}$/.test(text) ? Number(text) : Number.NaN);
  const retention = retentionShape.safeParse({
    ...config.transcripts.retention,
    ...(days.lock === undefined ? {} : { lockDays: number(days.lock) }),
    ...(days.bodies === undefined ? {} : { bodiesDays: number(days.bodies) }),
  });
  if (!retention.success) throw new Refusal("--lock-days and --bodies-days: whole days, from 1 to 36500");
  return {
    bucket: { name: bound.bucket_name, jurisdiction: bound.jurisdiction },
    retention: retention.data,
    location: locationHint,
  };
}

const cannotList = (what: string, ran: Ran): Refusal =>
  new Refusal(
    isSignedOut(ran)
      ? "wrangler is not signed in, and what is there must be looked at, for --dry-run as well: npm exec -- wrangler login, or CLOUDFLARE_API_TOKEN"
      : `wrangler can't list ${what}:\n${ran.out}`,
  );

function findRules({ bucket }: Wanted): Found {
  const of = bucket.jurisdiction === undefined ? [] : ["--jurisdiction", bucket.jurisdiction];
  const locks = ask(["r2", "bucket", "lock", "list", bucket.name, ...of]);
  if (isAbsentBucket(locks)) return null;
  if (locks.code !== 0) throw cannotList("the bucket's locks", locks);
  const lifecycle = ask(["r2", "bucket", "lifecycle", "list", bucket.name, ...of]);
  if (lifecycle.code !== 0) throw cannotList("the bucket's lifecycle rules", lifecycle);
  return { locks: parseLocks(locks.out), lifecycle: parseLifecycle(lifecycle.out) };
}

function missingSecrets(config: Config): string[] {
  const listed = ask(["secret", "list", "--format", "json"]);
  if (listed.code !== 0 && !isAbsentWorker(listed)) throw cannotList("the secrets", listed);
  const stored = readWranglerToml().secrets_store_secrets ?? [];
  const there = [...(listed.code === 0 ? parseSecrets(listed.out) : []), ...stored.map(({ binding }) => binding)];
  return secretsOf(config).filter((name) => !there.includes(name));
}

async function deploy(): Promise<void> {
  const { values } = parseArgs({
    options: {
      "dry-run": { type: "boolean", default: false },
      "lock-days": { type: "string" },
      "bodies-days": { type: "string" },
      [SHORT_LOCK_FLAG]: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help === true) return console.log(USAGE);
  const config = await readConfiguration();
  const fault = await findPolicyFault(config);
  if (fault !== undefined) throw new Refusal(fault);
  const wanted = wantedOf(config, {
    lock: values["lock-days"] as string | undefined,
    bodies: values["bodies-days"] as string | undefined,
  });
  const checked = checkRetention(wanted.retention, values[SHORT_LOCK_FLAG] === true);
  if (!checked.ok) throw new Refusal(checked.error);
  const plan = planBucket(wanted, findRules(wanted));
  if (!plan.ok) throw new Refusal(plan.error);
  for (const warning of plan.value.warnings) console.error(`warning: ${warning}`);
  const missing = missingSecrets(config);
  // The bucket first: a gate that is deployed before its locks stand would write what can be replaced.
  const commands = [...plan.value.commands, ["deploy"]];
  if (values["dry-run"] === true) {
    for (const args of commands) console.log(spell(args));
    for (const name of missing) console.error(`missing: secret ${name}: ${spell(["secret", "put", name])}`);
    if (missing.length > 0) process.exitCode = 1;
    return;
  }
  if (missing.length > 0)
    throw new Refusal(
      `secrets that the configuration names are not set:\n${missing.map((name) => `  ${spell(["secret", "put", name])}`).join("\n")}`,
    );
  for (const args of commands) {
    console.log(`$ ${spell(args)}`);
    const code = act(args);
    if (code !== 0)
      throw new Refusal(`${spell(args)} ended with ${code}. Run this again: what is done is not done twice`);
  }
}

try {
  await deploy();
} catch (cause) {
  const isMistake =
    cause instanceof Refusal || (cause as { code?: string }).code?.startsWith("ERR_PARSE_ARGS") === true;
  console.error(isMistake ? (cause as Error).message : cause);
  process.exitCode = isMistake ? 1 : 70;
}
