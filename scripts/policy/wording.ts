// Explanations as lines for a person.

import type { Json } from "../../src/scope/call.ts";
import type { CallExplanation, LayerVerdict } from "./explain-call.ts";
import type { RequestExplanation } from "./explain-request.ts";

/** Nearest misses of a layer that are shown; `--json` has all. */
const SHOWN_MISSES = 3;

export function wordCall({ layers, facts, body }: CallExplanation): readonly string[] {
  const lines = layers.flatMap(wordLayer);
  if (facts === null) return lines;
  const read = Object.entries(facts).map(([name, value]) => `${name} = ${JSON.stringify(value)}`);
  return [...lines, `facts        ${[...read, BODIES[body]].join(", ")}`];
}

const BODIES: Readonly<Record<CallExplanation["body"], string>> = {
  none: "no body",
  json: "the body as JSON",
  opaque: "the body unread",
};

const WORDS: Readonly<Record<LayerVerdict["verdict"], string>> = {
  allowed: "allows",
  refused: "refuses",
  approval: "allows after approval",
  "not asked": "not asked: no scope was given",
};

function wordLayer({ layer, verdict, at, operation, reason, misses }: LayerVerdict): readonly string[] {
  const by = at === undefined ? "" : `: ${at}, ${operation}`;
  const lines = [`${layer.padEnd(12)} ${WORDS[verdict]}${by}${reason === undefined ? "" : `: ${reason}`}`];
  if (verdict !== "refused" || reason !== undefined) return lines;
  if (misses.length === 0) return [...lines, "               no entry speaks of this upstream"];
  const shown = misses
    .slice(0, SHOWN_MISSES)
    .flatMap((miss) => [
      `               ${miss.at}, ${miss.operation}`,
      ...wordMiss(miss).map((line) => `                 ${line}`),
    ]);
  const others = misses.length - SHOWN_MISSES;
  return [...lines, ...shown, ...(others > 0 ? [`               and ${others} farther off`] : [])];
}

function wordMiss(miss: LayerVerdict["misses"][number]): readonly string[] {
  switch (miss.kind) {
    case "condition":
      return miss.failed.map(
        ({ fact, wanted, seen, unreadable }) =>
          `${fact} must be ${wordPredicate(wanted)}; ${unreadable === undefined ? `it is ${seen === undefined ? "absent" : JSON.stringify(seen)}` : `it can't be read: ${unreadable}`}`,
      );
    case "method":
      return [`the path fits, the method is ${miss.method}`];
    case "path": {
      const { matched, wanted, seen } = miss;
      if (wanted === undefined) return [`the path goes on after segment ${matched}: ${JSON.stringify(seen)}`];
      const here = seen === undefined ? "ends" : `has ${JSON.stringify(seen)}`;
      return [`the path ${here} where the template has ${JSON.stringify(wanted)} (segment ${matched + 1})`];
    }
  }
}

const wordPredicate = (wanted: Json): string =>
  Array.isArray(wanted) ? `one of ${wanted.map((item) => JSON.stringify(item)).join(", ")}` : JSON.stringify(wanted);

export function wordRequest({ reason, exceeds }: RequestExplanation): readonly string[] {
  if (reason !== undefined) return [reason];
  return exceeds.map(({ entry, layer, operation, nearest }) => {
    const near = nearest.map(
      ({ at, facts }) => `${at} but for ${facts.length === 0 ? "its conditions" : facts.join(", ")}`,
    );
    const why = near.length === 0 ? "no entry has this method and path" : `only ${near.join("; ")}`;
    return `authorization_details[${entry}] exceeds ${layer}: ${operation}: ${why}`;
  });
}
