// The admin API, as commands use it: every answer is parsed, every refusal has the exit code that is documented for it.

import type { z } from "zod";
import { CommandError, EXIT } from "./command.ts";
import type { Connection } from "./connection.ts";
import {
  instancesPage,
  type Lifted,
  lifted,
  type Member,
  problem,
  type Receipt,
  receipt,
  resumed,
  type SwitchSummary,
  switchesPage,
  type Whereabouts,
  whereabouts,
} from "./gate-answers.ts";

export interface Asked {
  readonly method?: "GET" | "POST" | "DELETE";
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
  /** Tried again where no answer came, or none that decides: only what says by its Idempotency-Key that it is the same, or changes nothing. */
  readonly isRepeatable?: boolean;
  /** Takes its time. */
  readonly isStream?: boolean;
  /** A 404 is an answer. */
  readonly mayBeAbsent?: boolean;
}

const TIMEOUT_MS = 30_000;
/** The gate itself tells of a switch for two minutes; a long transcript takes what it takes. */
const STREAM_TIMEOUT_MS = 300_000;
const PAUSES_MS = [250, 1_000] as const;

/** One request to the admin API. Throws `CommandError` for whatever is not an answer as asked for. */
export async function ask(connection: Connection, path: string, asked: Asked = {}): Promise<Response> {
  const bearer = await connection.bearer();
  const pausesMs = asked.isRepeatable === true ? PAUSES_MS : [];
  for (let attempt = 0; ; attempt += 1) {
    const response = await send(connection, bearer, path, asked).catch((cause: Error) => cause);
    const pauseMs = pausesMs[attempt];
    const isDecided = !(response instanceof Error) && response.status < 500;
    if (isDecided || pauseMs === undefined) {
      if (response instanceof Error) throw response;
      if (response.ok || (asked.mayBeAbsent === true && response.status === 404)) return response;
      throw await refusal(connection, response);
    }
    if (!(response instanceof Error)) await response.body?.cancel();
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
}

async function send({ gate }: Connection, bearer: string, path: string, asked: Asked): Promise<Response> {
  const { method = "GET", body, headers = {}, isStream = false } = asked;
  const timeoutMs = isStream ? STREAM_TIMEOUT_MS : TIMEOUT_MS;
  try {
    return await fetch(`${gate}/admin/v1/${path}`, {
      method,
      redirect: "manual", // The bearer is for this gate and for nobody that it names.
      signal: AbortSignal.timeout(timeoutMs),
      headers: {
        authorization: `Bearer ${bearer}`,
        ...(body === undefined ? {} : { "content-type": "application/json" }),
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
  } catch (cause) {
    throw new CommandError(EXIT.unreachable, `${gate} could not be reached: ${reasonOf(cause, timeoutMs)}`);
  }
}

function reasonOf(cause: unknown, timeoutMs: number): string {
  const { name, message, cause: inner } = cause as Error & { cause?: Error & { code?: string } };
  if (name === "TimeoutError") return `no answer within ${timeoutMs / 1_000} s`;
  return inner?.code ?? inner?.message ?? message;
}

async function refusal(connection: Connection, response: Response): Promise<CommandError> {
  const detail = await problemDetail(response);
  const said = detail === null ? "" : `: ${detail}`;
  switch (response.status) {
    case 401:
      return new CommandError(
        EXIT.forbidden,
        connection.isBreakGlass
          ? `${connection.gate} does not know this break-glass key.`
          : `${connection.gate} does not accept this token: it has run out, is too old, or is not of its admins' client. Sign in again: npx portcullis login --gate ${connection.gate}`,
      );
    case 403:
      return new CommandError(
        EXIT.forbidden,
        connection.isBreakGlass
          ? `Not allowed: a break-glass key kills, and does nothing else${said}`
          : `Not allowed${said}`,
      );
    case 400:
      return new CommandError(EXIT.usage, `The gate can't take this${said}`);
    case 404:
    case 409:
    case 410:
    case 422:
      return new CommandError(EXIT.no, `Refused${said}`);
    default:
      return new CommandError(EXIT.unreachable, `${connection.gate} can't answer: ${response.status}${said}`);
  }
}

async function problemDetail(response: Response): Promise<string | null> {
  const text = await response.text().catch(() => "");
  try {
    return problem.parse(JSON.parse(text)).detail ?? null;
  } catch {
    return null;
  }
}

/** Throws where the answer is not what this command line knows: another program listens there, or a newer gate. */
export async function parseAnswer<T>(connection: Connection, response: Response, shape: z.ZodType<T>): Promise<T> {
  try {
    return shape.parse(await response.json());
  } catch {
    throw new CommandError(EXIT.unreachable, `${connection.gate} answered, but not as a gate of this version does`);
  }
}

/** All of them, page by page. */
export async function listInstances(connection: Connection): Promise<readonly Member[]> {
  const members: Member[] = [];
  let after: string | null = null;
  do {
    const query: string = after === null ? "" : `?after=${encodeURIComponent(after)}`;
    const page: z.infer<typeof instancesPage> = await parseAnswer(
      connection,
      await ask(connection, `instances${query}`),
      instancesPage,
    );
    members.push(...page.instances);
    after = page.next;
  } while (after !== null);
  return members;
}

/** Newest first; at most so many. */
export async function listSwitches(connection: Connection, limit: number): Promise<readonly SwitchSummary[]> {
  const pageMax = 500;
  const switches: SwitchSummary[] = [];
  let before: string | null = null;
  do {
    const query = new URLSearchParams({
      limit: String(Math.min(pageMax, limit - switches.length)),
      ...(before === null ? {} : { before }),
    });
    const page: z.infer<typeof switchesPage> = await parseAnswer(
      connection,
      await ask(connection, `switches?${query}`),
      switchesPage,
    );
    switches.push(...page.switches);
    before = page.next;
  } while (before !== null && switches.length < limit);
  return switches;
}

export const parseReceipt = (connection: Connection, response: Response): Promise<Receipt> =>
  parseAnswer(connection, response, receipt);
export const parseResumed = async (connection: Connection, response: Response): Promise<readonly SwitchSummary[]> =>
  (await parseAnswer(connection, response, resumed)).switches;
export const parseLifted = (connection: Connection, response: Response): Promise<Lifted> =>
  parseAnswer(connection, response, lifted);

export const readSwitch = async (connection: Connection, id: string): Promise<Receipt> =>
  parseReceipt(connection, await ask(connection, `switches/${encodeURIComponent(id)}`));

export const readWhereabouts = async (connection: Connection, instance: string): Promise<Whereabouts> =>
  parseAnswer(connection, await ask(connection, `instances/${encodeURIComponent(instance)}`), whereabouts);

/** A transcript. Throws where it breaks off: a part of it would pass for the whole. */
export async function readWhole(connection: Connection, path: string): Promise<string> {
  const response = await ask(connection, path, { isStream: true });
  try {
    return await response.text();
  } catch {
    throw new CommandError(EXIT.unreachable, `${connection.gate} broke off in the middle of its answer`);
  }
}
