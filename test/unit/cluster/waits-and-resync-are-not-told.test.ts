import t from "tap";
import { Observations } from "../../../lib/cluster/observations.js";
import type { OwnedVolume } from "../../../lib/cluster/owned-volume.js";
import type { Member } from "../../../lib/replica/owner/member.js";
import { ResyncPass } from "../../../lib/replica/owner/resync-pass.js";

/** As much of a volume as is looked at. */
class Volume {
  readonly id = 7;
  waiting: string | null = null;
  readonly member = { node: "ab".repeat(16), pass: null as ResyncPass | null };
  readonly set = { members: [this.member as unknown as Member] };

  get owned(): OwnedVolume {
    return this as unknown as OwnedVolume;
  }
}

class Bench {
  readonly told: string[] = [];
  readonly volume = new Volume();
  readonly observations = new Observations({ tell: (_volume, text) => this.told.push(text) });
  second = 0;

  look(): void {
    this.second++;
    const volumes = [this.volume.owned];
    this.observations.look(volumes, () => "v", 1_000_000 + 1000 * this.second, 1000 * this.second);
  }

  progress() {
    return this.observations.progressOf(7, this.volume.set.members[0]!, 1000 * this.second);
  }
}

t.test("a wait is told with its beginning, once, and its end", async (t) => {
  const b = new Bench();
  b.volume.waiting = "volume v waits: no copy answers";
  b.look();
  t.equal(b.observations.waitingSince(7), 1_001_000);
  t.same(b.told, [], "most are over at once");
  b.look();
  b.look();
  t.equal(b.observations.waitingSince(7), 1_001_000);
  b.volume.waiting = null;
  b.look();
  t.equal(b.observations.waitingSince(7), null);
  t.same(b.told, ["volume v waits: no copy answers", "volume v goes on after 3 s"]);
});

t.test("resync says what is left, and how long that takes at its rate", async (t) => {
  const b = new Bench();
  t.equal(b.progress(), null);
  const pass = new ResyncPass();
  for (let extent = 0; extent < 100; extent++) pass.owed.add(extent);
  pass.total = 100;
  b.volume.member.pass = pass;
  b.look();
  t.same(b.progress(), { total: 100, toGo: 100, secondsLeft: null });
  for (let extent = 0; extent < 20; extent++) pass.owed.delete(extent);
  b.look();
  b.look();
  t.same(b.progress(), { total: 100, toGo: 80, secondsLeft: 8 }, "20 in two seconds");
  b.volume.member.pass = null;
  b.look();
  t.equal(b.progress(), null);
});
