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

/** Operators, each on a host of his own; they do not know of each other. */
const OPERATORS = 2;
const DECIDERS = 2;
/** Most virtual time between two of its scenes. */
const PAUSE_MS = 1500;
/** How often a scene looks whether what it waits for has come. */
const LOOK_MS = 20;
/** Most time that a node which shall join again waits for it, cut off. */
const REJOIN_MS = 6000;
/** How often who shows a new set for the first time is cut short, in one way or another. */
const CUT_SHORT_CHANCE = 0.5;
/** Most time that nobody hears of a set but who joins with it, or that one who joins is not heard. */
const UNHEARD_MS = 1500;

interface Operator {
  readonly asker: Asker;
  readonly change: ConfigChange;
}

export class ConfigScene {
  readonly #at: ConfigSceneHost;
  readonly #random: Prng;
  readonly #operators: (Operator | null)[] = new Array<Operator | null>(OPERATORS).fill(null);
  readonly #deciders: (Decider | null)[] = new Array<Decider | null>(DECIDERS).fill(null);
  #decisions = 0;
  #isPeace = false;
  /** Cut off until it is a config node again. */
  #rejoining: NodeHost | null = null;
  changed = 0;

  constructor(at: ConfigSceneHost, random: Prng) {
    this.#at = at;
    this.#random = random;
  }

  get decisions(): number {
    return this.#deciders.reduce((sum, one) => sum + (one?.decisions ?? 0), this.#decisions);
  }

  /** Every config node of the newest set that any node has heard of votes in it. */
  get isWhole(): boolean {
    const { nodes } = this.#at;
    const sets = nodes.flatMap(({ seat }) => seat?.set ?? []);
    const newest = sets.reduce((a, b) => (b.version > a.version ? b : a));
    return newest.nodes.every(({ node }) => {
      return nodes.find(({ id }) => id === node)?.seat?.votesIn(newest.version) === true;
    });
  }

  /** Acts by itself from now on, until there is peace. */
  start(): void {
    for (let i = 0; i < DECIDERS; i++) this.#startDecider(i);
    this.#later();
  }

  #later(): void {
    const act = (): void => {
      if (this.#isPeace) return;
      if (this.#rejoining === null) this.#act();
      this.#later();
    };
    this.#after(1 + this.#random.below(PAUSE_MS), act);
  }

  #after(ms: number, act: () => void): void {
    this.#at.world.at(1000 * ms, { simEvent: act }, null, 60, 0);
  }

  #act(): void {
    const random = this.#random;
    const kind = random.below(12);
    const operator = random.below(OPERATORS);
    if (kind < 2) this.#startDecider(random.below(DECIDERS));
    else if (kind < 4) this.#part();
    else if (kind < 5) this.#at.network.healAll();
    else if (kind < 7) this.#rejoin();
    else if (this.#operators[operator] === null) this.#replace(operator);
    else if (random.chance(0.25)) this.#end(operator);
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
    const at = { host: host + OPERATORS + index, station: station + OPERATORS + index };
    const first = this.#random.chance(0.5) ? sets.first : sets.of(at.host);
    const asker = startAsker(this.#at, at, first, (set) => sets.heard(at.host, set));
    this.#deciders[index] = new Decider(asker, checks, this.#random.fork("decider"));
  }

  /** Two parts of the cluster that do not hear each other, with somebody in each who has records chosen. */
  #part(): void {
    const { nodes, host, network } = this.#at;
    network.healAll();
    const left = [host + OPERATORS];
    const right = [host + OPERATORS + 1];
    for (let i = 0; i < OPERATORS; i++) (this.#random.chance(0.5) ? left : right).push(host + i);
    for (const { index } of nodes) (this.#random.chance(0.5) ? left : right).push(index);
    for (const a of left) for (const b of right) this.#block(a, b);
  }

  #block(a: number, b: number): void {
    this.#at.network.block(a, b);
    this.#at.network.block(b, a);
  }

  // ---- Operators ---------------------------------------------------------------------------------------

  #replace(operator: number): void {
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
    this.#begin(operator, old, random.pick(spares));
  }

  /** The one that joined last votes, or is the one to be replaced: what an operator is told to look at. */
  #mayChange(set: ConfigSet, old: NodeHost): boolean {
    const joined = set.nodes.find(({ since }) => since === set.version && since > 1);
    if (joined === undefined || joined.node === old.id) return true;
    return this.#at.nodes.some(({ id, seat }) => id === joined.node && seat?.votesIn(set.version) === true);
  }

  #begin(index: number, old: NodeHost, next: NodeHost): void {
    const { world, sets, host, station } = this.#at;
    const at = { host: host + index, station: station + index };
    const heard = (set: ConfigSet): void => {
      const isNew = set.version > sets.newest.version;
      sets.heard(at.host, set);
      if (isNew && this.#random.chance(CUT_SHORT_CHANCE)) this.#cutShort(index, set);
    };
    const asker = startAsker(this.#at, at, sets.of(at.host), heard);
    world.say(`operator ${index}: n${next.index} shall be a config node instead of n${old.index}`);
    const { process, register, follower, peer } = asker;
    const environment = { clock: process, random: process, register, follower, peer };
    const wanted = { old: old.id, next: { node: next.id, place: "" } };
    const change = new ConfigChange(environment, wanted, ({ kind, set }) => {
      world.say(`operator ${index}: ${kind}, version ${set.version}`);
      if (kind === "changed") this.changed++;
      process.setTimer(0, () => this.#end(index));
    });
    this.#operators[index] = { asker, change };
  }

  /** An operator has a new set: his process ends now, or only who joins hears him. */
  #cutShort(operator: number, set: ConfigSet): void {
    const { nodes, host, network } = this.#at;
    if (this.#random.chance(0.5)) {
      this.#after(this.#random.pick([0, 1, 5]) * this.#random.u32() * 2 ** -32, () => this.#end(operator));
      return;
    }
    const ms = this.#random.below(UNHEARD_MS);
    for (const { id, index } of nodes) {
      if (isIn(set, id) && set.nodes.find(({ node }) => node === id)!.since === set.version) continue;
      network.block(host + operator, index);
      this.#after(ms, () => network.unblock(host + operator, index));
    }
  }

  /** A node tells its states to one that joins: what that says meanwhile comes late. */
  toldStates(node: NodeHost, version: number): void {
    const { nodes, sets, network } = this.#at;
    if (this.#isPeace || !this.#random.chance(CUT_SHORT_CHANCE)) return;
    const { newest } = sets;
    const joining = nodes.find(({ id }) =>
      newest.nodes.some((one) => one.node === id && one.since === version),
    );
    if (joining === undefined) return;
    network.block(joining.index, node.index);
    this.#after(this.#random.below(UNHEARD_MS), () => network.unblock(joining.index, node.index));
  }

  /** The operator is done, gives up, or his process ends. */
  #end(index: number): void {
    const operator = this.#operators[index];
    if (operator === null || operator === undefined) return;
    operator.change.cancel();
    this.#operators[index] = null;
    operator.asker.process.kill();
    this.#at.network.died(operator.asker.process, true);
  }

  // ---- One that is left out, and joins again -----------------------------------------------------------

  /** A config node that nobody reaches is replaced, and replaces another one, before it has heard of either. */
  #rejoin(): void {
    const { nodes, sets, host, network } = this.#at;
    const set = sets.newest;
    const away = this.#random.pick(nodes.filter(({ id }) => isIn(set, id)));
    const spare = nodes.find(({ id, alive }) => !isIn(set, id) && alive);
    if (!away.alive || spare === undefined || !this.#mayChange(set, away)) return;
    for (let i = 0; i < OPERATORS; i++) this.#end(i);
    network.healAll();
    this.#rejoining = away;
    for (const { index } of nodes) if (index !== away.index) this.#block(away.index, index);
    for (let i = 0; i < OPERATORS + DECIDERS; i++) this.#block(away.index, host + i);
    this.#begin(0, away, spare);
    const until = this.#at.world.nowUs + 1000 * REJOIN_MS;
    this.#whenVoting(spare, until, () => {
      this.#end(0);
      const others = nodes.filter(({ id }) => isIn(sets.newest, id) && id !== spare.id);
      this.#begin(0, this.#random.pick(others), away);
      this.#whenIn(away, until, () => this.#after(this.#random.below(300), () => this.#joinedAgain()));
    });
    this.#after(REJOIN_MS, () => this.#joinedAgain());
  }

  #joinedAgain(): void {
    if (this.#rejoining === null) return;
    this.#rejoining = null;
    this.#at.network.healAll();
  }

  /** `then` once, when the node votes in the newest set. */
  #whenVoting(node: NodeHost, until: number, then: () => void): void {
    const { newest } = this.#at.sets;
    if (isIn(newest, node.id) && node.seat?.votesIn(newest.version) === true) then();
    else this.#lookAgain(until, () => this.#whenVoting(node, until, then));
  }

  /** `then` once, when the node is in the newest set. */
  #whenIn(node: NodeHost, until: number, then: () => void): void {
    if (isIn(this.#at.sets.newest, node.id)) then();
    else this.#lookAgain(until, () => this.#whenIn(node, until, then));
  }

  #lookAgain(until: number, look: () => void): void {
    this.#after(LOOK_MS, () => {
      if (this.#rejoining !== null && this.#at.world.nowUs < until) look();
    });
  }

  /** What was lost is there again, and nobody changes anything. */
  peace(): void {
    this.#isPeace = true;
    for (let i = 0; i < OPERATORS; i++) this.#end(i);
    for (const node of this.#at.nodes) node.isLost = false;
  }
}
