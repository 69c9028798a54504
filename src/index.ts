import config from "#config";
import { admin } from "./admin/admin.ts";
import { authority } from "./authority/authority.ts";
import { type Env, parseDeployment } from "./deployment.ts";
import { gate } from "./gate/gate.ts";
import { signals } from "./signals/signals.ts";

export { AgentInstance } from "../durable-objects/agent-instance.ts";
export { Journal } from "../durable-objects/journal.ts";
export { Roster } from "../durable-objects/roster.ts";
export { Switchboard } from "../durable-objects/switchboard.ts";

const PATH = /^[a-z]+:\/\/[^/?#]*([^?#]*)/i;

/** The doors. What no other door claims is the gate's, and there only a valid grant hears anything but 401. */
export default {
  async fetch(request, env, ctx) {
    try {
      const deployment = parseDeployment(env, config);
      const path = PATH.exec(request.url)?.[1] ?? "";
      if (path.startsWith("/oauth/") || path.startsWith("/.well-known/"))
        return await authority.fetch(request, { deployment }, ctx);
      if (path.startsWith("/admin/")) {
        const answering = Promise.resolve(admin.fetch(request, { deployment }, ctx));
        // Who asks for a kill and goes away before the answer would else take this Worker along, and the kill with it.
        ctx.waitUntil(answering.catch(() => {}));
        return await answering;
      }
      if (path.startsWith("/ssf/")) return await signals(request, deployment);
      return await gate(request, deployment, ctx);
    } catch (error) {
      // A bug or broken infrastructure closes the door. What it was goes to the operator's log, never outward.
      console.error("unexpected", error instanceof Error ? error.message : "unknown");
      return new Response(null, { status: 503, headers: { "Retry-After": "1", "Cache-Control": "no-store" } });
    }
  },
} satisfies ExportedHandler<Env>;
