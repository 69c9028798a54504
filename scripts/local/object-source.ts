// Where objects of the bucket are copied from: the admin API, an S3 endpoint, or the local stack's own door.

export interface StoredObject {
  readonly key: string;
  readonly bytes: number;
  readonly uploadedAtMs: number;
}

export interface ObjectPage {
  readonly objects: readonly StoredObject[];
  /** Of a listing by folders: prefixes, each with its slash. */
  readonly folders: readonly string[];
  /** For the page after it; null: the last one. */
  readonly next: string | null;
}

export interface ObjectSource {
  /** As a message names it. */
  readonly name: string;
  /** @param byFolders what lies behind the next slash is told by its folder alone. */
  page(prefix: string, cursor: string | null, byFolders: boolean): Promise<ObjectPage>;
  /** From that byte on, if the answer says so; null: it is gone. */
  open(
    key: string,
    offset: number,
  ): Promise<{ readonly offset: number; readonly body: AsyncIterable<Uint8Array> } | null>;
}

/** All of a prefix, in the order of keys. */
export async function* listObjects(source: ObjectSource, prefix: string): AsyncGenerator<StoredObject> {
  for await (const { objects } of pagesOf(source, prefix, false)) yield* objects;
}

/** The folders of a prefix that ends with a slash. */
export async function listFolders(source: ObjectSource, prefix: string): Promise<string[]> {
  const all: string[] = [];
  for await (const { folders } of pagesOf(source, prefix, true)) all.push(...folders);
  return all;
}

/**
 * INVARIANT: nothing comes but what was asked for. Whoever keeps the bucket is not believed: a key of another prefix could
 * be that of a file beside the copy, by which it is verified. Throws.
 */
async function* pagesOf(source: ObjectSource, prefix: string, byFolders: boolean): AsyncGenerator<ObjectPage> {
  let cursor: string | null = null;
  do {
    const page: ObjectPage = await source.page(prefix, cursor, byFolders);
    const foreign = [...page.objects.map(({ key }) => key), ...page.folders].find((key) => !key.startsWith(prefix));
    if (foreign !== undefined)
      throw new Error(`the bucket answered with a key that is not under ${prefix}: ${JSON.stringify(foreign)}`);
    if (page.next !== null && page.next === cursor)
      throw new Error(`the bucket answered with one page of ${prefix} twice`);
    yield page;
    cursor = page.next;
  } while (cursor !== null);
}

/** What a `fetch` brought of an object. An answer that begins elsewhere is of no use to who wanted the rest. */
export function openedFrom(response: Response, offset: number): { offset: number; body: AsyncIterable<Uint8Array> } {
  const [, first] = /^bytes (\d+)-/.exec(response.headers.get("content-range") ?? "") ?? [];
  const from = response.status === 206 ? Number(first ?? offset) : 0;
  return { offset: from, body: (response.body ?? []) as unknown as AsyncIterable<Uint8Array> };
}
