// The organisation's keys and credentials for the local stack, made on the first run and kept in one file that only its owner
// can read. They open nothing but servers on this machine's loopback.

import { createPrivateKey, createPublicKey, generateKeyPairSync, randomBytes, sign, verify } from "node:crypto";
import { link, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { calculateJwkThumbprint } from "jose";
import { z } from "zod";

const base64url = z.string().regex(/^[A-Za-z0-9_-]{43}$/, "is not 32 bytes in base64url");
const ed25519Key = z.strictObject({
  kty: z.literal("OKP"),
  crv: z.literal("Ed25519"),
  x: base64url,
  d: base64url,
  kid: base64url,
  alg: z.literal("Ed25519"),
  use: z.literal("sig"),
});
const es256Key = z.strictObject({
  kty: z.literal("EC"),
  crv: z.literal("P-256"),
  x: base64url,
  y: base64url,
  d: base64url,
  kid: base64url,
  alg: z.literal("ES256"),
  use: z.literal("sig"),
});
const token = z.string().min(20);
const secretsFile = z.strictObject({
  version: z.literal(1),
  /** Signs grants. */
  grantKeys: z.strictObject({ keys: z.array(ed25519Key).min(1) }),
  /** Signs segments' seals and kill receipts. Made as ES256; older files have Ed25519. */
  sealKeys: z.strictObject({ keys: z.array(z.discriminatedUnion("kty", [es256Key, ed25519Key])).min(1) }),
  /** The identity provider's, for ID tokens. */
  identityProviderKey: es256Key,
  /** The agent platform's, for `private_key_jwt`. */
  platformClientKey: es256Key,
  githubToken: token,
  slackToken: token,
  modelKey: token,
});

export type Ed25519PrivateJwk = z.infer<typeof ed25519Key>;
export type Es256PrivateJwk = z.infer<typeof es256Key>;
export type LocalSecrets = z.infer<typeof secretsFile> & {
  /** Kills while nobody can sign in. In a file of its own, as a person would keep it: for `PORTCULLIS_BREAK_GLASS`. */
  readonly breakGlassKey: string;
};

const fileName = "secrets.json";
const breakGlassFileName = "break-glass.key";

/** Reads the secrets in `dir`, making them first if there are none. Throws with the file's path when they can't be used. */
export async function loadSecrets(dir = ".portcullis"): Promise<LocalSecrets> {
  await mkdir(dir, { recursive: true, mode: 0o700 });
  const path = join(dir, fileName);
  const makeFile = async () => `${JSON.stringify(await makeSecrets(), null, 2)}\n`;
  const parsed = parse((await readIfThere(path)) ?? (await storeNew(dir, fileName, await makeFile())), path);
  for (const key of allKeys(parsed)) await verifyKey(key, path);
  return { ...parsed, breakGlassKey: await loadBreakGlassKey(dir) };
}

async function loadBreakGlassKey(dir: string): Promise<string> {
  const path = join(dir, breakGlassFileName);
  const makeKey = () => `pbg_${randomBytes(32).toString("base64url")}\n`;
  const key = ((await readIfThere(path)) ?? (await storeNew(dir, breakGlassFileName, makeKey()))).trim();
  if (!/^pbg_[A-Za-z0-9_-]{43}$/.test(key)) throw unusable(path, "it is no break-glass key");
  return key;
}

async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw cause;
  }
}

// Written aside and linked into place: a reader never sees half a file, and of two first runs one wins for both.
async function storeNew(dir: string, name: string, content: string): Promise<string> {
  const path = join(dir, name);
  const aside = join(dir, `.${name}.${randomBytes(6).toString("hex")}`);
  await writeFile(aside, content, { mode: 0o600, flag: "wx" });
  try {
    await link(aside, path);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "EEXIST") throw cause;
  } finally {
    await rm(aside, { force: true });
  }
  return readFile(path, "utf8");
}

async function makeSecrets(): Promise<z.infer<typeof secretsFile>> {
  const random = () => randomBytes(24).toString("base64url");
  return {
    version: 1,
    grantKeys: { keys: [await makeEd25519Key()] },
    sealKeys: { keys: [await makeEs256Key()] },
    identityProviderKey: await makeEs256Key(),
    platformClientKey: await makeEs256Key(),
    githubToken: `ghp_${random()}`,
    slackToken: `xoxb-${random()}`,
    modelKey: `sk-${random()}`,
  };
}

async function makeEd25519Key(): Promise<Ed25519PrivateJwk> {
  const { x, d } = generateKeyPairSync("ed25519").privateKey.export({ format: "jwk" });
  const kid = await calculateJwkThumbprint({ kty: "OKP", crv: "Ed25519", x: x as string });
  return ed25519Key.parse({ kty: "OKP", crv: "Ed25519", x, d, kid, alg: "Ed25519", use: "sig" });
}

async function makeEs256Key(): Promise<Es256PrivateJwk> {
  const { x, y, d } = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey.export({ format: "jwk" });
  const kid = await calculateJwkThumbprint({ kty: "EC", crv: "P-256", x: x as string, y: y as string });
  return es256Key.parse({ kty: "EC", crv: "P-256", x, y, d, kid, alg: "ES256", use: "sig" });
}

function parse(text: string, path: string): z.infer<typeof secretsFile> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw unusable(path, "it is not JSON");
  }
  const result = secretsFile.safeParse(value);
  if (result.success) return result.data;
  const [first] = result.error.issues;
  throw unusable(path, `${first?.path.join(".") || "the file"}: ${first?.message ?? "unreadable"}`);
}

function allKeys(secrets: z.infer<typeof secretsFile>): (Ed25519PrivateJwk | Es256PrivateJwk)[] {
  const { grantKeys, sealKeys, identityProviderKey, platformClientKey } = secrets;
  return [...grantKeys.keys, ...sealKeys.keys, identityProviderKey, platformClientKey];
}

async function verifyKey(key: Ed25519PrivateJwk | Es256PrivateJwk, path: string): Promise<void> {
  if ((await calculateJwkThumbprint(key)) !== key.kid)
    throw unusable(path, `kid ${key.kid} is not its key's thumbprint`);
  if (!halvesBelongTogether(key)) throw unusable(path, `key ${key.kid} does not verify its own signature`);
}

function halvesBelongTogether(key: Ed25519PrivateJwk | Es256PrivateJwk): boolean {
  const { d: _, ...publicHalf } = key;
  const message = randomBytes(32);
  const digest = key.kty === "EC" ? "sha256" : null;
  try {
    const signature = sign(digest, message, createPrivateKey({ key, format: "jwk" }));
    return verify(digest, message, createPublicKey({ key: publicHalf, format: "jwk" }), signature);
  } catch {
    return false;
  }
}

function unusable(path: string, reason: string): Error {
  return new Error(`${path} cannot be used: ${reason}. Delete it to have new local secrets made.`);
}
