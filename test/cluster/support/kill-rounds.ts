/**
 * Rounds of: load, SIGKILL at a random moment, offline check, start again (sometimes killed while it starts),
 * read back everything that was acknowledged.
 */
import { LaminaServer, pause, type TestServer } from "../../interop/support/server.js";
import { History } from "./history.js";
import { Load, verify } from "./load.js";
import { SeededRandom } from "./random.js";
import { SECTOR_BYTES } from "./sector-codec.js";

export interface KillRoundsOptions {
  readonly server: TestServer;
  readonly volume: string;
  readonly sizeBytes: number;
  readonly rounds: number;
  readonly seed: number;
  /** Told after every round. */
  readonly onRound?: (round: number, report: KillRoundsReport) => void;
}

export interface KillRoundsReport {
  rounds: number;
  killsWhileStarting: number;
  cleanStops: number;
  acknowledgedWrites: number;
  flushes: number;
  unfinishedRequests: number;
  checkedSectors: number;
  /** What was wrong, in words; empty when nothing was. */
  problems: string[];
}

/** Milliseconds of load before the kill. */
const LOAD_MS = { least: 20, most: 350 };
/** Milliseconds after which a starting server is killed. */
const START_MS = { least: 5, most: 400 };
/** Rounds between two readings of the whole volume. */
const WHOLE_EVERY = 10;

export async function killRounds(options: KillRoundsOptions): Promise<KillRoundsReport> {
  const random = new SeededRandom(options.seed);
  const history = new History(options.sizeBytes / SECTOR_BYTES);
  const load = new Load(history, random);
  const report: KillRoundsReport = {
    rounds: 0,
    killsWhileStarting: 0,
    cleanStops: 0,
    acknowledgedWrites: 0,
    flushes: 0,
    unfinishedRequests: 0,
    checkedSectors: 0,
    problems: [],
  };
  for (let round = 1; round <= options.rounds && report.problems.length === 0; round++) {
    await oneRound(options, round, random, history, load, report);
    report.rounds = round;
    report.acknowledgedWrites = load.counts.writes + load.counts.zeroes;
    report.flushes = load.counts.flushes + load.counts.fua;
    report.unfinishedRequests = load.counts.unfinished;
    report.checkedSectors = history.checkedSectors;
    report.problems.push(...history.violations, ...load.errors);
    options.onRound?.(round, report);
  }
  return report;
}

async function oneRound(
  options: KillRoundsOptions,
  round: number,
  random: SeededRandom,
  history: History,
  load: Load,
  report: KillRoundsReport,
): Promise<void> {
  const { server, volume } = options;
  await load.start(server, volume);
  await pause(random.between(LOAD_MS.least, LOAD_MS.most));
  // Now and then it ends as it should: what is clean must be opened as well.
  const clean = random.chance(0.1);
  if (clean) {
    await load.stop();
    await server.stop();
    report.cleanStops += 1;
  } else {
    await server.kill();
    await load.cutOff();
  }
  await checkStore(server, round, report);
  if (random.chance(0.2)) {
    await killWhileStarting(server, random);
    await checkStore(server, round, report);
    report.killsWhileStarting += 1;
  }
  await server.start();
  history.settleUnfinished();
  await verify(
    server,
    volume,
    history,
    round % WHOLE_EVERY === 0 || round === options.rounds ? "all" : "touched",
  );
}

async function killWhileStarting(server: TestServer, random: SeededRandom): Promise<void> {
  const starting = server.start().catch(() => {
    // It was killed before it was ready.
  });
  await pause(random.between(START_MS.least, START_MS.most));
  await server.kill();
  await starting;
}

async function checkStore(server: TestServer, round: number, report: KillRoundsReport): Promise<void> {
  if (!(server instanceof LaminaServer)) return;
  const result = await server.fsck();
  if (result.code === 0) return;
  report.problems.push(
    `fsck after round ${round} ended with ${result.code}:\n${result.stdout}\n${result.stderr}`,
  );
}
