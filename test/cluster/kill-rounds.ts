/**
 * Thousands of rounds by hand: scripts/kill-rounds [--rounds N] [--seed S] [--size-mib N]
 * Ends with 1 as soon as something is wrong, and leaves the data directory behind for inspection.
 */
import { parseArgs } from "node:util";
import { scratchDirectory } from "../interop/support/scratch.js";
import { startServer } from "../interop/support/server.js";
import { type KillRoundsReport, killRounds } from "./support/kill-rounds.js";

const MIB = 1 << 20;
const VOLUME = "v";

function progress(round: number, report: KillRoundsReport): void {
  if (round % 10 !== 0 && report.problems.length === 0) return;
  console.log(
    `${round} rounds, ${report.acknowledgedWrites} writes, ${report.unfinishedRequests} cut off, ` +
      `${report.killsWhileStarting} kills while starting, ${report.checkedSectors} sectors read back`,
  );
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      rounds: { type: "string", default: "1000" },
      seed: { type: "string", default: String(Date.now() % 2 ** 31) },
      "size-mib": { type: "string", default: "64" },
      data: { type: "string" },
    },
  });
  const seed = Number(values.seed);
  const data = values.data ?? scratchDirectory();
  const size = Number(values["size-mib"]);
  console.log(`seed ${seed}, data ${data}`);
  const server = await startServer({ data, capacity: "2G" });
  try {
    await server.createVolume(VOLUME, `${size}M`);
    const report = await killRounds({
      server,
      volume: VOLUME,
      sizeBytes: size * MIB,
      rounds: Number(values.rounds),
      seed,
      onRound: progress,
    });
    for (const problem of report.problems) console.log(problem);
    if (report.problems.length > 0) return 1;
    await server.stop();
    return 0;
  } finally {
    await server.kill();
  }
}

process.exitCode = await main();
