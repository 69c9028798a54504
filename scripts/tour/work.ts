// Step 2: an agent does its work with the clients it would use anyway, and the upstreams' witnesses say what arrived there.

import { Octokit } from "@octokit/rest";
import { z } from "zod";
import { githubBot, githubIssueCount } from "../local/github.ts";
import type { Organisation } from "../local/organisation.ts";
import type { RecordedRequest } from "../local/recorder.ts";
import { slackBot, slackGeneral } from "../local/slack.ts";
import type { Narrator } from "./narrator.ts";
import type { Team } from "./team.ts";

const widgets = { owner: "acme", repo: "widgets" };
const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} };
const posted = z.object({ ok: z.literal(true), message: z.object({ user: z.string(), text: z.string() }) });

export async function workThroughTheGate(organisation: Organisation, team: Team, tour: Narrator): Promise<void> {
  const { gate, github, slack } = organisation;
  const fromHere = { github: github.requests().length, slack: slack.requests().length };
  tour.say(`An unmodified Octokit, given ${gate.origin}/github as base URL and the agent's fetch, goes to work.`);
  const octokit = new Octokit({
    baseUrl: `${gate.origin}/github`,
    request: { fetch: team.triager.fetch },
    log: quiet,
  });

  const guide = await octokit.rest.repos.getContent({ ...widgets, path: "docs/guide.md" });
  const asked = github.requests().slice(fromHere.github).at(-1)?.target;
  tour.check(
    "it reads docs/guide.md; the slash in the path stays encoded on the whole way",
    { text: contentOf(guide.data).split("\n")[0], asked },
    { text: "# Guide", asked: "/repos/acme/widgets/contents/docs%2Fguide.md" },
  );

  const links: string[] = [];
  const issues = await octokit.paginate(octokit.rest.issues.listForRepo, { ...widgets, per_page: 30 }, (page) => {
    links.push(page.headers.link ?? "");
    return page.data;
  });
  const ways = links.flatMap((link) =>
    [...link.matchAll(/<([^>]*)>/g)].map(([, url]) => (url ?? "").split("/repos/")[0]),
  );
  tour.check(
    `it pages through ${githubIssueCount} issues on three pages; every Link leads back to the gate`,
    { issues: new Set(issues.map(({ number }) => number)).size, pages: links.length, ways: [...new Set(ways)] },
    { issues: githubIssueCount, pages: 3, ways: [`${gate.origin}/github`] },
  );

  const body = "Thank you. Please turn it once, and not further.";
  const comment = await octokit.rest.issues.createComment({ ...widgets, issue_number: 1, body });
  const { data: me } = await octokit.rest.users.getAuthenticated();
  tour.check(
    `it comments on issue 1; GitHub says that ${githubBot} wrote it, and GET /user says the same`,
    { status: comment.status, body: comment.data.body, author: comment.data.user?.login, me: me.login },
    { status: 201, body, author: githubBot, me: githubBot },
  );

  const message = await team.triager.fetch(`${gate.origin}/slack/api/chat.postMessage`, {
    method: "POST",
    headers: { "content-type": "application/json; charset=utf-8" },
    body: JSON.stringify({ channel: slackGeneral.id, text: "Issue 1 has an answer." }),
  });
  tour.check("it posts to Slack, where the author is Portcullis' bot", posted.parse(await message.json()).message, {
    user: slackBot.userId,
    text: "Issue 1 has an answer.",
  });

  const arrived = [
    ...github.requests().slice(fromHere.github).map(asWitnessed(organisation.secrets.githubToken, team)),
    ...slack.requests().slice(fromHere.slack).map(asWitnessed(organisation.secrets.slackToken, team)),
  ];
  tour.check(
    `all ${arrived.length} requests that arrived carry the organisation's credential, none the agent's token or proof`,
    [...new Set(arrived)],
    ["the credential alone"],
  );
}

/** What an upstream could have learnt of its caller. */
const asWitnessed =
  (credential: string, { triager }: Team) =>
  (request: RecordedRequest) => {
    const everything = `${request.target}\n${JSON.stringify(request.headers)}\n${request.body}`;
    if (request.authorization !== `Bearer ${credential}`) return `another credential: ${request.authorization}`;
    if (request.headers["dpop"] !== undefined) return "a DPoP proof";
    const signature = triager.grant.access_token.split(".")[2] ?? "";
    return everything.includes(signature) ? "the agent's token" : "the credential alone";
  };

const contentOf = (data: unknown): string => {
  const { content } = z.object({ content: z.string() }).parse(data);
  return Buffer.from(content, "base64").toString("utf8");
};
