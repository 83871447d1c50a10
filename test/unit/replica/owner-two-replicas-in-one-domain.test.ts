import fc from "fast-check";
import t from "tap";
import { DOMAIN_LEVELS, type PlacementNode, place } from "../../../lib/replica/owner/placement.js";

const nodes = fc
  .array(
    fc.record({
      zone: fc.integer({ min: 0, max: 2 }),
      rack: fc.integer({ min: 0, max: 2 }),
      host: fc.integer({ min: 0, max: 2 }),
      weight: fc.integer({ min: 0, max: 5 }),
    }),
    { minLength: 1, maxLength: 14 },
  )
  .map((list) =>
    list.map(
      ({ zone, rack, host, weight }, i): PlacementNode => ({
        node: i.toString(16).padStart(32, "0"),
        weight,
        domains: { zone: `z${zone}`, rack: `r${rack}`, host: `h${host}` },
      }),
    ),
  );
const replicas = fc.integer({ min: 1, max: 5 });
const extent = fc.nat();

/** Labels down to `depth`: what names a domain. */
function domainOf(node: PlacementNode, depth: number): string {
  return DOMAIN_LEVELS.slice(0, depth + 1)
    .map((level) => node.domains[level])
    .join("/");
}

function chosenOf(all: readonly PlacementNode[], ids: readonly string[]): PlacementNode[] {
  return ids.map((id) => all.find(({ node }) => node === id)!);
}

t.test("the full count on different nodes, or nothing", async (t) => {
  fc.assert(
    fc.property(nodes, replicas, extent, (all, count, number) => {
      const placed = place(7, number, count, all);
      const usable = all.filter(({ weight }) => weight > 0);
      if (usable.length < count) return placed === null;
      return (
        placed !== null &&
        placed.nodes.length === count &&
        new Set(placed.nodes).size === count &&
        placed.nodes.every((id) => usable.some(({ node }) => node === id))
      );
    }),
  );
  t.pass("for all");
});

t.test("two replicas share a domain only where domains do not suffice, and it is said", async (t) => {
  fc.assert(
    fc.property(nodes, replicas, extent, (all, count, number) => {
      const placed = place(7, number, count, all);
      if (placed === null) return true;
      const usable = all.filter(({ weight }) => weight > 0);
      const chosen = chosenOf(all, placed.nodes);
      const zones = (list: readonly PlacementNode[]): number =>
        new Set(list.map((node) => domainOf(node, 0))).size;
      // As many zones as there can be.
      if (zones(chosen) !== Math.min(count, zones(usable))) return false;
      const level = DOMAIN_LEVELS.findIndex(
        (_, depth) => new Set(chosen.map((node) => domainOf(node, depth))).size < count,
      );
      return placed.shared === (level < 0 ? null : DOMAIN_LEVELS[level]);
    }),
  );
  t.pass("for all");
});

t.test("a node that was not chosen goes or comes without any change", async (t) => {
  fc.assert(
    fc.property(nodes, replicas, extent, fc.nat(), (all, count, number, pick) => {
      const placed = place(7, number, count, all);
      if (placed === null) return true;
      const others = all.filter(({ node }) => !placed.nodes.includes(node));
      if (others.length === 0) return true;
      const gone = others[pick % others.length]!;
      const again = place(
        7,
        number,
        count,
        all.filter((node) => node !== gone),
      );
      return JSON.stringify(again) === JSON.stringify(placed);
    }),
  );
  t.pass("for all");
});

t.test("the order in which nodes are listed does not matter", async (t) => {
  fc.assert(
    fc.property(nodes, replicas, extent, (all, count, number) => {
      const one = place(7, number, count, all);
      return JSON.stringify(one) === JSON.stringify(place(7, number, count, [...all].reverse()));
    }),
  );
  t.pass("for all");
});

t.test("shares follow the weights", async (t) => {
  const weights = [1, 2, 3, 4];
  const all = weights.map(
    (weight, i): PlacementNode => ({
      node: i.toString(16).padStart(32, "0"),
      weight,
      domains: { zone: "z", rack: "r", host: `h${i}` },
    }),
  );
  const counts = new Map<string, number>();
  const extents = 20_000;
  for (let i = 0; i < extents; i++) {
    const [node] = place(42, i, 1, all)!.nodes;
    counts.set(node!, (counts.get(node!) ?? 0) + 1);
  }
  all.forEach(({ node, weight }) => {
    const share = (counts.get(node) ?? 0) / extents;
    t.ok(Math.abs(share - weight / 10) < 0.02, `weight ${weight} got ${share}`);
  });
});
