// The configuration and the table, from their files: code by import, JSON by reading. Neither needs a Worker, or a secret.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { type Config, ConfigError } from "../../src/config/define.ts";
import { type PolicyCase, PolicyTestsError, parsePolicyTests } from "../../src/config/policy-tests.ts";
import { parseStrictJson } from "../../src/json/strict-json.ts";
import { PolicyError } from "./asked.ts";

export const CONFIG_FILE = "portcullis.config.ts";
const TABLES = ["portcullis.policy.ts", "portcullis.policy.json"];

/** The deployment's own, of this clone. */
const ownConfig = (): string => fileURLToPath(new URL(`../../${CONFIG_FILE}`, import.meta.url));

export const configPath = (given: string | undefined): string => (given === undefined ? ownConfig() : resolve(given));

export async function loadConfig(path: string): Promise<Config> {
  const config = await importDefault(path);
  const isConfig = typeof config === "object" && config !== null && "boundaries" in config && "agents" in config;
  if (!isConfig) throw new PolicyError(`${path}: its default export is not what defineConfig gives`);
  return config as Config;
}

/** Beside the configuration; undefined where there is none. */
export const findTable = (config: string): string | undefined =>
  TABLES.map((name) => join(dirname(config), name)).find((path) => existsSync(path));

export async function loadTable(path: string): Promise<readonly PolicyCase[]> {
  return parsePolicyTests(path.endsWith(".json") ? await readJson(path) : await importDefault(path));
}

async function importDefault(path: string): Promise<unknown> {
  if (!existsSync(path)) throw new PolicyError(`${path}: no such file`);
  try {
    return ((await import(pathToFileURL(path).href)) as { readonly default?: unknown }).default;
  } catch (cause) {
    if (cause instanceof ConfigError || cause instanceof PolicyTestsError)
      throw new PolicyError(`${path}: ${cause.message}`);
    throw new PolicyError(`${path}: it can't be read: ${cause instanceof Error ? cause.message : "unknown"}`);
  }
}

async function readJson(path: string): Promise<unknown> {
  const text = await readFile(path, "utf8").catch(() => {
    throw new PolicyError(`${path}: no such file`);
  });
  const json = parseStrictJson(text);
  if (!json.ok) throw new PolicyError(`${path}: ${json.error}`);
  return json.value;
}
