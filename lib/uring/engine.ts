/** Which engine runs: the ring, or threads where the kernel refuses the ring. */
import { LaminaError } from "../core/errors.js";
import { addon } from "./addon.js";
import type { Engine, EngineOptions } from "./api.js";
import { errnoText } from "./errno.js";
import { RingRefused } from "./ring.js";
import { RingEngine } from "./ring-engine.js";
import { ThreadsEngine } from "./threads-engine.js";

/**
 * Starts the engine. With kind "auto" the ring is taken where the kernel allows it; `fallbackReason` of the
 * result says why it was not. Throws LaminaError: ADDON_MISSING, POOL_REFUSED; with kind "ring" RING_REFUSED.
 */
export function openEngine(options: EngineOptions): Engine {
  const native = addon();
  if (options.kind === "threads") return new ThreadsEngine(native, options, null);
  try {
    return new RingEngine(native, options);
  } catch (error) {
    if (!(error instanceof RingRefused)) throw error;
    const what = refusal(error.errno);
    if (options.kind === "ring") throw new LaminaError("RING_REFUSED", { what }, error);
    return new ThreadsEngine(native, options, `io_uring cannot be used: ${what}`);
  }
}

const EPERM = -1;
const ENOMEM = -12;
const EINVAL = -22;
const ENOSYS = -38;

/** What the error number of io_uring_setup means to an operator. */
function refusal(errno: number): string {
  switch (errno) {
    case EPERM:
      return "it is forbidden here, by a container profile or by the sysctl kernel.io_uring_disabled";
    case ENOSYS:
      return "the kernel has no io_uring, or a container profile hides it";
    case EINVAL:
      return "the kernel is older than 6.0";
    case ENOMEM:
      return "the limit of locked memory (ulimit -l) is used up";
    default:
      return errnoText(errno);
  }
}
