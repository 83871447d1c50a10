/**
 * What a run is, drawn from its seed: sizes, tunables, the mix of operations, and which of them and which faults
 * are switched on at all (swarm testing: leaving things out lets the others go further).
 */
import { BLOCK_BYTES, KIB, MIB } from "../../lib/core/limits.js";
import type { StoreTunables } from "../../lib/store/options.js";
import { Prng } from "./prng.js";

/** Everything that a run may leave out. Names are what `--without` takes. */
export const FEATURES = [
  // operations
  "flush",
  "fua",
  "zero",
  "free",
  "no-hole",
  "map",
  "zero-payload",
  "drop",
  "records",
  "scrub",
  "grow",
  // ends of a life
  "kill",
  "power",
  "clean",
  "old-format",
  "kill-while-opening",
  // faults
  "read-eio",
  "write-eio",
  "sync-eio",
  "misdirected-read",
  "misdirected-write",
  "misdirected-part",
  "rot",
  "full",
  "slow",
  "pause",
  "disconnect",
  "rot-metadata",
  "rot-zeros",
  "rot-log",
  "redis",
] as const;
export type Feature = (typeof FEATURES)[number];

export type FrontKind = "store" | "volume" | "nbd";

/**
 * Scenes that few runs would reach by chance: sizes and faults that make them likely.
 *
 * - `tables`: entry tables of several sectors, written all the time.
 * - `reuse`: slots go from extent to extent, and what they hold is written out at once.
 * - `full-rot`: blocks rot while the file system is full.
 * - `rot-zeros`: bits of blocks that nobody has written rot.
 * - `redis`: Redis loses and gets back things while volumes come and go.
 * - `frames`: frames of the log are all of one length, so that what a crash lost leaves a gap that others fit.
 * - `strays`: reads bring other blocks' bytes while a power loss is got over.
 * - `rot-copy`: one copy of metadata rots while slots cool and are written to again.
 * - `stalls`: the device stands still for longer than a new connection waits for the work of one that is dead.
 */
export const FOCI = [
  "tables",
  "reuse",
  "full-rot",
  "rot-copy",
  "rot-zeros",
  "redis",
  "frames",
  "strays",
  "stalls",
] as const;
/** Those that came later are behind these and drawn apart, so that the draw of these has not changed. */
const FOCI_DRAWN = 8;
export type Focus = (typeof FOCI)[number];

export interface RunOptions {
  readonly seed: number;
  /** Drawn when not given; one run in ten has one. */
  readonly focus?: Focus;
  /** Draws nothing of what was added later, so that a run which was kept goes on reaching its scene. */
  readonly plain?: boolean;
  /** Operations of the whole run; drawn when not given. */
  readonly operations?: number;
  /** Lives of the program; drawn when not given. */
  readonly lives?: number;
  readonly without?: readonly Feature[];
  readonly front?: FrontKind;
  /** Crash replay: one life, ended at this event; then the last one. */
  readonly crash?: CrashPoint;
}

export interface CrashPoint {
  /** Event of the life after which it ends; Infinity for the run that counts them. */
  readonly event: number;
  readonly kind: "kill" | "power";
  /** Which of the states that the crash can leave. */
  readonly variant: number;
  /** Events of a second life that ends by a crash too; 0 for none. */
  readonly again: number;
}

export interface RunConfig {
  readonly seed: number;
  readonly front: FrontKind;
  readonly features: ReadonlySet<Feature>;
  readonly crash: CrashPoint | null;
  readonly focus: Focus | null;
  /** What a crash has left is checked offline in this share of lives. */
  readonly checkShare: number;
  readonly operations: number;
  readonly lives: number;
  readonly volumes: number;
  readonly extentsPerVolume: number;
  readonly extentBlocks: number;
  readonly granuleBytes: number;
  readonly clients: number;
  readonly capacityBytes: number;
  readonly logBytes: number;
  readonly alignBytes: number;
  readonly zeroGrainBytes: number;
  readonly latencyUs: number;
  /** Pause of a client between its operations, at most. */
  readonly thinkUs: number;
  /** Share of operations that go to a few extents, for overwrites. */
  readonly hotShare: number;
  /** Longest operation in blocks. */
  readonly blocksMax: number;
  readonly writeShare: number;
  readonly flushShare: number;
  readonly fuaShare: number;
  readonly zeroShare: number;
  readonly freeShare: number;
  readonly mapShare: number;
  readonly onFull: "wait" | "enospc";
  readonly stripeCount: number;
  readonly stripeUnitBlocks: number;
  readonly tunables: Partial<StoreTunables>;
}

/** Off more often than not: each narrows what can be checked, or slows the rest down. */
const RARE: Partial<Record<Feature, number>> = {
  "misdirected-write": 0.15,
  "misdirected-read": 0.25,
  "misdirected-part": 0.15,
  "old-format": 0.15,
  "sync-eio": 0.2,
  "write-eio": 0.3,
  "read-eio": 0.3,
  rot: 0.2,
  "rot-metadata": 0.1,
  "rot-zeros": 0.05,
  "rot-log": 0.1,
  redis: 0.25,
  full: 0.2,
  slow: 0.3,
  pause: 0.3,
  scrub: 0.4,
};
const USUAL = 0.7;
/** Features that came later: drawn apart, so that the draw of the others has not changed. */
const LATER: ReadonlySet<Feature> = new Set([
  "rot-zeros",
  "rot-log",
  "redis",
  "misdirected-part",
  "old-format",
]);
/** What ends in a power loss, or in what is opened again like one. */
const POWER_LOSSES: readonly Feature[] = ["power", "sync-eio", "write-eio"];
/** Granules of the longest operation, about: each is a register of the checker. */
const GRANULES_MAX = 512;
/** Slots of the smallest device. */
const SLOTS_LEAST = 5;

/** What a focus puts in the place of what was drawn. */
interface Emphasis {
  readonly on: readonly Feature[];
  readonly off?: readonly Feature[];
  readonly sizes: {
    readonly volumes: number;
    readonly extentsPerVolume: number;
    readonly extentBlocks: number;
  };
  readonly mix: Partial<RunConfig>;
  readonly tunables: Partial<StoreTunables>;
}

const EMPHASIS: Readonly<Record<Focus, Emphasis>> = {
  tables: {
    on: ["power"],
    sizes: { volumes: 1, extentsPerVolume: 3, extentBlocks: 256 },
    mix: { logBytes: 16 * KIB, thinkUs: 0, writeShare: 0.9, freeShare: 0 },
    tunables: { checkpointAbove: 0.05, checkpointBelow: 0.02, syncIntervalMs: 1000 },
  },
  reuse: {
    on: ["power", "free"],
    off: ["kill", "clean", "kill-while-opening"],
    sizes: { volumes: 2, extentsPerVolume: 4, extentBlocks: 16 },
    mix: { thinkUs: 0, freeShare: 0.35, writeShare: 0.9, flushShare: 0.02, blocksMax: 2, checkShare: 1 },
    tunables: { checkpointAbove: 0.02, checkpointBelow: 0, syncIntervalMs: 1000, coolAfterMs: 1 },
  },
  "full-rot": {
    on: ["full", "rot"],
    off: ["misdirected-write", "write-eio", "sync-eio", "misdirected-read"],
    sizes: { volumes: 1, extentsPerVolume: 4, extentBlocks: 16 },
    mix: { onFull: "enospc", writeShare: 0.7, zeroShare: 0.1, blocksMax: 4, hotShare: 0 },
    tunables: {},
  },
  "rot-copy": {
    on: ["rot-metadata", "kill"],
    off: ["clean", "kill-while-opening", "full"],
    sizes: { volumes: 2, extentsPerVolume: 6, extentBlocks: 16 },
    mix: { thinkUs: 500, hotShare: 0, freeShare: 0.005 },
    tunables: { coolAfterMs: 1, hotSlotsMax: 1, syncIntervalMs: 1 },
  },
  "rot-zeros": {
    on: ["rot-zeros", "kill"],
    sizes: { volumes: 2, extentsPerVolume: 6, extentBlocks: 16 },
    mix: { writeShare: 0.3, zeroShare: 0.02, blocksMax: 4 },
    tunables: {},
  },
  redis: {
    on: ["redis", "drop", "grow", "clean"],
    sizes: { volumes: 3, extentsPerVolume: 6, extentBlocks: 16 },
    mix: { freeShare: 0.15, thinkUs: 20_000, blocksMax: 2 },
    tunables: {},
  },
  strays: {
    on: ["misdirected-read", "misdirected-part", "power"],
    off: ["rot", "rot-zeros", "rot-metadata", "misdirected-write", "write-eio", "sync-eio"],
    sizes: { volumes: 2, extentsPerVolume: 4, extentBlocks: 16 },
    mix: { thinkUs: 0, flushShare: 0.02, writeShare: 0.7, checkShare: 1 },
    tunables: { syncIntervalMs: 1000, coolAfterMs: 50 },
  },
  stalls: {
    on: ["slow", "disconnect", "zero", "free"],
    off: ["full", "rot", "rot-zeros", "rot-metadata", "read-eio", "write-eio", "sync-eio", "pause", "redis"],
    sizes: { volumes: 1, extentsPerVolume: 6, extentBlocks: 16 },
    mix: {
      thinkUs: 0,
      zeroShare: 0.2,
      freeShare: 0.3,
      writeShare: 0.8,
      blocksMax: 64,
      hotShare: 0,
      latencyUs: 5000,
      clients: 16,
    },
    tunables: {},
  },
  frames: {
    on: ["power", "kill"],
    off: ["clean", "full", "zero", "free", "no-hole", "zero-payload", "drop", "kill-while-opening", "scrub"],
    sizes: { volumes: 1, extentsPerVolume: 2, extentBlocks: 16 },
    mix: { clients: 1, blocksMax: 1, writeShare: 0.9, flushShare: 0.005, thinkUs: 10, logBytes: 128 * KIB },
    tunables: {
      syncIntervalMs: 1000,
      checkpointAbove: 0.8,
      coolAfterMs: 5000,
      hotSlotsMax: 64,
      preHotSlots: 8,
    },
  },
};
const FOCUS_SHARE = 0.1;
const STALLS_SHARE = 0.02;
const CHECK_SHARE = 0.2;

function focusOf(options: RunOptions): Focus | null {
  if (options.focus !== undefined) return options.focus;
  if (options.plain === true || options.crash !== undefined) return null;
  const random = new Prng(options.seed >>> 0, Math.floor(options.seed / 2 ** 32), 0x666f6375);
  const later = new Prng(options.seed >>> 0, Math.floor(options.seed / 2 ** 32), 0x7374616c);
  if (later.chance(STALLS_SHARE)) return "stalls";
  return random.chance(FOCUS_SHARE) ? random.pick(FOCI.slice(0, FOCI_DRAWN)) : null;
}

export function configOf(options: RunOptions): RunConfig {
  const focus = focusOf(options);
  const emphasis = focus === null ? null : EMPHASIS[focus];
  const random = Prng.ofSeed(options.seed).fork("config");
  const features = new Set<Feature>();
  const later = Prng.ofSeed(options.seed).fork("later");
  for (const feature of FEATURES) {
    if (options.plain === true && LATER.has(feature)) continue;
    const source = LATER.has(feature) ? later : random;
    const drawn = source.fork(feature).chance(RARE[feature] ?? USUAL);
    const on =
      (drawn || emphasis?.on.includes(feature) === true) && emphasis?.off?.includes(feature) !== true;
    if (on && options.without?.includes(feature) !== true) features.add(feature);
  }
  // With a copy that rots, a power loss while the other one is written would be a second fault; and a device that
  // has failed is opened again as after a power loss.
  // And an upgrade mends a bad copy with the other, as after a torn write.
  if (features.has("rot-metadata"))
    for (const feature of [...POWER_LOSSES, "old-format"] as const) features.delete(feature);
  // What an absent block holds is nobody's, until it is adopted: after a power loss, or by a write on a full device.
  if (features.has("rot-zeros"))
    for (const feature of [...POWER_LOSSES, "full"] as const) features.delete(feature);
  const drawnFront = random.pick(["store", "store", "store", "volume", "volume", "nbd"] as const);
  const front = options.front ?? drawnFront;
  const drawnVolumes = random.between(1, 3);
  const volumes = emphasis?.sizes.volumes ?? drawnVolumes;
  // Mostly tiny; with 128 blocks an entry table is longer than a sector and can be torn.
  const drawnBlocks = random.chance(0.85) ? 16 : random.pick([32, 128]);
  const extentBlocks = emphasis?.sizes.extentBlocks ?? drawnBlocks;
  const drawnExtents = Math.min(random.between(2, 12), extentBlocks === 128 ? 4 : 12);
  const extentsPerVolume = emphasis?.sizes.extentsPerVolume ?? drawnExtents;
  const extents = volumes * extentsPerVolume;
  // Sometimes fewer slots than extents: the device can be full.
  const slots =
    features.has("full") && random.chance(0.5)
      ? Math.max(SLOTS_LEAST, Math.ceil(extents * 0.7))
      : extents + random.between(2, 12);
  const perSlot = extentBlocks * BLOCK_BYTES + 2 * 4 * KIB + 128;
  const logBytes = random.pick([16, 16, 24, 32, 64, 128]) * KIB;
  const records = 16;
  const capacityOf = (count: number): number =>
    Math.ceil((metadata + count * perSlot + extentBlocks * BLOCK_BYTES) / MIB) * MIB;
  const metadata = 128 * KIB + 2 * records * BLOCK_BYTES + 8 * BLOCK_BYTES + logBytes;
  const config: RunConfig = {
    seed: options.seed,
    front,
    features,
    crash: options.crash ?? null,
    focus,
    checkShare: options.plain === true ? 0 : CHECK_SHARE,
    operations: given(options.operations, random.pick([60, 200, 600, 600, 2000, 5000])),
    lives: given(options.lives, random.pick([1, 2, 4, 8, 20])),
    volumes,
    extentsPerVolume,
    extentBlocks,
    granuleBytes: front === "store" ? 512 : random.pick([512, 512, 512, 128, 32]),
    clients: random.pick([1, 2, 4, 8, 16, 32]),
    capacityBytes: capacityOf(slots),
    logBytes,
    alignBytes: random.pick([512, 4096]),
    zeroGrainBytes: random.pick([4096, 4096, 16384, 65536]),
    latencyUs: random.pick([20, 100, 400]),
    thinkUs: random.pick([0, 10, 500, 20_000]),
    hotShare: random.pick([0, 0.5, 0.9]),
    blocksMax: random.pick([1, 2, 4, 16]),
    writeShare: random.pick([0.3, 0.5, 0.7, 0.9]),
    flushShare: random.pick([0.005, 0.02, 0.1, 0.25]),
    fuaShare: random.pick([0, 0.05, 0.3]),
    zeroShare: random.pick([0.02, 0.1, 0.3]),
    freeShare: random.pick([0.005, 0.03, 0.15]),
    mapShare: 0.03,
    onFull: random.chance(0.5) ? "wait" : "enospc",
    stripeCount: random.pick([1, 1, 2, 3]),
    stripeUnitBlocks: random.pick([1, 4, 16]),
    ...emphasis?.mix,
    tunables: { ...tunablesOf(random.fork("tunables")), ...emphasis?.tunables },
  };
  const blocksMax = Math.min(config.blocksMax, (GRANULES_MAX * config.granuleBytes) / BLOCK_BYTES);
  // A volume's trim waits behind a write that waits for space: nobody could ever free what that needs.
  const stuck = front !== "store" && config.onFull === "wait";
  const slotsForAll = capacityOf(extents + SLOTS_LEAST);
  return { ...config, blocksMax, capacityBytes: stuck ? slotsForAll : config.capacityBytes };
}

/** Draws even where the value is given, so that the rest of the configuration stays the same. */
function given(value: number | undefined, drawn: number): number {
  return value ?? drawn;
}

function tunablesOf(random: Prng): Partial<StoreTunables> {
  return {
    cacheBytes: random.pick([1, 2, 4, 64]) * 8 * KIB,
    preHotSlots: random.pick([1, 2, 8]),
    hotSlotsMax: random.pick([1, 2, 4, 64]),
    coolAfterMs: random.pick([1, 5, 50, 5000]),
    syncIntervalMs: random.pick([1, 3, 20, 1000]),
    checkpointAbove: random.pick([0.2, 0.5, 0.8]),
    checkpointBelow: random.pick([0.05, 0.2]),
    checkpointBatch: random.pick([1, 2, 8, 64]),
    reserveShare: random.pick([0, 0.05]),
    freeingBatch: random.pick([1, 4, 64]),
    punchBytesMin: random.pick([1, 4, 16]) * BLOCK_BYTES,
    spaceRetryMs: random.pick([1, 20]),
    heatAheadExtents: random.pick([0, 1, 8]),
  };
}

/** Probability per request of each fault of the device, where the feature is on. */
export const FAULT_RATE: Partial<Record<Feature, number>> = {
  "read-eio": 0.003,
  "write-eio": 0.003,
  "sync-eio": 0.005,
  "misdirected-read": 0.02,
  "misdirected-write": 0.01,
  "misdirected-part": 0.02,
};
