/** What tests in workerd use of the modules of Node that it has. */

declare module "node:zlib" {
  export function zstdCompressSync(bytes: Uint8Array): Uint8Array;
}
