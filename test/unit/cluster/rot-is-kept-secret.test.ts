import t from "tap";
import { viewAnswers } from "../../../lib/cli/cluster/views.js";
import { nodeTable, volumeTable } from "../../../lib/cli/commands/cluster.js";
import {
  encodeDescription,
  type NodeDescription,
  parseDescription,
} from "../../../lib/cluster/description.js";
import type { NodePlace } from "../../../lib/cluster/dial.js";
import { blocksOf, rotOf } from "../../../lib/cluster/rot.js";
import { generation, volumeId } from "../../../lib/core/ids.js";
import type { ClusterRecord } from "../../../lib/replica/owner/record.js";
import { type BadBlock, WHOLE_EXTENT } from "../../../lib/store/index.js";

const EXTENT_BLOCKS = 1024;
const VOLUME = 7;

/** As much of a store as is asked. */
function storeWith(bad: readonly Pick<BadBlock, "volume" | "extent" | "block">[]) {
  return {
    extentBlocks: EXTENT_BLOCKS,
    stats: () => ({ bitRotBlocks: bad.length }) as ReturnType<Parameters<typeof rotOf>[0]["stats"]>,
    volumesWithSlots: () => [VOLUME, VOLUME + 1],
    badBlocks: (volume: number) =>
      bad.filter((one) => one.volume === volume).map((one) => ({ ...one, layer: 0, foundAt: 0 })),
  };
}

function description(rot: NodeDescription["rot"]): NodeDescription {
  const numbers = { startedAt: 0, sessions: 1, capacityBytes: 1 << 30, usedBytes: 1 << 22 };
  const state = { set: null, votes: true, standing: "registered", lossy: false, failed: null } as const;
  return { version: "1", ...numbers, ...state, rot, losses: [] };
}

const PLACES: readonly NodePlace[] = [1, 2, 3].map((i) => ({
  node: `${i}`.repeat(32),
  address: { kind: "tcp", host: "127.0.0.1", port: 11000 + i },
}));

function recordOf(owned: boolean): ClusterRecord {
  return {
    id: volumeId(VOLUME),
    name: "v",
    size: 1 << 30,
    policy: { replicas: 3, minReplicas: 2 },
    generation: generation(1),
    owner: { released: !owned },
    members: PLACES.map(({ node }) => ({ node, state: "insync", since: 0 })),
  } as unknown as ClusterRecord;
}

/** The second node has rot. */
function seen(owned: boolean) {
  const rot = [{ volume: VOLUME, blocks: 3, extents: 2 }];
  const said = new Map(PLACES.map(({ node }, i) => [node, description(i === 1 ? rot : [])]));
  return viewAnswers({ places: PLACES, isConfig: () => true }, [recordOf(owned)], said);
}

t.test("a node counts its bad blocks by volume, a lost table as all that it was of", async (t) => {
  const bad = [
    { volume: VOLUME, extent: 1, block: 5 },
    { volume: VOLUME, extent: 1, block: 6 },
    { volume: VOLUME, extent: 2, block: 0 },
    { volume: VOLUME + 1, extent: 9, block: 4 },
    { volume: VOLUME + 1, extent: 9, block: WHOLE_EXTENT },
  ];
  const rot = rotOf(storeWith(bad));
  t.same(rot, [
    { volume: VOLUME, blocks: 3, extents: 2 },
    { volume: VOLUME + 1, blocks: EXTENT_BLOCKS, extents: 1 },
  ]);
  t.equal(blocksOf(rot), 3 + EXTENT_BLOCKS);
  t.same(rotOf(storeWith([])), []);
});

t.test("what a node says of it arrives; a node of an older version says nothing", async (t) => {
  const said = description([{ volume: VOLUME, blocks: 3, extents: 2 }]);
  t.same(parseDescription(encodeDescription(said)), said);
  const { rot: _, ...older } = said;
  t.same(parseDescription(JSON.stringify(older)).rot, []);
});

t.test("the status of the cluster has it whether somebody has the volume open or not", async (t) => {
  const closed = seen(false);
  t.same(
    closed.nodes.map(({ badBlocks }) => badBlocks),
    [0, 3, 0],
  );
  t.same(
    closed.volumes[0]!.members.map(({ badBlocks, badExtents }) => [badBlocks, badExtents]),
    [
      [0, 0],
      [3, 2],
      [0, 0],
    ],
  );
  t.match(closed.notices, [
    /^volume v: 3 block\(s\) of 2 extent\(s\) on 127\.0\.0\.1:11002 fail .* when a gateway has opened the volume for it$/,
  ]);
  t.match(seen(true).notices, [/ within minutes$/]);
  t.match(nodeTable(closed.nodes), /^22222222 .* 3$/m);
  t.match(
    volumeTable(closed.volumes),
    /127\.0\.0\.1:11001 127\.0\.0\.1:11002 \(3 bad block\(s\)\) 127\.0\.0\.1:11003/,
  );
});
