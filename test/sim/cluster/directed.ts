/**
 * Scenes that lead the cluster by the hand to where one rule alone stands between it and a loss: each part happens when
 * the one before has had its effect. They are played beside the others (scenes.ts).
 */

import type { Member } from "../../../lib/replica/owner/member.js";
import { PassStage } from "../../../lib/replica/owner/resync-pass.js";
import type { NodeHost } from "./node-host.js";
import { allExtents } from "./registers.js";
import { BURST_MAX, LOOK_MS, MOSTLY_WRITES, READS_ONLY, SceneHelp } from "./scene-help.js";

export const DIRECTED_SCENES = ["strangers", "take-over", "proposed", "short-lease", "slow-source"] as const;
export type DirectedScene = (typeof DIRECTED_SCENES)[number];

/** Between two strangers. */
const STRANGER_PAUSE_MS = 150;

export class DirectedScenes extends SceneHelp {
  /** How many ms it takes. */
  play(name: DirectedScene): number {
    const scenes: Record<DirectedScene, () => number> = {
      strangers: () => this.#strangers(),
      "take-over": () => this.#takeOver(),
      proposed: () => this.#proposed(),
      "short-lease": () => this.#shortLease(),
      "slow-source": () => this.#slowSource(),
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
   * A member gets everything from others, of which the first one is reached anew all the time, before it has done what
   * it was sent, while another one is slow to answer.
   */
  #slowSource(): number {
    const faults = this.faults;
    const host = this.ownerHost;
    const ms = this.between(1100, 1600);
    const node = faults.anyNode();
    this.cut(node, ms);
    this.burst(this.between(50, 300), MOSTLY_WRITES, () =>
      this.atWork({ pauseMs: 20, shares: MOSTLY_WRITES, inUse: this.some(0.4) }),
    );
    this.#whenStage(ms + 2000, PassStage.Copying, ({ node: id }) => {
      const others = faults.stage.nodes.filter((one) => one.id !== id);
      const first = others.shift();
      if (first === undefined) return;
      for (const slow of others) faults.slowDevice(slow, 2000);
      for (let at = 0; at < 2000; at += this.between(150, 500))
        faults.after(at, () => this.#reachAnew(host, first));
    });
    return ms + 4500;
  }

  /** What is sent to the node is lost with its connection. */
  #reachAnew(host: number, node: NodeHost): void {
    const { faults } = this;
    if (this.random.chance(0.5)) this.hurry(6);
    faults.blockFor(host, node.index, 25);
    faults.after(this.between(2, 20), () => faults.stage.network.breakBetween(host, node.index));
  }
}
