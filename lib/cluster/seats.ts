/**
 * What operators do with nodes: give their seats to others, because they are lost or to be emptied, give volumes further
 * seats on new ones, and take them out of the cluster (docs/architecture/replica.md "Replacing a member", "A further seat").
 *
 * Invariants
 *  1. A seat is told as given when the record that says so is chosen; its new node gets everything afterwards.
 *  2. A device is taken out only when no chosen record has a seat for it, and never a config node's.
 */
import type { Random } from "../core/clock.js";
import { LaminaError } from "../core/errors.js";
import type { AcceptedRecord, Ballot, NodeId, PeerId } from "../replica/api.js";
import { deviceKeyOf, encodeRetired } from "../replica/identity.js";
import { type ClusterRecord, isJoining, MEMBERS_MAX } from "../replica/owner/record.js";
import type { AcceptOutcome, PromiseOutcome, RecordRegister } from "../replica/register.js";
import { addressText } from "../uring/address.js";
import { decided, undecided } from "./control.js";
import { type NodeDescription, shortId } from "./description.js";
import type { DialEnvironment, NodePlace } from "./dial.js";
import type { NodeDirectory } from "./directory.js";
import type { ClusterKey } from "./key.js";
import { hearNode } from "./patience.js";
import type { ClusterRegistry } from "./registry.js";

/** Beginning of a node's id that is enough to name it. */
const ID_DIGITS_MIN = 4;
/** Attempts to take a device out while it is opened again and again. */
const RETIRE_TRIES_MAX = 5;

/** What became of one volume's seat. */
export interface SeatOutcome {
  readonly volume: string;
  /** Address of the node that has the seat now; null: it stays where it is, or was given up before it counted. */
  readonly to: string | null;
  /** Why it stays; null: it does not. */
  readonly refused: LaminaError | null;
}

export interface DrainWanted {
  /** Absent: every volume's. */
  readonly volume?: string;
  /** Absent: whoever has the most free space. */
  readonly to?: string;
}

/** What became of one volume that was to use the nodes that there are. */
export interface BalanceOutcome {
  readonly volume: string;
  /** Address of the node that has got a further seat, or would get it; null: none. */
  readonly to: string | null;
  /** Why there is nothing to do; null: there is. */
  readonly settled: string | null;
  readonly refused: LaminaError | null;
}

export interface BalanceWanted {
  /** Absent: every volume. */
  readonly volume?: string;
  /** Says only what would be done. */
  readonly dryRun?: boolean;
}

export interface SeatEnvironment {
  readonly dial: DialEnvironment;
  readonly random: Random;
  readonly key: ClusterKey;
  readonly directory: NodeDirectory;
  readonly register: RecordRegister;
  readonly peer: PeerId;
}

export class SeatControl {
  readonly #environment: SeatEnvironment;
  readonly #registry: ClusterRegistry;

  constructor(environment: SeatEnvironment, registry: ClusterRegistry) {
    this.#environment = environment;
    this.#registry = registry;
  }

  /**
   * Gives each seat of a node to another one: the one that is wanted, or that with the most free space. A volume whose seat
   * cannot be given keeps it, and the others go on. Throws NODE_UNKNOWN, VOLUME_UNKNOWN, CLUSTER_UNREACHABLE.
   */
  async drain(node: string, wanted: DrainWanted): Promise<readonly SeatOutcome[]> {
    await this.#refresh();
    const old = this.#find(node);
    const next = wanted.to === undefined ? null : this.#find(wanted.to);
    const outcomes: SeatOutcome[] = [];
    for (const record of this.#volumes(wanted.volume)) {
      if (!hasSeat(record, old.node)) continue;
      const { name: volume } = record;
      try {
        const spare = await this.#spareFor(record, old, next);
        await this.#registry.replaceSeat(volume, old.node, spare?.node ?? null);
        outcomes.push({ volume, to: spare === null ? null : addressText(spare.address), refused: null });
      } catch (error) {
        if (!(error instanceof LaminaError)) throw error;
        outcomes.push({ volume, to: null, refused: error });
      }
    }
    return outcomes;
  }

  /**
   * Gives each volume a further seat, on the node without one that has the most free space: one at a time, until each
   * node has a seat in it, or it has MEMBERS_MAX. A volume that cannot get one stays as it is, and the others go on.
   * Throws VOLUME_UNKNOWN, CLUSTER_UNREACHABLE.
   */
  async rebalance({ volume, dryRun }: BalanceWanted): Promise<readonly BalanceOutcome[]> {
    await this.#refresh();
    const outcomes: BalanceOutcome[] = [];
    for (const record of this.#volumes(volume)) outcomes.push(await this.#addSeat(record, dryRun ?? false));
    return outcomes;
  }

  async #addSeat(record: ClusterRecord, isDryRun: boolean): Promise<BalanceOutcome> {
    const { name: volume, members } = record;
    const none = { volume, to: null, settled: null, refused: null };
    if (isJoining(record) && isDryRun) return { ...none, settled: "a further seat is joining" };
    if (!isJoining(record) && members.length >= MEMBERS_MAX)
      return { ...none, settled: `it has ${MEMBERS_MAX} seats, and no volume has more` };
    // One that is joining goes on where the volume is open.
    const next = isJoining(record) ? members.at(-1)!.node : (await this.#unseated(record))?.node;
    if (next === undefined) return { ...none, settled: "every node that can be used has a seat" };
    try {
      if (!isDryRun) await this.#registry.addSeat(volume, next);
      const address = this.#environment.directory.addressOf(next);
      return { ...none, to: address === null ? shortId(next) : addressText(address) };
    } catch (error) {
      if (!(error instanceof LaminaError)) throw error;
      return { ...none, refused: error };
    }
  }

  /** Throws NODE_UNKNOWN, NODE_IS_CONFIG, NODE_HOLDS_VOLUMES, CLUSTER_UNREACHABLE, CLUSTER_UNDECIDED. */
  async retire(node: string): Promise<void> {
    await this.#refresh();
    const place = this.#find(node);
    const address = addressText(place.address);
    if (this.#environment.directory.isConfig(place.node))
      throw new LaminaError("NODE_IS_CONFIG", { node: address });
    const seats = this.#seatsOf(place.node);
    if (seats.length > 0) {
      const volumes = seats.map(({ name }) => name).join(", ");
      throw new LaminaError("NODE_HOLDS_VOLUMES", { node: address, volumes });
    }
    await this.#retireDevice(place.node, address);
    await this.#environment.directory.refresh();
  }

  async #refresh(): Promise<void> {
    await Promise.all([this.#environment.directory.refresh(), this.#registry.refresh()]);
  }

  /** All of them, or the one of this name. Throws VOLUME_UNKNOWN. */
  #volumes(name: string | undefined): readonly ClusterRecord[] {
    const all = this.#registry.list();
    if (name === undefined) return all;
    const found = all.filter((record) => record.name === name);
    if (found.length === 0) throw new LaminaError("VOLUME_UNKNOWN", { name });
    return found;
  }

  #find(text: string): NodePlace {
    return findNode(this.#environment.directory, text);
  }

  #seatsOf(node: NodeId): readonly ClusterRecord[] {
    return this.#registry.list().filter((record) => hasSeat(record, node));
  }

  /** Null: nobody; but the seat is one that joins, which the volume does without. */
  async #spareFor(
    record: ClusterRecord,
    old: NodePlace,
    wanted: NodePlace | null,
  ): Promise<NodePlace | null> {
    const best = await this.#unseated(record, wanted);
    if (best !== null) return best;
    if (wanted === null && isJoining(record) && record.members.at(-1)!.node === old.node) return null;
    throw new LaminaError("NODE_SPARE_MISSING", { name: record.name, node: addressText(old.address) });
  }

  /** The node without a seat that has the most free space, or the one that is wanted; null: none that can be used. */
  async #unseated(record: ClusterRecord, wanted: NodePlace | null = null): Promise<NodePlace | null> {
    const { dial, key, directory } = this.#environment;
    const isSpare = ({ node }: NodePlace): boolean => !hasSeat(record, node);
    const candidates = (wanted === null ? directory.places : [wanted]).filter(isSpare);
    const [best] = await usableNodes(dial, key, candidates);
    return best ?? null;
  }

  /** Whoever has the device open finds a token that it does not know, and answers for nothing any more. */
  async #retireDevice(node: NodeId, address: string): Promise<void> {
    const { register, peer } = this.#environment;
    const key = deviceKeyOf(node);
    let epoch = 1;
    for (let tries = 0; tries < RETIRE_TRIES_MAX; tries++) {
      const ballot: Ballot = { epoch, owner: peer };
      const promised = await decided<PromiseOutcome>(address, (done) => register.promise(key, ballot, done));
      if (promised.kind === "refused") {
        epoch = promised.promised.epoch + 1;
        continue;
      }
      const record: AcceptedRecord = {
        ballot,
        generation: (promised.highest?.generation ?? 0) + 1,
        bytes: encodeRetired(node),
      };
      const outcome = await decided<AcceptOutcome>(address, (done) => register.accept(key, record, done));
      if (outcome.kind === "chosen") return;
      epoch += 1;
    }
    throw undecided(`node ${address} registers its device at the same time`);
  }
}

function hasSeat({ members }: ClusterRecord, node: NodeId): boolean {
  return members.some((member) => member.node === node);
}

/** The node that people call so. Throws NODE_UNKNOWN. */
export function findNode(directory: NodeDirectory, text: string): NodePlace {
  const found = directory.places.filter(
    ({ node, address }) =>
      addressText(address) === text || (text.length >= ID_DIGITS_MIN && node.startsWith(text)),
  );
  if (found.length !== 1) throw new LaminaError("NODE_UNKNOWN", { node: text });
  return found[0]!;
}

/** Those that can take an extent, by free space, the most first. */
export async function usableNodes(
  dial: DialEnvironment,
  key: ClusterKey,
  places: readonly NodePlace[],
): Promise<readonly NodePlace[]> {
  const said = await Promise.all(
    places.map(async (place) => ({ place, free: freeOf(await describe(dial, key, place)) })),
  );
  return said
    .filter(({ free }) => free > 0)
    .sort((a, b) => b.free - a.free)
    .map(({ place }) => place);
}

/** Null: it does not answer, or is another node. */
export async function describe(
  dial: DialEnvironment,
  key: ClusterKey,
  place: NodePlace,
): Promise<NodeDescription | null> {
  const said = await hearNode(dial, key, place);
  return typeof said === "string" ? null : said;
}

function freeOf(said: NodeDescription | null): number {
  if (said === null || said.failed !== null || said.standing !== "registered") return 0;
  return said.capacityBytes - said.usedBytes;
}

/** Nodes that get a seat in a new volume: as many as there are config nodes, or as it has copies if those are more. */
export async function seatsOfNewVolume(
  dial: DialEnvironment,
  key: ClusterKey,
  directory: NodeDirectory,
  replicas: number,
): Promise<readonly NodeId[]> {
  const { config, places } = directory;
  const count = Math.min(MEMBERS_MAX, Math.max(config.length, replicas));
  if (places.length <= count) return places.map(({ node }) => node);
  // Those that do not answer now come last: a volume may begin with copies that are away.
  const usable = await usableNodes(dial, key, places);
  const others = places.filter(({ node }) => !usable.some((one) => one.node === node));
  return [...usable, ...others].slice(0, count).map(({ node }) => node);
}
