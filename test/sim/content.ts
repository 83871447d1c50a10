/**
 * What is written: every granule carries the number of its write and of its place, and every one of its bytes
 * depends on both, so any bytes found anywhere say who wrote them for where.
 *
 * A granule of n words: [write id, register, check, write id, …, write id]. Zeros are zeros: write id 0.
 */
import { simMemory } from "./memory.js";

/** Returned by `identify` for bytes that no write of the run can have produced. */
export const ID_GARBAGE = -1;
export const ID_ZEROS = 0;

const CHECK_STEP = 0x9e3779b1 | 0;

function checkOf(id: number, register: number): number {
  return Math.imul(id ^ Math.imul(register, CHECK_STEP), 0x85ebca6b) | 1;
}

/** Fills the granule of `granuleBytes` at `offset` of the memory. */
export function fillGranule(offset: number, granuleBytes: number, id: number, register: number): void {
  const words = simMemory().words;
  const first = offset >> 2;
  const end = first + (granuleBytes >> 2);
  words[first] = id;
  words[first + 1] = register;
  words[first + 2] = checkOf(id, register);
  for (let i = first + 3; i < end; i++) words[i] = id;
}

/** A long granule's words are compared at this stride, from a start that varies with the register. */
const STRIDE = 4;
/** Granules up to this many words are compared whole. */
const WHOLE_WORDS = 32;

/**
 * Write id of the granule at `offset` as `register` must have it: ID_ZEROS, ID_GARBAGE or an id. Torn and misplaced
 * sectors always show; of single wrong words inside a long granule one in STRIDE does.
 */
export function identify(offset: number, granuleBytes: number, register: number): number {
  const words = simMemory().words;
  const first = offset >> 2;
  const end = first + (granuleBytes >> 2);
  const id = words[first]!;
  const stride = end - first > WHOLE_WORDS ? STRIDE : 1;
  const start = first + 3 + (stride === 1 ? 0 : register & (STRIDE - 1));
  let differing = 0;
  if (id === 0) {
    differing = words[first + 1]! | words[first + 2]! | words[end - 1]!;
    for (let i = start; i < end; i += stride) differing |= words[i]!;
    return differing === 0 ? ID_ZEROS : ID_GARBAGE;
  }
  differing = words[end - 1]! ^ id;
  for (let i = start; i < end; i += stride) differing |= words[i]! ^ id;
  if (differing !== 0 || words[first + 1] !== register) return ID_GARBAGE;
  return words[first + 2] === checkOf(id, register) ? id : ID_GARBAGE;
}

/** Register whose content the granule at `offset` is, whatever its place; −1 for zeros and anything else. */
export function registerAt(offset: number): number {
  const words = simMemory().words;
  const first = offset >> 2;
  const id = words[first]!;
  const register = words[first + 1]!;
  return id !== 0 && words[first + 2] === checkOf(id, register) ? register : -1;
}

/** The granule at `offset`, for a report. */
export function describeGranule(offset: number): string {
  const words = simMemory().words;
  const first = offset >> 2;
  const register = registerAt(offset);
  if (register >= 0) return `bytes of write ${words[first]} for register ${register}`;
  const shown = Array.from(words.subarray(first, first + 4), (word) => (word >>> 0).toString(16)).join(" ");
  return `bytes ${shown} …`;
}
