// The running gate with the real identity provider, and everything that a test says to it: tokens, assertions and proofs, each right
// unless the test spoils it. A member set to `undefined` is left out.

import { createHash, createPrivateKey, generateKeyPairSync, type KeyObject, randomUUID, sign } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import type { LocalAddresses } from "../../scripts/local/config.ts";
import { type GateOptions, type LocalGate, startGate } from "../../scripts/local/gate.ts";
import { humans } from "../../scripts/local/humans.ts";
import { type IdentityProvider, startIdentityProvider } from "../../scripts/local/identity-provider.ts";
import { type LocalSecrets, loadSecrets } from "../../scripts/local/secrets.ts";

/** Nobody listens there: for tests that never reach an upstream. */
export const NOWHERE = "http://127.0.0.1:9";
export const TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange";
export const ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token";
const ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

export const nowSeconds = (): number => Math.floor(Date.now() / 1000);
export const sha256 = (text: string): string => createHash("sha256").update(text).digest("base64url");

export type Members = Readonly<Record<string, unknown>>;
/** A text stands for itself: for JSON that no object makes. */
export type Part = Members | string;
export const encodePart = (part: Part): string =>
  Buffer.from(typeof part === "string" ? part : JSON.stringify(part)).toString("base64url");

/** A key pair, and how it signs a JWS. */
export interface SigningKey {
  readonly alg: "ES256" | "Ed25519";
  readonly publicJwk: Readonly<Record<string, string>>;
  readonly privateJwk: Readonly<Record<string, string>>;
  /** RFC 7638; an instance's id. */
  readonly thumbprint: string;
  sign(input: string): Buffer;
}

export function keyFrom(jwk: Readonly<Record<string, string>>): SigningKey {
  const { kty, crv, x, y } = jwk as Record<"kty" | "crv" | "x", string> & { y?: string };
  const isEc = kty === "EC";
  const publicJwk: Record<string, string> = isEc ? { crv, kty, x, y: y as string } : { crv, kty, x };
  const key: KeyObject = createPrivateKey({ key: { ...jwk }, format: "jwk" });
  return {
    alg: isEc ? "ES256" : "Ed25519",
    publicJwk,
    privateJwk: jwk,
    thumbprint: sha256(JSON.stringify(publicJwk)),
    sign: (input) => sign(isEc ? "sha256" : null, Buffer.from(input), isEc ? { key, dsaEncoding: "ieee-p1363" } : key),
  };
}

export function makeKey(alg: "ES256" | "Ed25519" = "ES256"): SigningKey {
  const { privateKey } =
    alg === "ES256" ? generateKeyPairSync("ec", { namedCurve: "P-256" }) : generateKeyPairSync("ed25519");
  return keyFrom(privateKey.export({ format: "jwk" }) as Record<string, string>);
}

export function signCompact(key: SigningKey, header: Part, payload: Part): string {
  const input = `${encodePart(header)}.${encodePart(payload)}`;
  return `${input}.${key.sign(input).toString("base64url")}`;
}

export interface HarnessOptions {
  /** Instead of addresses where nobody listens, or of the local configuration's figures. */
  readonly addresses?: Partial<LocalAddresses>;
  /** Instead of the secrets that were made. */
  readonly secrets?: (made: LocalSecrets) => LocalSecrets;
  /** Who may read the bucket by the S3 API; without, nobody. */
  readonly s3?: { readonly accessKeyId: string; readonly secretAccessKey: string };
  /** Keeps the gate's state over `close` and another start. */
  readonly stateDir?: string;
  /** A test's own module around the gate. */
  readonly around?: Pick<GateOptions, "entry" | "bindings" | "onLog">;
}

/** What one token request is made of; each right unless it is given. */
export interface ExchangeOverrides {
  /** The instance's. */
  readonly key?: SigningKey;
  readonly human?: HumanName;
  /** The provisioning platform. */
  readonly client?: Client;
  /** Form parameters; an array comes once for each value. */
  readonly form?: Readonly<Record<string, string | readonly string[] | undefined>>;
  readonly headers?: Readonly<Record<string, string | undefined>>;
  readonly proof?: { readonly header?: Members; readonly claims?: Members };
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  readonly json: Record<string, unknown>;
}

export type HumanName = keyof typeof humans;
export type Client = "build-platform" | "other-platform";
export type Harness = Awaited<ReturnType<typeof startHarness>>;

/** What `ada` may do through `triage-bot`, and nothing of it is needed by most tests. */
export const DETAILS = [
  {
    type: "http",
    upstream: "github",
    operations: ["GET /repos/{owner}/{repo}/issues"],
    where: { owner: ["acme"], repo: ["widgets"] },
  },
];

export async function startHarness(options: HarnessOptions = {}) {
  const dir = await mkdtemp(join(tmpdir(), "portcullis-system-"));
  const made = await loadSecrets(dir);
  const secrets = options.secrets?.(made) ?? made;
  const idp: IdentityProvider = await startIdentityProvider({
    signingKey: secrets.identityProviderKey,
    devicePollSeconds: 1,
  });
  const otherPlatform = makeKey();
  const gate: LocalGate = await startGate({
    secrets,
    ...(options.stateDir === undefined ? {} : { stateDir: options.stateDir }),
    ...(options.s3 === undefined ? {} : { s3: options.s3 }),
    ...options.around,
    addresses: {
      issuer: idp.issuer,
      jwksUri: idp.jwksUri,
      github: NOWHERE,
      slack: NOWHERE,
      model: NOWHERE,
      otherPlatformKey: { ...otherPlatform.publicJwk, kty: "EC", kid: "other" },
      ...options.addresses,
    },
  });
  const { origin } = gate;
  const providerKey = keyFrom(secrets.identityProviderKey);
  const clientKeys: Readonly<Record<Client, { key: SigningKey; kid: string; audience: string }>> = {
    "build-platform": {
      key: keyFrom(secrets.platformClientKey),
      kid: secrets.platformClientKey.kid,
      audience: "build-platform-app",
    },
    "other-platform": { key: otherPlatform, kid: "other", audience: "other-app" },
  };
  const [grantJwk] = secrets.grantKeys.keys;
  if (grantJwk === undefined) throw new Error("no grant key");
  const grantKey = keyFrom(grantJwk);

  /** By the identity provider's real key, as it would be for `ada`. */
  const idToken = (claims: Members = {}, header: Members = {}, key = providerKey): string =>
    signCompact(
      key,
      { alg: key.alg, typ: "JWT", kid: secrets.identityProviderKey.kid, ...header },
      {
        iss: idp.issuer,
        sub: humans.ada.sub,
        aud: "build-platform-app",
        exp: nowSeconds() + 600,
        iat: nowSeconds(),
        email: humans.ada.email,
        groups: humans.ada.groups,
        ...claims,
      },
    );

  const clientAssertion = (claims: Members = {}, header: Members = {}, client: Client = "build-platform"): string => {
    const { key, kid } = clientKeys[client];
    return signCompact(
      key,
      { alg: key.alg, kid, ...header },
      {
        iss: client,
        sub: client,
        aud: origin,
        exp: nowSeconds() + 60,
        iat: nowSeconds(),
        jti: randomUUID(),
        ...claims,
      },
    );
  };

  /** For the token endpoint unless `htu` says another. */
  const proof = (key: SigningKey, claims: Members = {}, header: Members = {}): string =>
    signCompact(
      key,
      { typ: "dpop+jwt", alg: key.alg, jwk: key.publicJwk, ...header },
      { jti: randomUUID(), htm: "POST", htu: `${origin}/oauth/token`, iat: nowSeconds(), ...claims },
    );

  /** By the gate's real grant key. */
  const grant = (key: SigningKey, claims: Members = {}, header: Members = {}, by = grantKey): string =>
    signCompact(
      by,
      { alg: "Ed25519", typ: "at+jwt", kid: grantJwk.kid, ...header },
      {
        iss: origin,
        sub: "opaque",
        aud: [`${origin}/github`],
        client_id: "build-platform",
        jti: randomUUID(),
        iat: nowSeconds(),
        exp: nowSeconds() + 300,
        cnf: { jkt: key.thumbprint },
        authorization_details: DETAILS,
        ...claims,
      },
    );

  /** Credentials of a platform, as form parameters. */
  const clientForm = (client: Client = "build-platform") => ({
    client_assertion_type: ASSERTION,
    client_assertion: clientAssertion({}, {}, client),
  });

  async function post(
    path: string,
    form: Readonly<Record<string, string | readonly string[] | undefined>> | string,
    headers: Readonly<Record<string, string | undefined>> = {},
  ): Promise<Answer> {
    const pairs =
      typeof form === "string"
        ? []
        : Object.entries(form).flatMap(([name, value]) =>
            (typeof value === "string" ? [value] : (value ?? [])).map((one): [string, string] => [name, one]),
          );
    return send(path, {
      method: "POST",
      body: typeof form === "string" ? form : new URLSearchParams(pairs).toString(),
      headers: defined({ "content-type": "application/x-www-form-urlencoded", ...headers }),
    });
  }

  async function send(path: string, init: RequestInit): Promise<Answer> {
    const response = await fetch(`${origin}${path}`, { redirect: "manual", ...init });
    const text = await response.text();
    let json: Record<string, unknown> = {};
    try {
      json = JSON.parse(text) as Record<string, unknown>;
    } catch {}
    return { status: response.status, headers: response.headers, text, json };
  }

  /** A form that provisions. */
  const exchangeForm = ({ human = "ada", client = "build-platform", form = {} }: ExchangeOverrides = {}) => {
    const { sub, email, groups } = humans[human];
    return {
      grant_type: TOKEN_EXCHANGE,
      ...clientForm(client),
      subject_token: idToken({ sub, email, groups, aud: clientKeys[client].audience }),
      subject_token_type: ID_TOKEN,
      task: "t-1",
      purpose: "to test",
      deadline: String(nowSeconds() + 600),
      agent_version: "1.4.0",
      authorization_details: JSON.stringify(DETAILS),
      ...form,
    };
  };

  const exchange = (overrides: ExchangeOverrides = {}): Promise<Answer> => {
    const key = overrides.key ?? makeKey();
    const { header, claims } = overrides.proof ?? {};
    return post("/oauth/token", exchangeForm(overrides), { DPoP: proof(key, claims, header), ...overrides.headers });
  };

  /** Provisions an instance for tests of what comes after. Throws where that fails. */
  async function provision(overrides: ExchangeOverrides = {}) {
    const key = overrides.key ?? makeKey();
    const { status, json, text } = await exchange({ ...overrides, key });
    if (status !== 200) throw new Error(`not provisioned: ${status} ${text}`);
    return { key, access: json["access_token"] as string, refresh: json["refresh_token"] as string, json };
  }

  /** A renewal by the instance itself. */
  const renew = (key: SigningKey, refresh: string, claims: Members = {}): Promise<Answer> =>
    post("/oauth/token", { grant_type: "refresh_token", refresh_token: refresh }, { DPoP: proof(key, claims) });

  const introspect = (token: string, client: Client = "build-platform"): Promise<Answer> =>
    post("/oauth/introspect", { ...clientForm(client), token });

  /** By `human`, in a token that the identity provider might have given to the admin client. */
  const asAdmin = (path: string, init: { method?: string; body?: unknown; human?: HumanName; token?: string } = {}) => {
    const { sub, email, groups } = humans[init.human ?? "oscar"];
    const token = init.token ?? idToken({ sub, email, groups, aud: "portcullis-admin" });
    return send(path, {
      method: init.method ?? (init.body === undefined ? "GET" : "POST"),
      headers: { authorization: `Bearer ${token}` },
      ...(init.body === undefined
        ? {}
        : { body: typeof init.body === "string" ? init.body : JSON.stringify(init.body) }),
    });
  };

  const kill = (instance: string, reason = "a test") =>
    asAdmin("/admin/v1/switches", { body: { reach: "instance", target: { instance }, act: "kill", reason } });

  /** A call through the gate, as the instance makes it. */
  const call = (key: SigningKey, access: string, path = "/github/repos/acme/widgets/issues"): Promise<Answer> => {
    const claims = { htm: "GET", htu: `${origin}${path}`, ath: sha256(access) };
    return send(path, { headers: { authorization: `DPoP ${access}`, DPoP: proof(key, claims) } });
  };

  /** Written once, so read once. */
  const segments = new Map<string, Buffer>();

  /** The journal's records of today that stand in R2 and fit, once there are `count` of them. */
  async function journal(
    door: "authority" | "admin" | "authority-refused" | "admin-refused" | "signals-refused",
    fits: (record: Members) => boolean,
    count = 1,
  ): Promise<Members[]> {
    const bucket = await gate.miniflare.getR2Bucket("TRANSCRIPTS");
    for (let tries = 0; tries < 400; tries++) {
      const { objects } = await bucket.list({ prefix: `transcripts/journal=${door}/` });
      for (const { key } of objects)
        if (!segments.has(key)) segments.set(key, gunzipSync((await (await bucket.get(key))?.arrayBuffer()) ?? ""));
      const text = objects.map(({ key }) => segments.get(key)?.toString()).join("");
      const records = text.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line) as Members]));
      const found = records.filter(fits);
      if (found.length >= count) return found;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(`no such record came into the ${door} journal`);
  }

  return {
    origin,
    gate,
    journal,
    idp,
    secrets,
    grantKey,
    providerKey,
    clientKeys,
    idToken,
    clientAssertion,
    clientForm,
    proof,
    grant,
    post,
    send,
    exchangeForm,
    exchange,
    provision,
    renew,
    introspect,
    asAdmin,
    kill,
    call,
    async close(): Promise<void> {
      await gate.close();
      await idp.close();
      await rm(dir, { recursive: true, force: true });
    },
  };
}

const defined = (headers: Readonly<Record<string, string | undefined>>): Record<string, string> =>
  Object.fromEntries(Object.entries(headers).filter((pair): pair is [string, string] => pair[1] !== undefined));
