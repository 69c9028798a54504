import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { Receipt } from "../src/control/receipt.ts";
import { part, seconds, signEs256 } from "./worker.ts";

/** The least of an identity provider: one key, and one operator who is signed in already. */
export interface BenchAdmin {
  readonly issuer: string;
  readonly token: string;
  close(): void;
}

export async function startAdmin(): Promise<BenchAdmin> {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const jwks = JSON.stringify({ keys: [{ ...publicKey.export({ format: "jwk" }), kid: "bench", alg: "ES256" }] });
  const server = createServer((_request, response) => {
    response.setHeader("Content-Type", "application/json");
    response.end(jwks);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const claims = {
    iss: issuer,
    sub: "oscar",
    aud: "admin",
    groups: ["oncall"],
    iat: seconds(),
    exp: seconds() + 3_600,
  };
  const token = signEs256(`${part({ alg: "ES256", kid: "bench" })}.${part(claims)}`, privateKey);
  return { issuer, token, close: () => server.close() };
}

/** Closes a switch, and says what its receipt says. */
export async function kill(
  origin: string,
  { token }: BenchAdmin,
  reach: string,
  target: Readonly<Record<string, string>>,
): Promise<Receipt> {
  const answer = await fetch(`${origin}/admin/v1/switches`, {
    method: "POST",
    headers: { authorization: `Bearer ${token}` },
    body: JSON.stringify({ act: "kill", reach, target, reason: "bench" }),
  });
  if (answer.status !== 201) throw new Error(`${answer.status}: ${await answer.text()}`);
  return (await answer.json()) as Receipt;
}
