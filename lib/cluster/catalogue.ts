/**
 * The volume records of a cluster as a majority of its config nodes has them: what is listed, and where names are
 * looked up. It decides nothing: whoever opens or changes a volume asks the register.
 *
 * Invariant: every record that was chosen before a refresh began, or was learned while it ran, is in its outcome, or a
 * newer one of that volume.
 */
import { LaminaError } from "../core/errors.js";
import type { AcceptedRecord } from "../replica/api.js";
import { type ClusterRecord, decodeClusterRecord } from "../replica/owner/record.js";
import { parseRecords, type StoredRecord } from "./description.js";
import { askText, type DialEnvironment, type NodePlace } from "./dial.js";
import type { ClusterKey } from "./key.js";
import { faultText, mostOf } from "./patience.js";
import { Purpose } from "./prelude.js";

export interface KnownVolume {
  readonly record: ClusterRecord;
  readonly accepted: AcceptedRecord;
  /** A majority has accepted this very record. False says nothing: some may not have been heard. */
  readonly chosen: boolean;
}

export class Catalogue {
  readonly #environment: DialEnvironment;
  readonly #key: ClusterKey;
  readonly #config: () => readonly NodePlace[];
  #volumes = new Map<number, KnownVolume>();
  /** The refresh that runs, and the one that those wait for who came while it did. */
  #running: Promise<void> | null = null;
  #following: Promise<void> | null = null;
  /** Learned since the running refresh began: the nodes may have answered before. */
  readonly #learned = new Map<number, KnownVolume>();

  /** `config`: the config nodes as they are now. */
  constructor(environment: DialEnvironment, key: ClusterKey, config: () => readonly NodePlace[]) {
    this.#environment = environment;
    this.#key = key;
    this.#config = config;
  }

  get volumes(): ReadonlyMap<number, KnownVolume> {
    return this.#volumes;
  }

  /** A record that was chosen just now. */
  learn(record: ClusterRecord, accepted: AcceptedRecord): void {
    const known: KnownVolume = { record, accepted, chosen: true };
    this.#volumes.set(record.id, known);
    if (this.#running !== null) this.#learned.set(record.id, known);
  }

  /** Asks anew; what is there afterwards was asked after this call. Rejected with CLUSTER_UNREACHABLE. */
  refresh(): Promise<void> {
    if (this.#running === null) {
      this.#running = this.#refresh().finally(() => {
        this.#running = null;
      });
      return this.#running;
    }
    this.#following ??= this.#running
      .catch(() => undefined)
      .then(() => {
        this.#following = null;
        return this.refresh();
      });
    return this.#following;
  }

  async #refresh(): Promise<void> {
    this.#learned.clear();
    const config = this.#config();
    const texts = await askMajority(this.#environment, this.#key, config, Purpose.Records);
    const volumes = merged(texts.map(parseRecords), majorityOf(config));
    for (const [id, known] of this.#learned) {
      const heard = volumes.get(id);
      if (heard === undefined || compare(known.accepted, heard.accepted) > 0) volumes.set(id, known);
    }
    this.#volumes = volumes;
  }
}

export function majorityOf(config: readonly NodePlace[]): number {
  return Math.floor(config.length / 2) + 1;
}

/** What at least a majority of the config nodes answers; who hangs is not waited for. Throws CLUSTER_UNREACHABLE. */
export async function askMajority(
  environment: DialEnvironment,
  key: ClusterKey,
  config: readonly NodePlace[],
  purpose: Purpose,
): Promise<string[]> {
  const majority = majorityOf(config);
  const asked = config.map(({ node, address }) =>
    askText(environment, key, { address, purpose, expected: node }),
  );
  const texts: string[] = [];
  const faults: string[] = [];
  for (const [i, outcome] of (await mostOf(environment.clock, asked, majority)).entries()) {
    if (outcome?.status === "fulfilled") texts.push(outcome.value.text);
    else faults.push(faultText(config[i]!.address, outcome));
  }
  if (texts.length < majority) throw new LaminaError("CLUSTER_UNREACHABLE", { what: faults.join("; ") });
  return texts;
}

function merged(lists: readonly (readonly StoredRecord[])[], majority: number): Map<number, KnownVolume> {
  const newest = new Map<number, { accepted: AcceptedRecord; count: number }>();
  for (const { volume, accepted } of lists.flat()) {
    const known = newest.get(volume);
    const order = known === undefined ? 1 : compare(accepted, known.accepted);
    if (order > 0) newest.set(volume, { accepted, count: 1 });
    else if (order === 0) known!.count++;
  }
  const volumes = new Map<number, KnownVolume>();
  for (const [volume, { accepted, count }] of newest) {
    const record = decoded(accepted.bytes);
    if (record !== null) volumes.set(volume, { record, accepted, chosen: count >= majority });
  }
  return volumes;
}

function compare(a: AcceptedRecord, b: AcceptedRecord): number {
  return a.ballot.epoch === b.ballot.epoch ? a.generation - b.generation : a.ballot.epoch - b.ballot.epoch;
}

/** Null: of a format that this program does not know. */
export function decoded(bytes: Uint8Array): ClusterRecord | null {
  try {
    return decodeClusterRecord(bytes);
  } catch {
    return null;
  }
}

/** The name that a record claims while its volume is live. */
export function nameClaimed(bytes: Uint8Array): string | null {
  const record = decoded(bytes);
  return record !== null && record.state === "live" ? record.name : null;
}
