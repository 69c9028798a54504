// The organisation's Slack. With strict scopes a token the emulator doesn't know is taken for a user without any scope: every
// call that needs one answers `missing_scope`.

import { startEmulatedService } from "./emulator.ts";
import type { RecordedUpstream } from "./recorder.ts";

export const slackBot = { userId: "U0PORTCULLIS", botId: "B0PORTCULLIS", name: "portcullis" } as const;

/** The workspace's default channel, where everyone may write. */
export const slackGeneral = { id: "C000000001", name: "general" } as const;

const scopes = ["chat:write", "channels:read", "channels:history", "groups:read", "users:read"];

/** Starts the workspace; `token` posts as the bot user `portcullis`. The Web API is under `${baseUrl}/api/`. */
export async function startSlack(options: { port?: number; token: string }): Promise<RecordedUpstream> {
  const { upstream } = await startEmulatedService("slack", options.port ?? 0, {
    tokens: {}, // Without this the emulator admits a well-known test token.
    slack: {
      team: { name: "Acme", domain: "acme" },
      channels: [{ name: "engineering", topic: "Widgets" }],
      oauth_apps: [
        {
          app_id: "A0PORTCULLIS",
          client_id: "portcullis",
          client_secret: "unused",
          name: "Portcullis",
          redirect_uris: [],
          scopes,
          bot_id: slackBot.botId,
          bot_user_id: slackBot.userId,
          bot_name: slackBot.name,
        },
      ],
      tokens: [
        {
          token: options.token,
          type: "bot",
          user_id: slackBot.userId,
          bot_id: slackBot.botId,
          bot_user_id: slackBot.userId,
          scopes,
        },
      ],
      strict_scopes: true,
    },
  });
  return upstream;
}
