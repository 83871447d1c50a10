/** One run of the simulated cluster: nodes, two owners that compete for volumes, scenes of faults, then peace. */
import type { ClusterRecord } from "../../../lib/replica/owner/record.js";
import { freshArena } from "../arena.js";
import { Prng } from "../prng.js";
import { Violation } from "../violation.js";
import { SimWorld, type TraceSink } from "../world.js";
import { ClusterChecks } from "./checks.js";
import { ConfigScene, KnownSets, planWithSpares } from "./config-scene.js";
import { copiesDiffer } from "./copies.js";
import { CopyRules } from "./copy-rules.js";
import { nameUnlessDecision } from "./decider.js";
import { Faults, OWNER_HOST, OWNERS, type Owner, type Stage } from "./faults.js";
import { Gateway, type GatewayHost } from "./gateway.js";
import { Holdings } from "./holdings.js";
import { SimNetwork } from "./network.js";
import { NodeHost, SCRUB_PACE, stationPool } from "./node-host.js";
import { planOf, type RunPlan } from "./plan.js";
import { ProbeOwner, probeNameOf, Registers } from "./probe-owner.js";
import { rememberedNames } from "./record-text.js";
import { VolumeRegisters } from "./registers.js";
import { type SceneName, Scenes } from "./scenes.js";
import { Stranger } from "./stranger.js";
import { clusterNameOf, type VolumeOwner, volumeNumber } from "./volume-owner.js";

export interface ClusterRunOptions {
  readonly seed: number;
  /**
   * Who owns the volumes: the simple owner that tests the protocol, or the real one; nobody: there is nothing but config
   * nodes that change.
   */
  readonly subject?: "probe" | "volume" | "nobody";
  /** Virtual time with faults; drawn from the seed when it is not given. */
  readonly faultMs?: number;
  /** Only this scene. */
  readonly focus?: SceneName;
  /** Config nodes are lost and replaced, beside whatever else happens. With the real owner. */
  readonly configChanges?: boolean;
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
  /** Seats that volumes got besides. */
  readonly grown: number;
  readonly promises: number;
  readonly refusedForgeries: number;
  /** Old backups and wiped devices that were found out. */
  readonly quarantines: number;
  /** Config nodes that were replaced. */
  readonly configChanges: number;
  /** Records that were chosen beside those of volumes. */
  readonly decisions: number;
  readonly faults: ReadonlyMap<string, number>;
  readonly violation: Violation | null;
}

/** Virtual time within which a cluster at peace must serve again, with every node in sync. */
const PEACE_MS = 120_000;
/** Writes that must be acknowledged in peace. */
const PEACE_WRITES = 20;
/** Records that must be chosen in peace, of nodes that nobody owns volumes on. */
const PEACE_DECISIONS = 10;
/** Most time between two faults of those. */
const NODE_FAULTS_MS = 1500;
/** Amendments at the end, and most time between two of them. */
const PEACE_AMENDS = 3;
const PEACE_AMENDS_US = 10_000;
/** Within this time somebody serves before a scene begins; else it begins all the same. */
const SERVED_US = 8_000_000;
/** After this time every gateway has wanted the volumes once. */
const CONTEST_US = 2_000_000;
/** A scene begins at most so long after somebody serves. */
const BEFORE_SCENE_MS = 400;
/** How often what a scene has blocked is free again when it is over. */
const HEAL_CHANCE = 0.7;

export function runCluster(options: ClusterRunOptions): ClusterRunResult {
  return new ClusterRun(options).run();
}

class ClusterRun implements Stage {
  readonly world: SimWorld;
  readonly random: Prng;
  readonly plan: RunPlan;
  readonly network: SimNetwork;
  readonly nodes: readonly NodeHost[];
  readonly owners: (Owner | null)[] = [];
  readonly clients: readonly VolumeRegisters[];
  readonly probed = new Registers();
  readonly stranger: Stranger;
  readonly sickNode: number;
  readonly #checks: ClusterChecks;
  readonly #faults: Faults;
  readonly #scenes: Scenes;
  readonly #sets: KnownSets | null;
  readonly #config: ConfigScene | null;
  readonly #faultUs: number;
  readonly #isOwned: boolean;
  #events = 0;
  #activations = 0;
  #shrinks = 0;
  #rebuilds = 0;
  #replaced = 0;
  #grown = 0;

  constructor({ seed, subject, faultMs, focus, trace, ...options }: ClusterRunOptions) {
    Violation.raised = null;
    const configChanges = options.configChanges === true || subject === "nobody";
    this.world = new SimWorld(seed, trace ?? null);
    this.random = this.world.random.fork("cluster");
    this.#isOwned = subject !== "nobody";
    const drawn = planOf(Prng.ofSeed(seed).fork("plan"), focus);
    const later = Prng.ofSeed(seed).fork("config nodes");
    this.plan = configChanges ? planWithSpares(drawn, later) : drawn;
    const { plan } = this;
    this.#faultUs = (faultMs ?? plan.faultMs) * 1000;
    this.network = new SimNetwork(this.world, plan);
    this.#checks = new ClusterChecks(plan.configNodes);
    const arena = freshArena();
    const isProbed = subject === undefined || subject === "probe";
    const volumes = subject === "volume" ? plan.volumes : 0;
    this.clients = Array.from({ length: volumes }, (_, index) => new VolumeRegisters(plan.hasPower, index));
    this.#sets = configChanges ? new KnownSets(plan.configNodes) : null;
    const host = {
      configNodes: plan.configNodes,
      nameOf: isProbed ? probeNameOf : rememberedNames(nameUnlessDecision(clusterNameOf)),
      ...(this.#sets === null ? {} : { firstSet: this.#sets.first }),
      inventoryPage: plan.inventoryPage,
      volumes,
      failed: (node: NodeHost) => this.#deviceFailed(node),
      toldStates: (node: NodeHost, version: number) => this.#config?.toldStates(node, version),
    };
    this.nodes = Array.from(
      { length: plan.nodes },
      (_, index) => new NodeHost(this.world, arena, this.network, this.#checks, index, host),
    );
    if (subject === "volume") this.#checks.rules = this.#rules();
    this.sickNode = subject === "volume" && plan.sickness !== "none" ? this.random.below(plan.nodes) : -1;
    for (let i = 0; i < OWNERS; i++) this.owners.push(null);
    this.stranger = new Stranger(
      this.world,
      this.network,
      this.nodes,
      plan.nodes + OWNERS,
      OWNER_HOST + OWNERS,
    );
    this.#faults = new Faults(this);
    this.#scenes = new Scenes(this.#faults);
    this.#config = this.#configScene(later);
  }

  #rules(): CopyRules {
    const { clients, nodes } = this;
    const holdings = new Holdings(nodes.length, clients, volumeNumber(0));
    const registers = new Map(clients.map((one) => [volumeNumber(one.index), one]));
    return new CopyRules(holdings, nodes, registers);
  }

  #configScene(random: Prng): ConfigScene | null {
    if (this.#sets === null) return null;
    const scene = {
      world: this.world,
      network: this.network,
      checks: this.#checks,
      nodes: this.nodes,
      sets: this.#sets,
      host: OWNER_HOST + OWNERS + 1,
      station: this.nodes.length + OWNERS + 2,
    };
    return new ConfigScene(scene, random);
  }

  run(): ClusterRunResult {
    let violation: Violation | null = null;
    try {
      this.#begin();
      if (this.#isOwned) this.#storm();
      else this.#stormOfNodes();
      this.#peace();
    } catch (error) {
      if (!(error instanceof Violation) && Violation.raised === null)
        violation = new Violation("ASSERT", error instanceof Error ? error.message : String(error), error);
    }
    violation = Violation.raised ?? violation;
    for (let i = 0; i < OWNERS; i++) this.#count(i);
    return {
      hash: this.world.hash,
      events: this.#events,
      writes: this.#writes,
      reads: this.#sum(({ reads }) => reads) + this.probed.reads,
      activations: this.#activations,
      shrinks: this.#shrinks,
      rebuilds: this.#rebuilds,
      replaced: this.#replaced,
      grown: this.#grown,
      promises: this.#checks.promises,
      refusedForgeries: this.stranger.refused,
      quarantines: this.nodes.reduce((sum, node) => sum + node.quarantines, 0),
      configChanges: this.#config?.changed ?? 0,
      decisions: this.#config?.decisions ?? 0,
      faults: this.#faults.counts,
      violation,
    };
  }

  #sum(of: (clients: VolumeRegisters) => number): number {
    return this.clients.reduce((sum, clients) => sum + of(clients), 0);
  }

  get #writes(): number {
    let { writes } = this.probed;
    for (const one of this.clients) writes += one.writes;
    return writes;
  }

  #step(): void {
    if (!this.world.step()) throw new Violation("I23", "nothing is left to happen");
    this.#events++;
    if (Violation.raised !== null) throw Violation.raised;
  }

  #stepUntil(done: () => boolean, withinUs: number): boolean {
    const until = this.world.nowUs + withinUs;
    while (!done()) {
      if (this.world.nowUs > until) return false;
      this.#step();
    }
    return true;
  }

  #stepFor(us: number): void {
    this.#stepUntil(() => false, us);
  }

  #begin(): void {
    let formatted = 0;
    for (const node of this.nodes) {
      node.format(() => {
        formatted++;
      });
    }
    this.#stepUntil(() => formatted === this.nodes.length, 60_000_000);
    for (const node of this.nodes) node.start();
    this.#stepUntil(() => this.nodes.every(({ serving }) => serving), 60_000_000);
    for (let i = 0; i < OWNERS && this.#isOwned; i++) this.startOwner(i);
    this.stranger.start();
    this.#config?.start();
  }

  startOwner(index: number): void {
    this.#count(index);
    const process = this.world.spawnBeside();
    const pool = stationPool(this.nodes.length + index);
    const host: GatewayHost = {
      world: this.world,
      network: this.network,
      checks: this.#checks,
      nodes: this.nodes,
      configNodes: this.plan.configNodes,
      patienceMs: this.plan.patienceMs,
      manyNeeded: this.plan.manyNeeded,
      ...(this.#sets === null ? {} : { sets: this.#sets }),
      registers: this.probed,
      clients: this.clients,
      sickNode: this.plan.sickness === "full" ? -1 : this.sickNode,
      isRotten: this.plan.sickness === "rot" || this.plan.sickness === "eio",
      spares: this.plan.spares,
      isOnAll: this.plan.isOnAll,
      isVolumeServed: (volume) => this.#served(volume) !== undefined,
      servingBegan: (volume) => this.#noOlderMayAnswer(volume),
      joined: () => this.#scenes.joined(),
    };
    const owner =
      this.clients.length === 0
        ? new ProbeOwner(host, OWNER_HOST + index, process, pool)
        : new Gateway(host, OWNER_HOST + index, process, pool);
    this.owners[index] = owner;
    this.network.hostIsBack(OWNER_HOST + index);
    owner.start();
  }

  /** Takes over the counters of an owner whose life has ended. */
  #count(index: number): void {
    const owner = this.owners[index];
    if (owner === null || owner === undefined) return;
    this.#activations += owner.activations;
    this.#shrinks += owner.shrunk;
    this.#rebuilds += owner.rebuilt;
    if (owner instanceof Gateway) {
      this.#replaced += owner.replaced;
      this.#grown += owner.grown;
    }
    this.owners[index] = null;
  }

  /** Who serves volume number `index`, as far as he knows; of several the newest, for the others are fenced. */
  #served(index: number): VolumeOwner | undefined {
    let newest: VolumeOwner | undefined;
    for (const owner of this.owners) {
      if (!(owner instanceof Gateway) || !owner.process.alive) continue;
      const volume = owner.volumes[index]!;
      if (volume.serving && (newest === undefined || volume.set!.epoch > newest.set!.epoch)) newest = volume;
    }
    return newest;
  }

  /** Nobody may answer for an epoch after a newer one has begun to serve, whether he is asked for anything or not. */
  #noOlderMayAnswer(volume: number): void {
    const newest = this.#checks.newestServing(volume);
    for (const owner of this.owners) {
      if (!(owner instanceof Gateway) || !owner.process.alive) continue;
      const set = owner.volumes.find((one) => one.volume === volume)?.set ?? null;
      if (set !== null && set.epoch < newest && set.mayAnswer)
        throw new Violation("FENCE", `epoch ${set.epoch} may answer although ${newest} is serving`);
    }
  }

  /** Somebody else wants a volume: whoever serves it has not long to go. */
  #isWanted(): boolean {
    for (const owner of this.owners)
      if (owner instanceof Gateway && owner.process.alive && owner.isActivating) return true;
    return false;
  }

  #isServed(): boolean {
    if (this.clients.length === 0) return this.owners.some((owner) => owner?.serving === true);
    for (let index = 0; index < this.clients.length; index++)
      if (this.#served(index) === undefined) return false;
    return true;
  }

  /** Somebody sees that a device has failed, and starts its node anew. */
  #deviceFailed(node: NodeHost): void {
    const { life } = node;
    this.#faults.after(100 + this.random.below(1500), () => {
      if (!node.alive || node.life !== life) return;
      node.kill();
      node.start();
    });
  }

  // ---- Faults ------------------------------------------------------------------------------------------

  #storm(): void {
    // Owners that both want a volume from the start fence each other in the midst of whatever begins too early.
    if (this.clients.length > 0) this.#stepFor(CONTEST_US);
    const until = this.world.nowUs + this.#faultUs;
    while (this.world.nowUs < until) {
      this.#stepUntil(() => this.#isServed() && !this.#isWanted(), SERVED_US);
      this.#scenes.atWork();
      this.#stepFor(1000 * this.random.below(BEFORE_SCENE_MS));
      const ms = this.#scenes.play(this.random.pick(this.plan.scenes));
      this.#stepFor(1000 * ms);
      if (this.random.chance(HEAL_CHANCE)) this.network.healAll();
    }
  }

  /** Nodes come and go, and the config nodes change by themselves. */
  #stormOfNodes(): void {
    const until = this.world.nowUs + this.#faultUs;
    while (this.world.nowUs < until) {
      this.#stepFor(1000 * this.random.below(NODE_FAULTS_MS));
      this.#faults.anyOfNodes();
    }
  }

  // ---- Peace -------------------------------------------------------------------------------------------

  /** No more faults: somebody serves, every node is in sync again, and everything acknowledged is on all of them. */
  #peace(): void {
    this.#config?.peace();
    this.network.healAll();
    this.network.swapBack();
    this.#faults.beWell();
    this.#scenes.makePeace();
    for (const node of this.nodes) node.startTruth();
    for (const node of this.nodes) if (!node.alive) node.start();
    if (!this.#isOwned) {
      this.#peaceOfNodes(this.#config!);
      return;
    }
    for (let i = 0; i < OWNERS; i++) if (!(this.owners[i]?.process.alive ?? false)) this.startOwner(i);
    const wanted = this.#writes + PEACE_WRITES;
    const reached = this.#stepUntil(() => this.#writes >= wanted && this.#isWhole(), PEACE_MS * 1000);
    if (!reached)
      throw new Violation(
        "I23",
        `after ${PEACE_MS} ms of peace ${this.#writes - wanted + PEACE_WRITES} writes${this.#waits()}`,
      );
    if (this.clients.length > 0) this.#atRest();
  }

  /** Every config node votes, and records are chosen. */
  #peaceOfNodes(config: ConfigScene): void {
    const wanted = config.decisions + PEACE_DECISIONS;
    const isWell = (): boolean => config.isWhole && config.decisions >= wanted;
    if (this.#stepUntil(isWell, PEACE_MS * 1000)) return;
    const missing = wanted - config.decisions;
    throw new Violation("I23", `after ${PEACE_MS} ms of peace ${missing} decisions are missing`);
  }

  #isWhole(): boolean {
    if (this.clients.length === 0) return this.owners.some((owner) => (owner as ProbeOwner | null)?.isWhole);
    for (let index = 0; index < this.clients.length; index++)
      if (this.#served(index)?.isWhole !== true) return false;
    return true;
  }

  #waits(): string {
    return this.owners
      .map((owner) => {
        const says = owner instanceof Gateway ? owner.waiting : `[${owner?.inSync.join()}]`;
        return `; ${owner?.epoch}: ${owner?.serving} ${says}`;
      })
      .join("");
  }

  #servedVolumes(): VolumeOwner[] {
    return this.clients.flatMap((_, index) => this.#served(index) ?? []);
  }

  /** Amendments while operations are open. Nothing that happens later would get going again what they hold up. */
  #amendAtWork(): void {
    for (let i = 0; i < PEACE_AMENDS; i++) {
      this.#stepUntil(() => this.#servedVolumes().some(({ clients }) => clients.open > 0), PEACE_AMENDS_US);
      this.#faults.amend();
      this.#stepFor(this.random.below(PEACE_AMENDS_US));
    }
  }

  /** A further seat comes to count while operations are open, which nothing that happens later would get going again. */
  #growAtWork(): void {
    this.#faults.grow();
    const isFlushing = (): boolean =>
      this.#servedVolumes().some(({ set }) =>
        set?.members.some(({ inSync, required }) => !inSync && required),
      );
    this.#stepUntil(() => this.#isWhole() || isFlushing(), PEACE_MS * 1000);
    this.#scenes.rush();
    this.#stepUntil(() => this.#isWhole(), PEACE_MS * 1000);
  }

  /** Nobody asks for anything any more: all copies are equal (I7), and what they hold is what the clients know. */
  #atRest(): void {
    this.#amendAtWork();
    if (this.plan.spares > 0) this.#growAtWork();
    for (const owner of this.owners)
      if (owner instanceof Gateway) for (const volume of owner.volumes) volume.quiet = true;
    const isIdle = (): boolean => {
      for (let index = 0; index < this.clients.length; index++) {
        const volume = this.#served(index);
        if (volume === undefined || !volume.isWhole || !volume.isIdle) return false;
      }
      return true;
    };
    if (!this.#stepUntil(isIdle, PEACE_MS * 1000)) throw new Violation("I23", `not at rest${this.#waits()}`);
    if (this.plan.sickness === "rot") this.#scrub(isIdle);
    const atRest = this.#servedVolumes().map(({ record, registers }) => ({ record: record!, registers }));
    for (const { record, registers } of atRest) this.#compareCopies(record, registers);
  }

  /** What rotted and nobody has read is found by the node itself, and repaired by the owner. */
  #scrub(isIdle: () => boolean): void {
    const node = this.nodes[this.sickNode]!;
    const store = node.store!;
    const { passes } = store.stats().scrub;
    store.startScrub(SCRUB_PACE);
    const isMended = (): boolean => {
      const { running, passes: ended } = store.stats().scrub;
      if (running || ended === passes) return false;
      return this.#servedVolumes().every(({ record, volume }) => {
        const isMember = record?.members.some((member) => member.node === node.id) === true;
        return !isMember || store.badBlocks(volume).length === 0;
      });
    };
    if (!this.#stepUntil(() => isMended() && isIdle(), PEACE_MS * 1000))
      throw new Violation("I7", "rot that nobody reads is not repaired");
  }

  #compareCopies(record: ClusterRecord, registers: VolumeRegisters): void {
    let difference: string | null | undefined;
    copiesDiffer(this.nodes, record, registers, (found) => {
      difference = found;
    });
    this.#stepUntil(() => difference !== undefined, 60_000_000);
    if (difference !== null) throw new Violation("I7", difference ?? "the copies could not be compared");
  }
}
