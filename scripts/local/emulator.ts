// One emulated SaaS behind a recorder. Kept in one place because the emulator must know its public URL before it starts, and
// with a public URL given it no longer says which port it really took.

import { createEmulator, type Emulator, type SeedConfig, type ServiceName } from "emulate";
import { choosePort } from "./ports.ts";
import { type RecordedUpstream, startRecorder } from "./recorder.ts";

export interface EmulatedService {
  readonly upstream: RecordedUpstream;
  /** The emulator itself, past the recorder: for seeding only. */
  readonly directUrl: string;
}

const attempts = 5;

/** Starts the service on a free port and a recorder before it on `port` (0 for any). Everything it links to names the recorder. */
export async function startEmulatedService(
  service: ServiceName,
  port: number,
  seed: SeedConfig,
): Promise<EmulatedService> {
  const recorder = await startRecorder(port);
  try {
    const { emulator, directUrl } = await startOnFreePort(service, recorder.baseUrl, seed);
    recorder.pointAt(directUrl);
    const close = async () => {
      await recorder.close();
      await emulator.close();
    };
    return { upstream: { ...recorder, close }, directUrl };
  } catch (cause) {
    await recorder.close();
    throw cause;
  }
}

async function startOnFreePort(service: ServiceName, baseUrl: string, seed: SeedConfig) {
  for (let attempt = 1; ; attempt += 1) {
    const port = await choosePort(0);
    try {
      const emulator: Emulator = await createEmulator({ service, port, seed, baseUrl });
      return { emulator, directUrl: `http://127.0.0.1:${port}` };
    } catch (cause) {
      const taken = (cause as NodeJS.ErrnoException).code === "EADDRINUSE";
      if (!taken || attempt === attempts) throw cause;
    }
  }
}
