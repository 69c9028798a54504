import * as z from "zod";
import type { Mandate } from "../src/mandate/contract.ts";
import { DAYS, type Schedule } from "../src/mandate/schedule.ts";
import type { Json } from "../src/scope/call.ts";
import { whole } from "./stored.ts";

const number = z.number();
const text = z.string();

export const MANDATE = whole<Mandate>({
  agent: text,
  platform: text,
  scope: z.array(z.custom<Json>((value) => value !== undefined)),
  purpose: text,
  schedule: whole<Schedule>({ timeZone: text, days: z.array(z.enum(DAYS)), from: text, to: text }).nullable(),
  notBeforeMs: number,
  expiresAtMs: number,
  taskSeconds: number,
  limits: whole<Mandate["limits"]>({ calls: number.nullable(), bytes: number.nullable() }),
  maxUses: number.nullable(),
  perDay: number.nullable(),
  id: text,
  human: text,
  emailDigest: text.nullable(),
  groups: z.array(text),
  groupsAtMs: number,
  emailUnverified: z.literal(true).exactOptional(),
  approvedAtMs: number,
});
