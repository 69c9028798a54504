/** This machine, as a URL may name it: plain http is for it alone. */
export const isLoopback = ({ hostname }: URL): boolean =>
  hostname === "127.0.0.1" || hostname === "localhost" || hostname === "[::1]";
