import { afterEach, describe, expect, it, vi } from "vitest";
import { enrolAgent } from "./kit.ts";
import { reset } from "./raw-kit.ts";
import { expectRecorded, stream, until } from "./resume-kit.ts";

vi.setConfig({ testTimeout: 20_000 });
afterEach(() => vi.restoreAllMocks());

describe("a stream whose object is reset", () => {
  it.each(["text/event-stream", "text/plain"])("of %s goes on, and its record is whole", async (type) => {
    const agent = await enrolAgent();
    const streaming = await stream(agent, type);
    const held = type === "text/plain" ? -1 : undefined;
    streaming.say("one ");
    await until(streaming, "one ".slice(0, held));
    await reset(agent);
    streaming.say("two ");
    await until(streaming, "one two ".slice(0, held));
    await reset(agent);
    await reset(agent);
    streaming.say("three");
    await until(streaming, "one two three".slice(0, held));
    streaming.end();
    expect(await streaming.over).toBe("whole");
    expect(streaming.got()).toBe("one two three");
    await expectRecorded(agent, 1, "one two three");
  });
});
