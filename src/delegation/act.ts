import type { Actor } from "../instance/contract.ts";

/** RFC 8693 §4.1. */
export interface Act {
  readonly sub: string;
  readonly agent: string;
  readonly agent_version: string;
  /** The platform by which the first of them came. */
  readonly client_id: string;
  readonly act?: Act;
}

/**
 * The current actor outermost, each inside it the instance that delegated to it. Only the outermost is for decisions about
 * access; the rest is for whoever reads what happened.
 */
export const actOf = (chain: readonly Actor[]): Act | null =>
  chain.reduce<Act | null>(
    (act, { client, agent, agentVersion, instance }) => ({
      sub: instance,
      agent,
      agent_version: agentVersion,
      client_id: client,
      ...(act === null ? {} : { act }),
    }),
    null,
  );
