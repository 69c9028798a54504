// The configuration, held to the deployment's own policy tests before anything of it leaves.

import type { Config } from "../../src/config/define.ts";
import { PolicyTestsError } from "../../src/config/policy-tests.ts";
import { PolicyError } from "../policy/asked.ts";
import { holdCases } from "../policy/hold-cases.ts";
import { configPath, findTable, loadTable } from "../policy/load.ts";

/** What is not as it is expected; undefined where all is, or where there is no table. */
export async function findPolicyFault(config: Config): Promise<string | undefined> {
  const table = findTable(configPath(undefined));
  if (table === undefined) return undefined;
  try {
    const failed = holdCases(config, await loadTable(table)).cases.filter(({ ok }) => !ok);
    if (failed.length === 0) return undefined;
    const lines = failed.map(({ name, expected, found }) => `  ${name}: expected ${expected}, found ${found}`);
    return `the configuration is not as ${table} expects (npx portcullis policy test says why):\n${lines.join("\n")}`;
  } catch (cause) {
    if (cause instanceof PolicyError || cause instanceof PolicyTestsError) return cause.message;
    throw cause;
  }
}
