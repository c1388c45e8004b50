/** Encodings of RFC 4251, section 5: `uint32`, and `string` as a length followed by bytes. */
export function sshUint32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value);
  return bytes;
}

/** An RFC 4251 `string`. */
export function sshString(value: Uint8Array | string): Uint8Array {
  const bytes = Buffer.from(value);
  return Buffer.concat([sshUint32(bytes.length), bytes]);
}

/** The public key blob of an Ed25519 key (RFC 8709, section 4). */
export function sshPublicKey(publicKey: Uint8Array): Uint8Array {
  return Buffer.concat([sshString("ssh-ed25519"), sshString(publicKey)]);
}

/** Reads RFC 4251 values one after another; a RangeError means that the bytes end too early. */
export class SshReader {
  readonly #bytes: Uint8Array;
  #position = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  uint32(): number {
    const bytes = this.bytes(4);
    return new DataView(bytes.buffer).getUint32(0);
  }

  string(): Uint8Array {
    return this.bytes(this.uint32());
  }

  text(): string {
    return Buffer.from(this.string()).toString("utf8");
  }

  bytes(count: number): Uint8Array {
    const end = this.#position + count;
    if (end > this.#bytes.length) throw new RangeError("the message ends too early");
    // A copy: the buffers of a socket are used again.
    const bytes = new Uint8Array(this.#bytes.subarray(this.#position, end));
    this.#position = end;
    return bytes;
  }
}
