// What is done beside a test takes its time on a busy machine. Vitest's one second is no bound that a test means: one that means a
// bound says so.

import { vi } from "vitest";

const { waitFor } = vi;
vi.waitFor = (what, options) => waitFor(what, typeof options === "number" ? options : { timeout: 10_000, ...options });
