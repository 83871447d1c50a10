/**
 * The addon's checksums for the simulator, where it is built: the same numbers as the plain ones, several times as
 * fast. Nothing else of the addon is used, and no run's outcome depends on which of the two computes.
 */
import { SIM_MEMORY_BYTES, useNativeMemory } from "./memory.js";

/** True when the addon computes from now on. Before the first run only. */
export async function takeNativeChecksums(): Promise<boolean> {
  try {
    const { addon } = await import("../../lib/uring/addon.js");
    const { SharedMemory } = await import("../../lib/uring/native-memory.js");
    const { NativeChecksums } = await import("../../lib/uring/native-checksums.js");
    const memory = new SharedMemory(addon(), { kind: "auto", poolBytes: SIM_MEMORY_BYTES });
    const bytes = memory.pool.bytes.subarray(0, SIM_MEMORY_BYTES);
    useNativeMemory(bytes, new NativeChecksums(addon(), memory.id));
    return true;
  } catch {
    return false;
  }
}
