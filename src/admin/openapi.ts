import * as z from "zod";
import { REACHES } from "../control/switch.ts";
import { revokeBody } from "../mandate/shape.ts";
import * as approvalShapes from "./approval-shapes.ts";
import { approvalsQuery, decideBody } from "./approvals.ts";
import { type AdminHono, READERS, requireRole } from "./door.ts";
import { narrowBody } from "./humans.ts";
import { instancesQuery } from "./instances.ts";
import * as mandateShapes from "./mandate-shapes.ts";
import { mandatesQuery } from "./mandates.ts";
import { objectQuery, objectsQuery } from "./objects.ts";
import { operations } from "./openapi-operations.ts";
import { eraseBody, holdBody, holdsQuery, releaseBody } from "./retention.ts";
import * as retentionShapes from "./retention-shapes.ts";
import { segmentsQuery } from "./segments.ts";
import * as shapes from "./shapes.ts";
import { flipBody, liftBody, switchesQuery } from "./switches.ts";

export type JsonSchema = { readonly [keyword: string]: unknown };

/** The API's, of its paths: `/admin/v1`. */
const VERSION = "1";

/** By the names that the document gives them. */
const BODIES = {
  Flip: flipBody,
  Lift: liftBody,
  Narrow: narrowBody,
  PlaceHold: holdBody,
  ReleaseHold: releaseBody,
  Erase: eraseBody,
  RevokeMandate: revokeBody,
  Decide: decideBody,
} as const;
const ANSWERS = {
  Problem: shapes.problemShape,
  Receipt: shapes.signedReceiptShape,
  Switch: shapes.summaryShape,
  AwaitingSwitch: shapes.awaitingShape,
  Resumed: shapes.resumedShape,
  SwitchPage: shapes.switchPageShape,
  Instance: shapes.memberShape,
  InstancePage: shapes.memberPageShape,
  ObjectPage: shapes.objectPageShape,
  Quota: shapes.quotaShape,
  Whereabouts: shapes.whereaboutsShape,
  Progress: shapes.progressShape,
  Pending: shapes.pendingShape,
  Failure: shapes.failureShape,
  Hold: retentionShapes.holdShape,
  AwaitingHold: retentionShapes.awaitingHoldShape,
  HoldPage: retentionShapes.holdPageShape,
  Erasure: retentionShapes.erasureShape,
  Mandate: mandateShapes.mandateShape,
  MandatePage: mandateShapes.mandatePageShape,
  Approval: approvalShapes.approvalShape,
  ApprovalPage: approvalShapes.approvalPageShape,
} as const;

let document: JsonSchema | null = null;

/** OpenAPI 3.1, made from the shapes that the door itself parses with. */
export function openApiRoute(admin: AdminHono): void {
  admin.get("/admin/v1/openapi.json", async (c) => {
    const { deployment } = c.env;
    const refused = await requireRole(deployment, c.get("admin"), c.req.path, READERS);
    if (refused !== null) return refused;
    document ??= openApiDocument(deployment.config.origin);
    return c.json(document);
  });
}

/** Pure. */
export const openApiDocument = (origin: string): JsonSchema => ({
  openapi: "3.1.1",
  info: {
    title: "Portcullis, the admin's door",
    version: VERSION,
    description:
      "Kill switches, what came of them, who is enrolled, transcripts, legal holds, erasures, mandates, and requests for approval. Fields that end in `Ms` are milliseconds since 1970.",
    license: { name: "Apache-2.0", identifier: "Apache-2.0" },
  },
  servers: [{ url: origin }],
  security: [{ admin: [] }],
  paths: operations({
    switches: parametersOf(switchesQuery),
    instances: parametersOf(instancesQuery),
    segments: parametersOf(segmentsQuery),
    objects: parametersOf(objectsQuery),
    object: parametersOf(objectQuery),
    holds: parametersOf(holdsQuery),
    mandates: parametersOf(mandatesQuery),
    approvals: parametersOf(approvalsQuery),
  }),
  components: {
    schemas: {
      ...schemasOf(BODIES, "input"),
      Flip: flipSchema(),
      PlaceHold: holdSchema(),
      ...schemasOf(ANSWERS, "output"),
    },
    securitySchemes: {
      admin: {
        type: "http",
        scheme: "bearer",
        description:
          "An OIDC ID token of the admins' provider, issued to the admins' client; its groups hold the roles viewer, operator, auditor, approver. Or a break-glass key `pbg_…`, which can kill, and do nothing else.",
      },
    },
  },
});

function schemasOf(named: Readonly<Record<string, z.ZodType>>, io: "input" | "output"): Record<string, JsonSchema> {
  const registry = z.registry<{ id: string }>();
  for (const [id, shape] of Object.entries(named)) registry.add(shape, { id });
  const { schemas } = z.toJSONSchema(registry, { io, uri: (id) => `#/components/schemas/${id}` });
  return Object.fromEntries(Object.entries(schemas).map(([id, schema]) => [id, withoutFrame(schema)]));
}

/** A component is no document of its own. */
const withoutFrame = ({ $schema: _, $id: __, id: ___, ...schema }: JsonSchema): JsonSchema => schema;

/** What the shape refines in code: each reach asks for exactly the members that its row in the table names. */
function flipSchema(): JsonSchema {
  const flip = withoutFrame(z.toJSONSchema(flipBody, { io: "input" }));
  const { target } = flip["properties"] as { readonly target: { readonly properties: Record<string, JsonSchema> } };
  return {
    ...flip,
    oneOf: Object.entries(REACHES).map(([reach, members]) => ({
      title: reach,
      properties: {
        reach: { const: reach },
        target: {
          type: "object",
          properties: Object.fromEntries(members.map((member) => [member, target.properties[member]])),
          required: [...members],
          additionalProperties: false,
        },
      },
    })),
    // A pause ends when it is resumed: there is nothing to time.
    if: { properties: { act: { const: "resume" } } },
    // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON Schema
    then: { not: { required: ["untilMs"] } },
  };
}

/** What the shape refines in code: exactly one of the three. */
const holdSchema = (): JsonSchema => ({
  ...withoutFrame(z.toJSONSchema(holdBody, { io: "input" })),
  oneOf: ["human", "task", "everything"].map((member) => ({ required: [member] })),
});

function parametersOf(query: z.ZodType): JsonSchema[] {
  const { properties = {}, required = [] } = z.toJSONSchema(query, { io: "input" });
  return Object.entries(properties).map(([name, schema]) => {
    return { name, in: "query", required: required.includes(name), schema };
  });
}
