/**
 * One device as the store sees it: a raw block device or one file. Implemented by lib/uring (ring and
 * thread-pool engines) and by the simulator's disk. Memory is named by its offset in the one Pool.
 *
 * Completions arrive as `listener.diskDone(tag, result)` from the engine's batch, never from inside the
 * call that asked. Results: bytes moved (always the whole length) or a negative errno; an implementation
 * repeats short reads and writes itself. There is no order between requests in flight.
 */
export interface Disk {
  /** Bytes of the device. A file is as long as its format made it. */
  readonly sizeBytes: number;
  /** Offsets, lengths and memory of `read` and `write` are multiples of this; it divides 4096. */
  readonly alignBytes: number;
  /** Grain of `zero` in bytes: what the file system or device really gives back. A multiple of 4096. */
  readonly zeroGrainBytes: number;

  read(offset: number, memory: number, length: number, listener: DiskListener, tag: number): void;
  /** Goes past the page cache; volatile until a `sync` that was asked for after its completion. */
  write(offset: number, memory: number, length: number, listener: DiskListener, tag: number): void;
  /** Afterwards the bytes read as zeros and their space is given back. Volatile like a write. */
  zero(offset: number, length: number, listener: DiskListener, tag: number): void;
  /** fdatasync: covers every write, zero and append that was complete when it was asked for. */
  sync(listener: DiskListener, tag: number): void;
  /**
   * Appends to the log: one plain write through the page cache, done on return (1–2 µs). Survives the death
   * of the process, not of the machine. Any offset, any length, any memory. Returns bytes or −errno.
   */
  appendNow(offset: number, memory: number, length: number): number;
  /**
   * Hint: what was appended will be synced soon. A disk may begin to bring it to the device once the requests of
   * this batch are with the device; it promises nothing.
   */
  appendedSyncsSoon?(): void;
  /** Requests in flight complete first; then the descriptor, and with it the directory lock, is gone. */
  close(): void;
}

export interface DiskListener {
  diskDone(tag: number, result: number): void;
}

/** Error numbers of a Disk that the store tells apart; every other one is a failed request. */
export const DiskErrno = {
  EIO: -5,
  EAGAIN: -11,
  ENOMEM: -12,
  EINVAL: -22,
  ENOSPC: -28,
  EDQUOT: -122,
} as const;
