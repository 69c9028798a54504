import * as z from "zod";
import { type ClassName, stamp, versionOf } from "./schema.ts";
import { readStored, rowsIfThere } from "./stored.ts";

type KeptRow = { kind: string; id: string; json: string };

/** What is kept. Each kind has one owner, which says what stands in it. */
export type Kind = "enrolment" | "switch" | "handover" | "approval" | "segment" | "raw" | "orphan" | "child" | "family";

export type Shapes = { readonly [kind in Kind]?: z.ZodType };

const SCHEMA =
  "CREATE TABLE IF NOT EXISTS kept (kind TEXT, id TEXT, json TEXT NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID";

/**
 * The few things of an object that are no records, one row each, in one table. A kill may have to wake thousands of
 * objects: each opens one table and reads it once, and one that has nothing to keep creates none.
 */
export class Kept {
  readonly #sql: SqlStorage;
  /** As found at the start, until their owners take them. */
  readonly #found = new Map<string, Map<string, unknown>>();
  #isThere: boolean;
  readonly #version: number;

  /** @param shapes of the kinds that are kept here. All that is found is held to them, before anybody takes any of it. */
  constructor(sql: SqlStorage, of: ClassName, shapes: Shapes) {
    this.#sql = sql;
    this.#version = versionOf(of);
    const rows = rowsIfThere<KeptRow>(sql, "SELECT kind, id, json FROM kept");
    this.#isThere = rows !== null;
    for (const { kind, id, json } of rows ?? []) {
      const ofKind = this.#found.get(kind) ?? new Map<string, unknown>();
      const shape = Object.hasOwn(shapes, kind) ? shapes[kind as Kind]! : z.never();
      this.#found.set(kind, ofKind.set(id, readStored(shape, kind, json)));
    }
  }

  /** Once, by the owner of the kind: what was kept when this object started. */
  take<T>(kind: Kind): Map<string, T> {
    const found = this.#found.get(kind) ?? new Map<string, unknown>();
    this.#found.delete(kind);
    return found as Map<string, T>;
  }

  /** Before the first row of the object. */
  begin(): void {
    stamp(this.#sql, this.#version);
  }

  put(kind: Kind, id: string, value: unknown): void {
    if (!this.#isThere) {
      this.begin();
      this.#sql.exec(SCHEMA);
    }
    this.#isThere = true;
    this.#sql.exec("INSERT OR REPLACE INTO kept (kind, id, json) VALUES (?, ?, ?)", kind, id, JSON.stringify(value));
  }

  delete(kind: Kind, id: string): void {
    this.#sql.exec("DELETE FROM kept WHERE kind = ? AND id = ?", kind, id);
  }
}
