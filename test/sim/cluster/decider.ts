/**
 * Somebody who has records chosen, one after the other and in competition with others, and looks whether phase 1 ever
 * misses one (I10). Volumes change their records too seldom to show every wrong majority.
 */
import type { AcceptedRecord, NodeId } from "../../../lib/replica/api.js";
import { AskedSet } from "../../../lib/replica/config/follow.js";
import type { ConfigSet } from "../../../lib/replica/config/set.js";
import { LeaseKeeper } from "../../../lib/replica/lease.js";
import { PeerLinks } from "../../../lib/replica/owner/peer-links.js";
import { type Asking, RecordRegister } from "../../../lib/replica/register.js";
import { simMemory } from "../memory.js";
import type { Prng } from "../prng.js";
import type { SimProcess, SimWorld } from "../world.js";
import { type ClusterChecks, type WatchedVoter, watchedVoter } from "./checks.js";
import type { SimNetwork } from "./network.js";
import { CLUSTER_ID, type NodeHost, stationPool } from "./node-host.js";

/** Records that nobody else uses. */
const KEYS = [21, 22, 23];
const PAUSE_MS = 30;
/** A decision that takes longer is given up. */
const PATIENCE_MS = 1500;

export interface AskerHost {
  readonly world: SimWorld;
  readonly network: SimNetwork;
  readonly checks: ClusterChecks;
  readonly nodes: readonly NodeHost[];
}

/** A process with links to all nodes that keeps to the set of config nodes. */
export interface Asker {
  readonly process: SimProcess;
  readonly peer: number;
  readonly follower: AskedSet;
  readonly register: RecordRegister;
}

/** `first`: the set that it begins with. `host` and `station` are its own. */
export function startAsker(
  { world, network, checks, nodes }: AskerHost,
  at: { readonly host: number; readonly station: number },
  first: ConfigSet,
  heard: (set: ConfigSet) => void,
): Asker {
  const process = world.spawnBeside();
  const pool = stationPool(at.station);
  const peer = 1 + process.u32() * 2 ** 16 + (process.u32() & 0xffff);
  const voter = (id: NodeId): WatchedVoter => {
    const node = nodes.find((one) => one.id === id)!;
    return watchedVoter(checks, node, links.peer(id), () => follower.set.version);
  };
  const follower: AskedSet = new AskedSet(first, voter, heard);
  const link = { pool, clock: process, ticker: process, checksums: simMemory().checksums };
  const station = { host: at.host, process, pool };
  const ids = nodes.map(({ id }) => id);
  const links = new PeerLinks(link, network.of(station), { cluster: CLUSTER_ID, peer, sets: follower }, ids);
  const voters = follower.set.nodes.map(({ node }) => ({ node, peer: voter(node) }));
  const register = new RecordRegister(process, voters);
  const lease = new LeaseKeeper(
    process,
    voters.map((one) => one.peer),
    { watched: () => [], promised: () => undefined },
  );
  follower.tell({ register, lease });
  links.start();
  return { process, peer, follower, register };
}

export class Decider {
  readonly #asker: Asker;
  readonly #checks: ClusterChecks;
  readonly #random: Prng;
  readonly #epochs = new Map<number, number>();
  #asking: Asking | null = null;
  decisions = 0;

  constructor(asker: Asker, checks: ClusterChecks, random: Prng) {
    this.#asker = asker;
    this.#checks = checks;
    this.#random = random;
    this.#next();
  }

  get process(): SimProcess {
    return this.#asker.process;
  }

  #later(): void {
    this.#asker.process.setTimer(1 + this.#random.below(PAUSE_MS), () => this.#next());
  }

  #next(): void {
    const { process, register, peer } = this.#asker;
    const key = this.#random.pick(KEYS);
    const ballot = { epoch: (this.#epochs.get(key) ?? 0) + 1, owner: peer };
    this.#epochs.set(key, ballot.epoch);
    const before = this.#checks.chosen(key);
    let isOver = false;
    const over = (): void => {
      if (isOver) return;
      isOver = true;
      patience.cancel();
      this.#asking?.cancel();
      this.#later();
    };
    const patience = process.setTimer(PATIENCE_MS, over);
    this.#asking = register.promise(key, ballot, (outcome) => {
      if (isOver) return;
      if (outcome.kind === "refused") {
        this.#epochs.set(key, outcome.promised.epoch);
        over();
        return;
      }
      this.#checks.phaseOneEnded(ballot, outcome.highest, before);
      this.#asking?.cancel();
      const generation = (outcome.highest?.generation ?? 0) + 1;
      this.#accept(key, { ballot, generation, bytes: bytesOf(ballot.epoch, peer) }, () => {
        if (!isOver) over();
      });
    });
  }

  #accept(key: number, record: AcceptedRecord, done: () => void): void {
    this.#asking = this.#asker.register.accept(key, record, (outcome) => {
      if (outcome.kind === "chosen") {
        this.#checks.toldChosen(key, record);
        this.decisions++;
      } else if (outcome.kind === "refused") this.#epochs.set(key, outcome.promised.epoch);
      done();
    });
  }
}

function bytesOf(epoch: number, peer: number): Uint8Array {
  return new TextEncoder().encode(`decision ${epoch} of ${peer}`);
}

/** What claims a name of records among which there are decisions: those claim none. */
export function nameUnlessDecision(
  nameOf: (bytes: Uint8Array) => string | null,
): (bytes: Uint8Array) => string | null {
  return (bytes) => (new TextDecoder().decode(bytes.subarray(0, 9)) === "decision " ? null : nameOf(bytes));
}
