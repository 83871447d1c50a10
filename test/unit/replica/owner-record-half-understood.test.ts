import t from "tap";
import { epoch, generation, volumeId } from "../../../lib/core/ids.js";
import {
  absenceMeansZeros,
  type ClusterRecord,
  decodeClusterRecord,
  encodeClusterRecord,
  isJoining,
  seatsOf,
} from "../../../lib/replica/owner/record.js";
import { encodeRecord } from "../../../lib/replica/record-codec.js";

const NODES = ["a", "b", "c"].map((letter) => letter.repeat(32));

const RECORD: ClusterRecord = {
  id: volumeId(9),
  name: "v1",
  size: 1 << 20,
  description: "",
  readOnly: false,
  policy: { replicas: 3, minReplicas: 2, stripeCount: 1, stripeUnit: 4096, onFull: "wait" },
  access: [],
  epoch: epoch(4),
  generation: generation(11),
  version: 3,
  createdAt: 5,
  state: "live",
  owner: { peer: 77, node: NODES[0]!, incarnation: 2, released: false },
  members: [
    { node: NODES[0]!, state: "insync", since: 0 },
    { node: NODES[1]!, state: "stale", since: 10 },
    { node: NODES[2]!, state: "insync", since: 0 },
  ],
  replicasMin: 3,
};

/** The record as text, changed. */
function changed(change: (raw: Record<string, unknown>) => void): Uint8Array {
  const raw = JSON.parse(new TextDecoder().decode(encodeClusterRecord(RECORD))) as Record<string, unknown>;
  change(raw);
  return new TextEncoder().encode(JSON.stringify(raw));
}

t.test("a record comes back as it was", async (t) => {
  t.same(decodeClusterRecord(encodeClusterRecord(RECORD)), RECORD);
});

t.test("a record with a seat that joins is not for readers who do not know of such", async (t) => {
  const members = [...RECORD.members.slice(0, 2), { node: NODES[2]!, state: "stale", since: 0 }] as const;
  const joining: ClusterRecord = { ...RECORD, members, seats: 2 };
  const formatOf = (record: ClusterRecord): unknown =>
    (JSON.parse(new TextDecoder().decode(encodeClusterRecord(record))) as { format: unknown }).format;
  t.same(decodeClusterRecord(encodeClusterRecord(joining)), joining);
  t.equal(formatOf(joining), 3);
  t.equal(formatOf({ ...joining, seats: 3 }), 2, "when it counts nothing is new about it");
  t.same(decodeClusterRecord(encodeClusterRecord({ ...RECORD, seats: 3 })), RECORD);
  t.equal(seatsOf(joining), 2);
  t.notOk(isJoining(RECORD));
});

t.test("what is not understood whole is refused", async (t) => {
  const bad: Readonly<Record<string, Uint8Array>> = {
    "the form of one machine": encodeRecord(RECORD),
    "a later format": changed((raw) => {
      raw["format"] = 4;
    }),
    "a seat that joins, of which nothing says so": changed((raw) => {
      raw["format"] = 3;
    }),
    "seats that are not all but one": changed((raw) => {
      raw["format"] = 3;
      raw["seats"] = 1;
    }),
    "a seat that joins and is in sync": changed((raw) => {
      raw["format"] = 3;
      raw["seats"] = 2;
    }),
    "no members": changed((raw) => {
      raw["members"] = [];
    }),
    "an unknown state": changed((raw) => {
      raw["members"] = [{ node: NODES[0], state: "fine", since: 0 }];
    }),
    "a node twice": changed((raw) => {
      raw["members"] = [RECORD.members[0], RECORD.members[0]];
    }),
    "a node without id": changed((raw) => {
      raw["members"] = [{ node: "n1", state: "insync", since: 0 }];
    }),
    "no owner": changed((raw) => {
      delete raw["owner"];
    }),
    "a since that is no number": changed((raw) => {
      raw["members"] = [{ node: NODES[0], state: "stale", since: "0" }];
    }),
  };
  for (const [what, bytes] of Object.entries(bad)) t.throws(() => decodeClusterRecord(bytes), what);
});

t.test("absence means zeros only while fewer than the replica count are missing", async (t) => {
  const heard = (count: number): ReadonlySet<string> => new Set(NODES.slice(0, count));
  t.equal(absenceMeansZeros(RECORD, heard(3)), true);
  t.equal(absenceMeansZeros(RECORD, heard(1)), true, "a stale one and one that was not heard");
  t.equal(absenceMeansZeros(RECORD, heard(0)), false);
  t.equal(absenceMeansZeros({ ...RECORD, replicasMin: 2 }, heard(1)), false);
  t.equal(absenceMeansZeros({ ...RECORD, replicasMin: 2 }, heard(3)), true);
});
