import type { DelegationFacts, Enrolment } from "./contract.ts";

/** What an upstream may be told of an enrolment: ids, and nothing of the human but their own. */
export const delegationFacts = (enrolment: Enrolment): DelegationFacts => {
  const { human, agent, agentVersion, instance, task, chain, client } = enrolment;
  return { human, agent, agentVersion, instance, task: task.id, chain, client };
};
