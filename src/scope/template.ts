import { err, ok, type Result } from "../result.ts";

/** UTF-16 code units of one operation's text. Real API paths stay below 300. */
export const MAX_TEMPLATE_LENGTH = 1024;

export type Part =
  /** Exactly this decoded segment. The empty one stands for a trailing slash, and only last. */
  | { readonly kind: "literal"; readonly text: string }
  /** One decoded segment that is not empty. It may contain `/`, which came as `%2F`. */
  | { readonly kind: "segment"; readonly name: string }
  /** One or more segments up to the end, none empty. Only last. */
  | { readonly kind: "rest"; readonly name: string };

/** A method and a path template: `GET /v0/{base}/{table}`, `PUT /files/{+path}`. */
export interface Operation {
  readonly method: string;
  readonly parts: readonly Part[];
  /** As written. */
  readonly text: string;
}

const METHOD = /^[A-Z]+$/;
const PARAMETER = /^\{(\+?)([A-Za-z_][A-Za-z0-9_]*)\}$/;
/** Decoded text of one segment. `%` is refused, so that nobody takes a literal for percent-encoded. */
const LITERAL = /^[^\p{C}\p{Z}{}?#%\\]+(?: [^\p{C}\p{Z}{}?#%\\]+)*$/u;
/** What other routers take for a wildcard. As text it would match nothing that anybody meant: of an entry that asks for approval, nothing is ever asked. */
const FOREIGN_WILDCARD = /^(?:\*+|:[A-Za-z_]\w*[?*+]?)$/;
/** `.` and `..` as a segment, or as a piece of one between slashes that were encoded; `..;x` is one to Java servers. */
const DOT_SEGMENT = /(?:^|[/\\])\.\.?(?:$|[/\\;])/;

/** Of a configuration, or of a request. */
export const parseOperation = (text: string): Result<Operation, string> => {
  const operation = readOperation(text);
  return operation.ok && operation.value.parts.some(isForeignWildcard)
    ? err("* and :name are no wildcards here: {name} is one segment, {+name} is all that follow")
    : operation;
};

/** Of what was granted, or stands on record: an earlier release took as text what looks like another router's wildcard. */
export const readOperation = (text: string): Result<Operation, string> => {
  if (text.length > MAX_TEMPLATE_LENGTH) return err(`longer than ${MAX_TEMPLATE_LENGTH}`);
  const space = text.indexOf(" ");
  const method = text.slice(0, Math.max(space, 0));
  const path = text.slice(space + 1);
  if (!METHOD.test(method)) return err("must be a method in upper case, a space and a path");
  if (!path.startsWith("/")) return err("the path must begin with /");

  const texts = path.slice(1).split("/");
  const parts: Part[] = [];
  const names = new Set<string>();
  for (const [index, partText] of texts.entries()) {
    const part = parsePart(partText, index === texts.length - 1);
    if (!part.ok) return part;
    if (part.value.kind !== "literal") {
      if (names.has(part.value.name)) return err("a parameter is named twice");
      names.add(part.value.name);
    }
    parts.push(part.value);
  }
  return ok({ method, parts, text });
};

const parsePart = (text: string, isLast: boolean): Result<Part, string> => {
  if (text === "") return isLast ? ok({ kind: "literal", text }) : err("an empty segment in the path");
  const [, plus, name] = PARAMETER.exec(text) ?? [];
  if (name !== undefined) {
    if (plus === "") return ok({ kind: "segment", name });
    return isLast ? ok({ kind: "rest", name }) : err("{+name} must be the last segment");
  }
  if (!LITERAL.test(text)) return err("a segment is neither plain text nor {name} nor {+name}");
  if (DOT_SEGMENT.test(text)) return err("a dot segment in the path");
  return ok({ kind: "literal", text });
};

const isForeignWildcard = (part: Part): boolean => part.kind === "literal" && FOREIGN_WILDCARD.test(part.text);

/** `HEAD` is `GET` without the body (RFC 9110 §9.3.2), so `GET` allows it; nothing else stands for another. */
export const coversMethod = (wider: string, narrower: string): boolean =>
  wider === narrower || (wider === "GET" && narrower === "HEAD");

/**
 * The path facts of a request under this operation, by parameter name, or `undefined` where it is not this operation.
 * A rest is its decoded segments joined by `/`. A dot segment binds to nothing, in whatever encoding it came.
 */
export const bindOperation = (
  operation: Operation,
  method: string,
  segments: readonly string[],
): Map<string, string> | undefined => {
  const { parts } = operation;
  if (!coversMethod(operation.method, method)) return undefined;
  if (parts.at(-1)?.kind !== "rest" && segments.length !== parts.length) return undefined;

  const facts = new Map<string, string>();
  for (const [index, part] of parts.entries()) {
    const segment = segments[index];
    if (segment === undefined) return undefined;
    if (part.kind === "literal") {
      if (segment !== part.text) return undefined;
    } else {
      const bound = part.kind === "rest" ? segments.slice(index) : [segment];
      if (!bound.every(isBindable)) return undefined;
      facts.set(part.name, bound.join("/"));
    }
  }
  return facts;
};

const isBindable = (segment: string): boolean => segment !== "" && !DOT_SEGMENT.test(segment);

/** The parameters that an operation binds. */
export const parameterNames = (operation: Operation): Set<string> =>
  new Set(operation.parts.flatMap((part) => (part.kind === "literal" ? [] : [part.name])));
