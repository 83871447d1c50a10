/** Config nodes as the register knows them, with places as text, and as they are dialled. */
import type { NodeId } from "../replica/api.js";
import { type ConfigNode, type ConfigSet, firstSet } from "../replica/config/set.js";
import { addressText } from "../uring/address.js";
import type { NodeAddress, NodePlace } from "./dial.js";

/** HOST:PORT; null: it is none. */
export function parsePlace(place: string): NodeAddress | null {
  const match = /^(\[[0-9A-Fa-f:.%]+\]|[^:[\]\s]+):(\d{1,5})$/.exec(place);
  if (match === null) return null;
  return { kind: "tcp", host: match[1]!.replace(/^\[|\]$/g, ""), port: Number(match[2]) };
}

/** The config nodes and where they are. */
export function placesOf({ nodes }: Pick<ConfigSet, "nodes">): readonly NodePlace[] {
  return nodes.flatMap(({ node, place }) => {
    const address = parsePlace(place);
    return address === null ? [] : [{ node, address }];
  });
}

/** Where a node is that has a seat, or had one in the set before. */
export function addressIn({ nodes, before }: ConfigSet, node: NodeId): NodeAddress | null {
  const known: ConfigNode | undefined = [...nodes, ...before].find((one) => one.node === node);
  return known === undefined ? null : parsePlace(known.place);
}

/** The set that a cluster begins with. */
export function firstSetOf(places: readonly NodePlace[]): ConfigSet {
  return firstSet(places.map(({ node, address }) => ({ node, place: addressText(address) })));
}
