/**
 * Bytes waiting to be sent. Grows by doubling up to what its owner puts in; the owner stops producing at a
 * bound of its own.
 */
const FIRST_BYTES = 512;

export class ByteQueue {
  #bytes: Uint8Array = new Uint8Array(FIRST_BYTES);
  #view: DataView = new DataView(this.#bytes.buffer);
  #begin = 0;
  #end = 0;

  get length(): number {
    return this.#end - this.#begin;
  }

  /** Makes room for `count` bytes and returns where to write them in `view`. They count as written. */
  extend(count: number): number {
    if (this.#end + count > this.#bytes.length) this.#makeRoom(count);
    const at = this.#end;
    this.#end += count;
    return at;
  }

  get view(): DataView {
    return this.#view;
  }

  put(bytes: Uint8Array): void {
    const at = this.extend(bytes.length);
    this.#bytes.set(bytes, at);
  }

  /** Adds `count` zero bytes. */
  putZeroes(count: number): void {
    const at = this.extend(count);
    this.#bytes.fill(0, at, at + count);
  }

  /** Moves up to `room` bytes to `target` at `at`; returns how many. */
  moveTo(target: Uint8Array, at: number, room: number): number {
    const count = Math.min(room, this.length);
    target.set(this.#bytes.subarray(this.#begin, this.#begin + count), at);
    this.#begin += count;
    if (this.#begin === this.#end) {
      this.#begin = 0;
      this.#end = 0;
    }
    return count;
  }

  clear(): void {
    this.#begin = 0;
    this.#end = 0;
  }

  #makeRoom(count: number): void {
    const length = this.length;
    let capacity = this.#bytes.length;
    while (capacity < length + count) capacity *= 2;
    const grown = new Uint8Array(capacity);
    grown.set(this.#bytes.subarray(this.#begin, this.#end));
    this.#bytes = grown;
    this.#view = new DataView(grown.buffer);
    this.#begin = 0;
    this.#end = length;
  }
}
