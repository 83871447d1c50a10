/** Compression of what goes from one process to another. Who uses it checks the bytes before and after. */
export interface Codec {
  /** The same content in other bytes, which may be more. */
  pack(bytes: Uint8Array): Uint8Array;
  /**
   * What `pack` was given, `length` bytes of it; null: these are no packing of exactly so many. Takes no more memory than
   * for those, whatever the bytes say.
   */
  unpack(packed: Uint8Array, length: number): Uint8Array | null;
}
