// The organisation's GitHub. The repositories are private and only `portcullis-bot` and the seeding member belong to the
// organisation. The emulator never refuses a token it doesn't know: it takes its bearer for the first seeded user. That user is
// here `github-stranger`, who can see nothing, so a call that works is a call that carried the gate's credential.

import { randomBytes } from "node:crypto";
import { startEmulatedService } from "./emulator.ts";
import type { RecordedUpstream } from "./recorder.ts";

export const githubBot = "portcullis-bot";
export const githubStranger = "github-stranger";
export const githubIssueCount = 75; // Three pages of thirty, the last one half full.

const seedingMember = "ada-at-acme";
const scopes = ["repo", "user"];

interface SeedRepository {
  readonly name: string;
  readonly description: string;
  readonly files: Readonly<Record<string, string>>;
  readonly issues: readonly string[];
}

const repositories: readonly SeedRepository[] = [
  {
    name: "widgets",
    description: "Everything about widgets.",
    files: {
      "docs/guide.md": "# Guide\n\nTurn the widget until it clicks. Do not turn it further.\n",
      "docs/install.md": "# Install\n\nPlace the widget on a level surface.\n",
      "src/widget.ts": "export const clicks = (turns: number): boolean => turns === 1;\n",
    },
    issues: Array.from({ length: githubIssueCount }, (_, index) => `Widget ${index + 1} squeaks`),
  },
  {
    name: "helpdesk",
    description: "What customers ask.",
    files: { "answers/returns.md": "# Returns\n\nWithin thirty days, in the box.\n" },
    issues: ["A customer turned it further", "A customer has no level surface"],
  },
  {
    name: "payroll",
    description: "Not for agents.",
    files: { "salaries.csv": "name,salary\nada,120000\ngrace,130000\n" },
    issues: ["Raise for Ada"],
  },
];

/** Starts `acme/widgets`, `acme/helpdesk` and `acme/payroll`; `token` is recognised as `portcullis-bot`. */
export async function startGitHub(options: { port?: number; token: string }): Promise<RecordedUpstream> {
  const seedingToken = `seed_${randomBytes(24).toString("base64url")}`;
  const { upstream, directUrl } = await startEmulatedService("github", options.port ?? 0, {
    tokens: {
      [options.token]: { login: githubBot, scopes },
      [seedingToken]: { login: seedingMember, scopes },
    },
    github: {
      users: [
        { login: githubStranger, name: "Whoever holds an unknown token" },
        { login: githubBot, name: "Portcullis" },
        { login: seedingMember, name: "Ada" },
      ],
      orgs: [{ login: "acme", name: "Acme", members: [{ login: githubBot }, { login: seedingMember, role: "admin" }] }],
      repos: repositories.map(({ name, description }) => ({ owner: "acme", name, description, private: true })),
    },
  });
  try {
    for (const repository of repositories) await fill(repository, directUrl, seedingToken);
  } catch (cause) {
    await upstream.close();
    throw cause;
  }
  return upstream;
}

async function fill(repository: SeedRepository, directUrl: string, token: string): Promise<void> {
  const send = async (method: string, path: string, body: unknown) => {
    const response = await fetch(`${directUrl}/repos/acme/${repository.name}/${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
    const text = await response.text();
    if (!response.ok) throw new Error(`seeding ${repository.name}: ${method} ${path} gave ${response.status}: ${text}`);
  };
  for (const [path, text] of Object.entries(repository.files)) {
    await send("PUT", `contents/${path}`, { message: `Add ${path}`, content: Buffer.from(text).toString("base64") });
  }
  for (const title of repository.issues) await send("POST", "issues", { title });
}
