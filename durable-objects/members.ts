import type { Member } from "../src/control/contract.ts";
import type { Attributes, Switch, TargetMember } from "../src/control/switch.ts";

type MemberRow = {
  instance: string;
  human: string;
  email_digest: string | null;
  groups_at_ms: number;
  task: string;
  agent: string;
  agent_version: string;
  client: string;
  upstreams: string;
  ancestors: string;
  mandate: string | null;
  agents_above: string;
  deadline_ms: number;
  enlisted_at_ms: number;
  confirmed_until_ms: number;
  running: number;
};

/** `upstreams`, `ancestors` and `agents_above` are lists with a comma before and after each name: names hold none. */
const SCHEMA = `CREATE TABLE IF NOT EXISTS members (
  instance TEXT PRIMARY KEY, human TEXT NOT NULL, email_digest TEXT, groups_at_ms INTEGER NOT NULL,
  task TEXT NOT NULL, agent TEXT NOT NULL,
  agent_version TEXT NOT NULL, client TEXT NOT NULL, upstreams TEXT NOT NULL, ancestors TEXT NOT NULL, agents_above TEXT NOT NULL,
  mandate TEXT,
  deadline_ms INTEGER NOT NULL, enlisted_at_ms INTEGER NOT NULL, confirmed_until_ms INTEGER NOT NULL,
  running INTEGER NOT NULL) WITHOUT ROWID`;

/** The same as `isInReach`, asked of the table; `$name` is that member of the target. A test holds the two equal. */
const CONDITIONS: Readonly<Record<TargetMember, string>> = {
  instance: "(instance = $instance OR instr(ancestors, ',' || $instance || ',') > 0)",
  task: "task = $task",
  human: "(human = $human OR email_digest = $human)",
  agent: "(agent = $agent OR instr(agents_above, ',' || $agent || '@') > 0)",
  agentVersion: `(agent = $agent AND agent_version = $version
    OR instr(agents_above, ',' || $agent || '@' || $version || ',') > 0)`,
  upstream: "instr(upstreams, ',' || $upstream || ',') > 0",
  mandate: "mandate = $mandate",
};

const PLACES: { readonly [member in TargetMember]?: string } = { agentVersion: "version" };

export type Enlisted = Omit<Member, "state" | "narrowedBy">;

/** One that may act. */
export interface Confirmed extends Enlisted {
  /** It ran a call when it last asked. */
  readonly isRunning: boolean;
}

/** The table of one roster shard: who is enrolled, and until when each may admit calls without asking again. */
export class Members {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    sql.exec(SCHEMA);
  }

  /** A confirmation that was given is never believed shorter. */
  put(attributes: Attributes, nowMs: number, confirmedUntilMs: number): void {
    this.#sql.exec(
      `INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)
       ON CONFLICT (instance) DO UPDATE SET human = excluded.human, email_digest = excluded.email_digest,
         task = excluded.task, agent = excluded.agent, agent_version = excluded.agent_version,
         client = excluded.client, upstreams = excluded.upstreams, ancestors = excluded.ancestors, mandate = excluded.mandate,
         groups_at_ms = excluded.groups_at_ms, agents_above = excluded.agents_above,
         deadline_ms = excluded.deadline_ms, confirmed_until_ms = max(confirmed_until_ms, excluded.confirmed_until_ms)`,
      attributes.instance,
      attributes.human,
      attributes.emailDigest,
      attributes.groupsAtMs,
      attributes.task,
      attributes.agent,
      attributes.agentVersion,
      attributes.client,
      listed(attributes.upstreams),
      listed(attributes.ancestors),
      listed(attributes.agentsAbove),
      attributes.mandate,
      attributes.deadlineMs,
      nowMs,
      confirmedUntilMs,
    );
  }

  get(instance: string): Enlisted | undefined {
    return this.#select("instance = ?", instance)[0];
  }

  confirm(instance: string, untilMs: number, isRunning: boolean): void {
    const update = "UPDATE members SET confirmed_until_ms = ?, running = ? WHERE instance = ?";
    this.#sql.exec(update, untilMs, isRunning ? 1 : 0, instance);
  }

  remove(instance: string): void {
    this.#sql.exec("DELETE FROM members WHERE instance = ?", instance);
  }

  confirmedAfter(nowMs: number): Confirmed[] {
    return this.#rows("confirmed_until_ms > ?", nowMs).map((row) => ({
      ...enlisted(row),
      isRunning: row.running === 1,
    }));
  }

  page(after: string, limit: number): Enlisted[] {
    return this.#select("instance > ? ORDER BY instance LIMIT ?", after, limit);
  }

  pageOf(human: string, after: string, limit: number): Enlisted[] {
    return this.#select("human = ? AND instance > ? ORDER BY instance LIMIT ?", human, after, limit);
  }

  overdue(beforeMs: number, after: string, limit: number): Enlisted[] {
    return this.#select("deadline_ms < ? AND instance > ? ORDER BY instance LIMIT ?", beforeMs, after, limit);
  }

  forget(beforeMs: number): void {
    this.#sql.exec("DELETE FROM members WHERE deadline_ms < ?", beforeMs);
  }

  get lastEnlistedAtMs(): number {
    return this.#sql.exec<{ last: number | null }>("SELECT max(enlisted_at_ms) AS last FROM members").one().last ?? 0;
  }

  /** Of one human, by id or by the digest of the address. */
  lastEnlistedAtMsOf(human: string): number {
    const { last } = this.#sql
      .exec<{ last: number | null }>(
        "SELECT max(enlisted_at_ms) AS last FROM members WHERE human = ?1 OR email_digest = ?1",
        human,
      )
      .one();
    return last ?? 0;
  }

  /** `Infinity` where there is nobody. */
  get firstEnlistedAtMs(): number {
    const { first } = this.#sql
      .exec<{ first: number | null }>("SELECT min(enlisted_at_ms) AS first FROM members")
      .one();
    return first ?? Number.POSITIVE_INFINITY;
  }

  get isEmpty(): boolean {
    return this.#sql.exec("SELECT 1 FROM members LIMIT 1").toArray().length === 0;
  }

  /** How many in reach hold no confirmation that ended later than this. */
  countIdle({ target, eventAtMs = Number.MAX_SAFE_INTEGER }: Switch, beforeMs: number): number {
    const entries = Object.entries(target) as [TargetMember, string][];
    const places = new Map(entries.map(([member], i) => [PLACES[member] ?? member, `?${i + 3}`]));
    const conditions = entries.map(([member]) =>
      // Without an agent, a version is of each one's own.
      CONDITIONS[member].replaceAll(/\$([a-z]+)/g, (_, name: string) => places.get(name) ?? "agent"),
    );
    const { idle } = this.#sql
      .exec<{ idle: number }>(
        `SELECT count(*) AS idle FROM members WHERE ${["confirmed_until_ms <= ?1", "groups_at_ms < ?2", ...conditions].join(" AND ")}`,
        beforeMs,
        eventAtMs,
        ...entries.map(([, value]) => value),
      )
      .one();
    return idle;
  }

  #select(where: string, ...bindings: (string | number)[]): Enlisted[] {
    return this.#rows(where, ...bindings).map(enlisted);
  }

  #rows(where: string, ...bindings: (string | number)[]): MemberRow[] {
    return this.#sql.exec<MemberRow>(`SELECT * FROM members WHERE ${where}`, ...bindings).toArray();
  }
}

const listed = (names: readonly string[]): string => `,${names.join(",")},`;
const unlisted = (text: string): string[] => text.split(",").filter((name) => name !== "");

const enlisted = (row: MemberRow): Enlisted => ({
  instance: row.instance,
  human: row.human,
  emailDigest: row.email_digest,
  groupsAtMs: row.groups_at_ms,
  task: row.task,
  agent: row.agent,
  agentVersion: row.agent_version,
  client: row.client,
  upstreams: unlisted(row.upstreams),
  ancestors: unlisted(row.ancestors),
  mandate: row.mandate,
  agentsAbove: unlisted(row.agents_above),
  deadlineMs: row.deadline_ms,
  enlistedAtMs: row.enlisted_at_ms,
  confirmedUntilMs: row.confirmed_until_ms,
});
