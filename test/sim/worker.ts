/** A worker process of `npm run sim`: runs the chunks of seeds that it is sent. */
import { takeNativeChecksums } from "./native.js";
import { storeSubject } from "./real-store.js";
import { type Chunk, runChunk } from "./seeds.js";

await takeNativeChecksums();
const clock = { now: () => Date.now() };
process.on("message", (chunk: Chunk) => {
  void runChunk(storeSubject, chunk, clock).then((result) => process.send!(result));
});
process.on("disconnect", () => process.exit(0));
