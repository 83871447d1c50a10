/** What `lamina node` and `lamina gateway` were asked for, all of it checked. */
import { join, resolve } from "node:path";
import { parseRedisUrl, type RedisTarget } from "../../catalog/index.js";
import type { NodeAddress } from "../../cluster/dial.js";
import { LaminaError } from "../../core/errors.js";
import { PEER_SILENCE_MAX_MS } from "../../core/limits.js";
import type { TlsSettings } from "../../gateway/tls.js";
import { addressText } from "../../uring/address.js";
import type { EngineOptions, ListenAddress } from "../../uring/api.js";
import {
  DATA_DEFAULT,
  isLoopback,
  LISTEN_DEFAULT,
  parseListen,
  resolveServeOptions,
} from "../serve/options.js";
import { parseBytes } from "../size.js";

export const KEY_FILE = "cluster.key";
export const NODE_LISTEN_DEFAULT = "127.0.0.1:10811";
/** Sizes that a majority can be had of, and that survive the loss of 0, 1 and 2 nodes. */
const CONFIG_NODES = [1, 3, 5];
/** Hosts that stand for every address of a machine. */
const WILDCARDS = new Set(["0.0.0.0", "::", ""]);
/** Seconds. Most nodes that are restarted are back by then, and most clients have come back. */
export const CARE_AFTER_DEFAULT = "30";
const CARE_AFTER_MAX_S = 86_400;
const NODE_POOL = "64M";
const ADMIN_ANY = "127.0.0.1:0";

export interface RoleArguments {
  readonly data?: string | undefined;
  readonly cluster?: string | undefined;
  readonly key?: string | undefined;
  readonly admin?: string | undefined;
  readonly pool?: string | undefined;
  readonly ioEngine?: "auto" | "ring" | "threads" | undefined;
  readonly insecure?: boolean | undefined;
  readonly linkTls?: string | undefined;
}

export interface NodeArguments extends RoleArguments {
  readonly listen?: string | undefined;
  readonly capacity?: string | undefined;
  readonly device?: string | undefined;
}

export interface GatewayArguments extends RoleArguments {
  readonly listen?: string[] | undefined;
  readonly defaultExport?: string | undefined;
  readonly tls?: "off" | "allow" | "require" | undefined;
  readonly tlsDir?: string | undefined;
  readonly redis?: string | undefined;
  readonly careAfter?: string | undefined;
}

export interface RoleOptions {
  /** Absolute. */
  readonly data: string;
  readonly key: string;
  /** Every config node. */
  readonly cluster: readonly NodeAddress[];
  readonly admin: { readonly host: string; readonly port: number };
  readonly engine: EngineOptions;
  /** Directory of what links are encrypted with; null: they are plain. */
  readonly linkTls: string | null;
}

export interface NodeOptions extends RoleOptions {
  readonly listen: NodeAddress;
  readonly capacity: number | null;
  readonly device: string | null;
}

export interface GatewayOptions extends RoleOptions {
  readonly listen: readonly ListenAddress[];
  readonly defaultExport: string | null;
  /** What is mirrored into; null: nothing is. */
  readonly redis: RedisTarget | null;
  /** Of NBD clients; null for --tls off. */
  readonly tls: TlsSettings | null;
  /** As of a server of its own: every volume needs an access list. */
  readonly guardedAddress: string | null;
  /** For how long a volume that nobody has open needs care before it gets it; null: never. */
  readonly careAfterMs: number | null;
}

/** Throws LaminaError; nothing has been touched then. */
export function resolveNodeOptions(given: NodeArguments): NodeOptions {
  if (given.device !== undefined && given.capacity !== undefined)
    throw usage("--capacity is for a store file; a device is used whole", "node");
  const listen = parseNodeAddress(given.listen ?? NODE_LISTEN_DEFAULT, "--listen", "node");
  // The key says who may come in; without TLS what they say to one another is not encrypted.
  if (!isLoopback(listen.host) && given.linkTls === undefined && given.insecure !== true)
    throw new LaminaError("LINK_LISTEN_INSECURE", { address: addressText(listen) });
  const role = resolveRole(given, "node");
  // The others are told this address.
  if (WILDCARDS.has(listen.host) && !role.cluster.some((one) => addressText(one) === addressText(listen)))
    throw usage("--listen names no address at which the other processes reach this node", "node");
  return {
    ...role,
    listen,
    capacity: given.capacity === undefined ? null : parseBytes(given.capacity),
    device: given.device === undefined ? null : resolve(given.device),
  };
}

/** Throws LaminaError; nothing has been touched then. */
export function resolveGatewayOptions(given: GatewayArguments): GatewayOptions {
  const role = resolveRole(given, "gateway");
  const { listen, defaultExport, tls, guardedAddress } = resolveServeOptions(
    {
      listen: given.listen ?? LISTEN_DEFAULT,
      admin: given.admin ?? ADMIN_ANY,
      ...(given.insecure === undefined ? {} : { insecure: given.insecure }),
      ...(given.defaultExport === undefined ? {} : { "default-export": given.defaultExport }),
      ...(given.tls === undefined ? {} : { tls: given.tls }),
      ...(given.tlsDir === undefined ? {} : { "tls-dir": given.tlsDir }),
    },
    undefined,
  );
  const isMirrored = given.redis !== undefined && given.redis !== "none";
  const redis = isMirrored ? parseRedisUrl(given.redis) : null;
  const careAfterMs = parseCareAfter(given.careAfter ?? CARE_AFTER_DEFAULT);
  return { ...role, listen, defaultExport, tls, guardedAddress, redis, careAfterMs };
}

/** Seconds, or off. Throws USAGE. */
function parseCareAfter(text: string): number | null {
  if (text === "off") return null;
  const seconds = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  if (seconds < 1 || seconds > CARE_AFTER_MAX_S)
    throw usage(`--care-after '${text}' is not off, or seconds from 1 to ${CARE_AFTER_MAX_S}`, "gateway");
  return 1000 * seconds;
}

function resolveRole(given: RoleArguments, command: "node" | "gateway"): RoleOptions {
  const data = resolve(given.data ?? DATA_DEFAULT);
  if (given.cluster === undefined)
    throw usage("--cluster is missing: the addresses of all config nodes", command);
  // The same checks as for a server of its own.
  const { admin, engine } = resolveServeOptions(
    {
      data,
      admin: given.admin ?? ADMIN_ANY,
      pool: given.pool ?? (command === "node" ? NODE_POOL : undefined),
      "io-engine": given.ioEngine,
      insecure: given.insecure,
    },
    undefined,
  );
  return {
    data,
    key: resolve(given.key ?? join(data, KEY_FILE)),
    cluster: parseCluster(given.cluster, command),
    admin,
    engine: { ...engine, tcpUserTimeoutMs: PEER_SILENCE_MAX_MS },
    linkTls: given.linkTls === undefined ? null : resolve(given.linkTls),
  };
}

/** HOST:PORT,HOST:PORT,… Throws USAGE. */
export function parseCluster(text: string, command: string): readonly NodeAddress[] {
  const addresses = text.split(",").map((one) => parseNodeAddress(one, "--cluster", command));
  if (!CONFIG_NODES.includes(addresses.length)) {
    const counts = CONFIG_NODES.join(", ");
    throw usage(`--cluster names ${addresses.length} config nodes, and there are ${counts} of them`, command);
  }
  if (new Set(addresses.map(addressText)).size < addresses.length)
    throw usage("--cluster names an address twice", command);
  return addresses;
}

function parseNodeAddress(text: string, option: string, command: string): NodeAddress {
  const address = parseListen(text);
  if (address.kind !== "tcp") throw usage(`${option} '${text}' is not HOST:PORT`, command);
  return address;
}

function usage(what: string, command: string): LaminaError {
  return new LaminaError("USAGE", { what, help: `lamina ${command} --help` });
}
