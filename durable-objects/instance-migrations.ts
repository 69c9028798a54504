import type { Json } from "../src/scope/call.ts";
import { rowsIfThere } from "./stored.ts";

type JsonObject = { readonly [name: string]: Json };

/** 0 to 1: what running calls may have passed ahead of the count. Before, nobody reckoned with it. */
export const withBytesAhead = (sql: SqlStorage): void =>
  changeTotals(sql, ({ usage, ...state }) => ({ ...state, usage: { bytesAhead: 0, ...(usage as JsonObject) } }));

/** The running totals that an object may begin with: those of the newest record, and those that a segment ends with. */
function changeTotals(sql: SqlStorage, change: (state: JsonObject) => JsonObject): void {
  const changed = (state: string): string => {
    const totals = JSON.parse(state) as JsonObject | null;
    return totals === null ? state : JSON.stringify(change(totals));
  };
  const segments = rowsIfThere<{ id: string; json: string }>(sql, "SELECT id, json FROM kept WHERE kind = 'segment'");
  for (const { id, json } of segments ?? []) {
    const segment = JSON.parse(json) as JsonObject & { readonly state: string };
    const row = JSON.stringify({ ...segment, state: changed(segment.state) });
    sql.exec("UPDATE kept SET json = ? WHERE kind = 'segment' AND id = ?", row, id);
  }
  const logs = sql.exec<{ name: string }>("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB 'log_*'");
  for (const { name } of logs.toArray()) {
    const newest = `SELECT id, state FROM ${name} WHERE state IS NOT NULL ORDER BY seq DESC LIMIT 1`;
    for (const { id, state } of sql.exec<{ id: number; state: string }>(newest).toArray())
      sql.exec(`UPDATE ${name} SET state = ? WHERE id = ?`, changed(state), id);
  }
}
