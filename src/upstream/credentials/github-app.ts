import * as z from "zod";
import type { CredentialOf } from "../../config/credential.ts";
import { err, ok } from "../../result.ts";
import { NOT_COVERED } from "../call-fault.ts";
import type { CredentialKind, Narrowing } from "../credential-kind.ts";
import { BEARER, signWithPem } from "../placing.ts";
import { readSecret } from "../read-secret.ts";
import { Secret } from "../secret.ts";
import { ask, bearerToken } from "../token-endpoint.ts";
import { isCovered, narrowToGrant } from "./github-narrowing.ts";

/** GitHub takes an app's JWT of at most ten minutes, and asks that clocks may differ. */
const APP_JWT_SECONDS = 540;
const CLOCK_SKEW_SECONDS = 60;
/** It holds every repository that was asked for, each as a whole object of some 6 KB. */
const ANSWER_BYTES = 65_536;
const ANSWER_BYTES_PER_REPOSITORY = 16_384;
const MAX_LIFE_MS = 3_600_000;

const permissionTable = z.record(z.string(), z.string());
const installationToken = z.looseObject({
  token: bearerToken,
  expires_at: z.iso.datetime({ offset: true }),
  permissions: permissionTable.optional(),
  repositories: z.array(z.looseObject({ name: z.string() })).optional(),
  repository_selection: z.string().optional(),
});

/** Installation tokens of a GitHub App, for the grant's repositories and what its operations need there. */
export const githubApp: CredentialKind<CredentialOf<"github-app">> = {
  place: () => BEARER,
  findFault: (config, { call, entries }) => (isCovered(config, call, entries) ? undefined : NOT_COVERED),
  source: {
    kind: "token",
    isOfInstance: false,
    narrow: narrowToGrant,
    async obtain(config, { narrowing, baseUrl }, { env }) {
      const nowMs = Date.now();
      const key = await readSecret(env, { name: config.privateKey, form: "pem" }, nowMs);
      if (!key.ok) return key;
      const nowSeconds = Math.floor(nowMs / 1000);
      const claims = { iss: config.appId, iat: nowSeconds - CLOCK_SKEW_SECONDS, exp: nowSeconds + APP_JWT_SECONDS };
      let appJwt: string;
      try {
        appJwt = await signWithPem(key.value, claims);
      } catch {
        return err(`secret ${config.privateKey} is no RSA key that signs`);
      }
      const headers = new Headers({
        accept: "application/vnd.github+json",
        authorization: `Bearer ${appJwt}`,
        "content-type": "application/json",
        "user-agent": "portcullis",
        "x-github-api-version": "2022-11-28",
      });
      const url = `${baseUrl}/app/installations/${config.installationId}/access_tokens`;
      const maxBytes = ANSWER_BYTES + ANSWER_BYTES_PER_REPOSITORY * (narrowing.repositories?.length ?? 0);
      const answer = await ask(url, { method: "POST", headers, body: JSON.stringify(bodyOf(narrowing)) }, maxBytes);
      if (!answer.ok) return answer;
      const { status, json } = answer.value;
      if (status !== 201) return err(`GitHub answered ${status} to the request for an installation token`);
      const parsed = installationToken.safeParse(json);
      if (!parsed.success) return err("GitHub's answer holds no installation token");
      if (isWider(parsed.data, narrowing)) return err("GitHub's token is wider than what was asked for");
      const lifeMs = Math.min(Date.parse(parsed.data.expires_at) - nowMs, MAX_LIFE_MS);
      // A failure, so that it is not asked for anew by every call.
      if (lifeMs <= 0) return err("GitHub's token is over already, by the gate's clock");
      return ok({ token: new Secret(parsed.data.token), lifeMs });
    },
  },
};

const bodyOf = ({ repositories, permissions }: Narrowing) => ({
  ...(repositories === null ? {} : { repositories }),
  ...(permissions === null ? {} : { permissions: Object.fromEntries(permissions) }),
});

/** What is said of the token, held to what was asked for: a server that knows no narrowing must not widen a grant. */
function isWider(given: z.output<typeof installationToken>, { repositories, permissions }: Narrowing): boolean {
  if (repositories !== null) {
    // `selected` alone says nothing: so is the token of an installation that has selected repositories, narrowed or not.
    const named = given.repositories;
    if (given.repository_selection !== "selected" || named === undefined) return true;
    if (named.some(({ name }) => !repositories.includes(name.toLowerCase()))) return true;
  }
  if (permissions === null) return false;
  const asked = new Map(permissions);
  // Everyone who may do anything may read metadata: GitHub adds that by itself.
  const isAsked = ([name, access]: readonly [string, string]): boolean =>
    asked.get(name) === access || (access === "read" && (asked.has(name) || name === "metadata"));
  return given.permissions === undefined || !Object.entries(given.permissions).every(isAsked);
}
