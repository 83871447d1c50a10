import t from "tap";
import { Catalogue } from "../../../lib/cluster/catalogue.js";
import { encodeRecords } from "../../../lib/cluster/description.js";
import { keyOf } from "../../../lib/cluster/key.js";
import { epoch, generation, volumeId } from "../../../lib/core/ids.js";
import { MIB } from "../../../lib/core/limits.js";
import { type ClusterRecord, encodeClusterRecord } from "../../../lib/replica/owner/record.js";
import { firstRecord } from "../../../lib/volume/registry-base.js";
import { NODE, serve } from "./support/served.js";

const KEY = keyOf(new Uint8Array(16).fill(1), new Uint8Array(32).fill(2));

function recordOf(of: number): ClusterRecord {
  const policy = { replicas: 1, minReplicas: 1, stripeCount: 1, stripeUnit: 65_536, onFull: "wait" } as const;
  return {
    ...firstRecord({ name: "v", size: MIB }, volumeId(7), policy, 0),
    epoch: epoch(1),
    generation: generation(of),
    owner: { peer: 5, node: null, incarnation: 0, released: true },
    members: [{ node: NODE, state: "insync", since: 0 }],
    replicasMin: 1,
  };
}

function acceptedOf(record: ClusterRecord) {
  const { generation } = record;
  return { ballot: { epoch: 1, owner: 5 }, generation, bytes: encodeClusterRecord(record) };
}

t.test("what is decided while the nodes are asked is not undone by their answers", async (t) => {
  let stored: ClusterRecord[] = [];
  const { engine, address } = await serve(t, () => ({ key: KEY, tls: null }), {
    records: () => encodeRecords(stored.map((record) => ({ volume: 7, accepted: acceptedOf(record) }))),
    refused: () => t.fail("nobody is refused"),
  });
  const catalogue = new Catalogue(engine, KEY, () => [{ node: NODE, address }]);
  const known = () => catalogue.volumes.get(7)?.record.generation ?? 0;

  const asked = catalogue.refresh();
  catalogue.learn(recordOf(2), acceptedOf(recordOf(2)));
  await asked;
  t.equal(known(), 2, "a volume that was made meanwhile is there");

  stored = [recordOf(2)];
  const again = catalogue.refresh();
  catalogue.learn(recordOf(3), acceptedOf(recordOf(3)));
  await again;
  t.equal(known(), 3, "and so is a change");

  stored = [recordOf(5)];
  const newer = catalogue.refresh();
  catalogue.learn(recordOf(4), acceptedOf(recordOf(4)));
  await newer;
  t.equal(known(), 5, "unless the nodes have a newer one");

  stored = [];
  await catalogue.refresh();
  t.equal(known(), 0, "what was learned before is the nodes' to say");
});
