import { afterEach, describe, expect, it, vi } from "vitest";
import { Roster } from "../../durable-objects/roster.ts";
import { instanceOf } from "../../src/objects.ts";
import { deployment, enrolAgent } from "./kit.ts";
import { abortInstance, count, verdict } from "./quota-kit.ts";

vi.setConfig({ testTimeout: 20_000 });
afterEach(() => vi.restoreAllMocks());

describe("calls that wait for the roster", () => {
  it("hold no more of their requests than the object's memory has room for; the others are refused at once", async () => {
    const agent = await enrolAgent({ limits: { ...deployment.config.agents["triage-bot"]!.limits, concurrency: 50 } });
    const answered = Promise.withResolvers<void>();
    const real = Roster.prototype.confirm;
    vi.spyOn(Roster.prototype, "confirm").mockImplementation(async function (this: Roster, ...args) {
      await answered.promise;
      return real.apply(this, args);
    });
    await abortInstance(agent);
    const words: string[] = [];
    const request = { ...agent.admission().request, body: new Uint8Array(1_048_576) };
    const all = Array.from({ length: 48 }, async () => {
      const word = await verdict(instanceOf(deployment, agent.id).admit(agent.admission({ request })));
      words.push(word);
    });
    await vi.waitFor(() => expect(count(words)).toEqual({ unavailable: 17 }), 3_000);
    answered.resolve();
    await Promise.all(all);
    expect(count(words)).toEqual({ unavailable: 17, admitted: 31 });
  });
});
