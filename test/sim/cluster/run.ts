/** One run of the simulated cluster: nodes, two owners that compete for one volume, faults, then peace. */
import { INVENTORY_PAGE } from "../../../lib/replica/limits.js";
import { freshArena } from "../arena.js";
import { Prng } from "../prng.js";
import { Violation } from "../violation.js";
import { SimWorld, type TraceSink } from "../world.js";
import { ClusterChecks, FORGED_LAYER } from "./checks.js";
import { copiesDiffer } from "./copies.js";
import { SimNetwork } from "./network.js";
import { CLUSTER_ID, NodeHost, stationPool } from "./node-host.js";
import { PROBE_VOLUME, ProbeOwner, probeNameOf, Registers } from "./probe-owner.js";
import { Stranger } from "./stranger.js";
import { clusterNameOf, VOLUME_EXTENTS, VolumeOwner, VolumeRegisters } from "./volume-owner.js";

export interface ClusterRunOptions {
  readonly seed: number;
  /** Who owns the volume: the simple owner that tests the protocol, or the real one. */
  readonly subject?: "probe" | "volume";
  /** Virtual time with faults. */
  readonly faultMs?: number;
  /** Without the scenes that were added after the first seeds failed: they would find other ways now. */
  readonly plain?: boolean;
  readonly trace?: TraceSink;
}

export interface ClusterRunResult {
  readonly hash: string;
  readonly events: number;
  readonly writes: number;
  readonly reads: number;
  readonly activations: number;
  readonly shrinks: number;
  readonly rebuilds: number;
  /** Seats that were given to another node. */
  readonly replaced: number;
  readonly promises: number;
  readonly refusedForgeries: number;
  /** Old backups that were found out. */
  readonly quarantines: number;
  readonly faults: ReadonlyMap<string, number>;
  readonly violation: Violation | null;
}

const OWNERS = 2;
const OWNER_HOST = 100;
/** Virtual time within which a cluster at peace must serve again, with every node in sync. */
const PEACE_MS = 120_000;
/** Writes that must be acknowledged in peace. */
const PEACE_WRITES = 50;
/** Amendments at the end, and most time between two of them. */
const PEACE_AMENDS = 20;
const PEACE_AMENDS_US = 10_000;
/** Of an amendment beside a fault. */
const AMEND_CHANCE = 0.2;
/** Of other habits of the clients beside a fault. */
const HABIT_CHANCE = 0.3;

export function runCluster(options: ClusterRunOptions): ClusterRunResult {
  return new ClusterRun(options).run();
}

class ClusterRun {
  readonly #world: SimWorld;
  readonly #random: Prng;
  /** Draws the later scenes, so that they shift nothing of the others. */
  readonly #later: Prng | null;
  readonly #network: SimNetwork;
  readonly #checks: ClusterChecks;
  readonly #nodes: NodeHost[];
  readonly #owners: (ProbeOwner | VolumeOwner | null)[] = [];
  readonly #registers = new Registers();
  /** What the clients of the real owner know; null: the probe owns. */
  readonly #volume: VolumeRegisters | null;
  readonly #configNodes: number;
  readonly #stranger: Stranger;
  readonly #faultUs: number;
  readonly #faults = new Map<string, number>();
  #events = 0;
  #activations = 0;
  #shrinks = 0;
  #rebuilds = 0;
  #replaced = 0;

  constructor({ seed, subject, faultMs, plain, trace }: ClusterRunOptions) {
    Violation.raised = null;
    this.#world = new SimWorld(seed, trace ?? null);
    this.#random = this.#world.random.fork("cluster");
    this.#later = plain === true ? null : Prng.ofSeed(seed).fork("later scenes");
    const [nodes, config] = this.#random.pick([
      [1, 1],
      [3, 1],
      [3, 3],
      [3, 3],
      [4, 3],
      [4, 1],
      [5, 5],
    ] as const);
    this.#configNodes = config;
    this.#faultUs = (faultMs ?? 40_000) * 1000;
    this.#network = new SimNetwork(this.#world, {
      delayUs: this.#random.pick([30, 200, 2000]),
      partMax: this.#random.pick([200, 5000, 100_000]),
    });
    this.#checks = new ClusterChecks(config);
    const arena = freshArena();
    this.#volume = subject === "volume" ? new VolumeRegisters(this.#random.chance(0.5)) : null;
    const host = {
      configNodes: config,
      nameOf: this.#volume === null ? probeNameOf : clusterNameOf,
      ...(this.#later === null ? {} : { inventoryPage: this.#later.pick([1, 3, INVENTORY_PAGE]) }),
    };
    this.#nodes = Array.from(
      { length: nodes },
      (_, index) => new NodeHost(this.#world, arena, this.#network, this.#checks, index, host),
    );
    for (let i = 0; i < OWNERS; i++) this.#owners.push(null);
    this.#stranger = new Stranger(
      this.#world,
      this.#network,
      this.#nodes,
      nodes + OWNERS,
      OWNER_HOST + OWNERS,
    );
  }

  run(): ClusterRunResult {
    let violation: Violation | null = null;
    try {
      this.#begin();
      this.#storm();
      this.#peace();
    } catch (error) {
      if (!(error instanceof Violation) && Violation.raised === null)
        violation = new Violation("ASSERT", error instanceof Error ? error.message : String(error), error);
    }
    violation = Violation.raised ?? violation;
    for (let i = 0; i < OWNERS; i++) this.#count(i);
    return {
      hash: this.#world.hash,
      events: this.#events,
      writes: this.#writes,
      reads: this.#volume?.reads ?? this.#registers.reads,
      activations: this.#activations,
      shrinks: this.#shrinks,
      rebuilds: this.#rebuilds,
      replaced: this.#replaced,
      promises: this.#checks.promises,
      refusedForgeries: this.#stranger.refused,
      quarantines: this.#nodes.reduce((sum, node) => sum + node.quarantines, 0),
      faults: this.#faults,
      violation,
    };
  }

  get #writes(): number {
    return this.#volume?.writes ?? this.#registers.writes;
  }

  #step(): void {
    if (!this.#world.step()) throw new Violation("I23", "nothing is left to happen");
    this.#events++;
    if (Violation.raised !== null) throw Violation.raised;
  }

  #stepUntil(done: () => boolean, withinUs: number): boolean {
    const until = this.#world.nowUs + withinUs;
    while (!done()) {
      if (this.#world.nowUs > until) return false;
      this.#step();
    }
    return true;
  }

  #begin(): void {
    let formatted = 0;
    for (const node of this.#nodes) {
      node.format(() => {
        formatted++;
      });
    }
    this.#stepUntil(() => formatted === this.#nodes.length, 60_000_000);
    for (const node of this.#nodes) node.start();
    this.#stepUntil(() => this.#nodes.every(({ serving }) => serving), 60_000_000);
    for (let i = 0; i < OWNERS; i++) this.#startOwner(i);
    this.#stranger.start();
  }

  #startOwner(index: number): void {
    this.#count(index);
    const process = this.#world.spawnBeside();
    const pool = stationPool(this.#nodes.length + index);
    const host = {
      world: this.#world,
      network: this.#network,
      checks: this.#checks,
      nodes: this.#nodes,
      configNodes: this.#configNodes,
      registers: this.#registers,
      isServed: () => this.#owners.some((owner) => owner?.serving === true),
    };
    const owner =
      this.#volume === null
        ? new ProbeOwner(host, OWNER_HOST + index, process, pool)
        : new VolumeOwner(host, this.#volume, OWNER_HOST + index, process, pool);
    this.#owners[index] = owner;
    this.#network.hostIsBack(OWNER_HOST + index);
    owner.start();
  }

  /** Takes over the counters of an owner whose life has ended. */
  #count(index: number): void {
    const owner = this.#owners[index];
    if (owner === null || owner === undefined) return;
    this.#activations += owner.activations;
    this.#shrinks += owner.shrunk;
    this.#rebuilds += owner.rebuilt;
    if (owner instanceof VolumeOwner) this.#replaced += owner.replaced;
    this.#owners[index] = null;
  }

  // ---- Faults ------------------------------------------------------------------------------------------

  #storm(): void {
    const until = this.#world.nowUs + this.#faultUs;
    const pauseMs = this.#random.pick([300, 1500, 5000]);
    let next = this.#world.nowUs + 6_000_000;
    while (this.#world.nowUs < until) {
      if (this.#world.nowUs >= next) {
        this.#fault();
        if (this.#later !== null) this.#laterScene(this.#later);
        next = this.#world.nowUs + 1000 * (1 + this.#random.below(pauseMs));
      }
      this.#step();
    }
  }

  #fault(): void {
    const faults: readonly (readonly [string, () => void])[] = [
      ["kill", () => this.#killNode((node) => node.kill())],
      ["power", () => this.#powerLoss()],
      ["owner", () => this.#killOwner()],
      ["pause", () => this.#pause()],
      ["slow", () => this.#slowDevice()],
      ["block", () => this.#block()],
      ["isolate", () => this.#isolate(this.#random.pick(this.#hosts()))],
      ["isolate-owner", () => this.#isolate(OWNER_HOST + this.#random.below(OWNERS))],
      ["split", () => this.#split()],
      ["late-answers", () => this.#lateAnswers()],
      ["heal", () => this.#network.healAll()],
      ["heal", () => this.#network.healAll()],
      ["break", () => void this.#network.breakOne()],
      ["forge", () => this.#stranger.forge(this.#newestEpoch())],
      ["release", () => this.#release()],
      ["old-backup", () => this.#oldBackup()],
      ["old-backup", () => this.#oldBackup()],
      ["swap", () => this.#swap()],
      ["replace", () => this.#replace()],
      ["replace", () => this.#replace()],
    ];
    this.#act(...this.#random.pick(faults));
  }

  /** One after some of the faults. */
  #laterScene(random: Prng): void {
    if (random.chance(AMEND_CHANCE)) this.#act("amend", () => this.#amend(random));
    if (random.chance(HABIT_CHANCE)) this.#act("habit", () => this.#changeHabits(random));
  }

  #act(name: string, act: () => void): void {
    this.#faults.set(name, (this.#faults.get(name) ?? 0) + 1);
    this.#world.trace?.(`${(this.#world.nowUs / 1000).toFixed(3)} fault: ${name}`);
    act();
  }

  /** The clients leave some extents alone for a while, which become cool, and ask with or without pauses. */
  #changeHabits(random: Prng): void {
    if (this.#volume === null) return;
    const inUse = Array.from({ length: VOLUME_EXTENTS }, (_, extent) => extent).filter(() =>
      random.chance(0.4),
    );
    this.#volume.inUse = inUse.length > 0 ? inUse : [random.below(VOLUME_EXTENTS)];
    this.#volume.haste = random.pick([0.1, 0.3, 0.95]);
    this.#volume.pauseMs = random.pick([120, 120, 1500]);
  }

  /** Somebody changes the description of the volume, or how many copies a change needs. */
  #amend(random: Prng): void {
    for (const owner of this.#owners) if (owner instanceof VolumeOwner) owner.amend(random);
  }

  #newestEpoch(): number {
    return Math.max(1, ...this.#owners.map((owner) => owner?.epoch ?? 0));
  }

  /** Runs `act` after `ms` of true time, whoever is dead by then. */
  #after(ms: number, act: () => void): void {
    this.#world.at(ms * 1000, { simEvent: act }, null, 60, 0);
  }

  #killNode(how: (node: NodeHost) => void): void {
    const node = this.#random.pick(this.#nodes);
    if (!node.alive) return;
    how(node);
    this.#after(50 + this.#random.below(8000), () => {
      if (!node.alive) node.start();
    });
  }

  #powerLoss(): void {
    if (this.#volume?.hasPower === true) return;
    this.#killNode((node) => node.powerLoss());
    this.#volume?.powerLost();
    this.#registers.powerWasLost = true;
  }

  /** A node is started on an old backup of its device, until somebody notices. Config nodes are not told from theirs. */
  #oldBackup(): void {
    const node = this.#dataNode();
    if (node?.startBackup() === true) this.#after(500 + this.#random.below(8000), () => node.startTruth());
  }

  /** A node that is no config node, if there is any. */
  #dataNode(): NodeHost | undefined {
    const nodes = this.#nodes.filter(({ isConfig }) => !isConfig);
    return nodes.length === 0 ? undefined : this.#random.pick(nodes);
  }

  /** Two nodes have each other's directory for a while: each answers where the other one is looked for. */
  #swap(): void {
    const [a, b] = [this.#random.pick(this.#nodes), this.#random.pick(this.#nodes)];
    if (a === b) return;
    this.#network.swapBack();
    this.#network.swapServers(a.id, b.id);
    this.#restart(a, b);
    this.#after(200 + this.#random.below(5000), () => {
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

  #replace(): void {
    for (const owner of this.#owners) if (owner instanceof VolumeOwner && owner.replaceOne()) return;
  }

  /** A planned hand-over. */
  #release(): void {
    const owner = this.#owners.find((one) => one?.process.alive && one.serving);
    if (owner instanceof VolumeOwner) owner.release();
  }

  #killOwner(): void {
    const index = this.#random.below(OWNERS);
    const owner = this.#owners[index];
    if (owner === null || owner === undefined || !owner.process.alive) return;
    owner.process.kill();
    this.#network.died(owner.process, this.#random.chance(0.7));
    this.#after(50 + this.#random.below(4000), () => {
      // In peace it may have been started already.
      if (this.#owners[index] === owner) this.#startOwner(index);
    });
  }

  /** SIGSTOP of a node or an owner. */
  #pause(): void {
    const owners = this.#owners.flatMap((owner) => (owner === null ? [] : [owner.process]));
    const nodes = this.#nodes.flatMap(({ process }) => (process === null ? [] : [process]));
    const process = this.#random.pick([...owners, ...nodes]);
    if (!process.alive) return;
    process.pausedUntilUs = this.#world.nowUs + 1000 * this.#random.pick([100, 2000, 4000, 9000]);
  }

  /** A device that takes a thousand times as long: promises meet operations in the store. */
  #slowDevice(): void {
    const { device } = this.#random.pick(this.#nodes);
    device.slowUntilUs = this.#world.nowUs + 1000 * this.#random.pick([200, 1000, 3000]);
  }

  #hosts(): number[] {
    return [...this.#nodes.map(({ index }) => index), ...this.#owners.map((_, i) => OWNER_HOST + i)];
  }

  #block(): void {
    const hosts = this.#hosts();
    const from = this.#random.pick(hosts);
    const to = this.#random.pick(hosts);
    if (from !== to) this.#network.block(from, to);
  }

  /** One host hears nobody, or nobody hears it, or both. */
  #isolate(one: number): void {
    const hosts = this.#hosts();
    const ways = 1 + this.#random.below(3);
    for (const other of hosts) {
      if (other === one) continue;
      if ((ways & 1) !== 0) this.#network.block(one, other);
      if ((ways & 2) !== 0) this.#network.block(other, one);
    }
  }

  /** Two parts that do not hear each other, with an owner in each that wants the volume. */
  #split(): void {
    const [left, right] = [OWNER_HOST, OWNER_HOST + 1].map((owner) => [owner]) as [number[], number[]];
    for (const { index } of this.#nodes) (this.#random.chance(0.5) ? left : right).push(index);
    for (const a of left) {
      for (const b of right) {
        this.#network.block(a, b);
        this.#network.block(b, a);
      }
    }
    this.#takeOver();
  }

  /** What the nodes answer to the owner is late, and somebody else takes the volume meanwhile. */
  #lateAnswers(): void {
    const index = this.#owners.findIndex((owner) => owner?.process.alive === true && owner.serving);
    if (index < 0) return;
    const host = OWNER_HOST + index;
    for (const node of this.#nodes) this.#network.block(node.index, host);
    this.#after(this.#random.below(1200), () => this.#takeOver());
    this.#after(1800 + this.#random.below(600), () => {
      for (const node of this.#nodes) this.#network.unblock(node.index, host);
    });
  }

  /** Owners that have nothing to do want the volume now. */
  #takeOver(): void {
    for (const owner of this.#owners) if (owner?.process.alive === true) owner.activate();
  }

  // ---- Peace -------------------------------------------------------------------------------------------

  /** No more faults: somebody serves, every node is in sync again, and everything acknowledged is on all of them. */
  #peace(): void {
    this.#network.healAll();
    this.#network.swapBack();
    for (const node of this.#nodes) node.startTruth();
    for (const node of this.#nodes) if (!node.alive) node.start();
    for (let i = 0; i < OWNERS; i++) if (!(this.#owners[i]?.process.alive ?? false)) this.#startOwner(i);
    const wanted = this.#writes + PEACE_WRITES;
    const whole = (): boolean => this.#owners.some((owner) => owner?.serving && owner.isWhole);
    const reached = this.#stepUntil(() => this.#writes >= wanted && whole(), PEACE_MS * 1000);
    if (!reached) {
      const owners = this.#owners.map((owner) => `${owner?.epoch}:${owner?.serving}:[${owner?.inSync}]`);
      throw new Violation(
        "I23",
        `after ${PEACE_MS} ms of peace ${this.#writes - wanted + PEACE_WRITES} writes, owners ${owners}${this.#waits()}`,
      );
    }
    if (this.#volume !== null) this.#atRest(whole);
  }

  #waits(): string {
    return this.#owners.map((owner) => (owner instanceof VolumeOwner ? `; ${owner.waiting}` : "")).join("");
  }

  /** Amendments while operations are open. Nothing that happens later would get going again what they hold up. */
  #amendAtWork(random: Prng, owners: readonly VolumeOwner[]): void {
    const isAtWork = (): boolean => owners.some((owner) => owner.serving && !owner.isIdle);
    for (let i = 0; i < PEACE_AMENDS; i++) {
      this.#stepUntil(isAtWork, PEACE_AMENDS_US);
      this.#amend(random);
      this.#stepUntil(() => false, random.below(PEACE_AMENDS_US));
    }
  }

  /** Nobody asks for anything any more: all copies are equal (I7). */
  #atRest(whole: () => boolean): void {
    const owners = this.#owners.flatMap((owner) => (owner instanceof VolumeOwner ? [owner] : []));
    if (this.#later !== null) this.#amendAtWork(this.#later, owners);
    for (const owner of owners) owner.quiet = true;
    const isIdle = (): boolean => whole() && owners.every((owner) => !owner.serving || owner.isIdle);
    if (!this.#stepUntil(isIdle, PEACE_MS * 1000)) throw new Violation("I23", `not at rest${this.#waits()}`);
    const pool = stationPool(this.#nodes.length + OWNERS + 1);
    let difference: string | null | undefined;
    const record = owners.find((owner) => owner.serving)!.record!;
    copiesDiffer(this.#nodes, record, pool, (found) => {
      difference = found;
    });
    this.#stepUntil(() => difference !== undefined, 60_000_000);
    if (difference !== null) throw new Violation("I7", difference ?? "the copies could not be compared");
  }
}

export { CLUSTER_ID, FORGED_LAYER, PROBE_VOLUME };
