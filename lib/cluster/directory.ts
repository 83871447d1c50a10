/**
 * The nodes of a cluster and where they are reached: the config nodes, which every process has written down, and the
 * other devices that are registered with a majority of them.
 *
 * Invariant: a node that was listed stays known, because a record may name it, until the config nodes say that it was
 * taken out.
 */
import type { NodeId } from "../replica/api.js";
import { askMajority } from "./catalogue.js";
import { type DeviceAnswer, parseDevices } from "./description.js";
import type { DialEnvironment, NodeAddress, NodePlace } from "./dial.js";
import type { ClusterKey } from "./key.js";
import { parsePlace } from "./places.js";
import { Purpose } from "./prelude.js";

export class NodeDirectory {
  readonly #config: () => readonly NodePlace[];
  readonly #environment: DialEnvironment;
  readonly #key: ClusterKey;
  readonly #joined = new Map<NodeId, NodeAddress>();

  /** `config`: the config nodes as they are now. */
  constructor(environment: DialEnvironment, key: ClusterKey, config: () => readonly NodePlace[]) {
    this.#environment = environment;
    this.#key = key;
    this.#config = config;
  }

  get config(): readonly NodePlace[] {
    return this.#config();
  }

  /** Config nodes first. */
  get places(): readonly NodePlace[] {
    const joined = [...this.#joined].map(([node, address]) => ({ node, address }));
    return [...this.config, ...joined.filter(({ node }) => !this.isConfig(node))];
  }

  isConfig(node: NodeId): boolean {
    return this.config.some((place) => place.node === node);
  }

  addressOf(node: NodeId): NodeAddress | null {
    return this.places.find((place) => place.node === node)?.address ?? null;
  }

  /** Asks a majority of the config nodes anew. Rejected with CLUSTER_UNREACHABLE. */
  async refresh(): Promise<void> {
    const texts = await askMajority(this.#environment, this.#key, this.config, Purpose.Devices);
    for (const { node, place, retired } of newest(texts.flatMap(parseDevices))) {
      const address = parsePlace(place);
      if (retired) this.#joined.delete(node);
      // A config node may be replaced, and stays a node.
      else if (address !== null) this.#joined.set(node, address);
    }
  }
}

/** Of each device what was accepted last. */
function newest(answers: readonly DeviceAnswer[]): Iterable<DeviceAnswer> {
  const known = new Map<NodeId, DeviceAnswer>();
  for (const answer of answers) {
    const other = known.get(answer.node);
    const isNewer =
      other === undefined ||
      answer.epoch > other.epoch ||
      (answer.epoch === other.epoch && answer.generation > other.generation);
    if (isNewer) known.set(answer.node, answer);
  }
  return known.values();
}
