import { approvalOperations } from "./openapi-approval.ts";
import { controlOperations } from "./openapi-control.ts";
import { recordsOperations } from "./openapi-records.ts";
import type { Node } from "./openapi-words.ts";

type Queries = Parameters<typeof controlOperations>[0] &
  Parameters<typeof recordsOperations>[0] &
  Parameters<typeof approvalOperations>[0];

/** The routes of the admin's door as OpenAPI knows them: who may, what is sent, and every answer. A test holds this to the routes. */
export const operations = (query: Queries): Node => ({
  ...controlOperations(query),
  ...recordsOperations(query),
  ...approvalOperations(query),
});
