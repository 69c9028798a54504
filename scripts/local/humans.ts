// Who works in the local organisation, and what they sign in to.

interface Person {
  readonly sub: string;
  readonly name: string;
  readonly email: string;
  readonly groups: readonly string[];
}

export const humans = {
  ada: { sub: "00u1kq7ada", name: "Ada", email: "ada@acme.example", groups: ["engineering"] },
  grace: { sub: "00u2mv4grace", name: "Grace", email: "grace@acme.example", groups: ["support"] },
  oscar: { sub: "00u3zr9oscar", name: "Oscar", email: "oscar@acme.example", groups: ["security-oncall"] },
  olga: { sub: "00u4ws2olga", name: "Olga", email: "olga@acme.example", groups: ["security-oncall"] },
} as const satisfies Readonly<Record<string, Person>>;
export type Human = keyof typeof humans;

/**
 * `build-platform-app` is where humans set agents to work, `portcullis-admin` is the admins' and `portcullis-mandates` where humans
 * approve in advance; the gate knows nothing of `other-app`.
 */
export const oidcClients = ["build-platform-app", "portcullis-admin", "portcullis-mandates", "other-app"] as const;
export type OidcClient = (typeof oidcClients)[number];
