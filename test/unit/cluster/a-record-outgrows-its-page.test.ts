/** A volume's record is one page: what would not fit it later is refused when people ask for it. */
import fc from "fast-check";
import t from "tap";
import { RecordControl } from "../../../lib/cluster/control.js";
import { refuseTooLarge } from "../../../lib/cluster/record-room.js";
import { epoch, generation, volumeId } from "../../../lib/core/ids.js";
import { MIB } from "../../../lib/core/limits.js";
import type { AcceptedRecord, AcceptorPeer } from "../../../lib/replica/api.js";
import { RECORD_PAYLOAD_MAX } from "../../../lib/replica/limits.js";
import {
  type ClusterRecord,
  decodeClusterRecord,
  encodeClusterRecord,
} from "../../../lib/replica/owner/record.js";
import type { AccessRule } from "../../../lib/replica/record.js";
import { RecordRegister } from "../../../lib/replica/register.js";
import { firstRecord } from "../../../lib/volume/registry-base.js";
import { Engine } from "../store/support/engine.js";
import { NODE } from "./support/served.js";

const POLICY = { replicas: 1, minReplicas: 1, stripeCount: 1, stripeUnit: 65_536, onFull: "wait" } as const;

function recordOf(description: string, access: readonly AccessRule[]): ClusterRecord {
  const spec = { name: "v", size: MIB, description, access };
  return {
    ...firstRecord(spec, volumeId(7), POLICY, 0),
    owner: { peer: 5, node: null, incarnation: 0, released: true },
    members: [{ node: NODE, state: "insync", since: 0 }],
    replicasMin: 1,
  };
}

function rules(count: number, value: (i: number) => string): AccessRule[] {
  return Array.from({ length: count }, (_, i) => ({ kind: "address", value: value(i), readOnly: false }));
}

const TOO_MANY = rules(64, (i) => `2001:db8:1:${i}::/64`);

t.test("what is let in fits its page, whatever becomes of it", async (t) => {
  const number = fc.maxSafeNat();
  const letter = fc.constantFrom("x", "\n", "ü", "\u0001", "\u{1f4be}");
  let fitted = 0;
  let refused = 0;
  fc.assert(
    fc.property(
      fc.tuple(letter, fc.nat(500)),
      fc.tuple(letter, fc.nat(60), fc.nat(64)),
      fc.array(fc.record({ since: number, isStale: fc.boolean() }), { minLength: 1, maxLength: 8 }),
      fc.tuple(number, number, number, number, number),
      ([one, many], [other, length, count], members, [e, g, version, peer, incarnation]) => {
        const record = recordOf(
          one.repeat(many),
          rules(count, () => other.repeat(length)),
        );
        try {
          refuseTooLarge(record);
        } catch {
          refused++;
          return true;
        }
        fitted++;
        const later: ClusterRecord = {
          ...record,
          epoch: epoch(e),
          generation: generation(g),
          version,
          owner: { peer, node: NODE, incarnation, released: true, settled: false },
          members: members.map(({ since, isStale }) => ({
            node: NODE,
            state: isStale ? "stale" : "insync",
            since,
          })),
          ...(members.length > 1 ? { seats: members.length - 1 } : {}),
        };
        return encodeClusterRecord(later).length <= RECORD_PAYLOAD_MAX;
      },
    ),
    { seed: 7, numRuns: 1000 },
  );
  t.ok(fitted > 100 && refused > 100, `${fitted} were let in, ${refused} were not`);
});

t.test("a usual list fits", async (t) => {
  t.doesNotThrow(() =>
    refuseTooLarge(
      recordOf(
        "x".repeat(200),
        rules(32, (i) => `10.1.${i}.0/24`),
      ),
    ),
  );
  t.throws(() => refuseTooLarge(recordOf("", TOO_MANY)), { code: "RECORD_TOO_LARGE" });
});

t.test("nothing is asked of the config nodes that they cannot write down", async (t) => {
  let stored: AcceptedRecord | null = null;
  const peer: AcceptorPeer = {
    promise: (_volume, _ballot, done) => queueMicrotask(() => done({ kind: "promised", accepted: stored })),
    accept(_volume, record, done) {
      t.ok(record.bytes.length <= RECORD_PAYLOAD_MAX, "what is asked for fits");
      stored = record;
      queueMicrotask(() => done({ kind: "accepted" }));
    },
  };
  const control = new RecordControl(new RecordRegister(new Engine(), [{ node: NODE, peer }]), 5);
  await t.rejects(control.create(recordOf("", TOO_MANY)), { code: "RECORD_TOO_LARGE" });
  t.equal(stored, null, "nothing was asked for");
  const { record } = await control.create(recordOf("", []));
  await t.rejects(
    control.change(record, (old) => ({ ...old, access: TOO_MANY })),
    { code: "RECORD_TOO_LARGE" },
  );
  const described = await control.change(record, (old) => ({ ...old, description: "mine" }));
  t.match(decodeClusterRecord(stored!.bytes), { description: "mine", access: [] });

  // As a version before may have written it.
  const large = { ...described.record, access: TOO_MANY.slice(0, 50) };
  t.throws(() => refuseTooLarge(large), { code: "RECORD_TOO_LARGE" });
  stored = { ...described.accepted, bytes: encodeClusterRecord(large) };
  await control.change(large, (old) => ({ ...old, state: "removed" }));
  t.equal(decodeClusterRecord(stored.bytes).state, "removed", "one that is there already can be removed");
});
