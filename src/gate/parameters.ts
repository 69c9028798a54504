/**
 * Pure: the parameters of a body that an upstream may take for the method, or for one of the query's. Not a parser:
 * it looks for a name in every spelling that some parser reads as it, and what it can't look into is refused.
 */

/**
 * `_method`, as PHP, Rack and their like may spell it: `[_method]`, `.method`, `_method[]`; Salesforce's `_HttpMethod`; and
 * what is said by a header elsewhere, `X-HTTP-Method-Override`. Not `payment_method`.
 */
export const isMethodOverride = (name: string): boolean =>
  /^(?:[^a-z0-9]+(?:http[^a-z0-9]*)?|[^a-z0-9]*x[^a-z0-9]*http[^a-z0-9]*)method(?![a-z0-9])/i.test(name);

/** Why the body must not pass; undefined where it may. `body` is null where it is longer than what was read. */
export function findParameterFault(
  method: string,
  headers: Headers,
  body: Uint8Array | null,
  rules: { readonly query: boolean },
): string | undefined {
  const type = headers.get("content-type")?.toLowerCase() ?? "";
  const kind = kindOf(type, method);
  if (kind === "json") {
    if (body !== null && isOverrideInJson(textOf(body))) return OVERRIDE;
    return isAsciiCompatible(type) ? undefined : "a JSON body in a charset that is not looked into";
  }
  if (kind === undefined) return undefined;
  // Servers merge a form's parameters with those of the query, and many let the form win.
  if (rules.query) return "a form where a rule speaks of the query";
  if (body === null) return "a form too long to be read";
  const coding = headers.get("content-encoding")?.toLowerCase() ?? "identity";
  if (coding !== "identity" || !isAsciiCompatible(type)) return "a form that is coded";
  const names = kind === "multipart" ? namesOfParts(textOf(body)) : namesOfPairs(textOf(body));
  if (names === undefined) return "a form with a part whose name is coded";
  return names.some(isMethodOverride) ? OVERRIDE : undefined;
}

const OVERRIDE = "a method override in the body";

/** By anything in the type that some reader could go by: it may be malformed, or two in one. */
const kindOf = (type: string, method: string): "pairs" | "multipart" | "json" | undefined => {
  if (type.includes("multipart/")) return "multipart";
  // Rack reads a POST without a type as a form.
  if (type.includes("x-www-form-urlencoded") || (type.trim() === "" && method === "POST")) return "pairs";
  return /[/+]json/.test(type) ? "json" : undefined;
};

/** In another charset, `_method` has other bytes. */
const isAsciiCompatible = (type: string): boolean =>
  [...type.matchAll(/charset[\s*]*=[\s"']*([^\s"';,]*)/g)].every(([, charset = ""]) =>
    ["utf-8", "utf8", "us-ascii", "iso-8859-1", "windows-1252"].includes(charset),
  );

/** What is looked for is ASCII; every other byte may be any character. */
const textOf = (body: Uint8Array): string => new TextDecoder("windows-1252").decode(body);

const namesOfPairs = (text: string): string[] =>
  text.split(/[&;]/).map((pair) => unescapePercent((pair.split("=", 1)[0] ?? "").replaceAll("+", " ")));

/** Wherever a part's head could be: what is a boundary is for its readers to differ on. `name*` is RFC 2231's, and not for forms (RFC 7578 §4.2). */
const namesOfParts = (text: string): string[] | undefined => {
  if (/\bname\*[\d*]*\s*=/i.test(text)) return undefined;
  const names = [...text.matchAll(/\bname\s*=\s*["']?([^"';\r\n]*)/gi)].map(([, name = ""]) => name);
  if (names.some((name) => name.includes("=?"))) return undefined;
  return names.map((name) => unescapePercent(name.replaceAll("\\", "")));
};

/** As a key, at any depth. Nobody escapes these letters but to hide them. A zero is no JSON, but of UTF-16 and UTF-32, which some readers detect. */
const isOverrideInJson = (text: string): boolean =>
  /"_method"\s*:/i.test(text.replaceAll("\0", "").replace(/\\u00([4-7][0-9a-f])/gi, (_, hex: string) => fromHex(hex)));

const unescapePercent = (text: string): string => text.replace(/%([0-9a-f]{2})/gi, (_, hex: string) => fromHex(hex));

const fromHex = (hex: string): string => String.fromCharCode(Number.parseInt(hex, 16));
