// What a deployment still takes, decided from what is there. Pure. It adds, and never removes or weakens.

import { secretsOf as ofCredential } from "../../src/config/credential.ts";
import type { Config } from "../../src/config/define.ts";
import { LOCK_DAYS_MIN, type Retention } from "../../src/config/retention.ts";
import { err, ok, type Result } from "../../src/result.ts";

export interface LockRule {
  readonly name: string;
  readonly isEnabled: boolean;
  /** Empty: of all objects. */
  readonly prefix: string;
  /** Infinity: for ever. 0: until a date. */
  readonly days: number;
}

export interface LifecycleRule extends Omit<LockRule, "days"> {
  /** When objects go; null: this rule deletes none. */
  readonly days: number | null;
}

export interface Bucket {
  readonly name: string;
  readonly jurisdiction: string | undefined;
}

/** Null: there is no such bucket yet. */
export type Found = { readonly locks: readonly LockRule[]; readonly lifecycle: readonly LifecycleRule[] } | null;

export interface Wanted {
  readonly bucket: Bucket;
  readonly retention: Retention;
  /** Where it is made; the objects' own hint. */
  readonly location: string | undefined;
}

export interface Plan {
  /** Of wrangler, in this order. */
  readonly commands: readonly (readonly string[])[];
  /** What nobody here may put right, and somebody should look at. */
  readonly warnings: readonly string[];
}

/** Written once, and kept: envelopes, and the certificates that tell an erasure from a loss. */
const LOCKED = ["transcripts/", "erasures/"] as const;
const BODIES = "bodies/";
/** What R2 takes as a hint of place; Durable Objects know more. */
const R2_LOCATIONS = ["weur", "eeur", "apac", "wnam", "enam", "oc"];

/** The name of the flag says what is done by it. */
export const SHORT_LOCK_FLAG = "keep-records-less-than-six-months";

export function checkRetention({ lockDays, bodiesDays }: Retention, mayBeShort: boolean): Result<Retention, string> {
  if (lockDays < LOCK_DAYS_MIN && !mayBeShort)
    return err(
      `transcripts.retention.lockDays: ${lockDays} is less than six months (${LOCK_DAYS_MIN} days; Regulation (EU) 2024/1689, art. 19 and 26). Where that is lawful for you, say --${SHORT_LOCK_FLAG}`,
    );
  return ok({ lockDays, bodiesDays });
}

/** Every secret that the configuration names. */
export const secretsOf = (config: Config): string[] => [
  ...new Set([
    config.secrets.grantKeys,
    config.secrets.sealKeys,
    ...Object.values(config.upstreams).flatMap(({ credential }) => ofCredential(credential).map(({ name }) => name)),
    ...(config.approvals.webhook === undefined ? [] : [config.approvals.webhook.secret]),
    ...Object.values(config.admins.breakGlass),
    ...Object.values(config.transmitters).map(({ authorization }) => authorization),
  ]),
];

export function planBucket({ bucket, retention, location }: Wanted, found: Found): Result<Plan, string> {
  const of = bucket.jurisdiction === undefined ? [] : ["--jurisdiction", bucket.jurisdiction];
  const commands: string[][] = [];
  const warnings: string[] = [];
  if (found === null) {
    const hint = location !== undefined && R2_LOCATIONS.includes(location) ? ["--location", location] : [];
    // Jurisdiction decides about the place where it is set.
    const place = bucket.jurisdiction === undefined ? hint : of;
    commands.push(["r2", "bucket", "create", bucket.name, ...place, "--update-config=false"]);
  }
  const { locks, lifecycle } = found ?? { locks: [], lifecycle: [] };
  const { lockDays, bodiesDays } = retention;
  for (const prefix of LOCKED) {
    const days = Math.max(
      0,
      ...locks.filter((rule) => rule.isEnabled && prefix.startsWith(rule.prefix)).map((rule) => rule.days),
    );
    if (days >= lockDays) continue;
    // Of several rules the one that keeps longest counts, so a shorter one can stay.
    const name = `portcullis-${prefix.slice(0, -1)}-${lockDays}d`;
    if (locks.some((rule) => rule.name === name))
      return err(
        `the lock rule ${name} is there, and does not keep ${prefix} for ${lockDays} days: put it right, or remove it`,
      );
    commands.push([
      "r2",
      "bucket",
      "lock",
      "add",
      bucket.name,
      name,
      prefix,
      "--retention-days",
      String(lockDays),
      ...of,
    ]);
  }
  for (const { name, prefix, days } of locks.filter(({ isEnabled }) => isEnabled))
    if (prefix.startsWith(BODIES) || BODIES.startsWith(prefix))
      warnings.push(
        `the lock rule ${name} keeps ${prefix === "" ? "everything" : prefix} ${days === Number.POSITIVE_INFINITY ? "for ever" : days === 0 ? "until a date" : `for ${days} days`}: an erasure is refused there`,
      );
  const expiring = lifecycle.filter(({ isEnabled, days }) => isEnabled && days !== null) as (LifecycleRule & {
    days: number;
  })[];
  for (const { name, prefix, days } of expiring) {
    for (const kept of LOCKED)
      if (prefix.startsWith(kept) || kept.startsWith(prefix))
        warnings.push(`the lifecycle rule ${name} deletes ${kept} after ${days} days, or when its lock is over`);
    if (BODIES.startsWith(prefix) && (bodiesDays === null || days < bodiesDays))
      warnings.push(
        `the lifecycle rule ${name} deletes bodies after ${days} days; transcripts.retention.bodiesDays says ${bodiesDays ?? "never"}`,
      );
  }
  const goesAfter = Math.min(
    ...expiring.filter(({ prefix }) => BODIES.startsWith(prefix)).map(({ days }) => days),
    Number.POSITIVE_INFINITY,
  );
  if (bodiesDays !== null && goesAfter > bodiesDays) {
    const name = `portcullis-bodies-${bodiesDays}d`;
    if (lifecycle.some((rule) => rule.name === name))
      return err(
        `the lifecycle rule ${name} is there, and does not delete ${BODIES} after ${bodiesDays} days: put it right, or remove it`,
      );
    commands.push([
      "r2",
      "bucket",
      "lifecycle",
      "add",
      bucket.name,
      name,
      BODIES,
      "--expire-days",
      String(bodiesDays),
      ...of,
    ]);
  }
  return ok({ commands, warnings });
}
