/**
 * The board of a config node: what gateways let one another know. Who lives, which volumes a gateway keeps open for the
 * sake of their copies only, and which of those somebody else asks for (docs/architecture/cluster.md "The caretaker").
 *
 * Invariants
 *  1. Nothing about data is decided by it: epochs say who owns a volume. It is kept in memory, and a node that was
 *     started anew knows nobody.
 *  2. It is bounded: gateways, what each says, and for how long anything is asked for.
 */
import { z } from "zod";
import type { PeerId } from "../../replica/api.js";

/** Volumes that one gateway keeps, or asks for, at a time. */
export const NOTED_MAX = 16;
/** Gateways that a board knows. The one that has been silent for longest goes first. */
const GATEWAYS_MAX = 256;
/** Volumes that are asked for at a time, of all gateways. Others find no room, and go on as if nobody kept theirs. */
const WANTED_MAX = 256;
/** What somebody asks for is forgotten when he does not ask again for so long. */
export const WANTED_MS = 3000;
const NAME_CHARS_MAX = 256;

const whole = z.number().int().nonnegative();
const volumes = z.array(whole).max(NOTED_MAX);

const noteSchema = z.object({
  peer: whole,
  /** What people call the gateway. */
  name: z.string().max(NAME_CHARS_MAX),
  /** Volumes that it has open for nobody but their copies. */
  keeps: volumes,
  /** Volumes that it would have others let go of. */
  wants: volumes,
});
/** What a gateway says. */
export type GatewayNote = z.infer<typeof noteSchema>;

const boardSchema = z.object({
  gateways: z.array(z.object({ peer: whole, name: z.string(), keeps: z.array(whole), agoMs: whole })),
  wanted: z.array(whole),
});
/** What a board says: `agoMs` since each gateway was heard of last. */
export type BoardText = z.infer<typeof boardSchema>;

export function encodeNote(note: GatewayNote): string {
  return JSON.stringify({ ...note, name: note.name.slice(0, NAME_CHARS_MAX) });
}

/** Throws Error. */
export function parseBoard(text: string): BoardText {
  return boardSchema.parse(JSON.parse(text));
}

interface Heard {
  readonly note: GatewayNote;
  readonly at: number;
}

export class Board {
  readonly #now: () => number;
  /** Who was heard of last is last. */
  readonly #heard = new Map<PeerId, Heard>();
  /** By volume, until when it is asked for. */
  readonly #wanted = new Map<number, number>();

  /** `now`: Clock.now. */
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Takes a gateway's note and answers with the board. Throws Error: it is none. */
  post(text: string): string {
    const note = noteSchema.parse(JSON.parse(text));
    const now = this.#now();
    this.#heard.delete(note.peer);
    this.#heard.set(note.peer, { note, at: now });
    if (this.#heard.size > GATEWAYS_MAX) this.#heard.delete(this.#heard.keys().next().value!);
    for (const [volume, until] of this.#wanted) if (until <= now) this.#wanted.delete(volume);
    for (const volume of note.wants)
      if (this.#wanted.size < WANTED_MAX || this.#wanted.has(volume))
        this.#wanted.set(volume, now + WANTED_MS);
    return JSON.stringify(this.#text(now));
  }

  #text(now: number): BoardText {
    const gateways = [...this.#heard.values()].map(({ note: { peer, name, keeps }, at }) => ({
      peer,
      name,
      keeps,
      agoMs: Math.round(now - at),
    }));
    return { gateways, wanted: [...this.#wanted.keys()] };
  }
}
