// docs/queries.md as it stands, over a copy of a bucket.

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { type DuckDBConnection, DuckDBInstance, type Json } from "@duckdb/node-api";
import { expect } from "vitest";

const doc = fileURLToPath(new URL("../../docs/queries.md", import.meta.url));

export type Row = Record<string, Json>;

export interface Queries {
  readonly db: DuckDBConnection;
  /** The rows of the last statement under a heading. */
  rowsOf(heading: string, change?: (sql: string) => string): Promise<Row[]>;
}

/** The page's views are there already, as if the copy were the current folder. */
export async function startQueries(copy: string): Promise<Queries> {
  const text = await readFile(doc, "utf8");
  const blocks = new Map(
    text.split(/^## /m).flatMap((section) => {
      const sql = /^```sql\n(.*?)^```$/ms.exec(section)?.[1];
      return sql === undefined ? [] : [[section.slice(0, section.indexOf("\n")), sql] as const];
    }),
  );
  expect([...text.matchAll(/^```sql$/gm)]).toHaveLength(blocks.size);
  const db = await (await DuckDBInstance.create(":memory:")).connect();
  await db.run(`SET file_search_path = '${copy}'`);
  await db.run(blocks.get("Two views")!);
  return {
    db,
    async rowsOf(heading, change = (sql) => sql) {
      const sql = blocks.get(heading);
      if (sql === undefined) throw new Error(`no block under ${heading}`);
      return (await db.runAndReadAll(change(sql))).getRowObjectsJson();
    },
  };
}
