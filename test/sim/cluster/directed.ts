/**
 * Scenes that lead the cluster by the hand to where one rule alone stands between it and a loss: each part happens when
 * the one before has had its effect. They are played beside the others (scenes.ts).
 */

import type { Member } from "../../../lib/replica/owner/member.js";
import { PassStage } from "../../../lib/replica/owner/resync-pass.js";
import { OWNER_HOST, OWNERS } from "./faults.js";
import type { NodeHost } from "./node-host.js";
import { allExtents } from "./registers.js";
import {
  BURST_MAX,
  LOOK_MS,
  MOSTLY_READS,
  MOSTLY_WRITES,
  ONLY_FREES,
  ONLY_WRITES,
  READS_ONLY,
  SceneHelp,
} from "./scene-help.js";

export const DIRECTED_SCENES = [
  "strangers",
  "take-over",
  "proposed",
  "short-lease",
  "slow-source",
  "left-behind",
  "in-doubt",
  "broken-resync",
  "listing",
  "in-turn",
  "new-life",
  "given-up",
] as const;
export type DirectedScene = (typeof DIRECTED_SCENES)[number];

/** Of members that lose power in turn, and between two of them: the first one is whole again by then. */
const TURNS_MAX = 3;
const TURN_MS = 6500;
/** Within this time clients that rested have asked for something. */
const CALL_MS = 100;
/** Between two strangers. */
const STRANGER_PAUSE_MS = 150;

export class DirectedScenes extends SceneHelp {
  /** Asked once, when a member has joined. */
  #onJoined: (() => void) | null = null;

  /** A member has joined the in-sync ones of some volume. */
  joined(): void {
    const then = this.#onJoined;
    this.#onJoined = null;
    then?.();
  }

  /** How many ms it takes. */
  play(name: DirectedScene): number {
    this.#onJoined = null;
    const scenes: Record<DirectedScene, () => number> = {
      strangers: () => this.#strangers(),
      "take-over": () => this.#takeOver(),
      proposed: () => this.#proposed(),
      "short-lease": () => this.#shortLease(),
      "slow-source": () => this.#slowSource(),
      "left-behind": () => this.#leftBehind(),
      "in-doubt": () => this.#inDoubt(),
      "broken-resync": () => this.#brokenResync(),
      listing: () => this.#listing(),
      "in-turn": () => this.#inTurn(),
      "new-life": () => this.#newLife(),
      "given-up": () => this.#givenUp(),
    };
    return scenes[name]();
  }

  /** Somebody says wrong things to the nodes while they work: as nobody, as an owner, and twice under one number. */
  #strangers(): number {
    const { stage } = this.faults;
    this.atWork({ pauseMs: 150 });
    for (let at = 0; at < 3000; at += 1 + this.random.below(STRANGER_PAUSE_MS)) {
      this.faults.after(at, () => {
        const owner = stage.owners[Math.max(0, this.faults.serving())];
        if (owner === null || owner === undefined) return;
        const how = this.random.below(3);
        if (how === 0) stage.stranger.forge(owner.epoch);
        else if (how === 1) stage.stranger.pretend(owner.peerId, owner.epoch);
        else stage.stranger.repeat();
      });
    }
    return 3500;
  }

  /** Another gateway wants the volume while the first one works as hard as it can, or while nobody asks it for anything. */
  #takeOver(): number {
    const faults = this.faults;
    const isBusy = this.random.chance(0.6);
    this.clients({ isResting: !isBusy });
    const begin = this.between(100, 600);
    if (isBusy) this.atWork({ pauseMs: 20, shares: this.random.pick([MOSTLY_WRITES, READS_ONLY]) });
    faults.after(begin, () => {
      if (isBusy) this.hurry(BURST_MAX);
      for (const node of faults.stage.nodes) {
        if (isBusy && this.random.chance(0.7)) faults.slowDevice(node, this.between(100, 1500));
      }
      faults.after(this.random.below(60), () => faults.takeOver());
    });
    faults.after(begin + 4500, () => this.atWork());
    return begin + 5000;
  }

  /** A record that calls a member in sync is slow to be chosen; meanwhile the member misses changes and is cut off. */
  #proposed(): number {
    const faults = this.faults;
    const host = this.ownerHost;
    const { nodes, network } = faults.stage;
    const node = faults.anyNode();
    const ms = this.between(1100, 1600);
    this.cut(node, ms);
    this.burst(this.between(50, 300), MOSTLY_WRITES, () =>
      this.atWork({ pauseMs: 60, shares: MOSTLY_WRITES }),
    );
    this.#whenStage(ms + 3000, PassStage.Final, () => {
      for (const one of nodes) if (one.isConfig && one !== node) faults.slowDevice(one, 700);
    });
    this.#whenStage(ms + 3500, PassStage.Proposed, ({ node: id }) => {
      const joining = nodes.find((one) => one.id === id)!;
      faults.blockFor(host, joining.index, 400);
      this.hurry(BURST_MAX);
      faults.after(this.between(1, 60), () => network.breakBetween(host, joining.index));
    });
    return ms + 4500;
  }

  /** `then` once, when a pass of some member has come so far; within `ms`, or never. */
  #whenStage(ms: number, stage: PassStage, then: (member: Member) => void): void {
    if (ms <= 0) return;
    for (const { set } of this.faults.volumes()) {
      const found = set?.members.find(({ pass }) => pass?.stage === stage);
      if (found === undefined) continue;
      then(found);
      return;
    }
    this.faults.after(LOOK_MS, () => this.#whenStage(ms - LOOK_MS, stage, then));
  }

  /** A member in resync is without its lease for a moment: what is changed then, it is not even sent. */
  #shortLease(): number {
    const faults = this.faults;
    const { nodes } = faults.stage;
    const node = faults.anyNode();
    const ms = this.between(1800, 2800);
    this.cut(node, ms);
    this.burst(this.between(50, 300), MOSTLY_WRITES, () =>
      this.atWork({ pauseMs: 60, shares: MOSTLY_WRITES, inUse: allExtents() }),
    );
    faults.after(ms, () => faults.slowDevice(node, this.between(300, 1500)));
    const withoutMs = this.between(2000, 3300);
    faults.after(ms - this.between(1500, 1800), () => {
      for (const other of nodes) {
        if (!other.isConfig || other === node) continue;
        faults.blockFor(node.index, other.index, withoutMs);
        faults.blockFor(other.index, node.index, withoutMs);
      }
    });
    return ms + 4500;
  }

  /**
   * A member gets everything from others. What the last one of them says comes late, so that the copying waits for it
   * where the volume is in use; meanwhile the first one is reached anew, without what it was sent, and is copied from then.
   */
  #slowSource(): number {
    const faults = this.faults;
    const { nodes } = faults.stage;
    const host = this.ownerHost;
    const ms = this.between(1100, 1600);
    this.cut(faults.anyNode(), ms);
    // In the same places, so that what is copied is in use.
    this.burst(this.between(50, 300), MOSTLY_WRITES, () => this.clients({ pauseMs: 60 }));
    this.#whenStage(ms + 2000, PassStage.Copying, ({ node: id }) => {
      const others = nodes.filter((one) => one.id !== id);
      const first = others[0];
      const last = others.at(-1);
      if (first === undefined || last === undefined || first === last) return;
      faults.blockFor(last.index, host, this.between(250, 900));
      faults.blockFor(host, first.index, 25);
      this.hurry(this.between(3, 12));
      faults.after(this.between(5, 24), () => faults.stage.network.breakBetween(host, first.index));
    });
    return ms + 4500;
  }

  /** While nothing is hot, changes reach one member only, and their owner is gone. `then`: what happens to that member. */
  #onOneOnly(then: (node: NodeHost, next: number) => void): number {
    const faults = this.faults;
    const { nodes } = faults.stage;
    const cutMs = this.between(60, 400);
    const rest = this.rest(() => {
      const host = this.ownerHost;
      const node = faults.anyNode();
      for (const other of nodes) if (other !== node) faults.blockFor(host, other.index, cutMs + 50);
      this.burst(cutMs - 20, MOSTLY_WRITES);
      faults.after(cutMs, () => {
        const index = host - OWNER_HOST;
        faults.act("owner", () => faults.killOwner(index, this.between(6000, 9000)));
        faults.takeOver();
        then(node, OWNER_HOST + ((index + 1) % OWNERS));
      });
    });
    return rest + cutMs;
  }

  /** The only member that has what was not answered comes back to a volume that is owned again. */
  #leftBehind(): number {
    const faults = this.faults;
    const ms = this.#onOneOnly((node, next) => {
      faults.isolate(node.index, this.between(4800, 6500), 3);
      faults.stage.network.breakBetween(next, node.index);
      faults.after(4000, () => this.atWork({ shares: MOSTLY_READS }));
    });
    return ms + 9000;
  }

  /** The next owner finds members that differ, and cannot make them equal for a while. */
  #inDoubt(): number {
    const faults = this.faults;
    const ms = this.#onOneOnly((_node, next) => {
      this.#whenServed(next, 7000, () => {
        faults.blockFor(faults.anyNode().index, next, this.between(1500, 4000));
        this.clients({ isResting: this.random.chance(0.5) });
      });
    });
    faults.after(ms + 8000, () => this.atWork());
    return ms + 9000;
  }

  /** `then` once, when the gateway on `host` serves; within `ms`, or never. */
  #whenServed(host: number, ms: number, then: () => void): void {
    if (ms <= 0) return;
    if (this.faults.stage.owners[host - OWNER_HOST]?.serving === true) then();
    else this.faults.after(LOOK_MS, () => this.#whenServed(host, ms - LOOK_MS, then));
  }

  /** A resync is broken off, of what was changed before the record was. */
  #brokenResync(): number {
    const faults = this.faults;
    const host = this.ownerHost;
    const node = faults.anyNode();
    const ms = this.between(1800, 2400);
    this.cut(node, ms);
    this.burst(this.between(50, 300), MOSTLY_WRITES, () => this.atWork({ shares: MOSTLY_READS }));
    faults.after(ms - 200, () => faults.act("amend", () => faults.amend()));
    faults.after(ms, () => faults.slowDevice(node, 1500));
    this.#whenStage(ms + 2000, PassStage.Copying, () => {
      const isSlow = this.random.chance(0.7);
      faults.after(isSlow ? this.between(5, 400) : 0, () =>
        faults.stage.network.breakBetween(host, node.index),
      );
    });
    return ms + 4500;
  }

  /** Places that nobody has changed for long are changed while the lists for a resync are read. */
  #listing(): number {
    const ms = this.between(1100, 1600);
    const node = this.faults.anyNode();
    const rest = this.rest(() => {
      this.cut(node, ms);
      this.burst(this.between(20, 100), MOSTLY_WRITES);
      this.#whenStage(ms + 2000, PassStage.Listing, () => {
        this.atWork({ pauseMs: 60, shares: MOSTLY_WRITES, inUse: allExtents() });
        this.hurry(12);
      });
    });
    return rest + ms + 4000;
  }

  /** One member after the other loses its power, each when all is well again; with the last one the owner is gone. */
  #inTurn(): number {
    const faults = this.faults;
    const { nodes } = faults.stage;
    const begin = this.random.below(nodes.length);
    const losers = [...nodes.slice(begin), ...nodes.slice(0, begin)].slice(0, TURNS_MAX);
    this.atWork({ pauseMs: 400 });
    losers.forEach((node, turn) => {
      faults.after(TURN_MS * (turn + 1), () => {
        const wasCalm = faults.isCalm;
        this.atWork({ pauseMs: 400, shares: MOSTLY_WRITES });
        this.hurry(this.random.below(BURST_MAX));
        faults.after(this.between(1, 30), () => {
          faults.act("power", () => faults.powerLoss([node], wasCalm));
          if (turn < losers.length - 1) return;
          faults.killOwner(Math.max(0, faults.serving()), 8000);
          faults.takeOver();
          this.atWork({ shares: MOSTLY_READS, inUse: allExtents() });
        });
      });
    });
    return TURN_MS * (losers.length + 1) + 3000;
  }

  /**
   * A cool extent is freed and made anew, and is cool again on all members but one, of which no sync is done; that one loses
   * its power, and with it both, and the owner is gone.
   */
  #newLife(): number {
    const faults = this.faults;
    const coolMs = this.between(1700, 2600);
    const rest = this.rest(() => {
      const node = faults.anyNode();
      const volume = faults.servingVolume()?.volume ?? 0;
      const has = allExtents().filter((extent) => node.has(volume, extent));
      if (has.length === 0) return;
      const inUse = [this.random.pick(has)];
      faults.holdSyncs(node, 2 * CALL_MS + coolMs + 1000);
      // What waited for a sync would not become cool.
      this.clients({ isResting: false, fua: 0, pauseMs: CALL_MS, shares: ONLY_FREES, inUse });
      faults.after(CALL_MS, () => this.clients({ shares: ONLY_WRITES }));
      faults.after(2 * CALL_MS, () => this.clients({ isResting: true }));
      faults.after(2 * CALL_MS + coolMs, () => {
        const wasCalm = faults.isCalm;
        faults.act("power", () => faults.powerLoss([node], wasCalm));
        faults.killOwner(Math.max(0, faults.serving()), 8000);
        faults.takeOver();
        this.atWork({ pauseMs: 60, shares: READS_ONLY, inUse });
      });
    });
    return rest + 2 * CALL_MS + coolMs + 7000;
  }

  /**
   * A further seat comes to count, and one that has extents which are others' now does not come to hear that they are to go.
   * Of those one is freed while another of its holders is away, which comes back before.
   */
  #givenUp(): number {
    const faults = this.faults;
    const ms = this.between(1300, 2200);
    const rest = this.rest(() => {
      this.#onJoined = () => this.#freeWhatIsGivenUp(ms);
      faults.act("grow", () => faults.grow());
    });
    faults.after(rest + ms + 3500, () => this.atWork({ shares: MOSTLY_READS }));
    return rest + ms + 5000;
  }

  #freeWhatIsGivenUp(ms: number): void {
    const faults = this.faults;
    const set = faults.servingVolume()?.set;
    if (set === undefined || set === null) return;
    for (const extent of allExtents()) {
      const own: NodeHost[] = [];
      const others: NodeHost[] = [];
      for (const member of set.members) {
        const node = faults.stage.nodes.find(({ id }) => id === member.node)!;
        if (node.has(set.volume, extent)) (member.holds(extent) ? own : others).push(node);
      }
      for (const keeper of others) {
        const away = own.find((node) => this.#canDecideWithout(keeper, node));
        if (away === undefined) continue;
        faults.blockFor(keeper.index, this.ownerHost, ms + 700);
        this.cut(away, ms);
        this.clients({ isResting: false, pauseMs: 30, shares: ONLY_FREES, inUse: [extent] });
        faults.after(ms - 100, () => this.clients({ isResting: true }));
        return;
      }
    }
  }

  /** A majority of the config nodes is left. */
  #canDecideWithout(...nodes: readonly NodeHost[]): boolean {
    const { configNodes } = this.faults.stage.plan;
    return 2 * nodes.filter(({ isConfig }) => isConfig).length < configNodes;
  }
}
