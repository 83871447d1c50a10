/**
 * The boards of the config nodes as a gateway reads them: all of them together, each time it has said its own.
 *
 * Invariant: a gateway counts as gone only when most config nodes remember it and none has heard of it lately. Who is
 * not remembered (the nodes were started anew, or the gateway says nothing because it is of an older version) is not
 * known to be gone.
 */
import type { PeerId } from "../../replica/api.js";
import { majorityOf } from "../catalogue.js";
import { askText, type DialEnvironment, type NodePlace } from "../dial.js";
import type { ClusterKey } from "../key.js";
import { Purpose } from "../prelude.js";
import { type BoardText, encodeNote, type GatewayNote, parseBoard } from "./board.js";

/**
 * A gateway that says nothing for so long is gone: its lease has ended long ago. One that was only stopped loses what it
 * owned, and nothing that it has acknowledged.
 */
export const GATEWAY_SILENT_MAX_MS = 30_000;
/** Config nodes that have not answered by then are not waited for; nor, when most have, for so long. */
const ANSWER_MAX_MS = 1000;
const OTHERS_MAX_MS = 100;
/** What a gateway has said counts for so long. */
const NOTE_FRESH_MS = 5000;

interface Known {
  readonly name: string;
  /** Of the one that heard of it last. */
  agoMs: number;
  keeps: readonly number[];
  /** Config nodes that remember it. */
  count: number;
}

export class BoardView {
  readonly #majority: number;
  readonly #known = new Map<PeerId, Known>();
  readonly #wanted = new Set<number>();
  /** A majority of the config nodes has answered. */
  readonly isHeard: boolean;

  constructor(texts: readonly BoardText[], majority: number) {
    this.#majority = majority;
    this.isHeard = texts.length >= majority;
    for (const { gateways, wanted } of texts) {
      for (const volume of wanted) this.#wanted.add(volume);
      for (const { peer, name, keeps, agoMs } of gateways) {
        const known = this.#known.get(peer);
        if (known === undefined) this.#known.set(peer, { name, agoMs, keeps, count: 1 });
        else this.#merge(known, agoMs, keeps);
      }
    }
  }

  #merge(known: Known, agoMs: number, keeps: readonly number[]): void {
    known.count++;
    if (agoMs >= known.agoMs) return;
    known.agoMs = agoMs;
    known.keeps = keeps;
  }

  isGone(peer: PeerId): boolean {
    const known = this.#known.get(peer);
    if (!this.isHeard || known === undefined) return false;
    return known.count >= this.#majority && known.agoMs >= GATEWAY_SILENT_MAX_MS;
  }

  /** The gateway that keeps a volume for the sake of its copies only; null: nobody says so. */
  keeperOf(volume: number): string | null {
    for (const { name, agoMs, keeps } of this.#known.values())
      if (agoMs <= NOTE_FRESH_MS && keeps.includes(volume)) return name;
    return null;
  }

  isWanted(volume: number): boolean {
    return this.#wanted.has(volume);
  }
}

export const NO_BOARD = new BoardView([], 1);

export class BoardAsker {
  readonly #environment: DialEnvironment;
  readonly #key: ClusterKey;
  readonly #config: () => readonly NodePlace[];

  /** `config`: the config nodes as they are now. */
  constructor(environment: DialEnvironment, key: ClusterKey, config: () => readonly NodePlace[]) {
    this.#environment = environment;
    this.#key = key;
    this.#config = config;
  }

  /** Says it to every config node, and what those say that answer soon. Never rejected. */
  post(note: GatewayNote): Promise<BoardView> {
    const config = this.#config();
    const majority = majorityOf(config);
    const question = encodeNote(note);
    const texts: BoardText[] = [];
    return new Promise((resolve) => {
      const { clock } = this.#environment;
      const end = (): void => resolve(new BoardView(texts, majority));
      // One that has gone dark holds up nobody who waits for a volume.
      let deadline = clock.setTimer(ANSWER_MAX_MS, end);
      let open = config.length;
      for (const { node, address } of config) {
        askText(this.#environment, this.#key, { address, purpose: Purpose.Board, expected: node, question })
          .then(({ text }) => texts.push(parseBoard(text)))
          .catch(() => undefined)
          .finally(() => {
            open--;
            const isEnough = texts.length === majority;
            if (open > 0 && !isEnough) return;
            deadline.cancel();
            if (open === 0) end();
            else deadline = clock.setTimer(OTHERS_MAX_MS, end);
          });
      }
    });
  }
}
