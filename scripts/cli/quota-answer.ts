// What the admin API says of a shared limit, as far as it is read.

import { z } from "zod";

export const quotaAnswer = z.looseObject({
  quota: z.string(),
  key: z.string(),
  period: z.object({ fromMs: z.number(), untilMs: z.number() }).nullable(),
  dimensions: z.array(
    z.looseObject({ dimension: z.string(), limit: z.number(), spent: z.number(), leased: z.number() }),
  ),
  instances: z.number(),
});
