/**
 * Reading and writing of metadata pages: sealing, opening, batches of writes, repetition of failed ones.
 *
 * Invariants
 *  1. A page is believed only if its checksum, kind and index are right: a torn, rotten, misdirected or
 *     foreign page is never taken for what should be there.
 *  2. A failed metadata write is repeated, then it is the device's failure: nothing continues without it.
 */
import type { Routine, Start } from "../core/routine.js";
import { diskRead } from "../core/routine.js";
import type { StoreEnvironment } from "./api.js";
import { DeviceFailure, poolWords } from "./device.js";
import { getU64, PAGE_HEADER_WORDS, type PageKind, putU64 } from "./format.js";

/** Header fields of a sealed page. */
export interface PageHeader {
  readonly kind: PageKind;
  /** Which page of its kind: catches misdirected reads and writes. */
  readonly index: number;
  readonly incarnation: number;
  /** Rises with every write of the page in one incarnation. */
  readonly version: number;
  /** First log sequence that the page does not reflect, where that means something. */
  readonly position: number;
}

const WORD_CRC = 0;
const WORD_KIND = 1;
const WORD_INDEX = 2;
const WORD_INCARNATION = 3;
const WORD_VERSION = 4;
const WORD_POSITION = 6;

/** What a page turned out to be. */
export const PageState = { Valid: 0, Blank: 1, Bad: 2, Unreadable: 3 } as const;
export type PageState = (typeof PageState)[keyof typeof PageState];

/** One write of a batch: (offset on the device, memory, length). */
export interface PageWrite {
  readonly offset: number;
  readonly memory: number;
  readonly length: number;
}

export class MetadataIo {
  readonly #env: StoreEnvironment;
  readonly #seed: number;
  readonly #retries: number;
  readonly #words: Uint32Array;

  constructor(env: StoreEnvironment, seed: number, retries: number) {
    this.#env = env;
    this.#seed = seed;
    this.#retries = retries;
    this.#words = poolWords(env);
  }

  /** Fills in the header of the page at `memory` and its checksum over `length` bytes. */
  seal(memory: number, length: number, header: PageHeader): void {
    const at = memory >>> 2;
    this.#words[at + WORD_KIND] = header.kind;
    this.#words[at + WORD_INDEX] = header.index;
    this.#words[at + WORD_INCARNATION] = header.incarnation;
    putU64(this.#words, at + WORD_VERSION, header.version);
    putU64(this.#words, at + WORD_POSITION, header.position);
    this.#words[at + WORD_CRC] = this.#env.checksums.crc32c(memory + 4, length - 4, this.#seed);
  }

  /**
   * Whether the page at `memory` is what `kind` and `index` say. One whose header is zeros is blank: never
   * written, or not yet to the end.
   */
  inspect(memory: number, length: number, kind: PageKind, index: number): PageState {
    const at = memory >>> 2;
    const words = this.#words;
    if (words[at + WORD_KIND] === kind && words[at + WORD_INDEX] === index) {
      const crc = this.#env.checksums.crc32c(memory + 4, length - 4, this.#seed);
      if (words[at + WORD_CRC] === crc) return PageState.Valid;
    }
    return isZero(words, at, PAGE_HEADER_WORDS) ? PageState.Blank : PageState.Bad;
  }

  version(memory: number): number {
    return getU64(this.#words, (memory >>> 2) + WORD_VERSION);
  }

  /** Which of two valid copies is newer: negative when the second one is, 0 when they are one write. */
  compareAge(first: number, second: number): number {
    const incarnations =
      this.#words[(first >>> 2) + WORD_INCARNATION]! - this.#words[(second >>> 2) + WORD_INCARNATION]!;
    return incarnations !== 0 ? incarnations : this.version(first) - this.version(second);
  }

  position(memory: number): number {
    return getU64(this.#words, (memory >>> 2) + WORD_POSITION);
  }

  /** Reads with one repetition: bytes read, or −errno. */
  *read(offset: number, memory: number, length: number): Routine<number> {
    const result = yield* diskRead(this.#env.disk, offset, memory, length);
    return result < 0 ? yield* diskRead(this.#env.disk, offset, memory, length) : result;
  }

  /** Reads a page and inspects it. */
  *readPage(
    offset: number,
    memory: number,
    length: number,
    kind: PageKind,
    index: number,
  ): Routine<PageState> {
    const result = yield* this.read(offset, memory, length);
    return result < 0 ? PageState.Unreadable : this.inspect(memory, length, kind, index);
  }

  /** Writes all of them side by side, repeating what fails. Throws DeviceFailure when one cannot be written. */
  *writeAll(writes: readonly PageWrite[]): Routine<void> {
    let open = writes;
    for (let attempt = 0; open.length > 0; attempt++) {
      const failed: PageWrite[] = [];
      const result = yield startWrites(this.#env, open, failed);
      if (failed.length > 0 && attempt >= this.#retries) {
        throw new DeviceFailure(`metadata could not be written (errno ${-result})`);
      }
      open = failed;
    }
  }

  *write(offset: number, memory: number, length: number): Routine<void> {
    yield* this.writeAll([{ offset, memory, length }]);
  }
}

function startWrites(env: StoreEnvironment, writes: readonly PageWrite[], failed: PageWrite[]): Start {
  return (resume) => {
    let open = writes.length;
    let worst = 0;
    const listener = {
      diskDone(tag: number, result: number): void {
        if (result < 0) {
          failed.push(writes[tag]!);
          worst = result;
        }
        open--;
        if (open === 0) resume(worst);
      },
    };
    for (let i = 0; i < writes.length; i++) {
      const write = writes[i]!;
      env.disk.write(write.offset, write.memory, write.length, listener, i);
    }
  };
}

/** Whether `count` words from `at` are all zero. */
export function isZero(words: Uint32Array, at: number, count: number): boolean {
  const end = at + count;
  for (let i = at; i < end; i++) if (words[i] !== 0) return false;
  return true;
}
