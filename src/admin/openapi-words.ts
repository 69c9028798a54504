/** What operations are told in, as OpenAPI writes it. */

export type Node = { readonly [member: string]: unknown };

export const ref = (name: string): Node => ({ $ref: `#/components/schemas/${name}` });
export const json = (schema: Node): Node => ({ "application/json": { schema } });
export const answer = (description: string, schema: Node, more: Node = {}): Node => ({
  description,
  content: json(schema),
  ...more,
});
export const failure = (description: string, headers: Node = {}): Node => ({
  description,
  ...(Object.keys(headers).length === 0 ? {} : { headers }),
  content: { "application/problem+json": { schema: ref("Problem") } },
});
export const text = (description: string): Node => ({ description, schema: { type: "string" } });

/** What every operation can answer. */
export const ALWAYS: Node = {
  401: failure("No valid credential", { "WWW-Authenticate": text("Bearer") }),
  403: failure("Not with these roles; on record"),
  503: { description: "A state could not be read or written", headers: { "Retry-After": text("Seconds") } },
};

/** Of a list. */
export const pageOf = (name: string): Node => ({
  200: answer("A page", ref(name)),
  400: failure("Not a page"),
  ...ALWAYS,
});

/** Of a switch that is followed by `Accept: text/event-stream`. `x-events`: what the `data` of each is. */
export const EVENTS: Node = {
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
export const OCTETS: Node = { "application/octet-stream": {} };
export const location = { headers: { Location: text("The switch's own path") } };
export const erasureLocation = { headers: { Location: text("The erasure's own path") } };
export const idempotencyKey: Node = {
  name: "Idempotency-Key",
  in: "header",
  required: false,
  description: "The same key by the same admin is the same switch, however often it is sent",
  schema: { type: "string", minLength: 1, maxLength: 255 },
};
export const pathId = (name: string, description: string): Node => ({
  name,
  in: "path",
  required: true,
  description,
  schema: { type: "string" },
});
export const body = (name: string): Node => ({ required: true, content: json(ref(name)) });
export const roles = (...names: string[]): Node => ({ "x-roles": names });
export const READERS = roles("viewer", "operator", "auditor");
export const LOOKERS = roles("operator", "auditor");
export const APPROVAL_LOOKERS = roles("approver", "auditor");

/** Parameters of the query, of operations that have some. */
export type Query<Of extends string> = Readonly<Record<Of, readonly Node[]>>;
