import { createHash, timingSafeEqual } from "node:crypto";
import type { TransmitterConfig } from "../config/define.ts";
import type { Deployment } from "../deployment.ts";
import { err, ok, type Result } from "../result.ts";

export interface Transmitter {
  readonly name: string;
  readonly config: TransmitterConfig;
}

/** The transmitter of this path, by the bearer token that it was given. Only the token's digest is known here. */
export function authenticateTransmitter(
  name: string,
  authorization: string | null,
  { config, env }: Deployment,
): Result<Transmitter, string> {
  const transmitter = Object.hasOwn(config.transmitters, name) ? config.transmitters[name] : undefined;
  if (transmitter === undefined) return err("a transmitter that is not known");
  const [, token] = /^Bearer +([A-Za-z0-9._~+/-]+=*) *$/i.exec(authorization ?? "") ?? [];
  if (token === undefined) return err("no bearer token");
  const digest = createHash("sha256").update(token).digest();
  const isHeld = timingSafeEqual(digest, Buffer.from(env[transmitter.authorization] as string, "hex"));
  return isHeld ? ok({ name, config: transmitter }) : err("the bearer token is another");
}
