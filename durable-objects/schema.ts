import { withBytesAhead } from "./instance-migrations.ts";
import { rowsIfThere, UnreadableState } from "./stored.ts";

/** Brings what is stored from one version to the next: synchronous, and with the new version in one transaction. */
export type Migration = (sql: SqlStorage) => void;

/**
 * How each class has changed what it stores: tables, kept rows, running totals. The number of its migrations is its version. Whoever
 * changes what is stored adds one here (test/workerd/stored-shapes.test.ts finds out), and never alters one that was released.
 */
export const MIGRATIONS = {
  AgentInstance: [withBytesAhead],
  ApprovalDesk: [],
  // Stores nothing.
  CredentialBroker: [],
  Journal: [],
  MandateBook: [],
  MandateIndex: [],
  Quota: [],
  Retention: [],
  Roster: [],
  Switchboard: [],
} as const satisfies Readonly<Record<string, readonly Migration[]>>;
export type ClassName = keyof typeof MIGRATIONS;
export const versionOf = (name: ClassName): number => MIGRATIONS[name].length;

/**
 * The version stands in the schema itself, as a view that reads no table: it costs no row, and no page when an object starts. (Durable
 * Objects refuse `PRAGMA user_version`.) State without one is 0: as it was before there were versions.
 */
const VIEW = "storage_version";

function foundVersion(sql: SqlStorage): number {
  const [found] = rowsIfThere<{ version: SqlStorageValue }>(sql, `SELECT version FROM ${VIEW}`) ?? [{ version: 0 }];
  const version = found?.version;
  if (typeof version === "number" && Number.isInteger(version) && version >= 0) return version;
  throw new UnreadableState("its version is no number");
}

function setVersion(sql: SqlStorage, version: number): void {
  sql.exec(`DROP VIEW IF EXISTS ${VIEW}`);
  sql.exec(`CREATE VIEW ${VIEW} AS SELECT ${version} AS version`);
}

/** Tables of the platform's own apart. */
const isEmpty = (sql: SqlStorage): boolean =>
  sql.exec("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name NOT GLOB '_cf_*' LIMIT 1").toArray().length === 0;

/**
 * Before anything else is read. Afterwards what is stored is of this version, or there is nothing. Throws where a newer release
 * wrote it, and where a migration fails: then it is as it was. False: there is nothing.
 */
export function migrate(storage: DurableObjectStorage, migrations: readonly Migration[]): boolean {
  const { sql } = storage;
  const known = migrations.length;
  const found = foundVersion(sql);
  if (found > known)
    throw new UnreadableState(`a newer release stored it: it has version ${found}, and this release knows ${known}`);
  if (found === known) return true;
  if (isEmpty(sql)) return false;
  try {
    // One commit. Dying in the middle leaves what was there, and the next start begins anew.
    storage.transactionSync(() => {
      for (const [i, one] of migrations.entries()) if (i >= found) one(sql);
      setVersion(sql, known);
    });
  } catch (error) {
    throw new UnreadableState(`from version ${found} to ${known}: ${reasonOf(error)}`);
  }
  return true;
}

/** Of what is no JSON, the error would quote some. */
const reasonOf = (error: unknown): string =>
  error instanceof Error && !(error instanceof SyntaxError) ? error.message : "it is no JSON";

/** With the first table of an object: what comes is of this version. Who is of version 0 need not say so. */
export function stamp(sql: SqlStorage, version: number): void {
  if (version > 0) sql.exec(`CREATE VIEW IF NOT EXISTS ${VIEW} AS SELECT ${version} AS version`);
}

/** The same for a class whose constructor makes its tables. */
export function stampIfAny(sql: SqlStorage, version: number): void {
  if (version > 0 && !isEmpty(sql)) stamp(sql, version);
}
