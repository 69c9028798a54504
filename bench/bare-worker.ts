/** The yardstick: the least a Worker in this place can do. One streamed fetch to the same upstream, nothing else. */
export default {
  fetch(request: Request, env: { readonly UPSTREAM: string }): Promise<Response> {
    const { pathname, search } = new URL(request.url);
    return fetch(env.UPSTREAM + pathname + search, {
      method: request.method,
      headers: request.headers,
      body: request.body,
    });
  },
};
