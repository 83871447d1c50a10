/**
 * The registry as a connection thread sees it: records as the owner last told, volumes opened at the owner.
 *
 * The owner tells of a change before it tells of any connection or volume that comes after it, and messages
 * arrive in order. So whoever connects after a change was answered meets it here.
 */
import { assert } from "../../core/assert.js";
import { LaminaError } from "../../core/errors.js";
import type { VolumeRecord } from "../../replica/record.js";
import type { OpenVolume, RegistryEvent } from "../../volume/registry-api.js";
import type { GatewayRegistry } from "../index.js";
import type { Refusal, ToOwner, ToThread } from "./messages.js";
import { type RemoteEnvironment, RemoteVolume, RemoteVolumes } from "./remote-volumes.js";

interface Waiting {
  readonly resolve: (opened: OpenVolume) => void;
  readonly reject: (error: Error) => void;
}

export class RemoteRegistry implements GatewayRegistry {
  readonly volumes: RemoteVolumes;
  readonly #tell: (message: ToOwner) => void;
  readonly #byName = new Map<string, VolumeRecord>();
  readonly #byId = new Map<number, VolumeRecord>();
  readonly #open = new Set<RemoteVolume>();
  readonly #listeners: ((event: RegistryEvent) => void)[] = [];
  readonly #waiting = new Map<number, Waiting>();
  #ticket = 0;

  constructor(
    records: readonly VolumeRecord[],
    environment: RemoteEnvironment,
    tell: (message: ToOwner) => void,
  ) {
    this.volumes = new RemoteVolumes(environment);
    this.#tell = tell;
    for (const record of records) this.#learn(record);
  }

  list(): readonly VolumeRecord[] {
    return [...this.#byName.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  byName(name: string): VolumeRecord | undefined {
    return this.#byName.get(name);
  }

  onEvent(listener: (event: RegistryEvent) => void): void {
    this.#listeners.push(listener);
  }

  /** Rejected as the owner's registry rejects it. */
  open(name: string): Promise<OpenVolume> {
    return new Promise((resolve, reject) => {
      const ticket = this.#ticket++;
      this.#waiting.set(ticket, { resolve, reject });
      this.#tell({ kind: "open", ticket, name });
    });
  }

  // ---- Told by the owner --------------------------------------------------------------------------------------

  heard(event: RegistryEvent): void {
    const { kind, record } = event;
    if (kind === "removed") this.#forget(record.id);
    else if (kind === "created" || kind === "changed") this.#learn(record);
    for (const listener of this.#listeners) listener(event);
  }

  opened({ ticket, handle, preferredBytes, record }: ToThread & { readonly kind: "opened" }): void {
    const volume = new RemoteVolume(this.volumes, { handle, id: record.id, preferredBytes }, record);
    this.#open.add(volume);
    let released = false;
    this.#take(ticket).resolve({
      volume,
      record,
      release: () => {
        assert(!released, "an open volume is released once");
        released = true;
        this.#open.delete(volume);
        this.#tell({ kind: "release", handle });
      },
    });
  }

  refused(ticket: number, { code, params }: Refusal): void {
    this.#take(ticket).reject(new LaminaError(code, params));
  }

  #take(ticket: number): Waiting {
    const waiting = this.#waiting.get(ticket);
    assert(waiting !== undefined, "the owner answers what was asked, once");
    this.#waiting.delete(ticket);
    return waiting;
  }

  #learn(record: VolumeRecord): void {
    this.#forget(record.id);
    this.#byId.set(record.id, record);
    this.#byName.set(record.name, record);
    for (const volume of this.#open) if (volume.id === record.id) volume.now = record;
  }

  #forget(id: number): void {
    const known = this.#byId.get(id);
    if (known === undefined) return;
    this.#byId.delete(id);
    this.#byName.delete(known.name);
  }
}
