import * as z from "zod";
import { idJag } from "./id-jag.ts";
import { agentName, httpUrl, positive, secretName } from "./names.ts";
import { findEventNameFault, SIGNAL_ACTS } from "./signal-acts.ts";

/** Who vouches for people, who provisions instances for them, and who says what became of them. */

const publicJwks = z.object({
  keys: z
    .array(
      z.looseObject({
        kty: z.enum(["EC", "OKP", "RSA"]),
        kid: z.string().min(1).optional(),
        alg: z.string().optional(),
      }),
    )
    .min(1)
    .refine(
      (keys) => keys.every((key) => !("d" in key) && !("k" in key)),
      "public keys only: a private member was found",
    ),
});

const algorithms = z.array(z.enum(["ES256", "ES384", "RS256", "PS256", "Ed25519"])).min(1);

export const identityProvider = z.strictObject({
  /** Compared byte for byte with `iss`. */
  issuer: httpUrl,
  jwksUri: httpUrl,
  algorithms: algorithms.default(["ES256", "RS256"]),
  groupsClaim: z.string().min(1).default("groups"),
  /** Left out: its identity assertions are refused. */
  idJag: idJag.optional(),
  /** ID tokens that were issued longer ago are refused: for so long a group that was lost has to be remembered. */
  maxTokenAgeSeconds: positive.max(31_536_000).default(86_400),
});

export const platform = z.strictObject({
  /** The agent this OAuth client provisions. */
  agent: agentName,
  identityProvider: z.string(),
  /** The `aud` of the ID tokens that this platform may present: its own client at the identity provider. */
  subjectAudience: z.string().min(1),
  jwks: publicJwks,
  algorithms: algorithms.default(["ES256", "Ed25519"]),
});

export const transmitter = z.strictObject({
  /** Compared byte for byte with `iss`. */
  issuer: httpUrl,
  jwksUri: httpUrl,
  /** What `aud` must hold: how the stream names this receiver. */
  audience: z.string().min(1),
  algorithms: algorithms.default(["RS256", "ES256"]),
  /** Whose humans its subjects are. */
  identityProvider: z.string(),
  /** The secret that holds the SHA-256, in hex, of the bearer token that it presents. */
  authorization: secretName,
  /** Members of complex subjects that it calls critical (`critical_subject_members` of its metadata). */
  criticalSubjectMembers: z.array(z.string()).readonly().default([]),
  /** By the URI of an event: what it does, where that is not what the table in signal-acts.ts says. */
  acts: z
    .record(
      z.string(),
      z.strictObject({
        act: z.enum(SIGNAL_ACTS),
        /** Counted from the event's `iat`; null: until somebody opens it. */
        blockSeconds: positive.max(31_536_000).nullable().optional(),
      }),
    )
    .superRefine((acts, ctx) => {
      for (const [event, { act, blockSeconds }] of Object.entries(acts)) {
        const fault = findEventNameFault(event);
        if (fault !== undefined) ctx.addIssue({ code: "custom", path: [event], message: fault });
        if (act === "narrow" && blockSeconds !== undefined)
          ctx.addIssue({
            code: "custom",
            path: [event, "blockSeconds"],
            message: "not with narrow, which lasts as long as older ID tokens do",
          });
      }
    })
    .default({}),
});
