import type { Deployment } from "../deployment.ts";
import type { Proof } from "../grant/proof.ts";
import type { Actor } from "../instance/contract.ts";
import type { Client } from "./client.ts";
import type { Form } from "./form.ts";

/** Who acts by this grant, as the chain names it. A version that is not registered is refused before it counts. */
export const actorOf = ({ form, proof }: Pick<Asked, "form" | "proof">, client: string, agent: string): Actor => ({
  client,
  agent,
  agentVersion: form.get("agent_version") ?? "",
  instance: proof.thumbprint,
});

/** A token exchange whose parameters are of the right shape, and nothing of its subject is trusted yet. */
export interface Asked {
  readonly form: Form;
  /** `subject_token`, as it was sent. */
  readonly token: string;
  /** A platform that has shown its key; null: nobody has, and the subject token must bring its own proof. */
  readonly client: Client | null;
  /** By the key of the new instance. */
  readonly proof: Proof;
  readonly deployment: Deployment;
  readonly nowMs: number;
}
