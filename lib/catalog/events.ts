/**
 * The event log: what an operator wants to have been told. A bounded ring in memory is what the admin API
 * answers from; the Redis stream follows it.
 *
 * Invariants
 *  1. Ids strictly rise, over restarts too (they begin with the wall clock, and `raiseFloor` lifts them over
 *     what the stream has already), so copying the ring into the stream is "everything above its last id".
 *  2. Memory is bounded: the oldest event goes when the ring is full.
 */
export type EventKind =
  | "server-started"
  | "server-stopping"
  | "volume-created"
  | "volume-changed"
  | "volume-removed"
  | "volume-opened"
  | "volume-closed"
  | "volume-lost"
  | "care-started"
  | "care-ended"
  | "bit-rot"
  | "store-full"
  | "store-has-room"
  | "store-failed"
  | "store-lossy"
  | "store-settled"
  | "blocks-adopted"
  | "mirror-lost"
  | "mirror-rebuilt"
  | "mirror-refused"
  | "redis-restarted"
  | "io-engine-fallback"
  | "packing-fallback"
  | "scrub-started"
  | "scrub-ended"
  | "tls-reloaded";

export interface LaminaEvent {
  /** milliseconds-sequence, as Redis writes stream ids. */
  readonly id: string;
  readonly at: number;
  readonly kind: EventKind;
  /** Name of the volume it is about; null when it is about the server. */
  readonly volume: string | null;
  /** One sentence. */
  readonly text: string;
}

/** Events kept in memory. The oldest goes first. */
export const EVENTS_IN_MEMORY = 1000;

export class EventLog {
  readonly #wall: () => number;
  readonly #ring: LaminaEvent[] = [];
  readonly #listeners = new Set<(event: LaminaEvent) => void>();
  #lastMs = 0;
  #lastSequence = 0;

  /** `wall` gives milliseconds since 1970. */
  constructor(wall: () => number) {
    this.#wall = wall;
  }

  record(kind: EventKind, volume: string | null, text: string): LaminaEvent {
    const at = this.#wall();
    if (at > this.#lastMs) {
      this.#lastMs = at;
      this.#lastSequence = 0;
    } else {
      this.#lastSequence++;
    }
    const event = { id: `${this.#lastMs}-${this.#lastSequence}`, at, kind, volume, text };
    this.#ring.push(event);
    if (this.#ring.length > EVENTS_IN_MEMORY) this.#ring.shift();
    for (const listener of this.#listeners) listener(event);
    return event;
  }

  /** Events above `id` ("0-0" for all that are kept), oldest first, the newest `limit` of them. */
  after(id: string, limit: number = EVENTS_IN_MEMORY): LaminaEvent[] {
    const first = this.#ring.findIndex((event) => compareEventIds(event.id, id) > 0);
    return first < 0 ? [] : this.#ring.slice(Math.max(first, this.#ring.length - limit));
  }

  get lastId(): string {
    return `${this.#lastMs}-${this.#lastSequence}`;
  }

  /** Later events get ids above `id`, whatever the wall clock says. */
  raiseFloor(id: string): void {
    if (compareEventIds(id, this.lastId) <= 0) return;
    [this.#lastMs, this.#lastSequence] = splitId(id);
  }

  /** Returns a function that ends the subscription. */
  subscribe(listener: (event: LaminaEvent) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

/** Below 0, 0 or above 0, like a comparison of numbers. */
export function compareEventIds(a: string, b: string): number {
  const [aMs, aSequence] = splitId(a);
  const [bMs, bSequence] = splitId(b);
  return aMs === bMs ? aSequence - bSequence : aMs - bMs;
}

export const EVENT_ID = /^\d{1,15}-\d{1,15}$/;

function splitId(id: string): [number, number] {
  const [ms, sequence] = id.split("-", 2);
  return [Number(ms), Number(sequence ?? 0)];
}
