// wrangler as a process of its own, and what it prints read back: it has no JSON for rules. As of 4.155.0.

import { spawnSync } from "node:child_process";
import type { LifecycleRule, LockRule } from "./plan.ts";

const ENV = { WRANGLER_SEND_METRICS: "false", NO_COLOR: "1", FORCE_COLOR: "0" };

export interface Ran {
  readonly code: number;
  readonly out: string;
}

/** Reads: nobody is asked anything, and what it says is not shown. */
export function ask(args: readonly string[]): Ran {
  const { status, stdout, stderr, error } = spawnSync("wrangler", args, {
    encoding: "utf8",
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, ...ENV, CI: "1" },
  });
  if (error !== undefined) throw new Error(`wrangler can't be run: ${error.message}`);
  return { code: status ?? 1, out: status === 0 ? stdout : `${stdout}${stderr}` };
}

/** Acts: it may ask, and says what it does. Its exit code. */
export function act(args: readonly string[]): number {
  const { status, error } = spawnSync("wrangler", args, { stdio: "inherit", env: { ...process.env, ...ENV } });
  if (error !== undefined) throw new Error(`wrangler can't be run: ${error.message}`);
  return status ?? 1;
}

/** It says so in many words, and advises of what a deployment can't use. */
export const isSignedOut = ({ code, out }: Ran): boolean =>
  code !== 0 && /CLOUDFLARE_API_TOKEN environment variable|not authenticated|not logged in/i.test(out);
export const isAbsentBucket = ({ code, out }: Ran): boolean =>
  code !== 0 && /\[code: 10006\]|specified bucket does not exist/i.test(out);
export const isAbsentWorker = ({ code, out }: Ran): boolean =>
  code !== 0 && /\[code: 10007\]|Worker ".*" .*not found/i.test(out);

/** Paragraphs of `label:  value`. Throws for one that says it is a rule and can't be read: nothing is guessed about a lock. */
function paragraphs(text: string, labels: readonly string[]): Record<string, string>[] {
  return text.split(/\n\s*\n/).flatMap((paragraph) => {
    const found = Object.fromEntries(
      paragraph.split("\n").flatMap((line) => {
        const [, label, value] = /^(\w+):\s+(.*)$/.exec(line.trim()) ?? [];
        return label === undefined || value === undefined ? [] : [[label, value.trim()]];
      }),
    ) as Record<string, string>;
    if (found["name"] === undefined) return [];
    const missing = labels.find((label) => found[label] === undefined);
    if (missing !== undefined) throw new Error(`wrangler's list has no "${missing}" for rule ${found["name"]}`);
    return [found];
  });
}

const prefixOf = (text: string): string => (text === "(all prefixes)" ? "" : text);

/** Of `wrangler r2 bucket lock list`. */
export function parseLocks(text: string): LockRule[] {
  if (/^There are no lock rules/m.test(text)) return [];
  const rules = paragraphs(text, ["enabled", "prefix", "condition"]).map(({ name, enabled, prefix, condition }) => {
    const [, days] = /^after ([\d.]+) days?$/.exec(condition!) ?? [];
    const isDated = /^on \d{4}-\d{2}-\d{2}$/.test(condition!);
    if (days === undefined && !isDated && condition !== "indefinitely")
      throw new Error(`rule ${name}: "${condition}" is no condition that is known here`);
    return {
      name: name!,
      isEnabled: enabled === "Yes",
      prefix: prefixOf(prefix!),
      // A date ends for what comes later, too: it keeps nothing for a time.
      days: isDated ? 0 : days === undefined ? Number.POSITIVE_INFINITY : Number(days),
    };
  });
  if (rules.length === 0) throw new Error(`wrangler's list of lock rules can't be read:\n${text}`);
  return rules;
}

/** Of `wrangler r2 bucket lifecycle list`. Rules that expire nothing have `days` null. */
export function parseLifecycle(text: string): LifecycleRule[] {
  if (/^There are no lifecycle rules/m.test(text)) return [];
  const rules = paragraphs(text, ["enabled", "prefix", "action"]).map(({ name, enabled, prefix, action }) => {
    const [, days] = /Expire objects after ([\d.]+) days?/.exec(action!) ?? [];
    const isDated = /Expire objects on /.test(action!);
    return {
      name: name!,
      isEnabled: enabled === "Yes",
      prefix: prefixOf(prefix!),
      days: isDated ? 0 : days === undefined ? null : Number(days),
    };
  });
  if (rules.length === 0) throw new Error(`wrangler's list of lifecycle rules can't be read:\n${text}`);
  return rules;
}

/** Of `wrangler secret list`. */
export function parseSecrets(text: string): string[] {
  const secrets = JSON.parse(text.slice(text.indexOf("["))) as readonly { readonly name: string }[];
  return secrets.map(({ name }) => name);
}
