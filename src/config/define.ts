import type * as z from "zod";
import type { agent, limits } from "./agents.ts";
import { findFaults } from "./faults.ts";
import type { idJag } from "./id-jag.ts";
import type { identityProvider, platform, transmitter } from "./identity.ts";
import type { BoundarySource, ScopeEntry } from "./layers.ts";
import { type Config, shape } from "./shape.ts";
import type { upstream } from "./upstream.ts";

/**
 * The configuration of a deployment. It is code: type-checked where it is written, checked in full when the Worker
 * starts (a bad one never serves a request), bundled, and versioned by the deployment. It holds no secret, only the
 * names of secrets.
 */

const configSchema = shape.superRefine((config, ctx) => {
  for (const { path, message } of findFaults(config)) ctx.addIssue({ code: "custom", path: [...path], message });
});

export type { ScopeEntry } from "./layers.ts";
export type { Config } from "./shape.ts";
export type ConfigSource = Omit<
  z.input<typeof configSchema>,
  "agents" | "entitlements" | "boundaries" | "identityProviders"
> & {
  readonly agents: Readonly<
    Record<string, Omit<z.input<typeof agent>, "ceiling"> & { readonly ceiling: readonly ScopeEntry[] }>
  >;
  readonly identityProviders: Readonly<
    Record<
      string,
      Omit<z.input<typeof identityProvider>, "idJag"> & {
        readonly idJag?: Omit<z.input<typeof idJag>, "scopes"> & {
          readonly scopes?: Readonly<Record<string, readonly ScopeEntry[]>>;
        };
      }
    >
  >;
  readonly entitlements: {
    readonly groups: Readonly<Record<string, readonly ScopeEntry[]>>;
    readonly humans?: Readonly<Record<string, readonly ScopeEntry[]>>;
  };
  readonly boundaries: readonly BoundarySource[];
};
export type Limits = z.output<typeof limits>;
export type UpstreamConfig = z.output<typeof upstream>;
export type PlatformConfig = z.output<typeof platform>;
export type IdentityProviderConfig = z.output<typeof identityProvider>;
export type TransmitterConfig = z.output<typeof transmitter>;
export type Role = keyof Config["admins"]["roles"];

export class ConfigError extends Error {
  override readonly name = "ConfigError";
}

/** Checks a configuration whole. Throws one `ConfigError` that names the path of every mistake. */
export function defineConfig(source: ConfigSource): Config {
  const parsed = configSchema.safeParse(source);
  if (parsed.success) return parsed.data;
  const lines = parsed.error.issues.map(
    (issue) => `  ${issue.path.map(String).join(".") || "(top)"}: ${messageOf(issue)}`,
  );
  throw new ConfigError(`The configuration is not valid:\n${lines.join("\n")}`);
}

/** Of a name that can't be one: what a name must be. */
const messageOf = (issue: z.core.$ZodIssue): string =>
  issue.code === "invalid_key"
    ? [issue.message, ...issue.issues.map(({ message }) => message)].join(": ")
    : issue.message;
