import { randomUUID } from "node:crypto";
import { importJWK, type JWK, SignJWT } from "jose";
import { reasonOf, unreachable, usageFault } from "./ending.ts";
import type { ProvisionFile } from "./provision-file.ts";

const TIMEOUT_MS = 30_000;

/** What a platform does (RFC 8693, with RFC 7523 for itself), by the sidecar in its place. The answer may be a refusal. */
export async function exchange(
  file: ProvisionFile,
  { gate, proof, signal: interrupted }: { readonly gate: string; readonly proof: string; readonly signal: AbortSignal },
): Promise<unknown> {
  const form = new URLSearchParams({
    grant_type: "urn:ietf:params:oauth:grant-type:token-exchange",
    client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    client_assertion: await clientAssertion(file, gate),
    subject_token: file.idToken,
    subject_token_type: "urn:ietf:params:oauth:token-type:id_token",
    task: file.task,
    purpose: file.purpose,
    deadline: String(file.deadline),
    agent_version: file.agentVersion,
    authorization_details: JSON.stringify(file.authorizationDetails),
  });
  try {
    const signal = AbortSignal.any([interrupted, AbortSignal.timeout(TIMEOUT_MS)]);
    const init = { method: "POST", headers: { DPoP: proof }, body: form, redirect: "manual", signal } as const;
    return await (await fetch(`${gate}/oauth/token`, init)).json();
  } catch (cause) {
    throw unreachable(`the gate ${gate} did not answer the token exchange: ${reasonOf(cause)}`);
  }
}

async function clientAssertion({ client, clientKey }: ProvisionFile, gate: string): Promise<string> {
  const alg = clientKey.kty === "EC" ? "ES256" : "Ed25519";
  try {
    return await new SignJWT()
      .setProtectedHeader({ alg, kid: clientKey.kid })
      .setIssuer(client)
      .setSubject(client)
      .setAudience(gate)
      .setJti(randomUUID())
      .setIssuedAt()
      .setExpirationTime("2m")
      .sign(await importJWK(clientKey as JWK, alg));
  } catch (cause) {
    throw usageFault(`clientKey can't sign: ${reasonOf(cause)}`);
  }
}
