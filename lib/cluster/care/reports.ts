/** What nodes say to be wrong with their copies, as a gateway has heard it last. */
import type { NodeId } from "../../replica/api.js";
import type { NodeDescription } from "../description.js";
import type { NodePlace } from "../dial.js";
import type { CopyReport } from "./needs.js";

/** Nodes that are asked at a time. */
const ASKED_AT_ONCE = 8;

export interface ReportHost {
  /** Clock.now. */
  now(): number;
  /** Null: it does not answer. */
  describe(place: NodePlace): Promise<NodeDescription | null>;
}

export class NodeReports {
  readonly #host: ReportHost;
  #said = new Map<NodeId, ReadonlyMap<number, CopyReport>>();
  #isAsking = false;

  constructor(host: ReportHost) {
    this.#host = host;
  }

  reportOf(node: NodeId, volume: number): CopyReport | null {
    return this.#said.get(node)?.get(volume) ?? null;
  }

  /** Asks all of them, unless that is under way. One that does not answer has said nothing. */
  async refresh(places: readonly NodePlace[]): Promise<void> {
    if (this.#isAsking) return;
    this.#isAsking = true;
    const said = new Map<NodeId, ReadonlyMap<number, CopyReport>>();
    const queue = [...places];
    const ask = async (): Promise<void> => {
      for (let place = queue.pop(); place !== undefined; place = queue.pop()) {
        const heardAt = this.#host.now();
        const description = await this.#host.describe(place);
        if (description !== null) said.set(place.node, reportsOf(description, heardAt));
      }
    };
    try {
      await Promise.all(Array.from({ length: ASKED_AT_ONCE }, ask));
      this.#said = said;
    } finally {
      this.#isAsking = false;
    }
  }
}

function reportsOf({ rot, losses }: NodeDescription, heardAt: number): ReadonlyMap<number, CopyReport> {
  const reports = new Map<number, CopyReport>();
  for (const { volume, extents } of rot) reports.set(volume, { rotten: extents, lossy: false, heardAt });
  for (const volume of losses) {
    const rotten = reports.get(volume)?.rotten ?? 0;
    reports.set(volume, { rotten, lossy: true, heardAt });
  }
  return reports;
}
