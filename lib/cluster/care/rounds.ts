/**
 * The looks of a gateway at who is in need: it says its own on the boards of the config nodes, hears the others, asks the
 * nodes from time to time, and has its caretaker act. Without a caretaker it still says what it has to say.
 *
 * Invariant: nothing is opened while no majority of the config nodes has a board: nobody could ask for it then.
 */
import { setTimeout as sleep } from "node:timers/promises";
import type { Clock, Random } from "../../core/clock.js";
import type { NodeId, PeerId } from "../../replica/api.js";
import type { ClusterRecord } from "../../replica/owner/record.js";
import { inSyncOf } from "../../replica/owner/record.js";
import type { NodePlace } from "../dial.js";
import { type BoardAsker, type BoardView, NO_BOARD } from "./board-view.js";
import { type CareHost, type CareState, Caretaker, type Kept } from "./caretaker.js";
import { needOf, type Surroundings } from "./needs.js";
import { NodeReports, type ReportHost } from "./reports.js";

/** Looks between two notes of a gateway that keeps nothing. */
const NOTE_LOOKS = 5;
/** Looks between two questions to the nodes about their copies: while nothing is kept, and while something is. */
const REPORT_LOOKS = 30;
const REPORT_LOOKS_KEEPING = 5;
/** How long somebody waits for a volume that is kept elsewhere for its copies only, and how often he looks. */
export const HAND_OVER_MAX_MS = 5000;
const HAND_OVER_LOOK_MS = 250;

export interface CareGround extends ReportHost {
  readonly clock: Clock;
  readonly random: Random;
  readonly peer: PeerId;
  /** What people call this gateway. */
  readonly name: string;
  readonly board: Pick<BoardAsker, "post">;
  /** Numbers of all volumes; and a live one's record as it was heard of last. */
  volumes(): readonly number[];
  recordOf(volume: number): ClusterRecord | undefined;
  /** Asks for all records anew. Rejected: nobody answers. */
  refresh(): Promise<void>;
  places(): readonly NodePlace[];
  isLinked(node: NodeId): boolean;
  nameOf(node: NodeId): string;
  isOpen(volume: number): boolean;
  keep(volume: number): Kept | null;
  tell(kind: "care-started" | "care-ended", volume: string, text: string): void;
}

export class CareRounds {
  readonly #ground: CareGround;
  readonly #caretaker: Caretaker | null;
  readonly #reports: NodeReports;
  #board: BoardView = NO_BOARD;
  #said = 0;
  /** At the look before. */
  #hasKept = false;
  #reportLooks: number;

  /** `delayMs`: for how long a volume needs care before it gets it; null: never. */
  constructor(ground: CareGround, delayMs: number | null) {
    this.#ground = ground;
    this.#reports = new NodeReports(ground);
    this.#reportLooks = ground.random.u32() % REPORT_LOOKS;
    this.#caretaker = delayMs === null ? null : this.#caretakerOf(delayMs);
  }

  #caretakerOf(delayMs: number): Caretaker {
    const ground = this.#ground;
    const around: Surroundings = {
      isLinked: (node) => ground.isLinked(node),
      nameOf: (node) => ground.nameOf(node),
      isGone: (owner, volume) => (owner === ground.peer ? !ground.isOpen(volume) : this.#board.isGone(owner)),
      reportOf: (node, volume) => this.#reports.reportOf(node, volume),
    };
    const host: CareHost = {
      now: () => ground.clock.now(),
      random: ground.random,
      volumes: () => ground.volumes(),
      recordOf: (volume) => ground.recordOf(volume),
      needOf: (record, since) => needOf(record, around, since),
      rottenIn: (record) =>
        inSyncOf(record).reduce((sum, { node }) => sum + (around.reportOf(node, record.id)?.rotten ?? 0), 0),
      isOpen: (volume) => ground.isOpen(volume),
      isWanted: (volume) => this.#board.isWanted(volume),
      keep: (volume) => ground.keep(volume),
      tell: (kind, volume, text) => ground.tell(kind, volume, text),
    };
    return new Caretaker(host, delayMs);
  }

  /**
   * Says what it has to say, if it is time, and hears the others. Once a second, whether records are heard of or not: who
   * says nothing for long is taken for dead. Never rejected.
   */
  async say(): Promise<void> {
    const keeps = this.#keeps;
    const isTime = this.#said++ % NOTE_LOOKS === 0;
    // That it keeps nothing more is said at once, too.
    if (keeps.length > 0 || this.#hasKept || isTime) this.#board = await this.#post([]);
    this.#hasKept = keeps.length > 0;
  }

  /** After the records were heard of. */
  look(): void {
    const keeps = this.#keeps;
    const caretaker = this.#caretaker;
    if (caretaker === null) return;
    if (this.#reportLooks++ % (keeps.length > 0 ? REPORT_LOOKS_KEEPING : REPORT_LOOKS) === 0)
      void this.#reports.refresh(this.#ground.places());
    if (this.#board.isHeard) caretaker.look();
  }

  get #keeps(): readonly number[] {
    return this.#caretaker?.keeps ?? [];
  }

  #post(wants: readonly number[]): Promise<BoardView> {
    const { peer, name, board } = this.#ground;
    return board.post({ peer, name, keeps: [...this.#keeps], wants: [...wants] });
  }

  /** Has the gateway let go of a volume that keeps it only for its copies, if any does, and waits for that. */
  async askFor(volume: number): Promise<void> {
    const ground = this.#ground;
    const until = ground.clock.now() + HAND_OVER_MAX_MS;
    while ((await this.#post([volume])).keeperOf(volume) !== null && ground.clock.now() < until) {
      await sleep(HAND_OVER_LOOK_MS);
      await ground.refresh().catch(() => undefined);
      if (ground.recordOf(volume)?.owner.released !== false) return;
    }
  }

  /** The gateway that keeps a volume for its copies only; null: none says so. */
  keeperOf(volume: number): string | null {
    return this.#board.keeperOf(volume);
  }

  /** How many volumes this gateway keeps, and how many in need are known to it. */
  get kept(): number {
    return this.#keeps.length;
  }

  get inNeed(): number {
    return this.#caretaker?.inNeed ?? 0;
  }

  /** What they are, `max` of them. */
  states(max: number): readonly CareState[] {
    return this.#caretaker?.states(max) ?? [];
  }

  /** Lets go of what it keeps, and takes nothing more. */
  stop(): void {
    this.#caretaker?.stop();
  }
}
