// Imports point one way, and what is dangerous has one importer. Read from the sources themselves.

import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const root = fileURLToPath(new URL("../..", import.meta.url));

const files = (folder: string): string[] =>
  readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts") && !name.endsWith(".d.ts"))
    .map((name) => join(folder, name));

const sources = new Map(
  [...files("src"), ...files("durable-objects")].map((file) => [file, readFileSync(join(root, file), "utf8")]),
);

/** Module specifiers of a file's imports and re-exports, own files as paths from the root. */
function imports(file: string): string[] {
  const text = sources.get(file) ?? "";
  return [...text.matchAll(/^(?:import|export)\s[^;]*?from\s+"([^"]+)"|import\("([^"]+)"\)/gms)].map((match) => {
    const specifier = (match[1] ?? match[2])!;
    return specifier.startsWith(".") ? relative(root, join(root, dirname(file), specifier)) : specifier;
  });
}

/** Each layer, and the layers that it may import from besides itself. Pure knows nothing of the others. */
const LAYERS: readonly {
  readonly name: string;
  readonly holds: (file: string) => boolean;
  readonly mayUse: readonly string[];
}[] = [
  { name: "index", holds: (file) => file === "src/index.ts", mayUse: ["doors", "objects", "adapters", "pure"] },
  { name: "agent", holds: (file) => file.startsWith("src/agent/"), mayUse: ["pure"] },
  {
    name: "doors",
    holds: (file) => /^src\/(gate|authority|admin|signals|mandates)\//.test(file),
    mayUse: ["adapters", "pure"],
  },
  { name: "objects", holds: (file) => file.startsWith("durable-objects/"), mayUse: ["adapters", "pure"] },
  {
    name: "adapters",
    // The digest of an address is pure, and so is the configuration, which names humans by address.
    holds: (file) => /^src\/(deployment|objects)\.ts$|^src\/(upstream|identity)\/(?!email-digest\.ts$)/.test(file),
    mayUse: ["pure"],
  },
  { name: "pure", holds: (file) => file.startsWith("src/"), mayUse: [] },
];
const layerOf = (file: string) => LAYERS.find(({ holds }) => holds(file))!;

/** What only some may touch, and who. */
const GUARDED: readonly { readonly what: string; readonly pattern: RegExp; readonly by: RegExp }[] = [
  { what: "the network", pattern: /(?<![.\w"'`]|async )fetch\(/, by: /^src\/upstream\/outbound\.ts$|^src\/agent\// },
  {
    what: "how an upstream's credential is configured",
    pattern: /credential\.(secret|header|value|privateKey|authentication)\b|\.credential\b/,
    by: /^src\/upstream\/credential\.ts$|^src\/deployment\.ts$|^src\/config\/|^durable-objects\/credential-broker\.ts$/,
  },
  { what: "an upstream's credential", pattern: /\.open\(\)/, by: /^src\/upstream\/placing\.ts$/ },
  { what: "hiding a secret", pattern: /new Secret\(/, by: /^src\/upstream\// },
  {
    what: "a binding by a name from the configuration",
    pattern: /env\[/,
    by: /^src\/(upstream\/read-secret|deployment|(admin|signals)\/authenticate)\.ts$/,
  },
  {
    what: "a token to another isolate",
    pattern: /handToWorker\(/,
    by: /^src\/upstream\/placing\.ts$|^durable-objects\/credential-broker\.ts$/,
  },
  // The gate's own keys sign by node:crypto. An upstream's client authenticates by RS256 and whatever else it was registered with.
  { what: "jose", pattern: /from "jose"/, by: /^src\/(authority|identity)\/|^src\/upstream\/placing\.ts$/ },
  {
    what: "cloudflare:workers",
    pattern: /from "cloudflare:workers"/,
    by: /^durable-objects\/|^src\/identity\/jwks\.ts$/,
  },
  { what: "the configuration of the deployment", pattern: /from "#config"/, by: /^src\/index\.ts$|^durable-objects\// },
  { what: "stubs of Durable Objects", pattern: /\.idFromName\(/, by: /^src\/objects\.ts$/ },
  { what: "writing to the bucket", pattern: /bucket\.put\(/, by: /^durable-objects\/(put-once|erasure-store)\.ts$/ },
  { what: "deleting from the bucket", pattern: /bucket\.delete\(/, by: /^durable-objects\/erasure-store\.ts$/ },
];

/** Code without its comments, where a word may be spoken of. */
const code = (file: string): string => (sources.get(file) ?? "").replace(/\/\*[\s\S]*?\*\/|(?<!:)\/\/.*$/gm, "");

describe("imports", () => {
  it("are found at all", () => {
    expect(sources.size).toBeGreaterThan(50);
    expect(imports("src/gate/gate.ts")).toContain("src/gate/relay.ts");
  });

  it("point one way: pure <- adapters <- doors and objects <- index", () => {
    const wrong: string[] = [];
    for (const file of sources.keys())
      for (const imported of imports(file)) {
        if (!sources.has(imported)) continue;
        const from = layerOf(file);
        const to = layerOf(imported);
        if (from !== to && !from.mayUse.includes(to.name))
          wrong.push(`${file} (${from.name}) -> ${imported} (${to.name})`);
      }
    expect(wrong).toEqual([]);
  });

  it("make no cycle", () => {
    const done = new Set<string>();
    const cycles: string[] = [];
    const visit = (file: string, path: readonly string[]): void => {
      if (path.includes(file)) cycles.push([...path.slice(path.indexOf(file)), file].join(" -> "));
      else if (!done.has(file)) {
        for (const imported of imports(file)) if (sources.has(imported)) visit(imported, [...path, file]);
        done.add(file);
      }
    };
    for (const file of sources.keys()) visit(file, []);
    expect(cycles).toEqual([]);
  });

  // What it finds must not hang on the code that wrote the records. What a scope means is said once, by pure functions of its own.
  it("the verifier: none of what decides at the gate", () => {
    const mayUse =
      /^src\/transcript\/|^src\/scope\/(call|decide|entry|fact|template)\.ts$|^src\/json\/strict-json\.ts$|^src\/result\.ts$|^src\/grant\/(compact|keys)\.ts$/;
    const own = [...sources.keys()].filter((file) => /^src\/transcript\/verify[-.]/.test(file));
    const foreign = own.flatMap((file) =>
      imports(file)
        .filter((imported) => sources.has(imported) && !mayUse.test(imported))
        .map((imported) => `${file} -> ${imported}`),
    );
    expect(own.length).toBeGreaterThan(20);
    expect(foreign).toEqual([]);
  });

  for (const { what, pattern, by } of GUARDED)
    it(`${what}: only where it is meant to be`, () => {
      const users = [...sources.keys()].filter((file) => pattern.test(code(file)));
      expect(users.filter((file) => !by.test(file))).toEqual([]);
      expect(users.length).toBeGreaterThan(0);
    });
});
