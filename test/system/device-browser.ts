// The browser of somebody who confirms a terminal's sign-in (RFC 8628 §3.3): a cookie jar that submits the page's own forms.

import type { HumanName } from "./harness.ts";

const STEPS_MAX = 20;

/** Opens the address, confirms the code, and signs in as that person. `refuse` presses the other button. */
export async function confirmDevice(start: string, human: HumanName, refuse = false): Promise<string> {
  const cookies = new Map<string, string>();
  let [url, form]: [URL, URLSearchParams | null] = [new URL(start), null];
  for (let step = 0; step < STEPS_MAX; step += 1) {
    const response = await fetch(url, {
      redirect: "manual",
      headers: { cookie: [...cookies].map((pair) => pair.join("=")).join("; ") },
      ...(form === null ? {} : { method: "POST", body: form }),
    });
    form = null;
    for (const line of response.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(line) ?? [];
      cookies.set(name!, value!);
    }
    const text = await response.text();
    const location = response.headers.get("location");
    const link = new RegExp(`href="([^"]*as=${human})"`).exec(text)?.[1];
    const action = /<form[^>]*action="([^"]*)"/.exec(text)?.[1];
    if (location !== null || link !== undefined) url = new URL((location ?? link)!, url);
    else if (action !== undefined && !text.includes("Which code?")) {
      url = new URL(action, url);
      form = new URLSearchParams(
        [...text.matchAll(/type="hidden" name="([^"]*)" value="([^"]*)"/g)].map(([, name, value]) => [name!, value!]),
      );
      if (refuse && form.has("confirm")) form.set("abort", "yes");
    } else return text;
  }
  throw new Error(`no end after ${STEPS_MAX} pages`);
}
