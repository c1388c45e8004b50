/**
 * What `native.ts` uses of the modules of Node that workerd has. The types of Node itself would bring everything else that an object must not
 * use.
 */

declare module "node:zlib" {
  export function zstdDecompressSync(
    packed: Uint8Array,
    options: { maxOutputLength: number; chunkSize: number },
  ): Uint8Array;
}

declare module "node:crypto" {
  export type Hash = { update(bytes: Uint8Array): Hash; copy(): Hash; digest(encoding: "hex"): string };
  export function createHash(algorithm: "sha256"): Hash;
}
