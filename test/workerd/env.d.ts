declare namespace Cloudflare {
  interface Env {
    readonly AGENT_INSTANCE: DurableObjectNamespace;
    readonly ROSTER: DurableObjectNamespace;
    readonly SWITCHBOARD: DurableObjectNamespace;
    readonly JOURNAL: DurableObjectNamespace;
    readonly RETENTION: DurableObjectNamespace;
    readonly QUOTA: DurableObjectNamespace;
    readonly MANDATE_BOOK: DurableObjectNamespace;
    readonly MANDATE_INDEX: DurableObjectNamespace;
    readonly APPROVAL_DESK: DurableObjectNamespace;
    readonly CREDENTIAL_BROKER: DurableObjectNamespace;
    readonly TRANSCRIPTS: R2Bucket;
  }
  interface GlobalProps {
    mainModule: typeof import("../../src/index.ts");
  }
}
