/** What nodes and gateways of a cluster answer when they are asked how things are. */

import type { MirrorView, ProcessView, StatusView } from "../../admin/index.js";
import type { CareState } from "../../cluster/care/caretaker.js";
import type { ConfigOutcome } from "../../cluster/config-control.js";
import { type NodeDescription, shortId } from "../../cluster/description.js";
import type { DialEnvironment, NodePlace } from "../../cluster/dial.js";
import type { NodeDirectory } from "../../cluster/directory.js";
import type { ClusterKey } from "../../cluster/key.js";
import type { Progress } from "../../cluster/observations.js";
import { hearNode } from "../../cluster/patience.js";
import { placesOf } from "../../cluster/places.js";
import { blocksOf } from "../../cluster/rot.js";
import type { BalanceOutcome, SeatOutcome } from "../../cluster/seats.js";
import type { LaminaError } from "../../core/errors.js";
import type { NodeId } from "../../replica/api.js";
import { type ClusterRecord, seatsOf } from "../../replica/owner/record.js";
import { addressText } from "../../uring/address.js";
import { clusterIdText } from "./role.js";

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
  /** Blocks that are known to fail their checksum there, of whatever volume. */
  readonly badBlocks: number;
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
  /** Of this copy, blocks that its node knows to fail their checksum, and the extents that they are of. */
  readonly badBlocks: number;
  readonly badExtents: number;
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
  /** The gateway that has it open for its copies only; null: none that this process knows. */
  readonly keptBy: string | null;
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
  /** The caretaker has it open for its copies. */
  readonly kept: boolean;
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

/** What a gateway does by itself for volumes that nobody has open. */
export interface CareView {
  /** Seconds after which a volume in need is opened; null: never. */
  readonly afterSeconds: number | null;
  /** How many are kept open, and how many further ones are in need. */
  readonly kept: number;
  readonly inNeed: number;
  /** The nearest of them. */
  readonly volumes: readonly CareState[];
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
  /** By volume, the gateway that has it open for its copies only. */
  readonly keepers: Readonly<Record<string, string>>;
  readonly care: CareView;
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

/** What a node said of itself, or why it said nothing. */
type Said = NodeDescription | string;

/** Asks every node how it is. `records`: of the volumes that are there. */
export async function viewCluster(
  dial: DialEnvironment,
  key: ClusterKey,
  directory: NodeDirectory,
  records: readonly ClusterRecord[],
): Promise<ClusterView> {
  const { places } = directory;
  const answers = await Promise.all(places.map((place) => hearNode(dial, key, place)));
  const said = new Map(places.map(({ node }, i) => [node, answers[i]!]));
  return { cluster: clusterIdText(key), ...viewAnswers(directory, records, said) };
}

/** `said`: by each node of the directory. */
export function viewAnswers(
  directory: Pick<NodeDirectory, "places" | "isConfig">,
  records: readonly ClusterRecord[],
  said: ReadonlyMap<NodeId, Said>,
): Pick<ClusterView, "nodes" | "volumes" | "notices"> {
  const { places } = directory;
  const nodes = places.map((place) => viewNode(place, said.get(place.node)!, directory, records));
  const volumes = records.map((record) => viewVolume(record, places, said));
  return { nodes, volumes, notices: noticesOf(nodes, volumes) };
}

function viewNode(
  { node, address }: NodePlace,
  said: Said,
  directory: Pick<NodeDirectory, "isConfig">,
  records: readonly ClusterRecord[],
): NodeView {
  const config = directory.isConfig(node);
  const volumes = records.filter(({ members }) => members.some((member) => member.node === node)).length;
  const base = { node, address: addressText(address), config, volumes };
  if (typeof said === "string") return { ...base, ...NOTHING_SAID, reason: said };
  const { version, capacityBytes, usedBytes, lossy, sessions, rot } = said;
  const reason = faultOf(said);
  const up = reason === null;
  const copying = config && up && !said.votes;
  const badBlocks = blocksOf(rot);
  return { ...base, up, reason, version, copying, capacityBytes, usedBytes, lossy, sessions, badBlocks };
}

const NOTHING_SAID = {
  up: false,
  version: null,
  copying: false,
  capacityBytes: 0,
  usedBytes: 0,
  lossy: false,
  sessions: 0,
  badBlocks: 0,
} as const;

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

function viewVolume(
  record: ClusterRecord,
  places: readonly NodePlace[],
  said: ReadonlyMap<NodeId, Said>,
): ClusterVolumeView {
  const addresses = new Map(places.map(({ node, address }) => [node, addressText(address)]));
  const { name, size, policy, epoch, generation, owner, members } = record;
  return {
    name,
    size,
    replicas: policy.replicas,
    minReplicas: policy.minReplicas,
    epoch,
    generation,
    owned: !owner.released,
    keptBy: null,
    members: members.map(({ node, state, since }, seat) => ({
      node,
      address: addresses.get(node) ?? shortId(node),
      state: seat < seatsOf(record) ? state : "joining",
      since,
      ...rotIn(record.id, said.get(node)),
    })),
  };
}

function rotIn(id: number, said: Said | undefined): Pick<MemberView, "badBlocks" | "badExtents"> {
  const rot = said === undefined || typeof said === "string" ? [] : said.rot;
  const found = rot.find(({ volume }) => volume === id);
  return { badBlocks: found?.blocks ?? 0, badExtents: found?.extents ?? 0 };
}

/** What an operator should look at. */
function noticesOf(nodes: readonly NodeView[], volumes: readonly ClusterVolumeView[]): string[] {
  const notices = nodes.flatMap(({ address, up, reason }) =>
    up ? [] : [`node ${address} cannot be used: ${reason ?? "it is down"}`],
  );
  for (const { address, copying } of nodes) {
    if (copying) notices.push(`node ${address} copies what was decided before it became a config node`);
  }
  return [...notices, ...volumes.flatMap((volume) => [...seatNotices(volume), ...rotNotices(volume)])];
}

function seatNotices({ name, members }: ClusterVolumeView): string[] {
  const stale = members.filter(({ state }) => state === "stale");
  const joining = members.find(({ state }) => state === "joining");
  const notices =
    joining === undefined
      ? []
      : [
          `volume ${name} gets a further seat on ${joining.address}, while somebody or a caretaker has it open`,
        ];
  if (stale.length === 0) return notices;
  const where = stale.map(({ address }) => address).join(", ");
  const counted = members.length - (joining === undefined ? 0 : 1);
  const inSync = counted - stale.length;
  return [...notices, `volume ${name} has ${inSync} of ${counted} copies in sync; stale: ${where}`];
}

function rotNotices({ name, owned, members }: ClusterVolumeView): string[] {
  const when = owned ? "within minutes" : "when a gateway has opened the volume for it";
  return members.flatMap(({ address, badBlocks, badExtents }) =>
    badBlocks === 0
      ? []
      : [
          `volume ${name}: ${badBlocks} block(s) of ${badExtents} extent(s) on ${address} fail their checksum; repaired from another copy, if one is good, ${when}`,
        ],
  );
}
