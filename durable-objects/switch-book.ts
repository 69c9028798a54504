import * as z from "zod";
import type { Reached } from "../src/control/acknowledgement.ts";
import type { FlipRequest, Opening } from "../src/control/contract.ts";
import type { Narrowing } from "../src/control/narrowing.ts";
import type { Switch } from "../src/control/switch.ts";
import { readStored, UnreadableState } from "./stored.ts";
import { OPENING, REACHED, SWITCH } from "./switch-shape.ts";

type SwitchRow = {
  no: number;
  id: string;
  json: string;
  /** 0: to be carried on. 1: nobody in reach could act any more. 2: a pause that was resumed before that. */
  done: 0 | 1 | 2;
  /** JSON of `Opening`; null while it is closed. */
  opened: string | null;
  /** 1: every shard knows that it is open. */
  open_done: number;
};
type OutcomeRow = { shard: number; idle: number; reached: string };

const UNFINISHED = "(done = 0 OR (opened IS NOT NULL AND open_done = 0))";
const OPENED_AT = "json_extract(opened, '$.atMs')";
const UNTIL = "json_extract(json, '$.untilMs')";
const IS_PAUSE = "json_extract(json, '$.act') = 'pause'";

/** What is looked for with every alarm is found without a look at the rest: the book grows for as long as switches are kept. */
const SCHEMA = [
  `CREATE TABLE IF NOT EXISTS switches (no INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, json TEXT NOT NULL,
     done INTEGER NOT NULL DEFAULT 0, opened TEXT, open_done INTEGER NOT NULL DEFAULT 0)`,
  `CREATE INDEX IF NOT EXISTS switches_unfinished ON switches (no) WHERE ${UNFINISHED}`,
  `CREATE INDEX IF NOT EXISTS switches_closed ON switches (no) WHERE opened IS NULL`,
  `CREATE INDEX IF NOT EXISTS switches_paused ON switches (no) WHERE opened IS NULL AND ${IS_PAUSE}`,
  `CREATE INDEX IF NOT EXISTS switches_timed ON switches (${UNTIL}) WHERE opened IS NULL AND ${UNTIL} IS NOT NULL`,
  `CREATE INDEX IF NOT EXISTS switches_opened ON switches (${OPENED_AT}) WHERE opened IS NOT NULL`,
  `CREATE TABLE IF NOT EXISTS outcomes (switch TEXT NOT NULL, shard INTEGER NOT NULL, part INTEGER NOT NULL,
     idle INTEGER NOT NULL, reached TEXT NOT NULL, PRIMARY KEY (switch, shard, part)) WITHOUT ROWID`,
  `CREATE TABLE IF NOT EXISTS lifts (switch TEXT NOT NULL, by TEXT NOT NULL, at_ms INTEGER NOT NULL,
     PRIMARY KEY (switch, by)) WITHOUT ROWID`,
  `CREATE TABLE IF NOT EXISTS idempotency (by_key TEXT PRIMARY KEY, request TEXT NOT NULL, switch TEXT NOT NULL) WITHOUT ROWID`,
  "CREATE INDEX IF NOT EXISTS idempotency_switch ON idempotency (switch)",
  "CREATE TABLE IF NOT EXISTS shards (shard INTEGER PRIMARY KEY)",
  // Outlives the switches: what a human had approved before stays ended.
  "CREATE TABLE IF NOT EXISTS human_kills (name TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) WITHOUT ROWID",
  `CREATE TABLE IF NOT EXISTS human_narrowings (name TEXT NOT NULL, switch TEXT NOT NULL, event_at_ms INTEGER NOT NULL,
     kept TEXT NOT NULL, PRIMARY KEY (name, switch)) WITHOUT ROWID`,
];

/** Of one row: a SQLite value holds 2 MB on the platform. */
const REACHED_PER_ROW = 5_000;
/** Forgotten with one alarm: each follows a flip or an opening, so this keeps up with them. */
const FORGOTTEN_AT_ONCE = 100;

export interface Entry {
  readonly no: number;
  readonly sw: Switch;
  readonly isDone: boolean;
  /** A pause that was resumed before it was done: it is carried on no more. */
  readonly isGivenUp: boolean;
  readonly opened: Opening | null;
  readonly isOpenDone: boolean;
}

/** Where some can't be read, the others are all the same to be carried on. */
export interface Readable {
  readonly entries: readonly Entry[];
  /** Why one of the others can't be; null: there is none. */
  readonly unreadable: UnreadableState | null;
}

export interface ShardOutcome {
  readonly idle: number;
  readonly reached: readonly Reached[];
}

/** The tables of the switchboard. Whatever is decided stands here first. */
export class SwitchBook {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    for (const statement of SCHEMA) sql.exec(statement);
  }

  add(sw: Switch, request: FlipRequest): void {
    this.#sql.exec("INSERT INTO switches (id, json) VALUES (?, ?)", sw.id, JSON.stringify(sw));
    if (sw.reach === "human" && sw.target.human !== undefined) this.#addHuman(sw.target.human, sw);
    if (request.idempotencyKey !== null)
      this.#sql.exec(
        "INSERT INTO idempotency (by_key, request, switch) VALUES (?, ?, ?)",
        keyOf(request),
        fingerprint(request),
        sw.id,
      );
  }

  #addHuman(name: string, { id, act, atMs, eventAtMs = atMs, groups = [] }: Switch): void {
    if (act === "kill") this.#sql.exec("INSERT OR REPLACE INTO human_kills (name, at_ms) VALUES (?, ?)", name, atMs);
    if (act === "narrow")
      this.#sql.exec(
        "INSERT INTO human_narrowings (name, switch, event_at_ms, kept) VALUES (?, ?, ?, ?)",
        name,
        id,
        eventAtMs,
        JSON.stringify(groups),
      );
  }

  /** The switch that this key or this id made before: `undefined` none, `null` one of another request. */
  repeated(request: FlipRequest): string | null | undefined {
    const same = this.get(request.id)?.sw;
    if (same !== undefined)
      return fingerprint(same) === fingerprint(request) && same.by === request.by ? same.id : null;
    if (request.idempotencyKey === null) return undefined;
    const [row] = this.#sql
      .exec<{ request: string; switch: string }>(
        "SELECT request, switch FROM idempotency WHERE by_key = ?",
        keyOf(request),
      )
      .toArray();
    if (row === undefined) return undefined;
    return row.request === fingerprint(request) ? row.switch : null;
  }

  get(id: string): Entry | undefined {
    return this.#select("id = ?", id)[0];
  }

  /** Not through: to be pushed, or to be opened at the shards. */
  unfinished(): Readable {
    return this.#selectReadable(UNFINISHED);
  }

  get hasUnfinished(): boolean {
    return this.#sql.exec(`SELECT 1 FROM switches WHERE ${UNFINISHED} LIMIT 1`).toArray().length > 0;
  }

  closedPauses(): Readable {
    return this.#selectReadable(`opened IS NULL AND ${IS_PAUSE}`);
  }

  /** Closed, and their time is over. */
  due(nowMs: number): Readable {
    return this.#selectReadable(`opened IS NULL AND ${UNTIL} IS NOT NULL AND ${UNTIL} <= ?`, nowMs);
  }

  /** When the next one opens by itself. */
  get nextUntilMs(): number | null {
    const [row] = this.#sql
      .exec<{ at: SqlStorageValue }>(
        `SELECT ${UNTIL} AS at FROM switches WHERE opened IS NULL AND ${UNTIL} IS NOT NULL ORDER BY ${UNTIL} LIMIT 1`,
      )
      .toArray();
    // What is no number comes behind all numbers, and is no time.
    return typeof row?.at === "number" ? row.at : null;
  }

  /** What a shard that comes up must know: all that is closed, was opened since, or may still be pushed. */
  standing(sinceMs: number): Entry[] {
    return [
      ...this.#select("opened IS NULL"),
      ...this.#select(`opened IS NOT NULL AND ${OPENED_AT} > ?`, sinceMs),
      ...this.#select(`${UNFINISHED} AND opened IS NOT NULL AND ${OPENED_AT} <= ?`, sinceMs),
    ];
  }

  /** Through, and opened by then: nobody who lives was in their reach, and no shard knows them any more. */
  forget(openedByMs: number): void {
    const forgotten = this.#sql
      .exec<{ id: string }>(
        `SELECT id FROM switches WHERE opened IS NOT NULL AND ${OPENED_AT} <= ? AND NOT ${UNFINISHED}
           ORDER BY ${OPENED_AT} LIMIT ?`,
        openedByMs,
        FORGOTTEN_AT_ONCE,
      )
      .toArray();
    for (const { id } of forgotten)
      for (const statement of [
        "DELETE FROM outcomes WHERE switch = ?",
        "DELETE FROM idempotency WHERE switch = ?",
        "DELETE FROM switches WHERE id = ?",
      ])
        this.#sql.exec(statement, id);
  }

  before(no: number, limit: number): Entry[] {
    return this.#select("no < ? ORDER BY no DESC LIMIT ?", no, limit);
  }

  /** A pause that was resumed meanwhile holds nobody: that all have stopped would not be true of it. */
  setDone(id: string): void {
    this.#sql.exec("UPDATE switches SET done = 1 WHERE id = ? AND done = 0", id);
  }

  /** A kill that is lifted stays final for who was in reach, and is carried on. A pause is not. */
  open(id: string, opening: Opening): void {
    this.#sql.exec(
      `UPDATE switches SET opened = ?, done = CASE WHEN done = 0 AND ${IS_PAUSE} THEN 2 ELSE done END WHERE id = ?`,
      JSON.stringify(opening),
      id,
    );
    this.#sql.exec("DELETE FROM lifts WHERE switch = ?", id);
  }

  setOpenDone(id: string): void {
    this.#sql.exec("UPDATE switches SET open_done = 1 WHERE id = ?", id);
  }

  askLift(id: string, by: string, nowMs: number): void {
    this.#sql.exec("INSERT OR REPLACE INTO lifts (switch, by, at_ms) VALUES (?, ?, ?)", id, by, nowMs);
  }

  liftAskedBy(id: string, sinceMs: number): string[] {
    return this.#sql
      .exec<{ by: string }>("SELECT by FROM lifts WHERE switch = ? AND at_ms > ? ORDER BY at_ms", id, sinceMs)
      .toArray()
      .map(({ by }) => by);
  }

  outcome(id: string): Map<number, ShardOutcome> {
    const outcomes = new Map<number, ShardOutcome>();
    for (const { shard, idle, reached } of this.#sql.exec<OutcomeRow>(
      "SELECT shard, idle, reached FROM outcomes WHERE switch = ? ORDER BY shard, part",
      id,
    )) {
      const before = outcomes.get(shard)?.reached ?? [];
      outcomes.set(shard, {
        idle,
        reached: [...before, ...readStored(REACHED_LIST, "what a shard has reached", reached)],
      });
    }
    return outcomes;
  }

  /** The same without who was reached. */
  idleOf(id: string): Map<number, ShardOutcome> {
    const rows = this.#sql.exec<Pick<OutcomeRow, "shard" | "idle">>(
      "SELECT shard, idle FROM outcomes WHERE switch = ? AND part = 0",
      id,
    );
    return new Map(rows.toArray().map(({ shard, idle }) => [shard, { idle, reached: [] }]));
  }

  setOutcome(id: string, shard: number, { idle, reached }: ShardOutcome): void {
    for (let part = 0; part === 0 || part * REACHED_PER_ROW < reached.length; part++)
      this.#sql.exec(
        "INSERT OR REPLACE INTO outcomes (switch, shard, part, idle, reached) VALUES (?, ?, ?, ?, ?)",
        id,
        shard,
        part,
        idle,
        JSON.stringify(reached.slice(part * REACHED_PER_ROW, (part + 1) * REACHED_PER_ROW)),
      );
  }

  /** Null: none of these names was ever killed. */
  humanKilledAtMs(names: readonly string[]): number | null {
    const rows = names.flatMap((name) =>
      this.#sql.exec<{ at_ms: number }>("SELECT at_ms FROM human_kills WHERE name = ?", name).toArray(),
    );
    return rows.length === 0 ? null : Math.max(...rows.map(({ at_ms }) => at_ms));
  }

  narrowingsOf(names: readonly string[]): Narrowing[] {
    return names.flatMap((name) =>
      this.#sql
        .exec<{ event_at_ms: number; kept: string }>(
          "SELECT event_at_ms, kept FROM human_narrowings WHERE name = ?",
          name,
        )
        .toArray()
        .map(({ event_at_ms, kept }) => ({
          eventAtMs: event_at_ms,
          groups: readStored(GROUPS, "what a human has lost", kept),
        })),
    );
  }

  join(shard: number): void {
    this.#sql.exec("INSERT OR IGNORE INTO shards (shard) VALUES (?)", shard);
  }

  shards(): number[] {
    return this.#sql
      .exec<{ shard: number }>("SELECT shard FROM shards ORDER BY shard")
      .toArray()
      .map(({ shard }) => shard);
  }

  /** Throws where one of them can't be read: whatever hangs on all of them is not decided. */
  #select(where: string, ...bindings: (string | number)[]): Entry[] {
    return this.#rows(where, bindings).map(entryOf);
  }

  #selectReadable(where: string, ...bindings: (string | number)[]): Readable {
    let unreadable: UnreadableState | null = null;
    const entries = this.#rows(where, bindings).flatMap((row) => {
      try {
        return [entryOf(row)];
      } catch (error) {
        if (!(error instanceof UnreadableState)) throw error;
        unreadable = error;
        return [];
      }
    });
    return { entries, unreadable };
  }

  #rows(where: string, bindings: readonly (string | number)[]): SwitchRow[] {
    return this.#sql.exec<SwitchRow>(`SELECT * FROM switches WHERE ${where}`, ...bindings).toArray();
  }
}

const GROUPS = z.array(z.string());
const REACHED_LIST = z.array(REACHED);

const entryOf = ({ no, json, done, opened, open_done }: SwitchRow): Entry => ({
  no,
  sw: readStored(SWITCH, "switch", json),
  isDone: done === 1,
  isGivenUp: done === 2,
  opened: opened === null ? null : readStored(OPENING, "opening of a switch", opened),
  isOpenDone: open_done === 1,
});

const keyOf = ({ by, idempotencyKey }: FlipRequest): string => JSON.stringify([by, idempotencyKey]);

const fingerprint = ({
  reach,
  target,
  act,
  reason,
  cause,
  untilMs,
  groups = [],
}: Omit<FlipRequest, "idempotencyKey" | "email">): string =>
  // The times of one that narrows are made here, when it is first asked for.
  JSON.stringify([reach, Object.entries(target).sort(), act, reason, cause, act === "narrow" ? null : untilMs, groups]);
