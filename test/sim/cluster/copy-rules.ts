/**
 * What must hold of the copies of volumes at every moment, whether or not a client comes to see it (DESIGN §10: I6, I10,
 * I12, I13, I15, I19). Each rule is looked at when the program relies on it: at an answer, when a member joins, when an
 * owner begins, when a slot cools, when a record is chosen.
 *
 * What is not certain of a node breaks no rule (holdings.ts).
 */
import type { AcceptedRecord } from "../../../lib/replica/api.js";
import { Holders, membersForChanges } from "../../../lib/replica/owner/holders.js";
import { type ClusterRecord, decodeClusterRecord } from "../../../lib/replica/owner/record.js";
import { type Invariant, Violation } from "../violation.js";
import { type Holding, type Holdings, UNKNOWN, ZEROS } from "./holdings.js";
import { EXTENT_BLOCKS, type NodeHost } from "./node-host.js";
import { VOLUME_EXTENTS, type VolumeRegisters } from "./registers.js";

/** Which seats hold an extent, computed once for a record: the rules ask for every register. */
class HeldExtents {
  /** By extent, a bit for each seat. */
  readonly #masks: Uint8Array;

  constructor(record: ClusterRecord) {
    const holders = new Holders(record);
    this.#masks = Uint8Array.from({ length: VOLUME_EXTENTS }, (_, extent) => holders.mask(extent));
  }

  holds(seat: number, extent: number): boolean {
    return ((this.#masks[extent]! >>> seat) & 1) === 1;
  }
}

/** A record that was chosen, with the nodes that it calls in sync. */
interface Chosen {
  readonly epoch: number;
  readonly record: ClusterRecord;
  readonly holders: HeldExtents;
  readonly inSync: readonly { readonly node: NodeHost; readonly seat: number }[];
  /** By node, how often it had lost its power when this came to be known. */
  readonly boots: readonly number[];
}

export class CopyRules {
  readonly holdings: Holdings;
  readonly #nodes: readonly NodeHost[];
  /** By number of the volume. */
  readonly #registers: ReadonlyMap<number, VolumeRegisters>;
  /** By volume, those of its newest epoch, the newest last. */
  readonly #chosen = new Map<number, Chosen[]>();
  /** By volume and node, the boot in which it came to be in sync. */
  readonly #bootInSync = new Map<string, number>();

  constructor(
    holdings: Holdings,
    nodes: readonly NodeHost[],
    registers: ReadonlyMap<number, VolumeRegisters>,
  ) {
    this.holdings = holdings;
    this.#nodes = nodes;
    this.#registers = registers;
  }

  // ---- Records -----------------------------------------------------------------------------------------

  /** The newest record of a volume is known to be chosen. */
  chosen(volume: number, { ballot, bytes }: AcceptedRecord): void {
    if (!this.#registers.has(volume)) return;
    const record = decodeClusterRecord(bytes);
    const holders = new HeldExtents(record);
    const inSync = record.members.flatMap(({ node: id, state }, seat) => {
      const node = this.#nodes.find((one) => one.id === id);
      return state === "insync" && node !== undefined ? [{ node, seat }] : [];
    });
    const boots = this.#nodes.map(({ boot }) => boot);
    const next: Chosen = { epoch: ballot.epoch, record, holders, inSync, boots };
    const before = this.#chosen.get(volume) ?? [];
    const last = before.at(-1);
    this.#everyExtentHasACopy(next);
    if (last !== undefined) this.#enoughStay(volume, last, next);
    this.#noteBoots(volume, last, next);
    this.#chosen.set(volume, last?.epoch === next.epoch ? [...before, next] : [next]);
  }

  /** Whether no newer epoch has had a record chosen. */
  isNewest(volume: number, epoch: number): boolean {
    return this.#chosen.get(volume)?.at(-1)?.epoch === epoch;
  }

  #everyExtentHasACopy({ record, holders, inSync }: Chosen): void {
    for (let extent = 0; extent < VOLUME_EXTENTS; extent++) {
      if (inSync.some(({ seat }) => holders.holds(seat, extent))) continue;
      throw new Violation("I13", `generation ${record.generation} has no copy of extent ${extent}`);
    }
  }

  /** Below what changes need only those are taken out that are not whole any more. */
  #enoughStay(volume: number, last: Chosen, next: Chosen): void {
    const count = next.inSync.length;
    if (count >= last.inSync.length || count >= membersForChanges(next.record)) return;
    for (const { node } of last.inSync) {
      if (next.inSync.some((one) => one.node === node) || !this.#isWhole(volume, node)) continue;
      const { generation } = next.record;
      throw new Violation("I13", `generation ${generation} is without node ${node.index}: ${count} are left`);
    }
  }

  /** A member that joins has been flushed some time after the record before: if it lost power since, who knows. */
  #noteBoots(volume: number, last: Chosen | undefined, next: Chosen): void {
    for (const { node } of next.inSync) {
      if (last?.inSync.some((one) => one.node === node) === true) continue;
      this.#bootInSync.set(`${volume}/${node.index}`, (last ?? next).boots[node.index]!);
    }
  }

  /** It surely has what it had when it came to be in sync. */
  #isWhole(volume: number, node: NodeHost): boolean {
    if (this.#bootInSync.get(`${volume}/${node.index}`) !== node.boot) return false;
    return node.isFirstBoot || node.store?.identity.lossy === false;
  }

  /** An owner took a member out because it had come back without what it had not flushed. */
  tookOutAsNotWhole(volume: number, id: string): void {
    const node = this.#nodes.find((one) => one.id === id)!;
    if (this.#isWhole(volume, node))
      throw new Violation("I13", `node ${node.index} was taken out although it was whole`);
  }

  // ---- Answers -----------------------------------------------------------------------------------------

  /** A change of registers from `first` on was answered: by all that some record of the epoch calls in sync (I10). */
  acknowledged(
    volume: number,
    epoch: number,
    first: number,
    count: number,
    id: number,
    isZero: boolean,
  ): void {
    const shows = isZero ? ZEROS : id;
    this.#underSomeRecord(
      volume,
      epoch,
      "I10",
      `write ${id} was answered`,
      ({ node }, chosen) => {
        const holding = this.holdings.of(node.index, volume)!;
        for (let register = first; register < first + count; register++) {
          if (holding.shows[register] === UNKNOWN) continue;
          if (holding.shows[register] !== shows) return false;
          if (holding.under[register]! < chosen.record.generation) return false;
        }
        return true;
      },
      Math.floor(first / EXTENT_BLOCKS),
    );
  }

  /** A flush was answered: what clients rely on is stable on all members in sync (I6). */
  flushed(volume: number, epoch: number): void {
    this.#underSomeRecord(volume, epoch, "I6", "a flush was answered", ({ node, seat }, { holders }) => {
      if (node.store === null) return true;
      return this.#unstable(volume, node, (extent) => holders.holds(seat, extent)) < 0;
    });
  }

  /**
   * `holds` must be true of all members in sync, that hold `extent` if there is one, of a record of the epoch. An answer
   * may be late: who held the extent then, and does not any more, may have given it up.
   */
  #underSomeRecord(
    volume: number,
    epoch: number,
    invariant: Invariant,
    what: string,
    holds: (member: Chosen["inSync"][number], chosen: Chosen) => boolean,
    extent = -1,
  ): void {
    const records = this.#chosen.get(volume) ?? [];
    if (records.at(-1)?.epoch !== epoch) return;
    const newest = records.at(-1)!;
    const isStillHeld = (id: string): boolean => {
      const seat = newest.record.members.findIndex(({ node }) => node === id);
      return seat < 0 || newest.holders.holds(seat, extent);
    };
    let missing = -1;
    for (const chosen of records.toReversed()) {
      const lacking = chosen.inSync.find((member) => {
        const isAsked =
          extent < 0 || (chosen.holders.holds(member.seat, extent) && isStillHeld(member.node.id));
        return isAsked && !holds(member, chosen);
      });
      if (lacking === undefined) return;
      if (missing < 0) missing = lacking.node.index;
    }
    throw new Violation(invariant, `${what} in epoch ${epoch}, and node ${missing} does not have it`);
  }

  /** First register of which the node has nothing stable that clients rely on; −1: there is none. */
  #unstable(volume: number, { index }: NodeHost, holds: (extent: number) => boolean): number {
    const registers = this.#registers.get(volume)!;
    const { stable } = this.holdings.of(index, volume)!;
    for (let extent = 0; extent < VOLUME_EXTENTS; extent++) {
      if (!holds(extent)) continue;
      for (let register = extent * EXTENT_BLOCKS; register < (extent + 1) * EXTENT_BLOCKS; register++) {
        if (stable[register] === UNKNOWN) continue;
        if (!registers.isStillGood(register, stable[register]!)) return register;
      }
    }
    return -1;
  }

  // ---- Members -----------------------------------------------------------------------------------------

  /** A member was called in sync: it has what the others have, and what clients rely on is stable there (I12). */
  joined(volume: number, id: string, open: ReadonlySet<number>): void {
    const chosen = this.#chosen.get(volume)?.at(-1);
    const member = chosen?.inSync.find(({ node }) => node.id === id);
    if (chosen === undefined || member === undefined) return;
    this.copiesAreEqual(volume, open, "I12", `node ${member.node.index} joined`);
    const register = this.#unstable(volume, member.node, (extent) => {
      return chosen.holders.holds(member.seat, extent);
    });
    if (register < 0) return;
    throw new Violation(
      "I12",
      `node ${member.node.index} joined, and register ${register} is not stable there`,
    );
  }

  /** A node was told that nothing is missing any more of what a power loss took from it. */
  putRight(volume: number, node: NodeHost): void {
    const chosen = this.#chosen.get(volume)?.at(-1);
    const member = chosen?.inSync.find((one) => one.node === node);
    if (chosen === undefined || member === undefined) return;
    const register = this.#unstable(volume, node, (extent) => chosen.holders.holds(member.seat, extent));
    if (register >= 0)
      throw new Violation("I12", `node ${node.index} is whole again without register ${register}`);
  }

  /** Extents that are not `open` show the same on all members in sync. */
  copiesAreEqual(volume: number, open: ReadonlySet<number>, invariant: Invariant, when: string): void {
    const chosen = this.#chosen.get(volume)?.at(-1);
    for (let extent = 0; chosen !== undefined && extent < VOLUME_EXTENTS; extent++) {
      if (open.has(extent)) continue;
      const copies = this.#copiesOf(chosen, extent, volume);
      for (let i = extent * EXTENT_BLOCKS; i < (extent + 1) * EXTENT_BLOCKS; i++) {
        if (!isShownTwice(copies, i)) continue;
        const each = copies.map(({ node, holding }) => `${holding.shows[i]} on node ${node.index}`);
        throw new Violation(invariant, `${when}, and register ${i} is ${each.join(", ")}`);
      }
    }
  }

  #copiesOf({ inSync, holders }: Chosen, extent: number, volume: number) {
    return inSync
      .filter(({ node, seat }) => node.serving && holders.holds(seat, extent))
      .map(({ node }) => ({ node, holding: this.holdings.of(node.index, volume)! }));
  }

  /** An owner has begun: whoever it calls in sync has promised its epoch (I10). */
  activated(volume: number, epoch: number, promised: (node: number) => number): void {
    const chosen = this.#chosen.get(volume)?.at(-1);
    if (chosen?.epoch !== epoch) return;
    for (const { node } of chosen.inSync) {
      if (promised(node.index) < epoch)
        throw new Violation(
          "I10",
          `epoch ${epoch} calls node ${node.index} in sync, which has not promised it`,
        );
    }
  }

  /** An owner has reconciled these extents: every member in sync has them under its generation or a later one (I15). */
  reconciled(
    volume: number,
    generation: number,
    extents: Iterable<number>,
    isOfThen: (node: NodeHost) => boolean,
  ): void {
    const chosen = this.#chosen.get(volume)?.at(-1);
    if (chosen === undefined) return;
    const wanted = new Set(extents);
    for (const { node, seat } of chosen.inSync) {
      if (!node.serving || node.isImpostor || !isOfThen(node)) continue;
      node.store!.inventory(volume, (_layer, extent, under) => {
        if (!wanted.has(extent) || !chosen.holders.holds(seat, extent) || under >= generation) return;
        throw new Violation("I15", `node ${node.index} has extent ${extent} of ${under} after ${generation}`);
      });
    }
  }

  // ---- Cooling -----------------------------------------------------------------------------------------

  /** A node lets an extent cool: whatever it has of it, the other members in sync have too, or something newer (I19). */
  cooling(volume: number, index: number, extent: number): void {
    const chosen = this.#chosen.get(volume)?.at(-1);
    const registers = this.#registers.get(volume);
    if (chosen === undefined || registers === undefined) return;
    const copies = this.#copiesOf(chosen, extent, volume);
    const own = copies.find(({ node }) => node.index === index);
    if (own === undefined) return;
    for (const { node, holding } of copies) {
      const register = missingOf(own.holding, holding, extent, registers);
      if (register < 0) continue;
      const what = `register ${register} is ${own.holding.shows[register]} there`;
      const other = `${holding.shows[register]} on node ${node.index}`;
      throw new Violation("I19", `extent ${extent} cools on node ${index}: ${what} and ${other}`);
    }
  }
}

/** Whether two copies surely show different writes in the register. */
function isShownTwice(copies: readonly { readonly holding: Holding }[], register: number): boolean {
  let known = UNKNOWN;
  for (const { holding } of copies) {
    const shown = holding.shows[register]!;
    if (shown === UNKNOWN || shown === known) continue;
    if (known !== UNKNOWN) return true;
    known = shown;
  }
  return false;
}

/** First register of the extent that `other` shows something older of; −1: there is none. */
function missingOf(own: Holding, other: Holding, extent: number, registers: VolumeRegisters): number {
  for (let i = extent * EXTENT_BLOCKS; i < (extent + 1) * EXTENT_BLOCKS; i++) {
    const has = own.shows[i]!;
    const shown = other.shows[i]!;
    if (has === UNKNOWN || has === ZEROS || shown === UNKNOWN || shown >= has) continue;
    if (shown !== ZEROS || !registers.wasZeroedAfter(i, has)) return i;
  }
  return -1;
}
