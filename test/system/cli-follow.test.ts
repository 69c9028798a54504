import { expect, it } from "vitest";
import { followSwitch } from "../../scripts/cli/switch-events.ts";

const stream = (...events: readonly (readonly [string, unknown])[]) =>
  new Response(events.map(([type, data]) => `event: ${type}\ndata: ${JSON.stringify(data)}\n\n`).join(""));
const figures = { switch: "s", status: "pending", reached: 1, idle: 0, cut: 0, unconfirmed: 0, unreached: 0 };

it.each<[string, Response]>([
  [
    "an error of the stream",
    stream(["progress", figures], ["error", { detail: "the switchboard could not be reached" }]),
  ],
  ["an end without a word", stream(["progress", figures])],
  ["pending", stream(["progress", figures], ["pending", figures])],
])("%s says nothing of the switch: it is asked for again under its key", async (_name, response) => {
  const told: unknown[] = [];
  expect(await followSwitch(response, (progress) => told.push(progress))).toBeNull();
  expect(told).toEqual([figures]);
});
