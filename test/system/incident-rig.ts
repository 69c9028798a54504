// An incident, for the tests of what is looked at afterwards: an agent works, is refused, downloads much, talks to a terminal, and is
// killed in the middle of a stream; another works beside it, for somebody else.

import { createHash } from "node:crypto";
import { ANYTHING, type GateRig, type Instance, type Line, startGateRig } from "./gate-rig.ts";
import { DETAILS } from "./harness.ts";
import { answerWith, startHostileUpstream } from "./hostile-upstream.ts";
import { killed, type SignedReceipt, serveEndless, startStream } from "./kill-rig.ts";

const JSON_TYPE = { "content-type": "application/json" };
/** ANSI: clears the screen, and names the window. */
export const ESCAPES = "\u001b[2J\u001b]0;owned\u0007";
/** As docs/queries.md looks for it. */
export const LEAKED = "AKIAIOSFODNN7EXAMPLE";

export interface Incident {
  readonly rig: GateRig;
  /** It is killed. */
  readonly killed: Instance;
  readonly other: Instance;
  readonly receipt: SignedReceipt;
  /** Of what is larger than lines take. */
  readonly large: Buffer;
  /** Records of the one that was killed. */
  readonly lines: readonly Line[];
  seqOf(target: string): number;
  close(): Promise<void>;
}

/** @param atWork while its stream runs */
export async function startIncident(
  atWork: (rig: GateRig, killed: Instance) => Promise<void> = async () => {},
): Promise<Incident> {
  const github = await startHostileUpstream();
  const rig = await startGateRig({}, { github: github.baseUrl });
  const details = [...DETAILS, ANYTHING];
  const [one, other] = [await rig.provision(details), await rig.provision(details)];
  const large = Buffer.concat(
    Array.from({ length: 96 * 1_024 }, (_, at) => createHash("sha256").update(`${at}`).digest()),
  );
  rig.upstream.on("/repos/acme/payroll", answerWith(200, JSON_TYPE, `{"key":"${LEAKED}","rows":[1,2]}`));
  rig.upstream.on("/large", answerWith(200, { "content-type": "application/zip" }, large));
  const bytes = Buffer.concat([Buffer.from([0xff, 0]), Buffer.from(LEAKED)]);
  rig.upstream.on("/binary", answerWith(200, { "content-type": "application/x-thing" }, bytes));
  rig.upstream.on("/escapes", answerWith(200, { "content-type": "text/plain" }, `${ESCAPES}\tred vvvv\r\nsecond line`));
  serveEndless(rig, "/endless");
  await rig.call(one, "/hostile/repos/acme/payroll");
  await rig.call(one, "/hostile/comments?page=2", { method: "POST", headers: JSON_TYPE, body: `{"note":"${LEAKED}"}` });
  await rig.call(one, "/ungranted/repos/acme/secret");
  await rig.call(one, "/github/repos/acme/widgets/issues?page=2");
  await rig.call(one, "/github/repos/acme/widgets/contents/secrets.env");
  await rig.call(one, "/hostile/large");
  await rig.call(one, "/hostile/binary");
  await rig.call(one, "/hostile/escapes");
  await rig.call(other, "/hostile/repos/acme/payroll?from=other");
  await rig.recorded(other, "/hostile/repos/acme/payroll?from=other");
  const stream = await startStream(rig, one, "/hostile/endless");
  await atWork(rig, one);
  const receipt = await killed(rig, "instance", { instance: one.id }, "It reads the payroll");
  await stream.ended;
  await rig.call(one, "/hostile/after-the-kill");
  const lines = await rig.records(one, ({ target }) => target === "/hostile/after-the-kill");
  return {
    rig,
    killed: one,
    other,
    receipt,
    large,
    lines: lines.filter(({ seq }) => seq !== undefined),
    close: async () => {
      await rig.close();
      await github.close();
    },
    seqOf(target) {
      const call = lines.find((line) => line["target"] === target);
      if (call === undefined) throw new Error(`no call of ${target}`);
      return call.seq;
    },
  };
}
