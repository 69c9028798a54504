import {
  ALWAYS,
  answer,
  body,
  EVENTS,
  failure,
  idempotencyKey,
  json,
  location,
  type Node,
  pageOf,
  pathId,
  type Query,
  READERS,
  ref,
  roles,
} from "./openapi-words.ts";

/** Switches, people, instances and quotas. */
export const controlOperations = (query: Query<"instances" | "switches">): Node => ({
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
      responses: pageOf("SwitchPage"),
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
      responses: pageOf("InstancePage"),
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
});
