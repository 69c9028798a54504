import type { Context, Hono } from "hono";
import type * as z from "zod";
import type { Deployment } from "../deployment.ts";
import { parseStrictJson } from "../json/strict-json.ts";
import { journalOf } from "../objects.ts";
import { readText } from "../read-text.ts";
import { err, ok, type Result } from "../result.ts";
import type { Fields } from "../transcript/envelope.ts";
import type { Admin, AdminRole } from "./authenticate.ts";

export interface AdminVariables {
  admin: Admin;
  /** On its way since before the token was looked at: who sent it may be gone by then, and what was not read with them. */
  body: Promise<string | undefined>;
}

/** What the routes of the admin's door share. */
export type AdminHono = Hono<{ Bindings: { deployment: Deployment }; Variables: AdminVariables }>;
export type AdminContext = Context<{ Bindings: { deployment: Deployment }; Variables: AdminVariables }>;

/** Nobody's path is longer than what a record needs in order to be recognised. */
export const PATH_MAX_CHARS = 256;
const BODY_MAX_BYTES = 16_384;

/** RFC 9457. Its readers operate the deployment: the detail says what was wrong. */
export const problem = (status: number, title: string, detail?: string): Response =>
  Response.json(
    { type: "about:blank", title, status, ...(detail === undefined ? {} : { detail }) },
    { status, headers: { "Content-Type": "application/problem+json", "Cache-Control": "no-store" } },
  );

/** Who may read what switches and instances there are. */
export const READERS: readonly AdminRole[] = ["viewer", "operator", "auditor"];

const ADDRESS = /@|%(25)*40/;

/** An address has no place in a record: a human may be named by one in a path, encoded once too often as well. */
export const recordedPath = (path: string): string =>
  path
    .split("/")
    .map((part) => (ADDRESS.test(part) ? "(address)" : part))
    .join("/")
    .slice(0, PATH_MAX_CHARS);

/** Null: the admin holds one of the roles. A refusal is on record. */
export async function requireRole(
  deployment: Deployment,
  who: Admin,
  path: string,
  roles: readonly AdminRole[],
): Promise<Response | null> {
  if (roles.some((role) => who.roles.includes(role))) return null;
  const reason = `this needs the role ${roles.join(" or ")}`;
  return refuse(deployment, who, path, 403, "Forbidden", reason);
}

/** On record, then said. */
export async function refuse(
  deployment: Deployment,
  who: Admin,
  path: string,
  status: number,
  title: string,
  reason: string,
): Promise<Response> {
  await record(deployment, "refused", { door: "admin", path: recordedPath(path), by: who.id, reason });
  return problem(status, title, reason);
}

/** Throws where the journal can't be written: what can't be recorded is not done. */
export async function record(deployment: Deployment, type: "refused" | "read", fields: Fields): Promise<void> {
  const written = await journalOf(deployment, "admin", Date.now()).append({
    type,
    fields,
    deployment: deployment.version,
  });
  if (!written) throw new Error("the journal is closed");
}

/** Never rejects; `undefined`: too long, or not UTF-8. */
export const readBody = (request: Request): Promise<string | undefined> => readText(request, BODY_MAX_BYTES);

/** JSON that has one reading, of a shape. The error names the path of each mistake. */
export async function parseBody<T>(body: Promise<string | undefined>, shape: z.ZodType<T>): Promise<Result<T, string>> {
  const text = await body;
  if (text === undefined) return err(`body: longer than ${BODY_MAX_BYTES} bytes, or not UTF-8`);
  const json = parseStrictJson(text);
  if (!json.ok) return err(`body: ${json.error}`);
  return parseShape(json.value, shape, "body");
}

/** The error names each mistake. */
export const parseQuery = <T>(query: Readonly<Record<string, string>>, shape: z.ZodType<T>): Result<T, string> =>
  parseShape(query, shape, "query");

function parseShape<T>(value: unknown, shape: z.ZodType<T>, whole: string): Result<T, string> {
  const parsed = shape.safeParse(value);
  if (parsed.success) return ok(parsed.data);
  return err(parsed.error.issues.map(({ path, message }) => `${path.join(".") || whole}: ${message}`).join("; "));
}
