/** The routes of the admin's door as OpenAPI knows them: who may, what is sent, and every answer. A test holds this to the routes. */

type Node = { readonly [member: string]: unknown };

const ref = (name: string): Node => ({ $ref: `#/components/schemas/${name}` });
const json = (schema: Node): Node => ({ "application/json": { schema } });
const answer = (description: string, schema: Node, more: Node = {}): Node => ({
  description,
  content: json(schema),
  ...more,
});
const failure = (description: string, headers: Node = {}): Node => ({
  description,
  ...(Object.keys(headers).length === 0 ? {} : { headers }),
  content: { "application/problem+json": { schema: ref("Problem") } },
});
const text = (description: string): Node => ({ description, schema: { type: "string" } });

/** What every operation can answer. */
const ALWAYS: Node = {
  401: failure("No valid credential", { "WWW-Authenticate": text("Bearer") }),
  403: failure("Not with these roles; on record"),
  503: { description: "A state could not be read or written", headers: { "Retry-After": text("Seconds") } },
};

/** Of a switch that is followed by `Accept: text/event-stream`. `x-events`: what the `data` of each is. */
const EVENTS: Node = {
  "text/event-stream": {
    schema: { type: "string" },
    "x-events": {
      progress: ref("Progress"),
      receipt: ref("Receipt"),
      pending: ref("Pending"),
      error: ref("Failure"),
    },
  },
};
const OCTETS: Node = { "application/octet-stream": {} };
const location = { headers: { Location: text("The switch's own path") } };
const erasureLocation = { headers: { Location: text("The erasure's own path") } };
const idempotencyKey: Node = {
  name: "Idempotency-Key",
  in: "header",
  required: false,
  description: "The same key by the same admin is the same switch, however often it is sent",
  schema: { type: "string", minLength: 1, maxLength: 255 },
};
const pathId = (name: string, description: string): Node => ({
  name,
  in: "path",
  required: true,
  description,
  schema: { type: "string" },
});
const body = (name: string): Node => ({ required: true, content: json(ref(name)) });
const roles = (...names: string[]): Node => ({ "x-roles": names });
const READERS = roles("viewer", "operator", "auditor");
const LOOKERS = roles("operator", "auditor");
const APPROVAL_LOOKERS = roles("approver", "auditor");

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

/** @param query parameters of those that have some */
export const operations = (
  query: Readonly<
    Record<
      "switches" | "instances" | "holds" | "mandates" | "approvals" | "segments" | "objects" | "object",
      readonly Node[]
    >
  >,
): Node => ({
  "/admin/v1/switches": {
    post: {
      operationId: "flipSwitch",
      summary: "Closes a switch, or resumes what was paused",
      description: "A break-glass key may kill alone. With `Accept: text/event-stream` the answer is its progress.",
      ...roles("operator", "break-glass"),
      parameters: [idempotencyKey],
      requestBody: body("Flip"),
      responses: {
        200: {
          description: "The switch that this Idempotency-Key made before; or what was resumed; or progress, as events",
          content: { ...json({ anyOf: [ref("Receipt"), ref("Resumed")] }), ...EVENTS },
          ...location,
        },
        201: answer("Done: nobody in reach can act any more", ref("Receipt"), location),
        202: answer("It stands, and somebody in reach may still act; it is carried on", ref("Receipt"), location),
        400: failure("Not a switch: the detail names what, by path"),
        404: failure("No pause of exactly this reach and target is closed"),
        422: failure("The Idempotency-Key was used for another switch"),
        ...ALWAYS,
      },
    },
    get: {
      operationId: "listSwitches",
      summary: "All switches, newest first",
      ...READERS,
      parameters: query.switches,
      responses: { 200: answer("A page", ref("SwitchPage")), 400: failure("Not a page"), ...ALWAYS },
    },
  },
  "/admin/v1/switches/{id}": {
    get: {
      operationId: "readSwitch",
      summary: "A switch's receipt as of now, signed; or its progress, as events",
      ...READERS,
      parameters: [pathId("id", "Of the switch")],
      responses: {
        200: { description: "The receipt", content: { ...json(ref("Receipt")), ...EVENTS } },
        404: failure("No such switch"),
        ...ALWAYS,
      },
    },
  },
  "/admin/v1/switches/{id}/lift": {
    post: {
      operationId: "liftSwitch",
      summary: "Lets newcomers in again",
      description:
        "What a kill has stopped stays so; a pause is resumed. To lift a kill of everything, or of an upstream, takes two operators within an hour.",
      ...roles("operator"),
      parameters: [pathId("id", "Of the switch")],
      requestBody: body("Lift"),
      responses: {
        200: answer("It is open", ref("Switch")),
        202: answer("It awaits a second operator", ref("AwaitingSwitch")),
        400: failure("The detail names what is wrong, by path"),
        404: failure("No such switch"),
        409: failure("It is open already, or a narrowing, which is over by itself"),
        ...ALWAYS,
      },
    },
  },
  "/admin/v1/humans/{human}/groups": {
    post: {
      operationId: "narrowHuman",
      summary: "The human has these groups and no others any more",
      description:
        "Instances that were enrolled on an earlier word of the identity provider lose what the other groups allowed, running calls included. What was lost stays lost for them; groups that they did not have change nothing. With `Accept: text/event-stream` the answer is its progress.",
      ...roles("operator"),
      parameters: [pathId("human", "The human's id, or e-mail address"), idempotencyKey],
      requestBody: body("Narrow"),
      responses: {
        200: {
          description: "The switch that this Idempotency-Key made before; or progress, as events",
          content: { ...json(ref("Receipt")), ...EVENTS },
          ...location,
        },
        201: answer("Done: everybody in reach works with what is left", ref("Receipt"), location),
        202: answer(
          "It stands, and not everybody in reach has heard of it; it is carried on",
          ref("Receipt"),
          location,
        ),
        400: failure("The detail names what is wrong, by path"),
        422: failure("The Idempotency-Key was used for another switch"),
        ...ALWAYS,
      },
    },
  },
  "/admin/v1/instances": {
    get: {
      operationId: "listInstances",
      summary: "Who is enrolled",
      ...READERS,
      parameters: query.instances,
      responses: { 200: answer("A page", ref("InstancePage")), 400: failure("Not a page"), ...ALWAYS },
    },
  },
  "/admin/v1/instances/{instance}": {
    get: {
      operationId: "findInstance",
      summary: "Whose an instance is, and of which task: also when it has ended",
      ...READERS,
      parameters: [pathId("instance", "The instance's id")],
      responses: {
        200: answer("Where its transcript lies", ref("Whereabouts")),
        404: failure("No such instance"),
        ...ALWAYS,
      },
    },
  },
  "/admin/v1/quotas/{quota}/{key}": {
    get: {
      operationId: "readQuota",
      summary: "What of a shared limit is spent, and what is leased",
      ...READERS,
      parameters: [pathId("quota", "Its name in the configuration"), pathId("key", "Whose it is")],
      responses: {
        200: answer("As it is now", ref("Quota")),
        404: failure("No such quota, or no such key"),
        ...ALWAYS,
      },
    },
  },
  "/admin/v1/transcripts/{human}/{task}/{instance}": {
    get: {
      operationId: "readTranscript",
      summary: "An instance's records: the exact lines, and the seals between them",
      description: "The read is itself on record before it begins.",
      ...roles("auditor"),
      parameters: [pathId("human", "Its id"), pathId("task", "Its id"), pathId("instance", "Its id")],
      responses: {
        200: {
          description: "One JSON object a line, oldest first",
          content: { "application/x-ndjson": { schema: { type: "string" } } },
        },
        404: failure("No transcript with these ids"),
        ...ALWAYS,
      },
    },
  },
  "/admin/v1/transcripts/{human}/{task}/{instance}/bodies/{seq}/{part}": {
    get: {
      operationId: "readBody",
      summary: "One recorded body, byte for byte",
      description:
        "From the bucket, and what has not left for it from the instance itself. Of a call that runs: what is recorded so far. The read is itself on record before it begins. A connection that breaks off has not given all of it.",
      ...roles("auditor"),
      parameters: [
        pathId("human", "The human's id"),
        pathId("task", "The task's id"),
        pathId("instance", "The instance's id"),
        pathId("seq", "Of the record that the body belongs to: of the call for both parts of a call"),
        pathId("part", "request, answer, or claims"),
      ],
      responses: {
        200: {
          description: "The bytes, in the content coding that the record names",
          content: OCTETS,
        },
        404: failure("No such body; or it is gone, and no erasure certificate says why"),
        410: failure("Erased: the detail names the certificate"),
        ...ALWAYS,
      },
    },
  },
  "/admin/v1/segments": {
    get: {
      operationId: "readSegments",
      summary: "The index of segments: the entries of a span of time, of everybody or of who is named",
      description:
        "Records of type `stored`, from the bucket and then what has not left for it. An entry may come twice. The read is itself on record before it begins.",
      ...roles("auditor"),
      parameters: query.segments,
      responses: {
        200: {
          description: "One JSON object a line, hour by hour",
          content: { "application/x-ndjson": { schema: { type: "string" } } },
        },
        400: failure("Not a span; the detail says why"),
        ...ALWAYS,
      },
    },
  },
  "/admin/v1/objects": {
    get: {
      operationId: "listObjects",
      summary: "Objects of the bucket by prefix, in the order of their keys",
      description: "The read is itself on record.",
      ...roles("auditor"),
      parameters: query.objects,
      responses: { 200: answer("A page", ref("ObjectPage")), 400: failure("Not a page"), ...ALWAYS },
    },
  },
  "/admin/v1/object": {
    get: {
      operationId: "readObject",
      summary: "An object of the bucket, byte for byte as it was stored",
      description: "`Range: bytes=<first>-[<last>]` is honoured. The read is itself on record before it begins.",
      ...roles("auditor"),
      parameters: query.object,
      responses: {
        200: { description: "All of it", content: OCTETS },
        206: { description: "The range", headers: { "Content-Range": text("RFC 9110, 14.4") }, content: OCTETS },
        400: failure("Not a key that the layout knows"),
        404: failure("No such object"),
        416: failure("It is not that long", { "Content-Range": text("Its length") }),
        ...ALWAYS,
      },
    },
  },
  "/admin/v1/holds": {
    post: {
      operationId: "placeHold",
      summary: "From then on nothing of this human, this task, or anybody is erased",
      ...roles("auditor"),
      requestBody: body("PlaceHold"),
      responses: {
        201: answer("It stands, and no deletion is on its way", ref("Hold")),
        400: failure("The detail names what is wrong, by path"),
        ...ALWAYS,
      },
    },
    get: {
      operationId: "listHolds",
      summary: "All holds, newest first",
      ...LOOKERS,
      parameters: query.holds,
      responses: { 200: answer("A page", ref("HoldPage")), 400: failure("Not a page"), ...ALWAYS },
    },
  },
  "/admin/v1/holds/{id}": {
    delete: {
      operationId: "releaseHold",
      summary: "Ends a hold: takes two auditors within an hour",
      ...roles("auditor"),
      parameters: [pathId("id", "Of the hold")],
      requestBody: body("ReleaseHold"),
      responses: {
        200: answer("It is released", ref("Hold")),
        202: answer("It awaits a second auditor", ref("AwaitingHold")),
        400: failure("The detail names what is wrong, by path"),
        404: failure("No such hold"),
        409: failure("It is released already"),
        ...ALWAYS,
      },
    },
  },
  "/admin/v1/erasures": {
    post: {
      operationId: "erase",
      summary: "Erases a human's bodies, up to now; what is chained stays",
      ...roles("operator"),
      parameters: [{ ...idempotencyKey, description: "The same key by the same admin is the same erasure" }],
      requestBody: body("Erase"),
      responses: {
        200: answer("The erasure that this Idempotency-Key made before", ref("Erasure"), erasureLocation),
        202: answer("It is carried out", ref("Erasure"), erasureLocation),
        400: failure("The detail names what is wrong, by path"),
        409: failure("A hold forbids it: the detail names it"),
        422: failure("The Idempotency-Key was used for another erasure"),
        ...ALWAYS,
      },
    },
  },
  "/admin/v1/erasures/{id}": {
    get: {
      operationId: "readErasure",
      summary: "How far an erasure is, and what is left and why",
      ...LOOKERS,
      parameters: [pathId("id", "Of the erasure")],
      responses: { 200: answer("As of now", ref("Erasure")), 404: failure("No such erasure"), ...ALWAYS },
    },
  },
  "/admin/v1/mandates": {
    get: {
      operationId: "listMandates",
      summary: "What humans approved in advance, newest first",
      ...READERS,
      parameters: query.mandates,
      responses: { 200: answer("A page", ref("MandatePage")), 400: failure("Not a page"), ...ALWAYS },
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
      responses: { 200: answer("A page", ref("ApprovalPage")), 400: failure("Not a page"), ...ALWAYS },
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
  "/admin/v1/openapi.json": {
    get: {
      operationId: "readOpenApi",
      summary: "This document",
      ...READERS,
      responses: { 200: answer("OpenAPI 3.1", { type: "object" }), ...ALWAYS },
    },
  },
});
