import { beforeAll, describe, expect, it, vi } from "vitest";
import type { FlipState } from "../../src/control/contract.ts";
import { type Receipt, receiptOf, signReceipt } from "../../src/control/receipt.ts";
import { ReceiptEvents } from "../../src/control/receipt-events.ts";
import type { Act, Target } from "../../src/control/switch.ts";
import { verifyReceipt } from "../../src/control/verify-receipt.ts";
import { CLOCK_TOLERANCE_MS } from "../../src/control/verify-receipt-transcript.ts";
import { KeyRing, SEAL_ALGORITHMS } from "../../src/grant/keys.ts";
import type { Settlement } from "../../src/instance/contract.ts";
import { instanceOf, switchboardOf } from "../../src/objects.ts";
import type { RecordType } from "../../src/transcript/envelope.ts";
import { instancePartition } from "../../src/transcript/layout.ts";
import { parseSealKeys, type SealKeys } from "../../src/transcript/verify-keys.ts";
import { parseObjectKey } from "../../src/transcript/verify-layout.ts";
import { type Agent, deployment, enrolAgent, type Line, recordsOf } from "./kit.ts";

const { sealKeys: ring, config } = deployment;
const ISSUER = config.origin;
const PLACE = "receipt.json";

let keys: SealKeys;
beforeAll(() => {
  const parsed = parseSealKeys(ring.jwks);
  if (!parsed.ok) throw new Error(parsed.error);
  keys = parsed.value;
});

/** What really happened: who was there, and what each wrote. */
interface Story {
  readonly agents: readonly Agent[];
  readonly lines: ReadonlyMap<string, readonly Line[]>;
  readonly receipt: Receipt;
}

const enrol = (): Promise<Agent> => enrolAgent({ emailDigest: null, ancestors: [], rosterShard: 0 });

const settlement = (outcome: Settlement["outcome"]): Settlement => ({
  outcome,
  head: { status: 200, headers: [], mediaType: "text/plain", coding: "identity" },
  tail: new TextEncoder().encode("{}"),
  passedBytes: 1,
  heldBytes: 0,
  forwardedBytes: 0,
  timing: { startedAtMs: Date.now(), firstByteAtMs: Date.now(), lastByteAtMs: Date.now(), endedAtMs: Date.now() },
  reason: null,
});

/** A call that runs on until it is told to stop. */
async function runs(agent: Agent): Promise<void> {
  const admitted = await instanceOf(deployment, agent.id).admit(agent.admission());
  if (!admitted.admitted) throw new Error(JSON.stringify(admitted.denial));
  void admitted.lease.broken().then(() => admitted.lease.settle(settlement("cut")));
}

async function completes(agent: Agent): Promise<boolean> {
  const admitted = await instanceOf(deployment, agent.id).admit(agent.admission());
  return admitted.admitted && (await admitted.lease.settle(settlement("complete"))) === true;
}

async function flip(
  act: Act,
  reach: FlipState["switch"]["reach"],
  target: Target,
  groups?: readonly string[],
): Promise<FlipState> {
  const flipped = await switchboardOf(deployment).flip({
    id: crypto.randomUUID(),
    reach,
    target,
    act,
    reason: "a test",
    by: "admin",
    email: null,
    cause: null,
    untilMs: null,
    idempotencyKey: null,
    ...(groups === undefined ? {} : { groups }),
  });
  if (!flipped.flipped) throw new Error("not flipped");
  return flipped.state;
}

async function tell(state: FlipState, agents: readonly Agent[]): Promise<Story> {
  const lines = new Map<string, readonly Line[]>();
  // What cuts nothing is on record a moment after it counts.
  const isOnRecord = (line: Line) => line.type === "switched" && line["switch"] === state.switch.id;
  for (const agent of agents)
    await vi.waitFor(async () => {
      lines.set(agent.id, await recordsOf(agent));
      expect(lines.get(agent.id)!.some(isOnRecord)).toBe(true);
    });
  return { agents, lines, receipt: receiptOf(state, ISSUER) };
}

const keyOf = ({ enrolment: { human, task, instance } }: Agent): string =>
  `transcripts/${instancePartition({ human, task: task.id, instance })}/0000000000.jsonl.gz`;

type Spoil = (lines: Line[]) => readonly Line[];

/** The verdict on a story, some of whose lines or figures are not as they were. */
function judge(
  { agents, lines, receipt }: Story,
  change: { readonly lines?: Spoil; readonly receipt?: Partial<Receipt>; readonly without?: readonly Agent[] } = {},
) {
  const events = new ReceiptEvents();
  for (const agent of agents) {
    if (change.without?.includes(agent)) continue;
    const key = keyOf(agent);
    const { partition } = parseObjectKey(key)!;
    const own = [...lines.get(agent.id)!];
    const spoiled = agent === agents[0] ? (change.lines?.(own) ?? own) : own;
    for (const [index, line] of spoiled.entries())
      events.add(partition, {
        place: `${key} line ${index + 1} (seq ${line.seq})`,
        type: line.type as RecordType,
        seq: line.seq,
        at: 0,
        envelope: line as never,
      });
  }
  const jws = signReceipt(ring, { ...receipt, ...change.receipt });
  return verifyReceipt(jws, { keys, issuer: ISSUER, place: PLACE }, events.transcripts);
}

const problemsOf = (report: ReturnType<typeof judge>): string[] => report.findings.map(({ problem }) => problem);
const last = (lines: readonly Line[], type: string): Line => lines.filter((line) => line.type === type).at(-1)!;
const appended = (lines: readonly Line[], line: object): Line[] => [
  ...lines,
  { ...line, seq: lines.at(-1)!.seq + 1 } as Line,
];
const replaced = (lines: readonly Line[], type: string, change: object): Line[] =>
  lines.map((line) => (line === last(lines, type) ? ({ ...line, ...change } as Line) : line));

describe("a kill of an instance with two calls running", () => {
  let story: Story;
  let key: string;
  beforeAll(async () => {
    const agent = await enrol();
    expect(await completes(agent)).toBe(true);
    await runs(agent);
    await runs(agent);
    story = await tell(await flip("kill", "instance", { instance: agent.id }), [agent]);
    key = keyOf(agent);
  });

  it("verifies", () => {
    expect(story.receipt).toMatchObject({ status: "done", reached: 1, cut: 2, unconfirmed: 0 });
    const report = judge(story);
    expect(report.findings).toEqual([]);
    expect(report).toMatchObject({ ok: true, verified: [story.agents[0]!.id], notAtHand: [], unnamed: [] });
  });

  it("without the transcript: reported, and no finding", () => {
    expect(judge(story, { without: story.agents })).toMatchObject({
      ok: true,
      verified: [],
      notAtHand: [story.agents[0]!.id],
    });
  });

  it.each<[name: string, spoil: Spoil, place: (lines: readonly Line[]) => string, problem: string | RegExp]>([
    [
      "a call after it",
      (lines) => appended(lines, last(lines, "call")),
      (lines) => `line ${lines.length + 1} (seq ${lines.at(-1)!.seq + 1})`,
      "a call to github after the switch that closed anything",
    ],
    [
      "a complete answer after it",
      (lines) => replaced(lines, "answer", { outcome: "complete" }),
      (lines) => `line ${lines.length} (seq ${lines.at(-1)!.seq})`,
      "a complete answer after the switch that closed anything",
    ],
    [
      "another reason",
      (lines) => replaced(lines, "switched", { reason: "another" }),
      (lines) => `(seq ${last(lines, "switched").seq})`,
      "its reason is not that of the receipt",
    ],
    [
      "another target",
      (lines) => replaced(lines, "switched", { switchTarget: { instance: "another" } }),
      (lines) => `(seq ${last(lines, "switched").seq})`,
      "its switchTarget is not that of the receipt",
    ],
    [
      "another time of acceptance",
      (lines) => replaced(lines, "switched", { accepted: 1 }),
      (lines) => `(seq ${last(lines, "switched").seq})`,
      "its accepted is not that of the receipt",
    ],
    [
      "no switched record",
      (lines) => lines.filter(({ type }) => type !== "switched"),
      () => "",
      /^no switched record of .*: its tail is missing, the copy is older than the receipt, or it was reset before it wrote$/,
    ],
    [
      "two of them",
      (lines) => appended(lines, last(lines, "switched")),
      (lines) => `(seq ${lines.at(-1)!.seq + 1})`,
      /^a second switched record of /,
    ],
    [
      "a cut call less",
      (lines) => lines.slice(0, -1),
      (lines) => `(seq ${lines.at(-2)!.seq})`,
      /^1 calls are on record as cut by .*, and the receipt says 2$/,
    ],
    [
      "one of the cut calls lost",
      (lines) => replaced(lines, "answer", { outcome: "lost" }),
      (lines) => `(seq ${lines.at(-2)!.seq})`,
      /^1 calls are on record as cut by /,
    ],
    [
      "a cut that ended long after the acknowledgement",
      (lines) => {
        const endedAtMs = Date.now() + CLOCK_TOLERANCE_MS * 2;
        return replaced(lines, "answer", { timing: { endedAtMs, lastByteAtMs: null } });
      },
      (lines) => `(seq ${lines.at(-1)!.seq})`,
      /^endedAtMs is \d+ ms after the receipt's acknowledgement/,
    ],
    [
      "a resumption",
      (lines) => appended(lines, { ...last(lines, "switched"), act: "resume" }),
      (lines) => `(seq ${lines.at(-1)!.seq + 1})`,
      /^a kill was resumed/,
    ],
    [
      "a record that comes long after the acknowledgement",
      (lines) => replaced(lines, "switched", { at: Date.now() + CLOCK_TOLERANCE_MS * 2 }),
      (lines) => `(seq ${last(lines, "switched").seq})`,
      "later than its acknowledgement in the receipt",
    ],
  ])("%s: a finding at its place", (_name, spoil, place, problem) => {
    const report = judge(story, { lines: spoil });
    const lines = story.lines.get(story.agents[0]!.id)!;
    expect(problemsOf(report)).toEqual([typeof problem === "string" ? problem : expect.stringMatching(problem)]);
    const found = report.findings[0]!.place;
    expect(place(lines) === "" ? `${found}/` : found).toContain(
      place(lines) === "" ? key.slice(0, key.lastIndexOf("/") + 1) : place(lines),
    );
    expect(report.ok).toBe(false);
  });

  it.each<[name: string, change: (receipt: Receipt) => Partial<Receipt>, problem: string]>([
    ["another cut", () => ({ cut: 3 }), "cut is 3, and the instances' sum is 2"],
    ["another reached", () => ({ reached: 2 }), "reached is 2, and 1 instances are named"],
    ["unconfirmed", () => ({ unconfirmed: 1 }), "unconfirmed is 1, and the instances' sum is 0"],
    [
      "an acknowledgement before it was accepted",
      ({ acceptedAtMs, instances }) => {
        const early = acceptedAtMs - 1;
        return {
          firstAcknowledgedAtMs: early,
          instances: instances!.map((one) => ({ ...one, acknowledgedAtMs: early })),
          p50AcknowledgedAtMs: early,
          p99AcknowledgedAtMs: early,
          lastAcknowledgedAtMs: early,
          lastByteAtMs: null,
        };
      },
      "accepted <= first <= p50 <= p99 <= last does not hold",
    ],
    [
      "a last that is before p99",
      ({ p99AcknowledgedAtMs }) => ({ lastAcknowledgedAtMs: p99AcknowledgedAtMs! + 1 }),
      "lastAcknowledgedAtMs is ",
    ],
    [
      "no times",
      () => ({ p50AcknowledgedAtMs: null }),
      "times of acknowledgement, where somebody was reached, or none",
    ],
    [
      "a byte after the end",
      ({ lastAcknowledgedAtMs }) => ({ lastByteAtMs: lastAcknowledgedAtMs! + 1 }),
      "a byte passed after the last acknowledgement",
    ],
    [
      "one that is reached, and not",
      ({ instances }) => ({ unreached: [{ instance: instances![0]!.instance, stoppedByMs: Date.now() }] }),
      "an instance is named twice",
    ],
    ["one missing that is not named", () => ({ missing: 1 }), "missing is 1, and 0 unreached are named"],
    [
      "a time by which nobody has stopped",
      () => ({ lastStoppedByMs: Date.now() }),
      "a time by which the last is stopped, where somebody is missing, or none",
    ],
    [
      "another time by which the last has stopped",
      () => ({ missing: 1, lastStoppedByMs: 8, unreached: [{ instance: "far", stoppedByMs: 9 }] }),
      "lastStoppedByMs is 8, and by the unreached it is 9",
    ],
    [
      "accepted at two times",
      ({ acceptedAtMs }) => ({ acceptedAtMs: acceptedAtMs - 1 }),
      "acceptedAtMs is not the switch's atMs",
    ],
  ])("figures, %s: a finding about the receipt", (_name, change, problem) => {
    const report = judge(story, { receipt: change(story.receipt) });
    expect(report.ok).toBe(false);
    expect(report.findings.filter(({ place }) => place === PLACE).map((found) => found.problem)).toContainEqual(
      expect.stringContaining(problem),
    );
  });

  it("figures that agree among themselves, and not with the records", () => {
    const instances = story.receipt.instances!.map((one) => ({ ...one, cut: 3 }));
    const report = judge(story, { receipt: { cut: 3, instances } });
    expect(problemsOf(report)).toEqual([
      expect.stringMatching(/^2 calls are on record as cut by .*, and the receipt says 3$/),
    ]);
  });

  it("a call that was unconfirmed may have been confirmed since", () => {
    const instances = story.receipt.instances!.map((one) => ({ ...one, cut: 1, unconfirmed: 1 }));
    expect(judge(story, { receipt: { cut: 1, unconfirmed: 1, instances } }).findings).toEqual([]);
  });
});

describe("an instance that did not acknowledge", () => {
  it("may have called until its confirmation had run out, and not after", async () => {
    const agent = await enrol();
    expect(await completes(agent)).toBe(true);
    const story = await tell(await flip("kill", "instance", { instance: agent.id }), [agent]);
    const stoppedByMs = story.receipt.acceptedAtMs + 60_000;
    const receipt: Partial<Receipt> = {
      ...receiptOf(
        {
          switch: story.receipt.switch,
          status: "done",
          reached: [],
          idle: 0,
          opened: null,
          liftAskedBy: [],
          unheardShards: 0,
        },
        ISSUER,
      ),
      missing: 1,
      lastStoppedByMs: stoppedByMs,
      unreached: [{ instance: agent.id, stoppedByMs }],
    };
    const calling = (atMs: number) => (lines: Line[]) =>
      appended(
        lines.filter(({ type }) => type !== "switched"),
        { ...last(lines, "call"), at: atMs },
      );
    expect(judge(story, { receipt })).toMatchObject({ ok: true, verified: [agent.id] });
    expect(judge(story, { receipt, lines: calling(stoppedByMs) }).findings).toEqual([]);
    expect(problemsOf(judge(story, { receipt, lines: calling(stoppedByMs + CLOCK_TOLERANCE_MS + 1) }))).toEqual([
      "a call after the time by which the receipt says it was stopped",
    ]);
  });

  it("is one of many that the receipt counts, and does not name: that it was told later is no contradiction", async () => {
    const agent = await enrol();
    const story = await tell(await flip("kill", "instance", { instance: agent.id }), [agent]);
    const stoppedByMs = story.receipt.acceptedAtMs + 60_000;
    const nobody: Partial<Receipt> = {
      ...receiptOf(
        {
          switch: story.receipt.switch,
          status: "done",
          reached: [],
          idle: 0,
          opened: null,
          liftAskedBy: [],
          unheardShards: 0,
        },
        ISSUER,
      ),
      lastAcknowledgedAtMs: Date.now(),
    };
    const many = { ...nobody, missing: 10_001, lastStoppedByMs: stoppedByMs, unreached: null };
    const early = (receipt: Partial<Receipt>) =>
      problemsOf(judge(story, { receipt })).filter((problem) => problem.startsWith("stopped before"));
    expect(early(many)).toEqual([]);
    expect(early({ ...many, missing: 0, lastStoppedByMs: null })).toEqual([
      expect.stringContaining("which counts 0 idle or not reached where 1 are on record"),
    ]);
  });

  it("one that acknowledged, and was reset before it wrote: on record when it asks again, and no call until then", async () => {
    const agent = await enrol();
    expect(await completes(agent)).toBe(true);
    const story = await tell(await flip("kill", "instance", { instance: agent.id }), [agent]);
    const lateMs = story.receipt.lastAcknowledgedAtMs! + CLOCK_TOLERANCE_MS + 1;
    const late = (lines: readonly Line[], with_: readonly object[]) =>
      with_.reduce<Line[]>(
        (own, line) => appended(own, line),
        lines.filter(({ type }) => type !== "switched"),
      );
    const written = (lines: readonly Line[]) => ({ ...last(lines, "switched"), at: lateMs });
    expect(judge(story, { lines: (lines) => late(lines, [written(lines)]) }).findings).toEqual([]);
    const calling = (lines: readonly Line[]) => late(lines, [{ ...last(lines, "call"), at: lateMs }, written(lines)]);
    expect(problemsOf(judge(story, { lines: calling }))).toEqual(["a call after its acknowledgement in the receipt"]);
  });

  it("and where a receipt names nobody, each that has the switch on record is silent after it", async () => {
    const agent = await enrol();
    await runs(agent);
    const story = await tell(await flip("kill", "instance", { instance: agent.id }), [agent]);
    expect(judge(story, { receipt: { instances: null } })).toMatchObject({ ok: true, unnamed: [agent.id] });
    const lines = (own: Line[]) => appended(own, last(own, "call"));
    expect(problemsOf(judge(story, { receipt: { instances: null }, lines }))).toEqual([
      "a call to github after the switch that closed anything",
    ]);
  });
});

describe("a receipt that is none", () => {
  let jws: string;
  const judged = (text: string, change: { keys?: SealKeys; issuer?: string | null } = {}) =>
    verifyReceipt(text, { keys, issuer: ISSUER, place: PLACE, ...change }, []).findings;
  const one = (problem: string) => [{ place: PLACE, problem: expect.stringContaining(problem) }];
  const encoded = (value: object) =>
    btoa(JSON.stringify(value)).replace(/=+$/, "").replaceAll("+", "-").replaceAll("/", "_");
  beforeAll(async () => {
    const state = await flip("kill", "instance", { instance: "nobody-has-this-id" });
    jws = signReceipt(ring, receiptOf(state, ISSUER));
  });

  it("verifies as it is", () => expect(judged(jws)).toEqual([]));

  it("of another key, or one that says it is ours", async () => {
    const pair = (await crypto.subtle.generateKey({ name: "Ed25519" }, true, ["sign", "verify"])) as CryptoKeyPair;
    const { x, d } = (await crypto.subtle.exportKey("jwk", pair.privateKey)) as { x: string; d: string };
    const state = await flip("kill", "instance", { instance: "nobody-either" });
    const by = (kid: string) =>
      signReceipt(
        new KeyRing(JSON.stringify({ keys: [{ kty: "OKP", crv: "Ed25519", kid, x, d }] }), "x", SEAL_ALGORITHMS),
        receiptOf(state, ISSUER),
      );
    expect(judged(by("stranger"))).toEqual(one("no key with its kid is known"));
    expect(judged(by(ring.jwks.keys[0]!.kid))).toEqual(one("its signature does not verify"));
  });

  it.each(["none", "HS256", "EdDSA", "ed25519"])("alg %s", (alg) => {
    const [, payload, signature] = jws.split(".");
    const header = encoded({ alg, typ: "portcullis-receipt+jwt", kid: ring.jwks.keys[0]!.kid });
    expect(judged(`${header}.${payload}.${signature}`)).toEqual(one("its alg is not that of its key"));
    expect(judged(`${header}.${payload}.`)).not.toEqual([]);
  });

  it("another kind of token by the same key", () => {
    expect(judged(ring.signCompact("portcullis-seal+jwt", {}))).toEqual(one("its typ is not portcullis-receipt+jwt"));
  });

  it("any changed character", () => {
    for (let at = 0; at < jws.length; at++) {
      const changed = jws[at] === "A" ? "B" : "A";
      expect(judged(jws.slice(0, at) + changed + jws.slice(at + 1)), `character ${at}`).not.toEqual([]);
    }
  });

  it("of another issuer, where one is given", () => {
    expect(judged(jws, { issuer: "https://other.test" })).toEqual(one("it is of issuer"));
    expect(judged(jws, { issuer: null })).toEqual([]);
  });

  it("with a member more, or one less", async () => {
    const receipt = receiptOf(await flip("kill", "instance", { instance: "nor-this-one" }), ISSUER);
    const { idle: _, ...less } = receipt;
    expect(judged(signReceipt(ring, { ...receipt, more: 1 } as Receipt))).toEqual(one("not a receipt"));
    expect(judged(signReceipt(ring, less as Receipt))).toEqual(one("not a receipt: idle"));
  });
});

describe("a pause, and what comes after it", () => {
  it("of an instance: silent until it is resumed, and calls again then", async () => {
    const agent = await enrol();
    await runs(agent);
    const target = { instance: agent.id };
    const state = await flip("pause", "instance", target);
    expect(await completes(agent)).toBe(false);
    await switchboardOf(deployment).resume({ reach: "instance", target }, { by: "admin", email: null, reason: "over" });
    const board = await switchboardOf(deployment).read(state.switch.id);
    await expect.poll(() => completes(agent)).toBe(true);
    const story = await tell(board!, [agent]);
    expect(story.receipt).toMatchObject({ cut: 1, opened: { by: "admin" } });
    expect(judge(story).findings).toEqual([]);
    // The same calls, and nobody resumed it.
    const unresumed = judge(story, { lines: (lines) => lines.filter((line) => line["act"] !== "resume") });
    expect(problemsOf(unresumed)).toEqual([
      "a call to github after the switch that closed anything",
      "a complete answer after the switch that closed anything",
    ]);
    // What was cut is not answered in full by a resumption.
    const healed = judge(story, {
      lines: (lines) =>
        lines
          .flatMap((line) => (line["switch"] === undefined || line.type !== "answer" ? [line] : []))
          .concat({
            ...lines.find(({ type, outcome }) => type === "answer" && outcome === "cut")!,
            outcome: "complete",
            seq: 99,
          } as Line),
    });
    expect(problemsOf(healed)).toContain("a complete answer after the switch that closed anything");
  });

  it("of one upstream: the other upstream's calls are not its business", async () => {
    const agent = await enrol();
    await runs(agent);
    const state = await flip("pause", "agent-upstream", { agent: agent.enrolment.agent, upstream: "github" });
    const story = await tell(state, [agent]);
    expect(judge(story).findings).toEqual([]);
    const call = (lines: readonly Line[], upstream: string) => appended(lines, { ...last(lines, "call"), upstream });
    expect(judge(story, { lines: (lines) => call(lines, "slack") }).findings).toEqual([]);
    expect(problemsOf(judge(story, { lines: (lines) => call(lines, "github") }))).toEqual([
      "a call to github after the switch that closed github",
    ]);
    await switchboardOf(deployment).resume(
      { reach: "agent-upstream", target: state.switch.target },
      { by: "admin", email: null, reason: "over" },
    );
  });
});

describe("who is on record, and not in the receipt", () => {
  it("is a finding before the last acknowledgement, unless as many were idle", async () => {
    const agents = [await enrol(), await enrol()] as const;
    const task = { id: "build-platform_idle", purpose: "test", deadlineMs: Date.now() + 3_600_000 };
    const [first, second] = agents.map((agent) => ({ ...agent, enrolment: { ...agent.enrolment, task } })) as [
      Agent,
      Agent,
    ];
    const state = await flip("kill", "human", { human: first.enrolment.human });
    const story = await tell(state, [second, first]);
    expect(judge(story).findings).toEqual([]);
    expect(judge(story).verified.toSorted()).toEqual([first.id, second.id].toSorted());
    // Signed without the second: it stopped in time, and nobody says so.
    const instances = story.receipt.instances!.filter(({ instance }) => instance === first.id);
    const at = instances[0]!.acknowledgedAtMs;
    const later = (idle: number, lastMs = at): Partial<Receipt> => ({
      instances: instances.map((one) => ({ ...one, acknowledgedAtMs: lastMs })),
      idle,
      cut: 0,
      reached: 1,
      firstAcknowledgedAtMs: lastMs,
      p50AcknowledgedAtMs: lastMs,
      p99AcknowledgedAtMs: lastMs,
      lastAcknowledgedAtMs: lastMs,
    });
    const soon = at + 1_000;
    const report = judge(story, { receipt: later(0, soon) });
    expect(problemsOf(report)).toEqual([
      "stopped before the last acknowledgement, and not in the receipt, which counts 0 idle where 1 are on record",
    ]);
    expect(report.findings[0]!.place).toContain(second.id);
    const idle = judge(story, { receipt: later(1, soon) });
    expect(idle.findings).toEqual([]);
    expect(idle.unnamed).toEqual([second.id]);
    // After the last acknowledgement an idle one learns of it with its next call.
    const learnsLater = (lines: Line[]) => replaced(lines, "switched", { at: soon + 1 });
    expect(judge(story, { receipt: later(0, soon), lines: learnsLater }).findings).toEqual([]);
  });
});

describe("a narrowing", () => {
  let story: Story;
  beforeAll(async () => {
    const groupsAtMs = Date.now() - 1_000;
    const agent = await enrolAgent({ human: crypto.randomUUID(), groups: ["engineering", "readers"], groupsAtMs });
    await runs(agent);
    const state = await flip("narrow", "human", { human: agent.enrolment.human }, ["readers"]);
    expect(await completes(agent)).toBe(true);
    story = await tell(state, [agent]);
    for (const endMs = Date.now() + 2_000; Date.now() < endMs; ) {
      const lines = await recordsOf(agent);
      story = { ...story, lines: new Map([[agent.id, lines]]) };
      if (lines.filter(({ type }) => type === "answer").length === 1) break;
    }
  });

  it("holds: what is still allowed goes on, and is answered in full", () => {
    expect(problemsOf(judge(story))).toEqual([]);
  });

  const byEngineering = (line: Line): Line => {
    const { ceilings, ...decision } = line["decision"] as { ceilings: { layer: string }[] };
    const at = "entitlements.groups.engineering[0]";
    return {
      ...line,
      decision: { ...decision, ceilings: ceilings.map((one) => (one.layer === "entitlement" ? { ...one, at } : one)) },
    };
  };
  it.each<[name: string, lines: Spoil, problem: string | RegExp]>([
    [
      "a call by the group that was lost",
      (lines) => lines.map((line) => (line === last(lines, "call") ? byEngineering(line) : line)),
      "a call by the group engineering after the switch that took it",
    ],
    ["other groups", (lines) => replaced(lines, "switched", { groups: [] }), "its groups is not that of the receipt"],
    [
      "another time",
      (lines) => replaced(lines, "switched", { groupsAt: 1 }),
      "its groupsAt is not that of the receipt",
    ],
    [
      "a resumption",
      (lines) => appended(lines, { ...last(lines, "switched"), act: "resume" }),
      /^a narrowing was resumed/,
    ],
    ["no record of it", (lines) => lines.filter(({ type }) => type !== "switched"), /^no switched record of /],
  ])("%s: a finding", (_name, lines, problem) => {
    expect(problemsOf(judge(story, { lines }))).toEqual([
      typeof problem === "string" ? problem : expect.stringMatching(problem),
    ]);
  });

  it("without its groups is a finding of the receipt's own", () => {
    const { groups: _, ...sw } = story.receipt.switch;
    expect(problemsOf(judge(story, { receipt: { switch: sw } }))).toContain(
      "the groups that are left and the time of that, of one that narrows, or neither",
    );
  });
});
