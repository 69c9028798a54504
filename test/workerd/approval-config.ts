import type { BoundarySource } from "../../src/config/layers.ts";

/** Calls that a person must approve, in repositories that no other test speaks of. The wider entry before them allows them. */
const held = (repo: string, approval: NonNullable<BoundarySource["approval"]>): BoundarySource => ({
  type: "http",
  upstream: "github",
  operations: [
    "GET /repos/{owner}/{repo}/issues",
    "PUT /repos/{owner}/{repo}/contents/{+path}",
    "POST /repos/{owner}/{repo}/issues/{number}/comments",
  ],
  where: { owner: ["acme"], repo: [repo] },
  effect: "approve",
  approval,
});

export const heldBack: readonly BoundarySource[] = [
  held("vault", {}),
  held("vault-waits", { waitSeconds: 20 }),
  held("vault-short", { expireSeconds: 60, validSeconds: 30 }),
  held("vault-group", { groups: ["treasury"] }),
  held("vault-own", { notDelegator: false }),
];
export const WEBHOOK = "https://hooks.test/approvals";
