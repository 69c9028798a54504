import * as z from "zod";
import type { Holder, Totals } from "../src/quota/decide.ts";
import { whole } from "./stored.ts";

const number = z.number();
const some = z.record(z.string(), number);

export const TOTALS = whole<Totals>({
  period: number,
  granted: some,
  used: some,
  tokens: number.nullable(),
  tokensAtMs: number,
});

export const HOLDER = whole<Holder>({ version: number, period: number, granted: some, used: some });
