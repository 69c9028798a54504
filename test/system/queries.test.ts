// The queries of docs/queries.md, as they stand there, over what a gate has written about an incident.

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { DuckDBConnection, Json } from "@duckdb/node-api";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { humans } from "../../scripts/local/humans.ts";
import { pullBucket } from "../../scripts/local/verify-folder.ts";
import { type Incident, startIncident } from "./incident-rig.ts";
import { type Queries, type Row, startQueries } from "./query-blocks.ts";

let incident: Incident;
let copy: string;
let db: DuckDBConnection;
let rowsOf: Queries["rowsOf"];

beforeAll(async () => {
  incident = await startIncident();
  copy = await mkdtemp(join(tmpdir(), "portcullis-queries-"));
  await incident.rig.h.journal("admin", ({ deed }) => deed === "flip");
  await pullBucket(await incident.rig.bucket(), copy);
  ({ db, rowsOf } = await startQueries(copy));
});
afterAll(async () => {
  db?.closeSync();
  await incident?.close();
  await rm(copy, { recursive: true, force: true });
});

const pick = (rows: readonly Row[], ...names: string[]): Json[][] => rows.map((row) => names.map((name) => row[name]!));

describe("docs/queries.md", () => {
  it("who touched this, and on behalf of whom", async () => {
    const rows = await rowsOf("Who touched this, and on behalf of whom");
    expect(pick(rows, "email", "type", "target", "times")).toEqual([
      [humans.ada.email, "call", "/github/repos/acme/widgets/issues?page=2", "1"],
      [humans.ada.email, "refused", "/github/repos/acme/widgets/contents/secrets.env", "1"],
    ]);
    const { human, task } = incident.lines[0]!;
    expect(rows[0]).toMatchObject({
      human,
      task,
      instance: incident.killed.id,
      agent: "triage-bot",
      agentVersion: "1.4.0",
    });
    expect(JSON.parse(rows[0]!["chain"] as string)).toEqual([
      { client: "build-platform", agent: "triage-bot", agentVersion: "1.4.0", instance: expect.any(String) },
    ]);
    // Its neighbours by name are others.
    const touched = (path: string) => (sql: string) => sql.replace("'/github/repos/acme/widgets'", `'${path}'`);
    const heading = "Who touched this, and on behalf of whom";
    expect(await rowsOf(heading, touched("/github/repos/acme/widget"))).toEqual([]);
    const both = await rowsOf(heading, touched("/hostile/repos/acme/payroll"));
    expect(both.map(({ instance }) => instance)).toEqual([incident.killed.id, incident.other.id]);
  });

  it("what happened before a kill", async () => {
    const heading = "What happened before a kill";
    const rows = await rowsOf(heading);
    const at = incident.lines.findIndex(({ type }) => type === "switched");
    const before = incident.lines.slice(Math.max(0, at - 19), at + 1);
    expect(pick(rows, "instance", "seq", "type")).toEqual(
      before.map(({ seq, type }) => [incident.killed.id, String(seq), type]),
    );
    expect(rows.at(-1)).toMatchObject({
      switch: incident.receipt.switch.id,
      reason: "It reads the payroll",
      by: incident.receipt.switch.by,
    });
    const three = await rowsOf(heading, (sql) => sql.replace("before_kill = 20", "before_kill = 3"));
    expect(three).toEqual(rows.slice(-3));
  });

  it("calls of each human and upstream", async () => {
    const rows = await rowsOf("Calls of each human and upstream");
    const { human } = incident.lines[0]!;
    const received = (upstream: string): number => {
      const calls = incident.lines.filter((line) => line.type === "call" && line["upstream"] === upstream);
      const answers = incident.lines.filter((line) => calls.some(({ seq }) => seq === line["call"]));
      return answers.reduce((sum, line) => sum + Number(line["passedBytes"]), 0);
    };
    const hostile = received("hostile") + 43; // the other's call
    expect(pick(rows, "human", "upstream", "calls", "complete", "broken", "unanswered", "sent", "received")).toEqual([
      [human, "hostile", "7", "6", "1", "0", "31", String(hostile)],
      [human, "github", "1", "1", "0", "0", "0", String(received("github"))],
    ]);
  });

  it("what was refused, where and why", async () => {
    const rows = await rowsOf("What was refused, where and why");
    expect(pick(rows, "method", "target", "layer", "kind", "reason", "refusals")).toEqual([
      ["GET", "/ungranted/repos/acme/secret", "route", "absent", "not in the grant's aud", "1"],
      ["GET", "/github/repos/acme/widgets/contents/secrets.env", "grant", "absent", "not within the grant", "1"],
      ["GET", "/hostile/after-the-kill", "credentials", "unauthenticated", "switched", "1"],
    ]);
    expect(rows.every(({ instance }) => instance === incident.killed.id)).toBe(true);
  });

  it("which calls carried this value, in text and in what is no text", async () => {
    const heading = "Which calls carried this value";
    const rows = await rowsOf(heading);
    expect(pick(rows, "target", "part", "held", "searched")).toEqual([
      ["/hostile/repos/acme/payroll", "answer", true, "all"],
      ["/hostile/comments?page=2", "request", true, "all"],
      ["/hostile/large", "answer", false, "in part: see its raw objects"],
      ["/hostile/binary", "answer", true, "all"],
      ["/hostile/repos/acme/payroll?from=other", "answer", true, "all"],
    ]);
    const held = async (value: string) =>
      (await rowsOf(heading, (sql) => sql.replace("AKIAIOSFODNN7EXAMPLE", value))).filter(
        (row) => row["held"] === true,
      );
    // By whole bytes: the digits of `ggg` stand in those of `vvvv`, shifted by half a byte.
    expect(await held("ggg")).toEqual([]);
    expect(pick(await held("vvv"), "target")).toEqual([["/hostile/escapes"]]);
  });

  it("a glob over transcripts and journals together is refused, as the page says; journals alone can be read", async () => {
    const all = db.run("FROM read_json('transcripts/**/*.jsonl.gz', hive_partitioning = true)");
    await expect(all).rejects.toThrow("Hive partition mismatch");
    const sql = "SELECT count(*) AS n FROM read_json('transcripts/journal=admin/day=*/*.jsonl.gz') WHERE deed = 'flip'";
    expect((await db.runAndReadAll(sql)).getRowObjectsJson()).toEqual([{ n: "1" }]);
  });
});
