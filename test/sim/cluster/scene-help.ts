/** What scenes are made of: what clients do, who is meant, and how somebody is taken away for a while. */
import type { Prng } from "../prng.js";
import { type Faults, OWNER_HOST } from "./faults.js";
import type { NodeHost } from "./node-host.js";
import {
  allExtents,
  type Habits,
  type Shares,
  USUAL_FUA,
  USUAL_SHARES,
  VOLUME_EXTENTS,
} from "./registers.js";

/** Time after which what nobody changes has become cool. */
const COOL_MS = 2200;
/** How often a scene looks whether what it waits for has come. */
export const LOOK_MS = 3;
/** Operations that follow each other at once, at most. */
export const BURST_MAX = 60;

/** More of them than anything takes that they are to meet. */
const RUSH = 400;

export const MOSTLY_WRITES: Shares = { flush: 1, free: 1, zero: 2, write: 16, read: 4 };
export const MOSTLY_READS: Shares = { flush: 2, free: 0, zero: 0, write: 1, read: 12 };
/** Nobody is held up by a copy that does not answer, as long as there is another one. */
export const READS_ONLY: Shares = { flush: 0, free: 0, zero: 0, write: 0, read: 1 };
export const MANY_FLUSHES: Shares = { flush: 10, free: 0, zero: 0, write: 8, read: 4 };
export const ONLY_FLUSHES: Shares = { flush: 1, free: 0, zero: 0, write: 0, read: 0 };
export const ONLY_FREES: Shares = { flush: 0, free: 1, zero: 0, write: 0, read: 0 };
export const ONLY_WRITES: Shares = { flush: 0, free: 0, zero: 0, write: 1, read: 0 };
export const NEW_LIVES: Shares = { flush: 0, free: 6, zero: 1, write: 10, read: 2 };

export class SceneHelp {
  protected readonly faults: Faults;
  protected readonly random: Prng;

  constructor(faults: Faults) {
    this.faults = faults;
    this.random = faults.stage.random;
  }

  // ---- What clients do ---------------------------------------------------------------------------------

  protected clients(habits: Partial<Habits>): void {
    for (const clients of this.faults.stage.clients) clients.habits = { ...clients.habits, ...habits };
  }

  /** As ever, in some of the extents. */
  atWork(habits: Partial<Habits> = {}): void {
    this.clients({
      inUse: this.some(0.5),
      isNarrow: this.random.chance(0.2),
      pauseMs: this.random.pick([150, 400, 1000]),
      isResting: false,
      shares: USUAL_SHARES,
      fua: USUAL_FUA,
      ...habits,
    });
  }

  /** Whatever blocks nobody can read any more are written again, or freed. */
  makePeace(): void {
    const isRotten = this.faults.stage.plan.sickness !== "none";
    this.atWork({ pauseMs: 200, ...(isRotten ? { shares: NEW_LIVES, inUse: allExtents() } : {}) });
  }

  /** Many changes follow each other at once. */
  rush(): void {
    this.clients({ shares: MOSTLY_WRITES, inUse: allExtents() });
    this.hurry(RUSH);
  }

  /** The next operations follow each other at once. */
  protected hurry(operations: number): void {
    for (const clients of this.faults.stage.clients) clients.hurry = operations;
  }

  /** Nobody asks for anything: extents become cool. Then `then`. */
  protected rest(then: () => void): number {
    this.clients({ isResting: true });
    const ms = COOL_MS + this.random.below(1200);
    this.faults.after(ms, then);
    return ms;
  }

  protected some(share: number): number[] {
    const some = allExtents().filter(() => this.random.chance(share));
    return some.length > 0 ? some : [this.random.below(VOLUME_EXTENTS)];
  }

  /** Many operations for `ms`, in new places; then `then`. */
  protected burst(
    ms: number,
    shares: Shares,
    then: () => void = () => this.clients({ isResting: true }),
  ): void {
    this.atWork({ pauseMs: 20, shares, isNarrow: this.random.chance(0.5) });
    this.hurry(this.between(5, BURST_MAX));
    this.faults.after(ms, () => {
      this.hurry(0);
      then();
    });
  }

  // ---- Who ---------------------------------------------------------------------------------------------

  /** Host of a gateway that serves; the first one's if none does. */
  protected get ownerHost(): number {
    return OWNER_HOST + Math.max(0, this.faults.serving());
  }

  protected between(low: number, high: number): number {
    return this.random.between(low, high);
  }

  /** A node is cut off, dead, stopped, or its connections break. */
  protected takeAway(node: NodeHost, ms: number): void {
    const faults = this.faults;
    const how = this.random.below(5);
    if (how === 0) faults.killNode(node, ms);
    else if (how === 1) faults.isolate(node.index, ms);
    else if (how === 2) faults.isolate(node.index, ms, 3);
    else if (how === 3 && node.process !== null) faults.pause(node.process, ms);
    else this.cut(node, ms);
    // Who only hears nothing waits for seconds before he takes a connection for gone.
    if (this.random.chance(0.7)) faults.stage.network.breakBetween(this.ownerHost, node.index);
  }

  /** The owner and a node do not hear each other, and know it. */
  protected cut(node: NodeHost, ms: number): void {
    this.faults.blockFor(this.ownerHost, node.index, ms);
    this.faults.blockFor(node.index, this.ownerHost, ms);
    this.faults.stage.network.breakBetween(this.ownerHost, node.index);
  }

  /** `then` once, when the owner waits for a member that is not in sync yet; within `ms`, or never. */
  protected whenJoining(ms: number, then: (node: NodeHost) => void): void {
    if (ms <= 0) return;
    for (const { set } of this.faults.volumes()) {
      const found = set?.members.find(({ pass, inSync }) => !inSync && pass?.isWaitedFor === true);
      if (found === undefined) continue;
      then(this.faults.stage.nodes.find(({ id }) => id === found.node)!);
      return;
    }
    this.faults.after(LOOK_MS, () => this.whenJoining(ms - LOOK_MS, then));
  }
}
