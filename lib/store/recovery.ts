/**
 * Reading a device as it was left: hot bitmap, directory, records, log. Nothing is written here; the open
 * store and the offline check begin with the same picture.
 */
import { LaminaError } from "../core/errors.js";
import type { Routine } from "../core/routine.js";
import type { Device } from "./device.js";
import { Directory, SlotState } from "./directory.js";
import {
  DIRECTORY_ENTRIES_PER_PAGE,
  HOT_BITS_PER_PAGE,
  PAGE_BYTES,
  PAGE_HEADER_WORDS,
  PageKind,
} from "./format.js";
import { visitRecords } from "./log-records.js";
import { type LogImage, readAnchor, scanLog } from "./log-scan.js";
import { PageState } from "./metadata-io.js";
import { PendingDeltas } from "./pending.js";
import { type LoadedRecords, loadRecords, RECORD_CHUNK_PAGES } from "./records.js";

export interface HotImage {
  /** One bit per slot: both copies ORed; all ones where no copy of a page is usable. */
  readonly bits: Uint32Array;
  readonly pages: {
    readonly version: number;
    readonly state: "agree" | "differ" | "lost";
    /** One copy is not valid: a bit that only it had, because the other was not written yet, is missing. */
    readonly halved: boolean;
    /** Copy B does not count, or is older: it is the one to be written first. */
    readonly staleB: boolean;
  }[];
}

export interface RecoveredState {
  readonly directory: Directory;
  /** Candidates that the log has for blocks; those of cool slots are in the tables already. */
  readonly pending: PendingDeltas;
  readonly hot: HotImage;
  /** Offset of the copy of the log anchor that has to be written again; null when both agree. */
  readonly staleAnchor: number | null;
  readonly log: LogImage;
  readonly records: LoadedRecords;
  /** Directory pages whose copies differ. */
  readonly differingPages: readonly number[];
  /** Directory pages that reflect records which are not in the log: written before it was synced. */
  readonly pagesAhead: readonly number[];
  /** Slots that hold an extent which another slot holds too. */
  readonly doubles: readonly number[];
}

/** Pages of the directory or bitmap that are read at once. */
const CHUNK_PAGES = RECORD_CHUNK_PAGES;
/** Buffer that `recover` needs: two chunks. */
export const RECOVERY_BUFFER_BYTES = 2 * CHUNK_PAGES * PAGE_BYTES;

/** The caller has synced the device. `memory`: RECOVERY_BUFFER_BYTES. Throws LaminaError DEVICE_DAMAGED. */
export function* recover(
  device: Device,
  deviceId: Uint8Array,
  path: string,
  memory: number,
): Routine<RecoveredState> {
  const { layout, io, env, words } = device;
  const damaged = (what: string): LaminaError => new LaminaError("DEVICE_DAMAGED", { path, what });
  const anchor = yield* readAnchor(io, layout, words, memory);
  if (anchor === null) throw damaged("neither copy of the log anchor is valid");
  const hot = yield* readHot(device, memory);
  const records = yield* loadRecords(device, memory);
  if (records.bad.length > 0) {
    throw damaged(`neither copy of volume record ${records.bad[0]} is valid (${records.bad.length} in all)`);
  }
  const directory = new Directory(layout);
  const positions = new Float64Array(layout.directoryPages);
  const differingPages = yield* readDirectory(device, directory, positions, memory, damaged);
  const log = yield* scanLog(env, io, layout, deviceId, anchor, memory, RECOVERY_BUFFER_BYTES);
  if (log === null) throw damaged("its log cannot be read");
  const pending = new PendingDeltas();
  if (!replay(log, directory, positions, pending)) throw damaged("a log record names what does not exist");
  const doubles = directory.finishLoading();
  const pagesAhead = [...positions.keys()].filter((page) => positions[page]! > log.start.nextSequence);
  return {
    directory,
    pending,
    hot,
    staleAnchor: anchor.stale,
    log,
    records,
    differingPages,
    pagesAhead,
    doubles,
  };
}

export function isHotIn(hot: HotImage, slot: number): boolean {
  return (hot.bits[slot >>> 5]! & (1 << (slot & 31))) !== 0;
}

function* readHot(device: Device, memory: number): Routine<HotImage> {
  const { layout, io, words } = device;
  const bits = new Uint32Array(Math.ceil(layout.slots / 32));
  const pages: HotImage["pages"] = [];
  const other = memory + PAGE_BYTES;
  for (let page = 0; page < layout.hotPages; page++) {
    const a = yield* io.readPage(layout.hotA + page * PAGE_BYTES, memory, PAGE_BYTES, PageKind.Hot, page);
    const b = yield* io.readPage(layout.hotB + page * PAGE_BYTES, other, PAGE_BYTES, PageKind.Hot, page);
    const first = (page * HOT_BITS_PER_PAGE) >>> 5;
    const last = Math.min(bits.length, first + HOT_BITS_PER_PAGE / 32);
    const take = (from: number): void => {
      const at = (from >>> 2) + PAGE_HEADER_WORDS;
      for (let word = first; word < last; word++) bits[word]! |= words[at + word - first]!;
    };
    if (a === PageState.Valid) take(memory);
    if (b === PageState.Valid) take(other);
    const usable = [a, b].filter((state) => state === PageState.Valid).length;
    if (usable === 0) bits.fill(0xffff_ffff, first, last);
    const agree = usable === 2 && io.compareAge(memory, other) === 0;
    const versions = [
      a === PageState.Valid ? io.version(memory) : 0,
      b === PageState.Valid ? io.version(other) : 0,
    ];
    const staleB = a === PageState.Valid && (b !== PageState.Valid || io.compareAge(memory, other) >= 0);
    pages.push({
      version: Math.max(...versions),
      state: usable === 0 ? "lost" : agree ? "agree" : "differ",
      halved: usable === 1,
      staleB,
    });
  }
  return { bits, pages };
}

function* readDirectory(
  device: Device,
  directory: Directory,
  positions: Float64Array,
  memory: number,
  damaged: (what: string) => LaminaError,
): Routine<number[]> {
  const { layout, io, words } = device;
  const differing: number[] = [];
  const other = memory + CHUNK_PAGES * PAGE_BYTES;
  for (let first = 0; first < layout.directoryPages; first += CHUNK_PAGES) {
    const count = Math.min(CHUNK_PAGES, layout.directoryPages - first);
    const readA = yield* io.read(layout.directoryA + first * PAGE_BYTES, memory, count * PAGE_BYTES);
    const readB = yield* io.read(layout.directoryB + first * PAGE_BYTES, other, count * PAGE_BYTES);
    for (let i = 0; i < count; i++) {
      const page = first + i;
      const a = memory + i * PAGE_BYTES;
      const b = other + i * PAGE_BYTES;
      const validA = readA >= 0 && io.inspect(a, PAGE_BYTES, PageKind.Directory, page) === PageState.Valid;
      const validB = readB >= 0 && io.inspect(b, PAGE_BYTES, PageKind.Directory, page) === PageState.Valid;
      if (!validA && !validB) throw damaged(`neither copy of slot directory page ${page} is valid`);
      const age = validA && validB ? io.compareAge(a, b) : validA ? 1 : -1;
      const from = age >= 0 ? a : b;
      if (!directory.decodePage(page, words, from >>> 2))
        throw damaged(`slot directory page ${page} makes no sense`);
      positions[page] = io.position(from);
      directory.pageVersion[page] = io.version(from);
      if (age !== 0) {
        differing.push(page);
        // Until both copies say the same, the log must be kept for the older one.
        const older = validA && validB ? io.position(age > 0 ? b : a) : io.position(from);
        directory.dirtySince[page] = older;
      }
    }
  }
  return differing;
}

/** Applies the log to the directory and collects the candidates of blocks. */
function replay(
  log: LogImage,
  directory: Directory,
  positions: Float64Array,
  pending: PendingDeltas,
): boolean {
  let sound = true;
  const pageIsOlder = (slot: number, sequence: number): boolean => {
    if (slot >= directory.slots) {
      sound = false;
      return false;
    }
    return sequence >= positions[Math.floor(slot / DIRECTORY_ENTRIES_PER_PAGE)]!;
  };
  const visitor = {
    delta(
      sequence: number,
      slot: number,
      alloc: number,
      block: number,
      count: number,
      entriesAt: number,
    ): void {
      if (slot >= directory.slots) sound = false;
      else if (directory.state[slot] === SlotState.Live && directory.alloc[slot] === alloc) {
        for (let i = 0; i < count; i++) {
          pending.add(sequence, slot, block + i, entriesAt < 0 ? 0 : log.words[entriesAt + i]!);
        }
      }
    },
    alloc(sequence: number, slot: number, identity: Parameters<Directory["replayAlloc"]>[2]): void {
      if (!pageIsOlder(slot, sequence)) return;
      pending.forget(slot);
      directory.replayAlloc(slot, sequence, identity);
    },
    free(sequence: number, slot: number, alloc: number): void {
      if (!pageIsOlder(slot, sequence) || directory.alloc[slot] !== alloc) return;
      pending.forget(slot);
      directory.replayFree(slot, sequence);
    },
    freed(sequence: number, slot: number): void {
      if (pageIsOlder(slot, sequence) && directory.state[slot] === SlotState.Freeing) {
        directory.replayFreed(slot, sequence);
      }
    },
    stamp(sequence: number, slot: number, alloc: number, generation: number): void {
      if (!pageIsOlder(slot, sequence) || directory.alloc[slot] !== alloc) return;
      directory.stamp(slot, sequence, generation);
    },
  };
  for (const { at, header } of log.frames) if (!visitRecords(log.words, at, header, visitor)) return false;
  return sound;
}
