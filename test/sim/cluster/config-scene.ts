/**
 * Config nodes that are lost, and operators who replace them (lib/replica/config). An operator asks for a change from
 * a process of his own, which may end in the middle of it; the next one finds what it has begun.
 */
import { ConfigChange } from "../../../lib/replica/config/change.js";
import { AskedSet } from "../../../lib/replica/config/follow.js";
import { type ConfigSet, firstSet, isIn } from "../../../lib/replica/config/set.js";
import { nodeIdOf } from "../../../lib/replica/greeting.js";
import type { Prng } from "../prng.js";
import { Violation } from "../violation.js";
import { type Asker, type AskerHost, Decider, startAsker } from "./decider.js";
import { deviceIdOfNode, type NodeHost } from "./node-host.js";
import type { RunPlan } from "./plan.js";

/** What processes have written down of the config nodes, by host. */
export class KnownSets {
  readonly first: ConfigSet;
  readonly #written = new Map<number, ConfigSet>();
  /** By version, the set as it was first heard of. */
  readonly #all = new Map<number, string>();
  newest: ConfigSet;

  /** `count`: config nodes, the first ones of the run. */
  constructor(count: number) {
    const ids = Array.from({ length: count }, (_, index) => nodeIdOf(deviceIdOfNode(index)));
    this.first = firstSet(ids.map((node) => ({ node, place: "" })));
    this.newest = this.first;
  }

  /** What the host has written down. */
  of(host: number): ConfigSet {
    return this.#written.get(host) ?? this.first;
  }

  /** An owner begins with what its host has written down. */
  follow(host: number, voter: ConstructorParameters<typeof AskedSet>[1]): AskedSet {
    return new AskedSet(this.of(host), voter, (set) => this.heard(host, set));
  }

  heard(host: number, set: ConfigSet): void {
    this.#check(set);
    this.#written.set(host, set);
  }

  #check(set: ConfigSet): void {
    const text = JSON.stringify(set);
    const known = this.#all.get(set.version);
    if (known !== undefined && known !== text)
      throw new Violation("I10", `two sets of config nodes have version ${set.version}`);
    this.#all.set(set.version, text);
    if (set.version > this.newest.version) this.newest = set;
  }
}

/** A plan with nodes that can become config nodes, and time for that. */
export function planWithSpares(plan: RunPlan, random: Prng): RunPlan {
  const [nodes, configNodes] = random.pick([
    [4, 3],
    [5, 3],
    [5, 3],
    [6, 5],
  ] as const);
  const faultMs = random.pick([6000, 12_000]);
  return { ...plan, nodes, configNodes, volumes: 1, faultMs };
}

export interface ConfigSceneHost extends AskerHost {
  readonly sets: KnownSets;
  /** Of hosts and pools that nobody uses: the first numbers of both. */
  readonly host: number;
  readonly station: number;
}

const DECIDERS = 2;
/** Most virtual time between two of its scenes. */
const PAUSE_MS = 1500;

export class ConfigScene {
  readonly #at: ConfigSceneHost;
  readonly #random: Prng;
  #operator: Asker | null = null;
  #change: ConfigChange | null = null;
  readonly #deciders: (Decider | null)[] = new Array<Decider | null>(DECIDERS).fill(null);
  #decisions = 0;
  #isPeace = false;
  changed = 0;

  constructor(at: ConfigSceneHost, random: Prng) {
    this.#at = at;
    this.#random = random;
  }

  get decisions(): number {
    return this.#deciders.reduce((sum, one) => sum + (one?.decisions ?? 0), this.#decisions);
  }

  /** Acts by itself from now on, until there is peace. */
  start(): void {
    for (let i = 0; i < DECIDERS; i++) this.#startDecider(i);
    this.#later();
  }

  #later(): void {
    const act = (): void => {
      if (this.#isPeace) return;
      this.#act();
      this.#later();
    };
    this.#at.world.at(1000 * (1 + this.#random.below(PAUSE_MS)), { simEvent: act }, null, 60, 0);
  }

  #act(): void {
    const random = this.#random;
    const kind = random.below(10);
    if (kind < 2) this.#startDecider(random.below(DECIDERS));
    else if (kind < 4) this.#part();
    else if (kind < 5) this.#at.network.healAll();
    else if (this.#change === null) this.#replace();
    else if (random.chance(0.25)) this.#end();
  }

  // ---- Who has records chosen --------------------------------------------------------------------------

  /** Anew: with what it has written down, or with the first set of all. */
  #startDecider(index: number): void {
    const { sets, host, station, network, checks } = this.#at;
    const before = this.#deciders[index];
    if (before !== null && before !== undefined) {
      this.#decisions += before.decisions;
      before.process.kill();
      network.died(before.process, true);
    }
    const at = { host: host + 1 + index, station: station + 1 + index };
    const first = this.#random.chance(0.5) ? sets.first : sets.of(at.host);
    const asker = startAsker(this.#at, at, first, (set) => sets.heard(at.host, set));
    this.#deciders[index] = new Decider(asker, checks, this.#random.fork("decider"));
  }

  /** Two parts of the cluster that do not hear each other, with somebody in each who has records chosen. */
  #part(): void {
    const { nodes, host, network } = this.#at;
    network.healAll();
    const left = [host + 1];
    const right = [host + 2];
    (this.#random.chance(0.5) ? left : right).push(host);
    for (const { index } of nodes) (this.#random.chance(0.5) ? left : right).push(index);
    for (const a of left) {
      for (const b of right) {
        network.block(a, b);
        network.block(b, a);
      }
    }
  }

  // ---- Operators ---------------------------------------------------------------------------------------

  #replace(): void {
    const random = this.#random;
    const { nodes, sets } = this.#at;
    const set = sets.newest;
    const old = random.pick(nodes.filter(({ id }) => isIn(set, id)));
    const spares = nodes.filter(({ id, alive }) => !isIn(set, id) && alive);
    if (spares.length === 0 || !this.#mayChange(set, old)) return;
    // Lost for as long as there are faults; one at a time.
    if (random.chance(0.4) && nodes.every(({ isLost }) => !isLost)) {
      old.kill();
      old.isLost = true;
    }
    this.#begin(old, random.pick(spares));
  }

  /** The one that joined last votes, or is the one to be replaced: what an operator is told to look at. */
  #mayChange(set: ConfigSet, old: NodeHost): boolean {
    const joined = set.nodes.find(({ since }) => since === set.version && since > 1);
    if (joined === undefined || joined.node === old.id) return true;
    return this.#at.nodes.some(({ id, seat }) => id === joined.node && seat?.votesIn(set.version) === true);
  }

  #begin(old: NodeHost, next: NodeHost): void {
    const { world, sets, host, station } = this.#at;
    const heard = (set: ConfigSet): void => sets.heard(host, set);
    const asker = startAsker(this.#at, { host, station }, sets.of(host), heard);
    this.#operator = asker;
    world.say(`operator: n${next.index} shall be a config node instead of n${old.index}`);
    const { process, register, follower, peer } = asker;
    const environment = { clock: process, random: process, register, follower, peer };
    const wanted = { old: old.id, next: { node: next.id, place: "" } };
    this.#change = new ConfigChange(environment, wanted, ({ kind, set }) => {
      world.say(`operator: ${kind}, version ${set.version}`);
      if (kind === "changed") this.changed++;
      process.setTimer(0, () => this.#end());
    });
  }

  /** The operator is done, gives up, or his process ends. */
  #end(): void {
    const operator = this.#operator;
    if (operator === null) return;
    this.#change?.cancel();
    this.#change = null;
    this.#operator = null;
    operator.process.kill();
    this.#at.network.died(operator.process, true);
  }

  /** What was lost is there again, and nobody changes anything. */
  peace(): void {
    this.#isPeace = true;
    this.#end();
    for (const node of this.#at.nodes) node.isLost = false;
  }
}
