/**
 * The definition that the checker is measured against: a search over every order in which the writes of one
 * register can have taken effect. Exponential; for histories of a dozen events.
 */

export type HistoryEvent =
  | { readonly kind: "write"; readonly op: number; readonly zeros: boolean; readonly fua: boolean }
  | { readonly kind: "written" | "failed"; readonly op: number }
  | { readonly kind: "read"; readonly op: number }
  /** `value`: number of the write that was seen; 0 for zeros. */
  | { readonly kind: "seen"; readonly op: number; readonly value: number }
  | { readonly kind: "flush" | "flushed"; readonly op: number }
  | { readonly kind: "kill" | "power" };

interface State {
  /** Values that the register had since the last stable one, that one first; the last is the value now. */
  readonly effects: readonly Effect[];
  /** Writes without effect yet. */
  readonly waiting: readonly number[];
  /** Reads in flight, and whether a moment with their value has come. */
  readonly reads: readonly { readonly op: number; readonly met: boolean }[];
  /** Flushes in flight, and the effect that was the latest when each began. */
  readonly flushes: readonly { readonly op: number; readonly at: number }[];
}

interface Effect {
  /** Position in the order of all effects. */
  readonly at: number;
  readonly op: number;
  readonly value: number;
}

/** Whether some order of effects explains the history. */
export function possible(events: readonly HistoryEvent[]): boolean {
  const expected = new Map<number, number>();
  const writes = new Map<number, { zeros: boolean; fua: boolean }>();
  for (const event of events) {
    if (event.kind === "seen") expected.set(event.op, event.value);
    if (event.kind === "write") writes.set(event.op, event);
  }
  const shownBy = (op: number): number => (writes.get(op)!.zeros ? 0 : op);
  const tried = new Set<string>();

  const meet = (state: State): State => {
    const now = state.effects.at(-1)!.value;
    return {
      ...state,
      reads: state.reads.map((read) => ({ op: read.op, met: read.met || expected.get(read.op) === now })),
    };
  };

  const search = (index: number, state: State): boolean => {
    if (index === events.length) return true;
    const key = `${index} ${JSON.stringify(state)}`;
    if (tried.has(key)) return false;
    tried.add(key);
    for (const op of state.waiting) {
      const effect = { at: state.effects.at(-1)!.at + 1, op, value: shownBy(op) };
      const next = meet({
        ...state,
        effects: [...state.effects, effect],
        waiting: state.waiting.filter((other) => other !== op),
      });
      if (search(index, next)) return true;
    }
    return successors(events[index]!, state).some((next) => search(index + 1, next));
  };

  const successors = (event: HistoryEvent, state: State): State[] => {
    switch (event.kind) {
      case "write":
        return [{ ...state, waiting: [...state.waiting, event.op] }];
      case "written": {
        if (state.waiting.includes(event.op)) return [];
        const own = state.effects.find((effect) => effect.op === event.op);
        return [writes.get(event.op)!.fua && own !== undefined ? stableFrom(state, own.at) : state];
      }
      case "failed":
        return [{ ...state, waiting: state.waiting.filter((op) => op !== event.op) }];
      case "read":
        return [meet({ ...state, reads: [...state.reads, { op: event.op, met: false }] })];
      case "seen": {
        const read = state.reads.find((other) => other.op === event.op)!;
        return read.met ? [{ ...state, reads: state.reads.filter((other) => other !== read) }] : [];
      }
      case "flush":
        return [{ ...state, flushes: [...state.flushes, { op: event.op, at: state.effects.at(-1)!.at }] }];
      case "flushed": {
        const flush = state.flushes.find((other) => other.op === event.op)!;
        const rest = state.flushes.filter((other) => other !== flush);
        return [{ ...stableFrom(state, flush.at), flushes: rest }];
      }
      case "kill":
        return [{ effects: state.effects, waiting: [], reads: [], flushes: [] }];
      case "power":
        return state.effects.map((effect) => ({ effects: [effect], waiting: [], reads: [], flushes: [] }));
    }
  };

  return search(0, { effects: [{ at: 0, op: 0, value: 0 }], waiting: [], reads: [], flushes: [] });
}

/** Nothing before the effect at position `at` can come back. */
function stableFrom(state: State, at: number): State {
  return { ...state, effects: state.effects.filter((effect) => effect.at >= at) };
}
