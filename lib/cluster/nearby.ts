/**
 * The way to a node on the same machine: a unix socket beside its TCP port. Bytes cost a third less CPU on it, which counts
 * where a gateway runs beside nodes.
 *
 * The name is abstract (unix(7)): there is no file to leave behind, it ends with the process that listens, and it is known in
 * the network namespace alone, so whoever is cut off from the port is cut off from it too. Anybody on the machine may take the
 * name first. The cluster key and the node's id are proved as on every connection, but without TLS somebody who hands the
 * proofs on to the node's port could read and change what follows. So the kernel is asked who listens: only this user, or
 * root, is talked to. Whoever else is there, or fails the proofs, is left for the TCP address.
 */
import type { NodeId } from "../replica/api.js";
import type { ListenAddress } from "../uring/api.js";
import type { NodeAddress } from "./dial.js";

/** Where a node that is registered at `address` listens for those on its machine. */
export function nearby(node: NodeId, { port }: NodeAddress): ListenAddress {
  return { kind: "unix", path: `@lamina/${node}/${port}`, onlyOwn: true };
}
