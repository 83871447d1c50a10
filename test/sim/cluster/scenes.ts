/**
 * Scenes: faults in an order that chance alone would hardly find, each made for one way in which copies, owners and
 * decisions can come apart. A scene begins while the volumes are served, says what its clients do meanwhile, and tells
 * how long it takes.
 */
import { DIRECTED_SCENES, type DirectedScene, DirectedScenes } from "./directed.js";
import { type Faults, OWNER_HOST, OWNERS } from "./faults.js";
import type { NodeHost } from "./node-host.js";
import { allExtents, USUAL_SHARES } from "./registers.js";
import {
  BURST_MAX,
  LOOK_MS,
  MANY_FLUSHES,
  MOSTLY_READS,
  MOSTLY_WRITES,
  NEW_LIVES,
  ONLY_FLUSHES,
  READS_ONLY,
  SceneHelp,
} from "./scene-help.js";

export const SCENES = [
  "soup",
  "stopped-owner",
  "split",
  "late-answers",
  "release",
  "away",
  "half-written",
  "blackout",
  "lossy",
  "lives",
  "half-break",
  "failed-resync",
  "joining",
  "replace",
  "grow",
  "wipe",
  "sick",
] as const;
type StormScene = (typeof SCENES)[number];
export type SceneName = StormScene | DirectedScene;
export const ALL_SCENES: readonly SceneName[] = [...SCENES, ...DIRECTED_SCENES];

/** Between two faults of the soup. */
const SOUP_PAUSES_MS = [300, 1000, 2500] as const;

function isDirected(name: SceneName): name is DirectedScene {
  return DIRECTED_SCENES.some((one) => one === name);
}

export class Scenes extends SceneHelp {
  readonly #directed: DirectedScenes;
  /** Asked once, when a member has joined. */
  #onJoined: (() => void) | null = null;

  constructor(faults: Faults) {
    super(faults);
    this.#directed = new DirectedScenes(faults);
  }

  /** A member has joined the in-sync ones of some volume. */
  joined(): void {
    const then = this.#onJoined;
    this.#onJoined = null;
    then?.();
    this.#directed.joined();
  }

  /** Nothing that a scene was waiting for happens any more. */
  override makePeace(): void {
    this.#onJoined = null;
    super.makePeace();
  }

  /** Begins the scene; how many ms it takes. */
  play(name: SceneName): number {
    this.#onJoined = null;
    const scenes: Record<StormScene, () => number> = {
      soup: () => this.#soup(),
      "stopped-owner": () => this.#stoppedOwner(),
      split: () => this.#split(),
      "late-answers": () => this.#lateAnswers(),
      release: () => this.#release(),
      away: () => this.#away(),
      "half-written": () => this.#halfWritten(),
      blackout: () => this.#blackout(),
      lossy: () => this.#lossy(),
      lives: () => this.#lives(),
      "half-break": () => this.#halfBreak(),
      "failed-resync": () => this.#failedResync(),
      joining: () => this.#joining(),
      replace: () => this.#replace(),
      grow: () => this.#grow(),
      wipe: () => this.#wipe(),
      sick: () => this.#sick(),
    };
    let ms = 0;
    this.faults.act(`scene ${name}`, () => {
      ms = isDirected(name) ? this.#directed.play(name) : scenes[name]();
    });
    return ms;
  }

  // ---- Scenes ------------------------------------------------------------------------------------------

  /** Anything, at any time. */
  #soup(): number {
    const ms = this.between(2000, 8000);
    const pauseMs = this.random.pick(SOUP_PAUSES_MS);
    this.atWork();
    for (let at = 0; at < ms; at += 1 + this.random.below(pauseMs)) {
      this.faults.after(at, () => this.faults.any());
      if (this.random.chance(0.2)) this.faults.after(at, () => this.atWork());
    }
    return ms;
  }

  /**
   * A gateway is stopped while answers are on their way to it, of renewals too, and goes on when another one serves.
   * Answers that come late for a moment are all there when it goes on.
   */
  #stoppedOwner(): number {
    const faults = this.faults;
    const host = this.ownerHost;
    const ms = this.between(3300, 5500);
    this.atWork({ pauseMs: 150, shares: this.random.pick([MANY_FLUSHES, USUAL_SHARES, READS_ONLY]) });
    const lateMs = this.random.chance(0.6) ? this.between(50, 1300) : 0;
    if (lateMs > 0) for (const { index } of faults.stage.nodes) faults.blockFor(index, host, lateMs + 5);
    faults.after(Math.max(0, lateMs - 30), () => this.hurry(BURST_MAX));
    faults.after(lateMs + 1, () => {
      const owner = faults.stage.owners[host - OWNER_HOST];
      if (owner !== null && owner !== undefined) faults.pause(owner.process, ms);
    });
    faults.after(lateMs + 20 + this.random.below(300), () => faults.takeOver());
    return lateMs + ms + 500;
  }

  /** Two parts of the network, with an owner in each that wants the volume. */
  #split(): number {
    const ms = this.between(4500, 9000);
    this.atWork({ pauseMs: 150, shares: this.random.pick([READS_ONLY, READS_ONLY, USUAL_SHARES]) });
    this.faults.split(ms);
    return ms + 300;
  }

  /** What the nodes answer to the owner is late, and somebody else takes the volume meanwhile. */
  #lateAnswers(): number {
    const { nodes } = this.faults.stage;
    const host = this.ownerHost;
    const ms = this.between(800, 4500);
    this.atWork({ shares: this.random.pick([MANY_FLUSHES, USUAL_SHARES]) });
    this.hurry(BURST_MAX);
    for (const { index } of nodes) this.faults.blockFor(index, host, ms + this.random.below(300));
    this.faults.after(this.random.below(1200), () => this.faults.takeOver());
    return ms + 500;
  }

  /** A volume is handed on in order, while answers of some nodes come late. */
  #release(): number {
    const { nodes } = this.faults.stage;
    const host = this.ownerHost;
    const isFlushing = this.random.chance(0.5);
    this.atWork({ pauseMs: isFlushing ? 6 : 20, shares: isFlushing ? ONLY_FLUSHES : MANY_FLUSHES });
    const begin = this.between(20, 100);
    this.faults.after(begin, () => {
      if (!isFlushing) {
        this.clients({ pauseMs: 100 });
        this.hurry(this.random.below(BURST_MAX));
      }
      for (const volume of this.faults.volumes()) volume.release();
      const cutAt = this.random.pick([0, 1, 3, 10]) * this.random.below(1000) * 0.001;
      this.faults.after(cutAt, () => {
        for (const { index } of nodes)
          if (this.random.chance(0.7)) this.faults.blockFor(index, host, this.random.below(1500));
      });
      this.faults.after(this.random.below(100), () => this.faults.takeOver());
    });
    return begin + 2500;
  }

  /** While most of what it has is cool, a member is away for a short time, in which a few extents are changed. */
  #away(): number {
    const node = this.faults.anyNode();
    const ms = this.between(1100, 4500);
    const rest = this.rest(() => {
      this.takeAway(node, ms);
      // Answers of another one are then under way while the record is changed.
      if (this.random.chance(0.5)) this.faults.slowDevice(this.faults.anyNode(), this.between(900, 2500));
      this.burst(this.between(20, 400), this.random.pick([MOSTLY_WRITES, NEW_LIVES]), () => {
        if (this.random.chance(0.5)) this.clients({ isResting: true });
      });
      if (this.random.chance(0.3)) this.faults.after(ms, () => this.faults.amend());
      this.faults.after(ms + 100, () =>
        this.atWork({ shares: this.random.pick([MOSTLY_READS, MOSTLY_WRITES]), inUse: allExtents() }),
      );
    });
    return rest + ms + 2500;
  }

  /** Changes of cool extents reach some members only; then the owner is gone, and so, soon, may be the next one. */
  #halfWritten(): number {
    const faults = this.faults;
    const { nodes } = faults.stage;
    const cutMs = this.random.pick([100, 1500, 3500]) + this.random.below(800);
    const rest = this.rest(() => {
      const host = this.ownerHost;
      const spared = this.random.pick(nodes);
      for (const node of nodes)
        if (node !== spared && this.random.chance(0.8)) faults.blockFor(host, node.index, cutMs + 100);
      this.burst(this.between(5, 120), MOSTLY_WRITES);
      faults.after(cutMs, () => {
        const index = host - OWNER_HOST;
        faults.act("owner", () => faults.killOwner(index, this.between(1000, 6000)));
        faults.takeOver();
        if (this.random.chance(0.3)) this.#whenReconciling(6000, () => this.#handOn());
        else this.#whileReconciled((index + 1) % OWNERS);
      });
    });
    return rest + cutMs + 9000;
  }

  /** The next owner finds a member slow, away or stopped, and may not live long. */
  #whileReconciled(next: number): void {
    const faults = this.faults;
    const node = faults.anyNode();
    const begin = this.random.pick([0, 3400, 3460]);
    faults.after(begin, () => {
      const ms = this.between(500, 3500);
      if (this.random.chance(0.5)) faults.slowDevice(node, ms);
      else this.takeAway(node, ms);
      faults.after(this.random.below(ms + 300), () => {
        if (this.random.chance(0.6)) faults.act("owner", () => faults.killOwner(next));
      });
    });
    faults.after(begin + 1000, () => this.atWork({ shares: MOSTLY_READS, inUse: allExtents() }));
  }

  /** `then` once, when somebody serves a volume that has something to reconcile; within `ms`, or never. */
  #whenReconciling(ms: number, then: () => void): void {
    if (ms <= 0) return;
    const isBusy = this.faults.volumes().some(({ set }) => set !== null && set.work.reconcile > 0);
    if (isBusy) then();
    else this.faults.after(LOOK_MS, () => this.#whenReconciling(ms - LOOK_MS, then));
  }

  /** Whoever serves lets go in order, and somebody else wants the volumes soon. */
  #handOn(): void {
    const faults = this.faults;
    faults.act("release", () => {
      for (const volume of faults.volumes()) volume.release();
    });
    faults.after(this.random.below(400), () => faults.takeOver());
  }

  /** All nodes lose power at once: at any time, or when a member has just joined. */
  #blackout(): number {
    const faults = this.faults;
    const { nodes } = faults.stage;
    const all = (): void => {
      faults.act("blackout", () => faults.powerLoss(nodes));
      if (this.random.chance(0.3)) faults.killOwner(Math.max(0, faults.serving()));
    };
    this.atWork({ pauseMs: 150, shares: this.random.pick([MANY_FLUSHES, MOSTLY_WRITES]) });
    if (this.random.chance(0.3)) {
      faults.after(this.between(50, 1500), all);
      return 6500;
    }
    this.takeAway(faults.anyNode(), this.between(1200, 2500));
    this.#onJoined = () => {
      this.hurry(this.random.below(BURST_MAX));
      faults.after(this.random.pick([0, 1, 10, 100]) * this.random.u32() * 2 ** -32, all);
    };
    return 8000;
  }

  /**
   * One node loses power in calm times, and what it alone lacks must be found; perhaps all lose it soon after. Or all but
   * one lose it, and that one cannot be reached for a while.
   */
  #lossy(): number {
    const faults = this.faults;
    this.atWork();
    faults.after(2480, () => {
      const wasCalm = faults.isCalm;
      if (this.random.chance(0.3)) {
        this.#handOn();
        const node = faults.anyNode();
        faults.after(this.random.below(300), () => faults.powerLoss([node], wasCalm));
        return;
      }
      this.hurry(this.random.below(BURST_MAX));
      const isOneLeft = this.random.chance(0.4);
      faults.after(this.between(1, 30), () => (isOneLeft ? this.#oneLeft(wasCalm) : this.#oneLost(wasCalm)));
    });
    return 10_000;
  }

  #oneLost(wasCalm: boolean): void {
    const faults = this.faults;
    const { nodes } = faults.stage;
    const node = faults.anyNode();
    faults.act("power", () => faults.powerLoss([node], wasCalm));
    // It gets back slowly what it lacks, while the next owner's clients flush.
    if (this.random.chance(0.5)) faults.after(3000, () => faults.slowDevice(node, 3000));
    const index = Math.max(0, faults.serving());
    if (this.random.chance(0.6)) faults.killOwner(index);
    if (this.random.chance(0.7)) faults.after(this.random.below(200), () => faults.takeOver());
    this.atWork({ pauseMs: 150, shares: this.random.pick([MANY_FLUSHES, MOSTLY_READS]) });
    if (this.random.chance(0.6)) faults.after(this.between(100, 6000), () => faults.powerLoss(nodes));
    else if (this.random.chance(0.5))
      faults.after(this.between(100, 6000), () => faults.powerLoss([faults.anyNode()]));
  }

  /** Whoever takes the volume over must wait for the one that has everything. */
  #oneLeft(wasCalm: boolean): void {
    const faults = this.faults;
    const { nodes } = faults.stage;
    const left = faults.anyNode();
    const members = new Set(faults.servingVolume()?.record?.members.map(({ node }) => node));
    const losers = nodes.filter((node) => node !== left && members.has(node.id));
    faults.act("power", () => faults.powerLoss(losers, wasCalm));
    faults.isolate(left.index, this.between(7500, 9500), 3);
    faults.killOwner(Math.max(0, faults.serving()), 9000);
    faults.after(300, () => faults.takeOver());
    this.atWork({ pauseMs: 150, shares: MOSTLY_READS, inUse: allExtents() });
  }

  /** Cool extents are freed and made anew, and one node loses power before it has that. */
  #lives(): number {
    const faults = this.faults;
    const rest = this.rest(() => {
      const wasCalm = faults.isCalm;
      this.burst(this.between(5, 150), NEW_LIVES);
      // What is acknowledged meanwhile is on the others.
      faults.after(this.between(5, 200), () => {
        faults.act("power", () => faults.powerLoss([faults.anyNode()], wasCalm));
        if (this.random.chance(0.4)) faults.killOwner(Math.max(0, faults.serving()));
      });
      faults.after(2500, () => this.atWork({ shares: MOSTLY_READS, inUse: allExtents() }));
    });
    return rest + 6000;
  }

  /** What the owner has sent arrives after it was sent again over another connection. */
  #halfBreak(): number {
    this.atWork({ isNarrow: true, inUse: [0, 1], pauseMs: 20 });
    const times = this.between(1, 3);
    this.faults.after(this.random.below(1500), () => this.hurry(BURST_MAX));
    for (let i = 0; i < times; i++) {
      this.faults.after(this.random.below(1500), () => {
        this.faults.stage.network.breakOne(this.ownerHost, true);
      });
    }
    this.faults.after(1600, () => this.atWork());
    return 3500;
  }

  /** A member comes back, and before it has everything it, or somebody it copies from, is away again. */
  #failedResync(): number {
    const faults = this.faults;
    const node = faults.anyNode();
    const ms = this.between(1200, 3000);
    const rest = this.random.chance(0.5) ? this.rest(() => undefined) : 0;
    faults.after(rest, () => {
      this.takeAway(node, ms);
      this.burst(this.between(100, 600), MOSTLY_WRITES, () =>
        this.atWork({ pauseMs: 150, shares: this.random.pick([MOSTLY_WRITES, USUAL_SHARES]) }),
      );
      let at = ms + this.random.below(200);
      for (let left = this.between(1, 3); left > 0; left--) {
        at += this.random.pick([5, 40, 400]) + this.random.below(100);
        faults.after(at, () => {
          this.hurry(this.random.below(20));
          this.#interfere(node);
        });
      }
    });
    return rest + ms + 5000;
  }

  #interfere(node: NodeHost): void {
    const faults = this.faults;
    const other = this.random.chance(0.6) ? node : faults.anyNode();
    const how = this.random.below(4);
    if (how === 0) faults.killNode(other, this.between(20, 1500));
    else if (how === 1) faults.stage.network.breakOne(other.index, false);
    else if (how === 2) faults.slowDevice(other, this.between(50, 800));
    else this.takeAway(other, this.between(20, 2500));
  }

  /**
   * A member is about to join: between the begin of its final flush and the record that says so it, or everybody, is away,
   * and many changes are open. The record may take long.
   */
  #joining(): number {
    const faults = this.faults;
    const { nodes, plan } = faults.stage;
    const node = faults.anyNode();
    const ms = this.between(1100, 2000);
    this.takeAway(node, ms);
    this.burst(this.between(50, 300), MOSTLY_WRITES, () => this.atWork({ pauseMs: 30 }));
    if (plan.configNodes === 1 && this.random.chance(0.6))
      faults.after(ms, () => faults.slowDevice(nodes[0]!, this.between(500, 3000)));
    const delayMs = this.random.pick([0, 0, 1, 10, 100]) * this.random.u32() * 2 ** -32;
    this.whenJoining(ms + 3500, (joining) => {
      this.hurry(BURST_MAX);
      faults.after(delayMs, () => {
        if (this.random.chance(0.3)) faults.powerLoss(nodes);
        else if (this.random.chance(0.5)) faults.stage.network.breakOne(joining.index, false);
        else this.takeAway(joining, this.between(5, 2000));
      });
    });
    return ms + 5500;
  }

  /** Members give their seats to others, while some are away and come back. */
  #replace(): number {
    const faults = this.faults;
    this.atWork();
    for (let at = 0; at < 4000; at += 300 + this.random.below(1500)) {
      faults.after(at, () => faults.act("replace", () => faults.replace()));
      if (this.random.chance(0.5))
        faults.after(at + this.random.below(500), () =>
          this.takeAway(faults.anyNode(), this.between(300, 2500)),
        );
    }
    return 6500;
  }

  /**
   * A further seat joins a volume under load. What goes wrong does so at any time, while it is about to count, or when it
   * has just come to count and the others have not given up what is its own now.
   */
  #grow(): number {
    const faults = this.faults;
    this.atWork({ pauseMs: this.random.pick([30, 150, 400]) });
    faults.act("grow", () => faults.grow());
    const ms = this.between(2500, 6000);
    const delayMs = this.random.pick([0, 0, 1, 10, 100]) * this.random.u32() * 2 ** -32;
    this.#onJoined = () => {
      const how = this.random.below(10);
      if (how < 4) faults.after(delayMs, () => faults.powerLoss(faults.stage.nodes));
      else {
        const shares = this.random.pick([NEW_LIVES, MOSTLY_WRITES]);
        this.burst(this.between(20, 300), shares, () => this.atWork());
      }
      if (how > 7) this.#giveUpSlowly();
      else if (how > 4) faults.after(delayMs, () => this.#interrupt(faults.anyNode()));
    };
    if (this.random.chance(0.5))
      this.whenJoining(ms, (joining) => {
        this.hurry(BURST_MAX);
        faults.after(delayMs, () => this.#interrupt(joining));
      });
    for (let at = 0; at < ms; at += 400 + this.random.below(2500)) {
      const how = this.random.below(6);
      if (how < 2) faults.after(at, () => this.takeAway(faults.anyNode(), this.between(300, 2500)));
      else if (how === 2) faults.after(at, () => faults.act("replace", () => faults.replace()));
      else if (how === 3)
        faults.after(at, () => faults.slowDevice(faults.anyNode(), this.between(200, 1500)));
      else if (how === 4) faults.after(at, () => faults.act("grow", () => faults.grow()));
    }
    return ms + 2000;
  }

  /** What one still has that is another's now is listed when a member comes back, of which it was freed meanwhile. */
  #giveUpSlowly(): void {
    const { faults } = this;
    const ms = this.between(1300, 2500);
    const [slow, away] = [faults.anyNode(), faults.anyNode()];
    if (slow === away) return;
    faults.slowDevice(slow, ms + 500);
    this.takeAway(away, ms);
    this.atWork({ pauseMs: 60, shares: NEW_LIVES, inUse: allExtents() });
    faults.after(ms, () => this.atWork({ shares: MOSTLY_READS }));
  }

  /** The owner, a node or its power is gone; or the volume is handed on. */
  #interrupt(node: NodeHost): void {
    const faults = this.faults;
    const how = this.random.below(7);
    if (how < 2) faults.powerLoss(faults.stage.nodes);
    else if (how === 2) faults.powerLoss([node]);
    else if (how === 3) faults.stage.network.breakOne(node.index, false);
    else if (how === 4) this.takeAway(node, this.between(5, 2000));
    else if (how === 5) for (const volume of faults.volumes()) volume.release();
    else faults.killOwner(Math.max(0, faults.serving()));
    if (how > 4) faults.after(this.random.below(200), () => faults.takeOver());
  }

  /** Somebody wipes a node's device, or starts it on an old backup, in calm times. */
  #wipe(): number {
    const faults = this.faults;
    this.atWork({ pauseMs: 200 });
    faults.after(2500, () => faults.act("wipe", () => faults.wipe()));
    if (this.random.chance(0.5)) faults.after(2600 + this.random.below(2000), () => faults.takeOver());
    if (this.random.chance(0.5))
      faults.after(2600 + this.random.below(3000), () => faults.killOwner(Math.max(0, faults.serving())));
    return 6000;
  }

  /** Rot, errors, or no space on one node's device, while members come and go. */
  #sick(): number {
    const faults = this.faults;
    this.atWork();
    for (let at = 0; at < 5000; at += 200 + this.random.below(1000)) {
      faults.after(at, () => faults.act("sick", () => faults.beSick()));
      if (this.random.chance(0.3))
        faults.after(at, () => this.takeAway(faults.anyNode(), this.between(300, 3000)));
      if (this.random.chance(0.1)) faults.after(at, () => faults.takeOver());
    }
    return 7000;
  }
}
