/** What nodes and gateways of a cluster answer when they are asked how things are. */

import type { MirrorView, ProcessView, StatusView } from "../../admin/index.js";
import type { ConfigOutcome } from "../../cluster/config-control.js";
import { type NodeDescription, parseDescription, shortId } from "../../cluster/description.js";
import { askText, type DialEnvironment, type NodePlace } from "../../cluster/dial.js";
import type { NodeDirectory } from "../../cluster/directory.js";
import type { ClusterKey } from "../../cluster/key.js";
import type { Progress } from "../../cluster/observations.js";
import { placesOf } from "../../cluster/places.js";
import { Purpose } from "../../cluster/prelude.js";
import type { BalanceOutcome, SeatOutcome } from "../../cluster/seats.js";
import type { LaminaError } from "../../core/errors.js";
import type { NodeId } from "../../replica/api.js";
import { type ClusterRecord, seatsOf } from "../../replica/owner/record.js";
import { addressText } from "../../uring/address.js";

export interface NodeView {
  readonly node: NodeId;
  readonly address: string;
  /** It answers, and has the key. */
  readonly up: boolean;
  /** Why not. */
  readonly reason: string | null;
  readonly version: string | null;
  readonly capacityBytes: number;
  readonly usedBytes: number;
  readonly lossy: boolean;
  readonly sessions: number;
  /** It is one of those that decide. */
  readonly config: boolean;
  /** It is one of them and has still to copy what was decided before it joined. */
  readonly copying: boolean;
  /** Volumes that have a seat on it. */
  readonly volumes: number;
}

export interface RefusalView {
  readonly code: string;
  readonly message: string;
  readonly next: string;
}

/** What became of volumes that were to use the nodes that there are, or would become of them. */
export interface BalanceView {
  readonly dryRun: boolean;
  readonly volumes: readonly {
    readonly volume: string;
    /** Address of the node that has a further seat now, or would get it. */
    readonly to: string | null;
    /** Why there is nothing to do. */
    readonly settled: string | null;
    readonly refused: RefusalView | null;
  }[];
}

/** What became of the seats of a node that was to be emptied. */
export interface DrainView {
  readonly node: string;
  readonly seats: readonly {
    readonly volume: string;
    /** Address of the node that has it now; null: it stays, or was given up before it counted. */
    readonly to: string | null;
    /** Why it stays where it is; null: it does not. */
    readonly refused: RefusalView | null;
  }[];
}

/** The config nodes after one was replaced. */
export interface ConfigNodesView {
  readonly version: number;
  readonly nodes: readonly { readonly node: NodeId; readonly address: string }[];
  /** The node that joined has copied what was decided before, and votes. */
  readonly votes: boolean;
}

export interface MemberView {
  readonly node: NodeId;
  readonly address: string;
  /** Joining: a further seat, which counts when it has everything that is to be there. */
  readonly state: "insync" | "stale" | "joining";
  /** Stale: since which generation. */
  readonly since: number;
}

export interface ClusterVolumeView {
  readonly name: string;
  readonly size: number;
  readonly replicas: number;
  readonly minReplicas: number;
  readonly epoch: number;
  readonly generation: number;
  /** Somebody has it open, or died with it. */
  readonly owned: boolean;
  readonly members: readonly MemberView[];
}

export interface ClusterView {
  readonly cluster: string;
  readonly nodes: readonly NodeView[];
  readonly volumes: readonly ClusterVolumeView[];
  /** What is wrong or waited for, one sentence each. */
  readonly notices: readonly string[];
}

/** One copy of a volume, as its owner sees it. */
export interface CopyView {
  readonly address: string;
  readonly inSync: boolean;
  /** It is of a further seat, which counts when it has everything. */
  readonly joining: boolean;
  /** There is a session to its node. */
  readonly linked: boolean;
  /** When the last session ended; null while there is one. */
  readonly awaySince: string | null;
  /** It is being made equal. */
  readonly resync: Progress | null;
}

/** One volume that a gateway owns. */
export interface OwnedView {
  readonly name: string;
  readonly state: "activating" | "serving";
  readonly clients: number;
  readonly epoch: number;
  /** What it waits for; null: nothing. */
  readonly waiting: string | null;
  /** Since when it was seen waiting. */
  readonly waitingSince: string | null;
  readonly copies: readonly CopyView[];
  /** Extents that are compared or copied before all copies are equal. */
  readonly toReconcile: number;
  readonly toResync: number;
  /** Extents that members still have although they are a further seat's now. */
  readonly toGiveUp: number;
}

interface RoleFacts extends ProcessView {
  readonly ioEngine: string;
  /** Links to other processes are encrypted. */
  readonly linkTls: boolean;
  /** The config nodes, and whether there is a session to each. */
  readonly links: readonly { readonly node: NodeId; readonly address: string; readonly linked: boolean }[];
}

export interface GatewayStatusView extends RoleFacts {
  readonly role: "gateway";
  /** Volumes that nobody has open, and those that another gateway has, or died with. */
  readonly closed: readonly string[];
  readonly elsewhere: readonly string[];
  /** How far the mirror in Redis is. */
  readonly mirror: MirrorView;
  readonly connections: number;
  readonly requestsInFlight: number;
  readonly owned: readonly OwnedView[];
}

export interface NodeStatusView extends RoleFacts {
  readonly role: "node";
  readonly node: NodeId;
  readonly device: { readonly path: string; readonly kind: string; readonly direct: boolean };
  readonly capacityBytes: number;
  readonly usedBytes: number;
  readonly lossy: boolean;
  readonly sessions: number;
  readonly scrub: StatusView["scrub"];
  /** Blocks that are known to fail their checksum. */
  readonly badBlocks: number;
}

export type RoleStatusView = GatewayStatusView | NodeStatusView;

/** Asks every node how it is. `records`: of the volumes that are there. */
export async function viewNodes(
  dial: DialEnvironment,
  key: ClusterKey,
  directory: NodeDirectory,
  records: readonly ClusterRecord[],
): Promise<readonly NodeView[]> {
  const hasSeat = (node: NodeId) => (record: ClusterRecord) =>
    record.members.some((member) => member.node === node);
  return Promise.all(
    directory.places.map(async ({ node, address }): Promise<NodeView> => {
      const volumes = records.filter(hasSeat(node)).length;
      const base = { node, address: addressText(address), config: directory.isConfig(node), volumes };
      try {
        const asked = { address, purpose: Purpose.Describe, expected: node };
        const { text } = await askText(dial, key, asked);
        return { ...base, ...upView(parseDescription(text), base.config) };
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        const down = { copying: false, capacityBytes: 0, usedBytes: 0, lossy: false, sessions: 0 };
        return { ...base, ...down, up: false, reason, version: null };
      }
    }),
  );
}

function upView(said: NodeDescription, isConfig: boolean) {
  const { version, capacityBytes, usedBytes, lossy, sessions } = said;
  const reason = faultOf(said);
  const copying = isConfig && reason === null && !said.votes;
  return { up: reason === null, reason, version, copying, capacityBytes, usedBytes, lossy, sessions };
}

function faultOf({ failed, standing }: NodeDescription): string | null {
  if (failed !== null) return `its device has failed: ${failed}`;
  if (standing === "registered") return null;
  return standing === "unknown" ? "its device is not registered yet" : "its device is quarantined";
}

export function viewSeats(node: string, seats: readonly SeatOutcome[]): DrainView {
  return {
    node,
    seats: seats.map(({ volume, to, refused }) => ({
      volume,
      to,
      refused: viewRefusal(refused),
    })),
  };
}

export function viewBalance(dryRun: boolean, outcomes: readonly BalanceOutcome[]): BalanceView {
  return { dryRun, volumes: outcomes.map((one) => ({ ...one, refused: viewRefusal(one.refused) })) };
}

function viewRefusal(refused: LaminaError | null): RefusalView | null {
  if (refused === null) return null;
  return { code: `LAMINA_${refused.code}`, message: refused.message, next: refused.next };
}

export function viewConfigNodes({ set, votes }: ConfigOutcome): ConfigNodesView {
  const nodes = placesOf(set).map(({ node, address }) => ({ node, address: addressText(address) }));
  return { version: set.version, nodes, votes };
}

export function viewVolume(record: ClusterRecord, config: readonly NodePlace[]): ClusterVolumeView {
  const addresses = new Map(config.map(({ node, address }) => [node, addressText(address)]));
  const { name, size, policy, epoch, generation, owner, members } = record;
  return {
    name,
    size,
    replicas: policy.replicas,
    minReplicas: policy.minReplicas,
    epoch,
    generation,
    owned: !owner.released,
    members: members.map(({ node, state, since }, seat) => ({
      node,
      address: addresses.get(node) ?? shortId(node),
      state: seat < seatsOf(record) ? state : "joining",
      since,
    })),
  };
}

/** What an operator should look at. */
export function noticesOf(nodes: readonly NodeView[], volumes: readonly ClusterVolumeView[]): string[] {
  const notices = nodes.flatMap(({ address, up, reason }) =>
    up ? [] : [`node ${address} cannot be used: ${reason ?? "it is down"}`],
  );
  for (const { address, copying } of nodes) {
    if (copying) notices.push(`node ${address} copies what was decided before it became a config node`);
  }
  for (const { name, members } of volumes) {
    const stale = members.filter(({ state }) => state === "stale");
    const joining = members.find(({ state }) => state === "joining");
    if (joining !== undefined)
      notices.push(`volume ${name} gets a further seat on ${joining.address}, while somebody has it open`);
    if (stale.length === 0) continue;
    const where = stale.map(({ address }) => address).join(", ");
    const counted = members.length - (joining === undefined ? 0 : 1);
    const inSync = counted - stale.length;
    notices.push(`volume ${name} has ${inSync} of ${counted} copies in sync; stale: ${where}`);
  }
  return notices;
}
