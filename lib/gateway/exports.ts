/**
 * The exports of the gateway: volumes as NBD clients see them. Records are read from memory; a volume is
 * opened only when a client has got as far as GO (CVE-2019-14850).
 */
import {
  type ExportDirectory,
  type ExportInfo,
  type ExportSummary,
  NBD_FLAG_BLOCK_STATUS_PAYLOAD,
  NBD_FLAG_CAN_MULTI_CONN,
  NBD_FLAG_HAS_FLAGS,
  NBD_FLAG_READ_ONLY,
  NBD_FLAG_SEND_CACHE,
  NBD_FLAG_SEND_DF,
  NBD_FLAG_SEND_FAST_ZERO,
  NBD_FLAG_SEND_FLUSH,
  NBD_FLAG_SEND_FUA,
  NBD_FLAG_SEND_TRIM,
  NBD_FLAG_SEND_WRITE_ZEROES,
  NBD_META_BASE_ALLOCATION,
} from "nbd-protocol-ts";
import { BLOCK_BYTES, PAYLOAD_BYTES_MAX } from "../core/limits.js";
import type { PeerAddress } from "../core/stream.js";
import type { VolumeRecord } from "../replica/record.js";
import type { Volume } from "../volume/api.js";

/** Smallest offset and length that is promised to work: what nbd-client uses unless it is told otherwise. */
export const MINIMUM_BLOCK_BYTES = 512;

/**
 * Always FLUSH and FUA: without them the kernel makes fsync a silent no-op. MULTI_CONN is true because all
 * connections of a volume share one owner without a cache of its own.
 */
const FLAGS =
  NBD_FLAG_HAS_FLAGS |
  NBD_FLAG_SEND_FLUSH |
  NBD_FLAG_SEND_FUA |
  NBD_FLAG_SEND_TRIM |
  NBD_FLAG_SEND_WRITE_ZEROES |
  NBD_FLAG_SEND_DF |
  NBD_FLAG_CAN_MULTI_CONN |
  NBD_FLAG_SEND_CACHE |
  NBD_FLAG_SEND_FAST_ZERO |
  NBD_FLAG_BLOCK_STATUS_PAYLOAD;

/** Who a client has shown itself to be. */
export interface ClientIdentity {
  readonly peer: PeerAddress;
  /** TLS is up. */
  readonly tls: boolean;
  /** Common name of its verified certificate, or null. */
  readonly certificate: string | null;
  /** Identity of its pre-shared key, or null. */
  readonly psk: string | null;
}

/** What one client may do with a volume. */
export const Access = { None: 0, ReadOnly: 1, ReadWrite: 2 } as const;
export type Access = (typeof Access)[keyof typeof Access];

/** The part of VolumeRegistry that is asked before GO. */
export interface VolumeNames {
  list(): readonly VolumeRecord[];
  byName(name: string): VolumeRecord | undefined;
}

export interface ExportPolicy {
  /** Volume of the empty export name; without it the only volume. */
  readonly defaultExport?: string;
  readonly accessOf: (record: VolumeRecord, client: ClientIdentity) => Access;
  /** Whether a volume is served over TLS only. By default none is. */
  readonly needsTls?: (record: VolumeRecord) => boolean;
}

/** The exports as one client may see them; its identity changes when TLS comes up. */
export class ClientExports implements ExportDirectory {
  readonly #names: VolumeNames;
  readonly #policy: ExportPolicy;
  client: ClientIdentity;

  constructor(names: VolumeNames, policy: ExportPolicy, client: ClientIdentity) {
    this.#names = names;
    this.#policy = policy;
    this.client = client;
  }

  *list(): Iterable<ExportSummary> {
    for (const record of this.#names.list()) {
      if (this.#accessOf(record) === Access.None) continue;
      yield { name: record.name, description: record.description, tlsOnly: this.#tlsOnly(record) };
    }
  }

  /** Volumes that the client has no right to are not there at all. */
  find(name: string): ExportInfo | undefined {
    const record = name === "" ? this.#default() : this.#names.byName(name);
    if (record === undefined) return undefined;
    const access = this.#accessOf(record);
    if (access === Access.None) return undefined;
    const preferred = Math.max(BLOCK_BYTES, record.policy.stripeCount > 1 ? record.policy.stripeUnit : 0);
    const info = exportInfo(record, record.size, preferred, record.readOnly || access === Access.ReadOnly);
    return { ...info, tlsOnly: this.#tlsOnly(record) };
  }

  /** What an open volume is now; it may have grown since `find`. */
  opened(found: ExportInfo, record: VolumeRecord, volume: Volume): ExportInfo {
    const readOnly = volume.readOnly || (found.flags & NBD_FLAG_READ_ONLY) !== 0;
    return exportInfo(record, volume.sizeBytes, volume.preferredBytes, readOnly);
  }

  /**
   * Whether the client may still use a volume as it was promised at GO. A volume that became read-only refuses
   * writes by itself; what counts here is the client's own right.
   */
  keepsRight(granted: ExportInfo, record: VolumeRecord): boolean {
    const access = this.#accessOf(record);
    if (access === Access.None || (this.#tlsOnly(record) && !this.client.tls)) return false;
    const writable = (granted.flags & NBD_FLAG_READ_ONLY) === 0;
    return access === Access.ReadWrite || !writable;
  }

  #accessOf(record: VolumeRecord): Access {
    return this.#policy.accessOf(record, this.client);
  }

  #tlsOnly(record: VolumeRecord): boolean {
    return this.#policy.needsTls?.(record) ?? false;
  }

  #default(): VolumeRecord | undefined {
    const { defaultExport } = this.#policy;
    if (defaultExport !== undefined) return this.#names.byName(defaultExport);
    const records = this.#names.list();
    return records.length === 1 ? records[0] : undefined;
  }
}

function exportInfo(record: VolumeRecord, size: number, preferred: number, readOnly: boolean): ExportInfo {
  return {
    name: record.name,
    description: record.description,
    size,
    flags: readOnly ? FLAGS | NBD_FLAG_READ_ONLY : FLAGS,
    blockSizes: { minimum: MINIMUM_BLOCK_BYTES, preferred, maximumPayload: PAYLOAD_BYTES_MAX },
    contexts: [NBD_META_BASE_ALLOCATION],
  };
}
