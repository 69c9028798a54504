import config from "#config";
import { admin } from "./admin/admin.ts";
import { authority } from "./authority/authority.ts";
import { type Deployment, type Env, parseDeployment } from "./deployment.ts";
import { gate } from "./gate/gate.ts";
import { mandates } from "./mandates/mandates.ts";
import { signals } from "./signals/signals.ts";

export {
  AgentInstance,
  ApprovalDesk,
  CredentialBroker,
  Journal,
  MandateBook,
  MandateIndex,
  Quota,
  Retention,
  Roster,
  Switchboard,
} from "../durable-objects/deployed.ts";

const PATH = /^[a-z]+:\/\/[^/?#]*([^?#]*)/i;

/** The doors. What no other door claims is the gate's, and there only a valid grant hears anything but 401. */
export default {
  async fetch(request, env, ctx) {
    try {
      const deployment = parseDeployment(env, config);
      const path = PATH.exec(request.url)?.[1] ?? "";
      const control = controlDoor(path);
      if (control !== undefined) {
        const answering = Promise.resolve(control(request, deployment, ctx));
        // Who asks for a kill or a revocation and goes away before the answer would else take this Worker along, and the act with it.
        ctx.waitUntil(answering.catch(() => {}));
        return await answering;
      }
      return await gate(request, deployment, ctx);
    } catch (error) {
      // A bug or broken infrastructure closes the door. What it was goes to the operator's log, never outward.
      console.error("unexpected", error instanceof Error ? error.message : "unknown");
      return new Response(null, { status: 503, headers: { "Retry-After": "1", "Cache-Control": "no-store" } });
    }
  },
} satisfies ExportedHandler<Env>;

type Door = (request: Request, deployment: Deployment, ctx: ExecutionContext) => Response | Promise<Response>;

function controlDoor(path: string): Door | undefined {
  if (path.startsWith("/oauth/") || path.startsWith("/.well-known/"))
    return (request, deployment, ctx) => authority.fetch(request, { deployment }, ctx);
  if (path.startsWith("/admin/")) return (request, deployment, ctx) => admin.fetch(request, { deployment }, ctx);
  if (path.startsWith("/mandates/")) return (request, deployment, ctx) => mandates.fetch(request, { deployment }, ctx);
  if (path.startsWith("/ssf/")) return signals;
  return undefined;
}
