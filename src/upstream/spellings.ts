/**
 * Pure: how a text looks where something has written it down. Every spelling of visible ASCII is ASCII itself, so an
 * answer's bytes are looked through as one character each.
 */

/** Nobody escapes every character of a long text. What is looked for grows sixfold by it. */
const ALL_ESCAPED_MAX_CHARS = 256;

const HEX = (char: string): string => char.charCodeAt(0).toString(16).padStart(2, "0");

const percentAll = (text: string): string => [...text].map((char) => `%${HEX(char)}`).join("");

/** What encoders escape differs: RFC 3986's unreserved characters alone stay, or encodeURIComponent's, or a form's. */
const percentStrict = (text: string): string =>
  [...text].map((char) => (/[A-Za-z0-9\-._~]/.test(char) ? char : `%${HEX(char)}`)).join("");
const lowerPercent = (text: string): string => text.replace(/%[0-9A-F]{2}/g, (code) => code.toLowerCase());
const upperPercent = (text: string): string => text.replace(/%[0-9a-f]{2}/g, (code) => code.toUpperCase());

const percentSpellings = (text: string): string[] =>
  [
    encodeURIComponent(text),
    percentStrict(text),
    // A form's, which is not quite either.
    new URLSearchParams([["", text]]).toString().slice(1),
    ...(text.length > ALL_ESCAPED_MAX_CHARS ? [] : [percentAll(text)]),
    // Encoded twice, as a URL within a URL is.
    encodeURIComponent(encodeURIComponent(text)),
  ].flatMap((one) => [upperPercent(one), lowerPercent(one)]);

/** What encoders of JSON escape besides what they must: Go, Gson, Ruby and others; PHP where it is told to, and .NET. */
const JSON_ESCAPED: readonly { readonly chars: RegExp; readonly isUpper: boolean }[] = [
  { chars: /[<>&]/g, isUpper: false },
  { chars: /[<>&']/g, isUpper: false },
  { chars: /[<>&'=]/g, isUpper: false },
  { chars: /[<>&']/g, isUpper: true },
  { chars: /[<>&'+`]/g, isUpper: true },
];
const unicodeEscape = (char: string, isUpper: boolean): string =>
  `\\u00${isUpper ? HEX(char).toUpperCase() : HEX(char)}`;

const jsonSpellings = (text: string): string[] => {
  const plain = JSON.stringify(text).slice(1, -1);
  const escaped = JSON_ESCAPED.flatMap(({ chars, isUpper }) => {
    const one = plain.replace(chars, (char) => unicodeEscape(char, isUpper));
    // PHP and .NET write the quote like the others.
    return isUpper ? [one, one.replaceAll('\\"', unicodeEscape('"', true))] : [one];
  });
  const all = [false, true].map((isUpper) => [...text].map((char) => unicodeEscape(char, isUpper)).join(""));
  return [plain, ...escaped, ...(text.length > ALL_ESCAPED_MAX_CHARS ? [] : all)].flatMap((one) => [
    one,
    // PHP escapes the slash.
    one.replaceAll("/", "\\/"),
    JSON.stringify(one).slice(1, -1),
  ]);
};

/** What writers of HTML and XML make of what they escape besides `&`, `<` and `>`. */
const ENTITIES: readonly Readonly<Record<string, string>>[] = [
  {},
  { '"': "&quot;" },
  { '"': "&quot;", "'": "&#39;" },
  { '"': "&quot;", "'": "&#x27;" },
  { '"': "&quot;", "'": "&#039;" }, // PHP
  { '"': "&quot;", "'": "&apos;" }, // XML
  { '"': "&#34;", "'": "&#39;" }, // Go, Jinja
  { '"': "&#34;", "'": "&#39;", "+": "&#43;" }, // Go's templates
  { '"': "&quot;", "'": "&#x27;", "+": "&#x2B;" }, // .NET
  { '"': "&quot;", "'": "&#x27;", "`": "&#x60;" },
  { '"': "&quot;", "'": "&#x27;", "/": "&#x2F;" }, // as OWASP has it
  { '"': "&quot;", "'": "&#x27;", "`": "&#x60;", "=": "&#x3D;" }, // Handlebars
  { '"': "&quot;", "'": "&#39;", "`": "&#x60;", "=": "&#x3D;", "/": "&#x2F;" }, // Mustache
];
const ALWAYS: Readonly<Record<string, string>> = { "&": "&amp;", "<": "&lt;", ">": "&gt;" };
const htmlSpellings = (text: string): string[] =>
  ENTITIES.map((entities) => text.replace(/[&<>"'`=+/]/g, (char) => ALWAYS[char] ?? entities[char] ?? char));

/**
 * The characters of its base64 that depend on it alone, wherever it stands in what is encoded: `user:<secret>` of any
 * user is found by one of three.
 */
function base64Spellings(text: string): string[] {
  const cores = [0, 1, 2].map((lead) => {
    const encoded = btoa(`${"\0".repeat(lead)}${text}`).replace(/=+$/, "");
    // Bits of what stands before reach into the first characters, bits of what follows into the last.
    const from = Math.ceil((lead * 8) / 6);
    const until = Math.floor(((lead + text.length) * 8) / 6);
    return encoded.slice(from, until);
  });
  return cores.flatMap((core) => [
    core,
    core.replaceAll("+", "-").replaceAll("/", "_"),
    // As a part of a URL, and of JSON by PHP and .NET.
    encodeURIComponent(core),
    lowerPercent(encodeURIComponent(core)),
    core.replaceAll("/", "\\/"),
    core.replaceAll("+", unicodeEscape("+", true)),
  ]);
}

const hexSpellings = (text: string): string[] => {
  const hex = [...text].map(HEX).join("");
  return [hex, hex.toUpperCase()];
};

/** What a credential holds besides itself: the halves of what `Basic` encodes (RFC 7617 §2). */
function partsOf(text: string, minChars: number): string[] {
  const basic = decodeBase64(text.replace(/^Basic +/i, ""));
  const pair = basic !== undefined && /^[\x20-\x7e]+:[\x20-\x7e]+$/.test(basic) ? basic : text;
  const parts = pair === text ? [] : [pair, pair.slice(pair.indexOf(":") + 1)];
  return parts.filter((part) => part.length >= minChars);
}

function decodeBase64(text: string): string | undefined {
  if (!/^[A-Za-z0-9+/]{8,}={0,2}$/.test(text)) return undefined;
  try {
    return atob(text);
  } catch {
    return undefined;
  }
}

/** All of them, each once, the plain one first. `text` is visible ASCII of at least `minChars`. */
export function spellingsOf(text: string, minChars: number): readonly string[] {
  const all = [text, ...partsOf(text, minChars)].flatMap((one) => [
    one,
    ...percentSpellings(one),
    ...jsonSpellings(one),
    ...htmlSpellings(one),
    ...[...new Set([one, JSON.stringify(one).slice(1, -1)])].flatMap(base64Spellings),
    ...hexSpellings(one),
  ]);
  const unique = [...new Set(all)];
  // What begins with another is found by it, and held back from the same byte on.
  return unique.filter((one) => !unique.some((other) => other !== one && one.startsWith(other)));
}
