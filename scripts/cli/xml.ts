// XML as S3 answers it, and no more: elements and text. Whatever else a document may hold (DTDs, comments, CDATA, processing
// instructions behind the first) is refused rather than read in a way of our own.

import { err, ok, type Result } from "../../src/result.ts";

export interface Element {
  readonly name: string;
  readonly children: readonly Element[];
  /** Of an element without children. */
  readonly text: string;
}

const ENTITIES: ReadonlyMap<string, string> = new Map([
  ["amp", "&"],
  ["lt", "<"],
  ["gt", ">"],
  ["quot", '"'],
  ["apos", "'"],
]);
const DEPTH_MAX = 16;

interface Open {
  readonly name: string;
  readonly children: Element[];
  text: string;
}

export function parseXml(document: string): Result<Element, string> {
  const body = document.replace(/^\uFEFF?<\?xml[^<>]*\?>/, "");
  const open: Open[] = [{ name: "", children: [], text: "" }];
  // A tag, or the text before the next one.
  const token = /<(\/?)([A-Za-z_][\w.:-]*)((?:\s+[\w.:-]+\s*=\s*(?:"[^"<]*"|'[^'<]*'))*)\s*(\/?)>|([^<]+)/gy;
  while (token.lastIndex < body.length) {
    const at = token.lastIndex;
    const match = token.exec(body);
    if (match === null) return err(`not XML that is understood, at character ${at}`);
    const [, closing, name = "", attributes, selfClosing, text] = match;
    const top = open.at(-1)!;
    if (text !== undefined) {
      const decoded = decode(text);
      if (decoded === undefined) return err(`an entity that is not known, at character ${at}`);
      top.text += decoded;
    } else if (closing === "/") {
      if (open.length === 1 || top.name !== name || attributes !== "" || selfClosing === "/")
        return err(`</${name}> closes nothing`);
      open.pop();
      open.at(-1)!.children.push(elementOf(top));
    } else if (selfClosing === "/") top.children.push({ name, children: [], text: "" });
    else if (open.length > DEPTH_MAX) return err("too deep");
    else open.push({ name, children: [], text: "" });
  }
  const [root] = open;
  const [only] = root!.children;
  if (open.length !== 1 || root!.children.length !== 1 || root!.text.trim() !== "" || only === undefined)
    return err("not one whole element");
  return ok(only);
}

const elementOf = ({ name, children, text }: Open): Element => ({
  name,
  children,
  text: children.length === 0 ? text : "",
});

function decode(text: string): string | undefined {
  let isKnown = true;
  const decoded = text.replaceAll(/&([^;&]*);?/g, (whole, name: string) => {
    const [, hex, decimal] = /^#(?:x([0-9A-Fa-f]{1,6})|(\d{1,7}))$/.exec(name) ?? [];
    const code = hex !== undefined ? Number.parseInt(hex, 16) : decimal !== undefined ? Number(decimal) : null;
    const char = code === null ? ENTITIES.get(name) : code <= 0x10ffff ? String.fromCodePoint(code) : undefined;
    if (char === undefined || !whole.endsWith(";")) isKnown = false;
    return char ?? "";
  });
  return isKnown ? decoded : undefined;
}

export const childrenOf = ({ children }: Element, name: string): Element[] =>
  children.filter((child) => child.name === name);

/** Of the one child of that name; undefined where there is none, or are two. */
export function textOf(element: Element, name: string): string | undefined {
  const [child, ...more] = childrenOf(element, name);
  return more.length === 0 ? child?.text : undefined;
}
