import {
  ALWAYS,
  APPROVAL_LOOKERS,
  answer,
  body,
  failure,
  type Node,
  OCTETS,
  pageOf,
  pathId,
  type Query,
  READERS,
  ref,
  roles,
} from "./openapi-words.ts";

const decision = (operationId: string, summary: string): Node => ({
  post: {
    operationId,
    summary,
    description: "The same decision by the same one is one, however often it is sent.",
    ...roles("approver"),
    parameters: [pathId("id", "Of the request")],
    requestBody: body("Decide"),
    responses: {
      200: answer("Decided", ref("Approval")),
      400: failure("The detail names what is wrong, by path"),
      404: failure("No such request"),
      409: failure("It is over: decided, expired or cancelled; the detail says which"),
      ...ALWAYS,
    },
  },
});

/** What a person approves: mandates in advance, calls as they come. */
export const approvalOperations = (query: Query<"approvals" | "mandates">): Node => ({
  "/admin/v1/mandates": {
    get: {
      operationId: "listMandates",
      summary: "What humans approved in advance, newest first",
      ...READERS,
      parameters: query.mandates,
      responses: pageOf("MandatePage"),
    },
  },
  "/admin/v1/mandates/{id}": {
    delete: {
      operationId: "revokeMandate",
      summary: "Ends a mandate, and what works under it: by a kill, which has a receipt",
      ...roles("operator"),
      parameters: [pathId("id", "Of the mandate")],
      requestBody: body("RevokeMandate"),
      responses: {
        200: answer("Nobody can use it any more; asked again, the same", ref("Mandate")),
        400: failure("The detail names what is wrong, by path"),
        404: failure("No such mandate"),
        ...ALWAYS,
      },
    },
  },
  "/admin/v1/approvals": {
    get: {
      operationId: "listApprovals",
      summary: "Calls that wait for a person; with `state=all` those of the last thirty days, too. Newest first",
      description: "A page that is not empty is on record as one read before it is given.",
      ...APPROVAL_LOOKERS,
      parameters: query.approvals,
      responses: pageOf("ApprovalPage"),
    },
  },
  "/admin/v1/approvals/{id}": {
    get: {
      operationId: "readApproval",
      summary: "One request: the whole call but for its body",
      description: "The read is itself on record before it is given.",
      ...APPROVAL_LOOKERS,
      parameters: [pathId("id", "Of the request")],
      responses: { 200: answer("As of now", ref("Approval")), 404: failure("No such request"), ...ALWAYS },
    },
  },
  "/admin/v1/approvals/{id}/body": {
    get: {
      operationId: "readApprovalBody",
      summary: "The body that is to be approved, byte for byte",
      description: "The read is itself on record before it begins.",
      ...APPROVAL_LOOKERS,
      parameters: [pathId("id", "Of the request")],
      responses: {
        200: { description: "The bytes, in the content coding that the record names", content: OCTETS },
        404: failure("No such request, or it has no body"),
        410: failure("Erased: the detail names the certificate"),
        ...ALWAYS,
      },
    },
  },
  "/admin/v1/approvals/{id}/approve": decision("approve", "Lets exactly this call pass, once, for a time"),
  "/admin/v1/approvals/{id}/deny": decision("deny", "The call does not exist for the agent"),
});
