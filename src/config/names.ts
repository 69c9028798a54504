import * as z from "zod";
import { isLoopback } from "../loopback.ts";

/** What names, URLs and numbers of a configuration look like, wherever they stand in it. */

/** First path segments of the other doors. */
const RESERVED = ["oauth", "admin", "console", "ssf", "mandates"];

export const upstreamName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,30}$/, "a lower-case name of at most 31 letters, digits and dashes")
  .refine((name) => !RESERVED.includes(name), "the name of another door (oauth, admin, console, ssf, mandates)");
/** Part of a task's id, which is part of an R2 key. No underscore: it separates platform and task. */
export const clientName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,22}$/, "a lower-case name of at most 23 letters, digits and dashes");
export const agentName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,62}$/, "a lower-case name of at most 63 letters, digits and dashes");
/** Part of the path that it pushes to. */
export const transmitterName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,30}$/, "a lower-case name of at most 31 letters, digits and dashes");
export const secretName = z.string().regex(/^[A-Z][A-Z0-9_]*$/, "the name of a Worker secret, e.g. GITHUB_TOKEN");
export const versionName = z.string().regex(/^[A-Za-z0-9._+-]{1,64}$/, "a version, e.g. 1.4.0");
export const positive = z.number().int().positive();

/**
 * In the one spelling that a URL parser gives it back in, with or without the slash of an empty path: what is compared or joined as text
 * is then what is asked. An empty query or fragment counts as one.
 */
export const httpUrl = z.string().refine((text) => {
  if (!URL.canParse(text) || /[?#@]/.test(text)) return false;
  const url = new URL(text);
  if (url.href !== text && !(url.pathname === "/" && url.href === `${text}/`)) return false;
  return url.protocol === "https:" || (url.protocol === "http:" && isLoopback(url));
}, "an https URL in canonical form, without credentials, query or fragment (http only on loopback)");

export const unitName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,30}$/, "a lower-case name of at most 31 letters, digits and dashes");
