/** How often the layers of an upstream may decode a path besides. Of one that is encoded more often `describe` makes no call. */
export const MORE_DECODINGS = 3;

/**
 * Percent-encoded text as a layer behind the gate may decode it that leaves what is no encoding: one `%` that encodes nothing must not
 * hide what others do. Bytes that are not UTF-8 stay, but for those of ASCII among them.
 */
export const decodeAgain = (text: string): string =>
  text.includes("%") ? text.replace(/(?:%[0-9A-Fa-f]{2})+/g, decodeRun) : text;

function decodeRun(run: string): string {
  try {
    return decodeURIComponent(run);
  } catch {
    return run.replace(/%[0-7][0-9A-Fa-f]/g, decodeURIComponent);
  }
}
