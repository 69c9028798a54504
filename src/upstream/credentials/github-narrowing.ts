import type { CredentialOf } from "../../config/credential.ts";
import { err, ok, type Result } from "../../result.ts";
import type { Call } from "../../scope/call.ts";
import { covers } from "../../scope/decide.ts";
import type { Entry } from "../../scope/entry.ts";
import { bindOperation, type Operation, type Part } from "../../scope/template.ts";
import type { Narrowing } from "../narrowing.ts";

/** Pure: for which repositories and permissions a grant needs a token, and no more. */

type GithubApp = CredentialOf<"github-app">;

/** GitHub takes no more in one request. */
const MAX_REPOSITORIES = 500;

/** An error says what keeps the token from being narrowed; then there is none, unless the configuration lets it be wide. */
export function narrowToGrant(
  config: GithubApp,
  upstream: string,
  entries: readonly Entry[],
): Result<Narrowing, string> {
  const own = entries.filter((entry) => entry.upstream === upstream);
  const repositories = repositoriesOf(own, config.account);
  const isNarrow = repositories.ok && repositories.value.length > 0;
  if (config.requireNarrowing && !isNarrow)
    return err(repositories.ok ? "the grant names no repository" : repositories.error);
  const permissions = permissionsOf(config, own);
  if (permissions.length === 0) return err("no operation of the grant has a permission in the configuration");
  return ok({ repositories: isNarrow ? repositories.value : null, permissions });
}

/** Whether the token has what this call needs, by an operation of the grant that the configuration's table covers. */
export const isCovered = (
  config: GithubApp,
  { upstream, method, segments }: Omit<Call, "body">,
  entries: readonly Entry[],
): boolean =>
  entries.some(
    (entry) =>
      entry.upstream === upstream &&
      entry.operations.some(
        (operation) =>
          bindOperation(operation, method, segments) !== undefined && rowsOf(config, entry, operation).length > 0,
      ),
  );

/** Whether any grant could be covered for it: an operation that is this call, and of which a row holds the whole. */
export const isCoverable = ({ permissions }: GithubApp, { method, segments }: Omit<Call, "body">): boolean =>
  permissions.some(({ operations }) =>
    operations.some((operation) => bindOperation(operation, method, segments) !== undefined),
  );

/** Each once, in one order: grants of equal scope share a token. */
function repositoriesOf(entries: readonly Entry[], account: string): Result<readonly string[], string> {
  const named = new Set<string>();
  for (const entry of entries)
    for (const operation of entry.operations) {
      const names = repositoriesBy(operation, entry, account);
      if (!names.ok) return names;
      for (const name of names.value) named.add(name.toLowerCase());
    }
  if (named.size > MAX_REPOSITORIES) return err(`the grant names more than ${MAX_REPOSITORIES} repositories`);
  return ok([...named].sort());
}

/** `/repos/{owner}/{repo}/…`, whatever the parameters are called. What lies elsewhere (`/user`) needs no repository of its own. */
function repositoriesBy(operation: Operation, entry: Entry, account: string): Result<readonly string[], string> {
  const [root, owner, repository] = operation.parts;
  if (root?.kind !== "literal") return err(`${operation.text} may be any repository's`);
  if (root.text.toLowerCase() !== "repos") return ok([]);
  const owners = valuesOf(owner, entry);
  if (owners === undefined || owners.some((one) => one.toLowerCase() !== account.toLowerCase()))
    return err(`${operation.text} does not name the installation's account alone`);
  const names = valuesOf(repository, entry);
  return names === undefined ? err(`${operation.text} does not name its repositories`) : ok(names);
}

/** What a part can be, where that is a list; else undefined. */
function valuesOf(part: Part | undefined, entry: Entry): readonly string[] | undefined {
  if (part === undefined || part.kind === "rest") return undefined;
  if (part.kind === "literal") return [part.text];
  const predicate = entry.where.get(part.name);
  if (predicate?.kind !== "list") return undefined;
  const values = predicate.items.filter((item) => typeof item === "string");
  return values.length === predicate.items.length ? values : undefined;
}

function permissionsOf(config: GithubApp, entries: readonly Entry[]): NonNullable<Narrowing["permissions"]> {
  const needed = new Map<string, "read" | "write">();
  for (const entry of entries)
    for (const operation of entry.operations)
      for (const { permission, access } of rowsOf(config, entry, operation))
        if (needed.get(permission) !== "write") needed.set(permission, access);
  return [...needed].sort(([a], [b]) => (a < b ? -1 : 1));
}

/** Rows that hold the whole of the operation: one that holds a part of it would leave the rest without its permission. */
const rowsOf = (config: GithubApp, entry: Entry, operation: Operation): GithubApp["permissions"] =>
  config.permissions.filter((row) =>
    covers({ ...entry, operations: row.operations, where: NO_CONDITIONS }, { ...entry, operations: [operation] }),
  );

const NO_CONDITIONS: Entry["where"] = new Map();
