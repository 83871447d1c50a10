/**
 * Which nodes hold which extents, as the nodes say themselves: what the index in Redis is made of and made anew from.
 * It decides nothing: whoever serves a volume takes inventories of its own (docs/architecture/replica.md "Activation").
 *
 * Invariant: a node that does not answer is taken to hold what it held when it last did.
 */
import { z } from "zod";
import type { NodeId } from "../replica/api.js";
import type { MemberStore } from "../store/index.js";
import { addressText } from "../uring/address.js";
import { shortId } from "./description.js";
import { askText, type DialEnvironment } from "./dial.js";
import type { NodeDirectory } from "./directory.js";
import type { ClusterKey } from "./key.js";
import { Purpose } from "./prelude.js";

/** Extents of one map of bits. */
const MAP_EXTENTS = 512;
const MAP_BYTES = MAP_EXTENTS / 8;

const whole = z.number().int().nonnegative();
const heldSchema = z.object({
  slots: whole,
  slotBytes: whole,
  liveSlots: whole,
  volumes: z.array(
    z.object({ volume: whole, layer: whole, maps: z.record(z.string().regex(/^\d+$/), z.string()) }),
  ),
});
type Held = z.infer<typeof heldSchema>;

/** Everything that the store of a node holds: a hexadecimal map of bits for each 512 extents. */
export function encodeHeld(store: Pick<MemberStore, "inventory" | "volumesWithSlots" | "stats">): string {
  const { slots, slotBytes, liveSlots } = store.stats();
  const volumes: Held["volumes"] = [];
  for (const volume of store.volumesWithSlots()) {
    const layers = new Map<number, Map<number, Buffer>>();
    store.inventory(volume, (layer, extent) => {
      const maps = layers.get(layer) ?? new Map<number, Buffer>();
      layers.set(layer, maps);
      const index = Math.floor(extent / MAP_EXTENTS);
      const map = maps.get(index) ?? Buffer.alloc(MAP_BYTES);
      maps.set(index, map);
      const bit = extent % MAP_EXTENTS;
      map[bit >>> 3] = map[bit >>> 3]! | (1 << (bit & 7));
    });
    for (const [layer, maps] of layers) {
      const encoded = [...maps].map(([index, map]) => [String(index), map.toString("hex")] as const);
      volumes.push({ volume, layer, maps: Object.fromEntries(encoded) });
    }
  }
  return JSON.stringify({ slots, slotBytes, liveSlots, volumes });
}

/** What one node has said: maps by volume, layer and number. */
interface NodeHeld {
  readonly facts: Readonly<Record<string, string | number>>;
  readonly maps: ReadonlyMap<string, Buffer>;
}

const NOTHING: ReadonlyMap<string, Buffer> = new Map();
const NO_BITS = Buffer.alloc(MAP_BYTES);

export type ExtentChange = (volume: number, layer: number, extent: number, exists: boolean) => void;

export class HeldExtents {
  readonly #environment: DialEnvironment;
  readonly #key: ClusterKey;
  readonly #directory: NodeDirectory;
  #nodes = new Map<NodeId, NodeHeld>();

  constructor(environment: DialEnvironment, key: ClusterKey, directory: NodeDirectory) {
    this.#environment = environment;
    this.#key = key;
    this.#directory = directory;
  }

  /** Asks all nodes; `changed` is told every extent whose holders are others now. Rejected when nobody answers. */
  async refresh(changed: ExtentChange): Promise<void> {
    const { places } = this.#directory;
    const answers = await Promise.allSettled(
      places.map(({ node, address }) =>
        askText(this.#environment, this.#key, { address, purpose: Purpose.Extents, expected: node }),
      ),
    );
    const now = new Map<NodeId, NodeHeld>();
    answers.forEach((answer, i) => {
      const { node, address } = places[i]!;
      const before = this.#nodes.get(node);
      if (answer.status === "fulfilled") now.set(node, parseHeld(answer.value.text, addressText(address)));
      else if (before !== undefined) now.set(node, before);
    });
    const [first] = answers;
    if (now.size === 0 && first?.status === "rejected") throw first.reason;
    const differing = differences(this.#nodes, now);
    this.#nodes = now;
    for (const { volume, layer, extent } of differing)
      changed(volume, layer, extent, this.holders(volume, layer, extent) !== "");
  }

  /** Extents of a volume that somebody holds, in no order, each once. */
  inventory(volume: number, visit: (layer: number, extent: number) => void): void {
    const seen = new Set<string>();
    for (const { maps } of this.#nodes.values()) {
      for (const name of maps.keys()) {
        if (seen.has(name) || !name.startsWith(`${volume}:`)) continue;
        seen.add(name);
        const { layer, index } = placeOf(name);
        for (let bit = 0; bit < MAP_EXTENTS; bit++) {
          if (this.#isHeld(name, bit)) visit(layer, index * MAP_EXTENTS + bit);
        }
      }
    }
  }

  /** Short ids of the nodes that hold an extent, sorted, with commas between. */
  holders(volume: number, layer: number, extent: number): string {
    const name = nameOf(volume, layer, Math.floor(extent / MAP_EXTENTS));
    const bit = extent % MAP_EXTENTS;
    const nodes: string[] = [];
    for (const [node, { maps }] of this.#nodes) if (has(maps.get(name), bit)) nodes.push(shortId(node));
    return nodes.sort().join(",");
  }

  /** Capacity of each node by its short id. */
  nodes(): ReadonlyMap<string, Readonly<Record<string, string | number>>> {
    return new Map([...this.#nodes].map(([node, { facts }]) => [shortId(node), facts]));
  }

  #isHeld(name: string, bit: number): boolean {
    for (const { maps } of this.#nodes.values()) if (has(maps.get(name), bit)) return true;
    return false;
  }
}

/** Throws Error. */
function parseHeld(text: string, address: string): NodeHeld {
  const { slots, slotBytes, liveSlots, volumes } = heldSchema.parse(JSON.parse(text));
  const maps = new Map<string, Buffer>();
  for (const { volume, layer, maps: encoded } of volumes) {
    for (const [index, hex] of Object.entries(encoded)) {
      const map = Buffer.from(hex, "hex");
      if (map.length !== MAP_BYTES) throw new Error(`a map of ${map.length} bytes`);
      maps.set(nameOf(volume, layer, Number(index)), map);
    }
  }
  return { facts: { address, slots, slotBytes, liveSlots }, maps };
}

interface ExtentPlace {
  readonly volume: number;
  readonly layer: number;
  readonly extent: number;
}

function differences(
  before: ReadonlyMap<NodeId, NodeHeld>,
  now: ReadonlyMap<NodeId, NodeHeld>,
): readonly ExtentPlace[] {
  const places: ExtentPlace[] = [];
  for (const node of new Set([...before.keys(), ...now.keys()])) {
    const old = before.get(node)?.maps ?? NOTHING;
    const maps = now.get(node)?.maps ?? NOTHING;
    if (old === maps) continue;
    for (const name of new Set([...old.keys(), ...maps.keys()])) {
      const [a, b] = [old.get(name) ?? NO_BITS, maps.get(name) ?? NO_BITS];
      if (a.equals(b)) continue;
      const { volume, layer, index } = placeOf(name);
      for (let bit = 0; bit < MAP_EXTENTS; bit++) {
        if (has(a, bit) !== has(b, bit)) places.push({ volume, layer, extent: index * MAP_EXTENTS + bit });
      }
    }
  }
  return places;
}

function has(map: Buffer | undefined, bit: number): boolean {
  return map !== undefined && (map[bit >>> 3]! & (1 << (bit & 7))) !== 0;
}

function nameOf(volume: number, layer: number, index: number): string {
  return `${volume}:${layer}:${index}`;
}

function placeOf(name: string): { readonly volume: number; readonly layer: number; readonly index: number } {
  const [volume, layer, index] = name.split(":", 3).map(Number);
  return { volume: volume!, layer: layer!, index: index! };
}
