/**
 * The only place that loads the addon. What it offers, with types; what each function does is said beside it
 * in addon/src. Results are ≥ 0, or −errno.
 */
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { LaminaError } from "../core/errors.js";
import { errnoText } from "./errno.js";

export interface NativeMemory {
  readonly id: number;
  readonly address: number;
  readonly buffer: ArrayBuffer;
}

export interface NativeRing {
  readonly id: number;
  /** Mapping of both rings; the numbers below are byte offsets into it. */
  readonly queues: ArrayBuffer;
  /** Submission entries. */
  readonly entries: ArrayBuffer;
  /** Word 0: completions taken, for the addon. Word 1: entries into the kernel, by it. From arenaOffset: scratch for headers and gather lists. */
  readonly control: ArrayBuffer;
  readonly arenaAddress: number;
  readonly arenaOffset: number;
  readonly arenaBytes: number;
  readonly sqEntries: number;
  readonly sqHead: number;
  readonly sqTail: number;
  readonly sqFlags: number;
  readonly cqEntries: number;
  readonly cqHead: number;
  readonly cqTail: number;
  readonly cqFlags: number;
  readonly cqes: number;
  /** Descriptor of the environment's libuv loop: readable when the loop has events. */
  readonly loopFd: number;
}

/**
 * Something completed. The answer is how many entries are left to the addon, which submits them and waits for
 * the next completion, or BELL_LEAVE. `entered`: how many of those left to it the last time were taken, or
 * −errno; `leave`: 1 when the thread must go back to Node's loop.
 */
export type OnBell = (entered: number, leave: number) => number;
export const BELL_LEAVE = -1;

export interface FileFacts {
  readonly kind: "file" | "block" | "other";
  readonly size: number;
  readonly blockBytes: number;
  /** The bytes are in memory and nowhere else: tmpfs. */
  readonly inMemory: boolean;
  readonly mountId?: number;
  readonly memoryAlign?: number;
  readonly offsetAlign?: number;
  readonly sectorBytes?: number;
  readonly diskSequence?: number;
  readonly deviceMajor?: number;
  readonly deviceMinor?: number;
}

export interface SocketName {
  readonly family: "tcp" | "unix";
  readonly host: string;
  readonly path: string;
  readonly port: number;
}

export interface Mail {
  readonly text: string;
  readonly descriptors: readonly number[];
}

export interface Addon {
  readonly constants: Readonly<Record<string, number>>;

  memoryCreate(bytes: number): NativeMemory | number;
  memoryAttach(address: number, bytes: number): NativeMemory | number;
  memoryClose(id: number): number;

  ringCreate(entries: number, completions: number, flags: number, onBell: OnBell): NativeRing | number;
  ringEnter(id: number, count: number, waitMicros: number): number;
  ringHold(id: number, hold: number): number;
  ringClose(id: number): number;

  fileFacts(fd: number): FileFacts | number;
  fileLock(fd: number): number;
  fileWriteNow(memory: number, fd: number, offset: number, at: number, length: number): number;
  fileReadNow(memory: number, fd: number, offset: number, at: number, length: number): number;
  /** Where the next data (`hole` 0) or hole (1) begins; −ENXIO: no data follows. */
  fileSeek(fd: number, offset: number, hole: number): number;
  /** Begins to write dirty pages of the range back, and does not wait for it. */
  fileWriteBack(fd: number, offset: number, length: number): number;
  fileClose(fd: number): number;
  fileAllocate(
    fd: number,
    mode: number,
    offset: number,
    length: number,
    done: (result: number) => void,
  ): number;

  socketListen(host: string, port: number, backlog: number): number;
  socketOpen(host: string, port: number): number;
  socketAddress(host: string, port: number, out: Uint8Array): number;
  socketName(fd: number): SocketName | number;
  socketPeer(fd: number): SocketName | number;
  /** User id of who listens, or connected, at the other end of a unix socket. */
  socketOwner(fd: number): number;
  socketOption(fd: number, level: number, name: number, value: number): number;
  /** 1: the peer has hung up or ended its side. */
  socketGone(fd: number): number;
  socketShutdown(fd: number, how: number): number;

  datagramOpen(path: string): number;
  datagramSend(path: string, text: string, descriptors: Int32Array): number;
  datagramReceive(fd: number): Mail | number;
  /** Of a descriptor that another process made. */
  descriptorAdopt(fd: number): number;

  bellCreate(): number;
  bellRing(fd: number): number;

  checksum(memory: number, offset: number, length: number, seed: number): number;
  checksumPortable(memory: number, offset: number, length: number, seed: number): number;
  checksumBytes(bytes: Uint8Array, seed: number): number;
  checksumBlocks(
    memory: number,
    offset: number,
    count: number,
    extentSeed: number,
    firstBlock: number,
  ): number;
  checksumWindow(): ArrayBuffer;
}

const ADDON_FILE = "addon/build/Release/lamina_uring.node";
/** A build under AddressSanitizer is tried by naming it here. */
const ADDON_VARIABLE = "LAMINA_ADDON";

let loaded: Addon | null = null;

/** The addon of this thread. Throws LaminaError ADDON_MISSING when it was not built or does not load. */
export function addon(): Addon {
  loaded ??= load();
  return loaded;
}

function load(): Addon {
  const path = process.env[ADDON_VARIABLE] ?? find();
  try {
    return createRequire(import.meta.url)(path) as Addon;
  } catch (error) {
    throw new LaminaError("ADDON_MISSING", { path, what: (error as Error).message }, error);
  }
}

/** Sources run from lib/uring, the build from dist/lib/uring: the addon is beside one of the parents. */
function find(): string {
  let directory = dirname(fileURLToPath(import.meta.url));
  for (;;) {
    const path = join(directory, ADDON_FILE);
    if (existsSync(path)) return path;
    const parent = dirname(directory);
    if (parent === directory) return ADDON_FILE;
    directory = parent;
  }
}

/** The result, or an Error with the system's name of what failed. */
export function checkNative<T extends object>(what: string, result: T | number): T {
  if (typeof result === "number") throw systemError(what, result);
  return result;
}

export function checkResult(what: string, result: number): number {
  if (result < 0) throw systemError(what, result);
  return result;
}

export function systemError(what: string, errno: number): Error {
  return new Error(`${what}: ${errnoText(errno)}`);
}
