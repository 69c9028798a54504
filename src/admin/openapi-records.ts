import {
  ALWAYS,
  answer,
  body,
  erasureLocation,
  failure,
  idempotencyKey,
  LOOKERS,
  type Node,
  OCTETS,
  pageOf,
  pathId,
  type Query,
  READERS,
  ref,
  roles,
  text,
} from "./openapi-words.ts";

/** Transcripts, segments, holds and erasures. */
export const recordsOperations = (query: Query<"holds" | "object" | "objects" | "segments">): Node => ({
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
      responses: pageOf("ObjectPage"),
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
      responses: pageOf("HoldPage"),
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
  "/admin/v1/openapi.json": {
    get: {
      operationId: "readOpenApi",
      summary: "This document",
      ...READERS,
      responses: { 200: answer("OpenAPI 3.1", { type: "object" }), ...ALWAYS },
    },
  },
});
