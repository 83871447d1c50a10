/** A worker process of the simulated cluster's command: runs its share of the seeds, and tells of them now and then. */
import { takeNativeChecksums } from "../native.js";
import { runShare, type Share, type ShareResult } from "./seeds.js";

await takeNativeChecksums();
const clock = { now: () => Date.now() };
process.on("message", (share: Share) => {
  const tell = (result: ShareResult): void => void process.send!(result);
  runShare(share, clock, tell);
  // Behind everything that was told.
  process.send!(null, undefined, undefined, () => process.disconnect());
});
