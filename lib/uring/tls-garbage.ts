/**
 * Room for the garbage of node:tls. Each record that passes leaves buffers behind, hundreds of megabytes a second of
 * them, whose bytes lie outside of V8's heap. V8 counts these bytes as growth of a heap that is small otherwise: at its
 * usual measure it marks the whole heap again, without a pause in between, and finds nothing that the far cheaper
 * collection of young objects would not have freed (docs/profile.md: up to two thirds of the CPU).
 */
import { setFlagsFromString } from "node:v8";

/** Growth since the last marking, in percent of what it left, after which V8 marks again. */
const HEAP_GROWING_PERCENT = 400;

let isMade = false;

/** For all threads of the process, from the next marking on. Done once, when TLS is first used. */
export function makeRoomForTlsGarbage(): void {
  if (isMade) return;
  isMade = true;
  setFlagsFromString(`--heap-growing-percent=${HEAP_GROWING_PERCENT}`);
}
