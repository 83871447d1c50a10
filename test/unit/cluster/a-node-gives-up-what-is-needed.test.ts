import t from "tap";
import type { KnownVolume } from "../../../lib/cluster/catalogue.js";
import { type SweptNode, sweep } from "../../../lib/cluster/sweep.js";

const SELF = "a".repeat(32);
const OTHER = "b".repeat(32);
const VOLUME = 7;

interface Case {
  readonly members?: readonly { readonly node: string; readonly state: "insync" | "stale" }[];
  readonly state?: "live" | "removed";
  readonly chosen?: boolean;
  readonly registered?: boolean;
  readonly open?: boolean;
  /** A gate is opened while the record is asked for. */
  readonly opened?: boolean;
  readonly logUsed?: number;
  readonly promised?: boolean;
  readonly known?: boolean;
}

/** Whether the extents of the volume were given back. */
async function isDropped(of: Case): Promise<boolean> {
  let dropped = false;
  let openings = 0;
  const record = { state: of.state ?? "live", members: of.members ?? [{ node: OTHER, state: "insync" }] };
  const known = {
    record,
    chosen: of.chosen ?? true,
    accepted: { ballot: { epoch: 3, owner: 4 } },
  } as unknown as KnownVolume;
  const node: SweptNode = {
    node: SELF,
    store: {
      volumesWithSlots: () => [VOLUME],
      slotsOf: () => 10,
      dropVolume: (volume, done) => {
        dropped = volume === VOLUME;
        done(null);
      },
      stats: () => ({ logBytes: 65_536, logUsedBytes: of.logUsed ?? 0 }) as never,
    },
    mayVote: () => of.registered ?? true,
    watched: () => (of.open === true ? [VOLUME] : [8]),
    openings: () => openings,
    promise: (_volume, _ballot, done) =>
      done(
        of.promised === false
          ? { kind: "refused", promised: { epoch: 9, owner: 9 } }
          : { kind: "promised", accepted: null },
      ),
    volumes: () => {
      if (of.opened === true) openings++;
      return Promise.resolve(new Map(of.known === false ? [] : [[VOLUME, known]]));
    },
    isStopped: () => false,
  };
  const swept = await sweep(node);
  if (swept.includes(VOLUME) !== dropped) throw new Error("it is told as it was");
  return dropped;
}

t.test("copies that have no seat any more go when nobody can need them", async (t) => {
  t.ok(await isDropped({}));
});

t.test("and stay as long as anybody can", async (t) => {
  const self = { node: SELF, state: "stale" } as const;
  const other = { node: OTHER, state: "insync" } as const;
  t.notOk(await isDropped({ members: [other, self] }), "it has a seat");
  t.notOk(await isDropped({ members: [{ node: OTHER, state: "stale" }] }), "other copies are not whole");
  t.notOk(await isDropped({ chosen: false }), "the record may not be a majority's");
  t.notOk(await isDropped({ known: false }), "nobody knows the volume");
  t.notOk(await isDropped({ registered: false }), "it may be another device");
  t.notOk(await isDropped({ open: true }), "an owner is let in");
  t.notOk(await isDropped({ opened: true }), "an owner was let in after the record was asked for");
  t.notOk(await isDropped({ logUsed: 65_000 }), "it would not be one step");
});

t.test("those of a removed volume go behind a promise", async (t) => {
  t.ok(await isDropped({ state: "removed", open: true, opened: true }));
  t.notOk(await isDropped({ state: "removed", promised: false }));
  t.notOk(await isDropped({ state: "removed", chosen: false }));
});
