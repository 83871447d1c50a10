/** A truth to be mirrored that tests change at will, and what Redis must hold for it. */

import type { MirrorSource } from "../../../../lib/catalog/api.js";
import { epoch, generation, volumeId } from "../../../../lib/core/ids.js";
import type { VolumeRecord } from "../../../../lib/replica/record.js";

export function record(id: number, name: string, version = 1): VolumeRecord {
  return {
    id: volumeId(id),
    name,
    size: 2 ** 30,
    description: "",
    readOnly: false,
    policy: { replicas: 1, minReplicas: 1, stripeCount: 1, stripeUnit: 262_144, onFull: "wait" },
    access: [],
    epoch: epoch(1),
    generation: generation(1),
    version,
    createdAt: 1,
    state: "live",
  };
}

export class Truth implements MirrorSource {
  readonly storeId: string;
  readonly nodeId = "n1";
  readonly volumes = new Map<number, { record: VolumeRecord; extents: Set<number> }>();

  constructor(storeId = "a1b2") {
    this.storeId = storeId;
  }

  records(): VolumeRecord[] {
    return [...this.volumes.values()].map((volume) => volume.record);
  }

  inventory(volume: number, visit: (layer: number, extent: number) => void): void {
    for (const extent of this.volumes.get(volume)?.extents ?? []) visit(0, extent);
  }

  node(): Record<string, number> {
    return { slots: 100 };
  }

  protected valueOf(_volume: number, _extent: number): string {
    return this.nodeId;
  }

  protected expectedNodes(): Record<string, string> {
    return { [this.nodeId]: JSON.stringify(this.node()) };
  }

  add(id: number, name: string, extents: readonly number[] = []): void {
    this.volumes.set(id, { record: record(id, name), extents: new Set(extents) });
  }

  /** What a complete mirror holds, in the shape of `dump`. */
  expected(): Record<string, unknown> {
    const all: Record<string, unknown> = {
      "lamina:{store}:identity": this.storeId,
      "lamina:{store}:nodes": this.expectedNodes(),
    };
    if (this.volumes.size > 0) {
      all["lamina:{store}:volumes"] = byKey(this.records().map((r) => [String(r.id), r.name]));
      all["lamina:{store}:names"] = byKey(this.records().map((r) => [r.name, String(r.id)]));
    }
    for (const [id, { record: r, extents }] of this.volumes) {
      const buckets = new Map<string, [string, string][]>();
      for (const extent of [...extents].sort((a, b) => a - b)) {
        const name = `0:${Math.floor(extent / 512)}`;
        buckets.set(name, [...(buckets.get(name) ?? []), [String(extent), this.valueOf(id, extent)]]);
      }
      for (const [name, fields] of buckets) all[`lamina:{v${id}}:x:${name}`] = byKey(fields);
      if (buckets.size > 0) all[`lamina:{v${id}}:buckets`] = [...buckets.keys()].sort();
      all[`lamina:{v${id}}:record`] = byKey([
        ["id", String(id)],
        ["name", r.name],
        ["size", String(r.size)],
        ["description", r.description],
        ["readOnly", r.readOnly ? "1" : "0"],
        ["policy", JSON.stringify(r.policy)],
        ["access", JSON.stringify(r.access)],
        ["epoch", String(r.epoch)],
        ["generation", String(r.generation)],
        ["version", String(r.version)],
        ["createdAt", String(r.createdAt)],
        ["state", r.state],
      ]);
    }
    return byKey(Object.entries(all));
  }
}

function byKey<T>(entries: [string, T][]): Record<string, T> {
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}
