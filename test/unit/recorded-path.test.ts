import { expect, it } from "vitest";
import { recordedPath } from "../../src/admin/door.ts";

it.each([
  ["/admin/v1/humans/bob@acme.example/groups", "/admin/v1/humans/(address)/groups"],
  ["/admin/v1/humans/bob%40acme.example/groups", "/admin/v1/humans/(address)/groups"],
  ["/admin/v1/humans/bob%2540acme.example/groups", "/admin/v1/humans/(address)/groups"],
  ["/admin/v1/humans/bob%25252540acme.example", "/admin/v1/humans/(address)"],
  ["/admin/v1/humans/bob%2541/groups", "/admin/v1/humans/bob%2541/groups"],
  ["/admin/@/x//@@", "/admin/(address)/x//(address)"],
  ["/admin/v1/switches", "/admin/v1/switches"],
])("a path stands on record without an address in it: %s", (path, recorded) =>
  expect(recordedPath(path)).toBe(recorded));

// Whoever asks for it is nobody yet. A search that begins anew at each character would take minutes here.
it.each(["p", "%25", "%", "25", "@"])("a path of a million characters is read once: %s", (part) =>
  expect(recordedPath(`/admin/${part.repeat(1_000_000 / part.length)}`).length).toBeLessThanOrEqual(256));
