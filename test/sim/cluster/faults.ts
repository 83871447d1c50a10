/** Single faults of the simulated cluster: what `run.ts` and the scenes do to nodes, gateways and the network. */
import { BLOCK_BYTES } from "../../../lib/core/limits.js";
import type { Prng } from "../prng.js";
import type { SimProcess, SimWorld } from "../world.js";
import { Gateway } from "./gateway.js";
import type { SimNetwork } from "./network.js";
import { type NodeHost, SCRUB_PACE } from "./node-host.js";
import type { RunPlan } from "./plan.js";
import type { ProbeOwner, Registers } from "./probe-owner.js";
import type { VolumeRegisters } from "./registers.js";
import type { Stranger } from "./stranger.js";
import type { VolumeOwner } from "./volume-owner.js";

export const OWNERS = 2;
export const OWNER_HOST = 100;

/** Of a sick device, for a moment. */
const EIO_CHANCE = 0.03;
/** Blocks that rot at a time, at most. */
const ROT_MAX = 6;
/** Longest time that a path is blocked by a fault of its own. */
const BLOCKED_MS_MAX = 6000;
/** How long nothing must have been done to the cluster before it counts as calm. */
const CALM_US = 1_500_000;

export type Owner = ProbeOwner | Gateway;

/** What faults are done to. */
export interface Stage {
  readonly world: SimWorld;
  readonly random: Prng;
  readonly plan: RunPlan;
  readonly network: SimNetwork;
  readonly nodes: readonly NodeHost[];
  readonly owners: readonly (Owner | null)[];
  /** Of the gateways' volumes; none where the probe owns. */
  readonly clients: readonly VolumeRegisters[];
  readonly probed: Registers;
  readonly stranger: Stranger;
  /** Node with a device that is unwell; −1: none. */
  readonly sickNode: number;
  startOwner(index: number): void;
}

const OF_NODES: ReadonlySet<string> = new Set(["kill", "power", "slow", "block", "heal", "break"]);

type Named = readonly (readonly [string, () => void])[];

export class Faults {
  readonly stage: Stage;
  readonly counts = new Map<string, number>();
  readonly #random: Prng;
  readonly #world: SimWorld;
  readonly #network: SimNetwork;
  readonly #nodes: readonly NodeHost[];
  readonly #single: Named;
  /** Virtual time of the last thing that was done. */
  #lastUs = 0;

  constructor(stage: Stage) {
    this.stage = stage;
    this.#random = stage.random;
    this.#world = stage.world;
    this.#network = stage.network;
    this.#nodes = stage.nodes;
    this.#single = [
      ["kill", () => this.killNode(this.anyNode(), 50 + this.#random.below(8000))],
      ["power", () => this.powerLoss([this.anyNode()])],
      ["owner", () => this.killOwner(this.#random.below(OWNERS))],
      ["pause", () => this.#pauseAny()],
      ["slow", () => this.slowDevice(this.anyNode(), this.#random.pick([200, 1000, 3000]))],
      ["block", () => this.#block()],
      ["isolate", () => this.isolate(this.#random.pick(this.hosts()), this.#random.below(BLOCKED_MS_MAX))],
      ["split", () => this.split(1000 + this.#random.below(BLOCKED_MS_MAX))],
      ["heal", () => this.#network.healAll()],
      ["break", () => void this.#network.breakOne()],
      ["forge", () => stage.stranger.forge(this.#newestEpoch())],
      ["release", () => this.servingVolume()?.release()],
      ["old-backup", () => this.#oldBackup()],
      ["swap", () => this.#swap()],
      ["replace", () => this.replace()],
      ["grow", () => this.grow()],
      ["amend", () => this.amend()],
      ["sick", () => this.beSick()],
    ];
  }

  /** Any of the single faults. */
  any(): void {
    this.act(...this.#random.pick(this.#single));
  }

  /** Any of those that nodes and connections have, whoever owns volumes. */
  anyOfNodes(): void {
    this.act(...this.#random.pick(this.#single.filter(([name]) => OF_NODES.has(name))));
  }

  act(name: string, act: () => void): void {
    this.counts.set(name, (this.counts.get(name) ?? 0) + 1);
    this.#world.trace?.(`${(this.#world.nowUs / 1000).toFixed(3)} fault: ${name}`);
    act();
    this.#touch();
  }

  #touch(): void {
    this.#lastUs = this.#world.nowUs;
  }

  /** Runs `act` after `ms` of true time, whoever is dead by then. */
  after(ms: number, act: () => void): void {
    const simEvent = (): void => {
      act();
      this.#touch();
    };
    this.#world.at(ms * 1000, { simEvent }, null, 60, 0);
  }

  // ---- Who ---------------------------------------------------------------------------------------------

  anyNode(): NodeHost {
    return this.#random.pick(this.#nodes);
  }

  hosts(): number[] {
    return [
      ...this.#nodes.map(({ index }) => index),
      ...Array.from({ length: OWNERS }, (_, i) => OWNER_HOST + i),
    ];
  }

  /** Number of a gateway that serves, or −1. */
  serving(): number {
    return this.stage.owners.findIndex((owner) => owner?.process.alive === true && owner.serving);
  }

  /** One of the volumes that are served. */
  servingVolume(): VolumeOwner | undefined {
    const served = this.volumes().filter(({ serving }) => serving);
    return served.length === 0 ? undefined : this.#random.pick(served);
  }

  volumes(): VolumeOwner[] {
    return this.stage.owners.flatMap((owner) =>
      owner instanceof Gateway && owner.process.alive ? owner.volumes : [],
    );
  }

  #newestEpoch(): number {
    return Math.max(1, ...this.stage.owners.map((owner) => owner?.epoch ?? 0));
  }

  /** Every volume is served and whole, nothing is on its way to change that, and nothing was done for a while. */
  get isCalm(): boolean {
    if (this.#world.nowUs - this.#lastUs < CALM_US || this.#network.blockedPaths > 0) return false;
    if (!this.#nodes.every(({ serving }) => serving)) return false;
    const volumes = this.volumes();
    if (volumes.some(({ activating }) => activating)) return false;
    const served = volumes.filter(({ serving }) => serving);
    return served.length === this.stage.clients.length && served.every(({ isCalm }) => isCalm);
  }

  // ---- Nodes -------------------------------------------------------------------------------------------

  /** kill −9; back after `awayMs`. */
  killNode(node: NodeHost, awayMs: number): void {
    if (!node.alive) return;
    node.kill();
    this.#backAfter(node, awayMs);
  }

  #backAfter(node: NodeHost, awayMs: number): void {
    this.after(awayMs, () => {
      if (!node.alive) node.start();
    });
  }

  /**
   * The power of the nodes fails at once. What was acknowledged and not flushed may be gone, unless the cluster was calm
   * and each extent has a copy elsewhere (DESIGN, section 1).
   */
  powerLoss(nodes: readonly NodeHost[], wasCalm = false): void {
    if (this.stage.plan.hasPower) return;
    const copies = Math.min(...this.volumes().map(({ record }) => record?.policy.replicas ?? 99));
    const isKept = wasCalm && nodes.length < copies;
    for (const node of nodes) {
      if (!node.alive) continue;
      node.powerLoss();
      this.#backAfter(node, 50 + this.#random.below(4000));
    }
    if (!isKept) for (const clients of this.stage.clients) clients.powerLost();
    this.stage.probed.powerWasLost = true;
  }

  /** A device that takes a thousand times as long: promises meet operations in the store. */
  slowDevice(node: NodeHost, ms: number): void {
    node.device.slowUntilUs = this.#world.nowUs + 1000 * ms;
  }

  /** A device that takes writes and makes nothing stable for a while. */
  holdSyncs(node: NodeHost, ms: number): void {
    node.device.syncsHeldUntilUs = this.#world.nowUs + 1000 * ms;
  }

  /** What the run's sick device has happens to it for a moment. */
  beSick(): void {
    const { sickNode, plan } = this.stage;
    const node = this.#nodes[sickNode];
    if (node === undefined) return;
    const { device } = node;
    if (plan.sickness === "rot") {
      const { provisionedBelow, options } = device;
      const slots = [[Math.ceil(provisionedBelow / BLOCK_BYTES) * BLOCK_BYTES, options.sizeBytes]] as const;
      for (let left = 1 + this.#random.below(ROT_MAX); left > 0; left--) device.rotIn(slots);
      node.store?.startScrub(SCRUB_PACE);
      return;
    }
    if (plan.sickness === "full") device.spacePages = device.usedPages + this.#random.below(8);
    else device.faults[this.#random.pick(["readEio", "writeEio"] as const)] = EIO_CHANCE;
    this.after(this.#random.below(4000), () => this.beWell());
  }

  beWell(): void {
    const device = this.#nodes[this.stage.sickNode]?.device;
    if (device === undefined) return;
    device.spacePages = Number.POSITIVE_INFINITY;
    device.faults.readEio = 0;
    device.faults.writeEio = 0;
  }

  /** A node is started on an old backup of its device, until somebody notices. Config nodes are not told from theirs. */
  #oldBackup(): void {
    const nodes = this.#nodes.filter(({ isConfig }) => !isConfig);
    if (nodes.length === 0) return;
    const node = this.#random.pick(nodes);
    if (node.startBackup()) this.#truthAfter(node);
  }

  #truthAfter(node: NodeHost): void {
    this.after(500 + this.#random.below(8000), () => node.startTruth());
  }

  /** A node's device is wiped, and put right later. There are others that know it, and all of them can be asked. */
  wipe(): void {
    const node = this.anyNode();
    const isKnown = !node.isConfig || this.stage.plan.configNodes > 1;
    if (isKnown && this.isCalm && node.startBlank()) this.#truthAfter(node);
  }

  /** Two nodes have each other's directory for a while: each answers where the other one is looked for. */
  #swap(): void {
    const [a, b] = [this.anyNode(), this.anyNode()];
    if (a === b) return;
    this.#network.swapBack();
    this.#network.swapServers(a.id, b.id);
    this.#restart(a, b);
    this.after(200 + this.#random.below(5000), () => {
      // In peace they have been put right already.
      if (this.#network.swapBack()) this.#restart(a, b);
    });
  }

  #restart(...nodes: readonly NodeHost[]): void {
    for (const node of nodes) {
      node.kill();
      node.start();
    }
  }

  // ---- Owners ------------------------------------------------------------------------------------------

  /** kill −9 of a gateway; another life of it begins after `awayMs`. */
  killOwner(index: number, awayMs = 50 + this.#random.below(4000)): void {
    const owner = this.stage.owners[index];
    if (owner === null || owner === undefined || !owner.process.alive) return;
    owner.process.kill();
    this.#network.died(owner.process, this.#random.chance(0.7));
    this.after(awayMs, () => {
      // In peace it may have been started already.
      if (this.stage.owners[index] === owner) this.stage.startOwner(index);
    });
  }

  /** Owners that have nothing to do want the volumes now. */
  takeOver(): void {
    for (const owner of this.stage.owners) if (owner?.process.alive === true) owner.activate();
  }

  replace(): void {
    for (const volume of this.volumes()) if (volume.replaceOne()) return;
  }

  grow(): void {
    for (const volume of this.volumes()) if (volume.growOne()) return;
  }

  /** Somebody changes the description of the volume, or how many copies a change needs. */
  amend(): void {
    for (const volume of this.volumes()) volume.amend(this.#random);
  }

  /** SIGSTOP of a node or an owner. */
  #pauseAny(): void {
    const owners = this.stage.owners.flatMap((owner) => (owner === null ? [] : [owner.process]));
    const nodes = this.#nodes.flatMap(({ process }) => (process === null ? [] : [process]));
    this.pause(this.#random.pick([...owners, ...nodes]), this.#random.pick([100, 2000, 4000, 9000]));
  }

  pause(process: SimProcess, ms: number): void {
    if (process.alive) process.pausedUntilUs = this.#world.nowUs + 1000 * ms;
    this.after(ms, () => undefined);
  }

  // ---- Network -----------------------------------------------------------------------------------------

  blockFor(from: number, to: number, ms: number): void {
    this.#network.block(from, to);
    this.after(ms, () => this.#network.unblock(from, to));
  }

  #block(): void {
    const hosts = this.hosts();
    const from = this.#random.pick(hosts);
    const to = this.#random.pick(hosts);
    if (from !== to) this.blockFor(from, to, this.#random.below(BLOCKED_MS_MAX));
  }

  /** One host hears nobody, or nobody hears it, or both. */
  isolate(one: number, ms: number, ways = 1 + this.#random.below(3)): void {
    for (const other of this.hosts()) {
      if (other === one) continue;
      if ((ways & 1) !== 0) this.blockFor(one, other, ms);
      if ((ways & 2) !== 0) this.blockFor(other, one, ms);
    }
  }

  /** Two parts that do not hear each other, with an owner in each that wants the volume. */
  split(ms: number): void {
    const [left, right] = [OWNER_HOST, OWNER_HOST + 1].map((owner) => [owner]) as [number[], number[]];
    for (const { index } of this.#nodes) (this.#random.chance(0.5) ? left : right).push(index);
    for (const a of left) {
      for (const b of right) {
        this.blockFor(a, b, ms);
        this.blockFor(b, a, ms);
      }
    }
    this.takeOver();
  }
}
