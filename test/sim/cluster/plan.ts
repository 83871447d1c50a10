/** What one run of the simulated cluster is like: drawn from its seed, apart from everything that happens in it. */
import { INVENTORY_PAGE } from "../../../lib/replica/limits.js";
import type { Prng } from "../prng.js";
import { DIRECTED_SCENES } from "./directed.js";
import { SCENES, type SceneName } from "./scenes.js";

/** How one node's device is unwell in a run. */
export type Sickness = "none" | "rot" | "eio" | "full";

export interface RunPlan {
  readonly nodes: number;
  readonly configNodes: number;
  readonly volumes: number;
  /** So many nodes have no seat in a new volume, at least: others replace members, or get further seats. */
  readonly spares: number;
  /** Every node is a member of a new volume, and has a copy of each extent. */
  readonly isOnAll: boolean;
  /** Usual time of one way through the network, and how often only a few bytes are moved at a time. */
  readonly delayUs: number;
  readonly smallParts: number;
  /** Extents of one page of an inventory. */
  readonly inventoryPage: number;
  /** Nobody loses power: then whatever was acknowledged must be there. */
  readonly hasPower: boolean;
  readonly sickness: Sickness;
  /** Most ms after which a gateway wants a volume back that it has lost. */
  readonly patienceMs: number;
  /** How often changes need more copies than one. */
  readonly manyNeeded: number;
  /** What may happen; one of them after the other, drawn anew each time. */
  readonly scenes: readonly SceneName[];
  /** Virtual time with faults. */
  readonly faultMs: number;
}

const PATIENCE_MS = 12_000;
const LONG_PATIENCE_MS = 40_000;
/** How often a run has a scene of directed.ts. */
const DIRECTED_CHANCE = 0.2;

/** A run of one focus has its scene only, and what that scene needs. */
export function planOf(random: Prng, focus?: SceneName): RunPlan {
  const [nodes, configNodes] = random.pick([
    [1, 1],
    [2, 1],
    [3, 1],
    [3, 3],
    [3, 3],
    [3, 3],
    [4, 3],
    [4, 1],
    [5, 5],
  ] as const);
  const sickness = random.pick(["none", "none", "none", "none", "rot", "eio", "full"] as const);
  const hasPower = random.chance(0.4);
  const isMixed = random.chance(0.4);
  const one = random.pick(SCENES);
  const scenes = isMixed ? SCENES.filter(() => random.chance(0.6)) : [one];
  const plan: RunPlan = {
    nodes,
    configNodes,
    volumes: random.pick([1, 1, 1, 1, 2, 3]),
    spares: 0,
    isOnAll: false,
    delayUs: random.pick([30, 200, 2000]),
    smallParts: random.pick([0, 0, 0.05, 0.3]),
    inventoryPage: random.pick([1, 3, INVENTORY_PAGE]),
    // Rot and power losses together may leave no copy that anybody could know to be good.
    hasPower: hasPower || sickness === "rot" || sickness === "eio",
    sickness: nodes > 1 ? sickness : "none",
    scenes: scenes.length === 0 ? [one] : scenes,
    faultMs: random.pick([1000, 1000, 1000, 6000, 12_000]),
    patienceMs: PATIENCE_MS,
    manyNeeded: 0.5,
  };
  if (focus === undefined) return withDirected(plan, random.fork("directed"));
  const [more, config] = random.pick([
    [2, 1],
    [3, 1],
    [3, 3],
    [3, 3],
    [4, 3],
  ] as const);
  // Several seats can be added to a volume of a run about that.
  const isGrowing = focus === "grow" || focus === "given-up";
  const needsSpares = isGrowing || focus === "replace";
  const isOnAll = focus === "slow-source";
  const needsPower = NEEDS_POWER_LOSS.has(focus);
  return {
    ...plan,
    nodes: needsSpares || isOnAll ? Math.max(4, more) : more,
    isOnAll,
    spares: isGrowing ? random.pick([1, 2, 2]) : Number(needsSpares),
    configNodes: config,
    scenes: [focus],
    manyNeeded: 0.2,
    patienceMs: NEEDS_QUIET.has(focus)
      ? LONG_PATIENCE_MS
      : random.fork("patience").pick([PATIENCE_MS, LONG_PATIENCE_MS]),
    volumes: 1,
    hasPower: needsPower ? false : isGrowing ? random.chance(0.2) : plan.hasPower,
    sickness: needsPower || focus !== "sick" ? "none" : random.pick(["rot", "eio", "full"]),
  };
}

/** In some runs the scenes are, or have among them, one that is played by hand. */
function withDirected(plan: RunPlan, random: Prng): RunPlan {
  if (!random.chance(DIRECTED_CHANCE)) return plan;
  const one = random.pick(DIRECTED_SCENES);
  return { ...plan, scenes: random.chance(0.5) ? [one] : [...plan.scenes, one] };
}

/** A gateway that wants the volume for itself would spoil them. */
const NEEDS_QUIET: ReadonlySet<SceneName> = new Set(["new-life", "given-up"]);
const NEEDS_POWER_LOSS: ReadonlySet<SceneName> = new Set([
  "blackout",
  "lossy",
  "lives",
  "joining",
  "in-turn",
  "new-life",
]);
