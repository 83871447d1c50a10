/**
 * The I/O engine's face. Two engines implement it: `ring` (io_uring through the addon) and `threads`
 * (the thread pool and node:net), chosen at start.
 */
import type { Checksums } from "../core/checksum.js";
import type { Clock, Random, Ticker } from "../core/clock.js";
import type { Disk } from "../core/disk.js";
import type { Pool } from "../core/pool.js";
import type { ByteStream } from "../core/stream.js";

export type EngineKind = "ring" | "threads";

export interface EngineOptions {
  /** "auto" takes the ring where the kernel allows it, and says in `fallbackReason` why not. */
  readonly kind: EngineKind | "auto";
  /** Rounded up to whole pieces of 1 MiB. */
  readonly poolBytes: number;
  /** This thread allocates only from the first so many bytes; the rest is shared out. By default all. */
  readonly poolOwnBytes?: number;
  /** Instead of fresh memory, maps that of another thread's engine: its `poolShare`, with this part of it. */
  readonly poolShare?: PoolShare;
  /**
   * Longest time that the ring engine looks for completions before it sleeps; learned, from 0 while waits are
   * long. 0: it always sleeps at once. By default 64 where there is more than one CPU. Up to sixteen times as long
   * while devices have nothing but short reads to do.
   */
  readonly spinMicros?: number;
  /**
   * How long the peer of a TCP stream may say nothing before the stream is dead: TCP_USER_TIMEOUT for bytes that
   * stay unacknowledged, and keep-alive probes of an idle connection within the same time. By default the
   * system's (tcp_keepalive_time: two hours).
   */
  readonly tcpUserTimeoutMs?: number;
}

/** What another thread has put down for this one; the engine looks into it in each batch. */
export interface Mailbox {
  /** Something has come and was not taken. */
  readonly ready: boolean;
  /** Delivers what has come. */
  take(): void;
  /**
   * True: from now on this thread must be rung for what comes. Asked for before each sleep; what came before is
   * found by `ready` afterwards. False: it is awake and looks by itself.
   */
  setAsleep(asleep: boolean): void;
}

/** What the engines of a program of several threads do for one another. */
export interface ThreadLinks {
  /** Descriptor by which any thread of the process wakes this one. */
  readonly bell: number;
  addMailbox(mailbox: Mailbox): void;
  /** Wakes the thread whose bell it is. */
  ring(bell: number): void;
  /** As `Engine.listen`, but gives connected descriptors, to be adopted by any thread's engine. */
  listen(address: ListenAddress, onDescriptor: (fd: number) => void): Promise<Listener>;
  /** A stream of this engine over a connected descriptor, which is the stream's from now on. */
  adopt(fd: number): ByteStream;
  /** Closes a descriptor that nobody adopts. */
  discard(fd: number): void;
  /** The numbers of `Engine.stats`, in that order, to `out[at …]`, allocating nothing. */
  writeStats(out: Float64Array, at: number): void;
}

/** Names a pool to another thread of the process; plain numbers, so that it can be posted. */
export interface PoolShare {
  /** Where it lies. The giver's engine must be open until the receiver's has been opened. */
  readonly address: number;
  readonly poolBytes: number;
  /** Part that the receiver may allocate from, in whole pieces. The giver keeps away by its `poolOwnBytes`. */
  readonly from: number;
  readonly to: number;
}

export interface Engine extends Ticker {
  readonly kind: EngineKind;
  /** Why the ring was not taken, in one sentence; null when it was, or was not wanted. */
  readonly fallbackReason: string | null;
  readonly pool: Pool;
  /** For `EngineOptions.poolShare` of another thread. */
  poolShare(from: number, to: number): PoolShare;
  readonly clock: Clock;
  readonly random: Random;
  readonly checksums: Checksums;
  /**
   * Opens a file or block device for direct I/O, holding an exclusive flock on the very descriptor that does
   * the I/O. Waits for the requests of a killed holder to end (`onWait` is told once, with the holder when it
   * is known). Throws LaminaError: DEVICE_BUSY when a live process holds it.
   */
  openDisk(options: OpenDiskOptions): Promise<OpenedDisk>;
  listen(address: ListenAddress, onStream: (stream: ByteStream) => void): Promise<Listener>;
  connect(address: ListenAddress): Promise<ByteStream>;
  /** Null: this engine serves on one thread only. */
  readonly threads: ThreadLinks | null;
  /** Counters for metrics; plain numbers, read at scrape time. */
  stats(): EngineStats;
  /** All disks, listeners and streams must be closed before. */
  close(): Promise<void>;
}

export interface OpenDiskOptions {
  readonly path: string;
  /** For a file: create it with this length (sparse) when it does not exist. */
  readonly createBytes?: number;
  readonly readOnly?: boolean;
  readonly onWait?: (reason: string) => void;
}

export interface OpenedDisk {
  readonly disk: Disk;
  readonly created: boolean;
  readonly kind: "file" | "block";
  /** O_DIRECT was refused: said loudly by the caller. */
  readonly direct: boolean;
  /** Part of the boot id: BLKGETDISKSEQ of a block device, life of the file system of a file. */
  readonly instanceTag: string;
  /** Reserves space (fallocate) so that later writes to the range cannot run out of it. File only. */
  reserve(offset: number, length: number): Promise<void>;
}

export type ListenAddress =
  | { readonly kind: "tcp"; readonly host: string; readonly port: number }
  /** `onlyOwn`: nothing is said to whoever listens there unless it is this user or root. Anybody can take an abstract name. */
  | { readonly kind: "unix"; readonly path: string; readonly onlyOwn?: boolean }
  /**
   * A socket that another process made: the service manager, or the server before this one. `unlink`: when it is
   * closed for good, the path of a unix socket is ours to remove.
   */
  | { readonly kind: "fd"; readonly fd: number; readonly unlink?: boolean };

export interface Listener {
  /** The real address: port 0 shows the port that was given. */
  readonly address: ListenAddress;
  /** The socket, while the listener is open: for another process that is to go on with it. */
  readonly fd: number;
  close(): Promise<void>;
  /** Accepts no more and lets go of the socket, which lives on, with its path, where someone else has it too. */
  leave(): Promise<void>;
}

export interface EngineStats {
  readonly enters: number;
  readonly submissions: number;
  readonly completions: number;
  readonly wakeups: number;
  readonly bytesReceived: number;
  readonly bytesSent: number;
}
