import { encodeBase64url } from "../grant/base64url.ts";

/** An instance's key, and the proofs that it makes (RFC 9449 §4.2). */
export interface InstanceKey {
  readonly privateKey: CryptoKey;
  readonly publicJwk: { readonly kty: "EC"; readonly crv: "P-256"; readonly x: string; readonly y: string };
}

/** A key pair whose private half can't be exported: it lives and dies with this process. */
export async function createInstanceKey(): Promise<InstanceKey> {
  const pair = (await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, false, [
    "sign",
    "verify",
  ])) as CryptoKeyPair;
  const { x, y } = (await crypto.subtle.exportKey("jwk", pair.publicKey)) as { x: string; y: string };
  return { privateKey: pair.privateKey, publicJwk: { kty: "EC", crv: "P-256", x, y } };
}

/** RFC 7638: the instance's id, as admins see it. */
export async function thumbprintOf({ publicJwk: { crv, kty, x, y } }: InstanceKey): Promise<string> {
  return digest(JSON.stringify({ crv, kty, x, y }));
}

/** The proof that a new instance gives to its platform, which presents it at the token endpoint (RFC 9449 §5). */
export const createEnrolmentProof = (gate: string, key: InstanceKey): Promise<string> =>
  createProof(key, "POST", `${new URL(gate).origin}/oauth/token`);

/** A parent's word that the holder of this child's key may have a grant by its own: a proof for the token endpoint that names the child. */
export const createDelegationProof = (
  key: InstanceKey,
  url: string,
  accessToken: string,
  child: string,
): Promise<string> => createProof(key, "POST", url, accessToken, { cnf: { jkt: child } });

/** `url` is taken as it will be sent: a parser would resolve `..`, and the proof would be one for another path. */
export async function createProof(
  key: InstanceKey,
  method: string,
  url: string,
  accessToken?: string,
  claims: { readonly cnf?: { readonly jkt: string } } = {},
): Promise<string> {
  const payload = {
    ...claims,
    jti: encodeBase64url(crypto.getRandomValues(new Uint8Array(16))),
    htm: method,
    htu: url.replace(/[?#].*$/s, ""),
    iat: Math.floor(Date.now() / 1000),
    ...(accessToken === undefined ? {} : { ath: await digest(accessToken) }),
  };
  const input = `${part({ typ: "dpop+jwt", alg: "ES256", jwk: key.publicJwk })}.${part(payload)}`;
  const signature = await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, key.privateKey, utf8.encode(input));
  return `${input}.${encodeBase64url(new Uint8Array(signature))}`;
}

const utf8 = new TextEncoder();
const part = (value: object): string => encodeBase64url(utf8.encode(JSON.stringify(value)));
const digest = async (text: string): Promise<string> =>
  encodeBase64url(new Uint8Array(await crypto.subtle.digest("SHA-256", utf8.encode(text))));
