/** A server's memory before and after an attack. */
import { processMemory } from "../../interop/support/server.js";

const MIB = 1 << 20;
/** Room for what the runtime has not collected yet; an attack that is believed takes gigabytes. */
const SLACK_BYTES = 96 * MIB;

export class MemoryWatch {
  readonly #pid: number;
  readonly #before: number;

  /** `expected`: bytes that may come into use, such as the pool when data is carried. */
  constructor(pid: number, expected = 0) {
    this.#pid = pid;
    this.#before = processMemory(pid, "VmHWM") + expected;
  }

  /** MiB that the peak has grown since then; null while that is little. */
  grown(): number | null {
    const bytes = processMemory(this.#pid, "VmHWM") - this.#before;
    return bytes > SLACK_BYTES ? Math.round(bytes / MIB) : null;
  }
}
