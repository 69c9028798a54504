import { definePolicyTests } from "./src/config/policy-tests.ts";

/**
 * What the example deployment must allow and must refuse, and which layer decides. `npx portcullis policy test` holds
 * portcullis.config.ts to it, and `npm run deploy` does so before anything leaves.
 */
const engineer = { human: "ada@acme.example", groups: ["engineering"], agent: "triage-bot" };

export default definePolicyTests([
  {
    name: "an engineer's agent reads issues",
    call: "GET /github/repos/acme/widgets/issues?state=open",
    ...engineer,
    expect: "allowed",
    operation: "GET /repos/{owner}/{repo}/issues",
    entry: "entitlements.groups.engineering[0]",
  },
  {
    name: "and answers them",
    call: "POST /github/repos/acme/widgets/issues/7/comments",
    body: { body: "Thank you" },
    ...engineer,
    expect: "allowed",
    layer: "boundaries",
    operation: "POST /repos/{owner}/{repo}/issues/{number}/comments",
  },
  {
    name: "no more than its grant",
    call: "POST /github/repos/acme/widgets/issues/7/comments",
    body: { body: "Thank you" },
    ...engineer,
    scope: [
      {
        type: "http",
        upstream: "github",
        operations: ["GET /repos/{owner}/{repo}/issues"],
        where: { owner: ["acme"] },
      },
    ],
    expect: "refused",
    layer: "grant",
  },
  {
    name: "no other repository than the human's",
    call: "GET /github/repos/acme/payroll/issues",
    ...engineer,
    expect: "refused",
    layer: "entitlement",
  },
  {
    name: "nothing for who is in no group",
    call: "GET /github/repos/acme/widgets/issues",
    groups: [],
    agent: "triage-bot",
    expect: "refused",
    layer: "entitlement",
  },
  {
    name: "nobody deletes",
    call: "DELETE /github/repos/acme/widgets",
    ...engineer,
    expect: "refused",
  },
  {
    name: "a path that two readers read in two ways",
    call: "GET /github/repos/acme/widgets/%2e%2e/issues",
    ...engineer,
    expect: "refused",
    layer: "describe",
  },
  {
    name: "an upstream that is not there",
    call: "GET /payroll/all",
    ...engineer,
    expect: "refused",
    layer: "route",
  },
  {
    name: "a grant for one repository",
    request: {
      ...engineer,
      authorization_details: [
        {
          type: "http",
          upstream: "github",
          operations: ["GET /repos/{owner}/{repo}/contents/{+path}", "GET /repos/{owner}/{repo}/issues"],
          where: { owner: ["acme"], repo: ["widgets"] },
        },
      ],
    },
    expect: "granted",
  },
  {
    name: "no grant for every repository",
    request: {
      ...engineer,
      authorization_details: [
        {
          type: "http",
          upstream: "github",
          operations: ["GET /repos/{owner}/{repo}/issues"],
          where: { owner: ["acme"] },
        },
      ],
    },
    expect: "refused",
    entry: 0,
    layer: "entitlement",
  },
]);
