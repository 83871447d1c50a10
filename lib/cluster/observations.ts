/**
 * What one look at the volumes of a gateway cannot tell: since when one waits, and how fast its copies become whole.
 * Looked at once a second, so what is over sooner may never be seen.
 */
import type { NodeId } from "../replica/api.js";
import type { Member } from "../replica/owner/member.js";
import type { OwnedVolume } from "./owned-volume.js";

/** Looks at which a volume waits before that is told: most waits are over sooner. */
const LOOKS_UNTIL_TOLD = 2;

/** Resync of one copy. */
export interface Progress {
  /** Extents that were to do at the beginning, and are now. */
  readonly total: number;
  readonly toGo: number;
  /** Null: nothing is done yet. */
  readonly secondsLeft: number | null;
}

interface Wait {
  /** Wall clock. */
  readonly since: number;
  looks: number;
}

interface Pass {
  readonly pass: object;
  /** Clock.now, and extents to do then. */
  readonly since: number;
  readonly toGo: number;
}

export interface ObservationEvents {
  /** A volume waits, or goes on; one sentence. */
  tell(volume: string, text: string): void;
}

export class Observations {
  readonly #events: ObservationEvents;
  readonly #waits = new Map<number, Wait>();
  readonly #passes = new Map<string, Pass>();

  constructor(events: ObservationEvents) {
    this.#events = events;
  }

  /** Wall clock since which the volume has been seen waiting; null: it was not. */
  waitingSince(volume: number): number | null {
    return this.#waits.get(volume)?.since ?? null;
  }

  /** Null: the copy is not being made equal now. `now`: Clock.now. */
  progressOf(volume: number, member: Member, now: number): Progress | null {
    const { pass } = member;
    if (pass === null) return null;
    const toGo = pass.owed.size;
    const begun = this.#passes.get(keyOf(volume, member.node));
    const done = begun?.pass === pass ? begun.toGo - toGo : 0;
    const secondsLeft = done <= 0 ? null : Math.ceil((toGo * (now - begun!.since)) / done / 1000);
    return { total: Math.max(pass.total, toGo), toGo, secondsLeft };
  }

  /** `wall` and `now` of the clock. */
  look(volumes: readonly OwnedVolume[], names: (id: number) => string, wall: number, now: number): void {
    for (const owned of volumes) {
      this.#lookAtWait(owned, names(owned.id), wall);
      for (const member of owned.set?.members ?? []) this.#lookAtPass(owned.id, member, now);
    }
    const ids = new Set(volumes.map(({ id }) => id));
    for (const id of this.#waits.keys()) if (!ids.has(id)) this.#waits.delete(id);
    for (const key of this.#passes.keys()) if (!ids.has(Number.parseInt(key, 10))) this.#passes.delete(key);
  }

  #lookAtWait({ id, waiting }: OwnedVolume, name: string, wall: number): void {
    const known = this.#waits.get(id);
    if (waiting === null) {
      this.#waits.delete(id);
      if (known !== undefined && known.looks >= LOOKS_UNTIL_TOLD)
        this.#events.tell(name, `volume ${name} goes on after ${Math.ceil((wall - known.since) / 1000)} s`);
      return;
    }
    const wait = known ?? { since: wall, looks: 0 };
    wait.looks++;
    this.#waits.set(id, wait);
    if (wait.looks === LOOKS_UNTIL_TOLD) this.#events.tell(name, waiting);
  }

  #lookAtPass(volume: number, { node, pass }: Member, now: number): void {
    const key = keyOf(volume, node);
    if (pass === null) this.#passes.delete(key);
    else if (this.#passes.get(key)?.pass !== pass && pass.total > 0)
      this.#passes.set(key, { pass, since: now, toGo: pass.owed.size });
  }
}

function keyOf(volume: number, node: NodeId): string {
  return `${volume} ${node}`;
}
