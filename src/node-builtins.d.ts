// The few parts of Node's own modules that run on workerd and on Node, synchronous for Durable Objects' atomic blocks
// (an await in the middle would fork the chain). Declared here because @types/node contradicts the Workers' globals.
declare module "node:crypto" {
  interface Hash {
    update(data: string | Uint8Array): Hash;
    copy(): Hash;
    digest(): Uint8Array;
    digest(encoding: "hex" | "base64url"): string;
  }
  interface KeyObject {
    readonly type: "secret" | "public" | "private";
  }
  export function createHash(algorithm: "sha256"): Hash;
  interface Hmac {
    update(data: string): Hmac;
    digest(encoding: "base64"): string;
  }
  export function createHmac(algorithm: "sha256", key: Uint8Array): Hmac;
  export function createPrivateKey(key: { key: object; format: "jwk" }): KeyObject;
  export function createPublicKey(key: { key: object; format: "jwk" }): KeyObject;
  interface JwkInput {
    readonly key: object;
    readonly format: "jwk";
    readonly dsaEncoding: "ieee-p1363";
  }
  export function sign(algorithm: "sha256" | null, data: Uint8Array, key: JwkInput): Uint8Array;
  export function verify(algorithm: "sha256" | null, data: Uint8Array, key: JwkInput, signature: Uint8Array): boolean;
  export function randomBytes(size: number): Uint8Array;
  export function timingSafeEqual(a: Uint8Array, b: Uint8Array): boolean;
}

declare module "node:zlib" {
  export function gzipSync(data: Uint8Array): Uint8Array<ArrayBuffer>;
  export function gunzipSync(data: Uint8Array, options?: { maxOutputLength?: number }): Uint8Array<ArrayBuffer>;
}
