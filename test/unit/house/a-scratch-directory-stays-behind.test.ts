import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Worker } from "node:worker_threads";
import t from "tap";
import { removeScratch, scratchDirectory } from "../../interop/support/scratch.js";

/** Puts a file into a directory again and again until the directory is away, as a Redis does that is about to end. */
const WRITER = `
  const { parentPort, workerData } = require("node:worker_threads");
  const { writeFileSync } = require("node:fs");
  parentPort.postMessage("writing");
  for (let i = 0; i < workerData.files; i++) {
    try { writeFileSync(workerData.path + "/last-words-" + (i % 7), "x"); } catch {}
  }
`;

t.test("files that appear while a directory is removed are removed with it", async (t) => {
  for (let round = 0; round < 5; round++) {
    const path = scratchDirectory();
    writeFileSync(join(path, "dump"), "x");
    const writer = new Worker(WRITER, { eval: true, workerData: { path, files: 1500 } });
    const ended = new Promise<void>((resolve, reject) =>
      writer.on("exit", () => resolve()).on("error", reject),
    );
    await new Promise((resolve) => writer.once("message", resolve));
    await removeScratch(path);
    await ended;
    t.notOk(existsSync(path));
  }
});
